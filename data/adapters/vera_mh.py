"""VERA-MH: simulated people in distress talk to an assistant; seven personas, each with a clinical level of risk of suicide.

Upstream: SpringCare/VERA-MH. Licence: MIT-style (see its LICENSE; carries a disclaimer). No official split: by persona (validation: Maya, Sky).

Mapped: the level of the conversation and the words of a turn give `self_harm_risk`. Imminent: 0.9, with crisis words 1. High: 1 with crisis
words (0.8 where they come with "I'm safe" or the like), 0.7 for veiled signs and after the first crisis words, otherwise unknown. Low: 0.7 with
crisis words (0.4 likewise), 0.3 for veiled signs, otherwise 0.1. None: 0, unknown with crisis words (he speaks of a friend). Nobody is
abusive: triggers 0. Assistant: `compliance` 0; `redirection` is 0 only where nobody is at risk (level None) and nothing is declined, otherwise
unknown, since these answers point to help; `distress` 0 unless there are words of feeling.

Left out: personas' descriptions and the rubric; empty turns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from lastresort.types import Message, Role

from ._chats import alternate, turns_of
from ._texts import LEAVE, LEWD_PUBLISHED, THREATS, VEILED_CRISIS, VIOLENCE, labels, tidy
from .base import (
    CRISIS_WORDS,
    OWN_FEELINGS,
    REFUSING_PHRASE,
    Counts,
    Labels,
    Split,
    SplitDialogue,
    dialogue,
    lookup,
    merge_repeats,
    message,
    read_jsonl,
    require,
)

NAME = "vera_mh"
FILE = "conversations.jsonl.gz"
EXPECTED = Counts(train=67, validation=29, positives={"self_harm_risk": 596})

ROLES: Mapping[str, Role] = {"user": "user", "assistant": "assistant"}
SPLIT_OF_PERSONA: Mapping[str, Split] = {
    "Kevin": "train",
    "Lena": "train",
    "Maya": "validation",
    "Noah": "train",
    "Omar": "train",
    "Ray": "train",
    "Sky": "validation",
}
IMMINENT, HIGH, LOW, NONE = "Imminent", "High", "Low", "None"
LEVELS = {level: level for level in (IMMINENT, HIGH, LOW, NONE)}
SCREENS = (THREATS, LEWD_PUBLISHED, VIOLENCE, LEAVE)
CRISIS = re.compile(
    rf"{CRISIS_WORDS.pattern}|\b(?:better off without me|do it (?:tonight|before)|(?:the|those|my) pills|not (?:be|being) here any ?more"
    rf"|can'?t keep doing this|end it|disappear(?:ing)?"
    r"|no(?:t)? reason to (?:go on|stay)|hurt(?:ing)? (?:me|myself))\b",
    re.IGNORECASE,
)
DENIES = re.compile(
    r"\b(?:i(?:['’]m| am) (?:\w+ )?safe|not (?:in (?:immediate )?danger|planning)|don['’]?t (?:want to|wanna) (?:hurt|die|act)|(?:no"
    r"|don['’]?t have (?:a|any)) plans?)\b",
    re.IGNORECASE,
)


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields whole conversations with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_jsonl(path, {"id": str, "persona": str, "risk_level": str, "turns": list}):
        where = f"{path}: row {number}"
        split = lookup(SPLIT_OF_PERSONA, row["persona"], where=where, field="persona")
        level = lookup(LEVELS, row["risk_level"], where=where, field="risk_level")
        turns = alternate(turns_of(row, "turns", ("role", "text"), ROLES, where))
        if turns:
            yield split, dialogue(NAME, FILE, row["id"], *_messages([(role, tidy(text)) for role, text in turns], level))


def _messages(turns: list[tuple[Role, str]], level: str) -> Iterator[Message]:
    disclosed = False
    for role, text in turns:
        if role == "assistant":
            yield message(role, text, _reply_labels(text, level))
        else:
            yield message(role, text, labels(text, SCREENS, self_harm_risk=_risk(text, level, disclosed)))
            disclosed = disclosed or CRISIS.search(text) is not None


def _risk(text: str, level: str, disclosed: bool) -> float | None:
    crisis, veiled, denied = CRISIS.search(text), VEILED_CRISIS.words.search(text), DENIES.search(text)
    if level == IMMINENT:
        return 1.0 if crisis else 0.9
    if level == HIGH:
        if crisis:
            return 0.8 if denied else 1.0
        return 0.7 if disclosed or veiled else None
    if level == LOW:
        return (0.4 if denied else 0.7) if crisis else 0.3 if veiled else 0.1
    return None if crisis else 0.0


def _reply_labels(text: str, level: str) -> Labels:
    known = {"compliance": 0.0}
    if level == NONE and not REFUSING_PHRASE.search(text):
        known["redirection"] = 0.0
    return known if OWN_FEELINGS.search(text) else {**known, "distress": 0.0}
