"""One command from raw sources to a checked mixture, and the data card from its counts; on a small source that we wrote."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from lastresort.data import read_dialogues
from lastresort.errors import DataError
from lastresort_data.cli import app
from lastresort_data.datacard import BEGIN, END, write_datacard

WHEN = ("now", "then", "soon", "here")
ROWS = [(f"where is the {thing} card that I asked for {when}", "card_arrival") for thing in ("red", "old", "new", "spare") for when in WHEN]
ROWS += [(f"why was I charged {n} pounds at the {place}", "fee") for n in range(2, 8) for place in ("shop", "station", "bank")]
HELD_OUT = 3


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Look-alike of banking77, with one row that is held out."""
    folder = tmp_path / "raw" / "banking77"
    folder.mkdir(parents=True)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("text", "category"))
    writer.writerows(ROWS)
    (folder / "train.csv.gz").write_bytes(gzip.compress(text.getvalue().encode()))
    header = "source\tfile\trow\theld_out_set\tkind\tjaccard\n"
    (folder.parent / "heldout_overlap.tsv").write_text(f"{header}banking77\ttrain.csv.gz\t{HELD_OUT}\tsome test\texact\t1.0\n", encoding="utf-8")
    return folder.parent


@pytest.fixture
def built(raw: Path, tmp_path: Path) -> Path:
    """The work folder after `data build`."""
    config = tmp_path / "mixture.yaml"
    config.write_text(yaml.safe_dump({"seed": 3, "sources": {"banking77": {}}, "kinds": {}}), encoding="utf-8")
    done = CliRunner().invoke(app, ["build", str(config), "--from", str(raw), "--work", str(tmp_path / "work"), "--no-verify"])
    assert done.exit_code == 0, done.output
    return tmp_path / "work"


def test_one_command_makes_a_checked_mixture(built: Path) -> None:
    texts = {split: {one.messages[0].content for one in read_dialogues(built / "mixture" / f"{split}.jsonl")} for split in ("train", "validation")}
    assert len(texts["train"]) > len(texts["validation"]) > 0
    assert not texts["train"] & texts["validation"]
    assert ROWS[HELD_OUT][0] not in texts["train"] | texts["validation"]
    lines = (built / "checks.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) > 5
    assert all(line.endswith("| 0 |") for line in lines[2:])


def test_raw_files_that_differ_from_the_registry_are_refused(raw: Path, tmp_path: Path) -> None:
    config = tmp_path / "mixture.yaml"
    config.write_text(yaml.safe_dump({"seed": 3, "sources": {"banking77": {}}, "kinds": {}}), encoding="utf-8")
    done = CliRunner().invoke(app, ["build", str(config), "--from", str(raw), "--work", str(tmp_path / "work")])
    assert isinstance(done.exception, DataError)
    assert "found sha256" in str(done.exception)
    assert not (tmp_path / "work" / "mixture").exists()


def test_the_card_takes_its_numbers_from_the_counts(built: Path, tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    write_datacard(built / "prepared", built / "cleaned", built / "checks.md", [built / "mixture"], page)
    text = page.read_text(encoding="utf-8")
    counts = json.loads((built / "mixture" / "counts.json").read_text(encoding="utf-8"))
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert f"| **all** | {counts['train']['dialogues']} |" in text
    assert "| may not be | looked at | found |" in text
    with pytest.raises(DataError, match="expected the table that `lastresort data check -o` writes"):
        write_datacard(built / "prepared", built / "cleaned", tmp_path / "nothing.md", [built / "mixture"], page)
