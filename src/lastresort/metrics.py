"""Measures of turn scores against labels. Plain numpy; definitions follow scikit-learn's, against which they are tested.

A soft label of at least 0.5 counts as positive; unknown labels are left out by the caller.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LabelMetrics:
    """How well one label is scored on one set of turns.

    Attributes:
        n: turns on which the label is known.
        positives: of them, those with a label of at least 0.5.
        prevalence: share of positives, 0…1.
        average_precision: area under precision–recall in steps (no interpolation); None without positives.
        f1: at the threshold; None without positives.
        macro_f1: mean of that and the F1 of the negatives; None unless there are both.
        flagged: share of turns at or above the threshold, 0…1.
        recall_at_1_fpr: recall where at most 1% of negatives are flagged; None without positives or negatives.
        ece: expected calibration error over 10 equal-width bins, 0…1.
        threshold: that was used.
    """

    n: int
    positives: int
    prevalence: float
    average_precision: float | None
    f1: float | None
    macro_f1: float | None
    flagged: float
    recall_at_1_fpr: float | None
    ece: float
    threshold: float


def average_precision(labels: Array, scores: Array) -> float:
    """Average precision: sum over thresholds of precision times the gain in recall. Ties are one threshold.

    Args:
        labels: 0 or 1, shape (n,); at least one 1.
        scores: any order-preserving numbers, shape (n,).
    """
    order = np.argsort(-scores, kind="stable")
    sorted_scores, hits = scores[order], labels[order]
    last = np.append(np.flatnonzero(np.diff(sorted_scores)), len(scores) - 1)
    true = np.cumsum(hits)[last]
    precision = true / (last + 1)
    recall = true / true[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def f1_score(labels: Array, flagged: Array) -> float:
    """Harmonic mean of precision and recall; 0 if nothing is right."""
    true = float(np.sum(labels * flagged))
    total = float(np.sum(labels) + np.sum(flagged))
    return 2 * true / total if total else 0.0


def macro_f1(labels: Array, flagged: Array) -> float:
    """Mean of the F1 of the positive and of the negative class."""
    return (f1_score(labels, flagged) + f1_score(1 - labels, 1 - flagged)) / 2


def recall_at_fpr(labels: Array, scores: Array, limit: float) -> float:
    """Highest recall at a threshold that flags at most the share `limit` (0…1) of negatives."""
    negatives = np.sort(scores[labels == 0])[::-1]
    allowed = int(np.floor(limit * len(negatives)))
    if allowed >= len(negatives):
        return 1.0
    return float(np.mean(scores[labels == 1] > negatives[allowed]))


def expected_calibration_error(labels: Array, probabilities: Array, bins: int = 10) -> float:
    """Mean distance of probability and frequency over equal-width bins, weighted by their size (Naeini et al. 2015). Labels may be soft."""
    place = np.minimum((probabilities * bins).astype(int), bins - 1)
    error = 0.0
    for number in range(bins):
        inside = place == number
        if inside.any():
            error += abs(float(labels[inside].mean() - probabilities[inside].mean())) * float(inside.mean())
    return error


def best_f1_threshold(labels: Array, scores: Array) -> float:
    """The threshold with the highest F1, halfway between neighbouring scores; 0.5 without positives or negatives."""
    hard = (labels >= 0.5).astype(float)
    if hard.sum() == 0 or hard.sum() == len(hard):
        return 0.5
    order = np.argsort(-scores, kind="stable")
    true = np.cumsum(hard[order])
    f1 = 2 * true / (np.arange(1, len(scores) + 1) + hard.sum())
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    best = last[int(np.argmax(f1[last]))]
    here = float(scores[order][best])
    below = float(scores[order][best + 1]) if best + 1 < len(scores) else here
    return float(np.clip((here + below) / 2, 1e-4, 1.0))


def label_metrics(labels: Array, probabilities: Array, threshold: float, flagged: Array | None = None) -> LabelMetrics:
    """All measures of one label.

    Args:
        labels: 0…1, shape (n,), n at least 1; soft labels are cut at 0.5 except for the calibration error.
        probabilities: 0…1, shape (n,).
        threshold: at or above it a turn is flagged.
        flagged: 0 or 1, shape (n,), where something else than the threshold flags.

    Raises:
        ValueError: shapes differ, nothing given, or numbers that are not finite.
    """
    labels, probabilities = np.asarray(labels, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    if labels.shape != probabilities.shape or labels.ndim != 1 or len(labels) == 0:
        raise ValueError(f"found labels of shape {labels.shape} and scores of shape {probabilities.shape}, expected the same, with at least one turn")
    if not (np.isfinite(labels).all() and np.isfinite(probabilities).all()):
        raise ValueError("found numbers that are not finite, expected labels and probabilities in 0…1")
    hard = (labels >= 0.5).astype(np.float64)
    positives = int(hard.sum())
    if flagged is None:
        flagged = (probabilities >= threshold).astype(np.float64)
    return LabelMetrics(
        n=len(hard),
        positives=positives,
        prevalence=positives / len(hard),
        average_precision=average_precision(hard, probabilities) if positives else None,
        f1=f1_score(hard, flagged) if positives else None,
        macro_f1=macro_f1(hard, flagged) if 0 < positives < len(hard) else None,
        flagged=float(flagged.mean()),
        recall_at_1_fpr=recall_at_fpr(hard, probabilities, 0.01) if 0 < positives < len(hard) else None,
        ece=expected_calibration_error(labels, probabilities),
        threshold=threshold,
    )
