"""How well a recipe does on sources it has never seen: train without them, then measure on them.

Each group of sources is left out together, which is stricter than one at a time and needs fewer runs. A mixture that holds none of a group's sources serves
that group with its plain run. Runs are kept in `output` and resumed, so an interrupted comparison goes on where it was.

    lastresort leave-out configs/leave-out/width.yaml
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lastresort.config import read_settings
from lastresort.data import read_dialogues
from lastresort.encoding import TurnEncoder
from lastresort.errors import ConfigError
from lastresort.metrics import average_precision, recall_at_fpr
from lastresort.types import Dialogue
from lastresort_data.compose import ComposeConfig, read_config, write_mixture
from lastresort_data.material import split_file

from . import card
from .config import TrainConfig
from .data import UNKNOWN, DialogueCollator, encode_dialogues
from .model import TurnModel
from .train import RUN, TOKENIZER, load_run, train

NAME = "left out: written by `lastresort leave-out`"
"""Of the block in a page."""
MEASURED = "unseen.json"
"""In a run's folder: what was measured there on left-out sources."""
TURN_BATCH = 16
"""Dialogues a forward pass."""


@dataclass(frozen=True)
class Variant:
    """One side of the comparison.

    Attributes:
        mixture: `configs/data/*.yaml`.
        scale: factor on every cap and every number of composed dialogues, so that sides of different size compare at equal cost; above 0.
        overrides: `key=value` changes of the recipe.
    """

    mixture: str
    scale: float = 1.0
    overrides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"scale: found {self.scale}, expected a number above 0")


@dataclass(frozen=True)
class LeaveOutSettings:
    """A comparison on unseen sources; `configs/leave-out/*.yaml`.

    Attributes:
        recipe: `configs/train/*.yaml`; its data and output are replaced.
        prepared: folder made by `lastresort data prepare` (or `clean`).
        output: folder for mixtures, runs and `result.json`.
        groups: name to the sources that are left out together.
        variants: name to mixture and changes.
        label: what is measured.
        most: dialogues of a source that are scored.
        recall: the in-domain recall that sets the threshold, 0…1.
        page: Markdown page whose block is renewed; null for none.
    """

    recipe: str
    prepared: str
    output: str
    groups: Mapping[str, tuple[str, ...]]
    variants: Mapping[str, Variant]
    label: str = "harm"
    most: int = 600
    recall: float = 0.9
    page: str | None = None


@dataclass(frozen=True)
class Unseen:
    """Measures on one left-out source, of one label.

    Attributes:
        n: turns that know the label.
        positives: of them, with a label of at least 0.5.
        average_precision: None without both classes.
        false_positives: share of the others at or above the in-domain threshold, 0…1; None without any.
        recall_at_1_fpr: None without both classes.
    """

    n: int
    positives: int
    average_precision: float | None
    false_positives: float | None
    recall_at_1_fpr: float | None


def reduced(config: ComposeConfig, prepared: Path, left_out: Iterable[str], scale: float) -> ComposeConfig:
    """The mixture without some sources and with every cap and count scaled; a source without a cap is scaled by its size."""
    gone = set(left_out)
    sources = {}
    for name, one in config.sources.items():
        if name not in gone and scale < 1 and (file := split_file(config.sources, prepared, name, "train")).is_file():
            size = sum(1 for _ in read_dialogues(file))
            sources[name] = replace(one, cap=max(1, round(scale * min(size, one.cap if one.cap is not None else size))))
        elif name not in gone:
            sources[name] = one
    return replace(config, sources=sources, kinds={kind: round(number * scale) for kind, number in config.kinds.items()})


def logits_of(model: TurnModel, rows: Sequence[dict[str, Any]], label_count: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """(turns, L) logits before calibration and labels of encoded dialogues, in their order."""
    collate = DialogueCollator(label_count)
    order = sorted(range(len(rows)), key=lambda place: sum(map(len, rows[place]["ids"])))
    logits: dict[int, np.ndarray[Any, Any]] = {}
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(order), TURN_BATCH):
            places = order[start : start + TURN_BATCH]
            out = model(**collate([rows[place] for place in places])).logits.float().numpy()
            for number, place in enumerate(places):
                logits[place] = out[number, : len(rows[place]["roles"])]
    empty = np.zeros((0, label_count), dtype=np.float32)
    return (
        np.concatenate([empty, *(logits[place] for place in range(len(rows)))]),
        np.concatenate([empty, *(np.asarray(row["labels"], dtype=np.float32) for row in rows)]),
    )


