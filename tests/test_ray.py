"""`--engine ray` against the local engine, on a real cluster of two node processes; and the Spark recipe of SCALING.md without Spark."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lastresort.batch import inputs_of, score_to_file
from lastresort.conversation import Monitor
from lastresort.data import dumps, iter_records, scored_to_json
from lastresort.types import Dialogue, ScoredDialogue

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install 'lastresort[ray]'")
BAD = b'{"id": "bad", "messages": "xyzzy"}\n'

TWO_NODES = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, "ray_client_server_port": int(sys.argv[1])})
cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""

REPORT = """
import json, sys
from pathlib import Path
from lastresort.batch import inputs_of, score_to_file
from lastresort.conversation import load
from lastresort.engine_ray import RayEngine

address, model, output, *inputs = sys.argv[1:]
engine = RayEngine(Path(model), address)
sources = inputs_of(map(Path, inputs))
folder = Path(output).parent
outcomes = list(score_to_file(load(model), sources, Path(output), skip_bad=folder / "bad", shard_turns=40, workers=2, engine=engine))
print(json.dumps({
    "first": outcomes[0].dialogue.id,
    "errors": [str(outcome.result) for outcome in outcomes if outcome.dialogue is None],
    "scored": [[node, count] for (node, _), count in engine.scored.items()],
    "read": [[source.position, source.size] for source in sources],
}))
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """Address of a cluster of two nodes with one CPU each, as `native` and for a Ray client."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", TWO_NODES, str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment()) as nodes:
        assert nodes.stdout is not None
        address = nodes.stdout.readline().strip()
        assert re.fullmatch(r"[\d.]+:\d+", address)
        yield {"native": address, "client": f"ray://127.0.0.1:{port}"}
        nodes.communicate()


def environment() -> dict[str, str]:
    """Nothing is told to anybody, no token is written into the home folder, and the client's server survives its fork (see SCALING.md)."""
    return {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "GRPC_ENABLE_FORK_SUPPORT": "0"}


def cli(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "lastresort", "score", *map(str, arguments)], capture_output=True, text=True, check=False, env=environment())


def many(sample_path: Path) -> list[bytes]:
    """The sample several times over, with ids of their own: several blocks for Ray."""
    records = [json.loads(line) for line in sample_path.read_bytes().splitlines()]
    return [json.dumps({**record, "id": f"{record['id']}-{copy}"}).encode() + b"\n" for copy in range(20) for record in records]


@needs_ray
def test_the_result_is_that_of_the_local_engine_and_a_run_goes_on_across_engines(
    cluster: dict[str, str], monitor: Monitor, tiny_path: Path, sample_path: Path, tmp_path: Path
) -> None:
    lines = many(sample_path)
    (tmp_path / "a.jsonl").write_bytes(b"".join(lines[:400]) + BAD)
    (tmp_path / "b.jsonl").write_bytes(b"".join(lines[400:]))
    inputs = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    list(score_to_file(monitor, inputs_of(inputs), tmp_path / "local.jsonl", skip_bad=tmp_path / "local.bad"))

    started = score_to_file(monitor, inputs_of(inputs), tmp_path / "out.jsonl", skip_bad=tmp_path / "bad", shard_turns=40)
    for _ in range(50):
        next(started)
    started.close()  # type: ignore[attr-defined]
    kept = sum(json.loads(mark.read_bytes())["conversations"] for mark in (tmp_path / "out.jsonl.parts").glob("0*.json"))
    assert kept > 20

    command = [sys.executable, "-c", REPORT, cluster["native"], tiny_path, tmp_path / "out.jsonl", *inputs]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["first"] == json.loads(lines[kept])["id"]
    assert [error.partition(": ")[0] for error in report["errors"]] == [f"{inputs[0]}:401"]
    assert len({node for node, _ in report["scored"]}) == len(report["scored"]) == 2
    assert sum(count for _, count in report["scored"]) == len(lines) + 1 - kept
    assert all(position == size for position, size in report["read"])
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "local.jsonl").read_bytes()
    assert (tmp_path / "bad").read_bytes() == BAD
    assert not (tmp_path / "out.jsonl.parts").exists()


@needs_ray
def test_a_bad_line_stops_it_through_a_ray_client(cluster: dict[str, str], monitor: Monitor, tiny_path: Path, sample_path: Path, tmp_path: Path) -> None:
    """`ray://`, Parquet out, one actor; what comes before the bad line is in the file."""
    lines = many(sample_path)[:40]
    (tmp_path / "in.jsonl").write_bytes(b"".join(lines) + BAD + lines[0])
    output = tmp_path / "out.parquet"
    done = cli(tmp_path / "in.jsonl", "-o", output, "--model", tiny_path, "--engine", "ray", "--ray-address", cluster["client"], "--workers", 1)
    assert done.returncode == 1
    assert "xyzzy" not in done.stderr
    found = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    advice = f"; 40 conversations before it are kept in {output}.parts: run the same command again to go on"
    assert found == [f"error: {tmp_path}/in.jsonl:41: messages: found a string of 5 characters, expected: a list{advice}"]
    dialogues = list(iter_records(Dialogue, tmp_path / "in.jsonl", on_bad=lambda error, raw: None))[:40]
    expected = [json.loads(dumps(scored_to_json(monitor.score(dialogue)))) for dialogue in dialogues]
    assert [json.loads(dumps(scored_to_json(record))) for record in iter_records(ScoredDialogue, output)] == expected


@needs_ray
@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_no_cluster_there_is_said_at_once(address: str, sample_path: Path, tiny_path: Path) -> None:
    done = cli(sample_path, "--engine", "ray", "--ray-address", address, "--model", tiny_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: ray: found no cluster at {address} (ConnectionRefusedError: ")
    assert done.stderr.endswith("), expected auto, local, HOST:PORT or ray://HOST:PORT\n")


def test_an_address_without_the_engine_is_wrong_usage(sample_path: Path, tiny_path: Path) -> None:
    done = cli(sample_path, "--model", tiny_path, "--ray-address", "auto")
    assert done.returncode == 2
    assert "--ray-address needs --engine ray" in done.stderr


def test_without_ray_the_extra_is_named(sample_path: Path, tiny_path: Path) -> None:
    code = "import sys\nsys.modules['ray'] = None\nfrom lastresort.cli import main\nmain()"
    command = [sys.executable, "-W", "error", "-c", code, "score", str(sample_path), "--model", str(tiny_path), "--engine", "ray"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: --engine ray needs ray, which is not installed: pip install 'lastresort[ray]'\n"


def test_ray_is_imported_only_when_asked_for() -> None:
    code = "import sys, lastresort.cli, lastresort.engine_ray\nprint('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_the_spark_recipe_scores_as_the_local_engine(root: Path, sample_path: Path, monitor: Monitor, tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The function alone, on pandas frames as Spark would hand it over."""
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    (recipe,) = re.findall(r"```python\n(.*?)```", (root / "src" / "lastresort" / "SCALING.md").read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.setattr("lastresort.conversation.shipped_model", lambda: tiny_path)
    names: dict[str, Any] = {}
    exec(compile(recipe.partition("\n\nspark")[0], "SCALING.md", "exec"), names)
    lines = sample_path.read_text(encoding="utf-8").splitlines()
    frames = [pandas.DataFrame({"value": lines[:10]}), pandas.DataFrame({"value": []}), pandas.DataFrame({"value": lines[10:]})]
    scored = [row for frame in names["score"](iter(frames)) for row in frame["scored"]]
    dialogues = iter_records(Dialogue, sample_path)
    assert scored == [dumps(scored_to_json(monitor.score(dialogue))) for dialogue in dialogues]
