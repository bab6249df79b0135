"""Calibration of a trained model on validation logits, and thresholds for reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from lastresort.metrics import best_f1_threshold

if TYPE_CHECKING:
    from .model import TurnModel

MINIMUM = 20
"""A label with fewer positives or negatives than this on validation keeps its raw logits: too few to fit two numbers."""


def platt(logits: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Platt scaling (Platt 1999) with soft labels: p = sigmoid(scale * logit + bias), scale above 0.

    Each turn enters as a positive with weight `label` and as a negative with weight `1 - label`.

    Args:
        logits: shape (n,).
        labels: 0…1, shape (n,).
    """
    hard = labels >= 0.5
    if min(hard.sum(), (~hard).sum()) < MINIMUM:
        return 1.0, 0.0
    features = np.concatenate([logits, logits]).reshape(-1, 1)
    classes = np.concatenate([np.ones(len(logits)), np.zeros(len(logits))])
    weights = np.concatenate([labels, 1.0 - labels])
    fitted = LogisticRegression(C=100.0).fit(features[weights > 0], classes[weights > 0], sample_weight=weights[weights > 0])
    scale, bias = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    return (scale, bias) if scale > 0 else (1.0, 0.0)


def calibrate(model: TurnModel, logits: np.ndarray[Any, Any], targets: np.ndarray[Any, Any], unknown: float) -> list[float]:
    """Sets the model's calibration buffers from validation logits and returns the threshold of best F1 of each label.

    Args:
        model: changed in place.
        logits: before calibration, shape (turns, labels).
        targets: 0…1 or `unknown`, same shape.
        unknown: stands for an absent label.
    """
    thresholds = []
    for column in range(logits.shape[1]):
        known = targets[:, column] != unknown
        raw, wanted = logits[known, column].astype(np.float64), targets[known, column].astype(np.float64)
        scale, bias = platt(raw, wanted) if known.any() else (1.0, 0.0)
        with torch.no_grad():
            model.calibration_scale[column] = scale
            model.calibration_bias[column] = bias
        probabilities = 1.0 / (1.0 + np.exp(-(scale * raw + bias)))
        thresholds.append(round(best_f1_threshold(wanted, probabilities), 4))
    return thresholds
