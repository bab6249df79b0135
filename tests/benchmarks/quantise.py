"""The search for the fastest graph at equal decisions: time, size and cost in quality of every way that was tried, on validation.

    python tests/benchmarks/quantise.py work/mixture/validation.jsonl --calibration work/mixture/train.jsonl

Every graph is made from the fp32 one of the model folder's weights. Quality is that of the gate (`training/quantisation.py`); times are ratios to the fp32
graph, taken in turns, one thread. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from compare import ROOT, machine, session, side_by_side
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from lastresort.artifact import MODEL, TOKENIZER, ModelFolder, load_folder
from lastresort.batch import score_dialogues
from lastresort.conversation import Monitor
from lastresort.data import read_dialogues
from lastresort.encoding import TurnEncoder
from lastresort.policy import DecisionPolicy, parse_policy
from lastresort.scoring import TurnScorer
from lastresort_training import card
from lastresort_training import export as exporting
from lastresort_training.graph import (
    SMOOTHING,
    activation_ranges,
    dynamic_products,
    integer_products,
    products,
    quantise,
    smooth,
    split_attention,
    store_weights_as_int8,
)
from lastresort_training.model import ServingGraph, keep_layers
from lastresort_training.quantisation import MOST_FLIPPED, MOST_LOST, Cost, cost
from lastresort_training.train import load_run

LENGTHS = (16, 32, 64, 128)
"""Tokens of a window."""
BEGIN, END = "<!-- search: written by `tests/benchmarks/quantise.py`; do not edit -->", "<!-- end of search -->"


@dataclass(frozen=True)
class Way:
    """One way to write the graph.

    Attributes:
        name: in the table.
        write: from the fp32 graph to a file.
        quality: whether what it computes is compared too; False for graphs whose weights are not trained for them.
    """

    name: str
    write: Callable[[Path, Path], None]
    quality: bool = True


class Turns(CalibrationDataReader):
    """Real turns for static ranges."""

    def __init__(self, feeds: Iterator[dict[str, Any]]) -> None:
        self.feeds = feeds

    def get_next(self) -> dict[str, Any] | None:
        """The next turn's inputs."""
        return next(self.feeds, None)


