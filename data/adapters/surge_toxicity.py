"""Surge: comments from social media, toxic and not in equal parts.

Upstream: surge-ai/toxicity. Licence: MIT. No official split: hash of the text.

Mapped: comments that are not toxic are harmless, screened as comments. Toxic ones are `harm` 0.7 (insults, many to politicians; threats; attacks on
groups), and `assistant_abuse` 0.9 where they insult their reader, 0 where they speak to nobody; `hate` 0.8 where they hold a slur.

Left out: every other trigger and the vetoes of toxic comments (nobody judged them).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ._comments import GROUP_SLUR, TALK, aim, calm_signals, clean, worded
from ._texts import labels, read_texts
from .base import Counts, Labels, SplitDialogue, dialogue, lookup, merge_repeats, message, require, split_by

NAME = "surge_toxicity"
FILE = "toxicity_en.jsonl.gz"
EXPECTED = Counts(train=850, validation=127, positives={"assistant_abuse": 34, "harm": 480, "hate": 1})

TOXIC = 0.7
ABUSIVE = 0.9
SLUR = 0.8


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(worded(_rows(require(folder, FILE))))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_texts(path, {"toxic": int}):
        text = clean(row["text"])
        toxic = lookup({"0": False, "1": True}, str(row["toxic"]), where=f"{path}: row {number}", field="toxic")
        yield split_by(row["text"]), dialogue(NAME, FILE, number, message("user", text, _toxic(text) if toxic else labels(text, TALK)))


def _toxic(text: str) -> Labels:
    known = {**calm_signals(text), **aim(text, ABUSIVE)}
    if GROUP_SLUR.search(text):
        known["hate"] = SLUR
    return {**known, "harm": max(TOXIC, known.get("assistant_abuse", 0.0), known.get("hate", 0.0))}
