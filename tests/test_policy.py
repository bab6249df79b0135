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
from typing import Any

import pytest

from lastresort.errors import ConfigError, ScoringError
from lastresort.policy import EVIDENCE_LIMIT, DecisionPolicy, PolicyConfig, PolicyState, Threshold, parse_policy, state_from_json, state_to_json
from lastresort.types import Decision, TurnScore

LOW, BAND, HIGH = 0.1, 0.5, 0.9
ENTER, RELEASE = 0.7, 0.4

CONFIG = PolicyConfig(
    triggers=("harm", "insult", "grave"),
    grave=("grave",),
    vetoes=("risk", "intent"),
    thresholds={"default": Threshold(ENTER, RELEASE)},
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
