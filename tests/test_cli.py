"""The command line: shapes, streams, exit codes and messages, on the tiny model."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from lastresort import __version__, cli
from lastresort.artifact import MANIFEST, MODEL, read_manifest, write_manifest
from lastresort.conversation import Monitor, load
from lastresort.data import dialogue_to_json, dumps, read_dialogues, scored_to_json
from lastresort.policy import read_policy
from lastresort.types import Dialogue, Message

SECRET = "xyzzy plugh"
"""What a user wrote in a broken line; it must never be repeated."""


@dataclass(frozen=True)
class Result:
    code: int
    out: bytes
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.out.splitlines()]


Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line in this process, with streams of its own and without the verbs of other packages."""

    def call(*arguments: object, stdin: bytes = b"") -> Result:
        out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
        code = 0
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["lastresort", *map(str, arguments)])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "utf-8"))
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            patch.setattr(cli, "_add_plugin_verbs", lambda: None)
            try:
                cli.main()
            except SystemExit as exit_:
                code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
            out.flush()
            err.flush()
        return Result(code, out.buffer.getvalue(), err.buffer.getvalue().decode())  # type: ignore[attr-defined]

    return call


def command(*arguments: object, stdin: bytes = b"", before: str = "", **environment: str) -> Result:
    """Runs the command line in a fresh interpreter; `before` is run in it first."""
    code = f"{before}\nimport runpy, sys\nsys.argv = {['lastresort', *map(str, arguments)]!r}\nrunpy.run_module('lastresort', run_name='__main__')"
    start = [sys.executable, "-W", "error", "-c", code] if before else [sys.executable, "-W", "error", "-m", "lastresort", *map(str, arguments)]
    done = subprocess.run(start, input=stdin, capture_output=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1", **environment})
    return Result(done.returncode, done.stdout, done.stderr.decode())


@pytest.fixture
def smoke_policy(root: Path) -> Path:
    return root / "configs" / "policy" / "smoke.yaml"


@pytest.fixture
def scored(run: Run, sample_path: Path, tiny_path: Path, tmp_path: Path) -> Path:
    """The scored sample."""
    path = tmp_path / "scored.jsonl"
    assert run("score", sample_path, "--model", tiny_path, "-o", path).code == 0
    return path


def good(name: str, *texts: str) -> bytes:
    return dumps(dialogue_to_json(Dialogue(name, tuple(Message("user", text) for text in texts)))).encode() + b"\n"


# --- score


def test_score_writes_the_contract(run: Run, sample_path: Path, tiny_path: Path, sample: dict[str, Dialogue], monitor: Monitor) -> None:
    result = run("score", sample_path, "--model", tiny_path)
    assert (result.code, result.err) == (0, "")
    assert [record["id"] for record in result.records] == list(sample)
    labels = {speaker: [label.name for label in monitor.scorer.manifest.labels if label.speaker == speaker] for speaker in ("user", "assistant")}
    for record, dialogue in zip(result.records, sample.values(), strict=True):
        assert list(record)[:5] == ["id", "model", "call", "ended_at", "turns"]
        assert set(record) - {"id", "model", "call", "ended_at", "turns"} == {"mode", "would_end_at", "distress", "source", "meta", "policy"}
        assert re.fullmatch(r"tiny@[0-9a-f]{8}", record["model"])
        assert record["call"] in {"continue", "end"}
        assert (record["call"] == "end") == (record["ended_at"] is not None)
        assert [turn["role"] for turn in record["turns"]] == [message.role for message in dialogue.messages]
        for index, turn in enumerate(record["turns"]):
            assert list(turn) == ["index", "role", "scores", "windows", "decision"]
            assert turn["index"] == index
            assert list(turn["scores"]) == labels[turn["role"]]
            assert list(turn["decision"])[:5] == ["call", "advice", "reason", "category", "evidence"]
            assert set(list(turn["decision"])[5:]) == {"would_call", "would_advise", "numbers", "counts", "counterfactual"}
            assert all(type(place) is int and place <= index for place in turn["decision"]["evidence"])
            if record["ended_at"] is None or index < record["ended_at"]:
                assert turn["decision"]["call"] == "continue"
    assert next(record for record in result.records if record["id"] == "persistent-abuse")["ended_at"] == 10


def test_score_is_what_the_monitor_says(run: Run, sample_path: Path, tiny_path: Path, sample: dict[str, Dialogue], monitor: Monitor) -> None:
    expected = "".join(dumps(scored_to_json(monitor.score(dialogue))) + "\n" for dialogue in sample.values())
    assert run("score", sample_path, "--model", tiny_path).out.decode() == expected


def test_system_and_tool_turns_have_no_decision(run: Run, tiny_path: Path) -> None:
    line = b'{"id": "c", "messages": [{"role": "system", "content": "be kind"}, {"role": "tool", "content": ""}, {"role": "user", "content": "hi"}]}\n'
    (record,) = run("score", "-", "--model", tiny_path, stdin=line).records
    assert [(turn["scores"] == {}, turn["windows"], turn["decision"] is None) for turn in record["turns"]] == [
        (True, 0, True),
        (True, 0, True),
        (False, 1, False),
    ]


def test_score_reads_standard_input_and_gzip_and_writes_files(run: Run, sample_path: Path, tiny_path: Path, scored: Path, tmp_path: Path) -> None:
    raw = sample_path.read_bytes()
    assert run("score", "-", "-o", "-", "--model", tiny_path, stdin=raw).out == scored.read_bytes()
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(raw))
    deep = tmp_path / "new" / "folder" / "out.jsonl"
    result = run("score", tmp_path / "in.jsonl.gz", "--output", deep, "--model", tiny_path)
    assert (result.code, result.out, result.err) == (0, b"", "")
    assert deep.read_bytes() == scored.read_bytes()


