"""What scoring costs on the machine at hand: time a turn by length, turns a second on all CPUs, memory, and where the time goes.

What is compared is measured in turns, so that a machine that is busy for a while is busy for all of it. Numbers of different machines, or of a busy one,
cannot be compared.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from . import __version__
from .batch import available_cpus, score_dialogues
from .conversation import Monitor, load
from .encoding import TOKEN_TYPE
from .errors import LastResortError
from .explain import explained
from .types import Dialogue, Message

LENGTHS = (8, 16, 32, 64, 128, 256)
"""Tokens of a turn, special tokens included; those beyond the model's budget are left out."""

MIX = (8, 16, 16, 32, 32, 32, 64, 128)
"""Lengths of the turns of which throughput is measured, one after the other: most turns of a chat are short."""

SHARES = ("tokenizer", "graph", "policy", "overhead")
"""Where the time of a turn goes: text to ids; the graph run; the decision with its explanation; everything else."""

CHILD = """
import time
start = time.perf_counter()
import lastresort
imported = time.perf_counter()
monitor = lastresort.load({model!r})
loaded = time.perf_counter()
from lastresort.bench import serve
serve(monitor, imported - start, loaded - imported)
"""
"""What a fresh interpreter does: import, load, then score as long as it is told to."""

_WORDS = ("can", "you", "help", "me", "with", "the", "plan", "for", "this", "day", "and", "then", "send", "it", "to", "my", "team", "so", "that", "we", "all")
_LEAST = 5
"""Every figure rests on at least so many runs, however short the time."""


def measure(model: str | Path, *, seconds: float = 30.0, workers: int | None = None) -> dict[str, Any]:
    """Measures a model folder.

    Args:
        model: the folder.
        seconds: about how long to measure, all figures together; loading comes on top.
        workers: threads, and processes, that are compared with one; None for `available_cpus()`.

    Returns:
        A JSON-able record of what was measured with what, and:
        `import_s`, `load_s`: of a fresh process;
        `memory_mb`: `loaded` and `peak` of a fresh process, None where the system does not say;
        `turn_ms`: for each of `LENGTHS` the `tokens`, `n`, `p50`, `p95`, `p99`;
        `shares`: of `SHARES`, for a turn of `tokens`, each 0…1, together 1;
        `policy_us`: microseconds of a decision alone: `step`, and `explained` beside it;
        `turn_200_over_2`: ratio of medians, same text;
        `turns_per_second`: `one` thread, `workers` `threads`, as many `processes`.

    Raises:
        ArtifactError: the model folder is not sound.
        LastResortError: a process that was to measure did not.
    """
    import onnxruntime

    workers = workers or available_cpus()
    monitor = load(model, mode="shadow")
    shares, decision = _shares(monitor, seconds * 0.15)
    one, many, processes, first = _throughput(monitor, model, workers, seconds * 0.3)
    return {
        "model": monitor.model,
        "version": __version__,
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "python": platform.python_version(),
            "onnxruntime": onnxruntime.__version__,
            "cpus": available_cpus(),
        },
        "seconds": seconds,
        "workers": workers,
        "import_s": first["import_s"],
        "load_s": first["load_s"],
        "memory_mb": {"loaded": first["loaded_mb"], "peak": first["peak_mb"]},
        "turn_ms": _by_length(monitor, seconds * 0.4),
        "shares": shares,
        "policy_us": decision,
        "turn_200_over_2": _late_over_early(monitor, seconds * 0.15),
        "turns_per_second": {"one": one, "threads": many, "processes": processes},
    }


def text_of(monitor: Monitor, tokens: int) -> str:
    """Harmless text that the model reads as one window of exactly `tokens` ids, the special ones included."""
    single = [word for word in _WORDS if len(monitor.scorer.encoder.windows(word)[0]) == 3] or ["a"]
    return " ".join(islice(cycle(single), max(0, tokens - 2)))


def _lengths(monitor: Monitor, wanted: tuple[int, ...]) -> list[int]:
    budget = monitor.scorer.manifest.encoding.max_tokens
    return [length for length in wanted if length <= budget] or [budget]


def _interleaved(actions: Mapping[Any, Callable[[], object]], seconds: float) -> dict[Any, list[float]]:
    """Seconds of each run of each action, taken in turns until the time is over; the first round is not counted."""
    for action in actions.values():
        action()
    taken: dict[Any, list[float]] = {name: [] for name in actions}
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < _LEAST or time.perf_counter() < end:
        rounds += 1
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            taken[name].append(time.perf_counter() - start)
    return taken


def _by_length(monitor: Monitor, seconds: float) -> list[dict[str, float]]:
    state = monitor.start()
    texts = {length: text_of(monitor, length) for length in _lengths(monitor, LENGTHS)}
    actions = {length: (lambda text=text: monitor.observe(state, "user", text)) for length, text in texts.items()}
    rows = []
    for length, taken in _interleaved(actions, seconds).items():
        cuts = statistics.quantiles(taken, n=100, method="inclusive")
        rows.append({"tokens": length, "n": len(taken), **{f"p{share}": cuts[share - 1] * 1000 for share in (50, 95, 99)}})
    return rows


