"""Schema-Guided Dialogue: people book and ask through an assistant; harmless conversations, paraphrased from templates.

Upstream: google-research-datasets/dstc8-schema-guided-dialogue. Licence: CC BY-SA 4.0. A part of train only: hash of the conversation.

Mapped: harmless user turns, `end_request` unknown where they take leave; plain answers.

Left out: all but a sample of the conversations of each set of services.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from lastresort.types import Role

from ._chats import Turn, harmless_chat, turns_of
from ._texts import COMMENTS, Row, sample
from .base import Counts, SplitDialogue, dialogue, merge_repeats, read_jsonl, require, split_by

NAME = "sgd"
FILE = "sgd_train_subset.jsonl.gz"
EXPECTED = Counts(train=302, validation=50, positives={})

ROLES: Mapping[str, Role] = {"USER": "user", "SYSTEM": "assistant"}
CHATS_OF_SERVICES = 20


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields whole conversations with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    by_services: dict[str, list[Row]] = {}
    for number, row in read_jsonl(path, {"dialogue_id": str, "services": list, "turns": list}):
        turns: list[Turn] = turns_of(row, "turns", ("speaker", "utterance"), ROLES, f"{path}: row {number}")
        services = " ".join(sorted(map(str, row["services"])))
        by_services.setdefault(services, []).append((number, {"text": row["dialogue_id"], "turns": turns}))
    for rows in by_services.values():
        for number, row in sample(rows, CHATS_OF_SERVICES):
            messages = harmless_chat(row["turns"], COMMENTS)
            if messages:
                yield split_by(f"{NAME} {row['text']}"), dialogue(NAME, FILE, number, *messages)