def test_input_order_is_kept_with_many_workers(run: Run, tiny_path: Path) -> None:
    """The first lines are by far the slowest."""
    lines = b"".join(good(f"c{number}", *["hello there " * (300 if number < 3 else 1)] * 3) for number in range(60))
    found = {workers: run("score", "-", "--model", tiny_path, "--workers", workers, stdin=lines).out for workers in (1, 2, 8)}
    assert [record["id"] for record in map(json.loads, found[8].splitlines())] == [f"c{number}" for number in range(60)]
    assert found[1] == found[2] == found[8]


def test_a_policy_file_takes_the_place_of_the_model_s_own(
    run: Run, sample_path: Path, tiny_path: Path, smoke_policy: Path, scored: Path, tmp_path: Path
) -> None:
    assert run("score", sample_path, "--model", tiny_path, "--policy", smoke_policy).out == scored.read_bytes()
    patient = tmp_path / "patient.yaml"
    patient.write_text(smoke_policy.read_text(encoding="utf-8") + "redirections_before_warning: 50\n", encoding="utf-8")
    result = run("score", sample_path, "--model", tiny_path, "--policy", patient)
    assert {record["call"] for record in result.records} == {"continue"}


@pytest.mark.parametrize("raw", [b"", b"\n", b"\n  \n\r\n"], ids=["nothing", "a blank line", "blank lines"])
@pytest.mark.parametrize("verb", ["score", "decide"])
def test_an_empty_file_gives_an_empty_output(run: Run, verb: str, raw: bytes, tiny_path: Path, smoke_policy: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_bytes(raw)
    option = ("--model", tiny_path) if verb == "score" else ("--policy", smoke_policy)
    result = run(verb, tmp_path / "empty.jsonl", "-o", tmp_path / "out.jsonl", *option)
    assert (result.code, result.out, result.err) == (0, b"", "")
    assert (tmp_path / "out.jsonl").read_bytes() == b""


def test_empty_conversation_empty_message_and_a_very_long_one(run: Run, tiny_path: Path) -> None:
    lines = b'{"id": "none", "messages": []}\n' + good("silent", "") + good("long", "flour and salt " * 13334)
    none, silent, long = run("score", "-", "--model", tiny_path, stdin=lines).records
    assert (none["call"], none["ended_at"], none["turns"]) == ("continue", None, [])
    assert (silent["turns"][0]["windows"], len(silent["turns"][0]["scores"])) == (1, 5)
    assert long["turns"][0]["windows"] > 500
    assert long["call"] == "continue"


def test_odd_characters_come_through(run: Run, tiny_path: Path) -> None:
    lines = good("日本語 \u2028 🙂", "ok") + b'{"id": "\\ud800", "messages": [{"role": "user", "content": "\\udfff"}]}\r\n'
    result = run("score", "-", "--model", tiny_path, stdin=lines)
    assert [record["id"] for record in map(json.loads, result.out.rstrip(b"\n").split(b"\n"))] == ["日本語 \u2028 🙂", "\ud800"]


# --- bad lines

BAD: dict[str, tuple[bytes, str]] = {
    "no JSON": (
        b'{"id": "b", "messages": [{"role": "user", "content": "' + SECRET.encode(),
        r":2: found no valid JSON \(.* at column \d+\), expected one JSON object a line",
    ),
    "no object": (b'["' + SECRET.encode() + b'"]', r":2: found a list of 1, expected a JSON object"),
    "no UTF-8": (
        b'{"id": "b", "messages": [{"role": "user", "content": "' + SECRET.encode() + b'\xff"}]}',
        r":2: found byte 0xff at offset \d+, expected UTF-8",
    ),
    "unknown role": (
        b'{"id": "b", "messages": [{"role": "user", "content": "hi"}, {"role": "human", "content": "' + SECRET.encode() + b'"}]}',
        r":2: messages\.1\.role: found 'human', expected: one of 'user', 'assistant', 'system' or 'tool'",
    ),
    "text as role": (
        b'{"id": "b", "messages": [{"role": "' + SECRET.encode() + b'", "content": "hi"}]}',
        r":2: messages\.0\.role: found a string of 11 characters, expected: one of",
    ),
    "content no text": (
        b'{"id": "b", "messages": [{"role": "user", "content": ["' + SECRET.encode() + b'"]}]}',
        r":2: messages\.0\.content: found list, expected: a valid string",
    ),
    "no id": (b'{"messages": [{"role": "user", "content": "' + SECRET.encode() + b'"}]}', r":2: id: found nothing, expected: this key"),
    "unknown key": (
        b'{"id": "b", "messages": [{"role": "user", "content": "' + SECRET.encode() + b'", "lables": {}}]}',
        r":2: messages\.0\.lables: found an object with 0 keys, expected: no such key",
    ),
    "label out of range": (
        b'{"id": "b", "messages": [{"role": "user", "content": "' + SECRET.encode() + b'", "labels": {"harm": 1.5}}]}',
        r":2: messages\.0\.labels\.harm: found 1\.5, expected a number in 0…1",
    ),
    "messages a text": (b'{"id": "b", "messages": "' + SECRET.encode() + b'"}', r":2: messages: found a string of 11 characters, expected: a list"),
}


@pytest.mark.parametrize(("bad", "message"), BAD.values(), ids=list(BAD))
def test_a_bad_line_stops_and_names_file_line_and_field(run: Run, bad: bytes, message: str, tiny_path: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_bytes(good("a", "hi") + bad + b"\n" + good("c", "hi"))
    result = run("score", path, "--model", tiny_path, "-o", out)
    assert result.code == 1
    assert re.fullmatch(rf"error: {re.escape(str(path))}{message}.*\n", result.err), result.err
    assert "xyzzy" not in result.err
    assert [json.loads(text)["id"] for text in out.read_text(encoding="utf-8").splitlines()] == ["a"]


@pytest.mark.parametrize(("bad", "message"), BAD.values(), ids=list(BAD))
def test_a_bad_line_of_standard_input_is_named_too(run: Run, bad: bytes, message: str, tiny_path: Path) -> None:
    result = run("score", "-", "--model", tiny_path, stdin=b"\n" + bad)
    assert result.code == 1
    assert re.fullmatch(rf"error: <stdin>{message}.*\n", result.err), result.err
    assert "xyzzy" not in result.err


def test_skip_bad_keeps_the_bad_lines_byte_for_byte_and_counts_them(run: Run, tiny_path: Path, tmp_path: Path) -> None:
    bad = [raw for raw, _ in BAD.values()]
    bad[1] += b"  \r"  # Windows line ends and trailing blanks stay
    lines = b"".join(good(f"c{number}", "hi") + raw + b"\n" for number, raw in enumerate(bad))
    result = run("score", "-", "--model", tiny_path, "--skip-bad", tmp_path / "new" / "bad.jsonl", stdin=lines)
    assert result.code == 0
    assert [record["id"] for record in result.records] == [f"c{number}" for number in range(len(bad))]
    assert (tmp_path / "new" / "bad.jsonl").read_bytes() == b"".join(raw + b"\n" for raw in bad)
    *each, last = result.err.splitlines()
    assert last == f"{len(bad)} bad lines skipped, kept in {tmp_path / 'new' / 'bad.jsonl'}"
    assert [re.sub(r".*<stdin>:(\d+):.*", r"\1", text) for text in each] == [str(2 * number + 2) for number in range(len(bad))]
    assert "xyzzy" not in result.err


def test_skip_bad_without_bad_lines_and_with_nothing_else(run: Run, tiny_path: Path, tmp_path: Path) -> None:
    none = run("score", "-", "--model", tiny_path, "--skip-bad", tmp_path / "bad.jsonl", stdin=good("a", "hi"))
    assert (none.code, len(none.records), (tmp_path / "bad.jsonl").read_bytes()) == (0, 1, b"")
    assert none.err.startswith("0 bad lines skipped")
    only = run("score", "-", "--model", tiny_path, "--skip-bad", tmp_path / "bad.jsonl", stdin=b"{")
    assert (only.code, only.out, (tmp_path / "bad.jsonl").read_bytes()) == (0, b"", b"{\n")


def test_decide_skips_bad_lines_too(run: Run, scored: Path, smoke_policy: Path, tmp_path: Path) -> None:
    first, *rest = scored.read_bytes().splitlines(keepends=True)
    (tmp_path / "in.jsonl").write_bytes(first + b'{"id": 3}\n' + b"".join(rest))
    stopped = run("decide", tmp_path / "in.jsonl", "--policy", smoke_policy)
    assert (stopped.code, stopped.out) == (1, first)
    assert stopped.err.startswith(f"error: {tmp_path / 'in.jsonl'}:2: ")
    result = run("decide", tmp_path / "in.jsonl", "--policy", smoke_policy, "--skip-bad", tmp_path / "bad.jsonl")
    assert (result.code, result.out, (tmp_path / "bad.jsonl").read_bytes()) == (0, scored.read_bytes(), b'{"id": 3}\n')


# --- decide


def test_decide_again_gives_the_same_bytes(run: Run, scored: Path, smoke_policy: Path, tmp_path: Path) -> None:
    result = run("decide", scored, "--policy", smoke_policy)
    assert (result.code, result.err, result.out) == (0, "", scored.read_bytes())
    piped = run("decide", "-", "--policy", smoke_policy, "-o", tmp_path / "again.jsonl", stdin=scored.read_bytes())
    assert (piped.code, piped.out, (tmp_path / "again.jsonl").read_bytes()) == (0, b"", scored.read_bytes())


def test_decide_with_another_policy_equals_scoring_with_it(
    run: Run, scored: Path, smoke_policy: Path, sample_path: Path, tiny_path: Path, tmp_path: Path
) -> None:
    hasty = tmp_path / "hasty.yaml"
    hasty.write_text(smoke_policy.read_text(encoding="utf-8") + "redirections_before_warning: 1\npersistence_label: null\n", encoding="utf-8")
    result = run("decide", scored, "--policy", hasty)
    assert result.out == run("score", sample_path, "--model", tiny_path, "--policy", hasty).out
    assert result.out != scored.read_bytes()


def test_decide_loads_no_model(scored: Path, smoke_policy: Path) -> None:
    """Not one session is made, and no model folder is needed."""
    before = (
        "import sys, types\n"
        "fake = types.ModuleType('onnxruntime')\n"
        "def refuse(*args, **kwargs): raise AssertionError('decide made a session')\n"
        "fake.InferenceSession = fake.SessionOptions = refuse\n"
        "sys.modules['onnxruntime'] = fake\n"
        "import lastresort.artifact\n"
        "lastresort.artifact.load_folder = lastresort.artifact.shipped_model = refuse"
    )
    result = command("decide", scored, "--policy", smoke_policy, before=before)
    assert (result.code, result.err) == (0, "")
    assert result.out == scored.read_bytes()


def test_decide_works_without_a_runtime(scored: Path, smoke_policy: Path) -> None:
    result = command("decide", scored, "--policy", smoke_policy, before="import sys\nsys.modules['onnxruntime'] = None")
    assert (result.code, result.err, result.out) == (0, "", scored.read_bytes())


def test_decide_needs_the_labels_that_the_policy_reads(run: Run, scored: Path, root: Path) -> None:
    result = run("decide", scored, "--policy", root / "configs" / "policy" / "default.yaml")
    assert (result.code, result.out) == (1, b"")
    assert "sexual_minors" in result.err


def test_decide_refuses_scores_that_are_no_probabilities(run: Run, scored: Path, smoke_policy: Path) -> None:
    first = scored.read_bytes().splitlines()[0]
    for number in (b"NaN", b"Infinity", b"1e999", b"1.5", b"-0.1", b"null"):
        result = run("decide", "-", "--policy", smoke_policy, stdin=re.sub(rb'"harm": [0-9.e-]+', b'"harm": ' + number, first, count=1))
        assert (result.code, result.out) == (1, b""), number
        assert result.err.startswith("error: ")


# --- policies, models, usage


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("triggers: [harm]\nthresholds: {default: {enter: 0.5, release: 0.3}}\npatience: 3\n", "patience: found this key, expected no such setting"),
        ("triggers: [harm]\n", "thresholds: found nothing, expected this setting"),
        ("triggers: [harm]\nthresholds: {default: {enter: 2, release: 0.3}}\n", "thresholds.default"),
        ("triggers: [harm\n", "found no valid YAML"),
        ("triggers: [boredom]\nthresholds: {default: {enter: 0.5, release: 0.3}}\n", "boredom"),
    ],
)
def test_a_bad_policy_is_an_error_that_names_file_and_key(run: Run, text: str, message: str, sample_path: Path, tiny_path: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "policy.yaml", tmp_path / "out.jsonl"
    path.write_text(text, encoding="utf-8")
    result = run("score", sample_path, "--model", tiny_path, "--policy", path, "-o", out)
    assert (result.code, result.out) == (1, b"")
    assert message in result.err
    assert "boredom" in text or str(path) in result.err
    assert not out.exists()


def test_a_truncated_model_and_a_wrong_hash(run: Run, sample_path: Path, tiny_path: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_path, tmp_path / "model"))
    raw = (folder / MODEL).read_bytes()
    (folder / MODEL).write_bytes(raw[:-1])
    for arguments in (("score", sample_path, "--model", folder), ("evaluate", sample_path, "--model", folder), ("inspect", folder)):
        result = run(*arguments)
        assert (result.code, result.out) == (1, b"")
        assert re.search(rf"model\.onnx: found sha256 .* \({len(raw) - 1} bytes\), expected .*: the file is truncated or altered", result.err)
    (folder / MODEL).write_bytes(raw)
    manifest = read_manifest(folder)
    write_manifest(folder, replace(manifest, files={**manifest.files, "tokenizer.json": "0" * 64}))
    result = run("score", sample_path, "--model", folder)
    assert result.code == 1
    assert re.search(r"tokenizer\.json: found sha256 .*, expected 000000000000…", result.err)
    (folder / MANIFEST).unlink()
    assert run("inspect", folder).code == 1


