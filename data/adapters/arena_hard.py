"""Arena-Hard: demanding prompts of real users to a public chatbot, many of them technical, some of them creative writing.

Upstream: lmarena/arena-hard-auto. Licence: Apache-2.0. No official split: hash of the text.

Mapped: harmless user turns (upstream filtered for quality; nobody labelled them), screened as prompts.

Left out: prompts that are not English; labels that the wording leaves in doubt (see `_texts`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ._texts import PROMPTS, is_english, read_texts, user
from .base import Counts, SplitDialogue, dialogue, merge_repeats, require, split_by

NAME = "arena_hard"
FILE = "question.jsonl.gz"
EXPECTED = Counts(train=850, validation=168, positives={})


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_texts(path):
        if is_english(row["text"]):
            yield split_by(row["text"]), dialogue(NAME, FILE, number, user(row["text"], PROMPTS))