def _shares(monitor: Monitor, seconds: float) -> tuple[dict[str, float], dict[str, float]]:
    """Medians of the parts over the median of the whole turn; and those of the decision in microseconds."""
    (length,) = _lengths(monitor, (32,))
    text, state, scorer = text_of(monitor, length), monitor.start(), monitor.scorer
    (ids,) = scorer.encoder.windows(text)
    memory = scorer.initial_memory().reshape(1, -1)
    score, _ = scorer.score("user", text, scorer.initial_memory())

    after, decision = monitor.policy.step(state.policy, score)

    def decide() -> None:
        after, decision = monitor.policy.step(state.policy, score)
        explained(monitor.policy, state.policy, after, score, decision)

    actions: dict[str, Callable[[], object]] = {
        "whole": lambda: monitor.observe(state, "user", text),
        "tokenizer": lambda: scorer.encoder.windows(text),
        "graph": lambda: scorer._run(ids, TOKEN_TYPE["user"], memory),
        "policy": decide,
        "step": lambda: monitor.policy.step(state.policy, score),
        "explained": lambda: explained(monitor.policy, state.policy, after, score, decision),
    }
    medians = {name: statistics.median(taken) for name, taken in _interleaved(actions, seconds).items()}
    whole = max(medians["whole"], sum(medians[name] for name in SHARES[:3]))
    parts = {name: medians[name] / whole for name in SHARES[:3]}
    shares = {"tokens": length, **parts, "overhead": 1.0 - sum(parts.values())}
    return shares, {name: medians[name] * 1e6 for name in ("step", "explained")}


def _late_over_early(monitor: Monitor, seconds: float) -> float:
    (short,), (length,) = _lengths(monitor, (8,)), _lengths(monitor, (32,))
    filler, text = text_of(monitor, short), text_of(monitor, length)
    late = monitor.observe_all(Message("assistant" if index % 2 else "user", filler) for index in range(198))
    early = monitor.observe_all([Message("assistant", filler)])
    late, _ = monitor.observe(late, "assistant", filler)
    taken = _interleaved({"late": lambda: monitor.observe(late, "user", text), "early": lambda: monitor.observe(early, "user", text)}, seconds)
    return statistics.median(taken["late"]) / statistics.median(taken["early"])


def _conversations(monitor: Monitor) -> Iterator[Dialogue]:
    """Conversations of ten turns without end, of the lengths of `MIX`."""
    texts = cycle([text_of(monitor, length) for length in _lengths(monitor, MIX)])
    while True:
        yield Dialogue("bench", tuple(Message("assistant" if index % 2 else "user", next(texts)) for index in range(10)))


def _rate(monitor: Monitor, workers: int, seconds: float) -> float:
    """Turns a second on threads."""
    turns, start = 0, time.perf_counter()
    for number, scored in enumerate(score_dialogues(monitor, _conversations(monitor), workers=workers), start=1):
        turns += len(scored.turns)
        if number >= _LEAST and time.perf_counter() - start >= seconds:
            break
    return turns / (time.perf_counter() - start)


def _throughput(monitor: Monitor, model: str | Path, workers: int, seconds: float) -> tuple[float, float, float, dict[str, float | None]]:
    """Turns a second on one thread, on `workers` threads and on as many processes; and what the first of these processes says of itself."""
    command = [sys.executable, "-c", CHILD.format(model=str(model))]
    children = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)]
    try:
        first = _answer(children[0])  # alone, since it says how long importing and loading take
        children += [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(workers - 1)]
        for child in children[1:]:
            _answer(child)
        one, many = _rate(monitor, 1, seconds / 3), _rate(monitor, workers, seconds / 3)
        for child in children:
            assert child.stdin is not None
            child.stdin.write(f"{seconds / 3}\n")
            child.stdin.flush()
        answers = [_answer(child) for child in children]
        return one, many, sum(answer["rate"] or 0.0 for answer in answers), {**first, "peak_mb": answers[0]["peak_mb"]}
    finally:
        for child in children:
            child.terminate()
            child.communicate()


def _answer(child: subprocess.Popen[str]) -> dict[str, float | None]:
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise LastResortError(f"bench: a process that was to measure ended with exit code {child.wait()}")
    answer: dict[str, float | None] = json.loads(line)
    return answer


def serve(monitor: Monitor, import_s: float, load_s: float) -> None:
    """The other side of `CHILD`: says what loading took, then scores for as many seconds as the next line of standard input says, and says how it went."""
    print(json.dumps({"import_s": import_s, "load_s": load_s, "loaded_mb": _peak_mb()}), flush=True)
    if line := sys.stdin.readline():
        rate = _rate(monitor, 1, float(line))
        print(json.dumps({"rate": rate, "peak_mb": _peak_mb()}), flush=True)


def _peak_mb() -> float | None:
    """The most memory that this process has held so far, in MB; None on Windows."""
    if sys.platform == "win32":
        return None
    status = Path("/proc/self/status")
    if status.exists():  # what `getrusage` says includes the process that started this one
        return next(int(line.split()[1]) for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:")) / 1e3
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1e6 if sys.platform == "darwin" else most / 1e3