def test_exit_codes(run: Run, sample_path: Path, tiny_path: Path, tmp_path: Path) -> None:
    assert run("--version").out.decode() == f"lastresort {__version__}\n"
    assert run("--help").code == 0
    assert run("score", "--help").code == 0
    usage = [
        (),
        ("scor",),
        ("score",),
        ("score", sample_path, "--modle", tiny_path),
        ("score", sample_path, "--workers", 0),
        ("decide", sample_path),
        ("evaluate",),
    ]
    for arguments in usage:
        assert run(*arguments).code == 2, arguments
    for arguments in [
        ("score", tmp_path / "nowhere.jsonl", "--model", tiny_path),
        ("score", sample_path, tmp_path / "nowhere.jsonl", "--model", tiny_path, "-o", tmp_path / "out.jsonl"),
        ("score", tmp_path, "--model", tiny_path),
        ("score", sample_path, "--model", tmp_path / "nowhere"),
        ("score", sample_path, "--model", tiny_path, "-o", tmp_path),
        ("score", sample_path, "--model", tiny_path, "--policy", tmp_path / "nowhere.yaml"),
        ("decide", sample_path, "--policy", tmp_path / "nowhere.yaml"),
        ("evaluate", tmp_path / "nowhere.jsonl", "--model", tiny_path),
    ]:
        result = run(*arguments)
        assert (result.code, result.err[:7], "Traceback" in result.err) == (1, "error: ", False), arguments


