"""Measures against scikit-learn, which defines them, and against brute force where it has none."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lastresort.metrics import (
    average_precision,
    best_f1_threshold,
    beta_cdf,
    calibration_error_by_chance,
    clopper_pearson,
    conversations_needed,
    expected_calibration_error,
    f1_score,
    label_metrics,
    macro_f1,
    recall_at_fpr,
)

reference = pytest.importorskip("sklearn.metrics", reason="scikit-learn (extra: train) is the reference of the measures")

stats = pytest.importorskip("scipy.stats", reason="scipy (comes with scikit-learn) is the reference of the intervals")

Array = npt.NDArray[np.float64]
SEEDS = range(40)


def random_case(seed: int) -> tuple[Array, Array]:
    """Labels 0/1 with both classes, and scores with many ties."""
    random = np.random.default_rng(seed)
    size = int(random.integers(2, 400))
    labels = (random.random(size) < random.uniform(0.02, 0.9)).astype(float)
    labels[:2] = (0.0, 1.0)
    scores = np.clip(random.normal(0.4 + 0.2 * labels, 0.25), 0, 1)
    return labels, np.round(scores, int(random.integers(1, 4)))


@pytest.mark.parametrize("seed", SEEDS)
def test_average_precision_is_that_of_scikit_learn(seed: int) -> None:
    labels, scores = random_case(seed)
    assert average_precision(labels, scores) == pytest.approx(reference.average_precision_score(labels, scores), abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_f1_is_that_of_scikit_learn(seed: int) -> None:
    labels, scores = random_case(seed)
    for threshold in (0.0, 0.3, 0.5, 0.9, 1.0):
        flagged = (scores >= threshold).astype(float)
        assert f1_score(labels, flagged) == pytest.approx(reference.f1_score(labels, flagged, zero_division=0), abs=1e-12)
        assert macro_f1(labels, flagged) == pytest.approx(reference.f1_score(labels, flagged, average="macro", zero_division=0), abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("limit", [0.0, 0.01, 0.1, 0.5, 1.0])
def test_recall_at_a_false_positive_rate_is_the_best_of_all_thresholds(seed: int, limit: float) -> None:
    labels, scores = random_case(seed)
    best = 0.0
    for threshold in (*np.unique(scores), 2.0):
        flagged = scores >= threshold
        if flagged[labels == 0].mean() <= limit:
            best = max(best, float(flagged[labels == 1].mean()))
    assert recall_at_fpr(labels, scores, limit) == pytest.approx(best, abs=1e-12)


def test_recall_at_one_percent_needs_a_hundred_negatives_to_allow_one() -> None:
    for negatives, expected in ((99, 0.0), (100, 1.0)):
        scores = np.array([0.8, 0.9, *np.linspace(0, 0.5, negatives - 1)])
        labels = np.array([1.0, *[0.0] * negatives])
        assert recall_at_fpr(labels, scores, 0.01) == expected


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("bins", [1, 4, 10])
def test_calibration_error_by_brute_force(seed: int, bins: int) -> None:
    labels, probabilities = random_case(seed)
    soft = np.clip(labels * 0.8 + 0.1, 0, 1)
    total = 0.0
    for number in range(bins):
        inside = [i for i, p in enumerate(probabilities) if int(p * bins) == number or (number == bins - 1 and p == 1.0)]
        if inside:
            total += abs(sum(soft[i] for i in inside) / len(inside) - sum(probabilities[i] for i in inside) / len(inside)) * len(inside) / len(soft)
    assert expected_calibration_error(soft, probabilities, bins) == pytest.approx(total, abs=1e-12)


def test_calibration_error_of_perfect_and_of_worst_scores() -> None:
    labels = np.array([0.0, 1.0, 1.0, 0.0])
    assert expected_calibration_error(labels, labels) == 0.0
    assert expected_calibration_error(labels, 1 - labels) == 1.0
    assert expected_calibration_error(np.array([0.5, 0.5]), np.array([0.5, 0.5])) == 0.0


@pytest.mark.parametrize("seed", SEEDS)
def test_the_best_threshold_has_the_best_f1(seed: int) -> None:
    labels, scores = random_case(seed)
    scores = np.maximum(scores, 0.01)  # a threshold is never quite 0
    threshold = best_f1_threshold(labels, scores)
    assert 0.0 < threshold <= 1.0
    best = max(f1_score(labels, (scores >= t).astype(float)) for t in np.unique(scores))
    reached = f1_score(labels, (scores >= threshold).astype(float))
    assert reached == pytest.approx(best, abs=1e-12)


def test_a_threshold_is_never_zero() -> None:
    assert best_f1_threshold(np.array([0.0, 1.0]), np.array([0.5, 0.0])) == 1e-4


@pytest.mark.parametrize("labels", [[0.0, 0.0], [1.0, 1.0], [0.4, 0.1], [0.5, 0.9]])
def test_one_class_has_the_threshold_one_half(labels: list[float]) -> None:
    assert best_f1_threshold(np.array(labels), np.array([0.1, 0.9])) == 0.5


@pytest.mark.parametrize(
    ("labels", "scores", "expected"),
    [
        ([1], [0.0], 1.0),
        ([1, 1, 1], [0.3, 0.2, 0.1], 1.0),
        ([0, 1], [0.5, 0.5], 0.5),
        ([0, 0, 1], [0.9, 0.8, 0.1], 1 / 3),
        ([1, 0, 1, 0], [0.7, 0.7, 0.7, 0.7], 0.5),
    ],
)
def test_average_precision_by_hand(labels: list[int], scores: list[float], expected: float) -> None:
    assert average_precision(np.array(labels, dtype=float), np.array(scores)) == pytest.approx(expected)


def test_average_precision_does_not_depend_on_the_order_of_ties() -> None:
    labels, scores = random_case(3)
    turned = np.random.default_rng(0).permutation(len(labels))
    assert average_precision(labels[turned], scores[turned]) == pytest.approx(average_precision(labels, scores), abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_all_measures_of_a_label_together(seed: int) -> None:
    labels, scores = random_case(seed)
    soft = np.where(labels == 1, 0.6, 0.3)
    found = label_metrics(soft, scores, 0.5)
    flagged = (scores >= 0.5).astype(float)
    assert (found.n, found.positives, found.threshold) == (len(labels), int(labels.sum()), 0.5)
    assert found.prevalence == pytest.approx(labels.mean())
    assert found.average_precision == average_precision(labels, scores)
    assert found.f1 == f1_score(labels, flagged)
    assert found.macro_f1 == macro_f1(labels, flagged)
    assert found.flagged == flagged.mean()
    assert found.recall_at_1_fpr == recall_at_fpr(labels, scores, 0.01)
    assert found.ece == expected_calibration_error(soft, scores)
    assert found.ece_by_chance == calibration_error_by_chance(scores)


@pytest.mark.parametrize(("n", "power"), [(100, 1), (150, 4), (1000, 6), (3000, 1)])
def test_the_calibration_error_by_chance_is_that_of_drawn_labels(n: int, power: int) -> None:
    rng = np.random.default_rng(n)
    scores = rng.random(n) ** power
    drawn = np.mean([expected_calibration_error((rng.random(n) < scores).astype(float), scores) for _ in range(300)])
    assert calibration_error_by_chance(scores) == pytest.approx(drawn, rel=0.15)
    assert calibration_error_by_chance(np.array([0.0, 1.0])) == 0.0


def test_what_is_flagged_can_be_given() -> None:
    labels, scores = np.array([0.0, 1.0, 1.0]), np.array([0.9, 0.1, 0.2])
    given = label_metrics(labels, scores, 0.5, np.array([0.0, 1.0, 1.0]))
    assert (given.f1, given.macro_f1, given.flagged) == (1.0, 1.0, pytest.approx(2 / 3))
    assert label_metrics(labels, scores, 0.5).f1 == 0.0


def test_without_positives_or_negatives_some_measures_are_unknown() -> None:
    none = label_metrics(np.zeros(4), np.array([0.1, 0.6, 0.2, 0.5]), 0.5)
    assert (none.average_precision, none.f1, none.macro_f1, none.recall_at_1_fpr) == (None, None, None, None)
    assert (none.positives, none.prevalence, none.flagged) == (0, 0.0, 0.5)
    every = label_metrics(np.ones(2), np.array([0.1, 0.6]), 0.5)
    assert (every.average_precision, every.macro_f1, every.recall_at_1_fpr) == (1.0, None, None)
    assert every.f1 == pytest.approx(2 / 3)


def test_the_threshold_itself_is_flagged() -> None:
    assert label_metrics(np.array([0.0, 1.0]), np.array([0.1, 0.5]), 0.5).f1 == 1.0


@pytest.mark.parametrize(
    ("labels", "scores"),
    [
        ([], []),
        ([1.0], [0.5, 0.5]),
        ([[1.0]], [[0.5]]),
        ([float("nan")], [0.5]),
        ([1.0], [float("nan")]),
        ([1.0], [float("inf")]),
    ],
)
def test_what_cannot_be_measured_raises(labels: Any, scores: Any) -> None:
    with pytest.raises(ValueError, match=r"found .*expected"):
        label_metrics(np.array(labels, dtype=float), np.array(scores, dtype=float), 0.5)


# --- exact intervals of rates, against scipy


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
@pytest.mark.parametrize("n", [1, 2, 7, 100, 2995, 170_124])
def test_exact_intervals_are_those_of_the_beta_quantiles(n: int, confidence: float) -> None:
    for hits in sorted({0, 1, n // 3, n // 2, n - 1, n}):
        for two_sided in (True, False):
            tail = (1 - confidence) / (2 if two_sided else 1)
            low = 0.0 if hits == 0 else float(stats.beta.ppf(tail, hits, n - hits + 1))
            high = 1.0 if hits == n else float(stats.beta.isf(tail, hits + 1, n - hits))
            assert clopper_pearson(hits, n, confidence, two_sided=two_sided) == pytest.approx((low, high), rel=1e-8)


def test_the_beta_distribution_is_scipys() -> None:
    rng = np.random.default_rng(0)
    for a, b, x in zip(np.exp(rng.uniform(-3, 9, 300)), np.exp(rng.uniform(-3, 9, 300)), rng.random(300), strict=True):
        assert beta_cdf(float(x), float(a), float(b)) == pytest.approx(float(stats.beta.cdf(x, a, b)), rel=1e-8, abs=1e-14)
    assert [beta_cdf(x, 2.0, 3.0) for x in (-1.0, 0.0, 1.0, 2.0)] == [0.0, 0.0, 1.0, 1.0]


def test_an_interval_covers_the_rate_as_often_as_it_says() -> None:
    """Exactly, by summing over all outcomes: the upper end lies below the true rate in at most 5% of cases."""
    for n, rate in [(30, 0.05), (200, 0.01), (500, 0.5)]:
        missed = sum(float(stats.binom.pmf(hits, n, rate)) for hits in range(n + 1) if clopper_pearson(hits, n, 0.95, two_sided=False)[1] < rate)
        assert missed <= 0.05


def test_nothing_seen_says_nothing() -> None:
    assert clopper_pearson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("hits", "n", "confidence"), [(2, 1, 0.95), (-1, 1, 0.95), (0, 1, 1.0), (0, 1, 0.0)])
def test_impossible_counts_are_refused(hits: int, n: int, confidence: float) -> None:
    with pytest.raises(ValueError, match="expected hits in 0…n"):
        clopper_pearson(hits, n, confidence)


@pytest.mark.parametrize(
    ("limit", "confidence", "errors", "needed"), [(0.001, 0.95, 0, 2995), (0.001, 0.99, 0, 4603), (0.001, 0.95, 1, 4742), (0.5, 0.5, 0, 1)]
)
def test_how_many_conversations_a_claim_needs(limit: float, confidence: float, errors: int, needed: int) -> None:
    assert conversations_needed(limit, confidence, errors) == needed
    assert clopper_pearson(errors, needed, confidence, two_sided=False)[1] <= limit
    if needed > 1:
        assert clopper_pearson(errors, needed - 1, confidence, two_sided=False)[1] > limit
