"""Runs that are cut off: by kills at every point, by signals, a full disk, bad lines and damaged inputs; what was finished is kept, once."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lastresort.batch import OtherRun, Parts, Stopped, inputs_of, score_to_file
from lastresort.conversation import Monitor
from lastresort.errors import DataError, ScoringError
from lastresort.policy import DecisionPolicy
from lastresort.types import Dialogue

BAD = b'{"id": "bad", "messages": "xyzzy"}'
needs_posix = pytest.mark.skipif(os.name == "nt", reason="Windows has neither fork nor signals of this kind")


def line(number: int, length: int = 3) -> bytes:
    words = ["hello there", "you useless thing", "thank you", "I will not help with insults", "flour and salt"]
    messages = [{"role": "assistant" if turn % 2 else "user", "content": words[(number * 7 + turn * 3) % 5]} for turn in range(length)]
    return json.dumps({"id": f"c{number}", "messages": messages}).encode() + b"\n"


def lines(count: int) -> list[bytes]:
    return [line(number, 1 + number % 5) for number in range(count)]


def complete(monitor: Monitor, source: Path | Iterable[Path], output: Path, **options: Any) -> list[str]:
    """Runs to the end and returns the ids that were new."""
    paths = [source] if isinstance(source, Path) else source
    new = [outcome.dialogue.id for outcome in score_to_file(monitor, inputs_of(paths), output, **options) if outcome.dialogue is not None]
    assert not output.with_name(output.name + ".parts").exists()
    return new


def cut_off(monitor: Monitor, source: Path, output: Path, after: int, **options: Any) -> Path:
    """Runs until `after` outcomes were written, as a kill leaves it; returns the folder of shards."""
    run = score_to_file(monitor, inputs_of([source]), output, **{"shard_turns": 10, **options})
    for _ in range(after):
        next(run)
    run.close()  # type: ignore[attr-defined]
    return output.with_name(output.name + ".parts")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"".join(lines(40)))
    return path


@pytest.fixture
def whole(monitor: Monitor, source: Path, tmp_path: Path) -> bytes:
    """The output of a run that nothing disturbed."""
    complete(monitor, source, tmp_path / "whole.jsonl")
    return (tmp_path / "whole.jsonl").read_bytes()


# --- kills

LIVES = r"""
import json, os, signal, sys
from pathlib import Path

from lastresort import batch, cli, conversation, data, files  # before the fork; no session is made here
import numpy, onnxruntime, pyarrow.parquet, tokenizers

cli._add_plugin_verbs = lambda: None
POINTS = ("fsync", "replace", "rename", "unlink", "rmdir")


def life(arguments, kill_at, log):
    # Scores, killed by the system just before the call number `kill_at` of those that score a conversation or change the disk for good.
    points = 0

    def point(function):
        def call(*args, **kwargs):
            nonlocal points
            points += 1
            if points == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)
        return call

    def noted(function):
        def call(self, dialogue, mode):
            os.write(log, dialogue.id.encode() + b"\n")
            return function(self, dialogue, mode)
        return call

    conversation.Monitor.score = point(noted(conversation.Monitor.score))
    for name in POINTS:
        setattr(os, name, point(getattr(os, name)))
    sys.argv = ["lastresort", *arguments]
    sys.stderr = open(os.devnull, "w")
    try:
        cli.main()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    os.write(log, b"points %d\n" % points)
    os._exit(code)


