"""What a mixture is: counts, quantiles, licences, tables, JSON, plots."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console
from typer.testing import CliRunner

from lastresort.data import write_dialogues
from lastresort.errors import DataError
from lastresort.types import Dialogue, Message
from lastresort_data import stats
from lastresort_data.cli import app
from lastresort_data.grammars import assistant_labels, user_labels
from lastresort_data.registry import read_registry
from lastresort_data.stats import OWN, Stats, count, licence_of, spread, write_stats

SOURCES = read_registry().sources
STRICT = next(name for name, entry in SOURCES.items() if entry.licence_class == "non_commercial")
FREE = next(name for name, entry in SOURCES.items() if entry.licence_class == "permissive")
BAD = user_labels(hate=1.0, harm=1.0, severity=2 / 3)
PLOTS = ["kinds.svg", "labels.svg", "licences.svg", "roles.svg", "sources.svg", "turns.svg", "words.svg"]


def dialogues(split: str) -> list[Dialogue]:
    chat = (
        Message("user", "one two three", user_labels()),
        Message("assistant", "four", assistant_labels(redirection=1.0, unknown=("distress",))),
        Message("user", "a grumble", BAD),
    )
    own = {"kind": "escalation", "material": ["written-3", "p1-0023b"]}
    return [
        Dialogue(f"{FREE}-{split}-1", chat[:1], FREE),
        Dialogue(f"{STRICT}-{split}-1", chat[2:], STRICT),
        Dialogue(f"written-{split}-1", chat, "written"),
        Dialogue(f"c1-{split}", chat, "composed", {"kind": "crisis", "material": [f"{FREE}-7", f"{STRICT}-2"]}),
        Dialogue(f"c2-{split}", chat * 3, "composed", own),
    ]


@pytest.fixture
def mixture(tmp_path: Path) -> Path:
    folder = tmp_path / "mixture"
    folder.mkdir()
    write_dialogues(dialogues("train"), folder / "train.jsonl")
    write_dialogues(dialogues("validation")[:3], folder / "validation.jsonl")
    return folder


def test_counts(mixture: Path) -> None:
    found = count(mixture, "train").to_json()
    assert (found["dialogues"], found["turns"], found["words"]) == (5, 17, 3 + 2 + 6 * 5)
    assert found["by_source"]["composed"] == {"dialogues": 2, "turns": 12, "words": 24, "harmful": 4}
    assert found["by_source"][STRICT] == {"dialogues": 1, "turns": 1, "words": 2, "harmful": 1}
    assert {kind: group["dialogues"] for kind, group in found["by_kind"].items()} == {"crisis": 1, "escalation": 1}
    assert found["labels"]["user.hate"] == {"known": 12, "positive": 6}
    assert found["labels"]["assistant.redirection"] == {"known": 5, "positive": 5}
    assert "assistant.distress" not in found["labels"], "an unknown label is not counted as known"
    assert found["positive_by_source"][STRICT] == {"user.hate": 1, "user.harm": 1, "user.severity": 1}
    assert {role: group["turns"] for role, group in found["by_role"].items()} == {"assistant": 5, "user": 12}


def test_a_composed_dialogue_has_the_strictest_licence_of_its_turns(mixture: Path) -> None:
    found = count(mixture, "train").to_json()["by_licence"]
    assert {name: group["dialogues"] for name, group in found.items()} == {"permissive": 1, "non_commercial": 2, OWN: 2}
    assert licence_of(Dialogue("x", (Message("user", "hi"),), "somewhere"), {}) == OWN
    assert licence_of(Dialogue("x", (Message("user", "hi"),), "composed", {"kind": "crisis"}), {"a": "gpl"}) == OWN


def test_a_harmful_turn_without_the_label_harm_counts() -> None:
    found = Stats()
    found.add(Dialogue("x", (Message("user", "grumble", {"hate": 0.8}), Message("user", "hm", {"hate": 0.2})), "edos"), "permissive")
    assert found.sources["edos"]["harmful"] == 1


def test_spread_of_numbers() -> None:
    found = spread(Counter({0: 1, 1: 1, 4: 17, 600: 1}))
    assert (found["median"], found["p95"], found["most"]) == (4, 4, 600)
    assert found["histogram"] == {**dict.fromkeys(found["histogram"], 0), "1": 2, "3–4": 17, "513+": 1}
    assert spread(Counter())["median"] == 0


def test_json_and_plots(mixture: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need matplotlib, which comes with the extra `train`")
    record = write_stats(mixture, tmp_path / "one", Console(quiet=True))
    assert json.loads((tmp_path / "one" / "stats.json").read_text(encoding="utf-8")) == record
    assert record["validation"]["dialogues"] == 3
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == sorted([*PLOTS, "stats.json"])
    write_stats(mixture, tmp_path / "two", Console(quiet=True))
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), "the same mixture, the same bytes"
    for name, word in (("sources.svg", FREE), ("labels.svg", "user.hate"), ("words.svg", "assistant"), ("kinds.svg", "escalation")):
        text = "".join(ElementTree.fromstring((tmp_path / "one" / name).read_text(encoding="utf-8")).itertext())
        assert word in text


def test_plots_of_an_empty_split_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need matplotlib, which comes with the extra `train`")
    assert sorted(path.name for path in stats.draw(Stats().to_json(), tmp_path) if path.is_file()) == PLOTS


def test_no_text_of_a_turn_is_written(mixture: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["stats", str(mixture), "-o", str(tmp_path / "out"), "--no-plots"])
    assert result.exit_code == 0, result.output
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["stats.json"]
    assert "grumble" not in result.output + (tmp_path / "out" / "stats.json").read_text(encoding="utf-8")


def test_printed_tables(mixture: Path) -> None:
    result = CliRunner().invoke(app, ["stats", str(mixture)])
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.output.splitlines()]
    assert ["composed", "2", "12", "4", "0", "0", "0"] in lines
    assert ["all", "5", "17", "6", "3", "5", "2"] in lines
    assert ["user.hate", "12", "6", "4", "2"] in lines
    assert "…" not in result.output
    for title in ("by source", "by licence class", "by kind", "by label", "by role", "by turns in a dialogue"):
        assert title in result.output


def test_a_missing_or_broken_mixture_is_an_error(mixture: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.jsonl"):
        count(tmp_path, "train")
    (mixture / "train.jsonl").write_text("{}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"train\.jsonl:1"):
        count(mixture, "train")


def test_without_matplotlib_plots_are_refused_before_the_work(mixture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(DataError, match="--no-plots"):
        write_stats(mixture, tmp_path / "out", Console(quiet=True))
    assert not (tmp_path / "out").exists()
    found: dict[str, Any] = write_stats(mixture, tmp_path / "out", Console(quiet=True), plots=False)
    assert set(found) == {"train", "validation"}


def test_matplotlib_is_not_loaded_by_the_command_line() -> None:
    code = "import sys, lastresort_data.cli; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
