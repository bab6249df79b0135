"""What a mixture is: by source, licence, label, length, role, kind and number of turns; as tables, JSON and plots.

Usage: lastresort data stats MIXTURE_DIR -o DIR

One dialogue at a time is held in memory.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from lastresort.data import read_dialogues
from lastresort.errors import DataError
from lastresort.types import Dialogue

from .compose import COMPOSED, POSITIVE, SPLITS
from .material import harm_of
from .registry import LICENCE_CLASSES, read_registry

if TYPE_CHECKING:
    from rich.console import Console

OWN = "own"
"""The licence class of what we wrote and of what our grammars say."""
STATS_FILE = "stats.json"
EDGES = (1, 2, 3, 5, 9, 17, 33, 65, 129, 257, 513)
"""Lower edges of the bars of a histogram; the last has no upper edge, the first none below."""


def licence_classes() -> dict[str, str]:
    """Name of each public source to its licence class."""
    return {name: entry.licence_class for name, entry in read_registry().sources.items()}


def licence_of(dialogue: Dialogue, classes: Mapping[str, str]) -> str:
    """The licence class of a dialogue; of a composed one, the strictest among those that lent it turns."""
    if dialogue.source != COMPOSED:
        return classes.get(dialogue.source, OWN)
    lenders = {str(origin).rpartition("-")[0] for origin in dialogue.meta.get("material", ())}
    return max((classes[name] for name in lenders if name in classes), key=LICENCE_CLASSES.index, default=OWN)


@dataclass
class Stats:
    """Counts of one split; filled by `add`, not safe to share between threads.

    Attributes:
        sources, licences, kinds: name to `dialogues`, `turns`, `words` and `harmful` (user turns known to be of at least 0.5 harm).
        labels: `role.label` to `known` and `positive` turns (at least 0.5), and the sum of its values.
        positives: source to `role.label` to positive turns.
        words: role to number of words in a turn to turns.
        turns: number of turns in a dialogue to dialogues.
    """

    sources: dict[str, Counter[str]] = field(default_factory=dict)
    licences: dict[str, Counter[str]] = field(default_factory=dict)
    kinds: dict[str, Counter[str]] = field(default_factory=dict)
    labels: dict[str, Counter[str]] = field(default_factory=dict)
    positives: dict[str, Counter[str]] = field(default_factory=dict)
    words: dict[str, Counter[int]] = field(default_factory=dict)
    turns: Counter[int] = field(default_factory=Counter)

    def add(self, dialogue: Dialogue, licence: str) -> None:
        """Takes one dialogue."""
        groups = [self.sources.setdefault(dialogue.source, Counter()), self.licences.setdefault(licence, Counter())]
        if dialogue.source == COMPOSED:
            groups.append(self.kinds.setdefault(str(dialogue.meta.get("kind")), Counter()))
        self.turns[len(dialogue.messages)] += 1
        more = Counter({"dialogues": 1, "turns": len(dialogue.messages)})
        for message in dialogue.messages:
            length = len(message.content.split())
            self.words.setdefault(message.role, Counter())[length] += 1
            more["words"] += length
            more["harmful"] += message.role == "user" and (harm_of(message.labels) or 0.0) >= POSITIVE
            for name, value in message.labels.items():
                label = f"{message.role}.{name}"
                self.labels.setdefault(label, Counter()).update(known=1, positive=int(value >= POSITIVE))
                self.positives.setdefault(dialogue.source, Counter())[label] += int(value >= POSITIVE)
        for group in groups:
            group.update(more)

    def to_json(self) -> dict[str, Any]:
        """As a JSON-able record, in a fixed order."""
        total = sum(self.sources.values(), Counter[str]())
        return {
            "dialogues": total["dialogues"],
            "turns": total["turns"],
            "words": total["words"],
            "by_role": {role: {"turns": counts.total(), "words": spread(counts)} for role, counts in sorted(self.words.items())},
            "turns_per_dialogue": spread(self.turns),
            "by_source": _plain(self.sources),
            "by_licence": _plain(self.licences),
            "by_kind": _plain(self.kinds),
            "labels": _plain(self.labels),
            "positive_by_source": {
                name: {label: number for label, number in sorted(counts.items()) if number} for name, counts in sorted(self.positives.items())
            },
        }


def _plain(groups: Mapping[str, Counter[str]]) -> dict[str, dict[str, int]]:
    return {name: dict(sorted(counts.items())) for name, counts in sorted(groups.items())}


def spread(counts: Counter[int]) -> dict[str, Any]:
    """Median, 95th percentile, largest and a histogram of whole numbers, given how often each occurs."""
    return {
        "median": _quantile(counts, 0.5),
        "p95": _quantile(counts, 0.95),
        "most": max(counts, default=0),
        "histogram": dict(zip(_bars(), _histogram(counts), strict=True)),
    }


def _quantile(counts: Counter[int], share: float) -> int:
    """The smallest number that at least this share does not exceed; 0 if there is none."""
    reached = 0
    for number in sorted(counts):
        reached += counts[number]
        if reached >= share * counts.total():
            return number
    return 0


def _bars() -> list[str]:
    """The names of a histogram's bars."""
    ends = [f"{low}–{after - 1}" if after - 1 > low else f"{low}" for low, after in pairwise(EDGES)]
    return [*ends, f"{EDGES[-1]}+"]


