"""Formats of `lastresort score`: what goes in and comes out is the same whatever the file is, and what cannot be read says so."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lastresort.batch import inputs_of, score_lines, score_to_file
from lastresort.conversation import Monitor, decide
from lastresort.data import dumps, iter_records, read_dialogues, scored_to_json
from lastresort.errors import DataError
from lastresort.files import Lines, format_of, open_input, replacing, writing
from lastresort.types import Dialogue, ScoredDialogue

SUFFIXES = [".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"]


def pack(path: Path, raw: bytes) -> Path:
    """Dialogue lines as a file of the format that its name says, made without our own writers."""
    kind = format_of(path)
    if kind == "gz":
        path.write_bytes(gzip.compress(raw))
    elif kind == "zst":
        with pa.OSFile(str(path), "wb") as stream, pa.CompressedOutputStream(stream, "zstd") as packed:
            packed.write(raw)
    elif kind == "parquet":
        rows = [json.loads(line) for line in raw.splitlines()]
        for row in rows:
            row["meta"] = json.dumps(row.get("meta", {}))
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=7)
    else:
        path.write_bytes(raw)
    return path


def unpack(path: Path) -> list[dict[str, Any]]:
    """The scored records in a file, read without our own readers where there is another way."""
    kind = format_of(path)
    if kind == "parquet":
        rows = pq.read_table(path).to_pylist(maps_as_pydicts="strict")
        return [{**row, "meta": json.loads(row["meta"])} for row in rows]
    with pa.input_stream(path, compression={"gz": "gzip", "zst": "zstd"}.get(kind)) as stream:
        return [json.loads(line) for line in stream.read().splitlines()]


def score_all(monitor: Monitor, paths: Iterable[Path], output: Path, **options: Any) -> list[dict[str, Any]]:
    for _ in score_to_file(monitor, inputs_of(paths), output, **options):
        pass
    assert [path.name for path in output.parent.glob(f"{output.name}.*")] == []
    return unpack(output)


@pytest.fixture(scope="module")
def expected(monitor: Monitor, sample: dict[str, Dialogue]) -> list[dict[str, Any]]:
    """The sample, scored."""
    return [json.loads(dumps(scored_to_json(monitor.score(dialogue)))) for dialogue in sample.values()]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_goes_in_and_comes_out_the_same(suffix: str, monitor: Monitor, sample_path: Path, expected: list[dict[str, Any]], tmp_path: Path) -> None:
    source = pack(tmp_path / f"in{suffix}", sample_path.read_bytes())
    assert [dialogue.id for dialogue in read_dialogues(source)] == [record["id"] for record in expected]
    assert score_all(monitor, [source], tmp_path / f"out{suffix}") == expected
    assert score_all(monitor, [source], tmp_path / f"shards{suffix}", shard_turns=20) == expected
    again = [asdict(record) for record in iter_records(ScoredDialogue, tmp_path / f"shards{suffix}")]
    assert json.loads(json.dumps(again)) == expected


def test_several_inputs_of_several_formats_are_one_after_the_other(monitor: Monitor, sample_path: Path, expected: list[dict[str, Any]], tmp_path: Path) -> None:
    lines = sample_path.read_bytes().splitlines(keepends=True)
    paths = [pack(tmp_path / f"{number}{suffix}", b"".join(lines[number * 8 : number * 8 + 8])) for number, suffix in enumerate(SUFFIXES)]
    assert score_all(monitor, paths, tmp_path / "out.parquet", shard_turns=30) == expected


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_in_gives_a_whole_file_with_nothing_in_it(suffix: str, monitor: Monitor, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b"\n")
    assert score_all(monitor, [tmp_path / "in.jsonl"], tmp_path / f"out{suffix}") == []
    assert list(iter_records(ScoredDialogue, tmp_path / f"out{suffix}")) == []


def test_scored_rows_decide_again_to_the_same(monitor: Monitor, sample_path: Path, expected: list[dict[str, Any]], tmp_path: Path) -> None:
    score_all(monitor, [sample_path], tmp_path / "out.parquet")
    records = list(iter_records(ScoredDialogue, tmp_path / "out.parquet"))
    assert [json.loads(dumps(scored_to_json(decide(record, monitor.policy)))) for record in records] == expected


def test_the_schema_does_not_depend_on_the_model(monitor: Monitor, sample_path: Path, tmp_path: Path) -> None:
    score_all(monitor, [sample_path], tmp_path / "out.parquet")
    schema = pq.read_schema(tmp_path / "out.parquet")
    assert schema.names == ["id", "model", "call", "ended_at", "turns", "mode", "would_end_at", "distress", "source", "meta", "policy"]
    turn = schema.field("turns").type.value_type
    assert pa.types.is_map(turn.field("scores").type)
    assert turn.field("decision").type.field("call").type == pa.string()


def test_what_parquet_cannot_hold_is_replaced(monitor: Monitor, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b'{"id": "a\\ud800", "messages": [], "source": "\\udfff", "meta": {"kind": "\\ud800"}}\n')
    (record,) = score_all(monitor, [tmp_path / "in.jsonl"], tmp_path / "out.parquet")
    assert (record["id"], record["source"], record["meta"]) == ("a\ufffd", "\ufffd", {"kind": "\ud800"})


def test_columns_that_may_be_missing_or_null_and_those_that_are_not_ours(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "hi", "labels": [("harm", 0.5)]}, {"role": "assistant", "content": "", "labels": None}]
    message = pa.struct([("role", pa.string()), ("content", pa.string()), ("labels", pa.map_(pa.string(), pa.float64()))])
    table = pa.table({"id": ["a"], "day": [3], "messages": pa.array([messages], pa.list_(message)), "source": pa.array([None], pa.string())})
    pq.write_table(table, tmp_path / "a.parquet")
    (dialogue,) = read_dialogues(tmp_path / "a.parquet")
    assert [(m.role, m.content, dict(m.labels)) for m in dialogue.messages] == [("user", "hi", {"harm": 0.5}), ("assistant", "", {})]
    assert (dialogue.source, dialogue.meta) == ("", {})


ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "no messages": ({"id": ["a", "b"]}, r":1: messages: found nothing, expected: this key"),
    "a number as id": ({"id": [1], "messages": [[]]}, r":1: id: found 1, expected: a valid string"),
    "no id": ({"id": pa.array([None], pa.string()), "messages": [[]]}, r":1: id: found None, expected: a valid string"),
    "no content": ({"id": ["a", "b"], "messages": [[], [{"role": "user", "content": None}]]}, r":2: messages\.0\.content: found NoneType, expected"),
    "another role": ({"id": ["a"], "messages": [[{"role": "human", "content": ""}]]}, r":1: messages\.0\.role: found 'human', expected: one of"),
    "meta no JSON": ({"id": ["a"], "messages": [[]], "meta": ["xyzzy {"]}, r":1: meta: found a string of 7 characters, expected: an object"),
    "meta a list": ({"id": ["a"], "messages": [[]], "meta": ["[1]"]}, r":1: meta: found a list of 1, expected: an object"),
}


@pytest.mark.parametrize(("columns", "message"), ROWS.values(), ids=list(ROWS))
def test_a_bad_row_names_file_row_and_field(columns: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(DataError) as caught:
        list(read_dialogues(path))
    assert re.match(re.escape(str(path)) + message, str(caught.value)), str(caught.value)
    assert "xyzzy" not in str(caught.value)


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (".jsonl.zst", lambda raw: raw[:-3]),
        (".jsonl.zst", lambda raw: b"no zstd at all, not one byte of it"),
        (".parquet", lambda raw: raw[:-3]),
        (".parquet", lambda raw: b"{}\n"),
        (".parquet", lambda raw: b""),
    ],
    ids=["cut zst", "no zst", "cut parquet", "no parquet", "empty parquet"],
)
def test_a_damaged_file_is_an_error_that_names_it(suffix: str, damage: Callable[[bytes], bytes], sample_path: Path, tmp_path: Path) -> None:
    path = pack(tmp_path / f"a{suffix}", sample_path.read_bytes())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError) as caught:
        list(read_dialogues(path))
    assert str(caught.value).startswith(f"{path}: cannot be read: ")


@pytest.mark.parametrize("suffix", [".jsonl.zst", ".parquet"])
def test_a_folder_and_a_missing_file(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"folder{suffix}").mkdir()
    for path in (tmp_path / f"folder{suffix}", tmp_path / f"nowhere{suffix}"):
        with pytest.raises(DataError, match="cannot be read"):
            list(read_dialogues(path))


def test_several_zstd_frames_are_one_file(sample_path: Path, tmp_path: Path) -> None:
    lines = sample_path.read_bytes().splitlines(keepends=True)
    parts = [pack(tmp_path / f"{number}.zst", b"".join(lines[number::2])) for number in range(2)]
    (tmp_path / "all.zst").write_bytes(b"".join(part.read_bytes() for part in parts))
    with open_input(tmp_path / "all.zst") as (stream, name):
        assert stream.read() == b"".join(lines[0::2] + lines[1::2])
    assert name == str(tmp_path / "all.zst")


@pytest.mark.parametrize(("name", "is_input"), [("in.jsonl.zst", True), ("in.parquet", True), ("out.jsonl.zst", False), ("out.parquet", False)])
def test_without_pyarrow_the_extra_is_named(name: str, is_input: bool, sample_path: Path, tiny_path: Path, tmp_path: Path) -> None:
    source = pack(tmp_path / name, sample_path.read_bytes()) if is_input else sample_path
    output = tmp_path / ("out.jsonl" if is_input else name)
    code = "import sys\nfor name in ('pyarrow', 'zstandard'): sys.modules[name] = None\nfrom lastresort.cli import main\nmain()"
    command = [sys.executable, "-W", "error", "-c", code, "score", str(source), "-o", str(output), "--model", str(tiny_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    where = source if is_input else output
    assert done.stderr == f"error: {where}: {where.suffix} needs pyarrow, which is not installed: pip install 'lastresort[batch]'\n"
    assert list(tmp_path.glob("out*")) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_position_goes_from_nothing_to_the_size(suffix: str, sample_path: Path, tmp_path: Path) -> None:
    source = Lines(pack(tmp_path / f"in{suffix}", sample_path.read_bytes()), ("id", "messages"))
    positions = [source.position for _ in source]
    assert positions == sorted(positions)
    assert (positions[-1], source.size) == (source.size, os.path.getsize(source.path))
    assert Lines("-", ()).size is None


@pytest.mark.parametrize("workers", [1, 3])
def test_lines_are_read_only_as_needed(workers: int, monitor: Monitor) -> None:
    """Ten million lines need no more memory than ten thousand: no more of them are ever held than `4 * workers`."""

    class Endless(Lines):
        taken = 0

        def __iter__(self) -> Iterator[tuple[int, bytes]]:
            while True:
                self.taken += 1
                yield self.taken, b'{"id": "a", "messages": [{"role": "user", "content": "hi"}]}\n'

    source = Endless("-", ())
    outcomes = score_lines(monitor, [source], workers=workers)
    for number in range(50):
        assert next(outcomes).place.line == number + 1
        assert source.taken <= number + 4 * workers + 1
    outcomes.close()  # type: ignore[attr-defined]


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old", encoding="utf-8")

    def fail() -> None:
        with replacing(path) as stream:
            stream.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [(found.name, found.read_text(encoding="utf-8")) for found in tmp_path.iterdir()] == [("a.txt", "old")]
    with replacing(path) as stream:
        stream.write(b"new")
        assert path.read_text(encoding="utf-8") == "old"
    assert path.read_text(encoding="utf-8") == "new"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_lines_give_the_same_bytes(suffix: str, monitor: Monitor, sample_path: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"{name}{suffix}" for name in ("one", "two")]
    for path in files:
        score_all(monitor, [sample_path], path, shard_turns=50)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_writing_leaves_the_file_open_to_be_synced(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        with (tmp_path / f"a{suffix}").open("wb") as stream:
            with writing(stream, tmp_path / f"a{suffix}"):
                pass
            assert not stream.closed
