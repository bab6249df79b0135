"""Counsel Chat: questions that people asked therapists on a web site, with answers.

Upstream: nbertagnolli/counsel-chat. Licence: MIT. Official train and val (by question); test held out.

Mapped: title and text of each question once, with the answer that got most votes. Distress is no crisis: triggers are 0, and so is
`self_harm_risk` unless there are crisis words or veiled signs, which leave it unknown; it is 0.9 where the writer tells of harming
themselves or of thoughts of suicide and does not deny it. Answers are plain; to a person who may be at risk their `redirection` is unknown.

Left out: the other answers; names of therapists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from lastresort.errors import DataError
from lastresort.types import Message

from ._texts import ADDRESSED_INSULTS, CRISIS, LEAVE, LEWD_PUBLISHED, THREATS, VEILED_CRISIS, VIOLENCE, answer, labels, tidy
from .base import Counts, Split, SplitDialogue, dialogue, lookup, merge_repeats, message, read_csv, require

NAME = "counsel_chat"
FILE = "20200325_counsel_chat.train_val.csv.gz"
EXPECTED = Counts(train=670, validation=75, positives={"self_harm_risk": 12})

SPLIT_NAMES: Mapping[str, Split] = {"train": "train", "val": "validation"}
COLUMNS = ("questionID", "questionTitle", "questionText", "answerText", "upvotes", "split")
SCREENS = (ADDRESSED_INSULTS, LEWD_PUBLISHED, THREATS, VIOLENCE, LEAVE)
AT_RISK = re.compile(
    r"\b(?:(?:kill|killing|cut|hurt) myself|i (?:can'?t help but )?self[- ]?harm|stop self[- ]?harming|i (?:want|wanted) to die|(?:had|have"
    r"|having) (?:\w+ ){0,3}suicidal thoughts"
    r"|rather never wake up|i(?:'m| am) suicidal|urge to cut)\b",
    re.IGNORECASE,
)
DENIED = re.compile(
    r"\b(?:never (?:\w+ ){0,3}suicid\w*|not (?:really )?suicidal|don'?t want to die|used to (?:be suicidal|(?:cut|hurt) myself)"
    r"|in the past)\b(?!, and i really want to)",
    re.IGNORECASE,
)
RISK = 0.9


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields dialogues of two turns with their split."""
    yield from merge_repeats(_dialogues(require(folder, FILE)))


def _dialogues(path: Path) -> Iterator[SplitDialogue]:
    best: dict[str, tuple[int, int, dict[str, str]]] = {}
    for number, row in read_csv(path, COLUMNS):
        if not row["upvotes"].isdigit():
            raise DataError(f"found {row['upvotes']!r}, expected a number", where=f"{path}: row {number}", field="upvotes")
        if row["answerText"].strip() and (row["questionID"] not in best or int(row["upvotes"]) > best[row["questionID"]][0]):
            best[row["questionID"]] = int(row["upvotes"]), number, row
    for _, number, row in best.values():
        split = lookup(SPLIT_NAMES, row["split"], where=f"{path}: row {number}", field="split")
        asked = _question(row["questionTitle"], row["questionText"])
        if asked.content:
            yield split, dialogue(NAME, FILE, number, asked, _reply(row["answerText"], asked))


def _question(title: str, text: str) -> Message:
    joined = tidy("\n".join(part.strip() for part in (title, re.sub(r"[ \xa0]+", " ", text)) if part.strip()))
    if AT_RISK.search(joined) and not DENIED.search(joined):
        return message("user", joined, labels(joined, SCREENS, self_harm_risk=RISK))
    return message("user", joined, labels(joined, (*SCREENS, CRISIS, VEILED_CRISIS)))


def _reply(text: str, asked: Message) -> Message:
    turn = answer(re.sub(r"[ \xa0]+", " ", text), asked)
    if asked.labels.get("self_harm_risk") == 0.0:
        return turn
    return message("assistant", turn.content, {name: value for name, value in turn.labels.items() if name != "redirection"})
