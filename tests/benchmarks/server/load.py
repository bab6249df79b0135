"""How fast the service is: what it adds to the library's own time, what many clients get, and what a full queue answers."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from typing import Any

from services import Answer, Caller, Postgres, Service, conditions, quantiles, scratch, shares

import lastresort
from lastresort.bench import MIX, text_of
from lastresort.conversation import Monitor

TURNS = 20
"""After so many turns a client without a store begins anew."""

WARM_SHARE = 0.1
"""Share of the time, before it, that is not counted."""

NOTHING = "a request for nothing (`/health/live`)"
Step = Callable[[], Answer]


def texts_of(monitor: Monitor) -> list[str]:
    """Harmless texts of the lengths of `MIX`, as `lastresort bench` uses them: no conversation ends."""
    budget = monitor.scorer.manifest.encoding.max_tokens
    return [text_of(monitor, length) for length in MIX if length <= budget] or [text_of(monitor, budget)]


def messages(texts: list[str], place: int = 0) -> Iterator[dict[str, str]]:
    """Without end, from the user on; `place` is where in the texts it begins."""
    for index, role in enumerate(cycle(("user", "assistant"))):
        yield {"role": role, "content": texts[(place + index) % len(texts)]}


def decider(caller: Caller, texts: list[str], place: int = 0) -> Step:
    """`/v1/decide` with one new message and the state of the answer before."""
    said, state, turn = messages(texts, place), None, 0

    def step() -> Answer:
        nonlocal state, turn
        if turn % TURNS == 0:
            state = None
        answer = caller.try_("POST", "/v1/decide", {"message": next(said), "state": state})
        if answer.status == 200:
            state, turn = answer.json["state"], turn + 1
        return answer

    return step


def appender(caller: Caller, texts: list[str], place: int = 0) -> Step:
    """Turns of one stored conversation, each with an idempotency key."""
    said, conversation = messages(texts, place), caller.ask("POST", "/v1/conversations").json["id"]
    keys = iter(range(1 << 62))

    def step() -> Answer:
        return caller.try_("POST", f"/v1/conversations/{conversation}/turns", next(said), key=f"k{next(keys)}")

    return step


def hammer(clients: int, seconds: float, begin: Callable[[int], Step]) -> tuple[list[Answer], float, int]:
    """What many clients are answered, each sending its next request as soon as it has the answer.

    Returns:
        The answers to what was sent after the warm-up; how many answers with a status below 400 came in a second; how many requests were sent in all.
    """
    gate = threading.Barrier(clients)
    warm = WARM_SHARE * seconds

    def client(number: int) -> tuple[list[Answer], float, int]:
        step = begin(number)
        gate.wait()
        start, taken = time.perf_counter(), []
        while time.perf_counter() < start + warm + seconds:
            taken.append(step())
        counted = [answer for answer in taken if answer.began >= start + warm]
        done = sum(0 < answer.status < 400 and start + warm <= answer.began + answer.seconds < start + warm + seconds for answer in taken)
        return counted, done / seconds, len(taken)

    with ThreadPoolExecutor(clients) as pool:
        results = list(pool.map(client, range(clients)))
    counted, rates, sent = zip(*results, strict=True)
    return [answer for answers in counted for answer in answers], sum(rates), sum(sent)


def run(*, seconds: float, clients: list[int], rounds: int, cpus: int, workers: int, model: Path | None) -> dict[str, Any]:
    """The added time, then requests a second and latencies of each path by clients."""
    about = conditions()
    monitor = lastresort.load(model, mode="shadow")
    texts = texts_of(monitor)
    with scratch() as (folder, stack):
        postgres = Postgres()
        stack.callback(postgres.close)
        options = ("--workers", str(workers)) if workers > 1 else ()
        services = {}
        for name, store in (("sqlite", f"sqlite:///{folder / 'load.db'}"), ("postgresql", postgres.database())):
            services[name] = Service(folder, store, *options, model=model, cpus=cpus)
            stack.callback(services[name].stop)
            services[name].start()
        about["versions"]["postgresql"] = postgres.version
        with ExitStack() as open_:
            callers = {name: open_.enter_context(Caller(service.port)) for name, service in services.items()}
            result = {"added": _added(monitor, texts, services["sqlite"], callers, rounds), "load": []}
        paths = {"decide": ("sqlite", decider), "append, SQLite": ("sqlite", appender), "append, PostgreSQL": ("postgresql", appender)}
        for path, (name, make) in paths.items():
            for count in clients:
                before = services[name].cpu_seconds()
                with ExitStack() as open_:
                    callers = [open_.enter_context(Caller(services[name].port)) for _ in range(count)]
                    answers, rate, sent = hammer(count, seconds, lambda number, callers=callers, make=make: make(callers[number], texts, number))
                row = {"path": path, "clients": count, "rate": rate, **quantiles(answer.seconds for answer in answers)}
                row["cpu_ms"] = 1000 * (services[name].cpu_seconds() - before) / sent
                result["load"].append({**row, "answers": dict(Counter(answer.code for answer in answers))})
        result["log_errors"] = sum(len(service.errors()) for service in services.values())
    settings = {"seconds": seconds, "clients": clients, "rounds": rounds, "cpus": cpus, "workers": workers}
    return {"conditions": about, "model": monitor.model, "settings": settings, **result}


def _added(monitor: Monitor, texts: list[str], service: Service, callers: Mapping[str, Caller], rounds: int) -> dict[str, Any]:
    """Times of one turn, taken in turns: in this process, and by each path of the service; one client, nothing else at work."""
    said, state, turn = messages(texts), monitor.start(), 0

    def library() -> float:
        nonlocal state, turn
        if turn % TURNS == 0:
            state = monitor.start()
        message, turn = next(said), turn + 1
        began = time.perf_counter()
        state, _ = monitor.observe(state, "user" if message["role"] == "user" else "assistant", message["content"])
        return time.perf_counter() - began

    first = callers["sqlite"]
    steps: dict[str, Step] = {"decide": decider(first, texts), "append, SQLite": appender(first, texts)}
    steps["append, PostgreSQL"] = appender(callers["postgresql"], texts)
    steps[NOTHING] = lambda: first.ask("GET", "/health/live")

    def timed(step: Step) -> float:
        answer = step()
        assert answer.status < 300, answer.code
        return answer.seconds

    actions: dict[str, Callable[[], float]] = {"library": library, **{name: lambda step=step: timed(step) for name, step in steps.items()}}
    order, rng = list(actions), random.Random(0)
    for _ in range(TURNS):  # warm
        for action in actions.values():
            action()
    before = service.metrics()
    taken: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        rng.shuffle(order)  # nobody always follows the same one
        for name in order:
            taken[name].append(actions[name]())
    after = service.metrics()
    found: dict[str, Any] = {name: quantiles(times) for name, times in taken.items()}
    for name in steps.keys() - {NOTHING}:
        found[name]["added_p50"] = found[name]["p50"] - found["library"]["p50"]

    def mean(metric: str, route: str) -> float:
        count = after[f"{metric}_count", route] - before.get((f"{metric}_count", route), 0.0)
        return 1000 * (after[f"{metric}_sum", route] - before.get((f"{metric}_sum", route), 0.0)) / max(count, 1.0)

    routes = {"decide": "/v1/decide", "append, SQLite": "/v1/conversations/{conversation}/turns"}
    inside = {name: mean("lastresort_request_seconds", route) for name, route in routes.items()}
    return {"ms": found, "inside_mean_ms": {"turn": mean("lastresort_turn_seconds", ""), **inside}}


def queue(*, seconds: float, clients: int, cpus: int, model: Path | None) -> dict[str, Any]:
    """What is answered when far more clients ask than can be served."""
    about = conditions()
    monitor = lastresort.load(model, mode="shadow")
    texts = texts_of(monitor)
    cases: list[tuple[str, dict[str, Any], bool]] = [
        ("default settings; clients ask again at once", {}, False),
        ("default settings; clients wait as `Retry-After` says", {}, True),
        ("`max_in_flight_per_key: 16`", {"max_in_flight_per_key": 16}, False),
        (f"`queue_size: {clients}`, `time_limit: 1`", {"queue_size": clients, "time_limit": 1.0}, False),
    ]
    rows = []
    for name, settings, polite in cases:
        with scratch() as (folder, stack):
            service = Service(folder, "none", model=model, cpus=cpus, **settings)
            stack.callback(service.stop)
            service.start()
            rows.append({"case": name, "clients": clients, **_flood(service, texts, clients, seconds, polite)})
    return {"conditions": about, "model": monitor.model, "settings": {"seconds": seconds, "clients": clients, "cpus": cpus}, "cases": rows}


def _flood(service: Service, texts: list[str], clients: int, seconds: float, polite: bool) -> dict[str, Any]:
    timeout = 60.0  # twice what the service allows itself: who waits longer is hung
    attempts: list[Answer] = []  # appending is atomic

    def begin(number: int) -> Step:
        caller, said = callers[number], messages(texts, number)

        def step() -> Answer:
            message, began = next(said), time.perf_counter()
            while True:
                answer = caller.try_("POST", "/v1/decide", {"message": message})
                attempts.append(answer)
                if not polite or answer.status not in {429, 503}:
                    return Answer(answer.status, answer.body, began, time.perf_counter() - began, failure=answer.failure)
                time.sleep(float(answer.retry_after or 1))

        return step

    with ExitStack() as open_:
        callers = [open_.enter_context(Caller(service.port, timeout)) for _ in range(clients)]
        answers, rate, _ = hammer(clients, seconds, begin)
    refused = [answer for answer in attempts if answer.status in {429, 503}]
    with Caller(service.port) as caller:
        after = caller.try_("POST", "/v1/decide", {"message": {"role": "user", "content": texts[0]}})
    return {
        "attempts": len(attempts),
        "shares": shares(Counter(answer.code for answer in attempts)),
        "served_per_second": rate,
        "until_served_ms": quantiles(answer.seconds for answer in answers if answer.status == 200),
        "refused_ms": quantiles(answer.seconds for answer in refused),
        "refused_without_retry_after": sum(not (answer.retry_after or "").isdecimal() for answer in refused),
        "no_answer": sum(not answer.status for answer in attempts),
        "after": {"status": after.status, "ms": 1000 * after.seconds, "pending": service.metrics().get(("lastresort_pending", ""), 0.0)},
        "log_errors": len(service.errors()),
    }
