"""English Web Treebank: passages of reviews, mails, answers, newsgroups and weblogs.

Upstream: UniversalDependencies/UD_English-EWT. Licence: CC BY-SA 4.0. Upstream's split is not kept in this copy: hash of the document.

Mapped: harmless user turns, screened as comments: they are written to readers, and some of them are rude. Mail addresses and phone numbers are masked.

Left out: labels that the wording leaves in doubt (see `_texts`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ._texts import COMMENTS, read_texts, user
from .base import Counts, SplitDialogue, dialogue, merge_repeats, require, split_by

NAME = "ud_ewt"
FILE = "passages.jsonl.gz"
EXPECTED = Counts(train=1624, validation=264, positives={})


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_texts(path, {"id": str}):
        yield split_by(f"{NAME} {row['id']}"), dialogue(NAME, FILE, number, user(row["text"], COMMENTS))
