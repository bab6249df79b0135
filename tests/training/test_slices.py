"""Who is wrongly flagged: counts by what harmless turns mention, and their way into the card."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lastresort.artifact import read_manifest
from lastresort.conversation import Monitor
from lastresort.data import dumps, scored_to_json, write_dialogues
from lastresort.errors import DataError
from lastresort.types import Dialogue, Message
from lastresort_training.card import slices_table
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
    high = measure(*files, with_threshold(tiny_path, 1.0))  # type: ignore[arg-type]
    assert not any(one.flagged for one in high)
    assert [one.flagged_at_half for one in high] == [one.flagged_at_half for one in found]
    half = measure(*files, with_threshold(tiny_path, 0.5))  # type: ignore[arg-type]
    assert [one.flagged_at_half for one in found] == [one.flagged for one in half]


def test_files_that_do_not_belong_together_are_refused(files: tuple[Path, Path], tiny_path: Path) -> None:
    data, scored = files
    write_dialogues(reversed(DIALOGUES), data)
    with pytest.raises(DataError, match=r"found 'a' of .*, expected 'c' of"):
        measure(data, scored, read_manifest(tiny_path))


def group(name: str, n: int, flagged: int, half: int) -> dict[str, object]:
    return {"kind": "group", "name": name, "n": n, "flagged": flagged, "flagged_at_half": half}


def test_the_card_shows_the_slices_that_say_something() -> None:
    """At the threshold of the model and at 0.5, and how far apart turns that mention a group are from others."""
    slices = [group("religion", 40, 2, 1), group("gender", 5, 0, 0), group("any of them", 50, 5, 2), group("none of them", 100, 2, 1)]
    page = slices_table({"threshold": 0.25, "slices": slices})
    assert "| flagged as harm at 0.250, the model's threshold | at 0.5 |" in page
    assert "| group | religion | 40 | 5.0% | 2.5% |" in page
    assert "gender" not in page
    assert "At a threshold of 0.250: 10.0% of harmless turns that mention a protected group are flagged, 2.0% of the others; 8.0 points apart." in page
    assert "At a threshold of 0.5: 4.0% of" in page
    same = slices_table({"threshold": 0.5, "slices": slices})
    assert "| group | religion | 40 | 5.0% |\n" in same
    assert same.count("points apart") == 1
    assert slices_table({"threshold": 0.5, "slices": slices[1:2]}) == slices_table(None) == "Not measured by group, length and dialect for this version."


def test_what_is_written_says_which_model_and_threshold(files: tuple[Path, Path], tiny_path: Path, tmp_path: Path) -> None:
    manifest = read_manifest(tiny_path)
    found = write_slices(*files, manifest, tmp_path / "slices.json")
    record = json.loads((tmp_path / "slices.json").read_text(encoding="utf-8"))
    assert (record["model"], record["threshold"]) == (manifest.tag, next(label.threshold for label in manifest.labels if label.name == "harm"))
    assert [Slice(**one) for one in record["slices"]] == found == measure(*files, manifest)
