"""What holds for every policy and every sequence of scores. The plain oracles here know nothing of the policy's state."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from lastresort.errors import StateError
from lastresort.explain import Change, alternatives, explained
from lastresort.policy import EVIDENCE_LIMIT, DecisionPolicy, PolicyConfig, PolicyState, Threshold, state_from_json, state_to_json
from lastresort.types import Act, Decision, Mode, TurnScore

T = TypeVar("T")
GRID = (0.2, 0.4, 0.6, 0.8)
"""Of thresholds."""

TRIGGERS = ("harm", "grave", "insult")
VETOES = ("risk", "intent")


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
USER_TURNS = PLAIN * 2 + RARE + RISKY
EXCHANGES = [("user", turn, answer) for turn in USER_TURNS for answer in ANSWERS]
SINGLE = [("user", turn, None) for turn in USER_TURNS] + [("assistant", None, answer) for answer in ANSWERS] + [("system", None, None)]
STEPS = EXCHANGES + SINGLE  # at most 256, so that one byte reaches each


def at_level(config: PolicyConfig, label: str, level: float) -> float:
    threshold = config.threshold(label)
    return {BELOW: threshold.release / 2, BAND: threshold.release, ENTER: threshold.enter, ABOVE: (threshold.enter + 1.0) / 2}[level]


def scored(config: PolicyConfig, index: int, role: str, levels: Levels) -> TurnScore:
    if role == "system":
        return TurnScore(index, "system", {}, windows=0)
    labels = ("redirection",) if role == "assistant" else (*config.triggers, *config.vetoes, "end_request", "persistence")
    scores = {name: at_level(config, name, levels.get(name, BELOW)) for name in labels}
    return TurnScore(index, "assistant" if role == "assistant" else "user", scores)


class Pick:
    """Choices read from bytes, one byte a choice: drawing all bytes at once is many times faster than drawing each choice; shrinks towards the first."""

    def __init__(self, raw: bytes) -> None:
        self.rest = iter(raw)

    def __call__(self, choices: Sequence[T]) -> T:
        return choices[next(self.rest) % len(choices)]

    def threshold(self) -> Threshold:
        release, enter = sorted((self(GRID), self(GRID)))
        return Threshold(enter, release)


CONFIG_BYTES, MOST_STEPS = 24, 18


def case_of(raw: bytes) -> tuple[PolicyConfig, list[TurnScore]]:
    """A policy and a conversation: mostly user and assistant in alternation, sometimes the same speaker twice, or a system turn."""
    pick = Pick(raw[:CONFIG_BYTES])
    triggers = TRIGGERS[: pick((1, 2, 3))]
    grave: tuple[str, ...] = pick([(), ("grave",), TRIGGERS])
    named = {name: pick.threshold() for name in triggers if pick((False, True))}
    config = PolicyConfig(
        triggers=triggers,
        grave=tuple(name for name in triggers if name in grave),
        vetoes=VETOES[: pick((0, 1, 2))],
        thresholds={"default": pick.threshold(), **named},
        end_request_label=pick([None, "end_request"]),
        persistence_label=pick([None, "persistence"]),
        redirections_before_warning=pick([1, 2, 3, 1, 2, 3, None]),
        grave_redirections_before_warning=pick([1, 2, 3, 1, 2, 3, None]),
        warnings_before_end=pick((1, 2, 3)),
        quiet_turns_to_reset=pick((1, 2, 3, 4)),
        veto_turns=pick([None, 1, 2, 3]),
        mode="enforce",
    )
    turns: list[tuple[str, Levels]] = []
    for byte in raw[CONFIG_BYTES:]:
        _, said, answer = STEPS[byte % len(STEPS)]
        turns += [("user", said)] if said is not None else []
        turns += [("assistant", answer)] if answer is not None else []
        turns += [("system", {})] if said is None and answer is None else []
    return config, [scored(config, index, role, levels) for index, (role, levels) in enumerate(turns)]


def cases() -> st.SearchStrategy[tuple[PolicyConfig, list[TurnScore]]]:
    return st.binary(min_size=CONFIG_BYTES + 8, max_size=CONFIG_BYTES + MOST_STEPS).map(case_of)


def choices_of(options: Sequence[T]) -> st.SearchStrategy[list[T]]:
    """One of `options` for each turn of a conversation."""
    return st.binary(min_size=MOST_STEPS, max_size=MOST_STEPS).map(lambda raw: [options[(byte >> shift) % len(options)] for byte in raw for shift in (0, 4)])


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


@given(cases(), st.integers(0, 60))
def test_stepping_equals_running_and_there_is_no_look_ahead(case: tuple[PolicyConfig, list[TurnScore]], cut: int) -> None:
    config, scores = case
    policy = DecisionPolicy(config)
    whole = policy.run(scores)
    state, stepped = policy.start(), []
    for score in scores:
        state, decision = policy.step(state, score)
        stepped.append(decision)
    assert stepped == whole
    cut %= len(scores) + 1
    assert policy.run(scores[:cut]) == whole[:cut]


@given(cases(), st.integers(0, 60))
def test_a_state_survives_json_and_gives_the_same_future(case: tuple[PolicyConfig, list[TurnScore]], cut: int) -> None:
    config, scores = case
    policy = DecisionPolicy(config)
    cut %= len(scores) + 1
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


@given(cases(), st.binary(max_size=24))
def test_a_higher_trigger_score_never_delays_or_removes_an_end(case: tuple[PolicyConfig, list[TurnScore]], where: bytes) -> None:
    config, scores = case
    raised = _raise(config, scores, config.triggers, where)
    _assert_no_later(config, scores, raised)


@given(cases(), st.binary(max_size=24))
def test_a_higher_persistence_score_never_delays_or_removes_an_end(case: tuple[PolicyConfig, list[TurnScore]], where: bytes) -> None:
    config, scores = case
    raised = _raise(config, scores, ("persistence",), where)
    _assert_no_later(config, scores, raised)


@given(cases(), st.binary(max_size=24))
def test_a_higher_veto_score_never_brings_an_end_nearer(case: tuple[PolicyConfig, list[TurnScore]], where: bytes) -> None:
    config, scores = case
    raised = _raise(config, scores, config.vetoes, where)
    _assert_no_later(config, raised, scores)


def _raise(config: PolicyConfig, scores: list[TurnScore], labels: tuple[str, ...], where: bytes) -> list[TurnScore]:
    """The scores with any of `labels` raised by any amount in any turns: three bytes a change."""
    raised = list(scores)
    for place, which, how in zip(where[::3], where[1::3], where[2::3], strict=False):
        index = place % max(1, len(raised))
        if labels and index < len(raised) and raised[index].role == "user":
            label = labels[which % len(labels)]
            up = max(raised[index].scores[label], at_level(config, label, (BAND, ENTER, ABOVE)[how % 3]))
            raised[index] = replace(raised[index], scores={**raised[index].scores, label: up})
    return raised


def _assert_no_later(config: PolicyConfig, lower: list[TurnScore], higher: list[TurnScore]) -> None:
    """If `lower` ends, then `higher` ends no later."""
    policy = DecisionPolicy(config)
    first, second = ended_at(policy.run(lower)), ended_at(policy.run(higher))
    assert first is None or (second is not None and second < first + 1)


def enough(needed: int | None, found: set[int]) -> bool:
    return needed is not None and len(found) >= needed


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
    assert enough(config.redirections_before_warning, redirected) or enough(config.grave_redirections_before_warning, grave)
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


@given(cases(), st.integers(0, 60), st.integers(0, 60))
def test_a_branch_equals_a_replay_of_its_prefix(case: tuple[PolicyConfig, list[TurnScore]], cut: int, start: int) -> None:
    """B9: from any earlier turn, also of an ended conversation; the line it left goes on untouched."""
    config, scores = case
    policy = DecisionPolicy(config)
    states = [policy.start()]
    for score in scores:
        states.append(policy.step(states[-1], score)[0])
    cut, start = cut % (len(scores) + 1), start % (len(scores) + 1)
    other = [replace(score, index=cut + offset) for offset, score in enumerate(scores[start:])]
    assert policy.run(other, states[cut]) == policy.run([*scores[:cut], *other])[cut:]
    assert policy.run(scores[cut:], states[cut]) == policy.run(scores)[cut:]


@given(cases(), st.sampled_from(["shadow", "advise", "off"]))
def test_only_enforce_acts_and_every_other_mode_records_the_same_first_end(case: tuple[PolicyConfig, list[TurnScore]], mode: Mode) -> None:
    config, scores = case
    enforced, recorded = DecisionPolicy(config).run(scores), DecisionPolicy(config, mode).run(scores)
    assert {decision.call for decision in recorded} <= {"continue"}
    assert {decision.advice for decision in recorded} <= {"none", *(("redirect", "warn", "support") if mode == "advise" else ())}
    if mode == "off":
        assert {decision.would_call for decision in recorded} <= {None}
        return
    end = ended_at(enforced)
    upto = len(scores) if end is None else end + 1
    assert [(d.decided_call, d.decided_advice, d.reason, d.category, d.evidence) for d in recorded[:upto]] == [
        (d.call, d.advice, d.reason, d.category, d.evidence) for d in enforced[:upto]
    ]


@given(cases(), choices_of(["off", "shadow", "advise", "enforce"]))
def test_whatever_the_modes_were_an_end_needs_redirections_and_a_warning_that_reached_the_host(
    case: tuple[PolicyConfig, list[TurnScore]], modes: list[Mode]
) -> None:
    config, scores = case
    policies = {mode: DecisionPolicy(config, mode) for mode in ("off", "shadow", "advise", "enforce")}
    state, warned, asked, newest = PolicyState(), 0, False, None
    for score, mode in zip(scores, modes, strict=False):
        state, decision = policies[mode].step(state, score)
        if decision.call == "end":
            assert mode == "enforce"
            assert warned >= config.warnings_before_end if decision.reason == "harm_after_warning" else asked
            return
        if score.role == "assistant":
            warned += newest == "warn"
            asked |= newest == "confirm"
        newest = decision.advice if score.role == "user" else newest


ACTS = ("warned", "confirmed", "declined")


@given(cases(), choices_of([None, None, *ACTS]))
def test_an_act_of_the_host_counts_only_upon_its_advice(case: tuple[PolicyConfig, list[TurnScore]], acts: list[Act | None]) -> None:
    """B3, B7: whatever a host says it did, no end comes before the redirections, the advised warnings, or the user's wish."""
    config, scores = case
    policy, state = DecisionPolicy(config), PolicyState()
    redirected, _grave, given_, advice = 0, 0, 0, "none"
    for score, act in zip(scores, acts, strict=False):
        state, decision = policy.step(state, score)
        if score.role == "user":
            advice = decision.advice
        redirected += decision.reason == "redirected"
        given_ += decision.reason == "warned"
        if decision.reason == "harm_after_warning":
            assert given_ >= config.warnings_before_end
            assert redirected >= min(n for n in (config.redirections_before_warning, config.grave_redirections_before_warning) if n is not None)
        if state.ended_at is not None:
            return
        if act is not None:
            before = state
            try:
                state, decision = policy.acknowledge(state, act, score.index)
            except StateError:
                assert state == before
                continue
            assert (act, score.index) == state.acts[-1]
            assert state_from_json(json.loads(json.dumps(state_to_json(state)))) == state
            if act == "warned":
                assert (advice, state.warnings) == ("warn", before.warnings + 1)
                given_ += 1
                advice = "none"
            elif act == "confirmed":
                assert (decision.call, state.ended_at) == ("end", score.index)
                assert before.confirmation != "none"
                return


