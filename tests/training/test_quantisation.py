"""Smaller graphs: attention as one operator, int8 as trained for, and the gate before one is shipped."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tiny import SAMPLE, tiny_export_settings, tiny_settings

import lastresort_training.export as module
import lastresort_training.graph as graph_module
import lastresort_training.quantisation as quantisation
from lastresort.artifact import MODEL, TOKENIZER, ModelFolder, load_folder
from lastresort.conversation import Monitor, load
from lastresort.data import read_dialogues
from lastresort.errors import ArtifactError
from lastresort.scoring import TurnScorer
from lastresort_training.export import calibration_feeds, export, torch_dialogue
from lastresort_training.graph import activation_ranges, fuse_attention, products, quantise, smooth, split_attention
from lastresort_training.model import QuantisedLinear, ServingGraph, quantise_encoder
from lastresort_training.quantisation import Cost, gate
from lastresort_training.train import load_run, train


@pytest.fixture(scope="module")
def folders(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The finished run in fp32 and in both kinds of int8 arithmetic, these through the gate."""
    found = {precision: tmp_path_factory.mktemp("models") / precision for precision in ("fp32", "int8", "int8-rows")}
    for precision, folder in found.items():
        export(finished, folder, tiny_export_settings(precision=precision, validation=str(SAMPLE)))
    return found


def operators(folder: Path) -> list[str]:
    return [node.op_type for node in onnx.load(str(folder / MODEL)).graph.node]


def test_attention_is_one_operator_a_layer(folders: dict[str, Path]) -> None:
    full, small = operators(folders["fp32"]), operators(folders["int8"])
    assert (full.count("Attention"), full.count("Softmax")) == (2, 0)
    assert (small.count("QAttention"), small.count("Attention"), small.count("Softmax")) == (2, 0, 0)


def test_memory_and_heads_stay_exact_in_int8(folders: dict[str, Path]) -> None:
    graph = onnx.load(str(folders["int8"] / MODEL)).graph
    assert operators(folders["int8"]).count("MatMulInteger") == 2 * 3  # what follows attention, and the two of the feed-forward part
    integer = {name for node in graph.node if node.op_type in ("MatMulInteger", "QAttention") for name in node.input}
    assert not [name for name in integer if "memory" in name or "heads" in name]


def test_products_by_token_are_integers_and_memory_and_heads_stay_exact(folders: dict[str, Path]) -> None:
    kinds = operators(folders["int8-rows"])
    assert (kinds.count("MatMulIntegerToFloat"), kinds.count("MultiHeadAttention"), kinds.count("MatMul")) == (2 * 4, 2, 0)
    weights = {t.name: numpy_helper.to_array(t) for t in onnx.load(str(folders["int8-rows"] / MODEL)).graph.initializer if t.name.endswith("_integers")}
    wide = [value for value in weights.values() if value.dtype == np.uint8]
    assert len(wide) == 2  # the second product of each layer's feed-forward part
    assert all(value.shape == (64, 32) and value.min() >= 1 for value in wide)
    assert all(np.abs(value.astype(int)).max() <= 64 for value in weights.values() if value.dtype == np.int8)  # two such sums fit into 16 bits


