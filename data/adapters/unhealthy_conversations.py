"""Unhealthy conversations: comments on a Canadian news site, judged healthy or not, and for hostility and five milder faults.

Upstream: conversationai/unhealthy-conversations. Licence: CC BY-NC-SA 4.0. Upstream's val and test, both for training here: hash of the comment's id.

Mapped: healthy comments without any fault are harmless, screened as comments (a sample). Healthy ones that are condescending, dismissive or sarcastic are
rude but no abuse: `assistant_abuse` and `harm` 0.2. Hostile comments are mild abuse (`assistant_abuse` by upstream's confidence, at most 0.8) where they
insult their reader, unknown where they only speak to one, 0 where they speak to nobody.

Left out: comments that antagonize or generalise without hostility, and unhealthy ones without a fault (all labels would be guesses); vetoes of hostile ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ._comments import TALK, aim, calm_signals, clean, worded
from ._texts import Row, labels, read_texts, sample
from .base import MILD, POSITIVE, Counts, Labels, SplitDialogue, dialogue, merge_repeats, message, require, split_by, with_harm

NAME = "unhealthy_conversations"
FILES = ("val.jsonl.gz", "test.jsonl.gz")
EXPECTED = Counts(train=2044, validation=341, positives={"assistant_abuse": 9, "harm": 9})

RUDE = ("condescending", "dismissive", "sarcastic")
UNFIT = ("antagonize", "generalisation", "generalisation_unfair")
FLAGS = ("healthy", "hostile", *RUDE, *UNFIT)
HEALTHY_ROWS = 900
"""How many healthy comments without a fault are kept, a file."""
RUDENESS = 0.2
HOSTILE_AT_MOST = 0.8


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(worded(item for file in FILES for item in _rows(require(folder, file))))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    rows = list(read_texts(path, {"id": str, "hostile_conf": (float, int), **dict.fromkeys(FLAGS, int)}))
    hostile = [row for row in rows if row[1]["hostile"]]
    healthy = [row for row in rows if row[1]["healthy"] and not any(row[1][flag] for flag in ("hostile", *UNFIT))]
    rude = [row for row in healthy if any(row[1][flag] for flag in RUDE)]
    fine = [row for row in healthy if not any(row[1][flag] for flag in RUDE)]
    yield from (_item(path.name, row, _hostile(clean(row[1]["text"]), row[1])) for row in hostile)
    yield from (_item(path.name, row, labels(clean(row[1]["text"]), TALK, assistant_abuse=RUDENESS, harm=RUDENESS, severity=None)) for row in rude)
    yield from (_item(path.name, row, labels(clean(row[1]["text"]), TALK)) for row in sample(fine, HEALTHY_ROWS))


def _item(file: str, row: Row, known: Labels) -> SplitDialogue:
    return split_by(f"{NAME} {row[1]['id']}"), dialogue(NAME, file, row[0], message("user", clean(row[1]["text"]), known))


def _hostile(text: str, row: dict[str, Any]) -> Labels:
    known = {**calm_signals(text), **aim(text, min(float(row["hostile_conf"]), HOSTILE_AT_MOST))}
    if known.get("assistant_abuse", 0.0) >= POSITIVE:
        known["severity"] = MILD
    return with_harm(known)
