"""The benchmark of the command line: what it reports, never how fast."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lastresort import bench
from lastresort.conversation import Monitor
from lastresort.errors import ArtifactError


@pytest.fixture(scope="module")
def done(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The record and the table of a very short run."""
    path = tmp_path_factory.mktemp("bench") / "bench.json"
    command = [sys.executable, "-W", "error", "-m", "lastresort", "bench", "--model", str(tiny_path), "--seconds", "0.1", "--workers", "2", "-o", str(path)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")
    return json.loads(path.read_text(encoding="utf-8")), found.stdout


def test_the_record_holds_what_it_promises(done: tuple[dict[str, Any], str], monitor: Monitor) -> None:
    record, _ = done
    keys = ["model", "version", "machine", "seconds", "workers", "import_s", "load_s", "memory_mb", "turn_ms", "shares"]
    keys += ["policy_us", "turn_200_over_2", "turns_per_second"]
    assert list(record) == keys
    assert (record["model"], record["seconds"], record["workers"]) == (monitor.model, 0.1, 2)
    assert list(record["machine"]) == ["system", "processor", "python", "onnxruntime", "cpus"]
    assert [row["tokens"] for row in record["turn_ms"]] == [8, 16, 32, 64]  # the tiny model reads no longer windows
    for row in record["turn_ms"]:
        assert row["n"] >= 5
        assert 0 < row["p50"] <= row["p95"] <= row["p99"]
    assert set(record["turns_per_second"]) == {"one", "threads", "processes"}
    assert all(value > 0 for value in (*record["turns_per_second"].values(), record["import_s"], record["load_s"], record["turn_200_over_2"]))


def test_the_shares_add_up(done: tuple[dict[str, Any], str]) -> None:
    shares = dict(done[0]["shares"])
    assert shares.pop("tokens") == 32
    assert tuple(shares) == bench.SHARES
    assert all(0 <= share <= 1 for share in shares.values())
    assert sum(shares.values()) == pytest.approx(1)


def test_a_decision_is_told_alone(done: tuple[dict[str, Any], str]) -> None:
    decision = done[0]["policy_us"]
    assert list(decision) == ["step", "explained"]
    assert all(value > 0 for value in decision.values())


def test_memory_is_known_but_on_windows(done: tuple[dict[str, Any], str]) -> None:
    memory = done[0]["memory_mb"]
    assert list(memory) == ["loaded", "peak"]
    if sys.platform == "win32":
        assert memory == {"loaded": None, "peak": None}
    else:
        assert 0 < memory["loaded"] <= memory["peak"]


def test_the_table_shows_it(done: tuple[dict[str, Any], str], monitor: Monitor) -> None:
    for words in (monitor.model, "import ", "p99 ms", "tokenizer ", "turn 200 costs", "2 threads ", "2 processes ", "MB at its peak"):
        assert words in done[1]


@pytest.mark.parametrize("tokens", [8, 16, 32, 64])
def test_the_text_has_the_length_that_is_asked_for(tokens: int, monitor: Monitor) -> None:
    (window,) = monitor.scorer.encoder.windows(bench.text_of(monitor, tokens))
    assert len(window) == tokens


def test_what_is_compared_is_measured_in_turns() -> None:
    calls: list[str] = []
    taken = bench._interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 0.0)
    assert calls == ["a", "b"] * 6  # the first round only warms up
    assert [len(times) for times in taken.values()] == [5, 5]


def test_a_model_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="found no folder"):
        bench.measure(tmp_path / "none", seconds=0.01)
