"""Role-play prompts ("I want you to act as …") and system prompts: long, structured and harmless, alike in form to jailbreaks.

Upstream: cloudsandbox/awesome-chatgpt-prompts (fork of f/awesome-chatgpt-prompts) and mustvlad/ChatGPT-System-Prompts. Licence: CC0 1.0; MIT. No official
split: hash of the text.

Mapped: harmless user turns, screened as prompts: what frees the assistant of its rules, or makes it rude, leaves harm unknown.

Left out: prompts that are not English; labels that the wording leaves in doubt (see `_texts`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ._texts import PROMPTS, is_english, read_texts, user
from .base import Counts, SplitDialogue, dialogue, merge_repeats, require, split_by

NAME = "roleplay_prompts"
FILES = ("awesome_chatgpt_prompts.jsonl.gz", "system_prompts.jsonl.gz")
EXPECTED = Counts(train=798, validation=142, positives={})


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(item for file in FILES for item in _rows(require(folder, file)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_texts(path):
        if is_english(row["text"]):
            yield split_by(row["text"]), dialogue(NAME, path.name, number, user(row["text"], PROMPTS))
