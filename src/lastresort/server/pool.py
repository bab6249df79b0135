"""Work in threads behind a bounded queue: what does not fit is refused at once, so that nobody waits for nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from .errors import ApiError, busy
from .telemetry import Metrics

T = TypeVar("T")


class Deadline:
    """The time by which a request must be answered."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def check(self) -> None:
        """Raises `ApiError` (503) once it has passed."""
        if time.monotonic() > self._end:
            raise too_slow()


def too_slow() -> ApiError:
    """503 for a request that took too long."""
    return busy("time_limit", "the request took longer than this service allows; nothing was acknowledged")


class Pool:
    """Threads and the count of what waits for them. `run` belongs to one event loop."""

    def __init__(self, threads: int, queue_size: int, time_limit: float, metrics: Metrics) -> None:
        """Takes the number of threads, of requests that may wait, and the seconds a request may take."""
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="lastresort")
        self._room, self._time_limit, self._metrics = threads + queue_size, time_limit, metrics
        self._pending = 0

    async def run(self, work: Callable[[Deadline], T]) -> T:
        """The result of `work`, done in a thread.

        Raises:
            ApiError: 503 `queue_full` or `time_limit`; otherwise what `work` raises.
        """
        if self._pending >= self._room:
            raise busy("queue_full", f"{self._pending} requests wait already; try again soon")
        deadline = Deadline(self._time_limit)

        def begin() -> T:
            deadline.check()  # it may have waited in the queue for too long
            return work(deadline)

        self._count(1)
        future = asyncio.get_running_loop().run_in_executor(self._executor, begin)
        future.add_done_callback(self._done)
        try:
            return await asyncio.wait_for(asyncio.shield(future), self._time_limit)
        except asyncio.TimeoutError:
            raise too_slow() from None

    def _done(self, future: asyncio.Future[T]) -> None:
        self._count(-1)
        if not future.cancelled():
            future.exception()  # seen, also where nobody waits any more

    def _count(self, change: int) -> None:
        self._pending += change
        self._metrics.pending(self._pending)

    def close(self) -> None:
        """Finishes what has begun, and drops what waits."""
        self._executor.shutdown(wait=True, cancel_futures=True)
