"""Files of JSON lines and of rows, in and out: plain, `.gz`, `.zst`, `.parquet`, by the end of the name. What is written appears whole or not at all.

A row of a Parquet file is handled as the JSON line that it stands for, so that errors, digests and bad lines are the same for all formats.

* In, dialogues: `id` string, `messages` list of struct(`role`, `content`, optionally `labels` as map or struct), optional `source` string, optional `meta`
  string that holds a JSON object (a struct or map will do). Other columns are not read.
* Out, and in again, scored conversations: the keys of the JSON line as columns. `turns` is a list of structs; what has label names as keys (`scores`,
  `numbers`, `counts`) is a map, so that the schema does not depend on the model; `meta` is a string that holds JSON. A lone surrogate, which Parquet cannot
  hold, becomes U+FFFD.

`.zst` and `.parquet` need pyarrow (extra `batch`).
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shutil
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal, cast

from .errors import DataError, MissingExtraError

Format = Literal["jsonl", "gz", "zst", "parquet"]
_SUFFIX: Mapping[str, Format] = {".gz": "gz", ".zst": "zst", ".parquet": "parquet"}
_SURROGATE = re.compile("[\ud800-\udfff]")


def format_of(path: str | Path) -> Format:
    """The format by the end of the name; JSON lines without compression if it says nothing else."""
    return _SUFFIX.get(Path(path).suffix, "jsonl")


def _pyarrow(path: str | Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise MissingExtraError(f"{path}: {Path(path).suffix} needs pyarrow, which is not installed: pip install 'lastresort[batch]'") from None
    return pyarrow


# --- in


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[IO[bytes], IO[bytes], str]]:
    """The bytes of an input, the file beneath them, and its name in messages."""
    if str(path) == "-":
        yield sys.stdin.buffer, sys.stdin.buffer, "<stdin>"
        return
    kind = format_of(path)
    arrow = _pyarrow(path) if kind == "zst" else None
    try:
        raw = Path(path).open("rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", where=str(path)) from None
    with raw:
        if kind == "gz":
            yield cast("IO[bytes]", gzip.GzipFile(fileobj=raw)), raw, str(path)
        elif arrow is not None:
            yield io.BufferedReader(arrow.CompressedInputStream(raw, "zstd")), raw, str(path)
        else:
            yield raw, raw, str(path)


@contextmanager
def open_input(path: str | Path) -> Iterator[tuple[IO[bytes], str]]:
    """Opens a file (plain, .gz, .zst) or standard input (`-`) for reading bytes; yields it and its name in messages. Raises `DataError`."""
    with _opened(path) as (stream, _, name):
        yield stream, name


class Lines:
    """The lines of one input, or the rows of a Parquet file as JSON lines; read as needed, each with its number from 1.

    Attributes:
        name: in messages.
        size: of the file in bytes; None if unknown (a stream).
        position: how many of these bytes have been read so far.
    """

    def __init__(self, path: str | Path, columns: Iterable[str]) -> None:
        """Nothing is opened yet.

        Args:
            path: file, or `-` for standard input (plain JSON lines).
            columns: which columns of a Parquet file are read, where present.
        """
        self.path, self.columns, self.position = path, tuple(columns), 0
        self.name = "<stdin>" if str(path) == "-" else str(path)
        known = Path(path).stat() if Path(path).is_file() and str(path) != "-" else None
        self.size = None if known is None else known.st_size

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Yields number and line. Raises `DataError` where the file cannot be read, `MissingExtraError`."""
        self.position = 0
        if format_of(self.path) == "parquet":
            yield from self._rows()
            return
        plain = format_of(self.path) == "jsonl"
        with _opened(self.path) as (stream, raw, name):
            lines = enumerate(stream, start=1)
            while True:
                try:
                    number, line = next(lines)
                    self.position = self.position + len(line) if plain else raw.tell()
                except StopIteration:
                    return
                except (OSError, EOFError, zlib.error) as error:
                    raise DataError(f"cannot be read: {error}", where=name) from None
                yield number, line

    def _rows(self) -> Iterator[tuple[int, bytes]]:
        arrow = _pyarrow(self.path)
        number = 0
        try:
            with arrow.parquet.ParquetFile(self.path, pre_buffer=False, buffer_size=1 << 20) as file:
                columns = [name for name in self.columns if name in file.schema_arrow.names]
                for batch in file.iter_batches(batch_size=256, columns=columns, use_threads=False):
                    for row in batch.to_pylist(maps_as_pydicts="strict"):
                        number += 1
                        self.position = (self.size or 0) * number // file.metadata.num_rows
                        yield number, _line_of(row)
        except (OSError, arrow.ArrowException) as error:
            raise DataError(f"cannot be read: {error}", where=self.name) from None


