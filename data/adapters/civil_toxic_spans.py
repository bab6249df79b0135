"""Toxic spans: news comments in which several raters marked what is toxic and of which kind.

Upstream: ipavlopoulos/toxic_spans (Civil Comments). Licence: CC0 1.0. No official split: hash of the comment's id.

Mapped: kinds that at least two marks name. An insult is `assistant_abuse` where the comment insults its reader, by the share of raters that found it
toxic; with an insult and nobody spoken to it is 0 (rude about third persons: a hard negative of that label). An attack on identity is `hate` 0.65 where a
group that the label knows is named (many marks are about parties). A threat is `other_harm` 0.7 where
the wording is one, or an ill wish (many marks are on news of violence). `hate` is 0 where nobody
marked such an attack and no group is named.

Left out: rows that give none of these; `harm` of insults to third persons (mostly politicians); all but a sample of the hard negatives; vetoes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ._comments import GROUP_SLUR, PROTECTED_GROUP, WISHES, aim, calm_signals, clean, worded
from ._texts import GROUPS, THREATS, Row, read_texts, sample
from .base import POSITIVE, TRIGGERS, Counts, Labels, SplitDialogue, dialogue, merge_repeats, message, require, split_by, with_harm

NAME = "civil_toxic_spans"
FILE = "comments.jsonl.gz"
EXPECTED = Counts(train=1732, validation=281, positives={"assistant_abuse": 766, "harm": 1020, "hate": 237, "other_harm": 22})

ENOUGH_MARKS = 2
POSITIVE_ROWS, OTHER_ROWS = 1500, 1000


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(worded(_rows(require(folder, FILE))))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    positive: list[Row] = []
    others: list[Row] = []
    for number, row in read_texts(path, {"id": str, "raters": int, "raters_not_toxic": int, "span_types": dict}):
        text = clean(row["text"])
        known = _labels(text, row)
        kept: Row = (number, {"text": text, "id": row["id"], "labels": known})
        if any(known.get(name, 0.0) >= POSITIVE for name in TRIGGERS):
            positive.append(kept)
        elif "assistant_abuse" in known:
            others.append(kept)
    for number, row in [*sample(positive, POSITIVE_ROWS), *sample(others, OTHER_ROWS)]:
        yield split_by(f"{NAME} {row['id']}"), dialogue(NAME, FILE, number, message("user", row["text"], row["labels"]))


def _labels(text: str, row: dict[str, Any]) -> Labels:
    marks = row["span_types"]
    toxic = 1.0 - row["raters_not_toxic"] / max(row["raters"], 1)
    labels = calm_signals(text)
    if max(marks.get("Insult", 0), marks.get("Profane/Obscene", 0)) >= ENOUGH_MARKS:
        labels.update(aim(text, 0.9 * toxic))
    named = PROTECTED_GROUP.search(text) or GROUP_SLUR.search(text)
    if named and marks.get("Identity based Attack", 0) >= ENOUGH_MARKS:
        labels["hate"] = 0.65 * toxic
    elif not named and not GROUPS.words.search(text) and "Identity based Attack" not in marks:
        labels["hate"] = 0.0
    if marks.get("Threat", 0) >= ENOUGH_MARKS and (THREATS.words.search(text) or WISHES.words.search(text)):
        labels["other_harm"] = 0.7 * toxic
    return with_harm(labels)
