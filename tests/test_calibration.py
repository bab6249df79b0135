"""Certified false ends: who counts, what is tried, when it stops, what is claimed; and the watch over the claim."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastresort.calibration import (
    LEVELS,
    VETOES,
    Audited,
    audit,
    calibrate,
    candidates_of,
    e_value,
    end_of,
    ended_rightly,
    must_go_on,
    policy_to_json,
    with_levels,
)
from lastresort.data import split_of
from lastresort.errors import DataError, FalseEndAlarm, LastResortError
from lastresort.metrics import clopper_pearson, conversations_needed
from lastresort.policy import DecisionPolicy, PolicyConfig, Threshold, parse_policy
from lastresort.types import ScoredDialogue, ScoredTurn

CONFIG = PolicyConfig(
    triggers=("harm", "hate"),
    vetoes=("risk",),
    thresholds={"default": Threshold(0.6, 0.3)},
    end_request_label=None,
    redirections_before_warning=1,
)
"""Three exchanges of harm end: redirect, warn, end."""


def conversation(name: str, call: str | None, harm: float, persistence: float = 1.0, *, exchanges: int = 3, source: str = "s", **meta: Any) -> ScoredDialogue:
    """Every user turn has the same harm; every assistant turn redirects."""
    turns = []
    for index in range(2 * exchanges):
        scores = {"redirection": 1.0} if index % 2 else {"harm": harm, "hate": 0.0, "risk": 0.0, "persistence": persistence}
        turns.append(ScoredTurn(index, "assistant" if index % 2 else "user", scores, 1))
    return ScoredDialogue(name, "m@00000000", "continue", None, tuple(turns), source=source, meta={"call": call, **meta})


def many(prefix: str, count: int, call: str, harm: float, **meta: Any) -> list[ScoredDialogue]:
    return [conversation(f"{prefix}{number}", call, harm, **meta) for number in range(count)]


def half(name: str) -> str:
    return split_of(name, {"tune": 0.5, "certify": 0.5}, seed="calibrate")


CALM = many("calm", 700, "continue", 0.05, exchanges=1, kind="chat")
ABUSE = many("abuse", 40, "end", 0.8, justified_at=4) + many("mild", 40, "end", 0.62, justified_at=4)
LIMIT = {"max_false_end_rate": 0.01, "confidence": 0.95}
"""299 conversations without an error show 1% at 95%; each half of CALM has about 350."""


def test_the_thresholds_end_what_should_end_while_the_bound_holds() -> None:
    result = calibrate([*CALM, *ABUSE], CONFIG, **LIMIT)
    chosen = result.certified
    assert chosen is not None
    assert (chosen.errors, chosen.passed, chosen.recall) == (0, True, 1.0)
    assert chosen.config.threshold("harm").enter == 0.6  # the strictest that ends all, not the lowest
    assert chosen.bound == clopper_pearson(0, chosen.n, 0.95, two_sided=False)[1] <= 0.01
    assert chosen.n == sum(half(scored.id) == "certify" for scored in CALM)
    assert chosen.should_end == sum(half(scored.id) == "certify" for scored in ABUSE)
    assert result.kinds == {"chat": chosen.n}
    assert result.sources == {"s": (chosen.n, 0)}


def test_harmless_conversations_that_look_harmful_push_the_thresholds_up() -> None:
    alarming = many("alarming", 60, "continue", 0.7)
    result = calibrate([*CALM, *ABUSE, *alarming], CONFIG, **LIMIT)
    assert result.certified is not None
    assert 0.7 < result.certified.config.threshold("harm").enter <= 0.8
    assert 0.3 < result.certified.recall < 0.7  # the mild half goes on
    assert [candidate.passed for candidate in result.tested] == [True] * (len(result.tested) - 1) + [False]  # it stops at the first failure
    assert result.tested[-1].errors > 0


def test_what_follows_the_first_failure_is_never_claimed() -> None:
    """Tune half clean, certify half not: the strict candidate fails already, so nothing is certified, however well others did."""
    bad = [conversation(f"bad{number}", "continue", 0.995) for number in range(2000)]
    bad = [scored for scored in bad if half(scored.id) == "certify"][:40]
    result = calibrate([*CALM, *ABUSE, *bad], CONFIG, **LIMIT)
    assert result.certified is None
    assert [candidate.passed for candidate in result.tested] == [False]
    assert result.sources == {"s": (result.tested[0].n, 0)}


def test_the_halves_are_chosen_by_the_hash_of_the_id_and_kept_apart() -> None:
    """What lies in the certifying half has no part in the order, and the tuning half none in the claim."""
    bad = [conversation(f"bad{number}", "continue", 0.7) for number in range(100)]
    only_tune = [scored for scored in bad if half(scored.id) == "tune"]
    result = calibrate([*CALM, *ABUSE, *only_tune], CONFIG, **LIMIT)
    assert result.certified is not None
    assert result.certified.errors == 0  # none of them is counted in the claim
    assert result.certified.n == sum(half(scored.id) == "certify" for scored in CALM)
    shuffled = [*CALM, *ABUSE, *only_tune]
    random.Random(0).shuffle(shuffled)
    assert calibrate(shuffled, CONFIG, **LIMIT).certified == result.certified


def test_persistence_is_tuned_too() -> None:
    retort = [conversation(f"retort{number}", "continue", 0.95, 0.4) for number in range(60)]
    result = calibrate([*CALM, *ABUSE, *retort], CONFIG, **LIMIT)
    assert result.certified is not None
    assert result.certified.config.threshold("persistence").enter >= 0.5
    assert result.certified.recall == 1.0


def test_too_few_conversations_for_the_claim_say_so() -> None:
    with pytest.raises(DataError, match=r"found \d+ conversations that must go on to certify with, expected at least 2995 \(about 5990 in all"):
        calibrate([*CALM, *ABUSE], CONFIG)
    with pytest.raises(DataError, match=r"found 200 conversations that must go on to certify with, expected at least 299: .* 1\.000% at 95%"):
        calibrate([*CALM[:200], *ABUSE], CONFIG, as_is=True, **LIMIT)


def test_without_anything_that_should_end_there_is_nothing_to_choose() -> None:
    with pytest.raises(DataError, match="found no conversation that should end among those that choose"):
        calibrate(CALM, CONFIG, **LIMIT)


def test_a_policy_is_certified_as_it_stands_on_all_conversations() -> None:
    result = calibrate([*CALM, *ABUSE], CONFIG, as_is=True, **LIMIT)
    assert [(candidate.config, candidate.n, candidate.should_end) for candidate in result.tested] == [(CONFIG, 700, 80)]
    assert result.certified is not None
    wrong = calibrate([*CALM, *many("w", 30, "continue", 0.9, source="t")], CONFIG, as_is=True, **LIMIT)
    assert (wrong.certified, wrong.tested[0].errors) == (None, 30)


def test_sources_are_told_apart() -> None:
    result = calibrate([*CALM, *many("w", 1, "continue", 0.9, source="t")], CONFIG, as_is=True, **LIMIT)
    assert result.certified is not None
    assert result.sources == {"s": (700, 0), "t": (1, 1)}


def test_conversations_whose_call_is_unknown_are_passed_over_and_kinds_can_be_named() -> None:
    unknown, other = many("u", 50, None, 0.9), many("o", 50, "continue", 0.9, kind="teasing")  # type: ignore[arg-type]
    result = calibrate([*CALM, *ABUSE, *unknown, *other], CONFIG, as_is=True, kinds=["chat"], **LIMIT)
    assert (result.tested[0].n, result.tested[0].errors) == (700, 0)
    assert calibrate([*CALM, *ABUSE, *unknown, *other], CONFIG, as_is=True, **LIMIT).tested[0].errors == 50
    assert [must_go_on(scored, kinds) for scored, kinds in [(CALM[0], ()), (ABUSE[0], ()), (unknown[0], ()), (other[0], ("chat",))]] == [
        True,
        False,
        False,
        False,
    ]


def test_an_id_twice_is_refused() -> None:
    with pytest.raises(DataError, match="found conversation 'calm0' twice"):
        calibrate([*CALM, CALM[0]], CONFIG, **LIMIT)


@pytest.mark.parametrize("change", [{"max_false_end_rate": 0.0}, {"max_false_end_rate": 1.0}, {"confidence": 1.0}, {"confidence": 0.0}])
def test_impossible_claims_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(DataError, match="expected both between 0 and 1"):
        calibrate(CALM, CONFIG, **{**LIMIT, **change})


def test_an_end_before_it_was_justified_is_no_right_end() -> None:
    scored = conversation("a", "end", 0.9, justified_at=6)
    assert [ended_rightly(scored, end) for end in (None, 4, 6, 8)] == [False, False, True, True]
    assert ended_rightly(conversation("b", "end", 0.9), 4)


def test_candidates_keep_everything_but_the_enter_thresholds_and_include_the_policy_itself() -> None:
    found = candidates_of(CONFIG)
    assert found[-1] == CONFIG
    assert len(found) == len(set(map(str, found)))
    for config in found:
        assert replace(config, thresholds=CONFIG.thresholds) == CONFIG
        assert [config.threshold(label).release for label in CONFIG.triggers] == [0.3, 0.3]
        assert config.threshold("risk").enter in (0.15, 0.3, 0.6)
    assert len(candidates_of(replace(CONFIG, persistence_label=None))) == len(VETOES) * len(LEVELS) + 1
    assert len(candidates_of(replace(CONFIG, persistence_label=None, vetoes=()))) == len(LEVELS) + 1


def at_risk(name: str, harm: float, risk: float) -> ScoredDialogue:
    """Harm all the way, and a sign of risk in the first turn."""
    one = conversation(name, "continue", harm, kind="crisis")
    first = replace(one.turns[0], scores={**one.turns[0].scores, "risk": risk})
    return replace(one, turns=(first, *one.turns[1:]))


def test_veto_thresholds_fall_until_nobody_at_risk_is_ended() -> None:
    crises = [at_risk(f"crisis{number}", 0.9, 0.2) for number in range(40)]
    careless = calibrate([*CALM, *ABUSE, *crises], CONFIG, kinds=["chat"], **LIMIT).certified
    careful = calibrate([*CALM, *ABUSE, *crises], CONFIG, kinds=["chat"], risk_kinds=["crisis"], **LIMIT)
    assert careless is not None
    assert careful.certified is not None
    assert careful.certified.config.threshold("risk").enter == 0.15
    assert careful.certified.recall == 1.0
    assert careful.others == {"crisis": (sum(half(scored.id) == "certify" for scored in crises), 0)}


def test_what_lies_outside_the_claim_is_reported_and_so_is_who_could_be_ended_at_all() -> None:
    alarming = many("alarming", 30, "continue", 0.9, kind="teasing")
    early = many("early", 6, "end", 0.9, justified_at=99)
    result = calibrate([*CALM, *ABUSE, *alarming, *early, *many("long", 9, "continue", 0.0, kind="chat")], CONFIG, as_is=True, kinds=["chat"], **LIMIT)
    assert result.certified is not None
    assert (result.certified.n, result.certified.errors) == (709, 0)
    assert result.others == {"teasing": (30, 30)}
    assert (result.reachable, result.warned, result.early) == (9, 0, 6)


@given(
    st.lists(st.tuples(*[st.sampled_from([0.0, 0.2, 0.35, 0.55, 0.65, 0.92, 1.0])] * 4), min_size=3, max_size=8),
    st.sampled_from(LEVELS),
    st.sampled_from(LEVELS),
)
def test_a_lower_level_never_removes_or_delays_an_end(turns: list[tuple[float, float, float, float]], one: float, other: float) -> None:
    """So that what the most lenient candidate lets go on need not be judged again."""
    scored_turns = []
    for index, (harm, hate, persistence, redirection) in enumerate(turns):
        scored_turns += [
            ScoredTurn(2 * index, "user", {"harm": harm, "hate": hate, "risk": 0.0, "persistence": persistence}, 1),
            ScoredTurn(2 * index + 1, "assistant", {"redirection": redirection}, 1),
        ]
    scored = ScoredDialogue("d", "m", "continue", None, tuple(scored_turns))
    ends = [end_of(scored, DecisionPolicy(with_levels(CONFIG, level, level), "enforce")) for level in sorted((one, other))]
    lenient, strict = (math.inf if end is None else end for end in ends)
    assert not lenient > strict


def test_a_policy_survives_the_way_into_a_file() -> None:
    assert parse_policy(policy_to_json(CONFIG), where="p") == CONFIG


# --- the watch


def stream(false_ends: set[int], count: int) -> list[Audited]:
    return [Audited(f"c{number}", number in false_ends, False if number in false_ends else None) for number in range(count)]


def test_a_rate_within_the_limit_raises_no_alarm() -> None:
    state = audit(stream({700, 2100, 2900}, 4000), 0.001)
    assert (state.n, state.errors, state.alarm_at) == (4000, 3, None)
    state.check()
    assert audit([], 0.001).evidence == 1.0


def test_a_rate_that_left_the_limit_raises_when_it_is_known() -> None:
    false_ends = set(range(1000, 4000, 100))
    state = audit(stream(false_ends, 4000), 0.001)
    assert state.alarm_at is not None
    assert 1000 < int(state.alarm_at[1:]) < 2500
    with pytest.raises(FalseEndAlarm, match=rf"found 30 false ends in 4000 .* as of '{state.alarm_at}'; expected at most 0\.100% at 95%") as caught:
        state.check()
    assert isinstance(caught.value, LastResortError)


def test_an_alarm_stays_though_the_evidence_shrinks_again() -> None:
    state = audit(stream(set(range(5)), 20_000), 0.01)
    assert state.alarm_at == "c1"  # the second: a single one alarms nobody
    assert state.evidence < 20 < state.peak


def test_ends_that_were_justified_say_nothing_and_ends_without_a_verdict_are_refused() -> None:
    assert audit([Audited("a", True, True), Audited("b", False, True), Audited("c", True, False), Audited("d", False)], 0.1).n == 2
    with pytest.raises(DataError, match="conversation 'a': justified: found nothing, expected true or false for an ended conversation"):
        audit([Audited("a", True)], 0.1)
    with pytest.raises(DataError, match="expected both between 0 and 1"):
        audit([], 0.0)
    with pytest.raises(DataError, match="'a' twice"):
        audit([Audited("a", False)] * 2, 0.1)


@pytest.mark.parametrize("limit", [0.001, 0.02, 0.3, 0.7])
def test_the_bet_is_fair_at_the_limit(limit: float) -> None:
    """The e-value's expectation under the limit is one at every n (a martingale), less below it, more above it: exactly, by summing over all outcomes."""
    for n in (1, 3, 40):
        expectation = {
            rate: sum(math.comb(n, k) * rate**k * (1 - rate) ** (n - k) * e_value(k, n, limit) for k in range(n + 1))
            for rate in (limit / 2, limit, (1 + limit) / 2)
        }
        assert expectation[limit] == pytest.approx(1.0, rel=1e-9)
        assert expectation[limit / 2] < 1.0 < expectation[(1 + limit) / 2]


def test_false_alarms_are_rarer_than_they_may_be_however_often_one_looks() -> None:
    rng, alarms = random.Random(7), 0
    for _ in range(300):
        errors = 0
        for n in range(1, 400):
            errors += rng.random() < 0.02
            if e_value(errors, n, 0.02) >= 20:
                alarms += 1
                break
    assert alarms <= 300 * 0.05 + 3 * math.sqrt(300 * 0.05 * 0.95)


def test_the_limit_of_the_claim_is_the_limit_of_the_data() -> None:
    assert conversations_needed(0.01, 0.95) == 299
