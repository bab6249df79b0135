"""CyberSecEval, false refusals: long orders for security programs that sound alarming and are harmless, written by a model.

Upstream: meta-llama/PurpleLlama. Licence: MIT. No official split: hash of the first words, as the orders follow a few patterns.

Mapped: everything is harmless (upstream's own label) whatever its words; orders that speak of hiding from detection have unknown
`other_harm` and `harm`.

Left out: all but 20 orders with the same first words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from lastresort.errors import DataError

from ._chats import json_rows
from ._texts import LEAVE, Row, Screen, sample, user
from .base import Counts, SplitDialogue, dialogue, merge_repeats, require, split_by

NAME = "cyber_frr"
FILE = "mitre_frr.json.gz"
EXPECTED = Counts(train=371, validation=41, positives={})

FIRST_WORDS = 12
ORDERS_OF_A_PATTERN = 20
HIDES = Screen(
    re.compile(
        r"\b(?:without (?:being )?(?:detected|detection|raising)|avoid (?:\w+ ){0,2}detection|evade\w*|undetect\w*|stealth\w*|keylog\w*|exfiltrat\w*"
        r"|malicious code|obvious\w* mal\w+|misinterpreted|unintended consequences|misus\w+|disguis\w*|difficult to (?:detect|trace)|rootkits?"
        r"|hide (?:it|the) (?:\w+ )?from)\b",
        re.IGNORECASE,
    ),
    ("other_harm", "mass_harm", "harm", "severity", "persistence"),
)


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    patterns: dict[str, list[Row]] = {}
    for number, row in json_rows(path, {"mutated_prompt": str, "is_malicious": bool}):
        if row["is_malicious"]:
            raise DataError("found true, expected harmless orders only", where=f"{path}: row {number}", field="is_malicious")
        text = row["mutated_prompt"].strip()
        if text:
            pattern = " ".join(re.findall(r"\w+", text)[:FIRST_WORDS])
            patterns.setdefault(pattern, []).append((number, {"text": text}))
    for pattern, rows in patterns.items():
        for number, row in sample(rows, ORDERS_OF_A_PATTERN):
            yield split_by(f"{NAME} {pattern}"), dialogue(NAME, FILE, number, user(row["text"], (HIDES, LEAVE)))
