"""One verb each. Results go to the output, messages and progress to standard error; exit 0 ok, 1 input or data error, 2 usage."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from . import __version__
from .errors import DataError, LastResortError, MissingExtraError
from .types import Mode

if TYPE_CHECKING:
    from .artifact import Certificate
    from .batch import Outcome
    from .calibration import Calibration
    from .data import BadLine
    from .evaluation import ConversationRow, Row
    from .files import Lines
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
ModeOption = Annotated[
    Mode, typer.Option("--mode", help="off, shadow, advise or enforce: how far decisions act; stored conversations are judged in full unless said otherwise")
]
StoreOption = Annotated[
    str | None, typer.Option("--store", help="sqlite:///FILE or postgresql://USER@HOST/DATABASE, or none; default: sqlite:///lastresort.db here")
]
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
    sources: Annotated[list[Path], typer.Argument(metavar="INPUT…", help="dialogues: .jsonl, .gz, .zst or .parquet; - for standard input")],
    output: Annotated[Path, typer.Option("--output", "-o", help="file to write: .jsonl, .gz, .zst or .parquet; - for standard output")] = Path("-"),
    model: ModelOption = None,
    policy: Annotated[Path | None, typer.Option("--policy", help="policy file; default: the model's own")] = None,
    mode: ModeOption = "enforce",
    skip_bad: SkipOption = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="threads, or actors of Ray; default: all CPUs there are")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="begin anew, instead of going on where an earlier run into the same file was cut off")] = False,
    shard_turns: Annotated[int | None, typer.Option("--shard-turns", min=1, help="turns after which work is safe from a kill; default: 10000")] = None,
    engine: Annotated[Literal["local", "ray"], typer.Option("--engine", help="local: this process; ray: all machines of a Ray cluster")] = "local",
    ray_address: Annotated[
        str | None, typer.Option("--ray-address", help="auto, HOST:PORT, ray://HOST:PORT, or local for a new one here; default: $RAY_ADDRESS or local")
    ] = None,
    table: TableOption = False,
) -> None:
    """Scores dialogues and decides on each: one line a conversation, in input order. Run again after a kill, it goes on where it was."""
    from .batch import SHARD_TURNS, Parts, Stopped, inputs_of, score_lines, score_to_file
    from .conversation import load
    from .data import scored_to_json

    if ray_address is not None and engine != "ray":
        raise typer.BadParameter("--ray-address needs --engine ray")
    _protect(sources, (output, skip_bad))
    monitor = load(model, policy=policy)
    inputs = inputs_of(sources)
    score_all: Callable[..., Iterator[Outcome]] = score_lines
    if engine == "ray":
        from .engine_ray import RayEngine

        score_all = RayEngine(model, ray_address or os.environ.get("RAY_ADDRESS", "local"))
    if str(output) == "-" or (output.exists() and not output.is_file() and not output.is_dir()):  # a stream or a device: nothing to go on from
        with _bad_lines(skip_bad) as on_bad, _open_output(output) as stream:
            for outcome in _scoring_progress(score_all(monitor, inputs, workers=workers, mode=mode), inputs):
                if not isinstance(outcome.result, DataError):
                    _write_line(stream, scored_to_json(outcome.result))
                    if table:
                        _print_conversation(outcome.result, outcome.dialogue)
                elif on_bad is None:
                    raise outcome.result
                else:
                    on_bad(outcome.result, outcome.raw)
        return

    bad = 0

    def resumed(parts: Parts) -> None:
        nonlocal bad
        bad = parts.bad
        typer.echo(f"goes on after {parts.conversations} conversations that an earlier run finished; --restart begins anew", err=True)

    with _asked_to_stop() as asked:
        outcomes = score_to_file(
            monitor,
            inputs,
            output,
            skip_bad=skip_bad,
            mode=mode,
            workers=workers,
            restart=restart,
            shard_turns=shard_turns or SHARD_TURNS,
            stopped=lambda: bool(asked),
            resumed=resumed,
            engine=score_all,
        )
        try:
            for outcome in _scoring_progress(outcomes, inputs):
                if isinstance(outcome.result, DataError):
                    bad += 1
                    typer.echo(f"skipped: {outcome.result}", err=True)
                elif table:
                    _print_conversation(outcome.result, outcome.dialogue)
        except (Stopped, KeyboardInterrupt) as error:
            typer.echo(str(error) or "stopped at once; what was finished is kept: run the same command again to go on", err=True)
            raise typer.Exit(128 + asked[0] if asked else 130) from None
    if skip_bad is not None:
        typer.echo(f"{bad} bad lines skipped, kept in {skip_bad}", err=True)


@app.command()
def bench(
    model: ModelOption = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0.01, help="how long to measure, about; loading comes on top")] = 30.0,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="threads, and processes, to compare with one; default: all CPUs")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="JSON to write, - for standard output")] = None,
) -> None:
    """Measures on this machine: import and load, time a turn by length, turns a second on all CPUs, memory, and where the time goes."""
    from .artifact import shipped_model
    from .bench import measure

    result = measure(shipped_model() if model is None else model, seconds=seconds, workers=workers)
    if output is not None:
        with _open_output(output) as stream:
            stream.write((json.dumps(result, indent=1) + "\n").encode())
    if output is None or str(output) != "-":
        _print_bench(result)


@app.command()
def decide(
    source: Annotated[Path, typer.Argument(metavar="SCORED.jsonl", help="output of `score`; - for standard input")],
    policy: Annotated[Path, typer.Option("--policy", help="policy file")],
    output: OutputOption = Path("-"),
    mode: ModeOption = "enforce",
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
            decided = decide_again(scored, rules, mode)
            _write_line(stream, scored_to_json(decided))
            if table:
                _print_conversation(decided, None)


@app.command()
def explain(
    source: Annotated[Path, typer.Argument(metavar="SCORED.jsonl", help="output of `score` or `decide`; - for standard input")],
    id_: Annotated[str | None, typer.Option("--id", help="which conversation; may be left out if there is only one")] = None,
    policy: Annotated[Path | None, typer.Option("--policy", help="decide again with this policy file first")] = None,
    mode: ModeOption = "enforce",
    dialogues: Annotated[list[Path] | None, typer.Option("--dialogues", help="the dialogues that were scored; may be repeated")] = None,
    with_text: Annotated[bool, typer.Option("--with-text", help="also print what was said; needs --dialogues")] = False,
) -> None:
    """Prints the course of a conversation as a timeline: what was decided on each turn, why, and what would have changed it."""
    from .conversation import decide as decide_again
    from .data import iter_records
    from .policy import DecisionPolicy, read_policy
    from .types import ScoredDialogue

    if with_text and not dialogues:
        raise typer.BadParameter("--with-text needs --dialogues, since scored output holds no text")
    found: ScoredDialogue | None = None
    for number, record in enumerate(iter_records(ScoredDialogue, source)):
        if id_ is None and number:
            raise DataError("found more than one conversation, expected --id to say which", where=str(source))
        if id_ is None or record.id == id_:
            found = record
            if id_ is not None:
                break
    if found is None:
        raise DataError("found no conversation" + ("" if id_ is None else f" with id {id_!r}") + ", expected one", where=str(source))
    if policy is not None:
        found = decide_again(found, DecisionPolicy(read_policy(policy)), mode)
    _print_course(found, _dialogue_of(found, dialogues or ()) if with_text else None)


@app.command()
def evaluate(
    data: Annotated[list[Path], typer.Argument(metavar="DATA.jsonl…", help="labelled dialogues")],
    model: ModelOption = None,
    scored: Annotated[Path | None, typer.Option("--scored", help="stored output of `score` for the same dialogues, instead of scoring now")] = None,
    baseline: Annotated[list[Path] | None, typer.Option("--baseline", help="scores of another model for the same dialogues; may be repeated")] = None,
    group: Annotated[list[str] | None, typer.Option("--any", metavar="A,B,…", help="labels to measure as one; may be repeated")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="JSON to write, - for standard output")] = None,
    by_source: Annotated[bool, typer.Option("--by-source/--pooled", help="one row for each source too")] = True,
    conversations: Annotated[
        bool, typer.Option("--conversations", help="measure conversations as a whole instead: false ends, end recall, delay, vetoes")
    ] = False,
) -> None:
    """Measures a model on labelled dialogues, per label and source, beside baselines; or conversations as a whole."""
    from dataclasses import asdict

    from .artifact import load_folder, shipped_model
    from .batch import score_dialogues
    from .conversation import load
    from .data import iter_records, read_dialogues
    from .evaluation import conversation_rows, rows_to_json
    from .evaluation import evaluate as measure
    from .types import ScoredDialogue

    _protect((*data, scored, *(baseline or ())), (output,))
    folder = shipped_model() if model is None else model
    manifest = load_folder(folder).manifest
    dialogues = [dialogue for path in data for dialogue in read_dialogues(path)]
    if not dialogues:
        raise DataError("found no dialogue, expected at least one", where=", ".join(map(str, data)))
    outputs: dict[str, Iterable[ScoredDialogue]] = {}
    if scored is not None:
        outputs[manifest.tag] = stored = list(iter_records(ScoredDialogue, scored))
        if others := sorted({one.model for one in stored} - {manifest.tag}):
            raise DataError(f"found scores of {', '.join(others)}, expected those of {manifest.tag}", where=str(scored))
    else:
        outputs[manifest.tag] = list(_progress(score_dialogues(load(folder), dialogues), "scoring"))
    if conversations:
        courses = conversation_rows(outputs[manifest.tag], dialogues, [label.name for label in manifest.labels if label.role == "veto"])
        if not by_source:
            courses = [row for row in courses if row.group == "all"]
        if output is not None:
            table = {"model": manifest.tag, "data": [path.name for path in data], "conversations": [asdict(row) for row in courses]}
            with _open_output(output) as stream:
                stream.write((json.dumps(table, indent=1) + "\n").encode())
        if output is None or str(output) != "-":
            _print_courses(courses)
        return
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
def calibrate(
    sources: Annotated[list[Path], typer.Argument(metavar="SCORED.jsonl…", help="output of `score` for dialogues whose meta says `call` (and `justified_at`)")],
    population: Annotated[str, typer.Option("--population", help="for which conversations the claim holds, in words")],
    max_false_end_rate: Annotated[float, typer.Option("--max-false-end-rate", help="limit of the share of conversations ended falsely")] = 0.001,
    confidence: Annotated[float, typer.Option("--confidence", help="of the claim")] = 0.95,
    model: ModelOption = None,
    policy: Annotated[Path | None, typer.Option("--policy", help="policy file from which to start; default: the model's own")] = None,
    kind: Annotated[list[str] | None, typer.Option("--kind", help="only these kinds of conversations that must go on; may be repeated")] = None,
    risk_kind: Annotated[
        list[str] | None, typer.Option("--risk-kind", help="kinds in which somebody is at risk: no candidate that ends more of them than another is tried")
    ] = None,
    as_is: Annotated[
        bool, typer.Option("--as-is", help="certify the policy as it stands, on all conversations; they must have had no part in choosing it")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="leave the model folder as it is")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="policy file to write")] = None,
) -> None:
    """Chooses thresholds that end most of what should end, with a certified bound on false ends; writes certificate and policy into the model folder."""
    from datetime import datetime, timezone

    from .artifact import Certificate, load_folder, read_manifest, shipped_model, write_certificate, write_manifest
    from .calibration import calibrate as choose
    from .calibration import policy_to_json
    from .data import iter_records
    from .policy import parse_policy, read_policy
    from .types import ScoredDialogue

    if model is None and not dry_run:
        raise typer.BadParameter("found none, expected the model folder that certificate and policy are written into, or --dry-run", param_hint="--model")
    _protect((*sources, policy), (output,))
    path = shipped_model() if model is None else model
    manifest = read_manifest(path)  # not the whole folder: an old certificate of another model is what is replaced here
    config = parse_policy(manifest.policy, where=f"{path}/manifest.json: policy") if policy is None else read_policy(policy)

    def scored() -> Iterator[ScoredDialogue]:
        for source in sources:
            for record in iter_records(ScoredDialogue, source):
                if record.model != manifest.tag:
                    raise DataError(f"{record.id!r}: model: found {record.model}, expected {manifest.tag}", where=str(source))
                yield record

    conversations = _progress(scored(), "reading")
    claim: dict[str, float] = {"max_false_end_rate": max_false_end_rate, "confidence": confidence}
    result = choose(conversations, config, kinds=tuple(kind or ()), risk_kinds=tuple(risk_kind or ()), as_is=as_is, **claim)
    _print_calibration(result, max_false_end_rate, confidence)
    chosen = result.certified
    if chosen is None:
        raise DataError(
            f"found {result.tested[0].errors} false ends by the strictest candidate, expected a bound within {max_false_end_rate:.3%}: nothing is certified"
        )
    settings = policy_to_json(chosen.config)
    certificate = Certificate(
        population=population,
        n=chosen.n,
        errors=chosen.errors,
        bound=chosen.bound,
        max_false_end_rate=max_false_end_rate,
        confidence=confidence,
        candidates=len(result.tested),
        kinds=result.kinds,
        sources=result.sources,
        end_recall=chosen.recall if chosen.should_end else None,
        should_end=chosen.should_end,
        policy=settings,
        model=manifest.tag,
        digest=manifest.digest,
        date=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        package_version=__version__,
        reachable=result.reachable,
        warned=result.warned,
        early=result.early,
        others=result.others,
        as_is=as_is,
    )
    if output is not None:
        import yaml

        title = f"# Certified: at most {max_false_end_rate:.3%} false ends at {confidence:.0%} on {manifest.tag}, for: {' '.join(population.split())}\n"
        command = f"#\n#   lastresort decide SCORED.jsonl --policy {output} -o OUT.jsonl\n"
        with _open_output(output) as stream:
            stream.write((title + command + yaml.safe_dump(settings, sort_keys=False, width=160)).encode())
    if not dry_run:
        from dataclasses import replace

        write_manifest(path, replace(manifest, policy=settings))
        write_certificate(path, certificate)
        load_folder(path)  # what was written can be read
    _print_certificate(certificate, settings)


@app.command()
def audit(
    source: Annotated[Path, typer.Argument(metavar="AUDITED.jsonl", help='audited conversations in order: {"id", "ended", "justified"}; - for standard input')],
    model: ModelOption = None,
    max_false_end_rate: Annotated[float | None, typer.Option("--max-false-end-rate", help="limit; default: that of the model's certificate")] = None,
    confidence: Annotated[float | None, typer.Option("--confidence", help="of an alarm; default: that of the certificate")] = None,
) -> None:
    """Watches the certified bound in production: may be run after every audited conversation; exits with 1 when the false-end rate has left it."""
    from .artifact import load_folder, shipped_model
    from .calibration import Audited
    from .calibration import audit as watch
    from .data import iter_records

    if max_false_end_rate is None or confidence is None:
        folder = load_folder(shipped_model() if model is None else model)
        if folder.certificate is None and max_false_end_rate is None:
            raise DataError("found no certificate in the model folder, expected one, or --max-false-end-rate", where=str(folder.path))
        if folder.certificate is not None:
            max_false_end_rate = folder.certificate.max_false_end_rate if max_false_end_rate is None else max_false_end_rate
            confidence = folder.certificate.confidence if confidence is None else confidence
    state = watch(iter_records(Audited, source), max_false_end_rate or 0.0, 0.95 if confidence is None else confidence)
    line = f"{state.errors} false ends in {state.n} audited conversations that should have gone on; limit {state.limit:.3%}"
    typer.echo(f"{line}; evidence against it {state.evidence:.3g}, at its peak {state.peak:.3g}, alarm at {1 / (1 - state.confidence):.3g}")
    state.check()


@app.command()
def report(
    sources: Annotated[list[Path], typer.Argument(metavar="SCORED.jsonl…", help="output of `score` or `decide`")],
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file to write, - for standard output")] = Path("report.html"),
    dialogues: Annotated[
        list[Path] | None, typer.Option("--dialogues", help="the dialogues that were scored, for diagrams against labels; may be repeated")
    ] = None,
    model: ModelOption = None,
    with_text: Annotated[bool, typer.Option("--with-text", help="show what was said; needs --dialogues")] = False,
    notable: Annotated[int, typer.Option("--notable", min=0, help="at most so many conversations get a strip of their own")] = 60,
) -> None:
    """Writes one self-contained HTML page about scored conversations; without any text unless asked for."""
    from .artifact import load_folder, shipped_model
    from .data import iter_records, read_dialogues
    from .report import build
    from .types import ScoredDialogue

    if with_text and not dialogues:
        raise typer.BadParameter("--with-text needs --dialogues, since scored output holds no text")
    _protect((*sources, *(dialogues or ())), (output,))
    scored = [record for source in sources for record in _progress(iter_records(ScoredDialogue, source), "reading")]
    if not scored:
        raise DataError("found no conversation, expected at least one", where=", ".join(map(str, sources)))
    folder = load_folder(shipped_model() if model is None else model)
    own = all(record.model == folder.manifest.tag for record in scored)
    if model is not None and not own:
        raise DataError(f"found scores of {scored[0].model}, expected {folder.manifest.tag} everywhere", where=str(sources[0]))
    page = build(
        scored,
        labels=folder.manifest.labels if own else (),
        dialogues=(dialogue for path in dialogues or () for dialogue in read_dialogues(path)),
        certificate=folder.certificate if own else None,
        with_text=with_text,
        notable=notable,
    )
    with _open_output(output) as stream:
        stream.write(page.encode("utf-8", "xmlcharrefreplace"))


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
        certificate = None if folder.certificate is None else asdict(folder.certificate)
        record = {"tag": manifest.tag, "path": str(folder.path), **asdict(manifest), "certificate": certificate}
        typer.echo(json.dumps(record, indent=1, ensure_ascii=False))
        return
    console = Console()
    verified = f"version {manifest.version}  verified, {len(manifest.files)} files in {folder.path}"
    console.print(f"[bold]{_escape(manifest.tag)}[/]  {_escape(verified)}", soft_wrap=True)
    console.print(f"memory {manifest.memory_size} numbers, windows of {manifest.encoding.max_tokens} tokens, {manifest.encoding.overlap_tokens} shared")
    table = Table("label", "speaker", "role", "threshold", "meaning")
    for label in manifest.labels:
        table.add_row(_escape(label.name), label.speaker, label.role, f"{label.threshold:.3f}", _escape(label.description))
    console.print(table)
    if folder.certificate is None:
        console.print("no certificate: the rate of false ends is not certified")
    else:
        _print_certificate(folder.certificate, manifest.policy)
    console.print_json(json.dumps(dict(manifest.provenance)))


@app.command()
def serve(
    host: Annotated[str | None, typer.Option("--host", help="address to listen on; default: 127.0.0.1, which only this machine reaches")] = None,
    port: Annotated[int | None, typer.Option("--port", help="default: 8000; 0 for a free one")] = None,
    workers: Annotated[int | None, typer.Option("--workers", help="processes; default: 1")] = None,
    model: ModelOption = None,
    policy: Annotated[Path | None, typer.Option("--policy", help="policy file; default: the model's own")] = None,
    mode: Annotated[Mode | None, typer.Option("--mode", help="shadow, advise or enforce; default: as the policy says")] = None,
    store: StoreOption = None,
    store_text: Annotated[bool | None, typer.Option("--store-text", help="keep what was said")] = None,
    keep_days: Annotated[int | None, typer.Option("--keep-days", help="delete conversations without a turn for so many days")] = None,
    api_key_file: Annotated[Path | None, typer.Option("--api-key-file", help="keys that are let in, one a line")] = None,
    state_key_file: Annotated[Path | None, typer.Option("--state-key-file", help="secret that signs states; default: kept in the store")] = None,
    settings: Annotated[Path | None, typer.Option("--settings", help="YAML file with all settings, limits among them; options win over it")] = None,
) -> None:
    """Serves decisions over HTTP; the API is described at /docs."""
    from dataclasses import fields

    from .config import parse_settings, read_yaml
    from .server.settings import ServerSettings

    values = {} if settings is None else read_yaml(settings)
    options = locals()
    given = {field.name: options[field.name] for field in fields(ServerSettings) if options.get(field.name) is not None}
    values |= {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
    parsed = parse_settings(ServerSettings, values, where="serve" if settings is None else str(settings))
    with _extra("serve"):
        from .server.run import serve as run
    run(parsed)


feedback_app = typer.Typer(name="feedback", help="What was said about ends.", no_args_is_help=True)
app.add_typer(feedback_app)


@feedback_app.command("export")
def feedback_export(
    output: OutputOption = Path("-"),
    store: StoreOption = None,
) -> None:
    """Writes disputed and confirmed ends as labelled dialogues, one a line; only those whose text was stored. Look at them before training on them."""
    from .data import dialogue_to_json

    with _extra("serve"):
        from .server.feedback import dialogues
    from .server.settings import DEFAULT_STORE

    written = left_out = 0
    with _open_output(output) as stream:
        for dialogue in dialogues(store or DEFAULT_STORE):
            if dialogue is None:
                left_out += 1
                continue
            _write_line(stream, dialogue_to_json(dialogue))
            written += 1
    typer.echo(f"{written} dialogues; {left_out} left out, since their text was not stored", err=True)


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


def _scoring_progress(outcomes: Iterable[Outcome], inputs: Sequence[Lines]) -> Iterator[Outcome]:
    """Shows conversations, rate and time left on standard error, only if that is a terminal. The time left goes by the bytes of the inputs read so far."""
    if not sys.stderr.isatty():
        yield from outcomes
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    sizes = [source.size for source in inputs]
    total = None if None in sizes else sum(size or 0 for size in sizes)
    counts = TextColumn("{task.fields[done]} conversations, {task.fields[rate]:.0f} turns/s")
    columns = (TextColumn("{task.description}"), BarColumn(), counts, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("scoring", total=total, done=0, rate=0.0)
        done = turns = 0
        for outcome in outcomes:
            if not isinstance(outcome.result, DataError):
                done, turns = done + 1, turns + len(outcome.result.turns)
            elapsed = bar.tasks[task].elapsed or 0.0
            bar.update(task, completed=sum(source.position for source in inputs), done=done, rate=turns / elapsed if elapsed else 0.0)
            yield outcome


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """The signals that asked to stop so far: Ctrl-C and termination. The second one stops at once, as `KeyboardInterrupt`."""
    received: list[int] = []

    def ask(number: int, frame: object) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # the only one that may handle signals
        yield received
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
    try:
        if str(path) == "-":
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            yield stream
    except BrokenPipeError:
        raise
    except OSError as error:
        if str(path) == "-":  # what is still held back would fail once more at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise DataError(f"cannot be written: {error.strerror or error}", where="<stdout>" if str(path) == "-" else str(path)) from None


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


def _print_calibration(result: Calibration, limit: float, confidence: float) -> None:
    title = f"tested in this order; limit {limit:.3%} at {confidence:.0%}"
    table = Table("triggers", "persistence", "vetoes", "must go on", "false ends", "bound", "should end", "ended", "", title=title, title_justify="left")
    for candidate in result.tested:
        config = candidate.config
        gate = "–" if config.persistence_label is None else f"{config.threshold(config.persistence_label).enter:.2f}"
        levels = "/".join(sorted({f"{config.threshold(label).enter:.2f}" for label in config.triggers}))
        vetoes = "/".join(f"{config.threshold(label).enter:.3g}" for label in config.vetoes) or "–"
        counts = (str(candidate.n), str(candidate.errors), f"{candidate.bound:.4%}", str(candidate.should_end), f"{candidate.recall:.1%}")
        table.add_row(levels, gate, vetoes, *counts, "[green]passes[/]" if candidate.passed else "[red]fails, stop[/]")
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _print_certificate(certificate: Certificate, policy: Mapping[str, Any]) -> None:
    from .policy import parse_policy

    claim = f"at most {certificate.max_false_end_rate:.3%} of such conversations are ended falsely, with confidence {certificate.confidence:.0%}"
    counts = f"{certificate.errors} of {certificate.n} that must go on were ended (bound {certificate.bound:.4%})"
    recall = "" if certificate.end_recall is None else f"; of {certificate.should_end} that should end, {certificate.end_recall:.1%} did"
    certified, own = parse_policy({**certificate.policy, "mode": "enforce"}, where="certificate"), parse_policy({**policy, "mode": "enforce"}, where="manifest")
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    console.print(f"[bold]certificate[/] of {certificate.date[:10]}: {claim}")
    console.print(f"  {counts}{recall}; {certificate.candidates} candidates tested in a fixed order")
    console.print(f"  population: {_escape(certificate.population)}")
    console.print("  by source: " + ", ".join(f"{_escape(name or '–')} {wrong}/{n}" for name, (n, wrong) in certificate.sources.items()))
    if certificate.reachable is not None:
        long_enough = f"{certificate.reachable} of the {certificate.n} have enough turns for an end, {certificate.warned} were warned"
        console.print(f"  {long_enough}; {certificate.early} that should end were ended before that was justified")
    if certificate.others:
        listed = ", ".join(f"{_escape(name or '–')} {wrong}/{n}" for name, (n, wrong) in certificate.others.items())
        console.print(f"  outside the claim, must go on and ended: {listed}")
    console.print(
        "  it holds for the model's own policy" if certified == own else "  [yellow]it does not hold for the model's own policy, which is another one[/]"
    )


def _dialogue_of(scored: ScoredDialogue, paths: Iterable[Path]) -> Dialogue:
    """The dialogue that was scored. Raises `DataError`."""
    from .data import read_dialogues

    for path in paths:
        for dialogue in read_dialogues(path):
            if dialogue.id == scored.id:
                if [message.role for message in dialogue.messages] != [turn.role for turn in scored.turns]:
                    raise DataError(
                        f"found {len(dialogue.messages)} messages in {scored.id!r}, expected the {len(scored.turns)} that were scored", where=str(path)
                    )
                return dialogue
    raise DataError(f"found no dialogue with id {scored.id!r}, expected the one that was scored", where=", ".join(map(str, paths)))


def _print_course(scored: ScoredDialogue, dialogue: Dialogue | None) -> None:
    """The timeline of `explain` on standard output."""
    from .explain import MEANING

    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    ending = scored.decided_end
    verdict = "[green]continue[/]" if ending is None else f"[bold red]{'end' if scored.ended_at is not None else 'would end'}[/] at message {ending}"
    console.print(f"[bold]{_escape(scored.id)}[/]  {verdict}  [dim]{_escape(scored.model)}, mode {scored.mode}[/]")
    if scored.distress:
        console.print(f"[magenta]apparent distress of the assistant[/] at messages {', '.join(map(str, scored.distress))}")
    table = Table("#", "who", "decided", "why", "otherwise with", expand=True, show_lines=dialogue is not None)
    table.columns[0].justify = "right"
    table.columns[3].ratio, table.columns[4].ratio = 3, 2
    for turn in scored.turns:
        decision, why, decided, otherwise = turn.decision, "", "", ""
        if decision is not None:
            numbers = sorted(decision.numbers.items(), key=lambda item: item[1][1] - item[1][0])
            reached = [item for item in numbers if item[1][0] >= item[1][1]] or numbers[:1]
            why = "; ".join(
                [MEANING[decision.reason]]
                + [f"{label} {value:.2f} {'≥' if value >= limit else '<'} {limit:.2f}" for label, (value, limit) in reached]
                + [
                    f"{name.replace('_', ' ')} {value}/{limit}"
                    for name, (value, limit) in decision.counts.items()
                    if value and (name != "quiet_turns" or decision.evidence)
                ]
            )
            decided = "END" if decision.decided_call == "end" else decision.decided_advice
            decided = {"END": "[bold red]END[/]", "warn": "[yellow]warn[/]", "support": "[cyan]support[/]", "none": "[dim]–[/]"}.get(decided, decided)
            if decision.would_call is not None or decision.would_advise is not None:
                decided += " [dim](withheld)[/]"
            otherwise = decision.counterfactual
        elif turn.role in ("system", "tool"):
            why = MEANING["not_scored"]
        text = "" if dialogue is None else "\n[italic]" + _escape(" ".join(dialogue.messages[turn.index].content.split())) + "[/]"
        table.add_row(str(turn.index), turn.role, decided, _escape(why) + text, _escape(otherwise))
    console.print(table)


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


def _print_courses(rows: Iterable[ConversationRow]) -> None:
    def share(value: tuple[float, float, float] | None, digits: int) -> str:
        return "–" if value is None else f"{value[0]:.{digits}%} ({value[1]:.{digits}%}–{value[2]:.{digits}%})"

    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:g}"

    heads = (
        "group",
        "name",
        "n",
        "must go on",
        "false ends",
        "rate (95%)",
        "should end",
        "ended (95%)",
        "early",
        "delay",
        "in 9 of 10",
        "warnings/1000",
        "at risk",
        "violations",
    )
    table = Table(*heads)
    for row in rows:
        m = row.metrics
        wrong = f"[red]{m.false_ends}[/]" if m.false_ends else "0"
        violations = f"[bold red]{m.veto_violations}[/]" if m.veto_violations else "0"
        cells = (str(m.n), str(m.must_go_on), wrong, share(m.false_end_rate, 2), str(m.should_end), share(m.end_recall, 1), str(m.early))
        more = (number(m.delay_median), number(m.delay_90), f"{m.warnings_per_1000:.0f}", str(m.at_risk), violations)
        table.add_row(row.group, _escape(row.name) or "–", *cells, *more)
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _print_bench(result: Mapping[str, Any]) -> None:
    from .bench import SHARES

    machine, memory, shares, rate = (result[name] for name in ("machine", "memory_mb", "shares", "turns_per_second"))
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    console.print(f"[bold]{_escape(result['model'])}[/]  lastresort {result['version']}, onnxruntime {machine['onnxruntime']}, {machine['cpus']} CPUs")
    console.print(f"import {result['import_s']:.2f} s, load {result['load_s']:.2f} s")
    peak = {name: "–" if value is None else f"{value:.0f} MB" for name, value in memory.items()}
    console.print(f"memory: {peak['loaded']} once loaded, {peak['peak']} at its peak")
    table = Table("tokens", "n", "p50 ms", "p95 ms", "p99 ms", title="one turn, all of it, one thread", title_justify="left")
    for row in result["turn_ms"]:
        table.add_row(str(row["tokens"]), str(row["n"]), *(f"{row[name]:.2f}" for name in ("p50", "p95", "p99")))
    console.print(table)
    console.print(f"where the time of a turn of {shares['tokens']} tokens goes: " + ", ".join(f"{name} {shares[name]:.1%}" for name in SHARES))
    decision = result["policy_us"]
    console.print(f"a decision: {decision['step']:.0f} µs, its explanation {decision['explained']:.0f} µs")
    console.print(f"turn 200 costs {result['turn_200_over_2']:.2f} times turn 2")
    several = f"{result['workers']} threads {rate['threads']:.0f}, {result['workers']} processes {rate['processes']:.0f}"
    console.print(f"turns a second: one thread {rate['one']:.0f}, {several}")


def _add_plugin_verbs() -> None:
    """Adds the verbs that live outside this package (entry points `lastresort.verbs`); they are imported only when listed or called."""
    for point in entry_points(group="lastresort.verbs"):
        target: Any = point.load()
        if isinstance(target, typer.Typer):
            app.add_typer(target, name=point.name)
        else:
            app.command(point.name)(_needs_extra(target, point.name))


@contextmanager
def _extra(name: str) -> Iterator[None]:
    """Says which extra is missing where an import fails. Raises `MissingExtraError`."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("lastresort"):
            raise
        raise MissingExtraError(f"{name} needs {error.name}, which is not installed: pip install 'lastresort[{name}]'") from None


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
