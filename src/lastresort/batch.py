"""Files of dialogues become scores and decisions: streamed, in input order, and gone on with after a kill.

Work is done on threads that share one loaded model: the graph run and the tokenizer let go of the interpreter lock. `lastresort bench` measures threads
against processes on the machine at hand (`turns_per_second`). A pool of processes would take the place of `ThreadPoolExecutor` in `map_ordered`: lines go
in as bytes, outcomes come out as plain values.

What goes into a file is written in finished shards first, into the folder `OUT.parts/`:

    run.json       model, policy, mode, format and version of the run: a run that differs does not go on with it
    000001.part    conversations in input order, in the format of OUT
    000001.bad     lines that were skipped, as they were, if any
    000001.json    written last: the shard counts. How far the inputs had been read, and the sha256 of all lines up to there

Each is written under another name, synced and renamed. To go on, the inputs are read again up to the last finished shard, and the digest of these lines
must be the same: so the part that was scored has not changed, whatever the size of the inputs, while the rest may have (a corrected line, lines that were
added). At the end the shards are joined into OUT, which appears as a whole, and the folder is removed. What is on disk at any moment is enough to go on
from: a kill costs the open shard, and nothing is kept twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext, suppress
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import IO, Any, TypeVar

from . import __version__
from .conversation import Monitor
from .data import columns_of, dumps, parse_line, scored_to_json
from .errors import DataError, LastResortError
from .files import Lines, format_of, join, replacing, sync_folder, writing
from .types import Dialogue, Mode, ScoredDialogue

A = TypeVar("A")
B = TypeVar("B")


def available_cpus() -> int:
    """How many CPUs this process may use: affinity, and the cgroup v2 quota if there is one."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            count = min(count, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # no cgroup v2 here
    return count


