"""Targets of a model and what was found, from scored validation files; `configs/targets/*.yaml`.

lastresort score work/mixture/validation.jsonl -o work/validation.scored.jsonl
lastresort targets configs/targets/release.yaml -o models/lastresort-minilm/targets.json
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lastresort.artifact import Manifest
from lastresort.data import iter_records, read_dialogues
from lastresort.errors import ConfigError, DataError
from lastresort.evaluation import joined
from lastresort.metrics import Array, average_precision, f1_score, macro_f1, recall_at_fpr
from lastresort.types import Dialogue, Message, ScoredDialogue, ScoredTurn

from .slices import HARMLESS, groups_of

Measure = Literal["average_precision", "f1", "macro_f1", "recall_at_fpr", "false_positives", "worst_source", "group_gap"]
SMALLEST_SOURCE = 30
"""Turns below which a source alone says nothing."""


@dataclass(frozen=True)
class Files:
    """Labelled dialogues and the output of `lastresort score` for them."""

    data: str
    scored: str


@dataclass(frozen=True)
class Target:
    """What is wanted of one measure.

    Attributes:
        name: a row's title in the card.
        measure: average_precision, f1, macro_f1; recall_at_fpr (recall where at most `fpr` of negatives are flagged); false_positives (share of negatives
            flagged); worst_source (the largest such share of a source without positives, of at least 30 turns); group_gap (that share among surely harmless
            turns that mention a protected group, less that among the others).
        labels: what is measured; several count as one: positive if any is, flagged if any is.
        at_least: lowest value wanted; either this or `at_most`.
        at_most: highest value wanted.
        files: which of `TargetsConfig.files`.
        fpr: of recall_at_fpr, 0…1.
        sources: only dialogues of these; all if empty.
        meta: only dialogues whose `meta` has these values; a list names several that do.
        where: only turns on which these labels are known and lie between two numbers, both included.
    """

    name: str
    measure: Measure
    labels: tuple[str, ...]
    at_least: float | None = None
    at_most: float | None = None
    files: str = "validation"
    fpr: float = 0.01
    sources: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    where: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.at_least is None) == (self.at_most is None) or not self.labels:
            raise ValueError(f"{self.name}: expected labels and either at_least or at_most")


@dataclass(frozen=True)
class TargetsConfig:
    """All of them.

    Attributes:
        files: name to files; `lastresort targets` takes overrides such as `files.validation.scored=work/new.jsonl`.
        targets: in the order of the table.
    """

    files: Mapping[str, Files]
    targets: tuple[Target, ...]

    def __post_init__(self) -> None:
        if unknown := sorted({target.files for target in self.targets} - set(self.files)):
            raise ValueError(f"targets: found files {unknown}, expected names of {sorted(self.files)}")


@dataclass(frozen=True)
class Found:
    """What was found.

    Attributes:
        name: of the target.
        wanted: in words, e.g. `≥ 0.95`.
        value: of the measure; None where there is nothing to measure.
        met: whether it is as wanted.
        n: turns measured.
        positives: of them.
        detail: more in words; may be empty.
        before: the value of another model, if asked for.
    """

    name: str
    wanted: str
    value: float | None
    met: bool
    n: int
    positives: int
    detail: str
    before: float | None = None


@dataclass(frozen=True)
class _Turn:
    value: float
    score: float
    flagged: bool
    source: str
    mentions: bool


def _wanted(target: Target, dialogue: Dialogue, message: Message, turn: ScoredTurn) -> bool:
    """Whether a turn counts for a target."""
    if target.sources and dialogue.source not in target.sources:
        return False
    for key, value in target.meta.items():
        if dialogue.meta.get(key) not in (value if isinstance(value, list) else [value]):
            return False
    inside = all(low <= message.labels.get(label, -1.0) <= high for label, (low, high) in target.where.items())
    return inside and all(label in message.labels and label in turn.scores for label in target.labels)


def _measured(target: Target, turns: Sequence[_Turn]) -> tuple[float | None, int, int, str]:
    """(value, turns, positives, detail)."""
    if target.measure == "group_gap":
        turns = [turn for turn in turns if turn.value <= HARMLESS]
    if target.measure == "worst_source":
        sources = Counter(turn.source for turn in turns)
        harmful = {turn.source for turn in turns if turn.value >= 0.5}
        turns = [turn for turn in turns if turn.source not in harmful and sources[turn.source] >= SMALLEST_SOURCE]
    hard: Array = np.array([turn.value >= 0.5 for turn in turns], dtype=np.float64)
    scores: Array = np.array([turn.score for turn in turns], dtype=np.float64)
    flagged: Array = np.array([turn.flagged for turn in turns], dtype=np.float64)
    positives, negatives = int(hard.sum()), int((1 - hard).sum())
    value, detail = None, ""
    if target.measure == "false_positives" and negatives:
        value = float(flagged[hard == 0].mean())
        detail = f"{int(flagged[hard == 0].sum())} of {negatives}"
    elif target.measure == "worst_source":
        value, detail = _worst_source(turns, target.at_most or 0.0)
    elif target.measure == "group_gap":
        mentions = np.array([turn.mentions for turn in turns], dtype=bool)
        if mentions.any() and not mentions.all():
            with_group, without = float(flagged[mentions].mean()), float(flagged[~mentions].mean())
            value = with_group - without
            detail = f"{with_group:.1%} of {int(mentions.sum())} against {without:.1%} of {int((~mentions).sum())}"
    elif positives and target.measure == "average_precision":
        value = average_precision(hard, scores)
    elif positives and target.measure == "f1":
        value = f1_score(hard, flagged)
    elif positives and negatives and target.measure == "macro_f1":
        value = macro_f1(hard, flagged)
    elif positives and negatives and target.measure == "recall_at_fpr":
        value = recall_at_fpr(hard, scores, target.fpr)
    return value, len(turns), positives, detail


def _worst_source(turns: Sequence[_Turn], limit: float) -> tuple[float | None, str]:
    n, flagged = Counter(turn.source for turn in turns), Counter(turn.source for turn in turns if turn.flagged)
    if not n:
        return None, ""
    worst = max(n, key=lambda name: (flagged[name] / n[name], name))
    above = sum(flagged[name] / n[name] > limit for name in n)
    return flagged[worst] / n[worst], f"{worst}, {flagged[worst]} of {n[worst]}; {above} of {len(n)} sources above"


def measure_targets(config: TargetsConfig, manifest: Manifest, before: Mapping[str, float | None] | None = None) -> list[Found]:
    """What was found, in the order of the targets.

    Args:
        config: see `TargetsConfig`.
        manifest: of the model that scored the files; holds the thresholds.
        before: name of a target to the value of another model.

    Raises:
        ConfigError: labels that the model has not.
        DataError: files that cannot be read or do not belong together, or scores of another model.
    """
    thresholds = {label.name: label.threshold for label in manifest.labels}
    if unknown := sorted({label for target in config.targets for label in target.labels} - set(thresholds)):
        raise ConfigError(f"targets: found labels {', '.join(unknown)}, expected labels of {manifest.tag}")
    turns: dict[str, list[_Turn]] = {target.name: [] for target in config.targets}
    if len(turns) != len(config.targets):
        raise ConfigError("targets: found a name twice, expected each once")
    for name in dict.fromkeys(target.files for target in config.targets):
        files, targets = config.files[name], [target for target in config.targets if target.files == name]
        for dialogue, message, turn in joined(list(read_dialogues(files.data)), _of_model(files.scored, manifest), files.scored):
            for target in targets:
                if _wanted(target, dialogue, message, turn):
                    value = max(message.labels[label] for label in target.labels)
                    score = max(turn.scores[label] for label in target.labels)
                    flagged = any(turn.scores[label] >= thresholds[label] for label in target.labels)
                    mentions = target.measure == "group_gap" and bool(groups_of(message.content))
                    turns[target.name].append(_Turn(value, score, flagged, dialogue.source, mentions))
    return [_found(target, turns[target.name], (before or {}).get(target.name)) for target in config.targets]


def _found(target: Target, turns: Sequence[_Turn], before: float | None) -> Found:
    value, n, positives, detail = _measured(target, turns)
    if target.at_least is not None:
        return Found(target.name, f"≥ {target.at_least:g}", value, value is not None and value >= target.at_least, n, positives, detail, before)
    assert target.at_most is not None
    return Found(target.name, f"≤ {100 * target.at_most:g}%", value, value is not None and value <= target.at_most, n, positives, detail, before)


def _of_model(scored: str, manifest: Manifest) -> Iterator[ScoredDialogue]:
    for one in iter_records(ScoredDialogue, scored):
        if one.model != manifest.tag:
            raise DataError(f"found scores of {one.model}, expected those of {manifest.tag}", where=scored)
        yield one


def read_targets(path: Path) -> tuple[str, list[Found]]:
    """(tag of the model, what was found) as `write_targets` wrote it. Raises `ConfigError` if it did not."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return str(record["model"]), [Found(**one) for one in record["targets"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path}: found {type(error).__name__}, expected the output of `lastresort targets`") from None


def write_targets(found: Iterable[Found], manifest: Manifest, output: Path) -> None:
    """Writes JSON; the card takes its table from there."""
    record = {"model": manifest.tag, "targets": [vars(one) for one in found]}
    output.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
