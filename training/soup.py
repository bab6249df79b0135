"""Weight averaging over finished runs that share their beginning (model soups, Wortsman et al. 2022): one model, no slower than each.

lastresort soup runs/release-long runs/release-int8 -o runs/soup
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import save_file

from lastresort.encoding import TurnEncoder
from lastresort.errors import ConfigError

from .calibrate import calibrate
from .config import TrainConfig
from .data import UNKNOWN, data_digest, load_split
from .leave_out import logits_of
from .model import TurnModel
from .record import read_runs, runs_of, soup_line, write_runs
from .train import CONFIG, RUN, TOKENIZER, WEIGHTS, label_average_precision, load_run, plain


def average(models: Sequence[TurnModel], shares: Sequence[float]) -> dict[str, torch.Tensor]:
    """The weights' weighted mean, in fp32; what is no number with a fraction is the first model's. Raises `ConfigError` for weights of different shapes."""
    states = [model.state_dict() for model in models]
    shapes = [{name: tuple(value.shape) for name, value in state.items()} for state in states]
    if any(shape != shapes[0] for shape in shapes):
        raise ConfigError("soup: found weights of different names or shapes, expected runs of one network")
    result = {}
    for name, value in states[0].items():
        mixed = sum(share * state[name].double() for share, state in zip(shares, states, strict=True))
        result[name] = torch.as_tensor(mixed).to(value.dtype) if value.is_floating_point() else value
    return result


def soup(parts: Sequence[Path], output: Path, shares: Sequence[float] = ()) -> dict[str, float]:
    """Averages finished runs, calibrates on the first one's validation files anew, and writes a run folder that `export` reads.

    Args:
        parts: finished runs or model folders with weights, at least two, with the same labels and encoding.
        output: run folder to write.
        shares: weight of each part, above 0; equal if empty. Scaled to a sum of 1.

    Returns:
        Label to average precision on validation.

    Raises:
        ConfigError: fewer than two parts, shares that do not fit, or parts that do not belong together.
        DataError: validation files that cannot be read.
    """
    if len(parts) < 2:
        raise ConfigError(f"soup: found {len(parts)} run, expected at least two")
    weights = np.asarray(shares or [1.0] * len(parts), dtype=np.float64)
    if len(weights) != len(parts) or not (weights > 0).all():
        raise ConfigError(f"soup: found shares {list(shares)} for {len(parts)} runs, expected one above 0 for each")
    weights = weights / weights.sum()
    loaded = [load_run(part) for part in parts]
    model, settings, record = loaded[0]
    if any((other.labels, other.encoding) != (settings.labels, settings.encoding) for _, other, _ in loaded):
        raise ConfigError("soup: found different labels or encodings, expected runs of one network")
    model.load_state_dict(average([one for one, _, _ in loaded], weights.tolist()))
    output.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(parts[0] / TOKENIZER, output / TOKENIZER)
    encoder = TurnEncoder.from_file(output / TOKENIZER, settings.encoding)
    validation = load_split(settings.data.validation, encoder, settings, output / "cache")
    logits, targets = logits_of(model, list(validation), len(settings.labels))
    known = (targets != UNKNOWN).any(axis=1)
    logits, targets = logits[known], targets[known]
    thresholds = calibrate(model, logits, targets, UNKNOWN)
    np.savez_compressed(output / "validation.npz", logits=logits, targets=targets)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, output / WEIGHTS)
    own = replace(settings, run=replace(settings.run, output=str(output)))
    (output / CONFIG).write_text(yaml.safe_dump(plain(asdict(own)), sort_keys=False, allow_unicode=True), encoding="utf-8")
    found = label_average_precision(logits, targets, settings)
    made = _record(record, own, parts, weights.tolist(), thresholds, found)
    (output / RUN).write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    write_runs([*read_runs(parts[0]), runs_of(output, soup_line(parts, output, shares))[-1]], output)
    return found


def _record(
    record: dict[str, Any], settings: TrainConfig, parts: Sequence[Path], shares: Sequence[float], thresholds: Sequence[float], found: dict[str, float]
) -> dict[str, Any]:
    """`run.json`: what is true of the first part's training, and what was measured anew."""
    kept = {key: record[key] for key in ("base", "processes", "train_digest", "label_counts", "versions")}
    return {
        "soup": {part.name: round(share, 6) for part, share in zip(parts, shares, strict=True)},
        **kept,
        "validation_digest": data_digest(settings.data.validation),
        "thresholds": {label.name: value for label, value in zip(settings.labels, thresholds, strict=True)},
        "validation_ap": found,
        "history": [],
    }