def map_ordered(function: Callable[[A], B], items: Iterable[A], workers: int) -> Iterator[B]:
    """`function` over `items` on threads, results in input order, at most `4 * workers` items in flight."""
    if workers < 2:
        yield from map(function, items)
        return
    pending: deque[Future[B]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            failure: Exception | None = None
            source = iter(items)
            while True:
                try:
                    pending.append(pool.submit(function, next(source)))
                except StopIteration:
                    break
                except Exception as error:  # of the input: the results of the items before it come first, as without threads
                    failure = error
                    break
                if len(pending) >= 4 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
            if failure is not None:
                raise failure
        finally:
            for future in pending:
                future.cancel()


def score_dialogues(monitor: Monitor, dialogues: Iterable[Dialogue], *, workers: int | None = None, mode: Mode = "enforce") -> Iterator[ScoredDialogue]:
    """Scores dialogues on all CPUs; memory stays bounded whatever the number of dialogues.

    Args:
        monitor: model and policy; shared by the workers.
        dialogues: any iterable; read as needed.
        workers: threads; None for `available_cpus()`. The result does not depend on it.
        mode: in which stored conversations are judged.

    Raises:
        ScoringError: of the first dialogue that could not be scored.
    """
    yield from map_ordered(partial(monitor.score, mode=mode), dialogues, workers or available_cpus())


# --- lines in, outcomes out

SHARD_TURNS = 10_000
"""A shard is finished once it holds so many turns: about a minute's work for two cores. Conversations and skipped lines count as one turn more."""

RUN_VERSION = 1
"""Of the layout of `OUT.parts/`."""


class Stopped(LastResortError):  # noqa: N818 - the event, not a fault
    """A run was asked to stop; what it finished is kept."""


class OtherRun(DataError):  # noqa: N818 - what was found, not a fault
    """What was kept of an earlier run does not belong to this one."""


@dataclass(frozen=True)
class Place:
    """How far the inputs have been read.

    Attributes:
        input: 0-based number of the input.
        line: 1-based number of the line in it (row for Parquet).
        digest: sha256 of all lines of all inputs up to this one, hex; line ends do not count.
    """

    input: int
    line: int
    digest: str


@dataclass(frozen=True)
class Outcome:
    """What became of one line.

    Attributes:
        place: of the line.
        raw: the line.
        dialogue: that it holds; None for a bad line.
        result: the scored conversation, or why the line is bad.
    """

    place: Place
    raw: bytes
    dialogue: Dialogue | None
    result: ScoredDialogue | DataError


def inputs_of(paths: Iterable[Path]) -> list[Lines]:
    """Dialogue files as inputs."""
    return [Lines(path, columns_of(Dialogue)) for path in paths]


def _lines(inputs: Sequence[Lines], start: Place | None) -> Iterator[tuple[str, bytes, Place]]:
    """Every line that is not blank, with its name and place, after `start`. Raises `OtherRun` if the lines up to there are other ones."""
    running = hashlib.sha256()
    for index, source in enumerate(inputs):
        running.update(b"input\n")
        for number, raw in source:
            running.update(raw.rstrip(b"\r\n") + b"\n")
            if start is None:
                if raw.strip():
                    yield f"{source.name}:{number}", raw, Place(index, number, running.hexdigest())
            elif (start.input, start.line) == (index, number):
                if running.hexdigest() != start.digest:
                    break
                start = None
        if start is not None and start.input == index:
            break
    if start is not None:
        found = f"found other lines up to line {start.line} of input {start.input + 1} than those that were scored already, expected the same input"
        raise OtherRun(f"{found}; --restart throws away what was kept of the earlier run", where=inputs[min(start.input, len(inputs) - 1)].name)


def _score_line(monitor: Monitor, mode: Mode, line: tuple[str, bytes, Place]) -> Outcome:
    where, raw, place = line
    try:
        dialogue = parse_line(Dialogue, raw, where=where)
    except DataError as error:
        return Outcome(place, raw, None, error)
    return Outcome(place, raw, dialogue, monitor.score(dialogue, mode))


def score_lines(
    monitor: Monitor, inputs: Sequence[Lines], *, start: Place | None = None, workers: int | None = None, mode: Mode = "enforce"
) -> Iterator[Outcome]:
    """Scores every line of the inputs after `start`, in order, on all CPUs; at most `4 * workers` lines are in memory.

    Raises:
        DataError: an input cannot be read; comes after the outcomes of the lines before.
        OtherRun: the lines up to `start` are not those of its digest.
        ScoringError: of the first dialogue that could not be scored.
    """
    return map_ordered(partial(_score_line, monitor, mode), _lines(inputs, start), workers or available_cpus())


# --- into a file


class Parts:
    """What is finished of one output: shards in `OUT.parts/`. A context: locks the folder, and leaves nothing behind if nothing was finished.

    Attributes:
        folder: `OUT.parts`.
        conversations: in finished shards.
        bad: skipped lines in finished shards.
        place: up to where the finished shards go; None if there are none.
    """

    def __init__(self, output: Path, run: Mapping[str, Any], *, restart: bool = False) -> None:
        """Nothing is touched yet.

        Args:
            output: the file that is to appear in the end.
            run: what must be the same to go on.
            restart: throws away what an earlier run left.
        """
        self.output = Path(os.path.realpath(output))  # a link stays one
        self.folder = self.output.with_name(self.output.name + ".parts")
        self.run, self.restart = dict(run), restart
        self.shards = self.conversations = self.bad = self.open_turns = 0
        self.place: Place | None = None
        self._last: Place | None = None
        self._open_conversations = 0
        self._shard = ExitStack()
        self._write: Callable[[bytes], Any] | None = None
        self._bad: list[bytes] = []
        self._lock: IO[bytes] | None = None

    def __enter__(self) -> Parts:
        if self.output.is_dir():
            raise DataError("cannot be written: found a folder, expected a file", where=str(self.output))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.folder / "lock")
            _clear(self._old)
            if self.restart:
                _clear(self.folder, keep="lock")
            self._read()
        except OSError as error:
            self._release()
            raise DataError(f"cannot be written: {error.strerror or error}", where=str(self.output)) from None
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        with suppress(Exception):  # such as the disk being full still
            self._shard.__exit__(kind, error, trace)  # removes what is not finished
        self._release()
        if not self.shards:
            _clear(self.folder)

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()

    @property
    def _old(self) -> Path:
        return self.folder.with_name(self.folder.name + ".old")

    def _name(self, shard: int, ending: str) -> Path:
        return self.folder / f"{shard:06d}.{ending}"

    def _read(self) -> None:
        """What an earlier run finished."""
        try:
            for shard in count(1):
                if not self._name(shard, "json").exists():
                    break
                mark = json.loads(self._name(shard, "json").read_bytes())
                if self._name(shard, "part").stat().st_size != mark["bytes"]:
                    raise ValueError
                self.shards, self.place = shard, Place(**mark["place"])
                self.conversations += mark["conversations"]
                self.bad += mark["bad"]
            found = json.loads((self.folder / "run.json").read_bytes()) if self.shards else self.run
            if not isinstance(found, dict):
                raise ValueError
        except (ValueError, KeyError, TypeError, FileNotFoundError):
            raise OtherRun("found damaged shards, expected those of an earlier run; --restart throws them away", where=str(self.folder)) from None
        if found != self.run:
            name = next(name for name in (*self.run, *found) if found.get(name) != self.run.get(name))
            values = f"{name}: found {found.get(name)}, expected {self.run.get(name)}"
            raise OtherRun(f"{values}, as of this run; --restart throws away what was kept of the earlier one", where=f"{self.folder}/run.json")
        if not self.shards:
            _clear(self.folder, keep="lock")
            with replacing(self.folder / "run.json") as stream:
                stream.write(json.dumps(self.run, indent=1).encode())

    def add(self, outcome: Outcome) -> None:
        """Puts an outcome into the open shard; a bad line is kept beside it."""
        if self._write is None:
            part = self._name(self.shards + 1, "part")
            stream = self._shard.enter_context(replacing(part))
            self._write = self._shard.enter_context(writing(stream, self.output))
        if isinstance(outcome.result, DataError):
            self._bad.append(outcome.raw if outcome.raw.endswith(b"\n") else outcome.raw + b"\n")
            self.open_turns += 1
        else:
            self._write(_encoded(outcome.result))
            self.open_turns += 1 + len(outcome.result.turns)
            self._open_conversations += 1
        self._last = outcome.place

    def commit(self) -> None:
        """Finishes the open shard, if there is one: from here on it counts."""
        if self._write is None or self._last is None:
            return
        shard, bad = self.shards + 1, len(self._bad)
        self._write = None
        self._shard.close()
        if bad:
            with replacing(self._name(shard, "bad")) as stream:
                stream.writelines(self._bad)
        else:
            self._name(shard, "bad").unlink(missing_ok=True)  # of a shard that never counted
        size = self._name(shard, "part").stat().st_size
        mark = {"conversations": self._open_conversations, "bad": bad, "bytes": size, "place": asdict(self._last)}
        with replacing(self._name(shard, "json")) as stream:
            stream.write(json.dumps(mark).encode())
        self.shards, self.place = shard, self._last
        self.conversations += self._open_conversations
        self.bad += bad
        self.open_turns = self._open_conversations = 0
        self._bad.clear()

    def publish(self, skip_bad: Path | None = None) -> None:
        """Joins the finished shards into the output, and the skipped lines into `skip_bad`; the shards stay."""
        shards = range(1, self.shards + 1)
        if skip_bad is not None:
            skip_bad.parent.mkdir(parents=True, exist_ok=True)
            regular = skip_bad.is_file() or not skip_bad.exists()  # not a device
            target: AbstractContextManager[IO[bytes]] = replacing(Path(os.path.realpath(skip_bad))) if regular else skip_bad.open("wb")
            with target as stream:
                for path in (self._name(shard, "bad") for shard in shards):
                    with path.open("rb") if path.exists() else nullcontext() as source:
                        if source is not None:
                            shutil.copyfileobj(source, stream)
        with replacing(self.output, self.folder / "joined.tmp") as stream:
            if self.shards:
                join((self._name(shard, "part") for shard in shards), stream, self.output)
            else:
                with writing(stream, self.output):
                    pass

    def remove(self) -> None:
        """Removes the folder, in one step for whoever looks."""
        self._release()
        os.rename(self.folder, self._old)
        sync_folder(self.folder.parent)
        _clear(self._old)


