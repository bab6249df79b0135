"""The model card: no table of it is empty, and what it says is what was measured."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lastresort.artifact import load_folder, read_manifest, write_manifest
from lastresort.cli import app
from lastresort.data import read_dialogues, write_dialogues
from lastresort.errors import ConfigError
from lastresort.types import Dialogue, Message
from lastresort_training.card import calibration_table, card, false_flags_table, targets_table, write_card
from lastresort_training.record import CURVES, read_runs, write_runs
from lastresort_training.slices import write_slices
from lastresort_training.targets import Found, write_targets

pytest.importorskip("matplotlib", reason="curves need matplotlib, which comes with the extra: train")


def empty_tables(page: str) -> list[str]:
    """Headers of tables without a row."""
    return re.findall(r"(\| [^\n]*)\n\| ---[^\n]*\n(?!\|)", page)


@pytest.fixture
def folder(tiny_path: Path, tmp_path: Path, sample_path: Path, finished: Path) -> Path:
    """A model folder with everything a card is made of, by the documented commands; one source has no harmful turn."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_path, folder)
    calm = [Dialogue(f"calm-{n}", (Message("user", f"flour and salt {n}", {"harm": 0.0, "assistant_abuse": 0.0}),), "calm") for n in range(120)]
    write_dialogues([*read_dialogues(sample_path), *calm], tmp_path / "data.jsonl")
    arguments = [str(tmp_path / "data.jsonl"), "--model", str(folder)]
    for verb in (
        ["score", *arguments, "-o", str(tmp_path / "scored.jsonl")],
        ["evaluate", *arguments, "--scored", str(tmp_path / "scored.jsonl"), "-o", str(folder / "metrics.json")],
    ):
        result = CliRunner().invoke(app, verb)
        assert result.exit_code == 0, result.output
    manifest = read_manifest(folder)
    write_slices(tmp_path / "data.jsonl", tmp_path / "scored.jsonl", manifest, folder / "slices.json")
    write_targets([Found("`harm`, AP", "≥ 0.9", 0.95, True, 10, 5, "", 0.9)], manifest, folder / "targets.json")
    write_runs(read_runs(finished), folder)
    return folder


def rows_of(folder: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["rows"]
    return rows


def test_no_table_is_empty(folder: Path) -> None:
    assert empty_tables("| a |\n| --- |\n\nb") == ["| a |"]
    manifest = write_card(folder, None)
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert empty_tables(page) == []
    assert re.search(r"^\| calm \| 120 \| \d+ \| ", page, re.MULTILINE)
    assert re.search(r"^\| `harm` \| sample \| ", page, re.MULTILINE)
    assert page.index("Who may be wrongly flagged") < page.index("## Targets") < page.index("Quality on validation") < page.index("## Calibration")
    assert f"![Loss and average precision on validation, over the steps]({CURVES})" in page
    assert {CURVES, "training.json", "metrics.json", "README.md"} <= set(manifest.files)
    assert load_folder(folder).manifest == manifest


def test_a_model_of_other_labels_gets_sentences_instead_of_empty_tables(folder: Path) -> None:
    manifest = read_manifest(folder)
    rows = [row for row in rows_of(folder) if row["label"] == "redirection"]
    page = card(manifest, {"data": ["x"], "rows": rows})
    assert empty_tables(page) == []
    assert "No source without harmful turns was measured." in page
    assert "No targets were measured" in page


def test_pooled_measures_are_refused(folder: Path) -> None:
    record = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    record["rows"] = [row for row in record["rows"] if row["source"] == "all"]
    (folder / "metrics.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"found no rows by source .*without --pooled"):
        write_card(folder, None)


@pytest.mark.parametrize("name", ["metrics.json", "slices.json", "targets.json"])
def test_measures_of_another_model_are_refused(folder: Path, name: str) -> None:
    record = json.loads((folder / name).read_text(encoding="utf-8"))
    (folder / name).write_text(json.dumps({**record, "model": "other@00000000"}), encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"{name}: found measures of other@00000000"):
        write_card(folder, None)


def row(label: str, source: str, n: int, flagged: float = 0.0, ece: float = 0.0, positives: int = 0) -> dict[str, object]:
    return {"scorer": "m", "label": label, "source": source, "n": n, "flagged": flagged, "ece": ece, "ece_by_chance": 0.01, "positives": positives}


def test_harmless_sources_stand_worst_first_with_an_interval() -> None:
    rows = [row("harm", "all", 300, 0.1, positives=9), row("harm", "a", 50, 0.0), row("harm", "b", 100, 0.02), row("harm", "c", 30, 0.5, positives=1)]
    lines = false_flags_table(rows, "m").splitlines()
    assert lines[2:] == ["| b | 100 | 2 | 2.0% | 0.2%–7.0% |", "| a | 50 | 0 | 0.0% | 0.0%–7.1% |"]
    brief = false_flags_table(rows, "m", brief=True).splitlines()
    assert brief[2:] == ["| b | 100 | 2 | 2.0% | 0.2%–7.0% |", "", "Of the 50 turns of 1 more sources without a harmful turn, none is flagged."]


def test_the_worst_calibrated_source_has_enough_turns() -> None:
    rows = [row("harm", "all", 300, ece=0.001), row("harm", "a", 100, ece=0.1), row("harm", "b", 200, ece=0.05), row("harm", "c", 99, ece=0.9)]
    assert calibration_table(rows, "m").splitlines()[2:] == ["| `harm` | 0.001 | 2 | a | 100 | 0.100 | 0.010 |"]
    assert calibration_table(rows[:1], "m") == "No source has 100 turns that know a label."


def test_missed_targets_stand_out() -> None:
    found = [Found("a", "≥ 0.9", 0.5, False, 10, 5, ""), Found("b", "≤ 3%", 0.02, True, 10, 0, "1 of 50")]
    assert targets_table(found).splitlines()[2:] == ["| a | ≥ 0.9 | 0.500 | **no** | 10 | 5 |  |", "| b | ≤ 3% | 2.0% | yes | 10 | 0 | 1 of 50 |"]
    compared = targets_table([replace(found[0], before=0.4), found[1]]).splitlines()
    assert compared[2] == "| a | ≥ 0.9 | 0.500 | 0.400 | **no** | 10 | 5 |  |"


def test_the_card_says_what_quantising_costs(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert "It was not compared with the fp32 graph on validation." in write_and_read(folder)
    figures = {"conversations": 40, "flipped": 3, "average_precision": {"harm": [0.9, 0.8975], "hate": [0.8, 0.81]}}
    write_manifest(folder, replace(manifest, provenance={**manifest.provenance, "quantisation": figures}))
    page = write_and_read(folder)
    assert "On validation 3 of 40 conversations are decided otherwise than by the fp32 graph" in page
    assert "the label that loses most average precision is `harm` (0.0025)." in page


def write_and_read(folder: Path) -> str:
    write_card(folder, None)
    return (folder / "README.md").read_text(encoding="utf-8")
