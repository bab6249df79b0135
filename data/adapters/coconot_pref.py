"""CoCoNot, preference part: prompts that look like what one should refuse and are harmless, with a good answer and one that is often too careful.

Upstream: allenai/noncompliance. Licence: MIT (repository); ODC-BY on the data card. No official split: hash of the prompt. The two
evaluation files are held out.

Mapped: prompts are harmless whatever their words; only `self_harm_risk`, `sexual_content`, `violence` and `end_request` are unknown where
words put them in doubt. The chosen answer is a plain answer. A rejected answer is kept where it opens like a refusal and says that it
cannot or will not: a wrong refusal is a `redirection` too; the prompt of that second dialogue carries no labels, so that no text counts
twice.

Left out: all other rejected answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ._chats import refused
from ._texts import CRISIS, LEAVE, LEWD_PUBLISHED, VIOLENCE, answer, tidy, user
from .base import (
    OPENING_CHARACTERS,
    REFUSAL_ANYWHERE,
    REFUSAL_OPENING,
    Counts,
    SplitDialogue,
    dialogue,
    merge_repeats,
    message,
    read_jsonl,
    require,
    split_by,
)

NAME = "coconot_pref"
FILE = "coconot_pref.jsonl.gz"
EXPECTED = Counts(train=839, validation=146, positives={"redirection": 31})

SCREENS = (CRISIS, LEWD_PUBLISHED, VIOLENCE, LEAVE)


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields dialogues of two turns with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for _, row in read_jsonl(path, {"id": str, "prompt": str, "chosen": str, "rejected": str}):
        prompt, rejected = row["prompt"].strip(), row["rejected"].strip()
        if prompt and row["chosen"].strip():
            asked = user(prompt, SCREENS)
            yield split_by(prompt), dialogue(NAME, FILE, row["id"], asked, answer(row["chosen"], asked))
        if prompt and REFUSAL_OPENING.search(rejected) and REFUSAL_ANYWHERE.search(rejected[:OPENING_CHARACTERS]):
            turns = message("user", tidy(prompt)), message("assistant", tidy(rejected), refused(rejected))
            yield split_by(prompt), dialogue(NAME, FILE, row["id"], *turns)
