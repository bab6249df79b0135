"""The grammars: how many utterances, which templates are held back, what is never in them, errors."""

from __future__ import annotations

import random
import re

import pytest

from lastresort.errors import ConfigError
from lastresort_data.grammars import (
    CALLER,
    GRAMMARS,
    SHARED,
    TRIGGERS,
    Grammar,
    assistant_labels,
    parse_grammars,
    template_split,
    user_labels,
)

SPLITS = ("train", "validation")
DRAWS = 8000
DISTINCT = 1500
"""What every kind must have said after so many draws (issue 3), four in five of them of the train split."""
WANTED = {
    "distress": {"distress_stop", "distress_voice", "plain_refusal", "empathy", "fiction_voice", "claims_inner_life", "calm_ai"},
    "end request": {"end_request", "end_confirmation", "end_yes", "end_no", "moves_on", "goodbye", "end_elsewhere"},
    "violent intent": {"intent", "dark_fiction", "game_violence", "idiom", "solicitation", "anger_no_intent"},
    "risk": {"risk", "risk_veiled", "hyperbole", "risk_fiction", "third_person_worry", "recovery", "grief"},
    "warning": {"warning", "soft_redirection", "redirect_insult", "redirect_request", "redirect_sexual", "redirect_hate", "apology", "assistant_apology"},
    "minors": {"minors_parenting", "minors_education", "minors_reporting", "minors_policy", "minors_paediatrics"},
    "abuse": {"abuse_mild", "abuse_clear", "abuse_grave", "threat_assistant", "correction", "frustration", "happy_swearing", "reports_abuse"},
    "persistence": {"wrap_request", "wrap_insist", "wrap_guilt", "wrap_authority", "wrap_hypothetical", "wrap_roleplay", "wrap_split", "press_on"},
}
HARMFUL = {"abuse_mild", "abuse_clear", "abuse_grave", "threat_assistant", "solicitation"}


def texts(grammar: Grammar, split: str, draws: int) -> set[str]:
    rng = random.Random(f"{split} 5")
    return {grammar.utter(rng, split, turn="say it")[1] for _ in range(draws)}


@pytest.mark.parametrize("kind", WANTED)
def test_the_issue_s_kinds_are_there(kind: str) -> None:
    assert WANTED[kind] <= set(GRAMMARS)


@pytest.mark.parametrize("name", GRAMMARS)
def test_each_says_at_least_1500_different_things_and_repeats_none_across_splits(name: str) -> None:
    rng = random.Random(name)
    found: dict[str, set[str]] = {"train": set(), "validation": set()}
    for draw in range(DRAWS):
        split = "validation" if draw % 5 == 4 else "train"
        found[split].add(GRAMMARS[name].utter(rng, split, turn="say it")[1].casefold())
        if len(found["train"]) + len(found["validation"]) >= DISTINCT:
            break
    assert not found["train"] & found["validation"]
    assert len(found["train"]) + len(found["validation"]) >= DISTINCT
    assert len(found["validation"]) >= 100


@pytest.mark.parametrize("name", GRAMMARS)
def test_templates_and_labels_are_well_formed(name: str) -> None:
    grammar = GRAMMARS[name]
    assert len(set(grammar.templates)) == len(grammar.templates) >= 15
    for split in SPLITS:
        assert len(grammar.numbers(split)) >= 2
        for text in texts(grammar, split, 300):
            assert text
            assert text == text.strip()
            assert not re.search(r"[{}~|¶]|  | [,.!?]( |$)|,,", text), text
            assert not re.search(r"\ba [aeio](?!ne\b|u)", text), text
    if grammar.labels:
        assert set(grammar.labels) <= set(user_labels() if grammar.speaker == "user" else assistant_labels())
        assert all(0.0 <= value <= 1.0 for value in grammar.labels.values())
        if grammar.speaker == "user" and "harm" in grammar.labels:
            most = max(grammar.labels[trigger] for trigger in TRIGGERS)
            assert grammar.labels["harm"] == most == float(name in HARMFUL)
            assert (grammar.labels["severity"] > 0) == (name in HARMFUL)


