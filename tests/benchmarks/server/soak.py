"""Mixed traffic for a long time: does memory stay flat?"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from services import Postgres, Service, conditions, dialogues, scratch

from lastresort.client import Client, StoredConversationEnded
from lastresort.errors import DataError, LastResortError, StateError

LONG = 4000
"""Characters of the longest texts; the model reads them in windows."""


class User:
    """A client with a stored conversation and a state of its own. Knows which refusals are right."""

    def __init__(self, url: str, seed: int) -> None:
        self._client, self._rng, self._texts = Client(url, retries=0), random.Random(seed), dialogues()
        self._conversation: str | None = None
        self._turns, self._state = 0, None
        self.counts: Counter[str] = Counter()

    def work(self, end: float) -> Counter[str]:
        """Random requests until `end` (`time.monotonic()`); returns counts of what was done, and of errors by kind."""
        actions = [(self._append, 40), (self._step, 25), (self._whole, 15), (self._moderate, 8), (self._refused, 6), (self._about, 6)]
        names, weights = zip(*actions, strict=True)
        with self._client:
            while time.monotonic() < end:
                (action,) = self._rng.choices(names, weights)
                try:
                    action()
                    self.counts[action.__name__.strip("_")] += 1
                except LastResortError as error:
                    self.counts[f"error: {type(error).__name__} {getattr(error, 'code', '')}".strip()] += 1
        return self.counts

    def _text(self) -> str:
        text: str = self._rng.choice(self._rng.choice(self._texts).messages).content
        return (text + " ") * (LONG // (len(text) + 1)) if self._rng.random() < 0.02 else f"{text} {self._rng.randrange(10**6)}"

    def _append(self) -> None:
        if self._conversation is None:
            self._conversation, self._turns = self._client.create().id, 0
        parent = f"t{self._rng.randrange(self._turns)}" if self._turns and self._rng.random() < 0.2 else "newest"
        with suppress(StoredConversationEnded):
            self._client.append(self._conversation, "assistant" if self._turns % 2 else "user", self._text(), parent=parent)
            self._turns += 1
        if self._rng.random() < 0.08:
            tree = self._client.tree(self._conversation)
            if any(turn.decision.decided_call == "end" for turn in tree.turns):
                self._client.feedback(self._conversation, "dispute")
            if self._rng.random() < 0.7:
                self._client.delete(self._conversation)
            self._conversation = None

    def _step(self) -> None:
        answer = self._client.step(self._rng.choice(("user", "assistant")), self._text(), self._state)
        self._state = None if answer.call == "end" or self._rng.random() < 0.1 else answer.state

    def _whole(self) -> None:
        self._rng.choice((self._client.decide, self._client.score))(self._rng.choice(self._texts).messages)

    def _moderate(self) -> None:
        self._client.moderate([self._text() for _ in range(self._rng.randint(1, 3))])

    def _refused(self) -> None:
        client = self._client
        wrong = (lambda: client.step("user", "", "ls1.forged.state"), lambda: client.tree("c" + "0" * 32), lambda: client.moderate([]))
        with suppress(DataError, StateError):
            self._rng.choice(wrong)()
            self.counts["error: not refused"] += 1

    def _about(self) -> None:
        self._client.info()
        self._client.ready()


def run(*, minutes: float, clients: int, every: float, store: str, cpus: int, model: Path | None) -> dict[str, Any]:
    """Traffic of `clients`, and the memory of the service every so many seconds.

    The slope is that of the second half, by least squares: in the first one caches fill and the allocator finds its size.
    """
    about = conditions()
    with scratch() as (folder, stack):
        url = f"sqlite:///{folder / 'soak.db'}"
        if store == "postgresql":
            postgres = Postgres()
            stack.callback(postgres.close)
            about["versions"]["postgresql"] = postgres.version
            url = postgres.database()
        service = Service(folder, url, "--mode", "enforce", model=model, cpus=cpus)
        stack.callback(service.stop)
        service.start()
        process, began = psutil.Process(service.pid), time.monotonic()
        end, done = began + 60 * minutes, threading.Event()
        samples: list[tuple[float, float, int, int]] = []

        def watch() -> None:
            while True:
                with process.oneshot():
                    samples.append((time.monotonic() - began, process.memory_info().rss / 1e6, process.num_threads(), process.num_fds()))
                if done.wait(every):
                    return

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            with ThreadPoolExecutor(clients) as pool:
                counts = sum(pool.map(lambda seed: User(service.url, seed).work(end), range(clients)), Counter())
        finally:
            done.set()
            watcher.join()
        errors = len(service.errors())
    series = np.array(samples)
    half = series[series[:, 0] >= series[-1, 0] / 2]
    slope, error = _slope(half[:, 0] / 3600, half[:, 1])
    settings = {"minutes": minutes, "clients": clients, "every": every, "store": store, "cpus": cpus}
    return {
        "conditions": about,
        "settings": settings,
        "requests": counts.total(),
        "counts": dict(counts.most_common()),
        "rss_mb": {"ready": series[0, 1], "middle": half[0, 1], "end": series[-1, 1], "most": series[:, 1].max()},
        "slope_mb_per_hour": slope,
        "slope_error_mb_per_hour": error,
        "threads": [int(series[0, 2]), int(series[-1, 2])],
        "open_files": [int(series[0, 3]), int(series[-1, 3])],
        "log_errors": errors,
        "samples_mb": [[round(at), round(rss, 1)] for at, rss in series[:: max(1, len(series) // 60), :2]],
    }


def _slope(hours: np.ndarray[Any, Any], megabytes: np.ndarray[Any, Any]) -> tuple[float, float]:
    """By least squares, and its standard error (of independent samples, so rather too small)."""
    if len(hours) < 4:
        return float("nan"), float("nan")
    (slope, _), covariance = np.polyfit(hours, megabytes, 1, cov=True)
    return float(slope), float(covariance[0, 0] ** 0.5)
