"""Taskmaster-4: people order coffee from an assistant, in a few turns.

Upstream: google-research-datasets/Taskmaster. Licence: CC BY 4.0. One shard, no official split: hash of the first turn.

Mapped: harmless user turns, screened; plain answers. Where the assistant says that it can only help with coffee and tea, that is a
`redirection`.

Left out: labels in doubt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from lastresort.types import Message, Role

from ._chats import harmless_chat, turns_of
from ._texts import PROMPTS
from .base import Counts, SplitDialogue, dialogue, merge_repeats, message, read_jsonl, refusal, require, split_by

NAME = "taskmaster4"
FILE = "data_07.slim.jsonl.gz"
EXPECTED = Counts(train=185, validation=25, positives={"redirection": 1})

ROLES: Mapping[str, Role] = {"user": "user", "assistant": "assistant"}
OFF_TOPIC = re.compile(
    r"\b(?:only (?:help|assist)|can ?not help|can'?t help|not able to (?:help|assist)|(?:only|just) (?:a |an )?\w+ (?:bar|assistant"
    r"|bot))\b",
    re.IGNORECASE,
)


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields whole conversations with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_jsonl(path, {"utterances": list}):
        messages = harmless_chat(turns_of(row, "utterances", ("speaker", "text"), ROLES, f"{path}: row {number}"), PROMPTS)
        if messages:
            yield split_by(messages[0].content), dialogue(NAME, FILE, number, *map(_off_topic, messages))


def _off_topic(turn: Message) -> Message:
    if turn.role == "assistant" and OFF_TOPIC.search(turn.content):
        return message("assistant", turn.content, refusal(turn.content))
    return turn
