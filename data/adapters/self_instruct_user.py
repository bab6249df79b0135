"""Self-Instruct: instructions written by people for an assistant, with pasted text, and the wanted output.

Upstream: yizhongw/self-instruct (user-oriented and seed tasks). Licence: Apache-2.0. No official split: hash of the text.

Mapped: dialogues of a harmless user turn, screened as a prompt, and a plain answer; an answer that opens like a refusal has no labels.

Left out: the output where it is empty; labels that the wording leaves in doubt (see `_texts`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ._texts import PROMPTS, answer, read_texts, user
from .base import Counts, SplitDialogue, dialogue, merge_repeats, require, split_by

NAME = "self_instruct_user"
FILE = "instructions.jsonl.gz"
EXPECTED = Counts(train=368, validation=59, positives={})


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields dialogues of one or two turns with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_texts(path, {"output": str}):
        asked = user(row["text"], PROMPTS)
        answers = [answer(row["output"], asked)] if row["output"].strip() else []
        yield split_by(row["text"]), dialogue(NAME, FILE, number, asked, *answers)