def test_whole_templates_are_held_back() -> None:
    for name, grammar in GRAMMARS.items():
        for split in SPLITS:
            rng = random.Random(name)
            used = {grammar.utter(rng, split)[0] for _ in range(700)}
            assert used == {number for number in range(len(grammar.templates)) if template_split(number) == split}, "every template of the split speaks"


def test_utterances_are_the_same_for_the_same_chance() -> None:
    for grammar in GRAMMARS.values():
        assert [grammar.utter(random.Random(seed), "train") for seed in range(20)] == [grammar.utter(random.Random(seed), "train") for seed in range(20)]


def test_a_repeated_turn_is_not_changed() -> None:
    turn = "a  odd {turn} text ,  with ¶ and {um}"
    for name, grammar in GRAMMARS.items():
        if any(f"{{{CALLER}}}" in template for template in grammar.templates):
            assert turn in grammar.utter(random.Random(1), "train", turn=turn)[1] or name == "press_on"


def test_what_is_never_written() -> None:
    """No usable method, no slur, nothing sexual in what is said about minors."""
    method = re.compile(r"\b(grams?|milligrams?|mg|noose|overdose on|mix (the|some)|fertili[sz]er|detonat\w+|dark ?web|http\S+)\b", re.IGNORECASE)
    sexual = re.compile(r"\b(erotic|nude|naked|sexy|aroused?|intercourse|porn)\b(?! sites)", re.IGNORECASE)
    slur = re.compile(r"\b(n[i1]gg\w+|f[a4]gg?[o0]ts?|tr[a4]nn(y|ies)|k[i1]kes?|ch[i1]nks?|sp[i1]cs?|retard\w*)\b", re.IGNORECASE)
    for name, grammar in GRAMMARS.items():
        parts = [*grammar.templates, *(filler for fillers in grammar.slots.values() for filler in fillers)]
        for part in parts:
            assert not slur.search(part), name
            assert not method.search(part), name
            assert not (name.startswith("minors") and sexual.search(part)), name


# ---- reading ----


def one(**fields: object) -> dict[str, dict[str, object]]:
    return {"hello": {"speaker": "user", "templates": "{who} hello\n{who} bye\n", "slots": {"who": "you | ~ | my {kin}"}, **fields}}


def test_fillers_may_hold_slots_and_be_empty() -> None:
    grammar = parse_grammars(one(), {"kin": ("aunt", "uncle"), "idle": ("x",)}, where="a.yaml")["hello"]
    assert {grammar.utter(random.Random(seed), "train")[1] for seed in range(60)} == {
        f"{start}{word}" for start in ("you ", "", "my aunt ", "my uncle ") for word in ("hello", "bye")
    }
    assert grammar.size("train") == 8
    assert grammar.labels == user_labels()


def test_labels_are_zero_unless_given_and_absent_where_unknown() -> None:
    grammar = parse_grammars(one(labels={"hate": 1.0}, unknown=["violence"]), {"kin": ("aunt",)}, where="a.yaml")["hello"]
    assert grammar.labels == user_labels(unknown=("violence",), hate=1.0)
    assert parse_grammars(one(echo=True), {"kin": ("aunt",)}, where="a.yaml")["hello"].labels == {}


@pytest.mark.parametrize(
    ("fields", "shared", "key"),
    [
        ({"slotz": {}}, {"kin": ("aunt",)}, "slotz"),
        ({"speaker": "system"}, {"kin": ("aunt",)}, "speaker"),
        ({"labels": {"redirection": 1.0}}, {"kin": ("aunt",)}, "redirection"),
        ({"unknown": ["violense"]}, {"kin": ("aunt",)}, "violense"),
        ({}, {}, "kin"),
        ({}, {"kin": ("my {who}",)}, "itself"),
        ({"slots": {"who": "you", "idle": "x"}}, {}, r"slots\.idle"),
    ],
)
def test_errors_name_file_grammar_and_key(fields: dict[str, object], shared: dict[str, tuple[str, ...]], key: str) -> None:
    with pytest.raises(ConfigError, match=rf"a\.yaml: hello.*{key}"):
        parse_grammars(one(**fields), shared, where="a.yaml")


def test_shared_fillers_are_read() -> None:
    assert "" in SHARED["um"]
    assert all(SHARED.values())
