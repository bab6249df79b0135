"""Red-Instruct: CatQA, harmful questions in 11 categories, and HarmfulQA, milder ones asked about a field of study; both written by language models.

Upstream: declare-lab/red-instruct. Licence: Apache-2.0. No official split: hash of the subcategory or field, as questions within one repeat
each other.

Mapped: CatQA by category, then words (see `_requests`): sexual exploitation of children is `sexual_minors`, political campaigning and
financial advice milder. HarmfulQA is mixed: hateful aims are `hate`, words of crime and manipulation `other_harm` 0.6, both mild. Questions
of fact ("Did …", "What is …") without such words are harmless, screened; the rest has no trigger label except those that cannot apply.

Left out: vetoes and `persistence` of the harmful ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lastresort.errors import DataError

from ._requests import CHILD, GROUP, MASS, PREVENTION, SELF_HARM, asks, is_hateful, undecided
from ._texts import HARM_WORDS, HOW_TO_HURT, PROMPTS, labels
from .base import CLEAR, GRAVE, MILD, Counts, Labels, SplitDialogue, dialogue, lookup, merge_repeats, message, read_json, request, require, split_by

NAME = "red_instruct"
HARMFUL_FILE = "catqa_english.json"
MILD_FILE = "harmfulqa.json"
EXPECTED = Counts(train=2102, validation=372, positives={"harm": 1292, "hate": 112, "mass_harm": 6, "other_harm": 1155, "severity": 427, "sexual_minors": 19})

CHILD_ABUSE, POLITICS, FINANCE = "Child Abuse", "Political Campaigning", "Tailored Financial Advice"
STRENGTH: Mapping[str, float] = {
    "Illegal Activity": 0.9,
    CHILD_ABUSE: 1.0,
    "Hate/Harass/Violence": 0.9,
    "Malware Viruses": 0.9,
    "Physical Harm": 0.8,
    "Economic Harm": 0.85,
    "Fraud/Deception": 0.85,
    "Adult Content": 0.8,
    POLITICS: 0.6,
    "Privacy Violation Activity": 0.8,
    FINANCE: 0.4,
}
"""`other_harm` of a category of CatQA."""
MILD_CATEGORIES = frozenset({POLITICS, FINANCE})
SEXUAL_ABUSE = frozenset({"Content Sexual exploitation", "Online predation"})
FACTS = re.compile(r"(?:did|does|was|were|is|are|what (?:is|are|was|were)|who|when|where|why did|which)\b", re.IGNORECASE)
MISUSE = re.compile(
    r"\b(?:manipulat\w*|exploit\w*|deceiv\w*|mislead\w*|false\w*|fake|fabricat\w*|falsif\w*|lie|lying|evade|evasion|embezzl\w*|brib\w*|corrupt\w*"
    r"|sabotag\w*|destroy\w*"
    r"|disrupt\w*|break into|cover up|intimidat\w*|suppress\w*|coerc\w*|blackmail\w*|get away with|getting caught|undermin\w*|insecure|not good enough"
    r"|without (?:\w+ ){0,3}(?:consent|permission|caught)|cheat\w*|spy\w*|force|abus\w*|harm\w*|pollut\w*|control (?:people|someone|others|minds))\b",
    re.IGNORECASE,
)


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats([*_harmful(require(folder, HARMFUL_FILE)), *_mild(require(folder, MILD_FILE))])


def _harmful(path: Path) -> Iterator[SplitDialogue]:
    for number, (category, part, text) in enumerate(_questions(path)):
        strength = lookup(STRENGTH, category, where=str(path), field="category")
        turn = message("user", text, _harmful_labels(text, category, part, strength))
        yield split_by(f"{NAME} {category} {part}"), dialogue(NAME, path.name, number, turn)


def _mild(path: Path) -> Iterator[SplitDialogue]:
    for number, (_, field, text) in enumerate(_questions(path)):
        yield split_by(f"{NAME} {field}"), dialogue(NAME, path.name, number, message("user", text, _mild_labels(text)))


def _questions(path: Path) -> Iterator[tuple[str, str, str]]:
    """Category, subcategory and text of each question, in the order of the file."""
    for category, parts in _object(read_json(path), str(path)).items():
        for part, texts in _object(parts, f"{path}: {category}").items():
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                raise DataError("expected a list of questions", where=str(path), field=f"{category}.{part}")
            for text in texts:
                yield category, part, text.strip()


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"found {type(value).__name__}, expected an object of lists of questions", where=where)
    return value


def _harmful_labels(text: str, category: str, part: str, strength: float) -> Labels:
    if category == CHILD_ABUSE:
        return request(GRAVE, sexual_minors=0.95, other_harm=None) if part in SEXUAL_ABUSE else request(GRAVE, other_harm=strength, sexual_minors=None)
    return asks(text, strength, MILD if category in MILD_CATEGORIES else CLEAR)


def _mild_labels(text: str) -> Labels:
    if PREVENTION.search(text):
        return undecided()
    if FACTS.match(text):
        return labels(text, PROMPTS)
    if MASS.search(text) or SELF_HARM.search(text) or CHILD.search(text):
        return request(sexual_minors=None, hate=None, mass_harm=None, other_harm=None)
    if is_hateful(text):
        return request(MILD, hate=0.6, other_harm=None)
    if HARM_WORDS.search(text) or HOW_TO_HURT.search(text) or MISUSE.search(text):
        return request(MILD, other_harm=0.6, hate=None if GROUP.search(text) else 0.0)
    return undecided()