def score_to_file(
    monitor: Monitor,
    inputs: Sequence[Lines],
    output: Path,
    *,
    skip_bad: Path | None = None,
    mode: Mode = "enforce",
    workers: int | None = None,
    restart: bool = False,
    shard_turns: int = SHARD_TURNS,
    stopped: Callable[[], bool] = lambda: False,
    resumed: Callable[[Parts], None] = lambda parts: None,
    engine: Callable[..., Iterator[Outcome]] = score_lines,
) -> Iterator[Outcome]:
    """Scores the inputs into a file, going on where an earlier run of the same command was cut off; the file is there once all outcomes have been taken.

    A bad line, or an input that cannot be read on, stops: what comes before it is in the file, and the shards are kept to go on from.

    Args:
        monitor: model and policy.
        inputs: in order.
        output: `.jsonl`, `.gz`, `.zst` or `.parquet`; a regular file, or none yet.
        skip_bad: where bad lines go instead of stopping.
        mode: in which stored conversations are judged.
        workers: threads; None for `available_cpus()`. The result does not depend on it.
        restart: throws away what an earlier run left, instead of going on.
        shard_turns: turns in a shard.
        stopped: asked after each outcome; when true, what is finished is kept and `Stopped` raised.
        resumed: told of the earlier run, if there was one.
        engine: what scores the lines: `score_lines`, or what takes its place (`engine_ray.RayEngine`).

    Yields:
        The outcomes that are new, after they were written.

    Raises:
        DataError: a bad line, an input that cannot be read, an output that cannot be written (disk full): what was finished is kept.
        OtherRun: what is kept belongs to another input, model, policy, mode, format or version.
        ScoringError: a dialogue could not be scored.
        Stopped: as asked.
    """
    rules = json.dumps({**asdict(monitor.policy.config), "mode": mode}, sort_keys=True)
    run = {"version": RUN_VERSION, "package": __version__, "model": monitor.model, "digest": monitor.scorer.manifest.digest}
    run |= {"policy": hashlib.sha256(rules.encode()).hexdigest(), "format": format_of(output)}
    with Parts(output, run, restart=restart) as parts:
        try:
            if parts.shards:
                resumed(parts)
            if parts.bad and skip_bad is None:
                raise OtherRun(f"found {parts.bad} skipped lines of an earlier run, expected --skip-bad to keep them, or --restart", where=str(parts.folder))
            try:
                with closing(engine(monitor, inputs, start=parts.place, workers=workers, mode=mode)) as outcomes:  # type: ignore[type-var]
                    for outcome in outcomes:
                        if isinstance(outcome.result, DataError) and skip_bad is None:
                            raise outcome.result
                        parts.add(outcome)
                        yield outcome
                        if parts.open_turns >= shard_turns:
                            parts.commit()
                        if stopped():
                            raise Stopped("stopped before the end")
            except OtherRun:
                raise
            except LastResortError as error:
                parts.commit()
                if parts.shards and not isinstance(error, Stopped):
                    parts.publish(skip_bad)
                raise _kept(error, parts) from None
            parts.commit()
            parts.publish(skip_bad)
            parts.remove()
        except OSError as error:
            problem = f"cannot be written: {error.strerror or error}"
            raise _kept(DataError(problem, where=error.filename or str(output)), parts) from None


