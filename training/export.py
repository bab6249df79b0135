"""A training run becomes a model folder: one ONNX graph, checked against torch, described by a manifest."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from safetensors.torch import save_file

from lastresort import __version__
from lastresort.artifact import CERTIFICATE, INPUTS, MANIFEST, MODEL, OUTPUTS, TOKENIZER, Manifest, ModelFolder, file_sha256, write_manifest
from lastresort.config import read_yaml
from lastresort.conversation import Monitor
from lastresort.data import read_dialogues
from lastresort.encoding import TOKEN_TYPE, TurnEncoder
from lastresort.errors import ArtifactError, ConfigError
from lastresort.policy import DecisionPolicy, parse_policy
from lastresort.scoring import TurnScorer
from lastresort.types import Dialogue

from .config import TrainConfig
from .graph import PRECISIONS, fuse_attention, quantise
from .model import ServingGraph
from .quantisation import gate
from .record import CURVES, read_runs, write_runs
from .train import PORTABLE, load_run

OPSET = 20
CALIBRATION = (200, 8000)
"""So many dialogues show how large activations become, spread over so many at the beginning of the file."""


@dataclass(frozen=True)
class ExportSettings:
    """How a run is exported; `configs/export/*.yaml`.

    Attributes:
        name: of the model.
        version: of the model.
        policy: policy file whose settings become the model's default.
        golden: JSONL of dialogues on which torch and ONNX must agree.
        precision: fp32; int8-weights (weights stored as int8, computed in fp32); int8-rows (computed in int8, a scale for each token); int8 (ONNX Runtime's
            dynamic quantisation). See `graph.quantise`.
        calibration: JSONL of dialogues that show `int8-rows` how large activations become, e.g. the training split; null for the golden dialogues.
        tolerance: largest difference of any probability or memory value between torch and the fp32 graph.
        quantised_tolerance: largest difference of any probability between torch and the shipped graph, reported and held.
        trigger_floor: lowest threshold of a trigger, 0…1: nobody's turn is flagged as harmful at less than even odds, whatever F1 would gain by it.
        validation: JSONL of labelled dialogues on which a quantised graph must pass the gate of `quantisation`; null: no gate, and the manifest says so.
        provenance: more to record, e.g. licences of the data.
    """

    name: str
    version: str
    policy: str
    golden: str
    precision: str = "fp32"
    tolerance: float = 1e-4
    quantised_tolerance: float = 0.15
    calibration: str | None = None
    trigger_floor: float = 0.5
    validation: str | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0.0 <= self.trigger_floor <= 1.0:
            raise ValueError(f"trigger_floor: found {self.trigger_floor}, expected a number in 0…1")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision: found {self.precision!r}, expected one of {', '.join(PRECISIONS)}")


def to_onnx(graph: ServingGraph, memory_size: int, target: Path, *, attention: bool = True) -> None:
    """Writes the fp32 graph, optimised (constants folded, GELU, layer norm and, if `attention`, attention fused)."""
    tokens = torch.ones(2, 9, dtype=torch.int64)
    example = (tokens, tokens.clone(), torch.zeros_like(tokens), torch.zeros(2, memory_size))
    batch, length = torch.export.Dim("batch", min=1, max=4096), torch.export.Dim("length", min=2, max=512)
    shapes = (*({0: batch, 1: length} for _ in range(3)), {0: batch})
    program = torch.onnx.export(
        graph, example, input_names=list(INPUTS), output_names=list(OUTPUTS), dynamic_shapes=shapes, opset_version=OPSET, dynamo=True, verbose=False
    )
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.onnx"
        assert program is not None  # dynamo export returns a program
        program.save(str(raw), external_data=False)
        _fuse(raw, graph, target, attention)


def _fuse(raw: Path, graph: ServingGraph, target: Path, attention: bool) -> None:
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    config = graph.model.encoder.config
    options = FusionOptions("bert")
    options.enable_embed_layer_norm = False
    heads, width = int(config.num_attention_heads), int(config.hidden_size)
    optimised = optimize_model(str(raw), "bert", num_heads=heads, hidden_size=width, optimization_options=options, opt_level=1)
    onnx.save(fuse_attention(optimised.model, heads) if attention else optimised.model, str(target))
    _drop_metadata(target)


def _drop_metadata(path: Path) -> None:
    """Drops the exporter's free-text metadata, which names files of the machine it ran on."""
    model = onnx.load(str(path))
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.initializer, *model.graph.input, *model.graph.output):
        value.doc_string = ""
        if hasattr(value, "metadata_props"):
            del value.metadata_props[:]
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    model.producer_name, model.producer_version, model.doc_string = "lastresort", __version__, ""
    onnx.save(model, str(path))


