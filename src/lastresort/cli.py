"""One verb each. Results go to the output, messages and progress to standard error; exit 0 ok, 1 input or data error, 2 usage."""

from __future__ import annotations

import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from . import __version__
from .errors import DataError, LastResortError, MissingExtraError

if TYPE_CHECKING:
    from .data import BadLine
    from .evaluation import Row
    from .types import Dialogue, ScoredDialogue

app = typer.Typer(
    name="lastresort",
    help="Decides, as a last resort, when a chat assistant may leave a persistently abusive conversation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
EXTRA_OF_VERB = {"train": "train", "export": "train", "baselines": "train", "card": "train"}

ModelOption = Annotated[Path | None, typer.Option("--model", help="model folder; default: the shipped model")]
OutputOption = Annotated[Path, typer.Option("--output", "-o", help="file to write, - for standard output")]
SkipOption = Annotated[Path | None, typer.Option("--skip-bad", help="write bad lines to this file and go on")]
TableOption = Annotated[bool, typer.Option("--table", help="also print a readable table of every conversation")]


def _version(show: bool) -> None:
    if show:
        typer.echo(f"lastresort {__version__}")
        raise typer.Exit


@app.callback()
def root(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")] = False) -> None:
    """Decides, as a last resort, when a chat assistant may leave a persistently abusive conversation."""


@app.command()
def score(
    source: Annotated[Path, typer.Argument(metavar="INPUT.jsonl", help="dialogues, one a line; .gz; - for standard input")],
    output: OutputOption = Path("-"),
    model: ModelOption = None,
    policy: Annotated[Path | None, typer.Option("--policy", help="policy file; default: the model's own")] = None,
    skip_bad: SkipOption = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="threads; default: all CPUs of this process")] = None,
    table: TableOption = False,
) -> None:
    """Scores dialogues and decides on each: one line a conversation, in input order."""
    from .batch import score_dialogues
    from .conversation import load
    from .data import read_dialogues, scored_to_json

    _protect((source,), (output, skip_bad))
    monitor = load(model, policy=policy)
    with _bad_lines(skip_bad) as on_bad, _open_output(output) as stream:
        texts: deque[Dialogue] = deque()
        dialogues = read_dialogues(source, on_bad=on_bad)
        if table:
            dialogues = _remember(dialogues, texts)
        for scored in _progress(score_dialogues(monitor, dialogues, workers=workers), "scoring"):
            _write_line(stream, scored_to_json(scored))
            if table:
                _print_conversation(scored, texts.popleft())


@app.command()
def decide(
    source: Annotated[Path, typer.Argument(metavar="SCORED.jsonl", help="output of `score`; - for standard input")],
    policy: Annotated[Path, typer.Option("--policy", help="policy file")],
    output: OutputOption = Path("-"),
    skip_bad: SkipOption = None,
    table: TableOption = False,
) -> None:
    """Decides again from stored scores; no model is loaded."""
    from .conversation import decide as decide_again
    from .data import iter_records, scored_to_json
    from .policy import DecisionPolicy, read_policy
    from .types import ScoredDialogue

    _protect((source,), (output, skip_bad))
    rules = DecisionPolicy(read_policy(policy))
    with _bad_lines(skip_bad) as on_bad, _open_output(output) as stream:
        for scored in _progress(iter_records(ScoredDialogue, source, on_bad=on_bad), "deciding"):
            decided = decide_again(scored, rules)
            _write_line(stream, scored_to_json(decided))
            if table:
                _print_conversation(decided, None)


