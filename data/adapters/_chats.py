"""What adapters of conversations share: rows of JSON lists, turns that alternate, harmless chats."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lastresort.errors import DataError
from lastresort.types import Message, Role

from ._texts import Screen, answer, user
from .base import Labels, check_record, read_json, refusal

MAX_MESSAGES = 40
GOES_ON = re.compile(r"\b(?:however|but|instead),? (?:i (?:can|could)|here)\b|\bhere (?:are|is) (?:some|a)\b|^\W*1\.", re.IGNORECASE | re.MULTILINE)

Turn = tuple[Role, str]


def json_rows(path: Path, fields: Mapping[str, type | tuple[type, ...]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Numbered rows (from 0) of a JSON file that holds one list of objects. Raises `DataError`."""
    rows = read_json(path)
    if not isinstance(rows, list):
        raise DataError(f"found {type(rows).__name__}, expected a list of objects", where=str(path))
    for number, row in enumerate(rows):
        yield number, check_record(row, fields, f"{path}: row {number}")


def turns_of(row: Mapping[str, Any], field: str, keys: tuple[str, str], roles: Mapping[str, Role], where: str) -> list[Turn]:
    """The turns in list `field` of a row.

    Args:
        row: the conversation.
        field: its key for the list of turns.
        keys: the keys of a turn for speaker and text.
        roles: what each speaker is here.
        where: file and row, for errors.

    Raises:
        DataError: a turn is no object, lacks a key, or has another speaker.
    """
    turns: list[Turn] = []
    for index, turn in enumerate(row[field]):
        place = f"{where}: {field}.{index}"
        checked = check_record(turn, {keys[0]: str, keys[1]: str}, place)
        if checked[keys[0]] not in roles:
            raise DataError(f"found {checked[keys[0]]!r}, expected one of {', '.join(roles)}", where=place, field=keys[0])
        turns.append((roles[checked[keys[0]]], checked[keys[1]]))
    return turns


def alternate(turns: Iterable[Turn]) -> list[Turn]:
    """The turns, begun by the user: what one side says in a row is joined; empty turns, the assistant's first words and all after 40 messages go."""
    spoken = [(role, text.strip()) for role, text in turns if text.strip()]
    joined = [(role, "\n".join(text for _, text in group)) for role, group in itertools.groupby(spoken, key=lambda turn: turn[0])]
    start = 1 if joined and joined[0][0] == "assistant" else 0
    return joined[start : start + MAX_MESSAGES]


def refused(text: str) -> Labels:
    """Labels of an answer that opens like a refusal of something harmless; `redirection` is unknown where it goes on to help."""
    labels = refusal(text)
    return {name: value for name, value in labels.items() if name != "redirection"} if GOES_ON.search(text) else labels


def harmless_chat(turns: Iterable[Turn], screens: Iterable[Screen]) -> list[Message]:
    """A conversation with screened harmless user turns and plain answers."""
    screens = tuple(screens)
    messages: list[Message] = []
    for role, text in alternate(turns):
        messages.append(user(text, screens) if role == "user" else answer(text, messages[-1]))
    return messages
