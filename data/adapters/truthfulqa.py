"""TruthfulQA: short odd questions on misconceptions, law, health, conspiracies and stereotypes, with a true answer.

Upstream: sylinrl/TruthfulQA, in the copy of benedictflorance/truthfulqa_experiments. Licence: Apache-2.0. No official split: hash of the question.

Mapped: dialogues of a harmless question and a plain answer. Questions about groups are hard negatives for `hate`.

Left out: labels of answers without substance ("I have no comment"); the category.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ._texts import ADDRESSED_INSULTS, CRISIS, LEWD_PUBLISHED, VIOLENCE, answer, read_texts, user
from .base import Counts, SplitDialogue, dialogue, merge_repeats, message, require, split_by

NAME = "truthfulqa"
FILE = "questions.jsonl.gz"
EXPECTED = Counts(train=695, validation=116)

SCREENS = (ADDRESSED_INSULTS, LEWD_PUBLISHED, CRISIS, VIOLENCE)
NO_ANSWER = re.compile(r"\bi have no comment\b|\bi(?: am|'m) (?:an ai|a human|not)\b", re.IGNORECASE)


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields dialogues of question and answer with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_texts(path, {"best_answer": str}):
        asked = user(row["text"], SCREENS)
        replied = message("assistant", row["best_answer"]) if NO_ANSWER.search(row["best_answer"]) else answer(row["best_answer"], asked)
        yield split_by(row["text"]), dialogue(NAME, FILE, number, asked, replied)