for plan in json.loads(sys.stdin.read()):
    folder = Path(plan["output"] + ".parts")
    lives = []
    for kill_at in plan["kills"]:
        kept = sum(json.loads(mark.read_text())["conversations"] for mark in folder.glob("0*.json"))
        log = os.open(plan["log"], os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        child = os.fork()
        if child == 0:
            life(plan["arguments"], kill_at, log)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.close(log)
        scored = Path(plan["log"]).read_text().splitlines()
        lives.append({"status": status, "kept": kept, "scored": [name for name in scored if name[0] == "c"], "points": scored[-1] if scored else ""})
        if status == 0:
            break
    print(json.dumps(lives), flush=True)
"""


def live(plans: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Plays lives of the command, one process each, ended by real kills."""
    done = subprocess.run([sys.executable, "-c", LIVES], input=json.dumps(plans), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(text) for text in done.stdout.splitlines()]


def check_lives(lives: list[dict[str, Any]]) -> int:
    """Each ended by the kill or well; none scored again what was finished. Returns the number of kills."""
    assert [life["status"] for life in lives] == [-signal.SIGKILL] * (len(lives) - 1) + [0]
    for life in lives:
        assert all(int(name[1:]) >= life["kept"] for name in life["scored"])
    return len(lives) - 1


@needs_posix
def test_a_kill_at_random_points_loses_and_repeats_nothing(tiny_path: Path, tmp_path: Path) -> None:
    """A few hundred conversations with bad lines among them, killed again and again, in every format: in the end the bytes of a run that nothing disturbed."""
    good = lines(300)
    raw = b"".join(text + (BAD + b"\n" if number % 11 == 3 else b"") for number, text in enumerate(good)) + BAD
    (tmp_path / "in.jsonl").write_bytes(raw)
    random_ = random.Random(7)
    plans = []
    suffixes = [".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"]
    for suffix in suffixes:
        for name in ("whole", "cut"):
            output, bad = tmp_path / f"{name}{suffix}", tmp_path / f"{name}{suffix}.bad"
            arguments = ["score", tmp_path / "in.jsonl", "-o", output, "--model", tiny_path, "--shard-turns", 100, "--workers", 2, "--skip-bad", bad]
            kills = [random_.randrange(3, 130) for _ in range(7)] if name == "cut" else []
            plans.append({"output": str(output), "kills": [*kills, 0], "log": str(tmp_path / "log"), "arguments": [str(part) for part in arguments]})
    lives = live(plans)
    for suffix, whole, cut in zip(suffixes, lives[::2], lives[1::2], strict=True):
        assert check_lives(whole) == 0
        assert check_lives(cut) == 7, suffix
        assert max(life["kept"] for life in cut) > 0
        assert (tmp_path / f"cut{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
        assert (tmp_path / f"cut{suffix}.bad").read_bytes() == b"".join([BAD + b"\n"] * 28)
    assert [json.loads(text)["id"] for text in (tmp_path / "cut.jsonl").read_bytes().splitlines()] == [f"c{number}" for number in range(300)]
    assert sorted(path.name for path in tmp_path.iterdir() if "cut" in path.name) == sorted(f"cut{suffix}{end}" for suffix in suffixes for end in ("", ".bad"))


@needs_posix
def test_a_kill_at_any_point_of_a_short_run(tiny_path: Path, tmp_path: Path) -> None:
    """Every call that makes something last, in turn; then a run to the end."""
    (tmp_path / "in.jsonl").write_bytes(b"".join(lines(6)[:4]) + BAD + b"\n" + b"".join(lines(6)[4:]))

    def plan(number: int, *kills: int) -> dict[str, Any]:
        output, bad = tmp_path / f"{number}.jsonl", tmp_path / f"{number}.bad"
        arguments = ["score", tmp_path / "in.jsonl", "-o", output, "--model", tiny_path, "--shard-turns", 12, "--workers", 1, "--skip-bad", bad]
        return {"output": str(output), "kills": [*kills, 0], "log": str(tmp_path / "log"), "arguments": [str(part) for part in arguments]}

    ((whole,),) = live([plan(0)])
    points = int(whole["points"].split()[1])
    assert points > 30
    for lives in live([plan(number, number) for number in range(1, points + 1)]):
        assert check_lives(lives) == 1
    for number in range(1, points + 1):
        assert (tmp_path / f"{number}.jsonl").read_bytes() == (tmp_path / "0.jsonl").read_bytes(), number
        assert (tmp_path / f"{number}.bad").read_bytes() == BAD + b"\n", number
    assert {path.suffix for path in tmp_path.iterdir()} == {".jsonl", ".bad", ""}  # and the log


# --- signals


def command(*arguments: object, before: str = "") -> subprocess.CompletedProcess[str]:
    code = f"import os, resource, signal, sys\n{before}\nfrom lastresort import cli\ncli._add_plugin_verbs = lambda: None\ncli.main()"
    return subprocess.run([sys.executable, "-W", "error", "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False)


SIGNAL_AT = """
from lastresort.conversation import Monitor
score, calls = Monitor.score, []
def signalled(self, dialogue, mode):
    calls.append(1)
    for number in {signals!r}.get(len(calls), ()):
        signal.raise_signal(number) if {here} else os.kill(os.getpid(), number)
    return score(self, dialogue, mode)
Monitor.score = signalled
"""


@needs_posix
@pytest.mark.parametrize(("number", "code"), [(int(signal.SIGINT), 130), (int(signal.SIGTERM), 143)])
def test_a_signal_keeps_what_is_finished_and_says_how_to_go_on(
    number: int, code: int, monitor: Monitor, source: Path, whole: bytes, tiny_path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    before = SIGNAL_AT.format(signals={20: [number]}, here=False)
    done = command("score", source, "-o", out, "--model", tiny_path, "--workers", 2, before=before)
    assert done.returncode == code
    found = re.fullmatch(
        rf"stopped before the end; (\d+) conversations before it are kept in {re.escape(str(out))}\.parts: run the same .* go on\n", done.stderr
    )
    assert found, done.stderr
    assert 12 <= int(found[1]) <= 28
    assert not out.exists()
    new = complete(monitor, source, out)
    assert new[0] == f"c{found[1]}"
    assert out.read_bytes() == whole


@needs_posix
def test_a_second_signal_stops_at_once(monitor: Monitor, source: Path, whole: bytes, tiny_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    before = SIGNAL_AT.format(signals={20: [int(signal.SIGINT)] * 2}, here=True)
    done = command("score", source, "-o", out, "--model", tiny_path, "--workers", 1, "--shard-turns", 10, before=before)
    assert (done.returncode, done.stderr) == (130, "stopped at once; what was finished is kept: run the same command again to go on\n")
    new = complete(monitor, source, out)
    assert 0 < 40 - len(new) < 20
    assert out.read_bytes() == whole


# --- a full disk


@needs_posix
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"])
def test_a_disk_that_is_full_in_the_middle(suffix: str, monitor: Monitor, tiny_path: Path, tmp_path: Path) -> None:
    """Simulated by the largest size a file may have: it takes the first shards, not a later one."""
    source, out, whole = tmp_path / "in.jsonl", tmp_path / f"out{suffix}", tmp_path / f"whole{suffix}"
    source.write_bytes(b"".join([line(number, 10) for number in range(8)] + [line(8, 600)] + [line(9, 3)]))
    sizes = [path.stat().st_size for path in sorted(cut_off(monitor, source, whole, after=10, shard_turns=40).glob("0*.part"))]
    assert max(sizes[:2]) < sizes[2]
    limit = sizes[2] - 1
    complete(monitor, source, whole, shard_turns=40)
    out.write_bytes(b"what was there")
    arguments = ("score", source, "-o", out, "--model", tiny_path, "--shard-turns", 40)
    done = command(*arguments, before=f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))")
    assert done.returncode == 1
    where = re.escape(str(out))
    assert re.fullmatch(rf"error: {where}: cannot be written: .*; 8 conversations before it are kept in {where}\.parts: run the same .*\n", done.stderr), (
        done.stderr
    )
    assert out.read_bytes() == b"what was there"
    again = command(*arguments)
    assert (again.returncode, again.stderr) == (0, "goes on after 8 conversations that an earlier run finished; --restart begins anew\n")
    assert out.read_bytes() == whole.read_bytes()


@needs_posix
def test_a_disk_that_is_full_at_the_very_end(source: Path, whole: bytes, tiny_path: Path, tmp_path: Path) -> None:
    """Every shard fits, all of them together do not."""
    out = tmp_path / "out.jsonl"
    arguments = ("score", source, "-o", out, "--model", tiny_path, "--shard-turns", 20)
    done = command(*arguments, before=f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(whole) - 1}, {len(whole) - 1}))")
    assert (done.returncode, done.stderr.count("40 conversations before it are kept")) == (1, 1)
    assert [path.name for path in tmp_path.glob("out*")] == ["out.jsonl.parts"]
    assert command(*arguments).returncode == 0
    assert out.read_bytes() == whole


@needs_posix
def test_a_disk_that_is_full_from_the_start_leaves_nothing(source: Path, tiny_path: Path, tmp_path: Path) -> None:
    done = command("score", source, "-o", tmp_path / "out.jsonl", "--model", tiny_path, before="resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))")
    assert (done.returncode, done.stderr[:7], "cannot be written: " in done.stderr, "Traceback" in done.stderr) == (1, "error: ", True, False)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_stream_that_takes_nothing(source: Path, tiny_path: Path) -> None:
    done = command("score", source, "-o", "/dev/full", "--model", tiny_path)
    assert (done.returncode, done.stderr) == (1, "error: /dev/full: cannot be written: No space left on device\n")
    code = "import sys\nfrom lastresort.cli import main\nmain()"
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - as a shell redirects
        done = subprocess.run(
            [sys.executable, "-c", code, "score", str(source), "--model", str(tiny_path)], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (1, "error: <stdout>: cannot be written: No space left on device\n")


# --- bad lines and bad inputs


def test_a_bad_first_line_leaves_the_output_as_it_was(monitor: Monitor, source: Path, tmp_path: Path) -> None:
    source.write_bytes(BAD + b"\n" + source.read_bytes())
    out = tmp_path / "out.jsonl"
    out.write_bytes(b"what was there")
    with pytest.raises(DataError, match=r"in\.jsonl:1: messages: found a string of 5 characters, expected: a list$"):
        complete(monitor, source, out)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"in.jsonl": source.read_bytes(), "out.jsonl": b"what was there"}


def test_after_a_bad_line_is_corrected_the_run_goes_on(monitor: Monitor, source: Path, whole: bytes, tmp_path: Path) -> None:
    out, good = tmp_path / "out.jsonl", lines(40)
    source.write_bytes(b"".join([*good[:25], BAD + b"\n", *good[26:]]))
    with pytest.raises(DataError, match=r"in\.jsonl:26: messages: .*; 25 conversations before it are kept in .*out\.jsonl\.parts: run the same command again"):
        complete(monitor, source, out, shard_turns=30)
    assert out.read_bytes() == b"".join(whole.splitlines(keepends=True)[:25])
    with pytest.raises(DataError, match=r"in\.jsonl:26"):
        complete(monitor, source, out)
    source.write_bytes(b"".join(good))
    assert complete(monitor, source, out) == [f"c{number}" for number in range(25, 40)]
    assert out.read_bytes() == whole


def test_or_is_skipped_it_goes_on_too_and_the_bad_line_is_kept_once(monitor: Monitor, source: Path, whole: bytes, tmp_path: Path) -> None:
    out, bad = tmp_path / "out.jsonl", tmp_path / "bad.jsonl"
    good = lines(40)
    source.write_bytes(b"".join([*good[:25], BAD + b"\r\n", *good[25:], BAD]))
    with pytest.raises(DataError, match=r"in\.jsonl:26"):
        complete(monitor, source, out)
    folder = cut_off(monitor, source, out, after=12, skip_bad=bad)
    assert len(list(folder.glob("*.bad"))) == 1
    with pytest.raises(OtherRun, match="found 1 skipped lines of an earlier run, expected --skip-bad to keep them, or --restart"):
        complete(monitor, source, out)
    complete(monitor, source, out, skip_bad=bad)
    assert (out.read_bytes(), bad.read_bytes()) == (whole, BAD + b"\r\n" + BAD + b"\n")


def test_an_input_that_breaks_off_keeps_what_came_before(monitor: Monitor, source: Path, whole: bytes, tmp_path: Path) -> None:
    packed, out = tmp_path / "in.jsonl.gz", tmp_path / "out.jsonl"
    raw = gzip.compress(source.read_bytes(), mtime=0)
    packed.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(DataError, match=r"in\.jsonl\.gz: cannot be read: .*; \d+ conversations before it are kept"):
        complete(monitor, packed, out)
    kept = out.read_bytes()
    assert whole.startswith(kept)
    packed.write_bytes(raw)
    assert len(complete(monitor, packed, out)) == 40 - kept.count(b"\n")
    assert out.read_bytes() == whole


def test_a_conversation_that_cannot_be_scored_keeps_what_came_before(
    monitor: Monitor, source: Path, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = Monitor.score

    def fail(self: Monitor, dialogue: Dialogue, mode: Any = "enforce") -> Any:
        if dialogue.id == "c30":
            raise ScoringError("turn 0: found numbers that are not finite")
        return score(self, dialogue, mode)

    with monkeypatch.context() as patch:
        patch.setattr(Monitor, "score", fail)
        with pytest.raises(ScoringError, match="not finite; 30 conversations before it are kept"):
            complete(monitor, source, tmp_path / "out.jsonl")
    complete(monitor, source, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == whole


# --- what fits and what does not


def test_it_goes_on_after_the_finished_shards_and_says_so(monitor: Monitor, source: Path, whole: bytes, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    folder = cut_off(monitor, source, out, after=17)
    names = sorted(path.name for path in folder.iterdir())
    assert names == [*(f"00000{shard}.{end}" for shard in (1, 2, 3, 4) for end in ("json", "part")), "lock", "run.json"]
    told: list[int] = []
    new = complete(monitor, source, out, resumed=lambda parts: told.append(parts.conversations))
    assert new == [f"c{number}" for number in range(told[0], 40)]
    assert 10 <= told[0] <= 17
    assert out.read_bytes() == whole


def test_lines_that_were_added_are_scored_too(monitor: Monitor, source: Path, tmp_path: Path) -> None:
    out, raw = tmp_path / "out.jsonl", source.read_bytes()
    cut_off(monitor, source, out, after=30)
    source.write_bytes(raw + b"\n" + line(40))
    complete(monitor, source, out)
    assert [json.loads(text)["id"] for text in out.read_bytes().splitlines()] == [f"c{number}" for number in range(41)]


def test_inputs_may_be_several_and_change_their_names_and_formats(monitor: Monitor, source: Path, whole: bytes, tmp_path: Path) -> None:
    out, good = tmp_path / "out.jsonl", lines(40)
    paths = [tmp_path / f"{number}.jsonl" for number in range(3)]
    for path, part in zip(paths, (good[:15], good[15:16], good[16:]), strict=True):
        path.write_bytes(b"".join(part))
    run = score_to_file(monitor, inputs_of(paths), out, shard_turns=10)
    for _ in range(25):
        next(run)
    run.close()  # type: ignore[attr-defined]
    (tmp_path / "0.gz").write_bytes(gzip.compress(b"".join(good[:15])))
    assert complete(monitor, [tmp_path / "0.gz", *paths[1:]], out)[-1] == "c39"
    assert out.read_bytes() == whole
    cut_off(monitor, source, tmp_path / "single.jsonl", after=30)
    for other in (paths, [paths[1], paths[0], paths[2]], paths[:1]):
        with pytest.raises(OtherRun, match="found other lines up to line"):
            complete(monitor, other, tmp_path / "single.jsonl")
    complete(monitor, source, tmp_path / "single.jsonl")


def changed(name: str, monitor: Monitor, source: Path) -> dict[str, Any]:
    """A run that differs in one thing."""
    if name == "a line":
        raw = source.read_bytes()
        source.write_bytes(raw.replace(b"hello", b"hallo", 1))
    elif name == "fewer lines":
        source.write_bytes(b"".join(lines(3)))
    elif name == "policy":
        return {"monitor": Monitor(monitor.scorer, DecisionPolicy(replace(monitor.policy.config, redirections_before_warning=7), "enforce"))}
    elif name == "mode":
        return {"mode": "shadow"}
    return {}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a line", r"in\.jsonl: found other lines up to line \d+ of input 1 than those that were scored already, expected the same input; --restart"),
        ("fewer lines", r"in\.jsonl: found other lines up to line \d+ of input 1"),
        ("policy", r"run\.json: policy: found [0-9a-f]{64}, expected [0-9a-f]{64}, as of this run; --restart throws away"),
        ("mode", r"run\.json: policy: found"),
        ("model", r"run\.json: digest: found 0, expected [0-9a-f]{64}"),
        ("version", r"run\.json: package: found 0\.0\.1, expected "),
        ("a shard", r"out\.jsonl\.parts: found damaged shards, expected those of an earlier run; --restart"),
        ("a mark", r"out\.jsonl\.parts: found damaged shards"),
        ("no manifest", r"out\.jsonl\.parts: found damaged shards"),
    ],
)
def test_what_does_not_fit_is_refused_and_kept_until_restart(name: str, message: str, monitor: Monitor, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_bytes(b"what was there")
    folder = cut_off(monitor, source, out, after=20)
    options = {"monitor": monitor, **changed(name, monitor, source)}
    if name in ("model", "version"):
        record = json.loads((folder / "run.json").read_bytes())
        record["digest" if name == "model" else "package"] = "0" if name == "model" else "0.0.1"
        (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    elif name == "a shard":
        (folder / "000002.part").write_bytes((folder / "000002.part").read_bytes()[:-1])
    elif name == "a mark":
        (folder / "000002.json").write_bytes(b"{}")
    elif name == "no manifest":
        (folder / "run.json").unlink()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(OtherRun, match=message):
        complete(source=source, output=out, **options)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert out.read_bytes() == b"what was there"
    new = complete(source=source, output=out, restart=True, **options)
    assert new == [json.loads(text)["id"] for text in out.read_bytes().splitlines()] == [f"c{number}" for number in range(3 if name == "fewer lines" else 40)]


def test_two_runs_at_once_into_one_file_are_refused(monitor: Monitor, source: Path, whole: bytes, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    first = score_to_file(monitor, inputs_of([source]), out)
    next(first)
    for restart in (False, True):
        with pytest.raises(OtherRun, match=r"out\.jsonl\.parts: found another run at work on it, expected none"):
            complete(monitor, source, out, restart=restart)
    assert len(list(first)) == 39
    assert out.read_bytes() == whole


def test_what_somebody_else_keeps_in_the_folder_stays(monitor: Monitor, source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out.jsonl.parts"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    for _ in score_to_file(monitor, inputs_of([source]), tmp_path / "out.jsonl", restart=True):
        pass
    assert [path.name for path in tmp_path.glob("out*.parts*/*")] == ["notes.txt"]


def test_a_link_stays_a_link(monitor: Monitor, source: Path, whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "real.jsonl").write_bytes(b"")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "deep" / "real.jsonl")
    complete(monitor, source, tmp_path / "link.jsonl")
    assert (tmp_path / "link.jsonl").is_symlink()
    assert (tmp_path / "deep" / "real.jsonl").read_bytes() == whole


def test_a_shard_holds_about_as_many_turns_as_asked(monitor: Monitor, source: Path, tmp_path: Path) -> None:
    folder = cut_off(monitor, source, tmp_path / "out.jsonl", after=39, shard_turns=25)
    for path in folder.glob("0*.part"):
        turns = [len(json.loads(text)["turns"]) + 1 for text in path.read_bytes().splitlines()]
        assert sum(turns) >= 25 > sum(turns[:-1])


def test_asked_to_stop_it_finishes_the_conversation_at_hand(monitor: Monitor, source: Path, whole: bytes, tmp_path: Path) -> None:
    run = score_to_file(monitor, inputs_of([source]), tmp_path / "out.jsonl", stopped=lambda: True)
    assert next(run).place.line == 1
    with pytest.raises(Stopped, match="; 1 conversations before it are kept"):
        next(run)
    complete(monitor, source, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == whole


def test_a_folder_is_no_output(monitor: Monitor, source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="cannot be written: found a folder, expected a file"), Parts(tmp_path / "out", {}):
        pass
