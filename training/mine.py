"""A round of hard-example mining: a trained model scores what the mixture left aside, and what it gets wrong is added.

    lastresort mine runs/release configs/data/wide.yaml --mixture work/mixture -o work/mined.jsonl

The worst errors of all are left out: among them are the labels that are wrong themselves.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lastresort.data import read_dialogues, write_dialogues
from lastresort.encoding import TurnEncoder
from lastresort.types import Dialogue
from lastresort_data.compose import read_config, real
from lastresort_data.material import rank

from .data import UNKNOWN, encode_dialogue
from .leave_out import logits_of
from .train import TOKENIZER, load_run

ERROR = (0.5, 0.97)
"""Errors of a probability that are worth learning from: above, but not so far above that the label is the likelier culprit."""
CHUNK = 512


def pool(mixture_config: Path, prepared: Path, mixture: Path, most: int, seed: int) -> list[Dialogue]:
    """Training dialogues of the mixture's sources that its caps left aside; a seeded choice of at most `most`."""
    config = read_config(mixture_config)
    used = {one.id for one in read_dialogues(mixture / "train.jsonl")}
    uncapped = replace(config, sources={name: replace(one, cap=None) for name, one in config.sources.items() if not one.as_is})
    rest = (one for one in real(uncapped, prepared, "train") if one.id not in used)
    return sorted(rest, key=lambda one: rank(seed, "mine", one.id))[:most]


def errors_of(run: Path, dialogues: list[Dialogue], label: str) -> Iterator[tuple[Dialogue, float]]:
    """Each dialogue with its largest error of `label`, signed: above 0 it fired wrongly, below 0 it missed."""
    model, config, _ = load_run(run)
    column = [one.name for one in config.labels].index(label)
    encoder = TurnEncoder.from_file(run / TOKENIZER, config.encoding)
    names = [(one.name, one.speaker) for one in config.labels]
    scale, bias = float(model.calibration_scale[column]), float(model.calibration_bias[column])
    for start in range(0, len(dialogues), CHUNK):
        chunk = dialogues[start : start + CHUNK]
        rows: list[dict[str, Any]] = []
        owner: list[int] = []
        for place, one in enumerate(chunk):
            for row in encode_dialogue(one, encoder, names, config.data):
                rows.append(row)
                owner += [place] * len(row["roles"])
        logits, labels = logits_of(model, rows, len(names))
        probability = 1 / (1 + np.exp(-(scale * logits[:, column] + bias)))
        worst: dict[int, float] = {}
        for place, value, wanted in zip(owner, probability, labels[:, column], strict=True):
            if wanted != UNKNOWN and abs(value - wanted) > abs(worst.get(place, 0.0)):
                worst[place] = float(value - wanted)
        yield from ((chunk[place], error) for place, error in worst.items())


def mine(
    run: Path, mixture_config: Path, prepared: Path, mixture: Path, output: Path, *, label: str, most: int, pool_most: int, source_share: float
) -> dict[str, int]:
    """Writes the dialogues worth adding, hardest first, at most `source_share` of `most` a source; returns how many by source and kind of error.

    Raises:
        ConfigError: an unfinished run or a mixture that cannot be read.
    """
    low, high = ERROR
    found = [(one, error) for one, error in errors_of(run, pool(mixture_config, prepared, mixture, pool_most, seed=0), label) if low <= abs(error) <= high]
    found.sort(key=lambda item: -abs(item[1]))
    counts: Counter[str] = Counter()
    chosen: list[Dialogue] = []
    sources: Counter[str] = Counter()
    for one, error in found:
        if len(chosen) < most and sources[one.source] < source_share * most:
            sources[one.source] += 1
            counts[f"{one.source}: {'fired' if error > 0 else 'missed'}"] += 1
            chosen.append(one)
    write_dialogues(chosen, output)
    output.with_suffix(".counts.json").write_text(json.dumps(dict(counts.most_common()), indent=1) + "\n", encoding="utf-8")
    return dict(counts.most_common())
