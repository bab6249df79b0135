"""Topical-Chat: two people chat about sport, films, politics and other topics they have read about.

Upstream: alexa/Topical-Chat. Licence: CDLA-Sharing 1.0. Official valid_freq only: hash of the conversation.

Mapped: whoever speaks first is the user, the other the assistant. Harmless, screened as talk between people; anger and disgust are about
the topic. The other's turns are plain answers.

Left out: sentiments; labels in doubt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from lastresort.types import Role

from ._chats import harmless_chat, turns_of
from ._texts import ADDRESSED_INSULTS, CRISIS, LEAVE, LEWD_PUBLISHED, SLURS, THREATS, VIOLENCE
from .base import Counts, SplitDialogue, dialogue, merge_repeats, read_jsonl, require, split_by

NAME = "topical_chat"
FILE = "valid_freq.slim.jsonl.gz"
EXPECTED = Counts(train=449, validation=87, positives={})

SPEAKERS = ("agent_1", "agent_2")
SCREENS = (ADDRESSED_INSULTS, LEWD_PUBLISHED, SLURS, THREATS, CRISIS, VIOLENCE, LEAVE)


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields whole conversations with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_jsonl(path, {"id": str, "content": list}):
        messages = harmless_chat(turns_of(row, "content", ("agent", "message"), _roles(row["content"]), f"{path}: row {number}"), SCREENS)
        if messages:
            yield split_by(f"{NAME} {row['id']}"), dialogue(NAME, FILE, row["id"], *messages)


def _roles(turns: list[object]) -> Mapping[str, Role]:
    first = turns[0].get("agent") if turns and isinstance(turns[0], dict) else SPEAKERS[0]
    return {speaker: "user" if speaker == first else "assistant" for speaker in SPEAKERS}
