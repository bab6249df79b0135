"""What holds for every policy and every sequence of scores. The plain oracles here know nothing of the policy's state."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from lastresort.policy import EVIDENCE_LIMIT, DecisionPolicy, PolicyConfig, PolicyState, Threshold, state_from_json, state_to_json
from lastresort.types import Decision, TurnScore

GRID = (0.2, 0.4, 0.6, 0.8)
"""Of thresholds."""

TRIGGERS = ("harm", "grave", "insult")
VETOES = ("risk", "intent")


@st.composite
def thresholds(draw: st.DrawFn) -> Threshold:
    release, enter = sorted(draw(st.tuples(st.sampled_from(GRID), st.sampled_from(GRID))))
    return Threshold(enter, release)


@st.composite
def configs(draw: st.DrawFn) -> PolicyConfig:
    triggers = TRIGGERS[: draw(st.integers(1, 3))]
    named = draw(st.sets(st.sampled_from(triggers)))
    return PolicyConfig(
        triggers=triggers,
        grave=tuple(name for name in triggers if name in draw(st.sampled_from([(), ("grave",), TRIGGERS]))),
        vetoes=VETOES[: draw(st.integers(0, 2))],
        thresholds={"default": draw(thresholds()), **{name: draw(thresholds()) for name in sorted(named)}},
        end_request_label=draw(st.sampled_from([None, "end_request"])),
        persistence_label=draw(st.sampled_from([None, "persistence"])),
        redirections_before_warning=draw(st.integers(1, 3)),
        grave_redirections_before_warning=draw(st.integers(1, 3)),
        warnings_before_end=draw(st.integers(1, 3)),
        quiet_turns_to_reset=draw(st.integers(1, 4)),
        veto_turns=draw(st.sampled_from([None, 1, 2, 3])),
    )


BELOW, BAND, ENTER, ABOVE = 0.0, 0.5, 1.0, 1.5
"""Where a score lies: below release, at release, at enter, above enter."""

Levels = dict[str, float]
PLAIN: list[Levels] = [{"harm": ENTER, "persistence": ENTER}] * 6 + [{"harm": ENTER, "grave": ABOVE, "persistence": ENTER}] * 3
RARE: list[Levels] = [
    {},
    {"harm": ENTER},
    {"harm": BAND, "grave": BAND, "insult": BAND},
    {"harm": ABOVE, "insult": ABOVE, "persistence": BAND},
    {"insult": ENTER, "persistence": ABOVE},
    *[{"end_request": ENTER}] * 6,
    {"end_request": BAND},
    {"harm": ABOVE, "end_request": ABOVE, "persistence": ENTER},
]
RISKY: list[Levels] = [{"risk": ENTER}, {"risk": BAND, "intent": BAND}, {"harm": ABOVE, "intent": ABOVE, "persistence": ENTER}]
ANSWERS: list[Levels] = [{"redirection": level} for level in (ABOVE, ENTER, ENTER, ENTER, BAND, BELOW)]
USER_TURNS = PLAIN * 3 + RARE + RISKY
EXCHANGES = [("user", turn, answer) for turn in USER_TURNS for answer in ANSWERS]
SINGLE = [("user", turn, None) for turn in USER_TURNS] + [("assistant", None, answer) for answer in ANSWERS] + [("system", None, None)]
STEPS = EXCHANGES + SINGLE


def at_level(config: PolicyConfig, label: str, level: float) -> float:
    threshold = config.threshold(label)
    return {BELOW: threshold.release / 2, BAND: threshold.release, ENTER: threshold.enter, ABOVE: (threshold.enter + 1.0) / 2}[level]


def scored(config: PolicyConfig, index: int, role: str, levels: Levels) -> TurnScore:
    if role == "system":
        return TurnScore(index, "system", {}, windows=0)
    labels = ("redirection",) if role == "assistant" else (*config.triggers, *config.vetoes, "end_request", "persistence")
    scores = {name: at_level(config, name, levels.get(name, BELOW)) for name in labels}
    return TurnScore(index, "assistant" if role == "assistant" else "user", scores)


@st.composite
def cases(draw: st.DrawFn) -> tuple[PolicyConfig, list[TurnScore]]:
    """A policy and a conversation: mostly user and assistant in alternation, sometimes the same speaker twice, or a system turn."""
    config = draw(configs())
    turns: list[tuple[str, Levels]] = []
    for index in draw(st.lists(st.integers(0, len(STEPS) - 1), min_size=8, max_size=18)):
        _, said, answer = STEPS[index]
        turns += [("user", said)] if said is not None else []
        turns += [("assistant", answer)] if answer is not None else []
        turns += [("system", {})] if said is None and answer is None else []
    return config, [scored(config, index, role, levels) for index, (role, levels) in enumerate(turns)]


def ended_at(decisions: list[Decision]) -> int | None:
    return next((index for index, decision in enumerate(decisions) if decision.call == "end"), None)


def reaches(config: PolicyConfig, score: TurnScore, labels: tuple[str, ...]) -> bool:
    return any(score.scores[label] >= config.threshold(label).enter for label in labels)


@given(cases())
def test_the_end_is_absorbing(case: tuple[PolicyConfig, list[TurnScore]]) -> None:
    config, scores = case
    decisions = DecisionPolicy(config).run(scores)
    end = ended_at(decisions)
    event(f"end: {'no' if end is None else decisions[end].reason}")
    if end is not None:
        assert [(d.call, d.advice, d.reason) for d in decisions[end + 1 :]] == [("end", "none", "already_ended")] * (len(scores) - end - 1)


@given(cases(), st.data())
def test_stepping_equals_running_and_there_is_no_look_ahead(case: tuple[PolicyConfig, list[TurnScore]], data: st.DataObject) -> None:
    config, scores = case
    policy = DecisionPolicy(config)
    whole = policy.run(scores)
    state, stepped = policy.start(), []
    for score in scores:
        state, decision = policy.step(state, score)
        stepped.append(decision)
    assert stepped == whole
    cut = data.draw(st.integers(0, len(scores)))
    assert policy.run(scores[:cut]) == whole[:cut]


@given(cases(), st.data())
def test_a_state_survives_json_and_gives_the_same_future(case: tuple[PolicyConfig, list[TurnScore]], data: st.DataObject) -> None:
    config, scores = case
    policy = DecisionPolicy(config)
    cut = data.draw(st.integers(0, len(scores)))
    state = policy.start()
    for score in scores[:cut]:
        state, _ = policy.step(state, score)
    back = state_from_json(json.loads(json.dumps(state_to_json(state))))
    assert back == state
    assert policy.run(scores[cut:], back) == policy.run(scores)[cut:]


@given(cases())
def test_inputs_are_never_changed(case: tuple[PolicyConfig, list[TurnScore]]) -> None:
    config, scores = case
    before = copy.deepcopy((config, scores))
    policy = DecisionPolicy(config)
    state = policy.start()
    for score in scores:
        kept = copy.deepcopy(state)
        after, _ = policy.step(state, score)
        assert state == kept
        state = after
    assert (config, scores) == before


@given(cases(), st.data())
def test_a_higher_trigger_score_never_delays_or_removes_an_end(case: tuple[PolicyConfig, list[TurnScore]], data: st.DataObject) -> None:
    config, scores = case
    raised = _raise(config, scores, config.triggers, data)
    _assert_no_later(config, scores, raised)


@given(cases(), st.data())
def test_a_higher_persistence_score_never_delays_or_removes_an_end(case: tuple[PolicyConfig, list[TurnScore]], data: st.DataObject) -> None:
    config, scores = case
    raised = _raise(config, scores, ("persistence",), data)
    _assert_no_later(config, scores, raised)


@given(cases(), st.data())
def test_a_higher_veto_score_never_brings_an_end_nearer(case: tuple[PolicyConfig, list[TurnScore]], data: st.DataObject) -> None:
    config, scores = case
    raised = _raise(config, scores, config.vetoes, data)
    _assert_no_later(config, raised, scores)


def _raise(config: PolicyConfig, scores: list[TurnScore], labels: tuple[str, ...], data: st.DataObject) -> list[TurnScore]:
    """The scores with any of `labels` raised by any amount in any turns."""
    where = data.draw(
        st.lists(st.tuples(st.integers(0, max(0, len(scores) - 1)), st.sampled_from((*labels, "")), st.sampled_from((BAND, ENTER, ABOVE))), max_size=8)
    )
    raised = list(scores)
    for index, label, level in where:
        if label and index < len(raised) and raised[index].role == "user":
            up = max(raised[index].scores[label], at_level(config, label, level))
            raised[index] = replace(raised[index], scores={**raised[index].scores, label: up})
    return raised


def _assert_no_later(config: PolicyConfig, lower: list[TurnScore], higher: list[TurnScore]) -> None:
    """If `lower` ends, then `higher` ends no later."""
    policy = DecisionPolicy(config)
    first, second = ended_at(policy.run(lower)), ended_at(policy.run(higher))
    assert first is None or (second is not None and second < first + 1)


@given(cases())
def test_no_end_by_harm_before_the_configured_redirections_and_warnings(case: tuple[PolicyConfig, list[TurnScore]]) -> None:
    """Counts from scores and advice alone: redirected harmful user turns, and warnings that an assistant turn followed."""
    config, scores = case
    decisions = DecisionPolicy(config).run(scores)
    end = ended_at(decisions)
    if end is None or decisions[end].reason != "harm_after_warning":
        return
    redirected: set[int] = set()
    grave: set[int] = set()
    warned: set[int] = set()
    newest: TurnScore | None = None
    for score in scores[:end]:
        if score.role == "user":
            newest = score
        elif score.role == "assistant" and newest is not None:
            if decisions[newest.index].advice == "warn":
                warned.add(newest.index)
            elif reaches(config, newest, config.triggers) and score.scores["redirection"] >= config.threshold("redirection").enter:
                redirected.add(newest.index)
                if reaches(config, newest, config.grave):
                    grave.add(newest.index)
    assert len(redirected) >= config.redirections_before_warning or len(grave) >= config.grave_redirections_before_warning
    assert len(warned) >= config.warnings_before_end
    assert reaches(config, scores[end], config.triggers)


@given(cases())
def test_no_end_at_the_users_wish_without_a_question_and_a_yes(case: tuple[PolicyConfig, list[TurnScore]]) -> None:
    config, scores = case
    decisions = DecisionPolicy(config).run(scores)
    end = ended_at(decisions)
    if end is None or decisions[end].reason != "end_confirmed":
        return
    assert reaches(config, scores[end], ("end_request",))
    asked = max(index for index in range(end) if decisions[index].advice == "confirm")
    assert any(score.role == "assistant" for score in scores[asked:end])
    assert all(score.scores["end_request"] >= config.threshold("end_request").release for score in scores[asked:end] if score.role == "user")


@given(cases())
def test_a_sticky_veto_prevents_every_later_end_and_warning(case: tuple[PolicyConfig, list[TurnScore]]) -> None:
    config, scores = case
    config = replace(config, veto_turns=None)
    decisions = DecisionPolicy(config).run(scores)
    at = next((score.index for score in scores if score.role == "user" and reaches(config, score, config.vetoes)), None)
    if at is None or "end" in {decision.call for decision in decisions[:at]}:
        return
    later = [decision for score, decision in zip(scores[at:], decisions[at:], strict=True) if score.role == "user"]
    assert {(d.call, d.advice, d.reason) for d in later} == {("continue", "support", "at_risk")}
    assert {d.call for d in decisions} == {"continue"}


@given(cases())
def test_a_turn_at_risk_is_supported_whatever_else_it_says(case: tuple[PolicyConfig, list[TurnScore]]) -> None:
    config, scores = case
    for score, decision in zip(scores, DecisionPolicy(config).run(scores), strict=True):
        if decision.call == "end":
            return
        if score.role == "user" and reaches(config, score, config.vetoes):
            assert decision.advice == "support"
            assert reaches(config, score, (str(decision.category),))


@given(cases())
def test_only_user_turns_end_and_only_with_harm_or_a_wish(case: tuple[PolicyConfig, list[TurnScore]]) -> None:
    config, scores = case
    decisions = DecisionPolicy(config).run(scores)
    end = ended_at(decisions)
    if end is not None:
        assert scores[end].role == "user"
        assert decisions[end].reason in {"harm_after_warning", "end_confirmed"}
        assert reaches(config, scores[end], (str(decisions[end].category),))


@given(cases())
def test_evidence_is_ascending_bounded_and_of_the_past(case: tuple[PolicyConfig, list[TurnScore]]) -> None:
    config, scores = case
    for index, decision in enumerate(DecisionPolicy(config).run(scores)):
        assert list(decision.evidence) == sorted(set(decision.evidence))
        assert len(decision.evidence) <= EVIDENCE_LIMIT
        assert set(decision.evidence) <= set(range(index + 1))


@given(cases())
def test_counts_stay_within_the_conversation(case: tuple[PolicyConfig, list[TurnScore]]) -> None:
    config, scores = case
    policy = DecisionPolicy(config)
    state: PolicyState = policy.start()
    for score in scores:
        state, _ = policy.step(state, score)
        assert 0 <= state.grave_redirections <= state.redirections <= len(scores)
        assert 0 <= state.warnings < config.warnings_before_end + 1
        assert 0 <= state.quiet < config.quiet_turns_to_reset


def test_a_harmful_turn_that_turns_grave_never_delays_an_end() -> None:
    """The smallest case of the property above that once failed: an earlier warning for grave harm must not lengthen the road of other harm."""
    config = PolicyConfig(
        triggers=("harm", "grave"), grave=("grave",), thresholds={"default": Threshold(0.5, 0.5)}, end_request_label=None, persistence_label=None,
        redirections_before_warning=2, grave_redirections_before_warning=1, warnings_before_end=2,
    )  # fmt: skip

    def talk(*grave: float) -> list[TurnScore]:
        answers = (1.0, 1.0, 0.0, 0.0, 0.0)
        pairs = [
            (TurnScore(2 * n, "user", {"harm": 1.0, "grave": g}), TurnScore(2 * n + 1, "assistant", {"redirection": a}))
            for n, (g, a) in enumerate(zip(grave, answers, strict=True))
        ]
        return [score for pair in pairs for score in pair]

    _assert_no_later(config, talk(1.0, 0.0, 0.0, 0.0, 0.0), talk(1.0, 1.0, 0.0, 0.0, 0.0))


@pytest.mark.parametrize("warnings", [1, 2, 3])
def test_the_generated_conversations_reach_what_the_properties_speak_of(warnings: int) -> None:
    """The properties above are not empty: the shortest road to each end exists on the grid."""
    config = PolicyConfig(
        triggers=("harm",), thresholds={"default": Threshold(0.5, 0.4)}, redirections_before_warning=1, warnings_before_end=warnings, persistence_label=None
    )
    harm, redirects = {"harm": 1.0, "end_request": 0.0}, {"redirection": 1.0}
    scores = [TurnScore(index, "assistant", redirects) if index % 2 else TurnScore(index, "user", harm) for index in range(2 * warnings + 3)]
    assert ended_at(DecisionPolicy(config).run(scores)) == 2 * warnings + 2
