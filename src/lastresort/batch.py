"""Files of dialogues become scores and decisions, streamed, in input order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from .conversation import Monitor
from .types import Dialogue, Mode, ScoredDialogue

A = TypeVar("A")
B = TypeVar("B")


def available_cpus() -> int:
    """How many CPUs this process may use: affinity, and the cgroup v2 quota if there is one."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            count = min(count, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # no cgroup v2 here
    return count


def map_ordered(function: Callable[[A], B], items: Iterable[A], workers: int) -> Iterator[B]:
    """`function` over `items` on threads, results in input order, at most `4 * workers` items in flight."""
    if workers < 2:
        yield from map(function, items)
        return
    pending: deque[Future[B]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            failure: Exception | None = None
            source = iter(items)
            while True:
                try:
                    pending.append(pool.submit(function, next(source)))
                except StopIteration:
                    break
                except Exception as error:  # of the input: the results of the items before it come first, as without threads
                    failure = error
                    break
                if len(pending) >= 4 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
            if failure is not None:
                raise failure
        finally:
            for future in pending:
                future.cancel()


def score_dialogues(monitor: Monitor, dialogues: Iterable[Dialogue], *, workers: int | None = None, mode: Mode = "enforce") -> Iterator[ScoredDialogue]:
    """Scores dialogues on all CPUs; memory stays bounded whatever the number of dialogues.

    Args:
        monitor: model and policy; shared by the workers.
        dialogues: any iterable; read as needed.
        workers: threads; None for `available_cpus()`. The result does not depend on it.
        mode: in which stored conversations are judged.

    Raises:
        ScoringError: of the first dialogue that could not be scored.
    """
    yield from map_ordered(partial(monitor.score, mode=mode), dialogues, workers or available_cpus())
