"""What a quantised graph costs in quality: the gate that it must pass to be shipped."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lastresort.batch import score_dialogues
from lastresort.conversation import Monitor
from lastresort.metrics import average_precision
from lastresort.types import Dialogue, ScoredDialogue

MOST_LOST = 0.003
"""Of any label's average precision."""
MOST_FLIPPED = 0.003
"""Share of conversations that are called otherwise, or end elsewhere."""


def most_lost(average_precision: Mapping[str, Sequence[float]]) -> tuple[str, float]:
    """Of label to (full, quantised): the label that loses most, and how much."""
    return max(((name, full - small) for name, (full, small) in average_precision.items()), key=lambda item: item[1], default=("no label", 0.0))


@dataclass(frozen=True)
class Cost:
    """A quantised model against the full one on the same dialogues.

    Attributes:
        conversations: how many were compared.
        turns: scored turns in them.
        flipped: conversations whose call or whose end differs.
        reasons: turns whose decision has another reason.
        largest: largest difference of a score, 0…1.
        average_precision: label to (full, quantised); labels with both classes.
    """

    conversations: int
    turns: int
    flipped: int
    reasons: int
    largest: float
    average_precision: dict[str, tuple[float, float]]

    @property
    def lost(self) -> tuple[str, float]:
        """The label that loses most average precision, and how much."""
        return most_lost(self.average_precision)

    def failures(self) -> list[str]:
        """What stands against shipping it; empty if nothing does."""
        name, lost = self.lost
        found = [f"{name} loses {lost:.4f} of average precision, expected at most {MOST_LOST}"] if lost > MOST_LOST else []
        if self.flipped > MOST_FLIPPED * self.conversations:
            found.append(f"{self.flipped} of {self.conversations} conversations are decided otherwise, expected at most {MOST_FLIPPED:.1%}")
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain data, for the manifest."""
        pairs = {name: [round(value, 6) for value in both] for name, both in self.average_precision.items()}
        counts = {"conversations": self.conversations, "turns": self.turns, "flipped": self.flipped, "reasons": self.reasons}
        return {**counts, "largest_difference": self.largest, "average_precision": pairs}


def gate(full: Monitor, small: Monitor, dialogues: Iterable[Dialogue]) -> Cost:
    """Scores `dialogues` with both models, each turn a run of its own as at serving, so nothing depends on a batch. Raises `ScoringError`."""
    known = list(dialogues)
    return cost(known, score_dialogues(full, known), score_dialogues(small, known))


def cost(dialogues: Sequence[Dialogue], full: Iterable[ScoredDialogue], small: Iterable[ScoredDialogue]) -> Cost:
    """What `small` costs against `full`; the same dialogues in the same order, labelled as far as they are."""
    truth: dict[str, list[tuple[bool, float, float]]] = defaultdict(list)
    turns = flipped = reasons = 0
    largest = 0.0
    for dialogue, ours, theirs in zip(dialogues, full, small, strict=True):
        flipped += (ours.call, ours.ended_at) != (theirs.call, theirs.ended_at)
        for one, other in zip(ours.turns, theirs.turns, strict=True):
            labels = dialogue.messages[one.index].labels
            turns += bool(one.scores)
            reasons += one.decision is not None and other.decision is not None and one.decision.reason != other.decision.reason
            for name, score in one.scores.items():
                largest = max(largest, abs(score - other.scores[name]))
                if name in labels:
                    truth[name].append((labels[name] >= 0.5, score, other.scores[name]))
    precision = {}
    for name, rows in truth.items():
        hard, scores, quantised = (np.asarray(column, dtype=np.float64) for column in zip(*rows, strict=True))
        if 0 < hard.sum() < len(hard):
            precision[name] = (average_precision(hard, scores), average_precision(hard, quantised))
    return Cost(len(dialogues), turns, flipped, reasons, largest, precision)
