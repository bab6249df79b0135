"""ESConv: people in distress talk with volunteers who try to support them; failed conversations, and the development split.

Upstream: thu-coai/Emotional-Support-Conversation. Licence: CC BY-NC 4.0. The failed ones are for training, the development split for
validation; test held out.

Mapped: the seeker is the user, the supporter the assistant. Harmless, screened; `self_harm_risk` is unknown where there are crisis words or
veiled signs (loneliness, hopelessness), as nobody asked. Supporters' turns are plain answers. The development file is a sliding window over
each conversation, which is put together again by the numbers of its turns.

Left out: strategies, feedback, emotions; a supporter's words before the seeker speaks; all after 40 messages.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from lastresort.data import open_input
from lastresort.errors import DataError
from lastresort.types import Role

from ._chats import Turn, harmless_chat, json_rows, turns_of
from ._texts import ADDRESSED_INSULTS, CRISIS, LEAVE, LEWD_PUBLISHED, SLURS, THREATS, VEILED_CRISIS, VIOLENCE
from .base import Counts, Split, SplitDialogue, dialogue, merge_repeats, require

NAME = "esconv"
FAILED_FILE = "FailedESConv.json.gz"
WINDOW_FILE = "devWithStrategy_short.tsv.gz"
EXPECTED = Counts(train=188, validation=211, positives={})

ROLES: Mapping[str, Role] = {"speaker": "user", "listener": "assistant"}
ROLE_NUMBERS: Mapping[str, Role] = {"0": "user", "1": "assistant"}
SCREENS = (ADDRESSED_INSULTS, LEWD_PUBLISHED, SLURS, THREATS, CRISIS, VEILED_CRISIS, VIOLENCE, LEAVE)
TURN_END = re.compile(r"\s*\bEOS\b\s*")
TURN = re.compile(r"[\d.]+ ([01]) (\d+) (?:\[[\w -]+\] ?)?(.*)", re.DOTALL)


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields whole conversations with their split."""
    failed, windows = require(folder, FAILED_FILE), require(folder, WINDOW_FILE)
    yield from merge_repeats([*_chats(_failed(failed), FAILED_FILE, "train"), *_chats(_windows(windows), WINDOW_FILE, "validation")])


def _chats(chats: Iterator[tuple[int, list[Turn]]], file: str, split: Split) -> Iterator[SplitDialogue]:
    for number, turns in chats:
        messages = harmless_chat(turns, SCREENS)
        if messages:
            yield split, dialogue(NAME, file, number, *messages)


def _failed(path: Path) -> Iterator[tuple[int, list[Turn]]]:
    for number, row in json_rows(path, {"dialog": list}):
        yield number, turns_of(row, "dialog", ("speaker", "content"), ROLES, f"{path}: row {number}")


def _windows(path: Path) -> Iterator[tuple[int, list[Turn]]]:
    """Row and turns of each conversation; a new one begins where the last turn of a window has a lower number than that of the window before."""
    chat: dict[int, Turn] = {}
    first = 0
    with open_input(path) as (stream, name), io.TextIOWrapper(stream, encoding="utf-8") as lines:
        for row, line in enumerate(lines):
            window = dict(_turn(part, f"{name}:{row + 1}") for part in TURN_END.split(line.strip()) if part)
            if chat and window and max(window) <= max(chat):
                yield first, [chat[number] for number in sorted(chat)]
                chat, first = {}, row
            chat.update(window)
    if chat:
        yield first, [chat[number] for number in sorted(chat)]


def _turn(part: str, where: str) -> tuple[int, Turn]:
    match = TURN.fullmatch(part)
    if match is None:
        raise DataError("expected turns like '1.0 0 3 text', with EOS between them", where=where)
    return int(match[2]), (ROLE_NUMBERS[match[1]], match[3])
