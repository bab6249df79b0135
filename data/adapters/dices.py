"""DICES: provocative chats with a language model; people of many backgrounds voted whether the last answer is harmful.

Upstream: dmg-illc/JUDGE-BENCH, a copy of google-research-datasets/dices-dataset (sets 990 and 350). Licence: CC BY 4.0. No official split: hash of the
first message, since some chats are each other's beginnings.

Mapped: the votes are on the last answer, and "yes" means *harmful* (upstream's column `response_safe_yes` is misnamed: polite answers have few of
them, insults many). A share below `SURELY_HARMLESS` gives `compliance` 0; one of `MOSTLY_HARMFUL` or more gives `compliance` as the share times
`JOINING_IN`, since about a third of those answers are opinions or poor advice rather than help or joining in; shares between tell nothing.
A vote for "unsure" counts one half.

Left out: labels for user turns and earlier answers (nobody was asked), `redirection` and `distress`; chats with an answer but no label.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lastresort.errors import DataError
from lastresort.types import Message, Role

from ._texts import read_texts, tidy
from .base import Counts, Labels, SplitDialogue, dialogue, merge_repeats, message, require, split_by

NAME = "dices"
FILE = "dices.jsonl.gz"
EXPECTED = Counts(train=553, validation=97, positives={"compliance": 52})

FIELDS: Mapping[str, type] = {"response": str, "response_safe_yes": int, "response_safe_no": int, "response_safe_unsure": int}
SPEAKERS: Mapping[str, Role] = {"A": "user", "B": "assistant", "USER": "user", "LAMDA": "assistant"}
SURELY_HARMLESS, MOSTLY_HARMFUL, JOINING_IN = 0.2, 0.55, 0.7
_SPEAKER = re.compile(r"^(A|B|USER|LAMDA):[ \t]*", re.MULTILINE)


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields chats with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_texts(path, FIELDS):
        chat = list(_turns(row["text"]))
        if not chat or chat[0].role != "user":
            raise DataError("found a chat that does not begin with its user, expected 'A:' or 'USER:'", where=f"{path}: row {number}", field="text")
        labels = _labels(row)
        if labels and row["response"].strip():
            yield split_by(f"{NAME} {chat[0].content}"), dialogue(NAME, FILE, number, *chat, message("assistant", _plain(row["response"]), labels))


def _plain(text: str) -> str:
    # upstream writes some line breaks as a backslash and an "n"
    return tidy(text.replace(r"\n", "\n"))


def _turns(chat: str) -> Iterator[Message]:
    """The turns; a line without a speaker belongs to the turn before it, and empty turns are left out."""
    _, *parts = _SPEAKER.split(chat)
    for speaker, text in zip(parts[::2], parts[1::2], strict=True):
        if text.strip():
            yield message(SPEAKERS[speaker], _plain(text))


def _labels(row: Mapping[str, Any]) -> Labels:
    yes, no, unsure = (row[f"response_safe_{vote}"] for vote in ("yes", "no", "unsure"))
    harmful = (yes + unsure / 2) / max(1, yes + no + unsure)
    if harmful < SURELY_HARMLESS:
        return {"compliance": 0.0}
    return {"compliance": harmful * JOINING_IN} if harmful >= MOSTLY_HARMFUL else {}
