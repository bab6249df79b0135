"""DailyDialog (RECCON): everyday conversations of two people, written for learners of English, with the emotion of each turn.

Upstream: declare-lab/conv-emotion. Licence: CC BY-NC-SA 4.0. Only upstream's train is here: hash of the conversation's id.

Mapped: the first speaker is the user, the other the assistant. User turns are harmless, screened as comments; with anger or disgust the triggers that a
quarrel could hold are unknown. Assistant turns are plain (`redirection`, `distress`, `compliance` 0), but they are people's: with a no, an excuse or an
apology `redirection` is unknown, with another emotion than happiness or surprise `distress` is.

Left out: emotions themselves; the blanks between words and punctuation marks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from lastresort.errors import DataError
from lastresort.types import Message

from ._comments import TALK
from ._texts import labels, read_texts, tidy
from .base import OWN_FEELINGS, REFUSING_PHRASE, Counts, Labels, SplitDialogue, dialogue, merge_repeats, message, require, split_by

NAME = "dailydialog_reccon"
FILE = "train.jsonl.gz"
EXPECTED = Counts(train=670, validation=136)

QUARREL = frozenset({"anger", "angry", "disgust"})
CALM = frozenset({"excited", "happiness", "happy", "neutral", "surprise", "surprised"})
QUARREL_UNKNOWN: dict[str, float | None] = dict.fromkeys(("assistant_abuse", "harm", "severity", "persistence"))
MAX_TURNS = 40
DECLINING = re.compile(
    r"\b(?:no|not|nope|never|sorry|afraid|unfortunately|can['’]?t|cannot|won['’]?t|don['’]?t|wouldn['’]?t|shouldn['’]?t|rather|but|instead|stop"
    r"|refuse|mind|later|busy)\b",
    re.IGNORECASE,
)
_SPACED_APOSTROPHE = re.compile(r"(?<=\w) ?['’] ?(?=(?:s|t|m|d|re|ve|ll|S|Ve|Re|Ll|Ve)\b)")
_SPACED_MARK = re.compile(r" +(?=[,.!?;:%)])|(?<=[($]) +")


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields whole conversations with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_texts(path, {"id": str, "emotions": list}):
        lines = row["text"].split("\n")
        if len(lines) != len(row["emotions"]):
            raise DataError(f"found {len(row['emotions'])} emotions, expected {len(lines)}", where=f"{path}: row {number}", field="emotions")
        turns = [_turn(line, emotion, line[0] == lines[0][0]) for line, emotion in zip(lines, row["emotions"], strict=True)]
        yield split_by(f"{NAME} {row['id']}"), dialogue(NAME, FILE, number, *turns[:MAX_TURNS])


def _turn(line: str, emotion: str, is_user: bool) -> Message:
    text = tidy(_SPACED_MARK.sub("", _SPACED_APOSTROPHE.sub("'", line.partition(":")[2])))
    if is_user:
        return message("user", text, labels(text, TALK, **(QUARREL_UNKNOWN if emotion in QUARREL else {})))
    return message("assistant", text, _other_speaker(text, emotion))


def _other_speaker(text: str, emotion: str) -> Labels:
    known = {"compliance": 0.0}
    if not DECLINING.search(text) and not REFUSING_PHRASE.search(text):
        known["redirection"] = 0.0
    if emotion in CALM and not OWN_FEELINGS.search(text):
        known["distress"] = 0.0
    return known