def test_smoothing_and_splitting_attention_keep_the_function(folders: dict[str, Path], feeds: list[dict[str, Any]], tmp_path: Path) -> None:
    source = folders["fp32"] / MODEL
    split = split_attention(onnx.load(str(source)))
    onnx.save(split, str(tmp_path / "split.onnx"))
    ranges = activation_ranges(tmp_path / "split.onnx", feeds)
    assert {len(value) for value in ranges.values()} == {32, 64}
    onnx.save(smooth(split, ranges, 0.5), str(tmp_path / "smooth.onnx"))
    sessions = [onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]) for path in (source, tmp_path / "smooth.onnx")]
    for feed in feeds:
        for one, other in zip(*(session.run(None, feed) for session in sessions), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


def test_smoothing_evens_out_what_is_rounded(folders: dict[str, Path], feeds: list[dict[str, Any]], tmp_path: Path) -> None:
    onnx.save(split_attention(onnx.load(str(folders["fp32"] / MODEL))), str(tmp_path / "split.onnx"))
    before = activation_ranges(tmp_path / "split.onnx", feeds)
    onnx.save(smooth(onnx.load(str(tmp_path / "split.onnx")), before, 1.0), str(tmp_path / "smooth.onnx"))
    after = activation_ranges(tmp_path / "smooth.onnx", feeds)
    assert len(after) == len(products(onnx.load(str(tmp_path / "split.onnx"))))
    for value in after.values():
        np.testing.assert_allclose(value, 1.0, rtol=1e-4)  # at full strength every channel has the same range


def test_products_by_token_need_turns(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="int8-rows: found no turns"):
        quantise(folders["fp32"] / MODEL, tmp_path / MODEL, "int8-rows")


@pytest.fixture
def feeds(finished: Path, folders: dict[str, Path]) -> list[dict[str, Any]]:
    settings = load_run(finished)[1]
    return list(calibration_feeds(folders["fp32"] / MODEL, folders["fp32"] / TOKENIZER, settings, str(SAMPLE)))


@pytest.mark.parametrize("precision", ["fp32", "int8-rows"])
def test_padding_changes_nothing(folders: dict[str, Path], precision: str) -> None:
    session = onnxruntime.InferenceSession(str(folders[precision] / MODEL), providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(4)
    size = load_folder(folders["fp32"]).manifest.memory_size
    ids = generator.integers(5, 700, (2, 11))
    mask = np.ones_like(ids)
    mask[0, 6:] = 0
    feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids), "memory": generator.normal(size=(2, size)).astype(np.float32)}
    together = session.run(None, feed)
    alone = session.run(None, {name: value[:1, :6] if name != "memory" else value[:1] for name, value in feed.items()})
    for both, one in zip(together, alone, strict=True):
        np.testing.assert_allclose(both[:1], one, atol=1e-5)


def test_a_graph_of_another_shape_is_refused() -> None:
    node = helper.make_node("Softmax", ["x"], ["y"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in ("x", "y")]
    model = helper.make_model(helper.make_graph([node], "g", values[:1], values[1:]))
    with pytest.raises(ArtifactError, match="graph: found 0 attentions after softmax 0, expected 1"):
        fuse_attention(model, 2)
    plain = helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:]))
    with pytest.raises(ArtifactError, match="found no attention"):
        fuse_attention(plain, 2)


# --- training as it will be served


def test_rounding_while_training_is_that_of_the_int8_graph(finished: Path, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_module, "store_weights_as_int8", shutil.copyfile)  # the arithmetic alone; the embeddings' rounding is another matter
    quantise(folders["fp32"] / MODEL, tmp_path / MODEL, "int8")
    shutil.copyfile(folders["fp32"] / TOKENIZER, tmp_path / TOKENIZER)
    model, settings, _ = load_run(finished)
    scorer = TurnScorer(ModelFolder(tmp_path, load_folder(folders["fp32"]).manifest))
    dialogues = list(read_dialogues(SAMPLE))

    def distance() -> float:
        graph, found = ServingGraph(model).eval(), []
        for dialogue in dialogues:
            expected = iter(torch_dialogue(graph, scorer.encoder, dialogue, settings.model.memory_size))
            memory = scorer.initial_memory()
            for message in dialogue.messages:
                if message.role in ("user", "assistant"):
                    _, memory = scorer.score(message.role, message.content, memory)
                    found.append(float(np.abs(next(expected)[1] - memory).mean()))
        return float(np.mean(found))

    exact = distance()
    quantise_encoder(model)
    assert 0 < distance() < 0.3 * exact


def test_a_quantised_layer_learns_and_keeps_its_names(finished: Path) -> None:
    model, _, _ = load_run(finished)
    names = list(model.state_dict())
    weights = [parameter for parameter in model.encoder.encoder.parameters() if parameter.ndim == 2]
    quantise_encoder(model)
    assert list(model.state_dict()) == names
    layers = [layer for layer in model.encoder.modules() if isinstance(layer, QuantisedLinear)]
    assert len(layers) == 2 * 6
    assert {id(layer.weight) for layer in layers} == {id(weight) for weight in weights}
    ids = torch.randint(5, 700, (3, 7))
    model.pool(ids, torch.ones_like(ids), torch.zeros_like(ids)).square().sum().backward()
    assert all(layer.weight.grad is not None and layer.weight.grad.abs().sum() > 0 for layer in layers)


