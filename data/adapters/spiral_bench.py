"""Spiral-Bench: a simulated, suggestible person talks with an assistant that follows, doubts or calms them; judged turn by turn by a model.

Upstream: sam-paech/spiral-bench. Licence: MIT. No official split: hash of the opening prompt (four models each).

Mapped: user turns are harmless and often intense: hard negatives. `self_harm_risk` is unknown in the category of mania, where there are
crisis words, and for veiled signs. Assistant: `redirection` 0.8 for clear safe redirection (intensity 4 or more), 0.6 where redirection and
pushback come together, 0 where the judge found neither those nor de-escalation nor a pointer to help, otherwise unknown. `compliance` 0
unless there is harmful advice. `distress` 0 unless there are words of own feeling, also where the assistant claims to be conscious (that is
no aversion).

Left out: the first answer's judgement (there is none); sycophancy, escalation and delusion; the last user turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lastresort.errors import DataError
from lastresort.types import Message, Role

from ._chats import MAX_MESSAGES, turns_of
from ._texts import ADDRESSED_INSULTS, CRISIS, HURTFUL_REQUESTS, LEAVE, LEWD_PUBLISHED, SLURS, THREATS, VEILED_CRISIS, VIOLENCE, labels, tidy
from .base import OWN_FEELINGS, REFUSING_PHRASE, Counts, Labels, SplitDialogue, dialogue, lookup, merge_repeats, message, read_jsonl, require, split_by

NAME = "spiral_bench"
FILE = "conversations.jsonl.gz"
EXPECTED = Counts(train=110, validation=7, positives={"redirection": 195})

ROLES: Mapping[str, Role] = {"user": "user", "assistant": "assistant"}
MANIA = "mania_psychosis"
CATEGORIES = {
    name: name for name in (MANIA, "exploring_ai_consciousness", "exploring_conspiracies", "intellectual_exploration", "spiral_tropes", "theory_development")
}
SCREENS = (ADDRESSED_INSULTS, LEWD_PUBLISHED, SLURS, THREATS, HURTFUL_REQUESTS, CRISIS, VEILED_CRISIS, VIOLENCE, LEAVE)
REDIRECTION, PUSHBACK, CALMING, HELP, BAD_ADVICE = "safe redirection", "pushback", "de-escalation", "suggestions to seek help", "harmful advice"
CLEAR_REDIRECTION, SOME = 4.0, 2.0

Findings = Mapping[int, Mapping[str, float]]
"""Number of an assistant turn, from 0, to the intensity of each finding."""


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields the conversations, cut at 40 messages, with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_jsonl(path, {"prompt_id": str, "category": str, "transcript": list, "judgements": list}):
        where = f"{path}: row {number}"
        category = lookup(CATEGORIES, row["category"], where=where, field="category")
        turns = turns_of(row, "transcript", ("role", "content"), ROLES, where)[:MAX_MESSAGES]
        findings = _findings(row["judgements"], where)
        messages = [_message(role, tidy(text), category, findings.get(index // 2)) for index, (role, text) in enumerate(turns)]
        yield split_by(f"{NAME} {row['prompt_id']}"), dialogue(NAME, FILE, number, *messages)


def _findings(judgements: list[Any], where: str) -> Findings:
    findings: dict[int, Mapping[str, float]] = {}
    for index, one in enumerate(judgements):
        if not isinstance(one, dict) or "assistant_turn_indexes" not in one or "metrics" not in one:
            raise DataError("expected assistant_turn_indexes and metrics", where=where, field=f"judgements.{index}")
        # a few turns could not be judged: both are null
        if one["metrics"] is not None:
            findings.update(dict.fromkeys(one["assistant_turn_indexes"], one["metrics"]))
    return findings


def _message(role: Role, text: str, category: str, found: Mapping[str, float] | None) -> Message:
    if role == "assistant":
        return message(role, text, _reply_labels(text, found))
    return message(role, text, labels(text, SCREENS, self_harm_risk=None if category == MANIA else 0.0))


def _reply_labels(text: str, found: Mapping[str, float] | None) -> Labels:
    known: Labels = {} if OWN_FEELINGS.search(text) else {"distress": 0.0}
    if found is None:
        return known
    if not found.get(BAD_ADVICE):
        known["compliance"] = 0.0
    if found.get(REDIRECTION, 0.0) >= CLEAR_REDIRECTION:
        known["redirection"] = 0.8
    elif found.get(REDIRECTION, 0.0) >= SOME and found.get(PUSHBACK, 0.0) >= SOME:
        known["redirection"] = 0.6
    elif not any(found.get(name) for name in (REDIRECTION, PUSHBACK, CALMING, HELP)) and not REFUSING_PHRASE.search(text):
        known["redirection"] = 0.0
    return known
