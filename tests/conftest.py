"""Hypothesis profiles (`local` by default, `LASTRESORT_HYPOTHESIS=ci` for more examples), and the tiny model with the sample dialogues it knows by heart."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from lastresort.conversation import Monitor, load
from lastresort.data import read_dialogues
from lastresort.types import Dialogue

TESTS = Path(__file__).resolve().parent

settings.register_profile("local", max_examples=200, deadline=None)
settings.register_profile("ci", max_examples=1000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("LASTRESORT_HYPOTHESIS", "local"))


SCENARIOS = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def scenario_table(request: pytest.FixtureRequest) -> list[str]:
    """Lines that are printed at the end of the run."""
    return request.config.stash.setdefault(SCENARIOS, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints the pass table of the scenarios."""
    if lines := config.stash.get(SCENARIOS, []):
        terminalreporter.section("scenarios through the shipped model")
        terminalreporter.write_line("\n".join(lines))


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return TESTS.parent


@pytest.fixture(scope="session")
def sample_path(root: Path) -> Path:
    """The sample dialogues."""
    return root / "data" / "sample" / "dialogues.jsonl"


@pytest.fixture(scope="session")
def tiny_path() -> Path:
    """The committed tiny model folder (made by `tests/training/tiny.py`). Copy it before changing it."""
    return TESTS / "tiny_model"


@pytest.fixture(scope="session")
def monitor(tiny_path: Path) -> Monitor:
    """The tiny model with its own policy, acting on its decisions; shared, since it holds no conversation."""
    return load(tiny_path, mode="enforce")


@pytest.fixture(scope="session")
def sample(sample_path: Path) -> dict[str, Dialogue]:
    """The sample dialogues by id."""
    return {dialogue.id: dialogue for dialogue in read_dialogues(sample_path)}
