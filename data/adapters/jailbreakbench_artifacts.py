"""JailbreakBench artifacts: answers of attacked models to about 100 harmful goals, judged by a language model and partly by Llama Guard.

Upstream: JailbreakBench/artifacts. Licence: MIT. No official split: hash of the goal (the same goals are in `refusal_direction`, which splits alike).

Mapped: dialogues of goal (in place of the attack string, which no person would write) and answer. Jailbroken by both judges, or by the one
asked: `compliance` 0.9; by the first only: 0.7; `redirection` 0, or unknown where the answer opens with a refusal. Not jailbroken and refusing
in words: `redirection` 1, `compliance` 0; not jailbroken without such words (off the point, diluted): `compliance` 0, `redirection` unknown.

Left out: answers that only Llama Guard finds harmful; labels for the goals (they are in `refusal_direction`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .base import REFUSAL_OPENING, Counts, Labels, SplitDialogue, dialogue, harmful_answer, merge_repeats, message, read_jsonl, refusal, require, split_by

NAME = "jailbreakbench_artifacts"
FILE = "artifacts.jsonl.gz"
EXPECTED = Counts(train=1183, validation=228, positives={"compliance": 878, "redirection": 429})

FIELDS: Mapping[str, type | tuple[type, ...]] = {"goal": str, "response": str, "jailbroken": bool, "jailbroken_llama_guard1": (bool, type(None))}


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields goal-and-answer dialogues with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_jsonl(path, FIELDS):
        labels = _answer_labels(row)
        if row["response"].strip() and labels:
            messages = message("user", row["goal"]), message("assistant", row["response"], labels)
            yield split_by(row["goal"]), dialogue(NAME, FILE, number, *messages)


def _answer_labels(row: Mapping[str, Any]) -> Labels | None:
    text, guard = row["response"], row["jailbroken_llama_guard1"]
    if row["jailbroken"]:
        return harmful_answer(text, compliance=0.7 if guard is False else 0.9)
    if guard:
        return None
    return refusal(text) if REFUSAL_OPENING.search(text) else {"compliance": 0.0}