def _histogram(counts: Counter[int]) -> list[int]:
    heights = [0] * len(EDGES)
    for number, times in counts.items():
        heights[max(0, sum(number >= edge for edge in EDGES) - 1)] += times
    return heights


def count(mixture_dir: str | Path, split: str) -> Stats:
    """Counts of a split, read one dialogue at a time.

    Args:
        mixture_dir: folder made by `compose`.
        split: `train` or `validation`.

    Raises:
        DataError: a missing file or a bad line.
    """
    stats, classes = Stats(), licence_classes()
    for dialogue in read_dialogues(Path(mixture_dir) / f"{split}.jsonl"):
        stats.add(dialogue, licence_of(dialogue, classes))
    return stats


def write_stats(mixture_dir: str | Path, out_dir: str | Path | None, console: Console, *, plots: bool = True) -> dict[str, Any]:
    """Prints what a mixture is and, if `out_dir` is given, writes `stats.json` and plots there.

    Args:
        mixture_dir: folder made by `compose`.
        out_dir: folder to write to, made if needed; None only prints.
        console: where to print; widened, so that no number is cut.
        plots: whether to draw; needs matplotlib.

    Returns:
        What `stats.json` holds: split to record.

    Raises:
        DataError: a missing file, a bad line, or no matplotlib where plots are wanted.
    """
    if out_dir is not None and plots:
        _matplotlib()  # before the counting, which takes a while
    record = {split: count(mixture_dir, split).to_json() for split in SPLITS}
    console.width = max(console.width, LEAST_WIDTH)  # a cut number is none
    for table in tables(record):
        console.print(table)
    if out_dir is not None:
        out = Path(out_dir)
        out.mkdir(parents=True, exist_ok=True)
        (out / STATS_FILE).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
        if plots:
            draw(record["train"], out)
    return record


# ---- tables ----

LEAST_WIDTH = 100
"""Columns of text that every table fits into."""
SHORT = {"train": "train", "validation": "valid."}
"""Headings of columns."""


def tables(record: Mapping[str, Mapping[str, Any]]) -> Iterator[Table]:
    """One table a view, train beside validation."""
    yield _table("by source", ("dialogues", "turns", "harmful"), [record[split]["by_source"] for split in SPLITS], total=True)
    yield _table("by licence class", ("dialogues", "turns", "harmful"), [record[split]["by_licence"] for split in SPLITS], total=True)
    yield _table("by kind of composed dialogue", ("dialogues", "turns", "harmful"), [record[split]["by_kind"] for split in SPLITS])
    yield _table("by label", ("known", "positive"), [record[split]["labels"] for split in SPLITS])
    roles = [{role: {"turns": values["turns"], **values["words"]} for role, values in record[split]["by_role"].items()} for split in SPLITS]
    yield _table("by role, and words in a turn", ("turns", "median", "p95", "most"), roles)
    heights = [{bar: {"dialogues": number} for bar, number in record[split]["turns_per_dialogue"]["histogram"].items()} for split in SPLITS]
    yield _table("by turns in a dialogue", ("dialogues",), heights, order=_bars())


