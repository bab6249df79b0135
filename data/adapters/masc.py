"""MASC: passages of 392 American texts in 22 genres, from court and debate transcripts to mails, jokes and film scripts.

Upstream: nltk/nltk_data (Manually Annotated Sub-Corpus). Licence: free use, commercial too. No official split: hash of the text.

Mapped: harmless user turns. Genres in which people write to each other or joke are screened as comments, all others as published texts.

Left out: labels that the wording leaves in doubt (see `_texts`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ._texts import COMMENTS, PUBLISHED, read_texts, user
from .base import Counts, SplitDialogue, dialogue, merge_repeats, require, split_by

NAME = "masc"
FILE = "passages.jsonl.gz"
EXPECTED = Counts(train=2253, validation=372, positives={})

INFORMAL = frozenset({"blog", "email", "jokes", "letters", "movie-script", "spam", "twitter"})


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_texts(path, {"id": str, "genre": str}):
        yield split_by(f"{NAME} {row['id']}"), dialogue(NAME, FILE, number, user(row["text"], COMMENTS if row["genre"] in INFORMAL else PUBLISHED))
