"""`lastresort score --engine ray`: the same scoring on all machines of a Ray cluster (extra `ray`).

    read (one task)  →  score (actors, one CPU and one Monitor each)  →  in input order to whoever asked, who writes the shards as without Ray

Only the scoring is spread: the reader and the writer are those of `batch`, so shards, going on after a kill, bad lines and the order are the same. The
pipeline is a Ray Data dataset inside an actor on the cluster, since a Ray client (`ray://`) cannot stream one itself. Reader and actors open inputs and
model by their paths: both lie on storage that every machine sees, and lastresort is installed there in the same version.
"""

from __future__ import annotations

import os
import socket
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from . import __version__
from .artifact import shipped_model
from .batch import Outcome, Place, _lines, _score_line
from .conversation import Monitor, load
from .errors import ArtifactError, DataError, LastResortError, MissingExtraError
from .files import Lines
from .policy import PolicyConfig
from .types import Mode

BLOCK_BYTES = 1 << 16
"""About so much text goes to an actor at once: a second or two of work, so that no actor waits long for another one's block."""


@dataclass(frozen=True)
class _Job:
    """What the cluster is told. `model`: folder, None for the shipped one of each machine; `digest`: that it must have; `actors`: None for all CPUs."""

    inputs: Sequence[Lines]
    start: Place | None
    model: str | None
    digest: str
    policy: PolicyConfig
    mode: Mode
    actors: int | None
    version: str = __version__


@dataclass
class RayEngine:
    """Takes the place of `batch.score_lines`, on a Ray cluster; connects when made. Not for several threads at once.

    Attributes:
        model: folder on storage that every machine sees; None for the shipped model.
        address: of the cluster: `auto` (the one this machine belongs to), `ray://HOST:PORT`, `HOST:PORT`, or `local` for a new one on this machine.
        scored: how many conversations each worker has scored so far; a worker is (node, process).

    Raises:
        MissingExtraError: Ray is not installed.
        LastResortError: there is no such cluster.
    """

    model: Path | None = None
    address: str = "local"
    scored: Counter[tuple[str, int]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        ray = _ray()
        if ray.is_initialized():  # by the program that uses us: its cluster
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # of a cluster that is started here: tells nobody
        options = {"include_dashboard": False} if self.address == "local" else {}
        try:
            host, colon, port = self.address.removeprefix("ray://").rpartition(":")
            if colon:
                socket.create_connection((host, int(port)), timeout=10).close()  # Ray itself would wait for many minutes
            ray.init(self.address, log_to_driver=False, logging_level="ERROR", configure_logging=False, **options)
        except Exception as error:  # many unrelated types
            problem = f"ray: found no cluster at {self.address} ({type(error).__name__}: {_last_line(error)})"
            raise LastResortError(f"{problem}, expected auto, local, HOST:PORT or ray://HOST:PORT") from None

    def __call__(
        self, monitor: Monitor, inputs: Sequence[Lines], *, start: Place | None = None, workers: int | None = None, mode: Mode = "enforce"
    ) -> Iterator[Outcome]:
        """As `batch.score_lines`; `workers` is the number of actors, None for all CPUs of the cluster.

        Raises:
            ArtifactError: a machine of the cluster has another model, or another version of lastresort.
            LastResortError: Ray failed.
        """
        ray = _ray()
        if any(str(source.path) == "-" for source in inputs):
            raise DataError("found standard input, expected files on storage that every machine of the cluster sees", where="<stdin>")
        shared = [copy(source) for source in inputs]
        for source in shared:
            source.path = os.path.abspath(source.path)
        folder = None if self.model is None or self.model.resolve() == shipped_model().resolve() else os.path.abspath(self.model)
        job = _Job(shared, start, folder, monitor.scorer.manifest.digest, monitor.policy.config, mode, workers)
        pipeline = ray.remote(num_cpus=0)(_Pipeline).remote(job)
        try:
            asked = deque([pipeline.next.remote(), pipeline.next.remote()])
            while rows := ray.get(asked.popleft()):
                asked.append(pipeline.next.remote())
                for outcome, position, worker in rows:
                    if isinstance(outcome, LastResortError):
                        raise outcome
                    inputs[outcome.place.input].position = position
                    self.scored[worker] += 1
                    yield outcome
        except ray.exceptions.RayError as error:
            raise LastResortError(f"ray: {type(error).__name__}: {_last_line(error)}") from None
        finally:
            with suppress(Exception):  # such as a cluster that is gone
                ray.kill(pipeline)  # the actors of its dataset go with it


class _Pipeline:
    """An actor that owns the dataset."""

    def __init__(self, job: _Job) -> None:
        import ray.data

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.target_max_block_size = BLOCK_BYTES
        context.execution_options.preserve_order = True
        actors = ray.data.ActorPoolStrategy(size=job.actors or max(1, int(ray.cluster_resources().get("CPU", 1))))
        lines = ray.data.from_items([0]).map_batches(_read, fn_args=(job,), batch_size=None, num_cpus=0)
        scored = lines.map_batches(_Score, fn_constructor_args=(job,), batch_size=None, num_cpus=1, compute=actors)
        self._batches: Iterator[Any] = iter(scored.iter_batches(batch_size=None, prefetch_batches=2))

    def next(self) -> list[tuple[Any, int, tuple[str, int]]]:
        """The rows that come next; none at the end."""
        for batch in self._batches:
            if len(batch["row"]):
                return list(batch["row"])
        return []


def _read(batch: Any, job: _Job) -> Iterator[dict[str, Any]]:
    """Lines with the position of their input; what cannot be read on comes last, as an error."""
    try:
        for line in _lines(job.inputs, job.start):
            yield _column([(line, job.inputs[line[2].input].position)])
    except LastResortError as error:
        yield _column([(error, 0)])


class _Score:
    """An actor with a Monitor of its own, loaded when the first lines come, so that what is wrong with the model is an error like others."""

    def __init__(self, job: _Job) -> None:
        import ray

        self._job = job
        self._monitor: Monitor | None = None
        self._worker = (ray.get_runtime_context().get_node_id(), os.getpid())

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        rows: list[tuple[Any, int, tuple[str, int]]] = []
        try:
            for line, position in batch["row"]:
                if isinstance(line, LastResortError):
                    raise line
                self._monitor = self._monitor or _load(self._job)
                rows.append((_score_line(self._monitor, self._job.mode, line), position, self._worker))
        except LastResortError as error:
            rows.append((error, 0, self._worker))
        return _column(rows)


def _load(job: _Job) -> Monitor:
    monitor = load(job.model, policy=job.policy)
    found = (__version__, monitor.scorer.manifest.digest)
    if found != (job.version, job.digest):
        raise ArtifactError(f"a machine of the cluster: found lastresort {found[0]} with model {found[1][:8]}, expected {job.version} with {job.digest[:8]}")
    return monitor


def _column(rows: Sequence[object]) -> dict[str, Any]:
    column = np.empty(len(rows), dtype=object)
    column[:] = rows
    return {"row": column}


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[-1].strip()  # of a trace: what went wrong


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"--engine ray needs {error.name}, which is not installed: pip install 'lastresort[ray]'") from None
    return ray