def feed_of(ids: Sequence[int], role: int, memory: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Inputs of one window."""
    tokens = np.array([ids], dtype=np.int64)
    return {"input_ids": tokens, "attention_mask": np.ones_like(tokens), "token_type_ids": np.full_like(tokens, role), "memory": memory}


def n_bits(source: Path, target: Path, *, bits: int) -> None:
    """Weights of matrix products in blocks of 32 with a scale each, turned back while they are used."""
    quantiser = MatMulNBitsQuantizer(onnx.load(str(source)), block_size=32, is_symmetric=True, bits=bits, accuracy_level=4)
    quantiser.process()
    quantiser.model.save_model_to_file(str(target), False)


def by_row(source: Path, target: Path, feeds: Iterator[dict[str, Any]] | None, wide: slice) -> None:
    """Integer products with a scale for each token, smoothed where there are turns to see the ranges; those in `wide` in eight bits."""
    graph = split_attention(onnx.load(str(source)))
    if feeds is not None:
        onnx.save(graph, str(target))
        graph = smooth(graph, activation_ranges(target, feeds), SMOOTHING)
    onnx.save(integer_products(graph, [node.output[0] for node in products(graph)[wide]]), str(target))


def ways(turns: Callable[[], Iterator[dict[str, Any]]], unfused: Path, shallow: dict[int, Path]) -> list[Way]:
    """All that are compared, the reference first; `turns` gives calibration turns anew."""

    def static(source: Path, target: Path) -> None:
        options = {"DefaultTensorType": onnx.TensorProto.FLOAT}
        kinds: dict[str, Any] = {"quant_format": QuantFormat.QDQ, "activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        reader = Turns(turns())
        quantize_static(str(source), str(target), reader, op_types_to_quantize=["MatMul"], per_channel=True, reduce_range=True, extra_options=options, **kinds)

    def named(source: Path, which: slice) -> list[str]:
        return [node.name for node in products(onnx.load(str(source)))[which]]

    none, second, every, last = slice(0), slice(3, None, 4), slice(None), slice(-4, None)
    found = [
        Way("fp32", lambda source, target: quantise(source, target, "fp32")),
        Way("fp32, attention not fused", lambda source, target: quantise(unfused, target, "fp32"), quality=False),
        Way("weights as int8", store_weights_as_int8),
        Way("dynamic int8, 7 bits", dynamic_products),
        Way("dynamic int8, 8 bits", lambda source, target: dynamic_products(source, target, bits=8)),
        Way("dynamic int8, 7 bits, second feed-forward product exact", lambda source, target: dynamic_products(source, target, exact=named(source, second))),
        Way("dynamic int8, 7 bits, last layer exact", lambda source, target: dynamic_products(source, target, exact=named(source, last))),
        Way("int8 by token, 7 bits", lambda source, target: by_row(source, target, None, none)),
        Way("int8 by token, 7 bits, smoothed", lambda source, target: by_row(source, target, turns(), none)),
        Way("the same, second feed-forward product in 8 bits: `int8-rows`", lambda source, target: quantise(source, target, "int8-rows", turns())),
        Way("int8 by token, 8 bits", lambda source, target: by_row(source, target, None, every)),
        Way("static QDQ, matrix products", static),
        Way("MatMulNBits, 8 bits", lambda source, target: n_bits(source, target, bits=8)),
        Way("MatMulNBits, 4 bits", lambda source, target: n_bits(source, target, bits=4)),
    ]
    for depth, path in shallow.items():
        found.append(
            Way(f"`int8-rows`, {depth} layers", lambda _, target, path=path: quantise(path, target, "int8-rows", turns()), quality=False)  # type: ignore[misc]
        )
    return found


def graphs(model: Path, folder: Path) -> tuple[Path, Path, dict[int, Path]]:
    """fp32 as exported; the same before attention is one operator; and with fewer layers, for time alone."""
    trained, config, _ = load_run(model)
    full, unfused = folder / "fp32.onnx", folder / "unfused.onnx"
    exporting.to_onnx(ServingGraph(trained).eval(), config.model.memory_size, full)
    exporting.to_onnx(ServingGraph(trained).eval(), config.model.memory_size, unfused, attention=False)
    shallow = {}
    for layers in ((0, 2, 3, 5), (0, 2, 5)):
        small = copy.deepcopy(trained)
        keep_layers(small.encoder, layers)
        shallow[len(layers)] = folder / f"layers-{len(layers)}.onnx"
        exporting.to_onnx(ServingGraph(small).eval(), config.model.memory_size, shallow[len(layers)])
    return full, unfused, shallow


def times(paths: dict[str, Path], windows: Sequence[Sequence[int]], memory_size: int, rounds: int) -> dict[str, dict[str, float]]:
    """Of every graph: "mix" and tokens to median ratio over fp32 of single windows; the first graph also in ms."""
    memory = np.zeros((1, memory_size), dtype=np.float32)
    rng = np.random.default_rng(0)
    groups = {"mix": [feed_of(ids, 0, memory) for ids in windows]}
    groups |= {str(length): [feed_of(rng.integers(1000, 20000, length).tolist(), 0, memory) for _ in range(6)] for length in LENGTHS}
    sessions = {name: session(path) for name, path in paths.items()}
    result: dict[str, dict[str, float]] = {name: {} for name in paths}
    for group, feeds in groups.items():
        taken = side_by_side({name: [lambda one=one, feed=feed: one.run(None, feed) for feed in feeds] for name, one in sessions.items()}, rounds)  # type: ignore[misc]
        first = next(iter(paths))
        for name in paths:
            result[name][group] = statistics.median(a / b for a, b in zip(taken[name], taken[first], strict=True))
        result[first][f"{group} ms"] = 1000 * statistics.median(taken[first]) / len(feeds)
    return result


def batches(path: Path, windows: Sequence[Sequence[int]], memory_size: int, rounds: int) -> dict[str, float]:
    """Of one graph, per window, over windows run one by one at their own length: padded to 128; eight in a batch as they come; eight of like length."""
    memory = np.zeros((1, memory_size), dtype=np.float32)

    def padded(group: Sequence[Sequence[int]], length: int) -> dict[str, Any]:
        ids, mask = np.zeros((len(group), length), dtype=np.int64), np.zeros((len(group), length), dtype=np.int64)
        for row, one in enumerate(group):
            ids[row, : len(one)], mask[row, : len(one)] = one, 1
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids), "memory": np.repeat(memory, len(group), axis=0)}

    def eights(order: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
        return [padded(order[place : place + 8], max(map(len, order[place : place + 8]))) for place in range(0, len(order), 8)]

    one = session(path)
    ways = {
        "alone": [feed_of(ids, 0, memory) for ids in windows],
        "padded": [padded([ids], 128) for ids in windows],
        "eight": eights(windows),
        "eight, like length": eights(sorted(windows, key=len)),
    }

    def whole(feeds: Sequence[dict[str, Any]]) -> Callable[[], None]:
        def run() -> None:
            for feed in feeds:
                one.run(None, feed)

        return run

    taken = side_by_side({name: [whole(feeds)] for name, feeds in ways.items()}, rounds)
    return {name: statistics.median(a / b for a, b in zip(taken[name], taken["alone"], strict=True)) for name in ways}


def batch_difference(path: Path, windows: Sequence[Sequence[int]], memory_size: int) -> float:
    """Largest difference of a probability between a window alone and the same among others of its length."""
    one, worst = session(path), 0.0
    by_length: dict[int, list[Sequence[int]]] = {}
    for ids in windows:
        by_length.setdefault(len(ids), []).append(ids)
    for group in by_length.values():
        feeds = [feed_of(ids, 0, np.zeros((1, memory_size), dtype=np.float32)) for ids in group]
        together = one.run(None, {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]})[0]
        worst = max(worst, *(float(np.abs(one.run(None, feed)[0][0] - row).max()) for feed, row in zip(feeds, together, strict=True)))
    return worst


def monitor_of(graph: Path, model: ModelFolder, folder: Path) -> Monitor:
    """The model folder with another graph."""
    folder.mkdir()
    (folder / MODEL).symlink_to(graph)
    (folder / TOKENIZER).symlink_to((model.path / TOKENIZER).resolve())
    return Monitor(TurnScorer(ModelFolder(folder, model.manifest)), DecisionPolicy(parse_policy(model.manifest.policy, where="manifest")))


def page(result: dict[str, Any]) -> str:
    """The tables."""
    where = result["machine"]
    words = [f"{result['model']}; {where['processor']} ({', '.join(where['flags'])}), {where['cpus']} CPUs; onnxruntime {onnxruntime.__version__}."]
    words += [f"Load average before: {where['load_at_start']:.2f}."]
    words += [f"{result['conversations']} conversations, {result['turns']} turns of {result['data']}. Fp32 takes {result['ms']:.1f} ms a window of the mix."]
    words += [f"The gate: at most {MOST_LOST} of any label's average precision and {MOST_FLIPPED:.1%} of conversations."]
    header = ["graph", "MB", "time, mix", *(f"{length} tokens" for length in LENGTHS), "decided otherwise", "label that loses most", "alone against in a batch"]
    lines = []
    for row in result["ways"]:
        taken = [f"{row['time'][key]:.2f}" for key in ("mix", *map(str, LENGTHS))]
        flipped = "–" if row["flipped"] is None else f"{row['flipped']} ({row['flipped'] / result['conversations']:.2%})"
        lost = "–" if row["lost"] is None else f"{row['lost'][0]} {row['lost'][1]:+.4f}"
        verdict = "" if row["passes"] is None else (", passes" if row["passes"] else ", **fails**")
        lines.append([row["name"], f"{row['mb']:.0f}", *taken, flipped, lost + verdict, f"{row['batch']:.0e}"])
    table = card.table(header, lines)
    shapes = "; ".join(f"{name}: {value:.2f}" for name, value in result["batches"].items())
    return "\n\n".join([" ".join(words), table, f"The shipped graph on the windows of the mix, time over one run a window at its own length: {shapes}."])


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description="Search for the fastest graph at equal decisions.")
    parser.add_argument("data", type=Path, help="labelled dialogues on which quality is compared, e.g. the validation split")
    parser.add_argument("--calibration", type=Path, required=True, help="dialogues for static ranges, e.g. the training split")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "lastresort-minilm", help="model folder with weights")
    parser.add_argument("--most", type=int, default=1_000_000, help="dialogues, evenly spread")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, help="page with the markers; default: quantisation.md of the model")
    options = parser.parse_args()
    folder = load_folder(options.model)
    encoder = TurnEncoder.from_file(options.model / TOKENIZER, folder.manifest.encoding)
    dialogues = list(read_dialogues(options.data))
    dialogues = dialogues[:: max(1, round(len(dialogues) / options.most))]
    windows = [encoder.windows(turn.content)[0] for one in dialogues[:: max(1, len(dialogues) // 150)] for turn in one.messages[:1]][:120]
    size, where, rows = folder.manifest.memory_size, machine(), []
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        full, unfused, shallow = graphs(options.model, place)
        settings = load_run(options.model)[1]
        tried = ways(lambda: exporting.calibration_feeds(full, options.model / TOKENIZER, settings, str(options.calibration)), unfused, shallow)
        paths = {way.name: place / f"way-{number}.onnx" for number, way in enumerate(tried)}
        for way in tried:
            way.write(full, paths[way.name])
        taken = times(paths, windows, size, options.rounds)
        shapes = batches(options.model / MODEL, windows, size, options.rounds)
        exact = list(score_dialogues(monitor_of(paths["fp32"], folder, place / "exact"), dialogues))
        for number, way in enumerate(tried):
            found: Cost | None = None
            if way.quality and number:
                found = cost(dialogues, exact, score_dialogues(monitor_of(paths[way.name], folder, place / f"model-{number}"), dialogues))
            rows.append(
                {
                    "name": way.name,
                    "mb": paths[way.name].stat().st_size / 1e6,
                    "time": taken[way.name],
                    "flipped": None if found is None else found.flipped,
                    "lost": None if found is None else list(found.lost),
                    "passes": None if found is None else not found.failures(),
                    "batch": batch_difference(paths[way.name], windows, size),
                }
            )
            print(rows[-1], flush=True)
    result = {"model": folder.manifest.tag, "machine": where, "data": options.data.name, "conversations": len(dialogues), "ways": rows, "batches": shapes}
    result |= {"turns": sum(len(one.turns) for one in exact), "ms": taken["fp32"]["mix ms"]}
    (ROOT / "out" / "bench").mkdir(parents=True, exist_ok=True)
    (ROOT / "out" / "bench" / "quantise.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    card.renew(options.output or options.model / "quantisation.md", "search", BEGIN, END, f"\n\n{page(result)}\n\n")


if __name__ == "__main__":
    main()