def _line_of(row: dict[str, Any]) -> bytes:
    """The JSON line that a row stands for. What is null and may be left out is left out; everything else is judged as JSON is."""
    record = {name: value for name, value in row.items() if value is not None or name not in ("source", "meta")}
    if isinstance(record.get("meta"), str):
        with suppress(ValueError, RecursionError):  # what is no JSON is found where the line is read
            record["meta"] = json.loads(record["meta"])
    if isinstance(messages := record.get("messages"), list):
        record["messages"] = [_message_of(message) for message in messages]
    return json.dumps(record, ensure_ascii=False, default=_plain).encode("utf-8", "surrogatepass") + b"\n"


def _message_of(message: Any) -> Any:
    if not isinstance(message, dict):
        return message
    kept = {name: value for name, value in message.items() if value is not None or name in ("role", "content")}
    if isinstance(labels := kept.get("labels"), dict):
        kept["labels"] = {name: value for name, value in labels.items() if value is not None}
    return kept


def _plain(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


# --- out


@contextmanager
def replacing(path: Path, temporary: Path | None = None) -> Iterator[IO[bytes]]:
    """A file that appears under its name only when complete and on disk; until then, and after an error, what stood there stays.

    Args:
        path: the file.
        temporary: where to write meanwhile, on the same file system; None for `path` + `.tmp`.
    """
    temporary = path.with_name(path.name + ".tmp") if temporary is None else temporary
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Makes what was renamed in a folder last through a power failure; does nothing where folders cannot be synced."""
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def writing(stream: IO[bytes], path: Path) -> Iterator[Callable[[bytes], Any]]:
    """Writes JSON lines in the format that the name of `path` asks for; yields what takes a line.

    Args:
        stream: a real file, at its start; not closed.
        path: only its name counts.
    """
    kind = format_of(path)
    if kind == "jsonl":
        yield stream.write
    elif kind == "gz":
        with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=stream, mtime=0) as packed:
            yield packed.write
    elif kind == "zst":
        with _twin(stream) as twin, _pyarrow(path).CompressedOutputStream(twin, "zstd") as packed:
            yield packed.write
    else:
        arrow = _pyarrow(path)
        lines: list[bytes] = []
        yield lines.append
        table = arrow.Table.from_pylist([_row_of(line) for line in lines], schema=scored_schema(arrow))
        with _twin(stream) as twin:
            arrow.parquet.write_table(table, twin, compression="zstd")


def join(parts: Iterable[Path], stream: IO[bytes], path: Path) -> None:
    """Puts finished files of one format, as `writing` made them, together as one; in constant memory.

    Args:
        parts: in order.
        stream: a real file, at its start; not closed.
        path: only its name counts.
    """
    if format_of(path) != "parquet":
        for part in parts:  # one member after the other is a whole file for gzip and zstd too
            with part.open("rb") as source:
                shutil.copyfileobj(source, stream, 1 << 20)
        return
    arrow = _pyarrow(path)
    with _twin(stream) as twin, arrow.parquet.ParquetWriter(twin, scored_schema(arrow), compression="zstd") as writer:
        for part in parts:
            with arrow.parquet.ParquetFile(part) as file:
                writer.write_table(file.read(use_threads=False))


def _twin(stream: IO[bytes]) -> IO[bytes]:
    """The same open file, for a library that closes what it is given."""
    stream.flush()
    return os.fdopen(os.dup(stream.fileno()), "wb")


def scored_schema(arrow: Any) -> Any:
    """The Parquet schema of scored conversations."""
    text, count, number = arrow.string(), arrow.int32(), arrow.float64()
    decision = {"call": text, "advice": text, "reason": text, "category": text, "evidence": arrow.list_(count), "would_call": text, "would_advise": text}
    decision |= {"numbers": arrow.map_(text, arrow.list_(number)), "counts": arrow.map_(text, arrow.list_(count)), "counterfactual": text}
    turn = {"index": count, "role": text, "scores": arrow.map_(text, number), "windows": count, "decision": arrow.struct(decision)}
    record = {"id": text, "model": text, "call": text, "ended_at": count, "turns": arrow.list_(arrow.struct(turn)), "mode": text, "would_end_at": count}
    record |= {"distress": arrow.list_(count), "source": text, "meta": text, "policy": text}
    return arrow.schema(list(record.items()))


def _row_of(line: bytes) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(line)
    record["meta"] = json.dumps(record["meta"])
    for name in ("id", "source"):
        record[name] = _SURROGATE.sub("\ufffd", record[name])
    return record
