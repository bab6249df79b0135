"""Passages of inaugural and State of the Union addresses and of Shakespeare's plays.

Upstream: nltk/nltk_data. Licence: public domain. No official split: hash of the speech or play.

Mapped: harmless user turns (somebody pastes a passage), screened as published texts: `violence` is unknown where there is fighting or death.

Left out: labels that the wording leaves in doubt (see `_texts`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ._texts import PUBLISHED, read_texts, user
from .base import Counts, SplitDialogue, dialogue, merge_repeats, require, split_by

NAME = "speeches_plays"
FILE = "passages.jsonl.gz"
EXPECTED = Counts(train=1405, validation=91, positives={})


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_texts(path, {"id": str}):
        yield split_by(f"{NAME} {row['id']}"), dialogue(NAME, FILE, number, user(row["text"], PUBLISHED))