def threshold_at_recall(logits: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], recall: float) -> float:
    """The highest threshold at or above which at least the share `recall` of positives lies."""
    positive = np.sort(logits[labels >= 0.5])
    if not len(positive):
        raise ConfigError("label: found no positive turn in the mixture's validation split, expected some")
    return float(positive[len(positive) - int(np.ceil(recall * len(positive) - 1e-9))])


def unseen(logits: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], threshold: float) -> Unseen:
    """Measures of one label on one source; unknown labels left out."""
    known = labels != UNKNOWN
    scores, hard = logits[known].astype(np.float64), (labels[known] >= 0.5).astype(np.float64)
    both = 0 < hard.sum() < len(hard)
    negatives = scores[hard == 0]
    return Unseen(
        n=len(hard),
        positives=int(hard.sum()),
        average_precision=average_precision(hard, scores) if both else None,
        false_positives=float(np.mean(negatives >= threshold)) if len(negatives) else None,
        recall_at_1_fpr=recall_at_fpr(hard, scores, 0.01) if both else None,
    )


def source_rows(prepared: Path, source: str, most: int, encoder: TurnEncoder, config: TrainConfig) -> list[dict[str, Any]]:
    """Encoded dialogues of both splits of a source, at most `most`, evenly spread."""
    dialogues: list[Dialogue] = [one for split in ("train", "validation") for one in read_dialogues(prepared / source / f"{split}.jsonl")]
    step = max(1, len(dialogues) // most)
    return list(encode_dialogues(dialogues[::step][:most], encoder, config))


def measure(run: Path, sources: Iterable[str], settings: LeaveOutSettings) -> dict[str, Any]:
    """A finished run on sources it has not seen: {"threshold", "in_domain", "sources": {name: Unseen}}."""
    model, config, _ = load_run(run)
    column = [label.name for label in config.labels].index(settings.label)
    encoder = TurnEncoder.from_file(run / TOKENIZER, config.encoding)
    stored = np.load(run / "validation.npz")
    known = stored["targets"][:, column] != UNKNOWN
    threshold = threshold_at_recall(stored["logits"][known, column], stored["targets"][known, column], settings.recall)
    result: dict[str, Any] = {"threshold": threshold, "in_domain": asdict(unseen(stored["logits"][:, column], stored["targets"][:, column], threshold))}
    result["sources"] = {}
    for source in sources:
        logits, labels = logits_of(model, source_rows(Path(settings.prepared), source, settings.most, encoder, config), len(config.labels))
        result["sources"][source] = asdict(unseen(logits[:, column], labels[:, column], threshold))
    return result


def _runs(settings: LeaveOutSettings) -> Iterator[tuple[str, str, Variant, ComposeConfig, tuple[str, ...], tuple[str, ...]]]:
    """(variant, run name, its settings, mixture, sources to take out, sources to measure): one for each run that is needed."""
    for name, variant in settings.variants.items():
        mixture = read_config(variant.mixture)
        plain: list[str] = []
        for group, sources in settings.groups.items():
            if inside := tuple(source for source in sources if source in mixture.sources):
                yield name, f"{name}-without-{group}", variant, mixture, inside, sources
            else:
                plain += sources
        if plain:
            yield name, name, variant, mixture, (), tuple(plain)


def leave_out(settings: LeaveOutSettings, only: str | None = None) -> dict[str, Any]:
    """Trains every run that is needed, measures, and writes `result.json` and the page's block.

    Args:
        settings: see `LeaveOutSettings`.
        only: train and measure this run alone, e.g. `wide-without-a`, and write nothing else: several can be made side by side.

    Raises:
        ConfigError: a mixture, recipe or source that does not fit.
    """
    output = Path(settings.output)
    result: dict[str, Any] = {"settings": asdict(settings), "variants": {}}
    for variant_name, run_name, variant, mixture, gone, measured in _runs(settings):
        if only not in (None, run_name):
            continue
        folder, made = output / run_name, output / "mixtures" / run_name
        if not (folder / RUN).is_file():
            write_mixture(reduced(mixture, Path(settings.prepared), gone, variant.scale), settings.prepared, made)
            train(_recipe(settings, variant, made, folder))
        side = result["variants"].setdefault(variant_name, {"turns": {}, "in_domain": {}, "sources": {}})
        found = _measured(folder, measured, settings)
        side["turns"][run_name] = json.loads((made / "counts.json").read_text(encoding="utf-8"))["train"]["turns"]["all"]
        side["in_domain"][run_name] = found["in_domain"]
        side["sources"] |= found["sources"]
    if only is not None:
        return result
    (output / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if settings.page is not None:
        renew(Path(settings.page), table(result))
    return result


def _measured(run: Path, sources: Iterable[str], settings: LeaveOutSettings) -> dict[str, Any]:
    """`measure`, kept in the run's folder: an interrupted comparison measures nothing twice."""
    kept = run / MEASURED
    question = {"label": settings.label, "most": settings.most, "recall": settings.recall, "sources": sorted(sources)}
    if kept.is_file() and (known := json.loads(kept.read_text(encoding="utf-8")))["question"] == question:
        return dict(known["answer"])
    answer = measure(run, sources, settings)
    kept.write_text(json.dumps({"question": question, "answer": answer}) + "\n", encoding="utf-8")
    return answer


def _recipe(settings: LeaveOutSettings, variant: Variant, mixture: Path, output: Path) -> TrainConfig:
    files = {"data.train": [f"{mixture}/train.jsonl"], "data.validation": [f"{mixture}/validation.jsonl"], "run.output": str(output)}
    own = [f"{key}={json.dumps(value)}" for key, value in files.items()]
    return read_settings(TrainConfig, settings.recipe, [*own, *variant.overrides])


def table(result: Mapping[str, Any]) -> str:
    """The result as Markdown."""
    variants = list(result["variants"])
    settings = result["settings"]
    header = ["left-out source", "turns", "positive", *(f"AP {name}" for name in variants), *(f"FP {name}" for name in variants)]
    lines: list[list[str]] = []
    sources = sorted({source for side in result["variants"].values() for source in side["sources"]})
    for source in sources:
        sides = [result["variants"][name]["sources"].get(source) for name in variants]
        first = next(side for side in sides if side is not None)
        lines.append([source, str(first["n"]), str(first["positives"]), *(_number(side, "average_precision", "{:.3f}") for side in sides)])
        lines[-1] += [_number(side, "false_positives", "{:.1%}") for side in sides]
    for title, wanted in (("**mean, harmless only**", False), ("**mean, both kinds**", True)):
        cells = [title, "", ""]
        for key, shape in (("average_precision", "{:.3f}"), ("false_positives", "{:.1%}")):
            for name in variants:
                chosen = [one[key] for one in result["variants"][name]["sources"].values() if (one["average_precision"] is not None) == wanted]
                values = [value for value in chosen if value is not None]
                cells.append(shape.format(float(np.mean(values))) if values else "–")
        lines.append(cells)
    turns = "; ".join(f"{run} {n}" for side in result["variants"].values() for run, n in side["turns"].items())
    words = f"Label `{settings['label']}`; FP: share of harmless turns above the threshold that gives {settings['recall']:.0%} recall in domain."
    words += f" Training turns: {turns}."
    return words + "\n\n" + card.table(header, lines)


def _number(side: Mapping[str, Any] | None, key: str, shape: str) -> str:
    return "–" if side is None or side[key] is None else shape.format(side[key])


def renew(page: Path, block: str, name: str = NAME) -> None:
    """Writes the block `name` of a Markdown page anew. Raises `ConfigError` where the page has none."""
    what = name.partition(":")[0]
    card.renew(page, what, f"<!-- {name}; do not edit -->", f"<!-- end of {what} -->", f"\n\n{block}\n\n")


__all__ = ["LeaveOutSettings", "Unseen", "Variant", "leave_out", "measure", "renew", "table", "threshold_at_recall", "unseen"]
