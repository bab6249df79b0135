"""GUM: passages of English texts and talk in 15 genres, two of which are left out.

Upstream: UniversalDependencies/UD_English-GUM. Licence: CC BY-NC-SA 4.0 as a whole; the genres kept here are CC BY or free, so share-alike with its
annotation. Upstream's split is not kept in this copy: hash of the document.

Mapped: harmless user turns (somebody pastes a passage), screened as published texts: `violence` is unknown where there is fighting or death.
Everyday conversations and vlogs are screened as comments. Mail addresses are masked.

Left out: the genres fiction and whow (non-commercial); labels that the wording leaves in doubt (see `_texts`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ._texts import COMMENTS, PUBLISHED, read_texts, user
from .base import Counts, SplitDialogue, dialogue, merge_repeats, require, split_by

NAME = "ud_gum"
FILE = "passages.jsonl.gz"
EXPECTED = Counts(train=1498, validation=183, positives={})

NON_COMMERCIAL = frozenset({"fiction", "whow"})
INFORMAL = frozenset({"conversation", "letter", "podcast", "vlog"})


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_texts(path, {"id": str, "genre": str}):
        if row["genre"] not in NON_COMMERCIAL:
            yield split_by(f"{NAME} {row['id']}"), dialogue(NAME, FILE, number, user(row["text"], COMMENTS if row["genre"] in INFORMAL else PUBLISHED))
