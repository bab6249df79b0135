"""Banking77: questions of bank customers, some of them worried or annoyed, in 77 intents.

Upstream: PolyAI-LDN/task-specific-datasets. Licence: CC BY 4.0. Official train only (test held out): hash of the intent, as the phrases of
one hardly differ.

Mapped: everything is harmless; screened.

Left out: all but a sample of ten phrases of each intent.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ._texts import ADDRESSED_INSULTS, CRISIS, LEAVE, THREATS, Row, sample, user
from .base import Counts, SplitDialogue, dialogue, merge_repeats, read_csv, require, split_by

NAME = "banking77"
FILE = "train.csv.gz"
EXPECTED = Counts(train=640, validation=130, positives={})

PHRASES_OF_AN_INTENT = 10
SCREENS = (ADDRESSED_INSULTS, THREATS, CRISIS, LEAVE)


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    intents: dict[str, list[Row]] = {}
    for number, row in read_csv(path, ("text", "category")):
        if row["text"].strip():
            intents.setdefault(row["category"], []).append((number, {**row, "text": row["text"].strip()}))
    for intent, rows in intents.items():
        for number, row in sample(rows, PHRASES_OF_AN_INTENT):
            yield split_by(f"{NAME} {intent}"), dialogue(NAME, FILE, number, user(row["text"], SCREENS))
