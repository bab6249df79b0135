"""What the memory buys: the same run with its memory carried and with it zeroed before every turn, and beside it a run that reads the last turns as text.

lastresort ablate-memory runs/release-hard work/mixture/validation.jsonl --text-run runs/text-window
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lastresort.data import read_dialogues
from lastresort.encoding import TurnEncoder
from lastresort.metrics import average_precision
from lastresort.types import Dialogue

from . import card
from .data import UNKNOWN, encode_dialogues
from .leave_out import logits_of
from .train import TOKENIZER, load_run


@dataclass(frozen=True)
class Side:
    """One way to know the past.

    Attributes:
        name: of it.
        precision: (label, source or "all") to average precision, where both classes occur.
        tokens: read for a turn, on average.
    """

    name: str
    precision: dict[tuple[str, str], float]
    tokens: float


def zeroed(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each turn as a dialogue of its own: the memory is empty before it."""
    for row in rows:
        for turn, (role, labels) in enumerate(zip(row["roles"], row["labels"], strict=True)):
            ids = [window for window, place in zip(row["ids"], row["turn"], strict=True) if place == turn]
            yield {**row, "ids": ids, "turn": [0] * len(ids), "roles": [role], "labels": [labels]}


def side(name: str, run: Path, dialogues: Sequence[Dialogue], labels: Sequence[str], *, memory: bool = True) -> Side:
    """Measures one way. Raises `ConfigError` for an unfinished run."""
    model, config, _ = load_run(run)
    rows = list(encode_dialogues(dialogues, TurnEncoder.from_file(run / TOKENIZER, config.encoding), config))
    rows = rows if memory else list(zeroed(rows))
    logits, targets = logits_of(model, rows, len(config.labels))
    sources = np.array([row["source"] for row in rows for _ in row["roles"]])
    precision = {}
    for label in labels:
        column = [one.name for one in config.labels].index(label)
        for source in ("all", *sorted(set(sources))):
            chosen = (targets[:, column] != UNKNOWN) & ((sources == source) | (source == "all"))
            hard = (targets[chosen, column] >= 0.5).astype(np.float64)
            if 0 < hard.sum() < len(hard):
                precision[label, str(source)] = average_precision(hard, logits[chosen, column].astype(np.float64))
    turns = sum(len(row["roles"]) for row in rows)
    return Side(name, precision, sum(len(ids) for row in rows for ids in row["ids"]) / max(1, turns))


def table(sides: Sequence[Side], wanted: Sequence[tuple[str, str]]) -> str:
    """The sides as Markdown."""
    header = ["label", "source", *(f"AP {one.name}" for one in sides)]
    lines = [[f"`{key[0]}`", key[1], *(f"{one.precision[key]:.3f}" if key in one.precision else "–" for one in sides)] for key in wanted]
    return card.table(header, [*lines, ["tokens read for a turn", "", *(f"{one.tokens:.0f}" for one in sides)]])


def ablate_memory(run: Path, data: Path, text_run: Path | None, labels: Sequence[str], most: int) -> str:
    """The table of carried, zeroed and, if there is one, the run that reads the last turns as text."""
    dialogues = [one for one, _ in zip(read_dialogues(data), range(most), strict=False)]
    sides = [side("memory carried", run, dialogues, labels), side("memory zeroed", run, dialogues, labels, memory=False)]
    if text_run is not None:
        sides.append(side("last turns as text", text_run, dialogues, labels))
    wanted = [(label, "all") for label in labels]
    wanted += sorted({key for one in sides for key in one.precision if key[1] in ("composed", "written", "convabuse", "diasafety")})
    return table(sides, wanted)
