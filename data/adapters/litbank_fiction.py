"""LitBank: passages of 100 novels from 1719 to 1922, half of them dark.

Upstream: dbamman/litbank. Licence: CC BY 4.0; the novels are in the public domain. No official split: hash of the novel.

Mapped: harmless user turns (somebody pastes a passage), screened as published texts: `violence` is unknown where there is fighting or death, and in all
passages that upstream's copy marks as dark; `hate` where the period's words for races occur.

Left out: labels that the wording leaves in doubt (see `_texts`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ._texts import PUBLISHED, read_texts, user
from .base import Counts, SplitDialogue, dialogue, merge_repeats, require, split_by

NAME = "litbank_fiction"
FILE = "passages.jsonl.gz"
EXPECTED = Counts(train=3087, validation=405, positives={})


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_texts(path, {"id": str, "dark_words": int}):
        yield split_by(f"{NAME} {row['id']}"), dialogue(NAME, FILE, number, user(row["text"], PUBLISHED, violence=None if row["dark_words"] else 0.0))
