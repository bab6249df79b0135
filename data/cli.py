"""Command line of the data tools: `list`, `prepare`, `clean`, `label-noise`, `compose`, `check`, `build`, `stats`, `card`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from . import clean, compose, datacard, label_noise, registry, stats
from .check import check, markdown, passed
from .download import BASE_URL_VARIABLE, fetch
from .prepare import OVERLAP_FILE, prepare, show

DEFAULT_OUT = Path("work/prepared")

app = typer.Typer(help="Public data sources as labelled dialogues.", no_args_is_help=True)


@app.command("list")
def list_sources(as_json: Annotated[bool, typer.Option("--json", help="everything that is known of each, as JSON")] = False) -> None:
    """Lists the sources: licence class, files, split, labels."""
    if as_json:
        typer.echo(json.dumps(registry.describe(registry.read_registry()), indent=1, ensure_ascii=False))
    else:
        registry.show(registry.read_registry(), Console())


@app.command("prepare")
def prepare_sources(
    sources: Annotated[list[str], typer.Argument(help=f"names of sources, or {registry.ALL!r}", metavar="SOURCE…")],
    from_dir: Annotated[Path | None, typer.Option("--from", help="folder with the raw sources and the list of held-out overlaps")] = None,
    out_dir: Annotated[Path, typer.Option("--out", help="folder to write to")] = DEFAULT_OUT,
    licences: Annotated[list[str] | None, typer.Option("--licences", help="only this licence class; may be repeated; default: every class")] = None,
    download: Annotated[bool, typer.Option("--download", help="fetch what is not in --from from upstream (few sources can be)")] = False,
    cache: Annotated[Path, typer.Option("--cache", help="folder for what is fetched")] = Path("work/raw"),
    base_url: Annotated[str | None, typer.Option("--base-url", envvar=BASE_URL_VARIABLE, help="fetch from here in place of upstream's host")] = None,
    overlaps: Annotated[Path | None, typer.Option("--overlaps", help="list of held-out overlaps; default: the one in --from")] = None,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="take files that differ from the registry")] = False,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="processes; default: all CPUs")] = None,
) -> None:
    """Writes labelled dialogues of SOURCE… to OUT/<source>/train.jsonl and validation.jsonl."""
    from lastresort.batch import available_cpus

    if from_dir is None and not (download and overlaps):
        raise typer.BadParameter("found neither --from nor both --download and --overlaps, expected one or the other")
    known = registry.read_registry()
    names = registry.choose(known, sources, licences or registry.LICENCE_CLASSES)
    folders = {}
    if download:
        absent = [name for name in names if from_dir is None or not (from_dir / name).is_dir()]
        folders = {name: fetch(name, known.entry(name), cache, base_url or known.base_url) for name in absent}
    if no_verify:
        typer.echo("warning: files are not checked against the registry; row numbers of held-out overlaps may not fit them", err=True)
    results = prepare(
        names, from_dir or cache, out_dir, registry=None if no_verify else known, folders=folders, overlaps=overlaps, workers=workers or available_cpus()
    )
    show(results, Console())


@app.command("clean")
def clean_sources(
    prepared: Annotated[Path, typer.Option("--prepared", help="folder made by `prepare`")] = DEFAULT_OUT,
    out_dir: Annotated[Path, typer.Option("--out", help="folder to write to")] = Path("work/cleaned"),
    *,
    raw: Annotated[Path, typer.Option("--raw", help="folder with the raw sources and the list of held-out overlaps")],
) -> None:
    """Writes the prepared dialogues without copies, held-back texts and labels found wrong, laid out alike, and OUT/clean.json."""
    report = clean.clean(prepared, out_dir, raw, own_train=clean.OWN_TRAIN, own_held=clean.OWN_HELD)
    typer.echo(json.dumps(report["all"], indent=1))


@app.command("label-noise")
def find_label_noise(
    prepared: Annotated[Path, typer.Option("--prepared", help="folder made by `clean`")] = Path("work/cleaned"),
    out: Annotated[Path, typer.Option("--out", help="file to write to; it holds texts: never commit it")] = Path("work/label_noise.jsonl"),
    cache: Annotated[Path, typer.Option("--cache", help="folder for embeddings")] = Path("work/label_noise"),
) -> None:
    """Writes the labels of permissive sources that are probably wrong to OUT, worst first, and prints how many by source."""
    sources = [name for name, entry in registry.read_registry().sources.items() if entry.licence_class == "permissive" and (prepared / name).is_dir()]
    for head, (number, rows) in label_noise.write(prepared, sources, out, label_noise.cached(label_noise.embed, cache)).items():
        typer.echo(f"{head}: {number} suspicious\nsource\tturns\tpositive\tnegative")
        typer.echo("\n".join("\t".join(map(str, row)) for row in rows))


@app.command("check")
def check_data(
    prepared: Annotated[Path, typer.Option("--prepared", help="folder made by `prepare` or `clean`")] = Path("work/cleaned"),
    mixture: Annotated[Path, typer.Option("--mixture", help="folder made by `compose`")] = Path("work/mixture"),
    heldout: Annotated[Path | None, typer.Option("--heldout", help="list of held-out overlaps; default: the one in --raw")] = None,
    *,
    raw: Annotated[Path, typer.Option("--raw", help="folder with the raw sources")],
    output: Annotated[Path | None, typer.Option("-o", "--out", help="file for the table, for `card --checks`")] = None,
) -> None:
    """Prints for the data card whether a text is in two splits, or held out; fails if one is."""
    results = check(prepared, mixture, heldout or raw / OVERLAP_FILE, raw)
    table = markdown(results)
    typer.echo(table)
    if output is not None:
        output.write_text(table + "\n", encoding="utf-8")
    if not passed(results):
        raise typer.Exit(1)


@app.command("compose")
def compose_mixture(
    config: Annotated[Path, typer.Argument(help="mixture, e.g. configs/data/first.yaml")],
    prepared: Annotated[Path, typer.Option("--prepared", help="folder made by `prepare`")] = DEFAULT_OUT,
    out_dir: Annotated[Path, typer.Option("--out", help="folder to write to")] = Path("work/mixture"),
    only: Annotated[str | None, typer.Option("--only", help="train or validation; else both")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="in place of the mixture's: another choice of capped rows, and dialogues composed afresh")] = None,
    against: Annotated[Path | None, typer.Option("--against", help="validation file whose texts train may not say; needed with --only train")] = None,
) -> None:
    """Writes OUT/train.jsonl, validation.jsonl and counts.json: real turns, capped, and dialogues composed from them."""
    if only not in (None, *compose.SPLITS):
        raise typer.BadParameter(f"found {only!r}, expected train or validation", param_hint="--only")
    settings = compose.read_config(config)
    settings = settings if seed is None else replace(settings, seed=seed)
    compose.write_mixture(settings, prepared, out_dir, compose.SPLITS if only is None else (only,), against=against)
    typer.echo((out_dir / "counts.json").read_text(encoding="utf-8"))


@app.command("build")
def build_mixture(
    config: Annotated[Path, typer.Argument(help="mixture, e.g. configs/data/wide.yaml")],
    from_dir: Annotated[Path, typer.Option("--from", help="folder with the raw sources and the list of held-out overlaps")],
    work: Annotated[Path, typer.Option("--work", help="folder for prepared, cleaned and mixture")] = Path("work"),
    no_verify: Annotated[bool, typer.Option("--no-verify", help="take files that differ from the registry")] = False,
) -> None:
    """Makes the whole training set: prepares the sources of the mixture, cleans across them, composes, and checks what came out."""
    from lastresort.batch import available_cpus

    settings = compose.read_config(config)
    names = sorted(name for name, source in settings.sources.items() if source.folder is None)
    show(prepare(names, from_dir, work / "prepared", registry=None if no_verify else registry.read_registry(), workers=available_cpus()), Console())
    typer.echo(json.dumps(clean.clean(work / "prepared", work / "cleaned", from_dir, own_train=clean.OWN_TRAIN, own_held=clean.OWN_HELD)["all"], indent=1))
    counts = compose.write_mixture(settings, work / "cleaned", work / "mixture")
    typer.echo(json.dumps({split: counts[split]["turns"] for split in ("train", "validation")}, indent=1))
    check_data(work / "cleaned", work / "mixture", raw=from_dir, output=work / "checks.md")


@app.command("stats")
def show_stats(
    mixture: Annotated[Path, typer.Argument(help="folder made by `compose`", metavar="MIXTURE_DIR")] = Path("work/mixture"),
    out_dir: Annotated[Path | None, typer.Option("-o", "--out", help="folder for stats.json and plots (SVG)")] = None,
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="draw plots; needs matplotlib")] = True,
) -> None:
    """Prints what a mixture is: by source, licence, kind, label, role, length."""
    stats.write_stats(mixture, out_dir, Console(), plots=plots)


@app.command("card")
def write_card(
    prepared: Annotated[Path, typer.Option("--prepared", help="folder made by `prepare`")] = DEFAULT_OUT,
    cleaned: Annotated[Path, typer.Option("--cleaned", help="folder made by `clean`")] = Path("work/cleaned"),
    checks: Annotated[Path, typer.Option("--checks", help="table made by `check -o` or `build`")] = Path("work/checks.md"),
    mixture: Annotated[list[Path] | None, typer.Option("--mixture", help="folder made by `compose`; may be repeated")] = None,
    readme: Annotated[Path, typer.Option("--readme", help="page whose counts block is renewed")] = Path("data/README.md"),
) -> None:
    """Writes the counts of the data card."""
    datacard.write_datacard(prepared, cleaned, checks, mixture or [Path("work/mixture")], readme)


if __name__ == "__main__":
    app()
