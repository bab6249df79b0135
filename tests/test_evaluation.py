"""Scores joined with labels: grouping by label and source, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lastresort.conversation import Monitor
from lastresort.errors import DataError
from lastresort.evaluation import ALL, ConversationMetrics, Row, conversation_rows, evaluate, rows_to_json
from lastresort.metrics import LabelMetrics, clopper_pearson, label_metrics
from lastresort.types import Decision, Dialogue, LabelSpec, Message, Role, ScoredDialogue, ScoredTurn

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


# --- conversations as a whole


def course(
    name: str, *decisions: str, call: str | None = "continue", justified_at: int | None = None, kind: str = "k", source: str = "s", **changes: Any
) -> ScoredDialogue:
    """User and assistant in turn, a decision a turn: `.` calm, `w` warn, `W` warned, `c` confirm, `E` end, `e` after it, `s` an end that the mode withheld."""
    made: dict[str, Decision] = {
        ".": Decision("continue", "none", "calm"),
        "w": Decision("continue", "warn", "warning_due"),
        "W": Decision("continue", "none", "warned"),
        "c": Decision("continue", "confirm", "end_requested"),
        "E": Decision("end", "none", "harm_after_warning"),
        "e": Decision("end", "none", "already_ended"),
        "s": Decision("continue", "none", "harm_after_warning", would_call="end"),
    }
    turns = tuple(ScoredTurn(i, "assistant" if i % 2 else "user", {}, 1, made[letter]) for i, letter in enumerate(decisions))
    end = next((i for i, letter in enumerate(decisions) if letter == "E"), None)
    would = next((i for i, letter in enumerate(decisions) if letter == "s"), None)
    scored = ScoredDialogue(name, "m", "continue" if end is None else "end", end, turns, would_end_at=would, source=source)
    return replace(scored, meta={"call": call, "justified_at": justified_at, "kind": kind}, **changes)


COURSES = [
    course("a", *"....", kind="chat", source="real"),
    course("b", *"..wW..", kind="chat"),
    course("c", *"..E", kind="chat"),  # a false end
    course("d", *"..wW..E", call="end", justified_at=4, kind="abuse"),
    course("e", *"..wW..Ee", call="end", justified_at=6, kind="abuse"),
    course("f", *"..wW....", call="end", justified_at=6, kind="abuse"),  # missed
    course("g", *"..E", call="end", justified_at=4, kind="abuse"),  # too early
    course("h", *"..s", call=None, kind=""),  # unknown truth
]


def rows_of(scored: list[ScoredDialogue], *more: Any) -> dict[tuple[str, str], ConversationMetrics]:
    return {(row.group, row.name): row.metrics for row in conversation_rows(scored, *more)}


def test_conversations_are_measured_as_a_whole_by_source_and_by_kind() -> None:
    found = rows_of(COURSES)
    assert list(found) == [("all", "all"), ("source", "real"), ("source", "s"), ("kind", "abuse"), ("kind", "chat")]
    everything = found["all", "all"]
    assert (everything.n, everything.must_go_on, everything.false_ends, everything.should_end) == (8, 3, 1, 4)
    assert (everything.ended, everything.early) == (2, 1)
    assert everything.false_end_rate == (1 / 3, *clopper_pearson(1, 3))
    assert everything.end_recall == (0.5, *clopper_pearson(2, 4))
    assert everything.warnings_per_1000 == 1000 * 4 / 8
    assert (found["kind", "chat"].end_recall, found["kind", "chat"].delay_median) == (None, None)
    assert found["source", "real"].false_end_rate == (0.0, *clopper_pearson(0, 1))


def test_the_delay_counts_user_turns_after_the_one_that_justified_the_end() -> None:
    late = course("x", *"..wW....E", call="end", justified_at=4)
    abuse = rows_of([late, *COURSES[3:5]])["all", "all"]  # delays 2, 1, 0
    assert (abuse.delay_median, abuse.delay_90) == (1.0, 2.0)


def test_an_end_that_the_mode_withheld_counts_as_decided() -> None:
    shadowed = course("x", *"..wW..s", call="end", justified_at=6)
    metrics = rows_of([shadowed, course("y", *"..s")])["all", "all"]
    assert (metrics.ended, metrics.false_ends) == (1, 1)


def labelled(name: str, turns: int, risk_at: int | None, **meta: Any) -> Dialogue:
    return Dialogue(name, tuple(Message("assistant" if i % 2 else "user", "w", {"risk": 0.6} if i == risk_at else {}) for i in range(turns)), "from", meta)


@pytest.mark.parametrize(
    ("decisions", "risk_at", "violated"),
    [("..wW..E", 4, 1), ("..wW..E", 6, 1), ("..wW..Ee", None, 0), ("..wW....", 2, 1), ("..wW....", 4, 0), ("..c.", 2, 1), ("..E.e.", 4, 0), ("..s", 0, 1)],
)  # fmt: skip
def test_an_end_a_warning_or_a_question_at_or_after_a_turn_at_risk_violates_the_veto(decisions: str, risk_at: int | None, violated: int) -> None:
    metrics = rows_of([course("x", *decisions)], [labelled("x", len(decisions), risk_at)], ["risk"])["all", "all"]
    assert (metrics.at_risk, metrics.veto_violations) == (int(risk_at is not None), violated)
    assert rows_of([course("x", *decisions)])["all", "all"].at_risk == 0  # without labels nothing is known


def test_dialogues_supply_the_truth_that_scored_lines_lack() -> None:
    bare = replace(COURSES[2], meta={}, source="")
    found = rows_of([bare, COURSES[0]], [labelled("c", 3, None, call="continue", kind="plain")])
    assert list(found) == [("all", "all"), ("source", "from"), ("kind", "plain")]  # the stranger is passed over
    assert found["all", "all"].false_ends == 1


def test_distress_is_counted() -> None:
    assert rows_of([course("x", *"..", distress=(1,)), course("y", *"..")])["all", "all"].distressed == 1


def test_conversations_twice_or_without_scores_are_refused() -> None:
    with pytest.raises(DataError, match="found conversation 'a' twice"):
        conversation_rows([COURSES[0], COURSES[0]])
    with pytest.raises(DataError, match="found no scores for 1 of 1 dialogues"):
        conversation_rows([], [labelled("a", 2, None)])
    assert conversation_rows([]) == []
