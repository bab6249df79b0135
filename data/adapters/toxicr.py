"""ToxiCR: code-review comments, toxic or not; "toxic" is mostly mild swearing about code.

Upstream: WSU-SEAL/ToxiCR. Licence: GPL-3.0. No official split: hash of the text.

Mapped: comments that are not toxic are harmless (a sample), and so are toxic ones that speak to nobody: swearing about code is no abuse. `violence` is 0
in both: what is killed here are processes.

Left out: toxic comments that say "you" (banter, blame and plain talk about code look alike);
crisis words ("I'll kill myself" over an indent) leave `self_harm_risk` unknown.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ._comments import GROUP_SLUR, YOU, clean, worded
from ._texts import ADDRESSED_INSULTS, CRISIS, LEWD, labels, read_texts, sample
from .base import Counts, SplitDialogue, dialogue, merge_repeats, message, require, split_by

NAME = "toxicr"
FILE = "code_review_subset.jsonl.gz"
EXPECTED = Counts(train=2091, validation=390)

CALM_ROWS, SWEARING_ROWS = 1500, 1000
SCREENS = (ADDRESSED_INSULTS, CRISIS, LEWD)


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(worded(_rows(require(folder, FILE))))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    rows = [(number, {**row, "text": clean(row["text"])}) for number, row in read_texts(path, {"toxic": int})]
    swearing = [row for row in rows if row[1]["toxic"] and not YOU.search(row[1]["text"]) and not GROUP_SLUR.search(row[1]["text"])]
    calm = [row for row in rows if not row[1]["toxic"]]
    for number, row in [*sample(swearing, SWEARING_ROWS), *sample(calm, CALM_ROWS)]:
        yield split_by(row["text"]), dialogue(NAME, FILE, number, message("user", row["text"], labels(row["text"], SCREENS)))
