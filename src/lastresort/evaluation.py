"""Scores joined with labels: measures by label and by source, of a model and of baselines side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .errors import DataError
from .metrics import LabelMetrics, label_metrics
from .types import Dialogue, LabelSpec, ScoredDialogue

ALL = "all"
"""Stands for every source together."""


@dataclass(frozen=True)
class Row:
    """Measures of one scorer on one label (or group of labels) and one source."""

    scorer: str
    label: str
    source: str
    metrics: LabelMetrics


def evaluate(
    dialogues: Sequence[Dialogue],
    scored: Mapping[str, Iterable[ScoredDialogue]],
    labels: Sequence[LabelSpec],
    groups: Sequence[Sequence[str]] = (),
) -> list[Row]:
    """Measures per scorer, label and source.

    Args:
        dialogues: labelled; ids unique.
        scored: scorer name to its output for the same dialogues, in any order.
        labels: what to measure, with thresholds.
        groups: sets of user or assistant labels that are also measured as one: positive if any is, flagged if any is.

    Returns:
        Rows; a label appears for a source only where it is known on some turn.

    Raises:
        DataError: an id twice, dialogues that a scorer left out, or scores of other dialogues under the same id.
    """
    known = {dialogue.id: dialogue for dialogue in dialogues}
    if len(known) != len(dialogues):
        raise DataError(f"found {len(dialogues)} dialogues with {len(known)} ids, expected each id once")
    specs = {label.name: label for label in labels}
    for group in groups:
        if unknown := [name for name in group if name not in specs]:
            raise DataError(f"group {'|'.join(group)}: found {', '.join(unknown)}, expected labels of the model")
    wanted = [(label.name,) for label in labels] + [tuple(group) for group in groups]
    rows = []
    for scorer, outputs in scored.items():
        collected: dict[tuple[tuple[str, ...], str], list[tuple[float, float, bool]]] = defaultdict(list)
        seen = set()
        for output in outputs:
            if output.id not in known:
                continue
            dialogue = known[output.id]
            if output.id in seen:
                raise DataError(f"{scorer}: found dialogue {output.id!r} twice, expected each id once")
            if [turn.role for turn in output.turns] != [message.role for message in dialogue.messages]:
                found = f"found {len(output.turns)} turns for the {len(dialogue.messages)} messages of dialogue {output.id!r}"
                raise DataError(f"{scorer}: {found}, expected one for each, of the same role")
            seen.add(output.id)
            for message, turn in zip(dialogue.messages, output.turns, strict=True):
                for names in wanted:
                    if all(name in message.labels for name in names) and all(name in turn.scores for name in names):
                        value = max(message.labels[name] for name in names)
                        score = max(turn.scores[name] for name in names)
                        flagged = any(turn.scores[name] >= specs[name].threshold for name in names)
                        for source in {ALL, dialogue.source}:
                            collected[names, source].append((value, score, flagged))
        if missing := set(known) - seen:
            raise DataError(f"{scorer}: found no scores for {len(missing)} of {len(known)} dialogues, expected one for each")
        for names in wanted:
            for source in sorted({source for group, source in collected if group == names}, key=lambda name: (name != ALL, name)):
                table = np.asarray(collected[names, source], dtype=np.float64)
                threshold = specs[names[0]].threshold if len(names) == 1 else float("nan")
                rows.append(Row(scorer, "|".join(names), source, label_metrics(table[:, 0], table[:, 1], threshold, table[:, 2])))
    return rows


def rows_to_json(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Rows as plain data; the threshold of a group (each label has its own) is null."""
    result = []
    for row in rows:
        record = asdict(row.metrics)
        if record["threshold"] != record["threshold"]:
            record["threshold"] = None
        result.append({"scorer": row.scorer, "label": row.label, "source": row.source, **record})
    return result
