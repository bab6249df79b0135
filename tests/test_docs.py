"""Every example of README.md and training/README.md is run as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lastresort.data import read_dialogues

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LONG = (
    "make ",
    "my/",
    "work/",
    "runs/own",
    "runs/first",
    "configs/train/own",
    "configs/train/first",
    "configs/data/first",
    "release",
    "--from DIR",
    "lastresort card",
)
"""What an example names when it needs the raw sources, an hour, or this very test suite."""


def blocks(page: str, language: str) -> list[str]:
    return [text for name, text in BLOCK.findall((ROOT / page).read_text(encoding="utf-8")) if name == language]


def commands(page: str) -> list[str]:
    lines = [line.split("#")[0].strip() for block in blocks(page, "sh") for line in block.splitlines()]
    return [line for line in lines if line and not any(word in line for word in LONG)]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder that looks like the repository but takes the outputs."""
    for name in ("data", "configs", "models", "src", "README.md"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def run(command: list[str] | str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    shell = isinstance(command, str)
    return subprocess.run(command, cwd=folder, env=environment, shell=shell, capture_output=True, text=True, timeout=600, check=False)


def test_the_python_example_runs_and_prints_what_it_says(checkout: Path) -> None:
    (example,) = blocks("README.md", "python")
    done = run([sys.executable, "-W", "error", "-c", example], checkout)
    assert done.returncode == 0, done.stderr
    promised = re.findall(r"print\(.*\)\s+# (.*)", example)
    assert done.stdout.splitlines() == promised


def test_the_dialogue_example_keeps_the_contract(tmp_path: Path) -> None:
    (example,) = blocks("README.md", "json")
    (tmp_path / "example.jsonl").write_text(example, encoding="utf-8")
    (dialogue,) = read_dialogues(tmp_path / "example.jsonl")
    assert dialogue.messages[1].labels == {"redirection": 1}


@pytest.mark.parametrize("page", ["README.md", "training/README.md"])
def test_the_commands_run(page: str, checkout: Path) -> None:
    lines = commands(page)
    assert len(lines) >= 4
    for line in lines:
        done = run(line, checkout)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


def test_every_verb_is_documented() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for verb in ("score", "decide", "explain", "evaluate", "report", "calibrate", "audit", "inspect", "train", "export"):
        assert f"lastresort {verb} " in text


def test_links_to_files_lead_somewhere() -> None:
    pages = [ROOT / "README.md", *ROOT.glob("*/README.md"), ROOT / "src" / "ARCHITECTURE.md"]
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
