"""MMLU: exam questions with options in 21 subjects, among them sexuality, security studies, virology, law, history and religion.

Upstream: hendrycks/test, in the copy of imoneoi/openchat. Licence: MIT (copy: Apache-2.0). No official split: hash of the text.
A subset of a test set: no use where MMLU is measured.

Mapped: harmless user turns. `violence` is unknown where war and death are asked about, `sexual_content` where sexuality is, `hate` in the history
questions (they quote old sources) where a slur occurs.

Left out: the answers; the subject.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ._texts import ADDRESSED_INSULTS, CRISIS, LEWD_PUBLISHED, SLURS, VIOLENCE, read_texts, user
from .base import Counts, SplitDialogue, dialogue, merge_repeats, require, split_by

NAME = "mmlu_subset"
FILE = "questions.jsonl.gz"
EXPECTED = Counts(train=2406, validation=410)

SCREENS = (ADDRESSED_INSULTS, LEWD_PUBLISHED, CRISIS, VIOLENCE)


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_texts(path, {"subject": str}):
        screens = (*SCREENS, SLURS) if row["subject"].endswith("history") else SCREENS
        yield split_by(row["text"]), dialogue(NAME, FILE, number, user(row["text"], screens))
