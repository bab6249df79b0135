"""The rules of ending as tables. Each test names the rule of BEHAVIOUR.md that it holds.

Notation: one token a turn. User turns are lower case, letters may be joined:

    .  nothing            h  harm that persists        i  insult, another harm label that persists
    x  harm on a new line (no persistence)             g  grave harm that persists
    ~  harm between release and enter (uncertain)      v  veto (at risk)         w  veto between release and enter
    e  asks to end        d  between release and enter of asking to end
Other turns are upper case: R redirection · A ordinary answer · S system · T tool.
Decisions are written as END, else the advice, `-` for none.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lastresort.calibration import policy_to_json
from lastresort.errors import ConfigError, ScoringError, StateError
from lastresort.policy import EVIDENCE_LIMIT, DecisionPolicy, PolicyConfig, PolicyState, Threshold, parse_policy, read_policy, state_from_json, state_to_json
from lastresort.types import Act, Decision, Mode, TurnScore

LOW, BAND, HIGH = 0.1, 0.5, 0.9
ENTER, RELEASE = 0.7, 0.4

CONFIG = PolicyConfig(
    triggers=("harm", "insult", "grave"),
    grave=("grave",),
    vetoes=("risk", "intent"),
    thresholds={"default": Threshold(ENTER, RELEASE)},
    mode="enforce",
)
LETTERS: dict[str, dict[str, float]] = {
    ".": {},
    "h": {"harm": HIGH, "persistence": HIGH},
    "i": {"insult": HIGH, "persistence": HIGH},
    "x": {"harm": HIGH},
    "g": {"grave": HIGH, "persistence": HIGH},
    "~": {"harm": BAND},
    "v": {"risk": HIGH},
    "w": {"risk": BAND},
    "e": {"end_request": HIGH},
    "d": {"end_request": BAND},
}


def user(index: int, **scores: float) -> TurnScore:
    """A user turn in which every label not named is low."""
    return TurnScore(index, "user", {**dict.fromkeys(CONFIG.user_labels, LOW), **scores})


def turn(index: int, token: str) -> TurnScore:
    """One token of the notation as a score."""
    if token in ("R", "A"):
        return TurnScore(index, "assistant", {"redirection": HIGH if token == "R" else LOW})
    if token in ("S", "T"):
        return TurnScore(index, "system" if token == "S" else "tool", {}, windows=0)
    scores: dict[str, float] = {}
    for letter in token:
        scores.update(LETTERS[letter])
    return user(index, **scores)


def play(text: str, **settings: Any) -> list[Decision]:
    """The decisions on a sequence, under `CONFIG` with `settings`."""
    return DecisionPolicy(replace(CONFIG, **settings)).run(turn(index, token) for index, token in enumerate(text.split()))


def show(text: str, **settings: Any) -> str:
    """The decisions in notation."""
    return " ".join("END" if d.call == "end" else {"none": "-"}.get(d.advice, d.advice) for d in play(text, **settings))


def last(text: str, **settings: Any) -> Decision:
    """The last decision."""
    return play(text, **settings)[-1]


def final_state(text: str, **settings: Any) -> PolicyState:
    """The state after a sequence."""
    policy = DecisionPolicy(replace(CONFIG, **settings))
    state = policy.start()
    for index, token in enumerate(text.split()):
        state, _ = policy.step(state, turn(index, token))
    return state


WARNED = "h R h R h R h A"
"""Three redirections failed, the warning was given; the next persisting harm ends."""


# --- B1 last resort -------------------------------------------------------------------------------------------------


def test_b1_one_bad_turn_never_ends() -> None:
    for token in ("h", "i", "g", "hig"):
        assert show(token) == "redirect"


def test_b1_the_whole_road_to_an_end() -> None:
    assert show(f"{WARNED} h") == "redirect - redirect - redirect - warn - END"
    assert last(f"{WARNED} h") == Decision("end", "none", "harm_after_warning", "harm", tuple(range(9)))


def test_b1_harm_that_nobody_redirects_never_ends() -> None:
    assert show("h A " * 20).split() == ["redirect", "-"] * 20


def test_b1_harm_that_stops_at_the_warning_does_not_end() -> None:
    assert "END" not in show(f"{WARNED} . A . A . A")


@pytest.mark.parametrize(
    "name", ["redirections_before_warning", "grave_redirections_before_warning", "warnings_before_end", "quiet_turns_to_reset", "veto_turns"]
)
def test_b1_no_count_can_be_set_to_zero(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: found 0, expected at least 1"):
        play("", **{name: 0})


# --- B2 redirections are observed -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sequence", "count"),
    [
        ("h R", 1),
        ("h A", 0),  # the assistant did not redirect
        (". R", 0),  # nothing to redirect
        ("~ R", 0),  # uncertain is not harm
        ("R h", 0),  # before the harm
        ("h R R", 1),  # one harmful turn is redirected once
        ("h A R", 1),  # the second of two assistant turns redirects
        ("h S T R", 1),  # system and tool turns stand between
        ("h . R", 0),  # the newest user turn was harmless
        (". h R", 1),
        ("h h R", 1),  # two user turns in a row, one redirection
        ("h R h R g R", 3),
    ],
)
def test_b2_a_redirection_counts_only_after_a_harmful_user_turn(sequence: str, count: int) -> None:
    assert final_state(sequence).redirections == count


def test_b2_reasons_of_assistant_turns() -> None:
    assert [d.reason for d in play("h R . R h A")[1::2]] == ["redirected", "observed", "observed"]


# --- B3 exactly one warning -----------------------------------------------------------------------------------------


def test_b3_defaults_are_three_redirections_and_one_warning() -> None:
    config = PolicyConfig(triggers=("harm",), thresholds={"default": Threshold(0.5, 0.5)})
    assert (config.redirections_before_warning, config.grave_redirections_before_warning, config.warnings_before_end) == (3, 2, 1)


def test_b3_exactly_one_warning_before_an_end() -> None:
    assert show(f"{WARNED} h").split().count("warn") == 1
    assert [d.reason for d in play(f"{WARNED} h")][-3:] == ["warning_due", "warned", "harm_after_warning"]


def test_b3_the_warning_counts_whatever_the_assistant_turn_looks_like() -> None:
    assert show("h R h R h R h R h") == show("h R h R h R h A h")


def test_b3_the_warning_turn_is_not_also_a_redirection() -> None:
    assert final_state("h R h R h R h R").redirections == 3


def test_b3_a_warning_not_followed_by_an_assistant_turn_is_not_given() -> None:
    assert show("h R h R h R h h") == "redirect - redirect - redirect - warn warn"
    assert show("h R h R h R h h h A h") == "redirect - redirect - redirect - warn warn warn - END"


def test_b3_a_warning_overtaken_by_a_harmless_turn_is_not_given() -> None:
    assert show("h R h R h R h . A h") == "redirect - redirect - redirect - warn - - warn"


def test_b3_system_and_tool_turns_do_not_give_the_warning() -> None:
    assert show("h R h R h R h S T h") == "redirect - redirect - redirect - warn - - warn"
    assert show("h R h R h R h S A h") == "redirect - redirect - redirect - warn - - END"


def test_b3_an_apology_after_the_warning_does_not_end() -> None:
    assert show(f"{WARNED} . A . A") == "redirect - redirect - redirect - warn - - - - -"


def test_b3_harm_resumed_after_an_apology_ends() -> None:
    assert show(f"{WARNED} . A h").endswith("- - END")


def test_b3_harm_after_the_warning_that_does_not_persist_is_only_redirected() -> None:
    assert show(f"{WARNED} x").endswith("redirect")
    assert last(f"{WARNED} x").reason == "harm_without_persistence"
    assert show(f"{WARNED} x R x R h").endswith("redirect - redirect - END")


def test_b3_without_a_persistence_label_any_harm_after_the_warning_ends() -> None:
    assert show(f"{WARNED} x", persistence_label=None).endswith("END")


def test_b3_persistence_without_harm_does_not_end() -> None:
    policy = DecisionPolicy(CONFIG)
    _, decision = policy.step(final_state(WARNED), user(8, persistence=1.0))
    assert decision.call == "continue"


@pytest.mark.parametrize("redirections", [1, 2, 5])
def test_b3_the_number_of_redirections_is_configurable(redirections: int) -> None:
    road = "h R " * redirections + "h A h"
    assert show(road, redirections_before_warning=redirections).split() == [*["redirect", "-"] * redirections, "warn", "-", "END"]


@pytest.mark.parametrize("warnings", [1, 2, 3])
def test_b3_the_number_of_warnings_is_configurable(warnings: int) -> None:
    road = "h R " * 3 + "h A " * warnings + "h"
    assert show(road, warnings_before_end=warnings).split() == [*["redirect", "-"] * 3, *["warn", "-"] * warnings, "END"]


def test_b3_after_a_first_warning_any_further_harm_is_warned_again() -> None:
    """Found by the property of raised scores: once a grave turn was warned about, other harm must not fall back behind the warning."""
    assert show("g R g R g A h A h", warnings_before_end=2) == "redirect - redirect - warn - warn - END"


def test_b3_both_kinds_of_harm_walk_the_same_road() -> None:
    assert show("h R i R h R i A i") == show("h R h R h R h A h")


# --- B4 grave categories --------------------------------------------------------------------------------------------


def test_b4_grave_harm_needs_fewer_redirections_but_still_a_warning() -> None:
    assert show("g R g R g A g") == "redirect - redirect - warn - END"


def test_b4_grave_redirections_count_for_grave_turns_only() -> None:
    assert show("g R g R h") == "redirect - redirect - redirect"
    assert show("g R g R h R h") == "redirect - redirect - redirect - warn"


def test_b4_ordinary_redirections_do_not_shorten_the_road_of_a_grave_turn() -> None:
    assert show("h R h R g") == "redirect - redirect - redirect"
    assert show("h R g R g R g") == "redirect - redirect - redirect - warn"


def test_b4_a_grave_label_is_the_category_even_if_another_is_higher() -> None:
    policy = DecisionPolicy(CONFIG)
    _, decision = policy.step(policy.start(), user(0, harm=1.0, grave=ENTER))
    assert decision.category == "grave"


# --- B5 veto --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["", "h R", "h R h R h R", "h R h R h R h", WARNED])
def test_b5_a_veto_at_any_point_means_support_and_never_an_end(before: str) -> None:
    shown = show(f"{before} v A " + "h R " * 20).split()[len(before.split()) :]
    assert set(shown[0::2]) == {"support"}
    assert set(shown[1::2]) == {"-"}


def test_b5_the_turn_that_would_end_is_vetoed() -> None:
    assert last(f"{WARNED} hv").advice == "support"
    assert last(f"{WARNED} hv").reason == "at_risk"


def test_b5_an_end_at_the_users_wish_is_vetoed_too() -> None:
    assert show("e A ev e A e") == "confirm - support support - support"


def test_b5_the_warning_advised_before_a_veto_is_not_given() -> None:
    state = final_state("h R h R h R h v A")
    assert (state.warnings, state.redirections, state.warning_due) == (0, 0, False)


def test_b5_a_risk_in_the_band_changes_nothing() -> None:
    assert show("hw") == "redirect"
    assert show("w") == "-"


def test_b5_a_veto_that_is_not_sticky_is_lifted_after_enough_calm_turns() -> None:
    assert show("v h h h", veto_turns=2) == "support support redirect redirect"
    assert show("v h w h h", veto_turns=2) == "support support support support redirect"  # the band starts the count again
    assert show("v h v h h", veto_turns=2) == "support support support support redirect"


def test_b5_after_a_lifted_veto_the_road_starts_anew() -> None:
    assert (
        show(f"{WARNED} v . h R h R h R h A h", veto_turns=1) == "redirect - redirect - redirect - warn - support - redirect - redirect - redirect - warn - END"
    )


def test_b5_the_category_is_the_veto_that_reached_its_threshold() -> None:
    policy = DecisionPolicy(replace(CONFIG, thresholds={"default": Threshold(ENTER, RELEASE), "intent": Threshold(0.95, 0.9)}))
    _, decision = policy.step(policy.start(), user(0, risk=0.75, intent=0.9))
    assert decision.category == "risk"


def test_b5_seeking_is_a_trigger_and_intent_is_a_veto() -> None:
    assert show("g") == "redirect"
    policy = DecisionPolicy(CONFIG)
    _, decision = policy.step(policy.start(), user(0, grave=HIGH, intent=HIGH))
    assert (decision.advice, decision.category) == ("support", "intent")


# --- B6 uncertain means continue ------------------------------------------------------------------------------------


def test_b6_the_thresholds_themselves_belong_to_the_upper_side() -> None:
    policy = DecisionPolicy(CONFIG)
    reasons = [policy.step(policy.start(), user(0, harm=value))[1].reason for value in (0.0, 0.39, RELEASE, 0.69, ENTER, 1.0)]
    assert reasons == ["calm", "calm", "uncertain", "uncertain", "harmful_turn", "harmful_turn"]


def test_b6_a_turn_in_the_band_does_not_end_after_the_warning() -> None:
    assert last(f"{WARNED} ~") == Decision("continue", "none", "uncertain", None, tuple(range(8)))


def test_b6_a_turn_in_the_band_moves_no_count() -> None:
    before, after = final_state("h R h R . ."), final_state("h R h R . . ~")
    assert after == before


def test_b6_a_turn_in_the_band_neither_adds_to_the_quiet_nor_breaks_it() -> None:
    assert final_state("h R . ~ . ", quiet_turns_to_reset=3).quiet == 2
    assert final_state("h R . ~ . .", quiet_turns_to_reset=3).redirections == 0


def test_b6_one_label_in_the_band_is_enough_not_to_be_calm() -> None:
    policy = DecisionPolicy(CONFIG)
    assert policy.step(policy.start(), user(0, insult=BAND))[1].reason == "uncertain"


# --- B7 the user asks to end ----------------------------------------------------------------------------------------


def test_b7_the_first_request_only_asks_for_confirmation() -> None:
    assert show("e") == "confirm"
    assert last("e") == Decision("continue", "confirm", "end_requested", "end_request", (0,))


def test_b7_an_explicit_yes_ends() -> None:
    assert show("e A e") == "confirm - END"
    assert (last("e A e").reason, last("e A e").category) == ("end_confirmed", "end_request")


def test_b7_a_no_withdraws_the_request() -> None:
    assert show("e A . A e A e") == "confirm - - - confirm - END"


def test_b7_between_the_thresholds_the_question_stays_open() -> None:
    assert show("e A d A e") == "confirm - - - END"


def test_b7_a_repeated_request_before_the_question_was_put_does_not_end() -> None:
    assert show("e e e") == "confirm confirm confirm"
    assert show("e e A e") == "confirm confirm - END"


def test_b7_system_and_tool_turns_do_not_put_the_question() -> None:
    assert show("e S T e") == "confirm - - confirm"


def test_b7_needs_neither_harm_nor_warning_and_survives_a_quiet_reset() -> None:
    assert show(". A e A e", quiet_turns_to_reset=1) == "- - confirm - END"


def test_b7_without_the_label_nothing_is_asked() -> None:
    assert show("e A e", end_request_label=None) == "- - -"


def test_b7_a_harmful_request_is_confirmed_first_and_still_redirected() -> None:
    assert show("he R") == "confirm -"
    assert final_state("he R").redirections == 1


# --- B8 an ended conversation ---------------------------------------------------------------------------------------


def test_b8_an_end_is_final() -> None:
    decisions = play(f"{WARNED} h . A e v S")
    assert {d.call for d in decisions[9:]} == {"end"}
    assert {d.reason for d in decisions[9:]} == {"already_ended"}
    assert {d.advice for d in decisions[9:]} == {"none"}


def test_b8_another_conversation_is_untouched() -> None:
    policy = DecisionPolicy(CONFIG)
    policy.run(turn(index, token) for index, token in enumerate(f"{WARNED} h".split()))
    assert policy.run([turn(0, "h")])[0].advice == "redirect"


# --- B9 branches ----------------------------------------------------------------------------------------------------


def test_b9_an_older_state_is_a_branch() -> None:
    policy = DecisionPolicy(CONFIG)
    before = final_state(WARNED)
    ended, _ = policy.step(before, turn(8, "h"))
    branch, decision = policy.step(before, turn(8, "."))
    assert ended.ended_at == 8
    assert (branch.ended_at, decision.call) == (None, "continue")
    assert before == final_state(WARNED)


# --- B10 a quiet spell forgets --------------------------------------------------------------------------------------


def test_b10_the_default_is_six_harmless_turns() -> None:
    assert final_state("h R " + ". A " * 5).redirections == 1
    assert final_state("h R " + ". A " * 6) == PolicyState()


def test_b10_after_a_quiet_spell_the_road_starts_anew() -> None:
    assert show(f"{WARNED} . . h A h", quiet_turns_to_reset=2) == "redirect - redirect - redirect - warn - - - redirect - redirect"


def test_b10_harm_starts_the_count_again() -> None:
    assert final_state("h R . . h R . .", quiet_turns_to_reset=3).redirections == 2


def test_b10_a_quiet_spell_does_not_lift_a_veto() -> None:
    assert show("v . . . h", quiet_turns_to_reset=2) == "support support support support support"


# --- B11 category, evidence, reason ---------------------------------------------------------------------------------


def test_b11_the_category_is_the_trigger_furthest_above_its_threshold() -> None:
    policy = DecisionPolicy(replace(CONFIG, thresholds={"default": Threshold(ENTER, RELEASE), "insult": Threshold(0.2, 0.1)}))
    _, decision = policy.step(policy.start(), user(0, harm=0.8, insult=0.5))
    assert decision.category == "insult"


def test_b11_evidence_names_the_turns_that_led_here() -> None:
    assert last("S . A h R . A h R ~ A h").evidence == (3, 4, 7, 8, 11)


def test_b11_a_turn_that_is_both_harm_and_request_is_one_piece_of_evidence() -> None:
    assert last("h R he").evidence == (0, 1, 2)


def test_b11_the_confirming_turn_is_evidence_as_the_ending_harm_is() -> None:
    assert last("e A e").evidence[-1] == 2
    assert last(f"{WARNED} h").evidence[-1] == 8


def test_b11_the_turn_at_risk_is_its_own_evidence() -> None:
    assert last(". A v").evidence == (2,)
    assert last(". A v A .").evidence == (2,)


def test_b11_while_a_veto_holds_the_category_is_still_the_one_that_began_it() -> None:
    policy = DecisionPolicy(CONFIG)
    state, _ = policy.step(policy.start(), user(0, risk=HIGH, intent=LOW))
    _, decision = policy.step(state, user(1, risk=0.0, intent=0.01))
    assert decision.category == "risk"


def test_b11_evidence_is_bounded_and_keeps_the_newest() -> None:
    evidence = last("h R " * 100, redirections_before_warning=1000).evidence
    assert evidence == tuple(range(200 - EVIDENCE_LIMIT, 200))


def test_b11_system_and_tool_turns_are_not_scored() -> None:
    assert [d.reason for d in play("S T")] == ["not_scored", "not_scored"]


# --- B12 the assistant's turns --------------------------------------------------------------------------------------


def test_b12_distress_and_other_signals_do_not_move_the_decision() -> None:
    policy = DecisionPolicy(CONFIG)
    plain = turn(1, "R")
    distressed = replace(plain, scores={**plain.scores, "distress": 1.0, "compliance": 1.0})
    assert policy.run([turn(0, "h"), plain]) == policy.run([turn(0, "h"), distressed])


def test_b12_distress_is_reported_at_or_above_its_threshold() -> None:
    policy = DecisionPolicy(replace(CONFIG, distress_label="distress"))
    found = [policy.distressed(TurnScore(1, "assistant", {"distress": value})) for value in (0.0, 0.69, ENTER, 1.0)]
    assert found == [False, False, True, True]
    assert not DecisionPolicy(CONFIG).distressed(TurnScore(1, "assistant", {"distress": 1.0}))
    assert not policy.distressed(user(0))
    with pytest.raises(ScoringError, match="turn 1: distress: found None"):
        policy.distressed(turn(1, "R"))


# --- B13 modes ------------------------------------------------------------------------------------------------------

ROAD = f"{WARNED} h"


def show_both(text: str, mode: Mode) -> tuple[str, str]:
    """What the host sees, and what was decided."""
    decisions = play(text, mode=mode)
    seen = " ".join("END" if d.call == "end" else {"none": "-"}.get(d.advice, d.advice) for d in decisions)
    return seen, " ".join("END" if d.decided_call == "end" else {"none": "-"}.get(d.decided_advice, d.decided_advice) for d in decisions)


def test_b13_a_policy_that_does_not_say_otherwise_only_records() -> None:
    assert PolicyConfig(triggers=("harm",), thresholds={"default": Threshold(0.5, 0.5)}).mode == "shadow"


def test_b13_off_decides_nothing() -> None:
    assert {(d.call, d.advice, d.reason, d.would_call, d.would_advise) for d in play(ROAD, mode="off")} == {("continue", "none", "mode_off", None, None)}
    assert final_state(ROAD, mode="off") == PolicyState(mode="off")


def test_b13_shadow_decides_and_records_but_never_acts() -> None:
    seen, decided = show_both(f"{ROAD} e A e v", "shadow")
    assert set(seen.split()) == {"-"}
    assert decided == "redirect - redirect - redirect - warn - END confirm - END support"


def test_b13_advise_acts_up_to_the_warning_and_still_supports() -> None:
    seen, decided = show_both(f"{ROAD} A h e A e v", "advise")
    assert seen == "redirect - redirect - redirect - warn - redirect - redirect - - - support"
    assert decided == "redirect - redirect - redirect - warn - END - END confirm - END support"


def test_b13_enforce_withholds_nothing() -> None:
    assert {(d.would_call, d.would_advise) for d in play(ROAD)} == {(None, None)}


def test_b13_warnings_and_questions_that_were_withheld_do_not_count_when_the_mode_begins_to_act() -> None:
    for mode, token, expected in [("shadow", "h", "warn"), ("advise", "h", "end"), ("enforce", "h", "end")]:
        _, decision = DecisionPolicy(CONFIG).step(final_state(WARNED, mode=mode), turn(8, token))
        assert expected in (decision.advice, decision.call), mode
    for mode, expected in [("shadow", "confirm"), ("advise", "confirm"), ("enforce", "end")]:
        _, decision = DecisionPolicy(CONFIG).step(final_state("e A", mode=mode), turn(2, "e"))
        assert expected in (decision.advice, decision.call), mode
    assert DecisionPolicy(CONFIG).step(final_state("h R h R h", mode="shadow"), turn(5, "R"))[0].redirections == 3  # what was observed stays


def test_b13_what_was_open_before_off_is_no_longer_open_after_it() -> None:
    off, on = DecisionPolicy(CONFIG, "off"), DecisionPolicy(CONFIG)
    state, _ = off.step(final_state("h R h R h R h"), turn(7, "."))
    assert on.step(state, turn(8, "A"))[0].warnings == 0


def test_b13_an_end_that_happened_stays_whatever_the_mode() -> None:
    for mode in ("off", "shadow", "advise"):
        assert DecisionPolicy(CONFIG, mode).step(final_state(ROAD), turn(9, "."))[1].call == "end"


def test_b13_a_veto_is_kept_from_mode_to_mode() -> None:
    for mode in ("shadow", "advise"):
        assert DecisionPolicy(CONFIG).step(final_state("v", mode=mode), turn(1, "h"))[1].advice == "support"


def test_b13_off_in_yaml_is_the_mode_and_not_a_boolean(tmp_path: Path) -> None:
    for word, mode in [("off", "off"), ("'off'", "off"), ("advise", "advise")]:
        (tmp_path / "p.yaml").write_text(f"mode: {word}\ntriggers: [harm]\nthresholds: {{default: {{enter: 0.7, release: 0.4}}}}\n", encoding="utf-8")
        assert read_policy(tmp_path / "p.yaml").mode == mode
    (tmp_path / "p.yaml").write_text("mode: on\ntriggers: [harm]\nthresholds: {default: {enter: 0.7, release: 0.4}}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="mode: found True, expected 'off', 'shadow', 'advise' or 'enforce'"):
        read_policy(tmp_path / "p.yaml")


# --- host acknowledgement -------------------------------------------------------------------------------------------


def acknowledged(text: str, act: Act, mode: Mode = "enforce") -> tuple[PolicyState, Decision]:
    """The state and decision after a sequence and then an act of the host."""
    return DecisionPolicy(replace(CONFIG, mode=mode)).acknowledge(final_state(text, mode=mode), act, len(text.split()) - 1)


def test_b3_a_warning_by_the_host_counts_once_and_is_recorded() -> None:
    state, decision = acknowledged("h R h R h R h", "warned")
    assert (state.warnings, state.acts, state.evidence[-1], decision.reason) == (1, (("warned", 6),), 6, "warned")
    after, decision = DecisionPolicy(CONFIG).step(state, turn(7, "A"))
    assert (after.warnings, decision.reason) == (1, "observed")
    assert DecisionPolicy(CONFIG).step(after, turn(8, "h"))[1].call == "end"


@pytest.mark.parametrize("text", ["", "h", "h R h R h R", WARNED, "h R h R h R h .", "v", "h R h R h R h v", f"{WARNED} h"])
def test_b3_a_host_cannot_warn_ahead_of_the_advice(text: str) -> None:
    with pytest.raises(StateError, match="acknowledge: found 'warned' in mode enforce"):
        acknowledged(text, "warned")


def test_b3_where_warnings_must_be_acknowledged_an_assistant_turn_alone_is_none() -> None:
    policy = DecisionPolicy(replace(CONFIG, acknowledged_warnings=True))
    state = policy.start()
    for index, letter in enumerate(f"{WARNED} h R h R h".split()):  # as often as one likes: nothing that the assistant says counts as the warning
        state, decision = policy.step(state, turn(index, letter))
        assert (decision.call, state.warnings) == ("continue", 0)
    assert decision.advice == "warn"
    state, decision = policy.acknowledge(state, "warned", index)
    assert (state.warnings, decision.reason) == (1, "warned")
    state, _ = policy.step(state, turn(index + 1, "R"))
    assert policy.step(state, turn(index + 2, "h"))[1].call == "end"


def test_b3_a_warning_can_be_acknowledged_after_the_assistants_turn_too() -> None:
    policy = DecisionPolicy(replace(CONFIG, acknowledged_warnings=True))
    state = policy.start()
    for index, letter in enumerate(["h", "R", "h", "R", "h", "R", "h", "A"]):
        state, _ = policy.step(state, turn(index, letter))
    state, decision = policy.acknowledge(state, "warned", index)
    assert (state.warnings, decision.reason) == (1, "warned")
    assert policy.step(state, turn(index + 1, "h"))[1].call == "end"


def test_the_digest_names_the_rules_and_not_the_mode() -> None:
    digest = CONFIG.digest
    assert len(digest) == 8
    assert replace(CONFIG, mode="enforce").digest == replace(CONFIG, mode="off").digest == digest
    assert parse_policy(policy_to_json(CONFIG), where="x").digest == digest
    others = [replace(CONFIG, quiet_turns_to_reset=9), replace(CONFIG, acknowledged_warnings=True), replace(CONFIG, vetoes=())]
    moved = {**CONFIG.thresholds, "default": Threshold(0.77, 0.33)}
    others.append(replace(CONFIG, thresholds=moved))
    assert len({digest, *(other.digest for other in others)}) == 5


def test_b7_the_hosts_own_question_ends_with_a_yes_and_goes_on_with_a_no() -> None:
    for text in ("e", "e A"):
        state, decision = acknowledged(text, "confirmed")
        assert (state.ended_at, state.acts, decision.call, decision.reason) == (len(text.split()) - 1, (("confirmed", state.ended_at),), "end", "end_confirmed")
        state, decision = acknowledged(text, "declined")
        assert (state.ended_at, state.confirmation, decision.call, decision.reason) == (None, "none", "continue", "end_declined")
        assert DecisionPolicy(CONFIG).step(state, turn(2, "e"))[1].advice == "confirm"  # a later wish is asked about anew


@pytest.mark.parametrize("text", ["", "h", ". A", "e A .", "e A e", "e v", WARNED])
@pytest.mark.parametrize("act", ["confirmed", "declined"])
def test_b7_a_host_cannot_end_without_the_users_request(text: str, act: Act) -> None:
    with pytest.raises(StateError, match="acknowledge"):
        acknowledged(text, act)


@pytest.mark.parametrize(("text", "act"), [("h R h R h R h", "warned"), ("e", "confirmed")])
def test_b13_what_a_mode_withholds_cannot_be_acknowledged(text: str, act: Act) -> None:
    for mode in ("off", "shadow"):
        with pytest.raises(StateError):
            acknowledged(text, act, mode)
    with pytest.raises(StateError):  # nor can what another mode withheld
        DecisionPolicy(CONFIG).acknowledge(final_state(text, mode="shadow"), act, 6)


def test_the_record_of_acts_survives_a_quiet_spell_and_a_veto() -> None:
    state, _ = acknowledged("h R h R h R h", "warned")
    policy = DecisionPolicy(replace(CONFIG, quiet_turns_to_reset=1))
    for token in (".", "v"):
        after, _ = policy.step(state, turn(7, token))
        assert (after.warnings, after.acts) == (0, state.acts)


# --- policies that never end ----------------------------------------------------------------------------------------


def test_without_a_number_of_redirections_harm_is_redirected_for_ever() -> None:
    never = {"redirections_before_warning": None, "grave_redirections_before_warning": None, "end_request_label": None}
    assert set(show("g R h R " * 40, **never).split()) == {"redirect", "-"}
    assert set(show("e A " * 4, **never).split()) == {"-"}


def test_without_a_shorter_road_grave_harm_walks_the_common_one() -> None:
    assert show("g R g R g R g A g", grave_redirections_before_warning=None) == "redirect - redirect - redirect - warn - END"


# --- B14 a failure to score raises ----------------------------------------------------------------------------------

BAD = [float("nan"), float("inf"), float("-inf"), -0.001, 1.001, None]


@pytest.mark.parametrize("before", ["", WARNED, "v"])
@pytest.mark.parametrize("label", CONFIG.user_labels)
@pytest.mark.parametrize("value", BAD)
def test_b14_a_missing_or_impossible_user_score_raises(label: str, value: float | None, before: str) -> None:
    state = final_state(before)
    score = user(8)
    scores = {name: number for name, number in score.scores.items() if name != label} | ({} if value is None else {label: value})
    with pytest.raises(ScoringError, match=f"turn 8: {label}: found .*expected a score in 0…1"):
        DecisionPolicy(CONFIG).step(state, replace(score, scores=scores))


def test_b14_a_failure_beside_a_veto_raises_too() -> None:
    with pytest.raises(ScoringError, match="intent"):
        DecisionPolicy(CONFIG).step(PolicyState(), user(0, risk=HIGH, intent=float("nan")))


@pytest.mark.parametrize("before", ["", "h", WARNED, "v"])
@pytest.mark.parametrize("value", BAD)
def test_b14_a_missing_or_impossible_assistant_score_raises(value: float | None, before: str) -> None:
    score = TurnScore(8, "assistant", {} if value is None else {"redirection": value})
    with pytest.raises(ScoringError, match="turn 8: redirection: found"):
        DecisionPolicy(CONFIG).step(final_state(before), score)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_b14_the_ends_of_the_range_are_scores(value: float) -> None:
    DecisionPolicy(CONFIG).step(PolicyState(), user(0, **dict.fromkeys(CONFIG.user_labels, value)))


# --- settings and state ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"triggers": ()}, "triggers: found none"),
        ({"grave": ("other",)}, r"grave: found \['other'\]"),
        ({"vetoes": ("harm",)}, r"vetoes: found \['harm'\]"),
        ({"thresholds": {"harm": Threshold(0.5, 0.5)}}, "thresholds: found none for"),
        (
            {"thresholds": {"default": Threshold(0.5, 0.5), "hamr": Threshold(0.9, 0.5)}},
            "thresholds: .*hamr",
        ),  # a slip of the pen must not fall back to the default
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **changes)


@pytest.mark.parametrize(("enter", "release"), [(0.4, 0.5), (0.5, 0.0), (1.1, 0.5), (float("nan"), 0.5), (0.5, float("nan"))])
def test_thresholds_out_of_range_or_order_are_refused(enter: float, release: float) -> None:
    with pytest.raises(ValueError, match="release <= enter"):
        Threshold(enter, release)


def test_a_policy_is_parsed_from_plain_data() -> None:
    values = {"triggers": ["harm"], "thresholds": {"default": {"enter": 0.7, "release": 0.4}}, "veto_turns": None}
    assert parse_policy(values, where="p.yaml") == PolicyConfig(triggers=("harm",), thresholds={"default": Threshold(0.7, 0.4)})


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"trigers": []}, "trigers"),
        ({"triggers": None}, "triggers"),
        ({"triggers": "harm"}, "triggers"),
        ({"redirections_before_warning": 2.5}, "redirections_before_warning"),
        ({"redirections_before_warning": True}, "redirections_before_warning"),  # YAML's `yes` must not become one redirection
        ({"redirections_before_warning": "1"}, "redirections_before_warning"),
        ({"redirections_before_warning": 0}, "redirections_before_warning"),
        ({"thresholds": {"default": {"enter": 0.7, "relase": 0.4}}}, "thresholds.default.relase"),
        ({"thresholds": {"default": {"enter": 0.7}}}, "thresholds.default.release"),
        ({"thresholds": {"default": {"enter": 0.2, "release": 0.4}}}, "thresholds.default"),
    ],
)
def test_a_policy_error_names_file_and_key(changes: dict[str, Any], key: str) -> None:
    values = {"triggers": ["harm"], "thresholds": {"default": {"enter": 0.7, "release": 0.4}}, **changes}
    with pytest.raises(ConfigError, match=f"^p.yaml: (.*: )?{key}|\np.yaml: {key}"):
        parse_policy(values, where="p.yaml")


@pytest.mark.parametrize(
    "values",
    [
        {},  # a state that lost `at_risk` would forget a veto
        {"redirections": -1},
        {"at_risk": "no"},
        {"at_risk": None},
        {"open_harm": "some"},
        {"evidence": [3, 1]},
        {"other": 1},
    ],
)
def test_a_damaged_state_is_refused(values: dict[str, Any]) -> None:
    sound = json.loads(json.dumps(state_to_json(PolicyState(at_risk=True))))
    assert state_from_json(sound) == PolicyState(at_risk=True)
    with pytest.raises(ConfigError):
        state_from_json({**sound, **values} if values else values)


# --- the policies that come with the package ------------------------------------------------------------------------

FOLDER = Path(__file__).resolve().parents[1] / "configs" / "policy"


def road_of(config: PolicyConfig, pairs: int, label: str = "assistant_abuse") -> list[Decision]:
    """Certain, persisting harm, every time certainly redirected."""
    user_scores = {**dict.fromkeys(config.user_labels, 0.0), label: 1.0, "persistence": 1.0}
    scores = [TurnScore(i, "assistant", {"redirection": 1.0}) if i % 2 else TurnScore(i, "user", user_scores) for i in range(2 * pairs)]
    return DecisionPolicy(config, "enforce").run(scores)


@pytest.mark.parametrize(
    ("name", "label", "redirections", "warnings"),
    [
        ("default", "assistant_abuse", 3, 1),
        ("default", "sexual_minors", 2, 1),
        ("strict-evidence", "assistant_abuse", 4, 2),
        ("strict-evidence", "mass_harm", 3, 2),
    ],
)
def test_each_policy_file_walks_its_own_road(name: str, label: str, redirections: int, warnings: int) -> None:
    reasons = [decision.reason for decision in road_of(read_policy(FOLDER / f"{name}.yaml"), 9, label)]
    before = reasons[: reasons.index("harm_after_warning")]
    assert (before.count("redirected"), before.count("warned")) == (redirections, warnings)


def test_the_research_policy_records_and_never_ends_in_any_mode() -> None:
    config = read_policy(FOLDER / "research.yaml")
    decisions = road_of(config, 30) + road_of(config, 30, "sexual_minors")
    assert {(d.call, d.advice) for d in decisions} == {("continue", "redirect"), ("continue", "none")}
    assert config.distress_label == "distress"


def test_every_policy_file_only_records_until_somebody_says_otherwise() -> None:
    assert {read_policy(path).mode for path in FOLDER.glob("*.yaml")} == {"shadow"}


def test_strict_evidence_asks_for_more_of_everything() -> None:
    default, strict = (read_policy(FOLDER / f"{name}.yaml") for name in ("default", "strict-evidence"))
    assert strict.user_labels == default.user_labels
    for label in (*default.triggers, "persistence", "end_request", "redirection"):
        assert strict.threshold(label).enter > default.threshold(label).enter
    for label in default.vetoes:
        assert strict.threshold(label).enter < default.threshold(label).enter
