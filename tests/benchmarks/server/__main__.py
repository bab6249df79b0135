"""Load, a full queue, faults and a soak of the service: `python tests/benchmarks/server all`, or one part with sizes of its own.

Every part writes its result as JSON beside those of the others, and the page anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import faults as faults_
import load as load_
import page
import soak as soak_
import typer
from services import ROOT

app = typer.Typer(add_completion=False, help=__doc__, pretty_exceptions_enable=False)
Results = Annotated[Path, typer.Option(help="JSON with all parts.")]
Page = Annotated[Path, typer.Option(help="Markdown with the markers.")]
Model = Annotated[Path | None, typer.Option(help="Model folder; default: the shipped model.")]
Cpus = Annotated[int, typer.Option(help="CPUs that the service runs on.")]
RESULTS, PAGE = ROOT / "tests" / "benchmarks" / "server" / "results.json", ROOT / "src" / "lastresort" / "server" / "LOAD.md"
TINY = ROOT / "tests" / "tiny_model"


def _keep(results: Path, where: Path, part: str, result: dict[str, Any]) -> None:
    page.keep(results, where, part, result)
    typer.echo(page.markdown({part: result}))


@app.command()
def load(
    seconds: float = 10.0,
    clients: Annotated[list[int], typer.Option()] = [1, 8, 64],  # noqa: B006
    rounds: int = 1000,
    cpus: Cpus = 2,
    workers: int = 1,
    model: Model = None,
    results: Results = RESULTS,
    page: Page = PAGE,
) -> None:
    """Time that the service adds to the library's; requests a second, p50 and p99."""
    _keep(results, page, "load", load_.run(seconds=seconds, clients=clients, rounds=rounds, cpus=cpus, workers=workers, model=model))


@app.command()
def queue(seconds: float = 10.0, clients: int = 256, cpus: Cpus = 2, model: Model = None, results: Results = RESULTS, page: Page = PAGE) -> None:
    """What a full queue answers."""
    _keep(results, page, "queue", load_.queue(seconds=seconds, clients=clients, cpus=cpus, model=model))


@app.command()
def faults(
    conversations: int = 10_000,
    clients: int = 32,
    kills: int = 20,
    postgres_kills: int = 6,
    store: Annotated[str, typer.Option(help="postgresql or sqlite.")] = "postgresql",
    seed: int = 0,
    replayed: Annotated[int, typer.Option(help="Conversations that the library replays.")] = faults_.REPLAYED,
    model: Annotated[Path, typer.Option(help="Model folder.")] = TINY,
    results: Results = RESULTS,
    page: Page = PAGE,
) -> None:
    """Random branches while the service and PostgreSQL are killed. Exit status 1 if anything is lost or doubled."""
    sizes = {"conversations": conversations, "clients": clients, "kills": kills, "postgres_kills": postgres_kills, "replayed": replayed}
    result = faults_.run(**sizes, store=store, seed=seed, model=model)
    _keep(results, page, "faults", result)
    if not result["ok"]:
        raise typer.Exit(1)


@app.command()
def soak(
    minutes: float = 30.0,
    clients: int = 4,
    every: Annotated[float, typer.Option(help="Seconds between two looks at the memory.")] = 5.0,
    store: Annotated[str, typer.Option(help="postgresql or sqlite.")] = "sqlite",
    cpus: Cpus = 2,
    model: Model = None,
    results: Results = RESULTS,
    page: Page = PAGE,
) -> None:
    """Mixed traffic; the slope of the memory."""
    _keep(results, page, "soak", soak_.run(minutes=minutes, clients=clients, every=every, store=store, cpus=cpus, model=model))


@app.command(name="all")
def everything() -> None:
    """All parts with their default sizes: about an hour on a quiet machine."""
    load()
    queue()
    soak()
    faults()


if __name__ == "__main__":
    app()