@app.command()
def evaluate(
    data: Annotated[list[Path], typer.Argument(metavar="DATA.jsonl…", help="labelled dialogues")],
    model: ModelOption = None,
    scored: Annotated[Path | None, typer.Option("--scored", help="stored output of `score` for the same dialogues, instead of scoring now")] = None,
    baseline: Annotated[list[Path] | None, typer.Option("--baseline", help="scores of another model for the same dialogues; may be repeated")] = None,
    group: Annotated[list[str] | None, typer.Option("--any", metavar="A,B,…", help="labels to measure as one; may be repeated")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="JSON to write, - for standard output")] = None,
    by_source: Annotated[bool, typer.Option("--by-source/--pooled", help="one row for each source too")] = True,
) -> None:
    """Measures a model on labelled dialogues, per label and source, beside baselines."""
    from .artifact import load_folder, shipped_model
    from .batch import score_dialogues
    from .conversation import load
    from .data import iter_records, read_dialogues
    from .evaluation import evaluate as measure
    from .evaluation import rows_to_json
    from .types import ScoredDialogue

    _protect((*data, scored, *(baseline or ())), (output,))
    folder = shipped_model() if model is None else model
    manifest = load_folder(folder).manifest
    dialogues = [dialogue for path in data for dialogue in read_dialogues(path)]
    if not dialogues:
        raise DataError("found no dialogue, expected at least one", where=", ".join(map(str, data)))
    outputs: dict[str, Iterable[ScoredDialogue]] = {}
    if scored is not None:
        outputs[manifest.tag] = list(iter_records(ScoredDialogue, scored))
    else:
        outputs[manifest.tag] = list(_progress(score_dialogues(load(folder), dialogues), "scoring"))
    for path in baseline or ():
        by_name: dict[str, list[ScoredDialogue]] = {}
        for record in iter_records(ScoredDialogue, path):
            by_name.setdefault(record.model, []).append(record)
        outputs.update(by_name)
    groups = [tuple(name.strip() for name in item.split(",")) for item in group or ()]
    rows = measure(dialogues, outputs, manifest.labels, groups)
    if not by_source:
        rows = [row for row in rows if row.source == "all"]
    if output is not None:
        text = json.dumps({"model": manifest.tag, "data": [path.name for path in data], "rows": rows_to_json(rows)}, indent=1)
        with _open_output(output) as stream:
            stream.write((text + "\n").encode())
    if output is None or str(output) != "-":
        _print_rows(rows)


