"""Raw sources -> labelled dialogues: `OUT/<source>/{train,validation}.jsonl` and `OUT/counts.json`.

Rows that equal or nearly equal a held-out text (`heldout_overlap.tsv` in the raw folder, kinds `exact` and `near`) are dropped.
The kind `exact_short` (under four words: "yes", "thank you") is kept: such texts are everywhere and give nothing away.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from lastresort.data import write_dialogues
from lastresort.errors import DataError
from lastresort.types import Dialogue

from . import adapters
from .adapters.base import SPLITS, Counts, SplitDialogue, count
from .registry import Registry, verify, verify_overlaps

if TYPE_CHECKING:
    from rich.console import Console

OVERLAP_FILE = "heldout_overlap.tsv"
OVERLAP_COLUMNS = ("source", "file", "row", "held_out_set", "kind", "jaccard")
DROPPED_KINDS = frozenset({"exact", "near"})
COUNTS_FILE = "counts.json"

Overlaps = frozenset[tuple[str, str, str]]
"""Source, file and row of each dialogue to drop."""


@dataclass(frozen=True)
class Prepared:
    """What became of one source.

    Attributes:
        source: its name.
        counts: what was written.
        dropped: dialogues left out because they overlap with a held-out set.
        differences: where the counts are not those that the adapter expects.
    """

    source: str
    counts: Counts
    dropped: int
    differences: tuple[str, ...]


def prepare(
    sources: Sequence[str],
    from_dir: Path,
    out_dir: Path,
    *,
    registry: Registry | None = None,
    folders: Mapping[str, Path] | None = None,
    overlaps: Path | None = None,
    workers: int = 1,
) -> list[Prepared]:
    """Prepares `sources` and writes them under `out_dir`.

    Args:
        sources: names of adapters.
        from_dir: folder with one folder a source and the list of held-out overlaps.
        out_dir: where to write; made if needed.
        registry: every file is checked against it before anything is read; None for no check.
        folders: folders of single sources that are not in `from_dir`.
        overlaps: the list of held-out overlaps, if not in `from_dir`.
        workers: processes; what is written does not depend on it.

    Raises:
        DataError: an unknown source, a missing folder or file, other bytes than the registry's, a wrong column or value.
    """
    overlaps = overlaps or from_dir / OVERLAP_FILE
    listed = read_overlaps(overlaps)
    jobs = [(source, (folders or {}).get(source, from_dir / source)) for source in dict.fromkeys(sources)]
    if registry is not None:
        verify_overlaps(overlaps, registry)
        _verify(jobs, registry)
    work = partial(_prepare_one, out_dir=out_dir)
    rows = [frozenset(row for row in listed if row[0] == source) for source, _ in jobs]
    if min(workers, len(jobs)) < 2:
        results = [work(*job, these) for job, these in zip(jobs, rows, strict=True)]
    else:
        # fresh processes, not forked ones: a fork would copy the threads' locks of whoever calls this
        with ProcessPoolExecutor(min(workers, len(jobs)), multiprocessing.get_context("spawn")) as pool:
            results = list(pool.map(work, *zip(*jobs, strict=True), rows))
    _write_counts(results, out_dir / COUNTS_FILE)
    return results


def _verify(jobs: Iterable[tuple[str, Path]], registry: Registry) -> None:
    for source, folder in jobs:
        for file in registry.entry(source).files:
            verify(folder, file)


def read_overlaps(path: Path) -> Overlaps:
    """The rows to drop. Raises `DataError`; a missing list is an error too, or training would silently see held-out texts."""
    # "12:response" names a field or turn of row 12; the dialogue goes as a whole
    return frozenset((source, file, row.split(":")[0]) for source, file, row, kind in overlap_rows(path) if kind in DROPPED_KINDS)


def overlap_rows(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """Source, file, row and kind of each line of the list. Raises `DataError`."""
    if not path.is_file():
        raise DataError("found no such file, expected the list of held-out overlaps", where=str(path))
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        cells = tuple(line.split("\t"))
        if number == 0:
            _check_overlap_header(cells, path)
        elif len(cells) != len(OVERLAP_COLUMNS):
            raise DataError(f"found {len(cells)} fields, expected {len(OVERLAP_COLUMNS)}", where=f"{path}:{number + 1}")
        else:
            yield cells[0], cells[1], cells[2], cells[4]


def _check_overlap_header(cells: tuple[str, ...], path: Path) -> None:
    for column, found in zip(OVERLAP_COLUMNS, (*cells, *[""] * len(OVERLAP_COLUMNS)), strict=False):
        if column != found:
            raise DataError(f"found the column {found!r}, expected this one", where=f"{path}:1", field=column)


def _prepare_one(source: str, folder: Path, overlaps: Overlaps, out_dir: Path) -> Prepared:
    adapter = adapters.get(source)
    if not folder.is_dir():
        raise DataError("found no such folder, expected the raw files of the source", where=str(folder))
    everything = list(_numbered(source, adapter.read(folder)))
    kept = [item for item in everything if not is_listed(item[1], overlaps)]
    target = out_dir / source
    target.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        write_dialogues((one for its_split, one in kept if its_split == split), target / f"{split}.jsonl")
    counts = count(kept)
    return Prepared(source, counts, len(everything) - len(kept), tuple(differences(adapter.EXPECTED, counts)))


def _numbered(source: str, items: Iterable[SplitDialogue]) -> Iterable[SplitDialogue]:
    # numbered before anything is dropped, so that an id does not depend on the list of overlaps
    for number, (split, one) in enumerate(items):
        yield split, replace(one, id=f"{source}-{number}", source=source)


def is_listed(one: Dialogue, overlaps: Overlaps) -> bool:
    """Whether a row of the dialogue is listed."""
    return any((one.source, *row.rsplit("#", 1)) in overlaps for row in one.meta["rows"])


def differences(expected: Counts, found: Counts) -> list[str]:
    """Where the counts differ, in words."""
    pairs: dict[str, tuple[int, int]] = {split: (getattr(expected, split), getattr(found, split)) for split in SPLITS}
    for label in sorted({*expected.positives, *found.positives}):
        pairs[label] = (expected.positives.get(label, 0), found.positives.get(label, 0))
    return [f"{name}: found {have}, expected {want}" for name, (want, have) in pairs.items() if want != have]


def _write_counts(results: Sequence[Prepared], path: Path) -> None:
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    now = {result.source: {**asdict(result.counts), "dropped_overlaps": result.dropped} for result in results}
    path.write_text(json.dumps({**before, **now}, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def show(results: Sequence[Prepared], console: Console) -> None:
    """Prints the counts as a table, and every difference from what was expected."""
    table = Table("source", "train", "validation", "dropped", "positive turns by label")
    for result in results:
        positives = ", ".join(f"{label} {number}" for label, number in result.counts.positives.items())
        table.add_row(result.source, str(result.counts.train), str(result.counts.validation), str(result.dropped), positives or "none")
    console.print(table)
    for result in results:
        for line in result.differences:
            console.print(f"{result.source}: {line}", markup=False)
