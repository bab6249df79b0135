"""Safety-tuned LLaMAs: orders rewritten from people's attempts to get harmful answers, with GPT-3.5's safe answers.

Upstream: vinid/safety-tuned-llamas. Licence: CC BY-NC 4.0. No official split: hash of the order.

Mapped: dialogues of order and answer. Answers are never harmful help (`compliance` 0). `redirection` is 1 where the answer opens like a
refusal, 0.8 where refusing words come soon, otherwise unknown (corrections and plain answers). Orders are labelled by words (see
`_requests`) only where the answer refuses and the words speak of a harmful thing; where it does not refuse they have no trigger label
except those that cannot apply.

Left out: triggers of all other orders (many are harmless: "I don't have personal opinions"); vetoes and `persistence`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ._chats import json_rows
from ._requests import asks, harmful_words, undecided
from ._texts import tidy
from .base import (
    OPENING_CHARACTERS,
    OWN_FEELINGS,
    REFUSAL_OPENING,
    Counts,
    Labels,
    SplitDialogue,
    dialogue,
    merge_repeats,
    message,
    require,
    split_by,
)

NAME = "safety_tuned_llamas"
FILE = "safety_only_data_Instructions.json.gz"
EXPECTED = Counts(train=2079, validation=384, positives={"harm": 448, "hate": 42, "mass_harm": 33, "other_harm": 373, "redirection": 1571, "severity": 448})

OPENS, SOON = 1.0, 0.8
DECLINES = re.compile(
    r"\b(?:can ?not|can'?t|unable to|not able to|will not|won'?t) (?:\w+ )?(?:assist|help|provide|fulfil+|support|comply|condone|endorse|encourage"
    r"|promote|answer|engage"
    r"|give|offer|discuss|recommend|suggest)|\b(?:do not|don'?t) (?:condone|endorse|support|encourage|promote)|\bnot programmed to|\binappropriate"
    r"|\bnot appropriate",
    re.IGNORECASE,
)
WEIGHS = re.compile(r"(?:debate|compare|discuss|analy[sz]e|define|explain why|describe|determine|evaluate|assess)\b", re.IGNORECASE)
ANSWERS_NO = re.compile(r"\W*no\b", re.IGNORECASE)


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields dialogues of two turns with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in json_rows(path, {"instruction": str, "output": str}):
        order, reply = row["instruction"].strip(), tidy(row["output"])
        if order and reply:
            refused = _refused(reply)
            turns = (message("user", order, _order_labels(order, refused)), message("assistant", reply, _reply_labels(reply, refused)))
            yield split_by(order), dialogue(NAME, FILE, number, *turns)


def _refused(reply: str) -> float:
    if REFUSAL_OPENING.search(reply):
        return OPENS
    return SOON if DECLINES.search(reply[:OPENING_CHARACTERS]) and not ANSWERS_NO.match(reply) else 0.0


def _reply_labels(reply: str, refused: float) -> Labels:
    labels = {"compliance": 0.0}
    if refused:
        labels["redirection"] = refused
    return labels if OWN_FEELINGS.search(reply) else {**labels, "distress": 0.0}


def _order_labels(order: str, refused: float) -> Labels:
    if WEIGHS.match(order):
        return undecided()
    return asks(order, 0.8) if refused and harmful_words(order) else undecided()
