"""Labelled dialogues and scored dialogues as JSON lines: in, out, and split.

Every error names ``file:line`` and the field, says what was found and what was expected, and never repeats the text of a turn.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError

from .errors import DataError
from .files import Lines
from .files import open_input as open_input
from .types import Dialogue, Message, ScoredDialogue

T = TypeVar("T")
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
BadLine = Callable[[DataError, bytes], None]
"""Called with the error and the raw line in place of stopping."""

# pydantic reads the settings of a standard dataclass from this attribute
for _type in (Message, Dialogue, ScoredDialogue):
    _type.__pydantic_config__ = STRICT  # type: ignore[union-attr]


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def json_schema() -> dict[str, Any]:
    """JSON schema of one dialogue line, generated from the types (`data/schema.json`)."""
    schema = _adapter(Dialogue).json_schema()
    schema["$defs"]["Message"]["properties"]["labels"]["additionalProperties"] |= {"minimum": 0, "maximum": 1}
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "lastresort dialogue"
    return schema


_WORD = re.compile(r"[A-Za-z_-]{1,16}")


def _found(value: Any) -> str:
    """A short name of what was found, without repeating what people wrote."""
    if isinstance(value, str):
        return f"a string of {len(value)} characters"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return f"an object with {len(value)} keys"
    return f"{value!r:.40}"


def parse_record(kind: type[T], record: Any, *, where: str = "") -> T:
    """One record as the frozen type `kind` (`Dialogue` or `ScoredDialogue`).

    Raises:
        DataError: the first thing that breaks the contract.
    """
    if kind is Dialogue:
        _check_label_types(record, where)
    try:
        value: T = _adapter(cast("Any", kind)).validate_python(record)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        if first["type"] == "missing":
            found = "nothing"
        elif first["loc"][-1] == "content":
            found = type(first["input"]).__name__
        elif first["type"] == "literal_error" and isinstance(first["input"], str) and _WORD.fullmatch(first["input"]):
            found = repr(first["input"])  # a role such as 'human'; one word says what to change and gives nothing away
        else:
            found = _found(first["input"])
        raise DataError(f"found {found}, expected: {_expected(first)}", where=where, field=field) from None
    if isinstance(value, Dialogue):
        _check_labels(value, where)
        try:
            dumps(value.meta)
        except (ValueError, RecursionError):
            raise DataError("found a number that is not finite, or deep nesting, expected plain JSON", where=where, field="meta") from None
    return value


_IN_JSON = {"tuple_type": "a list", "dataclass_type": "an object", "mapping_type": "an object", "dict_type": "an object"}


def _expected(error: Any) -> str:
    if error["type"] == "literal_error":
        return f"one of {error['ctx']['expected']}"
    if error["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
        return "no such key"
    if error["type"] == "missing":
        return "this key"
    if error["type"] in _IN_JSON:
        return _IN_JSON[error["type"]]
    return str(error["msg"]).removeprefix("Input should be ").removeprefix("Value error, ")


def _check_label_types(record: Mapping[str, Any], where: str) -> None:
    """Numbers only: `"0.5"` and `true` would else be taken for numbers."""
    messages = record.get("messages")
    for index, message in enumerate(messages if isinstance(messages, list) else ()):
        labels = message.get("labels") if isinstance(message, dict) else None
        for name, value in (labels if isinstance(labels, dict) else {}).items():
            if isinstance(value, (bool, str)):
                raise DataError(f"found {_found(value)}, expected a number in 0…1", where=where, field=f"messages.{index}.labels.{name}")


def _check_labels(dialogue: Dialogue, where: str) -> None:
    for index, message in enumerate(dialogue.messages):
        for name, value in message.labels.items():
            if not 0.0 <= value <= 1.0:
                raise DataError(f"found {value!r}, expected a number in 0…1", where=where, field=f"messages.{index}.labels.{name}")


def parse_line(kind: type[T], raw: bytes, *, where: str = "") -> T:
    """One JSON line as `kind`. Raises `DataError`."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"found byte 0x{raw[error.start]:02x} at offset {error.start}, expected UTF-8", where=where) from None
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"found no valid JSON ({error.msg} at column {error.colno}), expected one JSON object a line", where=where) from None
    except ValueError:
        raise DataError("found a number too long to read, expected one JSON object a line", where=where) from None
    except RecursionError:
        raise DataError("found JSON nested too deeply, expected one flat object a line", where=where) from None
    if not isinstance(record, dict):
        raise DataError(f"found {_found(record)}, expected a JSON object", where=where)
    return parse_record(kind, record, where=where)


