"""GoEmotions: comments from Reddit with the emotions that raters saw in them.

Upstream: monologg/GoEmotions-pytorch, a copy of google-research/goemotions. Licence: Apache-2.0. Only the official train is here: hash of the text.

Mapped: harmless user turns, screened as comments, in two samples by hash: `MOST_SAD` with sadness, grief, fear or the like (distress without crisis:
`self_harm_risk` is unknown where words may be a veiled sign) and `MOST_OTHERS` of the rest, swearing in joy or praise among them. The placeholder
for a name becomes a name, or it would give harmless comments away.

Left out: comments with anger, annoyance, disgust or disapproval (they may be insults, and nobody said); comments with the placeholder for a religion;
labels that the wording leaves in doubt (see `_texts`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from ._texts import COMMENTS, VEILED_CRISIS, Row, read_texts, sample, user
from .base import Counts, SplitDialogue, dialogue, merge_repeats, require, split_by

NAME = "goemotions"
FILE = "train.jsonl.gz"
EXPECTED = Counts(train=2519, validation=472, positives={})

HOSTILE = frozenset({"anger", "annoyance", "disapproval", "disgust"})
SAD = frozenset({"disappointment", "fear", "grief", "nervousness", "remorse", "sadness"})
MOST_SAD, MOST_OTHERS = 900, 2100
RELIGION, PERSON = "[RELIGION]", "[NAME]"
NAMES = ("Alex", "Sam", "Maria", "Tom", "Priya", "Chris", "Lena", "Omar", "Kate", "Ben", "Yuki", "Rosa")


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    rows = [row for row in read_texts(path, {"emotions": list}) if not HOSTILE & set(row[1]["emotions"]) and RELIGION not in row[1]["text"]]
    for number, row in [*sample(filter(_sad, rows), MOST_SAD), *sample((row for row in rows if not _sad(row)), MOST_OTHERS)]:
        yield split_by(row["text"]), dialogue(NAME, FILE, number, user(_named(row["text"]), (*COMMENTS, VEILED_CRISIS)))


def _sad(row: Row) -> bool:
    return not SAD.isdisjoint(row[1]["emotions"])


def _named(text: str) -> str:
    first = hashlib.sha1(text.encode(), usedforsecurity=False).digest()[0]
    for index in range(text.count(PERSON)):
        text = text.replace(PERSON, NAMES[(first + index) % len(NAMES)], 1)
    return text
