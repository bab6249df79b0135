"""Measures of turn scores against labels, and exact intervals of rates. Plain numpy; tested against scikit-learn's and scipy's definitions.

A soft label of at least 0.5 counts as positive; unknown labels are left out by the caller.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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
        ece_by_chance: about what a perfectly calibrated scorer would show on so few turns (an upper estimate where labels are soft).
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
    ece_by_chance: float
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


def calibration_error_by_chance(probabilities: Array, bins: int = 10) -> float:
    """About the expected calibration error of a perfectly calibrated scorer with these probabilities: labels drawn from them, normal approximation.

    A bin's count strays from its mean by sqrt(2 v / pi) on average, v being the sum of p (1 - p), and by at most 2 v, which is nearer where v is small.
    """
    place = np.minimum((probabilities * bins).astype(int), bins - 1)
    variance = np.bincount(place, probabilities * (1 - probabilities), bins)
    return float(np.minimum(np.sqrt(2 * variance / np.pi), 2 * variance).sum() / len(probabilities))


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
        ece_by_chance=calibration_error_by_chance(probabilities),
        threshold=threshold,
    )


def beta_cdf(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by Lentz's continued fraction; a relative error of at most about 1e-9.

    Args:
        x: 0…1.
        a: above 0.
        b: above 0.
    """
    if not 0.0 < x < 1.0:
        return 0.0 if x < 1.0 else 1.0
    if x > (a + 1.0) / (a + b + 2.0):  # where the fraction converges fast
        return 1.0 - beta_cdf(1.0 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    tiny, c = 1e-300, 1.0
    d = 1.0 / max(tiny, abs(1.0 - (a + b) * x / (a + 1.0)))
    result = d
    for m in range(1, 100_000):
        for step in (m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)), -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))):
            d, c = 1.0 / (1.0 + step * d or tiny), 1.0 + step / c or tiny
            result *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return front * result


def clopper_pearson(hits: int, n: int, confidence: float = 0.95, *, two_sided: bool = True) -> tuple[float, float]:
    """Exact binomial interval (Clopper and Pearson 1934) for a rate.

    Args:
        hits: 0…n.
        n: trials; without any, nothing is known: (0, 1).
        confidence: between 0 and 1.
        two_sided: both ends together hold with `confidence`; otherwise each alone does.

    Returns:
        Lower and upper end; a relative error of about 1e-9.
    """
    if not 0 <= hits <= n or not 0.0 < confidence < 1.0:
        raise ValueError(f"found {hits} of {n} at confidence {confidence}, expected hits in 0…n and a confidence between 0 and 1")
    tail = (1.0 - confidence) / (2 if two_sided else 1)
    low = 0.0 if hits == 0 else _bisect(lambda p: beta_cdf(p, hits, n - hits + 1) < tail)[0]
    high = 1.0 if hits == n else _bisect(lambda p: 1.0 - beta_cdf(p, hits + 1, n - hits) > tail)[1]
    return low, high


def _bisect(below: Callable[[float], bool]) -> tuple[float, float]:
    """The two neighbouring floats (or nearly) between which `below` turns from true to false on 0…1."""
    low, high = 0.0, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high) or high - low < 1e-13 * high:
            break
        low, high = (middle, high) if below(middle) else (low, middle)
    return low, high


def conversations_needed(limit: float, confidence: float, errors: int = 0) -> int:
    """The fewest conversations in which `errors` false ends still show, at `confidence`, a rate of at most `limit` (both between 0 and 1)."""
    enough = errors + 1
    while clopper_pearson(errors, enough, confidence, two_sided=False)[1] > limit:
        enough *= 2
    few = enough // 2
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (middle, enough) if clopper_pearson(min(errors, middle), middle, confidence, two_sided=False)[1] > limit else (few, middle)
    return enough
