"""Who is wrongly flagged: counts by what harmless turns mention, and their way into the card."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from lastresort.artifact import read_manifest
from lastresort.conversation import Monitor
from lastresort.data import dumps, scored_to_json, write_dialogues
from lastresort.errors import ConfigError, DataError
from lastresort.types import Dialogue, Message
from lastresort_training.card import slices_table, write_card
from lastresort_training.slices import Slice, measure, write_slices

HARMLESS = {"harm": 0.0}
DIALOGUES = [
    Dialogue("a", (Message("user", "my gay neighbour and his muslim wife", HARMLESS), Message("assistant", "yes"), Message("user", "ok", HARMLESS))),
    Dialogue("b", (Message("system", "x"), Message("user", "one two three four five six", HARMLESS)), meta={"dialect": "Scottish"}),
    Dialogue(
        "c",
        (Message("user", "a women hater speaks", {"harm": 0.9}), Message("user", "unknown women"), Message("user", "ja", HARMLESS)),
        meta={"kind": "other_language"},
    ),
]


@pytest.fixture
def files(tmp_path: Path, monitor: Monitor) -> tuple[Path, Path]:
    write_dialogues(DIALOGUES, tmp_path / "data.jsonl")
    lines = [dumps(scored_to_json(monitor.score(one))) for one in DIALOGUES]
    (tmp_path / "scored.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path / "data.jsonl", tmp_path / "scored.jsonl"


def with_threshold(path: Path, threshold: float) -> object:
    manifest = read_manifest(path)
    return replace(manifest, labels=tuple(replace(label, threshold=threshold) for label in manifest.labels))


def test_every_harmless_turn_is_in_its_slices(files: tuple[Path, Path], tiny_path: Path) -> None:
    found = measure(*files, with_threshold(tiny_path, 0.0))  # type: ignore[arg-type]
    assert {(one.kind, one.name): one.n for one in found} == {
        ("all", "all"): 4,
        ("group", "any of them"): 1,
        ("group", "none of them"): 3,
        ("group", "orientation or identity"): 1,
        ("group", "religion"): 1,
        ("length", "up to 5 words"): 2,
        ("length", "6 to 20 words"): 2,
        ("dialect", "Scottish"): 1,
        ("language", "other languages in between"): 1,
    }
    assert all(one.flagged == one.n for one in found)
    assert not any(one.flagged for one in measure(*files, with_threshold(tiny_path, 1.0)))  # type: ignore[arg-type]


def test_files_that_do_not_belong_together_are_refused(files: tuple[Path, Path], tiny_path: Path) -> None:
    data, scored = files
    write_dialogues(reversed(DIALOGUES), data)
    with pytest.raises(DataError, match=r"found 'a' of .*, expected 'c' of"):
        measure(data, scored, read_manifest(tiny_path))


def test_the_card_shows_the_slices_that_say_something(files: tuple[Path, Path], tiny_path: Path, tmp_path: Path) -> None:
    record = {"slices": [{"kind": "group", "name": "religion", "n": 40, "flagged": 2}, {"kind": "group", "name": "gender", "n": 5, "flagged": 0}]}
    assert "| group | religion | 40 | 5.0% |" in slices_table(record)
    assert "gender" not in slices_table(record)
    folder = tmp_path / "model"
    shutil.copytree(tiny_path, folder)
    manifest = read_manifest(folder)
    (folder / "metrics.json").write_text(json.dumps({"model": manifest.tag, "data": ["x"], "rows": []}), encoding="utf-8")
    assert write_slices(*files, manifest, folder / "slices.json")[0] == Slice("all", "all", 4, measure(*files, manifest)[0].flagged)
    write_card(folder, None)
    (folder / "slices.json").write_text(json.dumps({"model": "other@00000000", "slices": []}), encoding="utf-8")
    with pytest.raises(ConfigError, match="found measures of other@00000000"):
        write_card(folder, None)
