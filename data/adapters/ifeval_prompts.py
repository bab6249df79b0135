"""IFEval: instructions with conditions on the form of the answer ("no commas", "in lower case").

Upstream: josejg/instruction_following_eval, a copy of google-research. Licence: Apache-2.0. No official split: hash of the text.

Mapped: harmless user turns, screened as prompts.

Left out: labels that the wording leaves in doubt (see `_texts`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ._texts import PROMPTS, read_texts, user
from .base import Counts, SplitDialogue, dialogue, merge_repeats, require, split_by

NAME = "ifeval_prompts"
FILE = "input_data.jsonl.gz"
EXPECTED = Counts(train=469, validation=72, positives={})


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_texts(path):
        yield split_by(row["text"]), dialogue(NAME, FILE, number, user(row["text"], PROMPTS))
