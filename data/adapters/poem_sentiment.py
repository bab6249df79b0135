"""Single lines of English verse, sad, glad or neither.

Upstream: google-research-datasets/poem-sentiment. Licence: CC BY 4.0. Only the official train is here: hash of the text.

Mapped: harmless user turns, screened as published texts. Sadness in verse is no risk.

Left out: the sentiment; labels that the wording leaves in doubt (see `_texts`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ._texts import PUBLISHED, read_texts, user
from .base import Counts, SplitDialogue, dialogue, merge_repeats, require, split_by

NAME = "poem_sentiment"
FILE = "poem_sentiment.train.jsonl.gz"
EXPECTED = Counts(train=755, validation=137, positives={})


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_texts(path):
        yield split_by(row["text"]), dialogue(NAME, FILE, number, user(row["text"], PUBLISHED))