def test_a_window_is_rounded_alone() -> None:
    """As at serving, where each window is a run: a neighbour with large numbers changes nothing."""
    torch.manual_seed(1)
    layer, values = QuantisedLinear(8, 5), torch.randn(1, 4, 8)
    layer.requires_grad_(False)
    alone = layer(values)
    assert torch.equal(layer(torch.cat([values, 1000 * torch.randn(1, 4, 8)]))[:1], alone)
    assert 0 < float((torch.nn.functional.linear(values, layer.weight, layer.bias) - alone).abs().max()) < 0.1
    steps = alone.new_tensor(range(-64, 65)) * (layer.weight[0].abs().max() / 64)
    rounded = torch.fake_quantize_per_tensor_affine(layer.weight[0], float(layer.weight[0].abs().max() / 64), 0, -64, 64)
    assert all(float((steps - value).abs().min()) < 1e-6 for value in rounded)


def test_a_run_that_rounds_is_trained_exported_and_read(base: Path, tmp_path: Path) -> None:
    run = train(tiny_settings(base, tmp_path / "run", model__int8_aware=True))
    model, settings, _ = load_run(run)
    assert settings.model.int8_aware
    assert not [layer for layer in model.modules() if isinstance(layer, QuantisedLinear)]  # exported in full, and quantised then
    export(run, tmp_path / "model", tiny_export_settings(precision="int8"))
    assert load_folder(tmp_path / "model").manifest.provenance["quantisation"] is None


# --- the gate


def test_a_model_costs_nothing_against_itself(folders: dict[str, Path]) -> None:
    monitor, dialogues = load(folders["fp32"]), list(read_dialogues(SAMPLE))
    found = gate(monitor, monitor, dialogues)
    assert (found.conversations, found.flipped, found.reasons, found.largest) == (len(dialogues), 0, 0, 0.0)
    assert found.turns == sum(message.role in ("user", "assistant") for dialogue in dialogues for message in dialogue.messages)
    assert all(full == small for full, small in found.average_precision.values())
    assert found.failures() == []


def test_what_differs_is_counted(folders: dict[str, Path]) -> None:
    full, dialogues = load(folders["fp32"]), list(read_dialogues(SAMPLE))
    config = full.policy.config
    thresholds = {**config.thresholds, **dict.fromkeys(config.triggers, replace(config.threshold("harm"), enter=1.0))}
    thresholds.pop("end_request", None)
    strict = replace(config, thresholds=thresholds, end_request_label=None)
    found = gate(full, Monitor(full.scorer, type(full.policy)(strict)), dialogues)  # the same scores, other decisions
    ended = sum(full.score(dialogue).call == "end" for dialogue in dialogues)
    assert ended > 0
    assert (found.flipped, found.largest) == (ended, 0.0)
    assert found.reasons > ended
    assert found.failures() == [f"{ended} of {len(dialogues)} conversations are decided otherwise, expected at most 0.3%"]


def test_a_label_that_loses_too_much_is_named() -> None:
    found = Cost(1000, 9000, 3, 7, 0.2, {"harm": (0.9, 0.8969), "hate": (0.8, 0.81), "rare": (0.7, 0.6975)})
    assert found.lost == ("harm", pytest.approx(0.0031))
    assert found.failures() == ["harm loses 0.0031 of average precision, expected at most 0.003"]
    assert replace(found, average_precision={}).failures() == []


def test_the_figures_stand_in_the_manifest(folders: dict[str, Path]) -> None:
    figures = load_folder(folders["int8"]).manifest.provenance["quantisation"]
    assert figures["validation"] == SAMPLE.name
    assert set(figures) == {"validation", "conversations", "turns", "flipped", "reasons", "largest_difference", "average_precision"}
    assert figures["largest_difference"] > 0
    assert load_folder(folders["fp32"]).manifest.provenance["quantisation"] is None


def test_what_does_not_pass_is_not_written(folders: dict[str, Path], finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copied(graph: Any, memory_size: int, target: Path) -> None:
        shutil.copyfile(folders["fp32"] / MODEL, target)

    monkeypatch.setattr(module, "to_onnx", copied)
    monkeypatch.setattr(quantisation, "MOST_LOST", -1.0)
    with pytest.raises(ArtifactError, match=rf"{SAMPLE.name}: the quantised graph costs too much: \w+ loses .* expected at most -1.0"):
        export(finished, tmp_path / "model", tiny_export_settings(precision="int8-weights", validation=str(SAMPLE)))
    assert not (tmp_path / "model").exists()
