"""Calibration: logits of a validation split become honest probabilities, in the same order, and thresholds for reports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lastresort.metrics import expected_calibration_error, f1_score
from lastresort_training.calibrate import MINIMUM, calibrate, platt
from lastresort_training.data import UNKNOWN
from lastresort_training.model import TurnModel, build_model


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def draw(size: int, scale: float, bias: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels that come true as often as sigmoid(scale * logit + bias) says."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, size)
    return logits, (random.random(size) < sigmoid(scale * logits + bias)).astype(float)


@pytest.fixture
def model(base: Path) -> TurnModel:
    return build_model(str(base), 3, 8, 0.1)


@pytest.mark.parametrize(("scale", "bias"), [(1.0, 0.0), (0.4, -1.0), (2.0, 1.5)])
def test_platt_finds_scale_and_bias(scale: float, bias: float) -> None:
    logits, labels = draw(40_000, scale, bias)
    found = platt(logits, labels)
    assert found == pytest.approx((scale, bias), abs=0.08)
    assert expected_calibration_error(labels, sigmoid(found[0] * logits + found[1])) < 0.01


def test_platt_takes_soft_labels() -> None:
    logits = np.random.default_rng(1).normal(0, 2, 5_000)
    assert platt(logits, sigmoid(0.5 * logits - 1.0)) == pytest.approx((0.5, -1.0), abs=0.02)


def test_too_few_of_one_class_leave_the_logits_as_they_are() -> None:
    logits = np.linspace(-3, 3, 200)
    for positives, expected in ((MINIMUM - 1, True), (200 - MINIMUM + 1, True), (0, True), (200, True), (MINIMUM, False)):
        labels = (np.arange(200) >= 200 - positives).astype(float)
        assert (platt(logits, labels) == (1.0, 0.0)) == expected, positives


def test_the_order_of_scores_is_never_turned_round() -> None:
    """A harm score that points the wrong way on validation stays raw; a negative scale would make harm count as calm."""
    logits, labels = draw(2_000, -1.0, 0.0)
    assert platt(logits, labels) == (1.0, 0.0)


def test_calibrating_fills_the_buffers_and_gives_thresholds(model: TurnModel) -> None:
    logits = np.zeros((3_000, 3), dtype=np.float32)
    targets = np.full((3_000, 3), UNKNOWN, dtype=np.float32)
    logits[:, 0], targets[:, 0] = draw(3_000, 0.5, 0.5)
    logits[:1000, 1], targets[:1000, 1] = draw(1_000, 2.0, -1.0, seed=2)
    logits[1000:, 1] = 50.0  # unknown turns must not matter
    thresholds = calibrate(model, logits, targets, UNKNOWN)
    assert len(thresholds) == 3
    for column, known in ((0, slice(None)), (1, slice(0, 1000))):
        raw, wanted = logits[known, column].astype(float), targets[known, column].astype(float)
        scale, bias = float(model.calibration_scale[column]), float(model.calibration_bias[column])
        assert (scale, bias) == pytest.approx(platt(raw, wanted), rel=1e-6)
        probabilities = sigmoid(scale * raw + bias)
        reached = f1_score(wanted, (probabilities >= thresholds[column]).astype(float))
        assert reached >= max(f1_score(wanted, (probabilities >= t).astype(float)) for t in np.linspace(0.01, 0.99, 99)) - 0.005
    assert (float(model.calibration_scale[2]), float(model.calibration_bias[2]), thresholds[2]) == (1.0, 0.0, 0.5)


def test_calibration_is_in_the_serving_graph_and_not_in_training(model: TurnModel) -> None:
    from lastresort_training.model import ServingGraph

    model.eval()
    tokens = torch.ones(1, 5, dtype=torch.int64)
    before, memory = ServingGraph(model)(tokens, tokens, tokens * 0, torch.zeros(1, 8))
    with torch.no_grad():
        model.calibration_scale.fill_(2.0)
        model.calibration_bias.fill_(-1.0)
    after, same = ServingGraph(model)(tokens, tokens, tokens * 0, torch.zeros(1, 8))
    torch.testing.assert_close(torch.logit(after), 2 * torch.logit(before) - 1)
    assert torch.equal(memory, same)
