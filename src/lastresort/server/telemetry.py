"""Metrics and logs. Neither holds text or ids of conversations."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from lastresort.types import Decision, ScoredTurn, TurnScore

LOGGER = "lastresort.server"
SHARES = tuple(n / 20 for n in range(1, 21))
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"


class Metrics:
    """The numbers of one process, or of all workers where `PROMETHEUS_MULTIPROC_DIR` is set before the start. Thread-safe."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Histogram("lastresort_request_seconds", "Requests", ("method", "route", "status"), buckets=SECONDS, registry=registry)
        self._refused = Counter("lastresort_refused", "Requests answered with an error, by its code", ("code",), registry=registry)
        self._turns = Histogram("lastresort_turn_seconds", "Scoring and deciding of one turn", buckets=SECONDS, registry=registry)
        self._decisions = Counter("lastresort_decisions", "Decisions on turns", ("call", "would_call", "advice", "reason"), registry=registry)
        self._scores = Histogram("lastresort_score", "Scores of turns", ("label",), buckets=SHARES, registry=registry)
        self._waiting = Gauge("lastresort_pending", "Requests that wait or work", registry=registry, multiprocess_mode="livesum")

    def request(self, method: str, route: str, status: int, seconds: float, code: str | None) -> None:
        """Counts a request."""
        self._requests.labels(method, route, str(status)).observe(seconds)
        if code is not None:
            self._refused.labels(code).inc()

    def pending(self, count: int) -> None:
        """How many requests wait or work in this process."""
        self._waiting.set(count)

    def scored(self, score: TurnScore | ScoredTurn) -> None:
        """Counts the scores of a turn."""
        for label, value in score.scores.items():
            self._scores.labels(label).observe(value)

    def decided(self, decision: Decision) -> None:
        """Counts a decision."""
        self._decisions.labels(decision.call, decision.would_call or "", decision.advice, decision.reason).inc()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Measures one turn."""
        with self._turns.time():
            yield

    def page(self) -> bytes:
        """Everything in Prometheus' text format."""
        if MULTIPROCESS not in os.environ:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


class JsonLines(logging.Formatter):
    """One JSON object a record. Of an exception only its type and places, since its message may hold what people wrote."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        line: dict[str, Any] = {"time": now, "level": record.levelname.lower(), "event": record.getMessage(), **getattr(record, "fields", {})}
        if record.exc_info and record.exc_info[0] is not None:
            line |= _reduced(record.exc_info[0], record.exc_info[2])
        return json.dumps(line, ensure_ascii=False)


def _reduced(kind: type[BaseException], trace: TracebackType | None) -> dict[str, Any]:
    places = [f"{os.path.basename(frame.filename)}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace)[-8:]]
    return {"exception": kind.__name__, "at": places}


def log(event: str, *, level: int = logging.INFO, error: BaseException | None = None, **fields: Any) -> None:
    """Writes one structured line. The exception itself never reaches a handler, whoever set it up."""
    if error is not None:
        fields |= _reduced(type(error), error.__traceback__)
    logging.getLogger(LOGGER).log(level, event, extra={"fields": fields})


def log_to_stderr() -> None:
    """Sends the service's and uvicorn's logs to standard error as JSON lines. Called by `serve`, never at import."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in (LOGGER, "uvicorn", "alembic"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.WARNING if name == "alembic" else logging.INFO)
