"""B11: what an explanation says, rule by rule, in the notation of small roads; that its changes are true is a property test of the policy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest

from lastresort.conversation import judge
from lastresort.explain import MEANING, Change, sentence
from lastresort.policy import DecisionPolicy, PolicyConfig, Threshold
from lastresort.types import Decision, Reason, TurnScore

CONFIG = PolicyConfig(
    triggers=("abuse", "minors"),
    grave=("minors",),
    vetoes=("self_harm_risk", "intent"),
    thresholds={"default": Threshold(0.6, 0.3), "self_harm_risk": Threshold(0.31, 0.1), "persistence": Threshold(0.3, 0.1)},
    mode="enforce",
)
QUIET = dict.fromkeys(CONFIG.user_labels, 0.05)
ABUSE = {"abuse": 0.91, "persistence": 0.8}
GRAVE = {"minors": 0.7, "persistence": 0.8}


def play(*turns: dict[str, float] | float, **settings: Any) -> list[Decision]:
    """Explained decisions: a mapping is a user turn (labels not named are 0.05), a number an assistant turn's redirection score."""
    scores = [
        TurnScore(i, "user", {**QUIET, **t}) if isinstance(t, dict) else TurnScore(i, "assistant", {"redirection": t}) for i, t in enumerate(turns)
    ]  # fmt: skip
    return [decision for _, decision in judge(DecisionPolicy(replace(CONFIG, **settings)), scores)]


WARNED = (ABUSE, 0.9) * 3 + (ABUSE, 0.1)


def test_a_calm_turn_names_the_nearest_threshold() -> None:
    (decision,) = play({"abuse": 0.4, "self_harm_risk": 0.2})
    assert decision.counterfactual == "self_harm_risk at or above 0.31 (found 0.20)"
    assert decision.numbers == {"abuse": (0.4, 0.6), "end_request": (0.05, 0.6), "self_harm_risk": (0.2, 0.31)}
    assert decision.counts == {"redirections": (0, 3), "grave_redirections": (0, 2), "warnings": (0, 1), "quiet_turns": (0, 6)}


def test_a_harmful_turn_says_how_many_redirections_are_missing() -> None:
    decisions = play(ABUSE, 0.9, ABUSE, 0.9, ABUSE)
    assert [decision.counterfactual for decision in decisions[::2]] == [
        "self_harm_risk at or above 0.31 (found 0.05), or 3 more redirections",
        "self_harm_risk at or above 0.31 (found 0.05), or 2 more redirections",
        "self_harm_risk at or above 0.31 (found 0.05), or 1 more redirection",
    ]
    assert decisions[4].counts["redirections"] == (2, 3)


def test_a_grave_turn_says_which_road_is_shorter() -> None:
    assert play(GRAVE)[0].counterfactual.endswith("or 2 more grave redirections")
    assert play(ABUSE, 0.9, ABUSE, 0.9, GRAVE)[4].counterfactual.endswith("or 1 more redirection")


def test_a_small_change_of_the_harm_comes_before_a_large_one_of_a_veto() -> None:
    assert play({"abuse": 0.62})[0].counterfactual == "abuse below 0.60 (found 0.62), or 3 more redirections"
    both = play({"abuse": 0.62, "minors": 0.65})[0]
    assert both.counterfactual == "abuse below 0.60 (found 0.62) and minors below 0.60 (found 0.65), or 2 more grave redirections"


def test_an_end_says_what_would_have_prevented_it() -> None:
    end = play(*WARNED, ABUSE)[-1]
    assert (end.call, end.counterfactual) == ("end", "self_harm_risk at or above 0.31 (found 0.05)")
    assert play(*WARNED, {"abuse": 0.91, "persistence": 0.31})[-1].counterfactual == "persistence below 0.30 (found 0.31)"
    assert play(*WARNED, {"abuse": 0.65, "persistence": 0.8})[-1].counterfactual == "abuse below 0.60 (found 0.65)"
    assert end.counts["warnings"] == (1, 1)
    assert end.numbers == {"abuse": (0.91, 0.6), "persistence": (0.8, 0.3), "end_request": (0.05, 0.6), "self_harm_risk": (0.05, 0.31)}


