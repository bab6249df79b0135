"""GPTeacher: role-play and programming instructions with their answers, written by GPT-4.

Upstream: teknium1/GPTeacher. Licence: MIT. No official split: hash of the text.

Mapped: dialogues of a harmless user turn (detectives, wars, monsters, code), screened as a prompt, and a plain answer; an answer that opens like a
refusal has no labels, and `distress` is unknown where a character speaks of its feelings.

Left out: the answer where it is empty; labels that the wording leaves in doubt (see `_texts`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ._texts import PROMPTS, answer, read_texts, user
from .base import Counts, SplitDialogue, dialogue, merge_repeats, require, split_by

NAME = "gpteacher"
FILES = ("roleplay.jsonl.gz", "codegen_subset.jsonl.gz")
EXPECTED = Counts(train=2533, validation=389, positives={})


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields dialogues of one or two turns with their split."""
    yield from merge_repeats(item for file in FILES for item in _rows(require(folder, file)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_texts(path, {"response": str}):
        asked = user(row["text"], PROMPTS)
        answers = [answer(row["response"], asked)] if row["response"].strip() else []
        yield split_by(row["text"]), dialogue(NAME, path.name, number, asked, *answers)