def _kept(error: LastResortError, parts: Parts) -> LastResortError:
    """The error, with what is kept and how to go on."""
    if not parts.shards:
        return error
    advice = f"; {parts.conversations} conversations before it are kept in {parts.folder}: run the same command again to go on"
    if isinstance(error, DataError):
        return DataError(error.problem + advice, where=error.where, field=error.field)
    return type(error)(f"{error}{advice}")


_OWN = re.compile(r"(\d{6,}\.(part|bad|json)|run\.json|joined|lock)(\.tmp)?")


def _clear(folder: Path, keep: str = "") -> None:
    """Removes what a run keeps in its folder, and the folder if nothing else is in it."""
    for path in list(folder.iterdir()) if folder.is_dir() else ():
        if _OWN.fullmatch(path.name) and path.name != keep:
            path.unlink()
    if not keep:
        with suppress(OSError):  # not there, or somebody keeps something in it
            folder.rmdir()


def _encoded(scored: ScoredDialogue) -> bytes:
    return (dumps(scored_to_json(scored)) + "\n").encode("utf-8", "surrogatepass")


def _locked(path: Path) -> IO[bytes]:
    """Opens and locks a file until it is closed, also by a kill. Raises `OtherRun` if another process holds it."""
    stream = path.open("ab")
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        stream.close()
        raise OtherRun("found another run at work on it, expected none", where=str(path.parent)) from None
    return stream