@given(cases())
def test_a_policy_without_redirections_to_reach_neither_warns_nor_ends(case: tuple[PolicyConfig, list[TurnScore]]) -> None:
    config, scores = case
    never = replace(config, redirections_before_warning=None, grave_redirections_before_warning=None, end_request_label=None)
    assert {(d.call, d.advice) for d in DecisionPolicy(never).run(scores)} <= {("continue", advice) for advice in ("none", "redirect", "support")}


def changed(state: PolicyState, score: TurnScore, way: tuple[Change, ...]) -> tuple[PolicyState, TurnScore]:
    """The state and score as a counterfactual would have had them."""
    scores = dict(score.scores)
    for change in way:
        if change.side == "more":
            name = {"calm_turns": "calm_risk"}.get(change.name, change.name)
            state = replace(state, **{name: getattr(state, name) + int(change.needed - change.found)})
        else:
            scores[change.name] = change.needed if change.side == "at_least" else math.nextafter(change.needed, 0.0)
    return state, replace(score, scores=scores)


@given(cases(), st.sampled_from(["enforce", "enforce", "shadow"]))
def test_b11_every_counterfactual_really_makes_another_decision(case: tuple[PolicyConfig, list[TurnScore]], mode: Mode) -> None:
    config, scores = case
    policy = DecisionPolicy(config, mode)
    state = policy.start()
    for score in scores:
        after, decision = policy.step(state, score)
        ways = alternatives(policy, state, after, score, decision)
        for way in ways:
            if way[0].name.endswith("redirections") and state.at_risk:
                continue  # this very turn lifted the veto and began to count at zero
            _, other = policy.step(*changed(state, score, way))
            assert (other.decided_call, other.decided_advice, other.reason) != (decision.decided_call, decision.decided_advice, decision.reason)
        told = explained(policy, state, after, score, decision)
        assert told == decision
        assert bool(told.counterfactual) == (score.role == "user" or bool(ways) or decision.reason in ("warned", "already_ended"))
        if score.role == "user" and decision.reason not in ("at_risk", "already_ended"):
            assert ways, decision.reason
        event(f"{decision.reason}: {len(ways)}")
        state = after