def test_an_output_that_would_destroy_its_input_is_refused(run: Run, sample_path: Path, tiny_path: Path, smoke_policy: Path, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    shutil.copyfile(sample_path, path)
    (tmp_path / "link.jsonl").symlink_to(path)
    for arguments in [
        ("score", path, "--model", tiny_path, "-o", path),
        ("score", path, "--model", tiny_path, "-o", tmp_path / "link.jsonl"),
        ("score", path, "--model", tiny_path, "--skip-bad", path),
        ("score", path, "--model", tiny_path, "-o", tmp_path / "out.jsonl", "--skip-bad", tmp_path / "out.jsonl"),
        ("decide", path, "--policy", smoke_policy, "-o", path),
        ("evaluate", path, "--model", tiny_path, "-o", path),
    ]:
        result = run(*arguments)
        assert result.code == 1, arguments
        assert "expected different ones" in result.err
    assert path.read_bytes() == sample_path.read_bytes()
    assert run("score", path, "--model", tiny_path, "-o", os.devnull, "--skip-bad", os.devnull).code == 0


def test_standard_error_that_is_no_terminal_sees_no_progress(sample_path: Path, tiny_path: Path, scored: Path) -> None:
    result = command("score", sample_path, "--model", tiny_path, FORCE_COLOR="1", TERM="xterm")
    assert (result.code, result.err) == (0, "")
    assert result.out == scored.read_bytes()


def test_progress_is_shown_on_a_terminal_and_only_there(run: Run, sample_path: Path, tiny_path: Path, scored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    real = io.TextIOWrapper
    streams: list[Any] = []

    def wrapper(buffer: Any, encoding: str) -> Any:
        streams.append(real(buffer, encoding) if len(streams) != 1 else Terminal(buffer, encoding))  # the second is standard error
        return streams[-1]

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(io, "TextIOWrapper", wrapper)
    result = run("score", sample_path, "--model", tiny_path)
    assert "scoring" in result.err
    assert result.out == scored.read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGPIPE and no `head`")
@pytest.mark.parametrize("verb", ["score", "decide"])
def test_a_reader_that_goes_away_leaves_no_traceback(verb: str, tiny_path: Path, scored: Path, smoke_policy: Path, tmp_path: Path) -> None:
    """More than a pipe holds is written to a reader that closes at once, as `| head -1` does."""
    source = tmp_path / "many.jsonl"
    if verb == "score":
        source.write_bytes(good("c", *["hi"] * 50) * 100)
        arguments = ["score", str(source), "--model", str(tiny_path)]
    else:
        source.write_bytes(scored.read_bytes() * 10)
        arguments = ["decide", str(source), "--policy", str(smoke_policy)]
    with subprocess.Popen([sys.executable, "-m", "lastresort", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.readline()
        process.stdout.close()
        error = process.stderr.read()
        code = process.wait()
    assert json.loads(first)["model"].startswith("tiny@")
    assert error == b""
    assert code == 1


# --- the table


def test_the_table_shows_every_conversation_beside_the_lines(run: Run, sample_path: Path, tiny_path: Path, scored: Path, tmp_path: Path) -> None:
    result = run("score", sample_path, "--model", tiny_path, "-o", tmp_path / "out.jsonl", "--table")
    assert (result.code, result.err) == (0, "")
    assert (tmp_path / "out.jsonl").read_bytes() == scored.read_bytes()
    text = result.out.decode()
    for name in ("persistent-abuse: END at message 10", "persistent-abuse-apology: continue", "crisis-plain: continue"):
        assert name in text
    assert "redirect (harmful_turn)" in text
    assert "flour to cups" in text
    again = run("decide", tmp_path / "out.jsonl", "--policy", sample_path.parents[2] / "configs" / "policy" / "smoke.yaml", "-o", os.devnull, "--table")
    assert "END at message 10" in again.out.decode()
    assert "flour" not in again.out.decode()


def test_the_table_takes_ids_and_texts_as_they_are(run: Run, tiny_path: Path) -> None:
    """Brackets are no markup, and an id that stands twice mixes nothing up."""
    lines = good("[/red] [bold]x[/]", "[/] [link=x]no[/link]", "two") + good("twice", "first one", "of two") + good("twice", "second one")
    result = run("score", "-", "--model", tiny_path, "--table", "-o", os.devnull, stdin=lines)
    assert (result.code, result.err) == (0, "")
    text = result.out.decode()
    for part in ("[/red] [bold]x[/]: continue", "[/] [link=x]no[/link]", "first one", "of two", "second one"):
        assert part in text
    assert text.index("of two") < text.index("second one")


# --- evaluate


def test_evaluate_writes_json_and_a_table(run: Run, sample_path: Path, tiny_path: Path, sample: dict[str, Dialogue], tmp_path: Path) -> None:
    result = run("evaluate", sample_path, "--model", tiny_path, "-o", tmp_path / "metrics.json", "--any", "assistant_abuse, harm")
    assert (result.code, result.err) == (0, "")
    record = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert list(record) == ["model", "data", "rows"]
    assert record["data"] == ["dialogues.jsonl"]
    keys = [
        "scorer",
        "label",
        "source",
        "n",
        "positives",
        "prevalence",
        "average_precision",
        "f1",
        "macro_f1",
        "flagged",
        "recall_at_1_fpr",
        "ece",
        "ece_by_chance",
        "threshold",
    ]
    assert all(list(row) == keys for row in record["rows"])
    assert {row["scorer"] for row in record["rows"]} == {record["model"]}
    assert {row["source"] for row in record["rows"]} == {"all", "sample"}
    (group,) = [row for row in record["rows"] if (row["label"], row["source"]) == ("assistant_abuse|harm", "all")]
    assert (group["n"], group["threshold"]) == (sum(m.role == "user" for d in sample.values() for m in d.messages), None)
    for word in ("redirection", "prevalence", "R@1%FPR", "macro-F1", "ECE", "tiny@"):
        assert word in result.out.decode()
    pooled = run("evaluate", sample_path, "--model", tiny_path, "-o", "-", "--pooled")
    assert {row["source"] for row in json.loads(pooled.out)["rows"]} == {"all"}


def test_evaluate_takes_stored_scores_and_baselines(run: Run, sample_path: Path, tiny_path: Path, scored: Path, tmp_path: Path) -> None:
    now = json.loads(run("evaluate", sample_path, "--model", tiny_path, "-o", "-").out)
    stored = json.loads(run("evaluate", sample_path, "--model", tiny_path, "--scored", scored, "-o", "-").out)
    assert stored == now
    records = [json.loads(text) for text in scored.read_text(encoding="utf-8").splitlines()]
    other = tmp_path / "other.jsonl"
    other.write_text("".join(dumps({**record, "model": name}) + "\n" for name in ("one", "two") for record in records), encoding="utf-8")
    both = json.loads(run("evaluate", sample_path, "--model", tiny_path, "--scored", scored, "--baseline", other, "-o", "-").out)
    by_scorer = {name: [{**row, "scorer": ""} for row in both["rows"] if row["scorer"] == name] for name in (now["model"], "one", "two")}
    assert by_scorer["one"] == by_scorer["two"] == by_scorer[now["model"]]
    assert sum(map(len, by_scorer.values())) == len(both["rows"])
    refused = run("evaluate", sample_path, "--model", tiny_path, "--scored", other, "-o", "-")
    assert (refused.code, refused.out) == (1, b"")
    assert f"found scores of one, two, expected those of {now['model']}" in refused.err


def test_evaluate_refuses_what_cannot_be_compared(run: Run, sample_path: Path, tiny_path: Path, scored: Path, tmp_path: Path) -> None:
    lines = scored.read_bytes().splitlines(keepends=True)
    (tmp_path / "few.jsonl").write_bytes(b"".join(lines[:-2]))
    (tmp_path / "empty.jsonl").write_bytes(b"")
    short = json.loads(lines[0])
    short["turns"].pop()
    (tmp_path / "short.jsonl").write_bytes(json.dumps(short).encode() + b"\n" + b"".join(lines[1:]))
    for arguments, message in [
        (("--scored", tmp_path / "few.jsonl"), "found no scores for 2 of 31 dialogues"),
        (("--baseline", tmp_path / "few.jsonl"), "found no scores for 2 of 31 dialogues"),
        (("--scored", tmp_path / "short.jsonl"), "found 11 turns for the 12 messages"),
        (("--any", "assistant_abuse,boredom"), "found boredom, expected labels of the model"),
        ((sample_path,), "found 62 dialogues with 31 ids"),
    ]:
        result = run("evaluate", sample_path, "--model", tiny_path, *arguments)
        assert (result.code, result.err[:7]) == (1, "error: "), arguments
        assert message in result.err
    result = run("evaluate", tmp_path / "empty.jsonl", "--model", tiny_path)
    assert (result.code, "found no dialogue, expected at least one" in result.err) == (1, True)


# --- inspect


def test_inspect_shows_a_verified_model(run: Run, tiny_path: Path, monitor: Monitor) -> None:
    result = run("inspect", tiny_path)
    assert (result.code, result.err) == (0, "")
    text = result.out.decode()
    assert monitor.model in text
    for label in monitor.scorer.manifest.labels:
        assert label.name in text
    record = json.loads(run("inspect", tiny_path, "--json").out)
    assert record["tag"] == monitor.model
    assert [label["name"] for label in record["labels"]] == [label.name for label in monitor.scorer.manifest.labels]
    assert record["memory_size"] == 16


def test_inspect_takes_names_as_they_are(run: Run, tiny_path: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_path, tmp_path / "[red]model"))
    manifest = read_manifest(folder)
    labels = (replace(manifest.labels[0], description="[/] text"), *manifest.labels[1:])
    write_manifest(folder, replace(manifest, name="[/x]", labels=labels))
    result = run("inspect", folder)
    assert (result.code, result.err) == (0, "")
    assert "[/x]@" in result.out.decode()
    assert "[red]model" in result.out.decode()


# --- the whole, in a fresh process


def test_the_module_runs_with_every_verb() -> None:
    result = command("--help")
    assert (result.code, result.err) == (0, "")
    for verb in ("score", "decide", "train", "export", "evaluate", "inspect"):
        assert re.search(rf"\b{verb}\b", result.out.decode())


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("train", ["configs/train/smoke.yaml"]),
        ("export", ["runs/none", "-o", "models/none"]),
        ("baselines", ["a.jsonl", "--validation", "b.jsonl", "-o", "c.jsonl"]),
    ],
)
def test_without_torch_the_training_verbs_name_the_extra(verb: str, arguments: list[str], root: Path) -> None:
    before = (
        "import sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'transformers', 'datasets', 'accelerate', 'onnx', 'sklearn', 'safetensors'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Blocked())"
    )
    paths = [str(root / argument) if argument.startswith("configs") else argument for argument in arguments]
    result = command(verb, *paths, before=before)
    assert result.code == 1
    assert re.fullmatch(rf"error: {verb} needs \w+, which is not installed: pip install 'lastresort\[train\]'\n", result.err)


def test_without_torch_everything_else_works(sample_path: Path, tiny_path: Path, scored: Path) -> None:
    before = "import sys\nfor name in ('torch', 'transformers', 'datasets', 'accelerate', 'onnx', 'sklearn'): sys.modules[name] = None"
    result = command("score", sample_path, "--model", tiny_path, before=before)
    assert (result.code, result.err, result.out) == (0, "", scored.read_bytes())


def test_the_policy_that_ships_with_the_smoke_config_is_the_tiny_model_s(tiny_path: Path, smoke_policy: Path) -> None:
    assert load(tiny_path).policy.config == read_policy(smoke_policy)


def test_the_sample_is_read_whole(sample_path: Path, sample: dict[str, Dialogue]) -> None:
    assert len(list(read_dialogues(sample_path))) == len(sample) >= 30


# --- explain


def test_explain_prints_the_course_without_any_text(run: Run, scored: Path) -> None:
    result = run("explain", scored, "--id", "persistent-abuse")
    text = result.out.decode()
    assert (result.code, result.err) == (0, "")
    assert text.splitlines()[0].startswith("persistent-abuse  end at message 10  tiny@")
    assert [word in text for word in ("redirect", "warn", "END", "the harm went on after the warning", "2 more", "warnings 1/1")] == [True] * 6
    assert "useless" not in text


def test_explain_prints_the_text_only_if_asked_and_given_the_dialogues(run: Run, scored: Path, sample_path: Path, tmp_path: Path) -> None:
    asked = run("explain", scored, "--id", "persistent-abuse", "--dialogues", sample_path, "--with-text")
    assert "useless piece of junk" in " ".join(asked.out.decode().replace("│", " ").split())
    assert "useless" not in run("explain", scored, "--id", "persistent-abuse", "--dialogues", sample_path).out.decode()
    assert run("explain", scored, "--id", "persistent-abuse", "--with-text").code == 2
    (tmp_path / "other.jsonl").write_bytes(good("persistent-abuse", "only this"))
    wrong = run("explain", scored, "--id", "persistent-abuse", "--with-text", "--dialogues", tmp_path / "other.jsonl")
    assert (wrong.code, "found 1 messages in 'persistent-abuse', expected the 12 that were scored" in wrong.err) == (1, True)
    missing = run("explain", scored, "--id", "persistent-abuse-apology", "--with-text", "--dialogues", tmp_path / "other.jsonl")
    assert (missing.code, "found no dialogue with id 'persistent-abuse-apology'" in missing.err) == (1, True)


def test_explain_takes_the_only_conversation_and_asks_which_of_several(run: Run, scored: Path) -> None:
    line = scored.read_bytes().splitlines(keepends=True)[0]
    assert run("explain", "-", stdin=line).code == 0
    assert "found more than one conversation, expected --id" in run("explain", scored).err
    assert "found no conversation with id 'nobody'" in run("explain", scored, "--id", "nobody").err
    assert "found no conversation, expected one" in run("explain", "-", stdin=b"").err


def test_explain_decides_again_with_another_policy_or_mode(run: Run, scored: Path, smoke_policy: Path) -> None:
    result = run("explain", scored, "--id", "persistent-abuse", "--policy", smoke_policy, "--mode", "shadow")
    assert "would end at message 10" in result.out.decode()
    assert "withheld" in result.out.decode()


def test_lines_of_the_first_version_can_still_be_read(run: Run, scored: Path, smoke_policy: Path) -> None:
    """Without the keys that came later: decided again they gain them."""
    records = [json.loads(text) for text in scored.read_bytes().splitlines()]
    old = []
    for record in records:
        turns = [
            {**turn, "decision": turn["decision"] and {name: turn["decision"][name] for name in ("call", "advice", "reason", "category", "evidence")}}
            for turn in record["turns"]
        ]
        old.append({**{name: record[name] for name in ("id", "model", "call", "ended_at")}, "turns": turns})
    raw = b"".join(dumps(record).encode() + b"\n" for record in old)
    assert run("explain", "-", "--id", "persistent-abuse", stdin=raw).code == 0
    again = run("decide", "-", "--policy", smoke_policy, stdin=raw).records
    assert [{**record, "source": "", "meta": {}} for record in records] == again


@pytest.mark.parametrize("verb", ["score", "decide"])
def test_mode_says_how_far_decisions_act(run: Run, verb: str, scored: Path, sample_path: Path, tiny_path: Path, smoke_policy: Path) -> None:
    arguments = (sample_path, "--model", tiny_path) if verb == "score" else (scored, "--policy", smoke_policy)
    by_mode = {mode: run(verb, *arguments, "--mode", mode).records for mode in ("off", "shadow", "advise", "enforce")}
    assert run(verb, *arguments).records == by_mode["enforce"]
    ends = {mode: [(r["ended_at"], r["would_end_at"]) for r in records if r["id"] == "persistent-abuse"] for mode, records in by_mode.items()}
    assert ends == {"off": [(None, None)], "shadow": [(None, 10)], "advise": [(None, 10)], "enforce": [(10, None)]}
    assert run(verb, *arguments, "--mode", "on").code == 2


# --- calibrate, audit


@pytest.fixture
def own_model(tiny_path: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that may be changed."""
    return Path(shutil.copytree(tiny_path, tmp_path / "own"))


@pytest.fixture
def judged(own_model: Path, tmp_path: Path) -> Path:
    """Scored conversations with their truth: 80 that must go on, 40 that should end, with scores that say so."""
    tag = read_manifest(own_model).tag
    low = {"assistant_abuse": 0.0, "harm": 0.0, "self_harm_risk": 0.0, "end_request": 0.0, "persistence": 0.0}
    high = {**low, "assistant_abuse": 0.8, "harm": 0.8, "persistence": 0.9}
    records = []
    for number in range(120):
        end = number % 3 == 0
        turns = [
            {"index": i, "role": "assistant" if i % 2 else "user", "scores": {"redirection": 0.9} if i % 2 else high if end else low, "windows": 1}
            for i in range(10)
        ]
        meta = {"call": "end", "justified_at": 8} if end else {"call": "continue", "kind": "chat"}
        records.append({"id": f"c{number}", "model": tag, "call": "continue", "ended_at": None, "turns": turns, "source": "made", "meta": meta})
    path = tmp_path / "judged.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


CLAIM = ("--max-false-end-rate", "0.1", "--population", "made up ones")


def test_calibrate_writes_certificate_and_policy_and_inspect_shows_them(run: Run, judged: Path, own_model: Path, tmp_path: Path) -> None:
    assert "no certificate" in run("inspect", own_model).out.decode()
    result = run("calibrate", judged, "--model", own_model, "-o", tmp_path / "certified.yaml", *CLAIM)
    assert (result.code, result.err) == (0, "")
    certificate = json.loads((own_model / "certificate.json").read_text(encoding="utf-8"))
    manifest = read_manifest(own_model)
    assert (certificate["population"], certificate["errors"], certificate["end_recall"]) == ("made up ones", 0, 1.0)
    assert certificate["bound"] <= certificate["max_false_end_rate"] == 0.1
    assert (certificate["digest"], certificate["model"]) == (manifest.digest, manifest.tag)
    assert certificate["policy"] == dict(manifest.policy)
    assert (certificate["kinds"], certificate["sources"]) == ({"chat": certificate["n"]}, {"made": [certificate["n"], 0]})
    assert read_policy(tmp_path / "certified.yaml") == load(own_model).policy.config
    assert "Certified: at most 10.000% false ends at 95%" in (tmp_path / "certified.yaml").read_text(encoding="utf-8").splitlines()[0]
    shown = run("inspect", own_model)
    assert "at most 10.000% of such conversations are ended falsely, with confidence 95%" in shown.out.decode()
    assert "it holds for the model's own policy" in shown.out.decode()
    assert json.loads(run("inspect", own_model, "--json").out)["certificate"] == certificate


def test_calibrate_can_leave_the_model_alone_and_take_a_policy_as_it_is(run: Run, judged: Path, own_model: Path, smoke_policy: Path) -> None:
    before = {path.name: path.read_bytes() for path in own_model.iterdir()}
    result = run("calibrate", judged, "--model", own_model, "--policy", smoke_policy, "--as-is", "--dry-run", "--kind", "chat", *CLAIM)
    assert result.code == 0
    assert "0 of 80 that must go on were ended" in result.out.decode()
    assert {path.name: path.read_bytes() for path in own_model.iterdir()} == before


def test_calibrate_says_why_it_certifies_nothing(run: Run, judged: Path, own_model: Path, tmp_path: Path) -> None:
    few = run("calibrate", judged, "--model", own_model, "--population", "p")
    assert (few.code, "expected at least 2995" in few.err) == (1, True)
    records = [json.loads(line) for line in judged.read_text(encoding="utf-8").splitlines()]
    for record in records:
        record["meta"]["call"] = "continue"
    wrong = "".join(json.dumps(record) + "\n" for record in records).encode()
    none = run("calibrate", "-", "--model", own_model, "--as-is", *CLAIM, stdin=wrong)
    assert (none.code, "found 40 false ends by the strictest candidate" in none.err) == (1, True)
    other = run("calibrate", "-", "--model", own_model, *CLAIM, stdin=json.dumps({**records[0], "model": "x@1"}).encode())
    assert (other.code, "'c0': model: found x@1, expected tiny@" in other.err) == (1, True)
    assert not (own_model / "certificate.json").exists()
    assert run("calibrate", judged, "--model", own_model).code == 2  # a claim without a population is none


def test_audit_watches_the_certified_limit(run: Run, judged: Path, own_model: Path) -> None:
    missing = run("audit", "-", "--model", own_model)
    assert (missing.code, "found no certificate in the model folder" in missing.err) == (1, True)
    run("calibrate", judged, "--model", own_model, *CLAIM)
    lines = [{"id": f"c{number}", "ended": number % 20 == 0, "justified": False} for number in range(100)]
    fine = run("audit", "-", "--model", own_model, stdin="".join(json.dumps(line) + "\n" for line in lines).encode())
    assert (fine.code, fine.err) == (0, "")
    assert fine.out.decode().startswith("5 false ends in 100 audited conversations that should have gone on; limit 10.000%")
    worse = [{**line, "ended": True} for line in lines]
    alarm = run("audit", "-", "--model", own_model, stdin="".join(json.dumps(line) + "\n" for line in worse).encode())
    assert alarm.code == 1
    assert re.search(r"error: found 100 false ends in 100 .*, alarming as of 'c\d'; expected at most 10\.000% at 95%", alarm.err)
    assert run("audit", "-", "--max-false-end-rate", "0.9", "--model", own_model, stdin=b'{"id": "a", "ended": true, "justified": false}').code == 0
    bad = run("audit", "-", "--model", own_model, stdin=b'{"id": "a", "ended": "yes"}')
    assert (bad.code, "<stdin>:1: ended: found a string of 3 characters" in bad.err) == (1, True)


# --- evaluate --conversations


def test_evaluate_measures_conversations(run: Run, sample_path: Path, tiny_path: Path, scored: Path, tmp_path: Path) -> None:
    result = run("evaluate", sample_path, "--model", tiny_path, "--scored", scored, "--conversations", "-o", tmp_path / "courses.json")
    assert (result.code, result.err) == (0, "")
    record = json.loads((tmp_path / "courses.json").read_text(encoding="utf-8"))
    rows = {(row["group"], row["name"]): row["metrics"] for row in record["conversations"]}
    assert list(rows) == [("all", "all"), ("source", "sample")]
    assert (rows["all", "all"]["false_ends"], rows["all", "all"]["veto_violations"], rows["all", "all"]["n"]) == (0, 0, 31)
    assert rows["all", "all"]["ended"] >= 3
    assert "violations" in result.out.decode()
    alone = run("evaluate", sample_path, "--model", tiny_path, "--conversations", "--pooled", "-o", "-")
    assert [row["name"] for row in json.loads(alone.out)["conversations"]] == ["all"]
    assert json.loads(alone.out)["conversations"][0]["metrics"] == rows["all", "all"]


# --- report


def test_report_writes_one_page(run: Run, scored: Path, sample_path: Path, tiny_path: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    result = run("report", scored, "-o", page, "--model", tiny_path, "--dialogues", sample_path)
    assert (result.code, result.out, result.err) == (0, b"", "")
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert "average precision" in text
    assert "useless piece of junk" not in text
    run("report", scored, "-o", page, "--model", tiny_path, "--dialogues", sample_path, "--with-text", "--notable", "100")
    assert "useless piece of junk" in page.read_text(encoding="utf-8")


def test_report_refuses_what_does_not_fit(run: Run, scored: Path, tiny_path: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert run("report", scored, "-o", page, "--with-text").code == 2
    empty = run("report", "-", "-o", page, stdin=b"")
    assert (empty.code, "found no conversation, expected at least one" in empty.err) == (1, True)
    other = run("report", "-", "-o", page, "--model", tiny_path, stdin=scored.read_bytes().replace(b"tiny@", b"huge@"))
    assert (other.code, "found scores of huge@" in other.err) == (1, True)
    same = run("report", scored, "-o", scored)
    assert (same.code, "found the same file" in same.err) == (1, True)
    assert not page.exists()
    assert run("report", "-", "-o", page, stdin=scored.read_bytes().replace(b"tiny@", b"huge@")).code == 0  # without the model: by the names in the scores
