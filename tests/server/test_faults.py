"""`kill -9` of the service and of PostgreSQL under many clients, as `make bench-server` does it, in small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def command(root: Path, tmp_path: Path) -> list[str]:
    page = tmp_path / "LOAD.md"
    page.write_text((root / "src" / "lastresort" / "server" / "LOAD.md").read_text(encoding="utf-8"), encoding="utf-8")
    return [sys.executable, str(root / "tests" / "benchmarks" / "server"), "faults", "--results", str(tmp_path / "results.json"), "--page", str(page)]


def test_many_clients_and_kills_lose_and_double_nothing(command: list[str], postgres: str, tmp_path: Path) -> None:
    """`postgres` is asked for only so that the test is left out where it cannot run: what is killed here is one of its own."""
    sizes = ["--conversations", "100", "--clients", "16", "--kills", "3", "--postgres-kills", "1", "--replayed", "50"]
    done = subprocess.run([*command, *sizes], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["faults"]
    assert result["conversations"] == 100
    assert result["kills"] == {"service": 2, "both": 1}
    assert result["turns"] > 400
    assert result["branches"] > 50
    assert result["ends"] > 0
    assert sum(result["sent_again"].values()) > 0  # the kills were felt
    assert set(result["differences"].values()) == {0}
    assert result["first_wrong"] == []
    assert result["hung"] == 0
    assert result["replayed_by_the_library"] == {"conversations": 50, "differ": 0}
    assert "Nothing acknowledged was lost" in (tmp_path / "LOAD.md").read_text(encoding="utf-8")