@given(cases())
def test_b11_the_numbers_are_those_of_the_turn_against_the_thresholds_of_the_policy(case: tuple[PolicyConfig, list[TurnScore]]) -> None:
    config, scores = case
    policy = DecisionPolicy(config)
    state = policy.start()
    for score in scores:
        after, decision = policy.step(state, score)
        numbers = explained(policy, state, after, score, decision).numbers
        assert all((score.scores[label], config.threshold(label).enter) == pair for label, pair in numbers.items())
        if score.role == "user" and decision.reason not in ("already_ended", "at_risk"):
            reached = {label for label in config.triggers if reaches(config, score, (label,))}
            assert reached <= set(numbers)
            assert decision.category is None or decision.category in numbers
        state = after


def test_a_harmful_turn_that_turns_grave_never_delays_an_end() -> None:
    """The smallest case of the property above that once failed: an earlier warning for grave harm must not lengthen the road of other harm."""
    config = PolicyConfig(
        triggers=("harm", "grave"), grave=("grave",), thresholds={"default": Threshold(0.5, 0.5)}, end_request_label=None, persistence_label=None,
        redirections_before_warning=2, grave_redirections_before_warning=1, warnings_before_end=2, mode="enforce",
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
        triggers=("harm",), thresholds={"default": Threshold(0.5, 0.4)}, redirections_before_warning=1, warnings_before_end=warnings,
        persistence_label=None, mode="enforce",
    )  # fmt: skip
    harm, redirects = {"harm": 1.0, "end_request": 0.0}, {"redirection": 1.0}
    scores = [TurnScore(index, "assistant", redirects) if index % 2 else TurnScore(index, "user", harm) for index in range(2 * warnings + 3)]
    assert ended_at(DecisionPolicy(config).run(scores)) == 2 * warnings + 2