def _table(
    title: str, fields: Sequence[str], splits: Sequence[Mapping[str, Mapping[str, int]]], *, order: Sequence[str] | None = None, total: bool = False
) -> Table:
    """A row a name, a column a split and field."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for split in SPLITS:
        for name in fields:
            table.add_column(f"{SHORT[split]}\n{name}", justify="right", no_wrap=True)
    names = sorted({name for group in splits for name in group}) if order is None else order
    rows = [[group.get(name, {}).get(key, 0) for group in splits for key in fields] for name in names]
    for name, numbers in zip(names, rows, strict=True):
        table.add_row(name, *(f"{number:,}" for number in numbers))
    if total:
        table.add_section()
        table.add_row("all", *(f"{sum(column):,}" for column in zip(*rows, strict=True)))
    return table


# ---- plots ----


def draw(split: Mapping[str, Any], out: Path) -> list[Path]:
    """Plots of a split's record as SVG files; the same record gives the same bytes.

    Args:
        split: a value of `write_stats`'s record.
        out: folder that exists.

    Returns:
        The files.

    Raises:
        DataError: no matplotlib.
    """
    bars = _bars()
    roles = split["by_role"]
    positive = {label: counts["positive"] for label, counts in split["labels"].items()}
    known = {label: counts["known"] - counts["positive"] for label, counts in split["labels"].items()}
    return [
        _draw(out / "sources.svg", "Turns by source", *_series(split["by_source"])),
        _draw(out / "licences.svg", "Turns by licence class", *_series(split["by_licence"])),
        _draw(out / "kinds.svg", "Turns by kind of composed dialogue", *_series(split["by_kind"])),
        _draw(
            out / "labels.svg",
            "Known turns by label (logarithmic)",
            list(positive),
            {"positive": list(positive.values()), "negative": list(known.values())},
            log=True,
        ),
        _draw(out / "roles.svg", "Turns by role", list(roles), {"turns": [values["turns"] for values in roles.values()]}),
        _draw(out / "words.svg", "Words in a turn", bars, {role: list(values["words"]["histogram"].values()) for role, values in roles.items()}),
        _draw(out / "turns.svg", "Turns in a dialogue", bars, {"dialogues": list(split["turns_per_dialogue"]["histogram"].values())}),
    ]


def _series(groups: Mapping[str, Mapping[str, int]]) -> tuple[list[str], dict[str, list[int]]]:
    """Names, most turns last, with their harmful and other turns."""
    names = sorted(groups, key=lambda name: (groups[name]["turns"], name))
    harmful = [groups[name]["harmful"] for name in names]
    return names, {"harmful": harmful, "others": [groups[name]["turns"] - bad for name, bad in zip(names, harmful, strict=True)]}


def _matplotlib() -> Any:
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise DataError("found no matplotlib, expected it for plots (it comes with the extra `train`), or --no-plots", where="lastresort data stats") from None
    return matplotlib


def _draw(path: Path, title: str, names: Iterable[str], series: Mapping[str, Sequence[int]], *, log: bool = False) -> Path:
    """Horizontal bars: one group a name; side by side where the series are of one scale, in one bar otherwise."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    names = list(names)
    figure = Figure(figsize=(8, 1.2 + 0.22 * len(names) * (len(series) if log else 1)), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    height = 0.8 / len(series) if log and series else 0.8
    left = [0] * len(names)
    for place, (name, values) in enumerate(series.items()):
        rows = [number + (place * height if log else 0.0) for number in range(len(names))]
        axes.barh(rows, values, height=height, left=None if log else left, label=name)
        left = [a + b for a, b in zip(left, values, strict=True)]
    axes.set_yticks([number + (height * (len(series) - 1) / 2 if log else 0.0) for number in range(len(names))], names)
    axes.set_title(title)
    if log:
        axes.set_xscale("symlog")
    if len(series) > 1:
        figure.legend(loc="outside right upper")
    with _matplotlib().rc_context({"svg.hashsalt": path.name, "svg.fonttype": "none"}):
        figure.savefig(path, format="svg", metadata={"Date": None})
    return path
