"""Scores joined with labels: grouping by label and source, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lastresort.conversation import Monitor
from lastresort.errors import DataError
from lastresort.evaluation import ALL, Row, evaluate, rows_to_json
from lastresort.metrics import LabelMetrics, label_metrics
from lastresort.types import Dialogue, LabelSpec, Message, Role, ScoredDialogue, ScoredTurn

LABELS = (LabelSpec("hate", "user", "trigger", 0.8), LabelSpec("abuse", "user", "trigger", 0.4), LabelSpec("redirection", "assistant", "signal", 0.5))


def dialogue(name: str, source: str, *turns: tuple[Role, dict[str, float]]) -> Dialogue:
    return Dialogue(name, tuple(Message(role, "words", labels) for role, labels in turns), source)


def scores(name: str, *turns: tuple[Role, dict[str, float]]) -> ScoredDialogue:
    return ScoredDialogue(name, "m", "continue", None, tuple(ScoredTurn(i, role, values, 1) for i, (role, values) in enumerate(turns)))


DIALOGUES = [
    dialogue("a", "x", ("user", {"hate": 1.0, "abuse": 0.0}), ("assistant", {"redirection": 1.0})),
    dialogue("b", "x", ("system", {}), ("user", {"hate": 0.0}), ("assistant", {})),
    dialogue("c", "y", ("user", {"abuse": 0.5, "hate": 0.0})),
]
SCORES = [
    scores("a", ("user", {"hate": 0.7, "abuse": 0.1}), ("assistant", {"redirection": 0.5})),
    scores("b", ("system", {}), ("user", {"hate": 0.9, "abuse": 0.9}), ("assistant", {"redirection": 0.9})),
    scores("c", ("user", {"hate": 0.2, "abuse": 0.4})),
]


def table(rows: list[Row]) -> dict[tuple[str, str, str], LabelMetrics]:
    assert len({(row.scorer, row.label, row.source) for row in rows}) == len(rows)
    return {(row.scorer, row.label, row.source): row.metrics for row in rows}


def test_each_label_is_measured_where_it_is_known_for_all_and_by_source() -> None:
    found = table(evaluate(DIALOGUES, {"m": SCORES}, LABELS))
    assert {key[1:]: metrics.n for key, metrics in found.items()} == {
        ("hate", "all"): 3,
        ("hate", "x"): 2,
        ("hate", "y"): 1,
        ("abuse", "all"): 2,
        ("abuse", "x"): 1,
        ("abuse", "y"): 1,
        ("redirection", "all"): 1,
        ("redirection", "x"): 1,
    }
    hate = found["m", "hate", "all"]
    assert (hate.positives, hate.threshold, hate.flagged, hate.f1) == (1, 0.8, pytest.approx(1 / 3), 0.0)
    assert found["m", "redirection", "all"].f1 == 1.0  # the threshold itself counts


def test_each_row_holds_the_metrics_of_its_turns() -> None:
    import numpy as np

    found = table(evaluate(DIALOGUES, {"m": SCORES}, LABELS))
    assert found["m", "hate", "all"] == label_metrics(np.array([1.0, 0.0, 0.0]), np.array([0.7, 0.9, 0.2]), 0.8)


def test_all_comes_first_and_labels_keep_their_order() -> None:
    rows = evaluate([replace(d, source=source) for d, source in zip(DIALOGUES, ("z", "", "b"), strict=True)], {"m": SCORES}, LABELS)
    assert [(row.label, row.source) for row in rows if row.label == "hate"] == [("hate", ALL), ("hate", ""), ("hate", "b"), ("hate", "z")]
    assert list(dict.fromkeys(row.label for row in rows)) == ["hate", "abuse", "redirection"]


def test_the_order_of_the_scores_does_not_matter_and_strangers_are_passed_over() -> None:
    more = [scores("stranger", ("user", {"hate": 1.0})), *reversed(SCORES)]
    assert evaluate(DIALOGUES, {"m": more}, LABELS) != []
    found, expected = table(evaluate(DIALOGUES, {"m": more}, LABELS)), table(evaluate(DIALOGUES, {"m": SCORES}, LABELS))
    assert found == expected


def test_a_group_is_positive_or_flagged_if_any_of_its_labels_is() -> None:
    found = table(evaluate(DIALOGUES, {"m": SCORES}, LABELS, [("hate", "abuse")]))
    group = found["m", "hate|abuse", "all"]
    assert (group.n, group.positives) == (2, 2)  # only turns that know every label of the group
    assert group.flagged == 0.5  # c reaches 0.4 of abuse; a reaches neither 0.8 nor 0.4
    assert group.threshold != group.threshold
    record = next(r for r in rows_to_json(evaluate(DIALOGUES, {"m": SCORES}, LABELS, [("hate", "abuse")])) if r["label"] == "hate|abuse")
    assert record["threshold"] is None
    assert (record["scorer"], record["source"], record["n"]) == ("m", "all", 2)


def test_several_scorers_stand_beside_each_other() -> None:
    other = [replace(s, turns=tuple(replace(t, scores={n: v for n, v in t.scores.items() if n == "hate"}) for t in s.turns)) for s in SCORES]
    found = table(evaluate(DIALOGUES, {"m": SCORES, "other": other}, LABELS))
    assert found["other", "hate", "all"] == found["m", "hate", "all"]
    assert {label for scorer, label, _ in found if scorer == "other"} == {"hate"}


def test_a_source_that_is_called_all_is_not_counted_twice() -> None:
    found = table(evaluate([replace(d, source=ALL) for d in DIALOGUES], {"m": SCORES}, LABELS))
    assert {key[2] for key in found} == {ALL}
    assert found["m", "hate", "all"].n == 3


def test_nothing_labelled_gives_no_rows() -> None:
    bare = [dialogue("a", "x", ("user", {}))]
    assert evaluate(bare, {"m": [scores("a", ("user", {"hate": 1.0}))]}, LABELS) == []
    assert evaluate([], {"m": []}, LABELS) == []


def test_dialogues_that_a_scorer_left_out_are_an_error() -> None:
    with pytest.raises(DataError, match="m: found no scores for 2 of 3 dialogues, expected one for each"):
        evaluate(DIALOGUES, {"m": SCORES[:1]}, LABELS)


def test_an_id_twice_is_an_error() -> None:
    with pytest.raises(DataError, match="found 4 dialogues with 3 ids"):
        evaluate([*DIALOGUES, DIALOGUES[0]], {"m": SCORES}, LABELS)
    with pytest.raises(DataError, match="m: found dialogue 'b' twice"):
        evaluate(DIALOGUES, {"m": [*SCORES, SCORES[1]]}, LABELS)


def test_scores_of_another_dialogue_under_the_same_id_are_an_error() -> None:
    with pytest.raises(DataError, match="m: found 1 turns for the 2 messages of dialogue 'a'"):
        evaluate(DIALOGUES, {"m": [scores("a", ("user", {})), *SCORES[1:]]}, LABELS)
    with pytest.raises(DataError, match="of the same role"):
        evaluate(DIALOGUES, {"m": [scores("a", ("assistant", {}), ("user", {})), *SCORES[1:]]}, LABELS)


def test_a_group_of_an_unknown_label_is_an_error() -> None:
    with pytest.raises(DataError, match=r"group hate\|rudeness: found rudeness, expected labels of the model"):
        evaluate(DIALOGUES, {"m": SCORES}, LABELS, [("hate", "rudeness")])


def test_the_tiny_model_knows_the_sample_by_heart(monitor: Monitor, sample: dict[str, Dialogue]) -> None:
    dialogues = list(sample.values())
    manifest = monitor.scorer.manifest
    found = table(evaluate(dialogues, {manifest.tag: map(monitor.score, dialogues)}, manifest.labels, [("assistant_abuse", "harm")]))
    for label in manifest.labels:
        metrics = found[manifest.tag, label.name, ALL]
        assert metrics.n == sum(label.name in m.labels for d in dialogues for m in d.messages)
        assert metrics.average_precision is not None
        assert metrics.average_precision >= 0.7
    assert found[manifest.tag, "assistant_abuse|harm", ALL].n > 0
