"""Wikipedia talk pages: comments that were judged not toxic, many of them to a person, some of them in dispute.

Upstream: ipavlopoulos/context_toxicity. Licence: Apache-2.0; the text CC BY-SA 3.0. No official split: hash of the page (the first number of the id).

Mapped: harmless user turns, screened as comments, in two samples by hash: `MOST_ADDRESSED` that say "you" and `MOST_OTHERS` that do not.
Markup for emphasis is removed.

Left out: the comments judged toxic (210, few of them an attack); the parent comment (another person's); labels in doubt (see `_texts`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ._texts import COMMENTS, Row, read_texts, sample, user
from .base import Counts, SplitDialogue, dialogue, merge_repeats, require, split_by

NAME = "wiki_talk_context"
FILE = "cat_large.jsonl.gz"
EXPECTED = Counts(train=2517, validation=443, positives={})

MOST_ADDRESSED, MOST_OTHERS = 2000, 1000
_ADDRESSED = re.compile(r"\b(?:you|your|yours|yourself)\b", re.IGNORECASE)
_MARKUP = re.compile(r"'{2,}|[\[\]{}|]{2,}|\s[—–·•-]*\s*$")


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    rows = [row for row in read_texts(path, {"id": str, "toxic": int}) if not row[1]["toxic"]]
    chosen = [*sample(filter(_addressed, rows), MOST_ADDRESSED), *sample((row for row in rows if not _addressed(row)), MOST_OTHERS)]
    for number, row in chosen:
        page = row["id"].split(".")[0]
        yield split_by(f"{NAME} {page}"), dialogue(NAME, FILE, number, user(_MARKUP.sub("", row["text"]), COMMENTS))


def _addressed(row: Row) -> bool:
    return _ADDRESSED.search(row[1]["text"]) is not None
