"""The model that ships, through the public functions, on the sample conversations."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import lastresort
from lastresort.artifact import load_folder, shipped_model
from lastresort.config import read_yaml
from lastresort.data import read_dialogues

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = {dialogue.id: dialogue for dialogue in read_dialogues(ROOT / "data" / "sample" / "dialogues.jsonl")}
ENDING = [name for name, dialogue in SAMPLE.items() if dialogue.meta["call"] == "end"]


@pytest.fixture(scope="module")
def scored() -> dict[str, lastresort.ScoredDialogue]:
    monitor = lastresort.load()
    return {name: monitor.score(dialogue) for name, dialogue in SAMPLE.items()}


def reasons(scored: lastresort.ScoredDialogue) -> list[str]:
    return [turn.decision.reason for turn in scored.turns if turn.decision is not None]


def test_the_sample_is_what_the_readme_says() -> None:
    assert len(SAMPLE) >= 30
    assert len(ENDING) >= 3


def test_persistent_abuse_ends_only_after_redirections_and_a_warning(scored: dict[str, lastresort.ScoredDialogue]) -> None:
    abused = scored["persistent-abuse"]
    assert (abused.call, abused.ended_at) == ("end", 10)
    before = reasons(abused)[: abused.ended_at]
    assert before.count("redirected") >= 3
    assert before.count("warned") == 1


def test_its_twin_with_an_apology_goes_on(scored: dict[str, lastresort.ScoredDialogue]) -> None:
    twin = scored["persistent-abuse-apology"]
    assert twin.call == "continue"
    assert "warned" in reasons(twin)


def test_its_twin_in_a_crisis_is_supported_and_never_ended(scored: dict[str, lastresort.ScoredDialogue]) -> None:
    twin = scored["persistent-abuse-crisis"]
    assert twin.call == "continue"
    first = next(turn.index for turn in twin.turns if turn.decision is not None and turn.decision.advice == "support")
    assert all(turn.decision.reason in {"at_risk", "observed"} for turn in twin.turns[first:] if turn.decision is not None)


@pytest.mark.parametrize("name", [name for name in SAMPLE if name not in ENDING])
def test_nothing_else_ends_or_is_warned(name: str, scored: dict[str, lastresort.ScoredDialogue]) -> None:
    assert scored[name].call == "continue"
    if SAMPLE[name].meta["hard_negative"] not in {None, "apology_return"}:
        assert "warned" not in reasons(scored[name])


@pytest.mark.parametrize("name", ["crisis-plain", "persistent-abuse-crisis", "violent-intent"])
def test_a_veto_holds_where_somebody_is_at_risk(name: str, scored: dict[str, lastresort.ScoredDialogue]) -> None:
    assert "at_risk" in reasons(scored[name])


def test_the_manifest_carries_the_default_policy_and_names_every_file() -> None:
    folder = load_folder(shipped_model())
    assert dict(folder.manifest.policy) == read_yaml(ROOT / "configs" / "policy" / "default.yaml")
    assert {"model.onnx", "tokenizer.json", "metrics.json", "README.md"} <= set(folder.manifest.files)


def test_the_card_names_the_model_it_describes() -> None:
    folder = load_folder(shipped_model())
    card = (folder.path / "README.md").read_text(encoding="utf-8")
    assert card.index("Who may be wrongly flagged") < card.index("Quality on validation")
    assert folder.manifest.tag in (folder.path / "metrics.json").read_text(encoding="utf-8")


def test_no_table_of_the_card_is_empty() -> None:
    for page in (shipped_model() / "README.md", ROOT / "README.md"):
        assert re.findall(r"(\| [^\n]*)\n\| ---[^\n]*\n(?!\|)", page.read_text(encoding="utf-8")) == [], page.name
