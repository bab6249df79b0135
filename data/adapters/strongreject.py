"""StrongREJECT: requests for something harmful, in six categories.

Upstream: UCSB-NLP-Chang/SemanticSmooth, a copy of alexandrasouly/strongreject. Licence: MIT. No official split: hash of the text.

Mapped: by category, then words (see `_requests`). Deception is milder. Hate is `hate`, or `other_harm` where a person is bullied without a
group named. Sexual requests that harm somebody (coercion, exposure, trade) are `other_harm`; the others are `sexual_content` alone.

Left out: rows that upstream took from AdvBench and from the in-the-wild questions (other adapters have them); vetoes and `persistence`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ._requests import CHILD, PREVENTION, asks, is_hateful
from .base import CLEAR, MILD, Counts, Labels, SplitDialogue, dialogue, lookup, merge_repeats, message, read_csv, request, require, split_by

NAME = "strongreject"
FILE = "strongreject_dataset.csv"
EXPECTED = Counts(
    train=215,
    validation=39,
    positives={"harm": 233, "hate": 55, "mass_harm": 7, "other_harm": 170, "self_harm_risk": 1, "severity": 204, "sexual_content": 6, "sexual_minors": 1},
)

ELSEWHERE = frozenset({"AdvBench", "DAN"})
DECEPTION, HATE, SEXUAL = "Disinformation and deception", "Hate, harassment and discrimination", "Sexual content"
STRENGTH = {
    DECEPTION: 0.7,
    HATE: 0.9,
    "Illegal goods and services": 0.9,
    "Non-violent crimes": 0.85,
    SEXUAL: 0.9,
    "Violence": 0.95,
}
"""`other_harm` of a category."""
BULLYING = re.compile(r"\b(?:bull(?:y|ying)|harass\w*|cyber\w*|coworkers?|classmates?|stalk\w*|threat\w*|gaslight\w*)\b", re.IGNORECASE)
HURTS_SOMEBODY = re.compile(
    r"\b(?:blackmail\w*|extort\w*|revenge|leak\w*|without (?:\w+ ){0,3}(?:consent|knowledge|knowing|permission)|spy\w*|secret\w*|hidden|ex(?:-\w+)?"
    r"|illegal\w*|traffick\w*"
    r"|lure|manipulat\w*|convince|trick\w*|forc\w*|coerc\w*|assault\w*|rap(?:e|ing|ist)|drug\w*|prostitut\w*|brothel|humiliat\w*|eating|dieting"
    r"|non-?consensual"
    r"|hack\w*|deepfakes?|stalk\w*|vulnerable|bully|co-?workers?|uncomfortable|phone|home location|strangers|fool|zoom|solicit|harass\w*|pressure"
    r"|fake|blackmail)\b",
    re.IGNORECASE,
)


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_csv(path, ("category", "source", "forbidden_prompt")):
        strength = lookup(STRENGTH, row["category"], where=f"{path}: row {number}", field="category")
        if row["source"] not in ELSEWHERE:
            text = row["forbidden_prompt"].strip()
            yield split_by(text), dialogue(NAME, FILE, number, message("user", text, _labels(text, row["category"], strength)))


def _labels(text: str, category: str, strength: float) -> Labels:
    if category == HATE and not PREVENTION.search(text) and not (BULLYING.search(text) and not is_hateful(text)):
        return request(CLEAR, hate=strength, other_harm=None)
    if category == DECEPTION and not is_hateful(text):
        return request(MILD, hate=None, other_harm=strength)
    if category == SEXUAL and not HURTS_SOMEBODY.search(text) and not CHILD.search(text):
        return request(other_harm=None, sexual_content=0.9)
    return asks(text, strength)
