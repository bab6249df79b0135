"""Command line of the data tools: `list`, `prepare`, `compose`, `card`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from . import adapters, compose, datacard
from .prepare import prepare, show

ALL = "all"
DEFAULT_OUT = Path("work/prepared")

app = typer.Typer(help="Public data sources as labelled dialogues.", no_args_is_help=True)


@app.command("list")
def list_sources() -> None:
    """Lists the sources that have an adapter."""
    for name in adapters.names():
        summary = (adapters.get(name).__doc__ or "").splitlines()[0]
        typer.echo(f"{name}: {summary}")


@app.command("prepare")
def prepare_sources(
    sources: Annotated[list[str], typer.Argument(help=f"names of sources, or {ALL!r}", metavar="SOURCE…")],
    from_dir: Annotated[Path, typer.Option("--from", help="folder with the raw sources and the list of held-out overlaps")],
    out_dir: Annotated[Path, typer.Option("--out", help="folder to write to")] = DEFAULT_OUT,
) -> None:
    """Writes labelled dialogues of SOURCE… to OUT/<source>/train.jsonl and validation.jsonl."""
    show(prepare(adapters.names() if ALL in sources else sources, from_dir, out_dir), Console())


@app.command("compose")
def compose_mixture(
    config: Annotated[Path, typer.Argument(help="mixture, e.g. configs/data/first.yaml")],
    prepared: Annotated[Path, typer.Option("--prepared", help="folder made by `prepare`")] = DEFAULT_OUT,
    out_dir: Annotated[Path, typer.Option("--out", help="folder to write to")] = Path("work/mixture"),
) -> None:
    """Writes OUT/train.jsonl, validation.jsonl and counts.json: real turns, capped, and dialogues composed from them."""
    compose.write_mixture(compose.read_config(config), prepared, out_dir)
    typer.echo((out_dir / "counts.json").read_text(encoding="utf-8"))


@app.command("card")
def write_card(
    prepared: Annotated[Path, typer.Option("--prepared", help="folder made by `prepare`")] = DEFAULT_OUT,
    mixture: Annotated[list[Path] | None, typer.Option("--mixture", help="folder made by `compose`; may be repeated")] = None,
    readme: Annotated[Path, typer.Option("--readme", help="page whose counts block is renewed")] = Path("data/README.md"),
) -> None:
    """Writes the counts of the data card."""
    datacard.write_datacard(prepared, mixture or [Path("work/mixture")], readme)


if __name__ == "__main__":
    app()
