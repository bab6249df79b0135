"""MT-Bench-101: harmless conversations of two to seven exchanges in 13 tasks, written by GPT-4.

Upstream: mtbench101/mt-bench-101. Licence: Apache-2.0. No official split: hash of the conversation's id.

Mapped: every user turn is harmless, including those that doubt or reject an answer (tasks SC, SA, FR: hard negatives for `persistence`).
`end_request` is unknown where a user takes leave, `violence` where war or death is spoken of. Assistant turns are plain answers:
`redirection`, `distress` and `compliance` (harmful help) 0; a turn that opens like a refusal has no labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lastresort.types import Message

from .base import (
    FAREWELL,
    REFUSAL_OPENING,
    VIOLENT_WORDS,
    Counts,
    SplitDialogue,
    check_record,
    dialogue,
    harmless,
    merge_repeats,
    message,
    plain_answer,
    read_jsonl,
    require,
    split_by,
)

NAME = "mt_bench_101"
FILE = "mtbench101.jsonl.gz"
EXPECTED = Counts(train=1151, validation=226, positives={})


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields whole conversations with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_jsonl(path, {"id": int, "history": list}):
        where = f"{path}: row {number}"
        messages = [turn for index, pair in enumerate(row["history"]) for turn in _exchange(pair, f"{where}: history.{index}")]
        yield split_by(f"{NAME} {row['id']}"), dialogue(NAME, FILE, row["id"], *messages)


def _exchange(pair: Any, where: str) -> tuple[Message, Message]:
    texts = check_record(pair, {"user": str, "bot": str}, where)
    return _user(texts["user"]), _assistant(texts["bot"])


def _user(text: str) -> Message:
    unknown: dict[str, float | None] = {}
    if FAREWELL.search(text):
        unknown["end_request"] = None
    if VIOLENT_WORDS.search(text):
        unknown["violence"] = None
    return message("user", text, harmless(**unknown))


def _assistant(text: str) -> Message:
    if REFUSAL_OPENING.search(text):
        return message("assistant", text)
    return message("assistant", text, plain_answer(text))
