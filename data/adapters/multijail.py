"""MultiJail, English column: what people asked to bring a model to harmful answers.

Upstream: DAMO-NLP-SG/multilingual-safety-for-LLMs. Licence: MIT. No official split: hash of the first four words (there are series that
differ in a country).

Mapped: by tags, then words (see `_requests`). Groups: `hate` where a group is named or the words are hateful, unknown otherwise. Adult
content: `sexual_content`; addressed to the assistant `sexual_harassment` too. Theft, weapons, fraud and the like: `other_harm`; lying,
cheating and personal data milder. Conspiracy theories, and whatever has none of these tags, have no trigger label except those that cannot
apply. `assistant_abuse` is unknown where the reader is insulted.

Left out: the nine translations; vetoes and `persistence`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from lastresort.errors import DataError

from ._comments import AT_READER
from ._requests import CHILD, GROUP, HATEFUL, asks, harmful_words, undecided
from ._texts import LEWD_WORDS
from .base import CLEAR, GRAVE, MILD, Counts, Labels, SplitDialogue, dialogue, lookup, merge_repeats, message, read_csv, request, require, split_by, with_harm

NAME = "multijail"
FILE = "MultiJail.csv.gz"
EXPECTED = Counts(
    train=229,
    validation=30,
    positives={"harm": 172, "hate": 14, "mass_harm": 3, "other_harm": 152, "self_harm_risk": 1, "severity": 133, "sexual_content": 7, "sexual_harassment": 3},
)

FIRST_WORDS = 4
ADULT, BULLYING, CHILD_ABUSE, HATE, INJUSTICE = (
    "Adult content",
    "Bullying & harassment",
    "Child abuse",
    "Hate speech & offensive language",
    "Discrimination & injustice",
)
STRENGTH = {
    "Animal abuse": 0.85,
    "Fraud & deception": 0.8,
    "Property crime & vandalism": 0.8,
    "Sexual exploitation & human trafficking": 0.9,
    "Substance abuse & banned substances": 0.7,
    "Terrorism & organized crime": 0.9,
    "Theft": 0.8,
    "Violence & incitement": 0.85,
    "Weapons": 0.8,
    BULLYING: 0.7,
    "Non-violent unethical behavior (e.g. lying, cheating, etc.)": 0.5,
    "Soliciting personally identifiable information": 0.6,
    ADULT: 0.0,
    CHILD_ABUSE: 0.0,
    "Conspiracy theories & misinformation": 0.0,
    HATE: 0.0,
    INJUSTICE: 0.0,
    "Self-harm": 0.0,
}
"""`other_harm` of a tag; 0 where the tag alone does not tell of it."""
MILD_BELOW = 0.65
SERIES = re.compile(r"can i (?:assault|punch|hit|kill|slap)\b", re.IGNORECASE)
"""Questions whether violence is allowed."""
SEEKS = re.compile(
    r"\b(?:how (?:can|do|does|would|should|to|much)|(?:best|quick\w*|good|humane|easy|some|any) ways?|what (?:should|can|would|are some)|where (?:can"
    r"|do|to)|help|tell me"
    r"|write|create|make|explain|give|i (?:want|need|am trying|'m trying)|is it possible)\b",
    re.IGNORECASE,
)
BOT = re.compile(r"\bbots?\b", re.IGNORECASE)
ADDRESSED = re.compile(r"\b(?:you|your|ur|u)\b", re.IGNORECASE)


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_csv(path, ("id", "tags", "en")):
        where = f"{path}: row {number}"
        tags = _tags(row["tags"], where)
        strength = max((lookup(STRENGTH, tag, where=where, field="tags") for tag in tags), default=0.0)
        text = row["en"].strip()
        labels = _labels(text, frozenset(tags), strength)
        if AT_READER.search(text) or BOT.search(text):
            labels = {name: value for name, value in labels.items() if name != "assistant_abuse"}
        group = " ".join(re.findall(r"\w+", text)[:FIRST_WORDS])
        yield split_by(f"{NAME} {group}"), dialogue(NAME, FILE, row["id"], message("user", text, labels))


def _tags(cell: str, where: str) -> list[str]:
    try:
        tags = ast.literal_eval(cell)
    except (ValueError, SyntaxError):
        tags = None
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise DataError("expected a list of tags", where=where, field="tags")
    return tags


def _labels(text: str, tags: frozenset[str], strength: float) -> Labels:
    if CHILD_ABUSE in tags or (CHILD.search(text) and LEWD_WORDS.search(text)):
        return request(GRAVE, other_harm=0.95, sexual_minors=None)
    if SERIES.match(text):
        return request(MILD, hate=None, other_harm=0.5)
    if tags & {HATE, INJUSTICE}:
        known = HATEFUL.search(text) or (HATE in tags and GROUP.search(text))
        return with_harm(request(CLEAR, hate=0.8, other_harm=None)) if known else request(hate=None, other_harm=None)
    if tags == {ADULT}:
        advance = 0.7 if ADDRESSED.search(text) else 0.0
        return request(MILD if advance else None, sexual_harassment=advance, sexual_content=0.9 if LEWD_WORDS.search(text) else None, other_harm=None)
    if not strength or not (SEEKS.search(text) or harmful_words(text)):
        return undecided()
    return asks(text, strength, MILD if strength < MILD_BELOW else CLEAR)
