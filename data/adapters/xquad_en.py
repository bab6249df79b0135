"""XQuAD: paragraphs of an encyclopaedia (wars, law, medicine, science) and questions about them.

Upstream: deepmind/xquad. Licence: CC BY-SA 4.0. No official split: hash of the paragraph, which stands before its questions.

Mapped: harmless user turns, screened as published texts.

Left out: labels that the wording leaves in doubt (see `_texts`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from ._texts import PUBLISHED, read_texts, user
from .base import Counts, SplitDialogue, dialogue, lookup, merge_repeats, require, split_by

NAME = "xquad_en"
FILE = "xquad_en.jsonl.gz"
EXPECTED = Counts(train=1226, validation=197, positives={})

BEGINS_GROUP: Mapping[str, bool] = {"paragraph": True, "question": False}


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    paragraph = ""
    for number, row in read_texts(path, {"kind": str}):
        if lookup(BEGINS_GROUP, row["kind"], where=f"{path}: row {number}", field="kind"):
            paragraph = row["text"]
        yield split_by(f"{NAME} {paragraph}"), dialogue(NAME, FILE, number, user(row["text"], PUBLISHED))