@app.command()
def inspect(
    model: Annotated[Path | None, typer.Argument(help="model folder; default: the shipped model")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print everything as JSON")] = False,
) -> None:
    """Verifies a model folder and shows what it is."""
    from dataclasses import asdict

    from .artifact import load_folder, shipped_model

    folder = load_folder(shipped_model() if model is None else model)
    manifest = folder.manifest
    if as_json:
        typer.echo(json.dumps({"tag": manifest.tag, "path": str(folder.path), **asdict(manifest)}, indent=1, ensure_ascii=False))
        return
    console = Console()
    verified = f"version {manifest.version}  verified, {len(manifest.files)} files in {folder.path}"
    console.print(f"[bold]{_escape(manifest.tag)}[/]  {_escape(verified)}", soft_wrap=True)
    console.print(f"memory {manifest.memory_size} numbers, windows of {manifest.encoding.max_tokens} tokens, {manifest.encoding.overlap_tokens} shared")
    table = Table("label", "speaker", "role", "threshold", "meaning")
    for label in manifest.labels:
        table.add_row(_escape(label.name), label.speaker, label.role, f"{label.threshold:.3f}", _escape(label.description))
    console.print(table)
    console.print_json(json.dumps(dict(manifest.provenance)))


def _progress(items: Iterable[Any], title: str) -> Iterator[Any]:
    """Counts items on standard error, only if that is a terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.completed:.0f} conversations"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        for item in items:
            bar.advance(task)
            yield item


def _protect(inputs: Iterable[Path | None], outputs: Iterable[Path | None]) -> None:
    """Refuses an output that is an input or another output: opening it would destroy what is read. Raises `DataError`."""

    def files(paths: Iterable[Path | None]) -> Iterator[Path]:  # neither streams nor devices
        return (path for path in paths if path is not None and str(path) != "-" and (path.is_file() or not path.exists()))

    taken = {path.resolve() for path in files(inputs)}
    for path in files(outputs):
        if path.resolve() in taken:
            raise DataError("found the same file as input and output, or as two outputs, expected different ones", where=str(path))
        taken.add(path.resolve())


@contextmanager
def _open_output(path: Path) -> Iterator[IO[bytes]]:
    if str(path) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("wb")
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror or error}", where=str(path)) from None
    with stream:
        yield stream


def _write_line(stream: IO[bytes], record: dict[str, Any]) -> None:
    from .data import dumps

    stream.write((dumps(record) + "\n").encode("utf-8", "surrogatepass"))


@contextmanager
def _bad_lines(path: Path | None) -> Iterator[BadLine | None]:
    """What to do with bad lines: None stops at the first; otherwise they are written to `path` and counted at the end."""
    if path is None:
        yield None
        return
    count = 0
    with _open_output(path) as stream:

        def keep(error: DataError, raw: bytes) -> None:
            nonlocal count
            count += 1
            stream.write(raw if raw.endswith(b"\n") else raw + b"\n")
            typer.echo(f"skipped: {error}", err=True)

        yield keep
    typer.echo(f"{count} bad lines skipped, kept in {path}", err=True)


def _remember(dialogues: Iterable[Dialogue], texts: deque[Dialogue]) -> Iterator[Dialogue]:
    for dialogue in dialogues:
        texts.append(dialogue)
        yield dialogue


def _print_conversation(scored: ScoredDialogue, dialogue: Dialogue | None) -> None:
    """One conversation as a table on standard output: who, text if known, the highest scores, the decision."""
    verdict = "[bold red]END[/] at message " + str(scored.ended_at) if scored.call == "end" else "[green]continue[/]"
    table = Table(title=f"{_escape(scored.id)}: {verdict}", title_justify="left", expand=True)
    table.add_column("#", justify="right")
    table.add_column("who")
    table.add_column("text", ratio=3)
    table.add_column("scores", ratio=2)
    table.add_column("decision", ratio=2)
    for turn in scored.turns:
        text = ""
        if dialogue is not None:
            text = " ".join(dialogue.messages[turn.index].content.split())
            text = text if len(text) <= 120 else text[:119] + "…"
        best = sorted(turn.scores.items(), key=lambda item: -item[1])[:3]
        numbers = "  ".join(f"{name} {value:.2f}" for name, value in best if value >= 0.1)
        decision = ""
        if turn.decision is not None:
            decision = turn.decision.reason if turn.decision.advice == "none" else f"{turn.decision.advice} ({turn.decision.reason})"
            decision = f"[bold red]END[/] ({turn.decision.reason})" if turn.decision.call == "end" else decision
        table.add_row(str(turn.index), turn.role, _escape(text), _escape(numbers) or "–", decision)
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _print_rows(rows: Iterable[Row]) -> None:
    def show(value: float | None, digits: int = 3) -> str:
        return "–" if value is None else f"{value:.{digits}f}"

    rows = list(rows)
    scorers = list(dict.fromkeys(row.scorer for row in rows))
    measures = ("AP", "F1", "macro-F1", "R@1%FPR", "flagged", "ECE")
    table = Table("label", "source", "n", "prevalence", *(f"{name}\n{_escape(scorer)}" for scorer in scorers for name in measures))
    by_key: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        by_key.setdefault((row.label, row.source), {})[row.scorer] = row
    for (label, source), found in by_key.items():
        first = next(iter(found.values())).metrics
        cells = []
        for scorer in scorers:
            if scorer not in found:
                cells += ["–"] * 6
                continue
            m = found[scorer].metrics
            cells += [show(m.average_precision), show(m.f1), show(m.macro_f1), show(m.recall_at_1_fpr), show(m.flagged), show(m.ece)]
        table.add_row(_escape(label), _escape(source), str(first.n), show(first.prevalence), *cells)
    Console(width=None if sys.stdout.isatty() else 100 + 60 * len(scorers)).print(table)


def _add_plugin_verbs() -> None:
    """Adds the verbs that live outside this package (entry points `lastresort.verbs`); they are imported only when listed or called."""
    for point in entry_points(group="lastresort.verbs"):
        target: Any = point.load()
        if isinstance(target, typer.Typer):
            app.add_typer(target, name=point.name)
        else:
            app.command(point.name)(_needs_extra(target, point.name))


def _needs_extra(function: Callable[..., None], verb: str) -> Callable[..., None]:
    import functools

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except ModuleNotFoundError as error:
            extra = EXTRA_OF_VERB.get(verb, verb)
            raise MissingExtraError(f"{verb} needs {error.name}, which is not installed: pip install 'lastresort[{extra}]'") from None

    return call


def main() -> None:
    """Runs the command line."""
    _add_plugin_verbs()
    try:
        app()
    except LastResortError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(1) from None
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
