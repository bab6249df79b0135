"""AlpacaEval: answers of four models to 805 harmless instructions.

Upstream: tatsu-lab/alpaca_eval. Licence: CC BY-NC 4.0. No official split: hash of the instruction.

Mapped: one plain answer to each instruction, the model chosen by hash; the instructions are harmless, screened as prompts. Answers that
open like a refusal (of something harmless) are kept in addition, as refusals; their instructions carry no labels, so that no text counts
twice.

Left out: the other answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ._chats import refused
from ._texts import PROMPTS, answer, tidy, user
from .base import REFUSAL_OPENING, Counts, SplitDialogue, dialogue, merge_repeats, message, read_jsonl, require, split_by

NAME = "alpaca_eval_outputs"
FILE = "model_outputs.jsonl.gz"
EXPECTED = Counts(train=733, validation=130, positives={"redirection": 40})


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields dialogues of two turns with their split."""
    yield from merge_repeats(_dialogues(require(folder, FILE)))


def _dialogues(path: Path) -> Iterator[SplitDialogue]:
    plain: dict[str, list[tuple[str, int, dict[str, Any]]]] = {}
    for number, row in read_jsonl(path, {"model": str, "instruction": str, "output": str}):
        asked, reply = row["instruction"].strip(), row["output"].strip()
        if not asked or not reply:
            continue
        if REFUSAL_OPENING.search(reply):
            turns = message("user", tidy(asked)), message("assistant", tidy(reply), refused(reply))
            yield split_by(asked), dialogue(NAME, FILE, number, *turns)
        else:
            rank = hashlib.sha256(f"{row['model']} {asked}".encode()).hexdigest()
            plain.setdefault(asked, []).append((rank, number, row))
    for asked, rows in plain.items():
        _, number, row = min(rows, key=lambda ranked: ranked[:2])
        turn = user(asked, PROMPTS)
        yield split_by(asked), dialogue(NAME, FILE, number, turn, answer(row["output"], turn))
