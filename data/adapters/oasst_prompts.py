"""OpenAssistant: prompts that volunteers wrote for an assistant, half of them with the chat so far.

Upstream: artidoro/qlora (text from OpenAssistant) and LAION-AI/Open-Assistant. Licence: Apache-2.0. No official split: hash of the first message.

Mapped: harmless user turns, screened as prompts (volunteers also wrote a few rude ones); plain answers, without labels where they open like a refusal.

Left out: languages other than English; labels that the wording leaves in doubt (see `_texts`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from lastresort.types import Message

from ._texts import PROMPTS, answer, is_english, read_texts, user
from .base import Counts, SplitDialogue, dialogue, merge_repeats, require, split_by

NAME = "oasst_prompts"
CHATS = "oa_questions.jsonl.gz"
PROMPTS_FILE = "prompt_lottery_en_250.jsonl.gz"
EXPECTED = Counts(train=548, validation=107, positives={})

ENGLISH = "en"
_NEXT_TURN = re.compile(r"\n(?:User|Assistant): ?")


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields dialogues of one to five turns with their split."""
    yield from merge_repeats([*_chats(require(folder, CHATS)), *_prompts(require(folder, PROMPTS_FILE))])


def _chats(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_texts(path, {"lang": str}):
        if row["lang"] == ENGLISH and is_english(row["text"]):
            texts = [text for text in _NEXT_TURN.split(row["text"]) if text.strip()]
            yield split_by(texts[0]), dialogue(NAME, CHATS, number, *_turns(texts))


def _turns(texts: list[str]) -> Iterator[Message]:
    # upstream's chats alternate, beginning and ending with the user
    asked = user(texts[0], PROMPTS)
    yield asked
    for index, text in enumerate(texts[1:]):
        if index % 2:
            asked = user(text, PROMPTS)
            yield asked
        else:
            yield answer(text, asked)


def _prompts(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_texts(path):
        yield split_by(row["text"]), dialogue(NAME, PROMPTS_FILE, number, user(row["text"], PROMPTS))