def test_harm_after_the_warning_that_does_not_persist_says_what_would_have_ended() -> None:
    assert play(*WARNED, {"abuse": 0.9, "persistence": 0.25})[-1].counterfactual == "persistence at or above 0.30 (found 0.25)"


def test_a_veto_says_what_would_have_lifted_it() -> None:
    first, later = play({"self_harm_risk": 0.4}, ABUSE)
    assert (first.counterfactual, first.numbers) == ("self_harm_risk below 0.31 (found 0.40)", {"self_harm_risk": (0.4, 0.31)})
    assert later.counterfactual == "nothing on this turn: the risk seen at message 0 holds for the rest of the conversation"
    assert later.category == "self_harm_risk"
    calm = play({"self_harm_risk": 0.4}, ABUSE, veto_turns=3)[1]
    assert (calm.counterfactual, calm.counts) == ("2 more calm turns", {"calm_turns": (1, 3)})
    band = play({"self_harm_risk": 0.4}, {"self_harm_risk": 0.2}, veto_turns=3)[1]
    assert band.counterfactual == "nothing on this turn: the risk seen at message 0 holds until 3 calm turns in a row"


def test_a_wish_to_end_says_what_would_have_gone_on() -> None:
    asked, _, ended = play({"end_request": 0.7}, 0.1, {"end_request": 0.65})
    assert asked.counterfactual == "end_request below 0.60 (found 0.70)"
    assert (ended.call, ended.counterfactual) == ("end", "end_request below 0.60 (found 0.65)")


def test_assistant_turns_say_whether_they_count() -> None:
    decisions = play(ABUSE, 0.9, ABUSE, 0.2, {}, 0.9)
    assert [d.counterfactual for d in decisions[1::2]] == ["redirection below 0.60 (found 0.90)", "redirection at or above 0.60 (found 0.20)", ""]
    assert play(*WARNED)[-1].counterfactual.startswith("nothing on this turn: whatever the assistant says")


def test_after_the_end_and_in_mode_off_nothing_was_weighed() -> None:
    after = play(*WARNED, ABUSE, 0.9)[-1]
    assert after.counterfactual == "nothing on this turn: the conversation ended at message 8; an edit before it starts a branch"
    assert (after.numbers, after.counts) == ({}, {})
    (off,) = play(ABUSE, mode="off")
    assert (off.counterfactual, off.numbers, off.counts) == ("a mode other than off", {}, {})


def test_explanations_do_not_depend_on_what_the_mode_lets_through() -> None:
    enforced, shadowed = play(*WARNED, ABUSE), play(*WARNED, ABUSE, mode="shadow")
    assert [(d.numbers, d.counts, d.counterfactual) for d in shadowed] == [(d.numbers, d.counts, d.counterfactual) for d in enforced]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (Change("harm", 0.598, 0.6, "at_least"), "harm at or above 0.600 (found 0.598)"),  # as many digits as show the difference
        (Change("harm", 0.6, 0.6, "below"), "harm below 0.6000000 (found 0.6000000)"),
        (Change("calm_turns", 1, 2, "more"), "1 more calm turn"),
        (Change("redirections", 0, 2, "more"), "2 more redirections"),
    ],
)
def test_a_change_in_words(change: Change, words: str) -> None:
    assert str(change) == words


def test_a_sentence_holds_all_of_it() -> None:
    assert sentence(play(ABUSE, 0.9, ABUSE)[2]) == (
        "a harmful turn: the assistant should redirect; abuse 0.91 ≥ 0.60; end_request 0.05 < 0.60; self_harm_risk 0.05 < 0.31; redirections 1 of 3; "
        "evidence: messages 0, 1, 2. Otherwise with: self_harm_risk at or above 0.31 (found 0.05), or 2 more redirections"
    )
    assert sentence(Decision("continue", "none", "calm")) == "nothing at or above a threshold"


def test_every_reason_has_a_meaning() -> None:
    assert set(MEANING) == set(get_args(Reason))
