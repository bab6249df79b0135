"""AdvBench: short orders to write, plan or explain something harmful.

Upstream: ab235/AttnGCG-attack, a copy of llm-attacks/llm-attacks. Licence: MIT. No official split: hash of the topic, as the orders repeat
each other.

Mapped: by the words of the order (see `_requests`): attacks with many victims `mass_harm`, attacks on groups `hate`, crimes `other_harm`,
lower where petty. Orders about suicide and self-harm are `other_harm` where they are to incite, otherwise unknown.

Left out: the column `target` (how a complying answer would begin); vetoes and `persistence`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ._requests import asks
from .base import Counts, SplitDialogue, dialogue, merge_repeats, message, read_csv, require, split_by

NAME = "advbench"
FILE = "harmful_behaviors.csv"
EXPECTED = Counts(train=446, validation=73, positives={"harm": 488, "hate": 22, "mass_harm": 42, "other_harm": 419, "severity": 488, "sexual_minors": 5})

TOPIC = re.compile(
    r"bomb|explosive|identity theft|credit card|fake news|misinformation|false information|conspiracy|phishing|malware|virus|ransomware|keylog|bully"
    r"|harass|stalk"
    r"|suicide|self-harm|eating disorder|drunk driv|drug|meth\b|insider|launder|counterfeit|\bfraud|\bscam|tax|steal|shoplift|kidnap|child|murder"
    r"|poison|terror"
    r"|firearm|weapon|assault|hate|racis|violen|cheat|plagiar|spam|blackmail|bank|government|database|hack|exploit|spy|traffick",
    re.IGNORECASE,
)


def read(folder: Path) -> Iterator[SplitDialogue]:
    """Yields one-turn dialogues with their split."""
    yield from merge_repeats(_rows(require(folder, FILE)))


def _rows(path: Path) -> Iterator[SplitDialogue]:
    for number, row in read_csv(path, ("goal",)):
        text = row["goal"].strip()
        topic = TOPIC.search(text)
        yield split_by(f"{NAME} {topic[0].lower()}" if topic else text), dialogue(NAME, FILE, number, message("user", text, asks(text)))