@torch.no_grad()
def torch_dialogue(graph: ServingGraph, encoder: TurnEncoder, dialogue: Dialogue, memory_size: int) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Per scored turn: (probabilities, memory) as torch computes them, windows as at serving."""
    memory = torch.zeros(1, memory_size)
    result = []
    for message in dialogue.messages:
        if message.role not in TOKEN_TYPE:
            continue
        best: torch.Tensor | None = None
        for ids in encoder.windows(message.content):
            tokens = torch.tensor([ids])
            probabilities, memory = graph(tokens, torch.ones_like(tokens), torch.full_like(tokens, TOKEN_TYPE[message.role]), memory)
            best = probabilities if best is None else torch.maximum(best, probabilities)
        assert best is not None
        result.append((best[0].numpy(), memory[0].numpy()))
    return result


def calibration_feeds(graph: Path, tokenizer: Path, config: TrainConfig, dialogues: str) -> Iterator[dict[str, Any]]:
    """Turns of up to 200 dialogues as inputs of the graph, each with the memory that goes with it."""
    encoder = TurnEncoder.from_file(tokenizer, config.encoding)
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    known = list(islice(read_dialogues(dialogues), CALIBRATION[1]))
    for dialogue in known[:: max(1, len(known) // CALIBRATION[0])]:
        memory = np.zeros((1, config.model.memory_size), dtype=np.float32)
        for message in dialogue.messages:
            if message.role in TOKEN_TYPE:
                ids = np.array([encoder.windows(message.content)[0]], dtype=np.int64)
                feed = dict(zip(INPUTS, (ids, np.ones_like(ids), np.full_like(ids, TOKEN_TYPE[message.role]), memory), strict=True))
                yield feed
                memory = session.run(None, feed)[1]


def largest_difference(graph: ServingGraph, scorer: TurnScorer, dialogues: Iterable[Dialogue]) -> tuple[float, float, int]:
    """Largest difference between torch and the loaded ONNX model over whole dialogues: (probabilities, memory, turns compared)."""
    worst_probability = worst_memory = 0.0
    turns = 0
    manifest = scorer.manifest
    for dialogue in dialogues:
        expected = iter(torch_dialogue(graph, scorer.encoder, dialogue, manifest.memory_size))
        memory = scorer.initial_memory()
        for index, message in enumerate(dialogue.messages):
            if message.role not in TOKEN_TYPE:
                continue
            score, memory = scorer.score(message.role, message.content, memory, index)
            probabilities, torch_memory = next(expected)
            for column, label in enumerate(manifest.labels):
                if label.name in score.scores:
                    worst_probability = max(worst_probability, abs(float(probabilities[column]) - score.scores[label.name]))
            worst_memory = max(worst_memory, float(np.abs(torch_memory - memory).max()))
            turns += 1
    return worst_probability, worst_memory, turns


def export(run: Path, output: Path, settings: ExportSettings) -> Manifest:
    """Exports a finished run as a model folder.

    Args:
        run: a folder made by `train`.
        output: the model folder; files of an earlier export are replaced only when every check has passed.
        settings: see `ExportSettings`.

    Returns:
        The manifest.

    Raises:
        ConfigError: the run or the policy is not usable.
        ArtifactError: torch and ONNX disagree; nothing is written then.
    """
    model, config, record = load_run(run)
    if config.data.context_turns:
        raise ConfigError(f"{run}: data.context_turns: found {config.data.context_turns}, expected 0: such a run is for comparison alone")
    policy = read_yaml(settings.policy)
    rules = DecisionPolicy(parse_policy(policy, where=settings.policy))
    golden = list(read_dialogues(settings.golden))
    if not golden:
        raise ConfigError(f"{settings.golden}: found no dialogue, expected golden dialogues to compare torch and ONNX on")
    floor = {"trigger": settings.trigger_floor}
    labels = tuple(replace(label, threshold=max(record["thresholds"][label.name], floor.get(label.role, 0.0))) for label in config.labels)
    graph = ServingGraph(model).eval()
    with tempfile.TemporaryDirectory() as temporary:
        draft = Path(temporary)
        shutil.copyfile(run / TOKENIZER, draft / TOKENIZER)
        manifest = Manifest(
            name=settings.name,
            version=settings.version,
            labels=labels,
            memory_size=config.model.memory_size,
            encoding=config.encoding,
            policy=policy,
            files={},
        )
        full = draft / "fp32.onnx"
        to_onnx(graph, config.model.memory_size, full)
        agreement = {}
        for name, tolerance in (("fp32", settings.tolerance), (settings.precision, settings.quantised_tolerance)):
            if name == "fp32" and "fp32" in agreement:
                continue
            quantise(full, draft / MODEL, name, calibration_feeds(full, draft / TOKENIZER, config, settings.calibration or settings.golden))
            scorer = Monitor(TurnScorer(ModelFolder(draft, manifest)), rules).scorer  # a policy that does not fit the labels raises here
            probability, memory, turns = largest_difference(graph, scorer, golden)
            agreement[name] = {"probability": probability, "memory": memory, "turns": turns}
            if probability >= tolerance or (name == "fp32" and memory >= tolerance):
                found = f"{probability:.2e} on probabilities and {memory:.2e} on memory"
                raise ArtifactError(f"{settings.golden}: torch and the {name} graph differ by {found}, expected less than {tolerance:g}")
        passed = None if settings.validation is None or settings.precision == "fp32" else _gate(draft, full, manifest, rules, settings.validation)
        full.unlink()
        write_runs(read_runs(run), draft)
        save_file({name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}, draft / PORTABLE)
        manifest = replace(
            manifest,
            provenance={
                "created": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "package_version": __version__,
                "precision": settings.precision,
                "agreement_with_torch": agreement,
                "quantisation": passed,
                "training": {key: record[key] for key in ("base", "train_digest", "validation_digest", "label_counts", "versions")},
                **settings.provenance,
            },
        )
        output.mkdir(parents=True, exist_ok=True)
        for stale in (MANIFEST, CERTIFICATE, "metrics.json", "slices.json", "targets.json", CURVES, "README.md"):  # of the model that was here before
            (output / stale).unlink(missing_ok=True)
        for path in draft.iterdir():
            shutil.copyfile(path, output / path.name)
    return finish(output, manifest)


def _gate(draft: Path, full: Path, manifest: Manifest, rules: DecisionPolicy, validation: str) -> dict[str, Any]:
    """What the graph in `draft` loses against the full one, for the manifest. Raises `ArtifactError` if that is too much."""
    with tempfile.TemporaryDirectory() as folder:
        for name, source in ((MODEL, full), (TOKENIZER, draft / TOKENIZER)):
            shutil.copyfile(source, Path(folder) / name)
        exact, small = (Monitor(TurnScorer(ModelFolder(place, manifest)), rules) for place in (Path(folder), draft))
        found = gate(exact, small, read_dialogues(validation))
    if failures := found.failures():
        raise ArtifactError(f"{validation}: the quantised graph costs too much: {'; '.join(failures)}")
    return {"validation": Path(validation).name, **found.to_json()}


def finish(folder: Path, manifest: Manifest) -> Manifest:
    """Writes the manifest with the hashes of every file beside it (metrics and card too), so that they can be verified."""
    files = {path.name: file_sha256(path) for path in sorted(folder.iterdir()) if path.is_file() and path.name != MANIFEST}
    manifest = replace(manifest, files=files)
    write_manifest(folder, manifest)
    return manifest