def iter_records(kind: type[T], path: str | Path, *, on_bad: BadLine | None = None) -> Iterator[T]:
    """Streams a file of JSON lines, or the rows of a Parquet file; blank lines are passed over. An empty file gives nothing.

    Args:
        kind: `Dialogue` or `ScoredDialogue`.
        path: file (plain, `.gz`, `.zst`, `.parquet`), or `-`.
        on_bad: receives each bad line instead of stopping.

    Raises:
        DataError: the first bad line, if `on_bad` is None; a file that cannot be read, always.
    """
    source = Lines(path, columns_of(kind))
    for number, raw in source:
        if not raw.strip():
            continue
        try:
            record = parse_line(kind, raw, where=f"{source.name}:{number}")
        except DataError as error:
            if on_bad is None:
                raise
            on_bad(error, raw)
            continue
        yield record


def columns_of(kind: Any) -> tuple[str, ...]:
    """The columns of a Parquet file that hold records of `kind`."""
    return tuple(field.name for field in fields(kind))


def read_dialogues(path: str | Path, *, on_bad: BadLine | None = None) -> Iterator[Dialogue]:
    """Streams labelled dialogues; see `iter_records`."""
    return iter_records(Dialogue, path, on_bad=on_bad)


def dialogue_to_json(dialogue: Dialogue) -> dict[str, Any]:
    """The dialogue as a JSON-able record; empty `labels` are left out."""
    messages = []
    for message in dialogue.messages:
        record: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.labels:
            record["labels"] = dict(message.labels)
        messages.append(record)
    return {"id": dialogue.id, "messages": messages, "source": dialogue.source, "meta": dict(dialogue.meta)}


def scored_to_json(scored: ScoredDialogue) -> dict[str, Any]:
    """The scored dialogue as a JSON-able record in the contract's order of keys."""
    return asdict(scored)


_SURROGATE = re.compile("[\ud800-\udfff]")


def dumps(record: Mapping[str, Any]) -> str:
    """One JSON line without line end; non-finite numbers raise."""
    text = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(", ", ": "))
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)  # a lone one has no UTF-8


def write_dialogues(dialogues: Iterable[Dialogue], path: str | Path) -> int:
    """Writes dialogues as JSON lines; returns how many."""
    count = 0
    with Path(path).open("w", encoding="utf-8", newline="\n") as stream:
        for dialogue in dialogues:
            stream.write(dumps(dialogue_to_json(dialogue)) + "\n")
            count += 1
    return count


def split_of(key: str, shares: Mapping[str, float], *, seed: str = "") -> str:
    """The split of a dialogue or template, from a hash of `key`: the same key always falls into the same split.

    Args:
        key: what must stay together (a dialogue id, a template id).
        shares: split name to share; they add up to 1.
        seed: changes the assignment as a whole.
    """
    if not abs(sum(shares.values()) - 1.0) < 1e-9 or min(shares.values()) < 0:
        raise ValueError(f"shares add up to {sum(shares.values())}, expected 1")
    point = int.from_bytes(hashlib.sha256(f"{seed}\x00{key}".encode()).digest()[:8], "big") / 2**64
    total = 0.0
    for name, share in shares.items():
        total += share
        if point < total:
            return name
    return name
