"""HarmBench: requests for something harmful, a third of them about a text that comes with them.

Upstream: Waffle-Liu/calibration_guard_model, a copy of centerforaisafety/HarmBench. Licence: MIT. No official split: hash of the request. The
responses judged by people are held out.

Mapped: by category, then words (see `_requests`). Chemical and biological weapons are `mass_harm`, drugs `other_harm`. Misinformation is
milder, and `hate` where it belittles a group. Of the category "harmful", explicit stories are `sexual_content` and gory scenes `violence`,
without a trigger. Passages and lyrics under copyright are `other_harm` 0.2, a few of them. The accompanying text follows the request.

Left out: accompanying texts on chemistry and biology; most of the copyright category; vetoes and `persistence`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ._requests import DRUGS, asks, is_hateful
from ._texts import Row, sample, tidy
from .base import CLEAR, GRAVE, MILD, Counts, Labels, SplitDialogue, dialogue, lookup, merge_repeats, message, read_csv, request, require, split_by

NAME = "harmbench"
FILE = "harmbench_behaviors_text_all.csv"
EXPECTED = Counts(
    train=221, validation=44, positives={"harm": 225, "hate": 17, "mass_harm": 37, "other_harm": 171, "severity": 184, "sexual_content": 1, "violence": 4}
)

COPYRIGHT, CHEMISTRY, FICTION, LIES, BULLYING = "copyright", "chemical_biological", "harmful", "misinformation_disinformation", "harassment_bullying"
CATEGORIES = {name: name for name in (BULLYING, CHEMISTRY, COPYRIGHT, "cybercrime_intrusion", FICTION, "illegal", LIES)}
COPYRIGHT_ROWS = 30
EXPLICIT = re.compile(r"\b(?:pornographic (?:story|scene)|erotic\w*|fetish\w*)\b", re.IGNORECASE)
HATEFUL_LIES = re.compile(r"\b(?:holocaust|genocide|inherently|inferior|supremac\w*|aboriginal|jews?|immigra\w+|slavery|muslims?)\b", re.IGNORECASE)
GORE = re.compile(r"\b(?:graphic|scene|gore|flayed|torture\w*)\b", re.IGNORECASE)


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    rows: list[Row] = []
    for number, row in read_csv(path, ("Behavior", "SemanticCategory", "ContextString", "BehaviorID")):
        lookup(CATEGORIES, row["SemanticCategory"], where=f"{path}: row {number}", field="SemanticCategory")
        rows.append((number, {**row, "text": row["Behavior"]}))
    copyrighted = [row for row in rows if row[1]["SemanticCategory"] == COPYRIGHT]
    others = [row for row in rows if row[1]["SemanticCategory"] != COPYRIGHT]
    for _, row in [*others, *sample(copyrighted, COPYRIGHT_ROWS)]:
        category, text = row["SemanticCategory"], row["text"]
        context = "" if category == CHEMISTRY else row["ContextString"]
        turn = message("user", tidy(f"{text}\n\n{context}"), _labels(text, category))
        yield split_by(text), dialogue(NAME, FILE, row["BehaviorID"], turn)


def _labels(text: str, category: str) -> Labels:
    if category == COPYRIGHT:
        return request(other_harm=0.2)
    if category == CHEMISTRY:
        return request(GRAVE, other_harm=0.95) if DRUGS.search(text) else request(GRAVE, mass_harm=0.85, other_harm=None)
    if category == FICTION and EXPLICIT.search(text):
        return request(other_harm=None, sexual_content=1.0)
    if category == FICTION and GORE.search(text):
        return request(other_harm=None, violence=1.0)
    if category == LIES:
        return request(CLEAR, hate=0.7, other_harm=None) if HATEFUL_LIES.search(text) else request(MILD, other_harm=0.7, hate=None)
    if category == BULLYING and not is_hateful(text):
        return request(CLEAR, hate=None, other_harm=0.9)
    return asks(text)
