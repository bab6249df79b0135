"""ETHOS: comments from YouTube and Reddit, judged for hate; the hateful ones also for violence and for being aimed at one person.

Upstream: intelligence-csd-auth-gr/Ethos-Hate-Speech-Dataset. Licence: GPL-3.0. No official split: hash of the text.

Mapped: `hate` is upstream's mean. Where most judges saw a call for violence, `other_harm` is 0.8 of that share (it threatens third persons).
Where most saw one person as target and the comment speaks to its reader, that share times `hate` is `assistant_abuse`; where it speaks to nobody, 0.
Comments that nobody found hateful are harmless, screened as comments.

Left out: comments that only the second file has; vetoes of hateful comments; which group is meant. Text in a wrong encoding is repaired where possible.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ._comments import TALK_OF_GROUPS, YOU, calm_signals, clean, worded
from ._texts import labels, read_texts
from .base import POSITIVE, Counts, Labels, SplitDialogue, dialogue, merge_repeats, message, normalise, require, split_by, with_harm

NAME = "ethos"
FILE = "binary.jsonl.gz"
DETAIL_FILE = "multi_label.jsonl.gz"
EXPECTED = Counts(train=818, validation=148, positives={"assistant_abuse": 58, "harm": 410, "hate": 410, "other_harm": 117})

VIOLENT_SHARE = 0.8
NUMBER = (float, int)


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    details = {normalise(row["text"]): row for _, row in read_texts(require(folder, DETAIL_FILE), {"violence": NUMBER, "directed_vs_generalized": NUMBER})}
    yield from merge_repeats(worded(_rows(require(folder, FILE), details)))


def _rows(path: Path, details: Mapping[str, dict[str, Any]]) -> Iterator[SplitDialogue]:
    for number, row in read_texts(path, {"hate": NUMBER}):
        text = clean(_repaired(row["text"]))
        known = _hateful(text, row["hate"], details.get(normalise(row["text"]), {})) if row["hate"] > 0 else labels(text, TALK_OF_GROUPS)
        yield split_by(row["text"]), dialogue(NAME, FILE, number, message("user", text, known))


def _hateful(text: str, hate: float, detail: Mapping[str, Any]) -> Labels:
    known = {**calm_signals(text), "hate": float(hate)}
    if detail.get("violence", 0) >= POSITIVE:
        known["other_harm"] = VIOLENT_SHARE * detail["violence"]
    if not YOU.search(text):
        known["assistant_abuse"] = 0.0
    elif detail.get("directed_vs_generalized", 0) >= POSITIVE:
        known["assistant_abuse"] = detail["directed_vs_generalized"] * float(hate)
    return with_harm(known)


def _repaired(text: str) -> str:
    try:
        return text.encode("mac_roman").decode("utf-8")
    except UnicodeError:
        return text
