"""The data contract: what goes in comes out, and every error names place and field and keeps what people wrote to itself."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastresort.data import (
    dialogue_to_json,
    dumps,
    iter_records,
    json_schema,
    parse_line,
    parse_record,
    read_dialogues,
    scored_to_json,
    split_of,
    write_dialogues,
)
from lastresort.errors import DataError
from lastresort.types import Decision, Dialogue, Message, ScoredDialogue, ScoredTurn

SECRET = "hunter2 me"  # short on purpose: short strings are the ones that slip into messages
GOOD: dict[str, Any] = {"id": "a", "messages": [{"role": "user", "content": SECRET}]}
SCHEMA_FILE = Path(__file__).parents[1] / "data" / "schema.json"


def message(**changes: Any) -> dict[str, Any]:
    """A record whose only message has `changes`."""
    return {"id": "a", "messages": [{"role": "user", "content": SECRET, **changes}]}


def fails(record: Any) -> DataError:
    """The error on a record as one line."""
    raw = record if isinstance(record, bytes) else json.dumps(record).encode()
    with pytest.raises(DataError) as caught:
        parse_line(Dialogue, raw, where="in.jsonl:7")
    error = caught.value
    assert str(error).startswith("in.jsonl:7: ")
    assert error.where == "in.jsonl:7"
    assert "found" in error.problem
    assert "expected" in error.problem
    assert SECRET not in str(error)
    assert len(str(error)) < 300
    return error


def write(path: Path, *lines: bytes | dict[str, Any]) -> Path:
    """Lines as a file."""
    path.write_bytes(b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines))
    return path


def bad_lines(path: Path) -> tuple[list[Dialogue], list[tuple[str, bytes]]]:
    """What was read, and what `on_bad` received."""
    bad: list[tuple[str, bytes]] = []
    return list(read_dialogues(path, on_bad=lambda error, raw: bad.append((error.where, raw)))), bad


# --- round trip -----------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
messages = st.builds(
    Message,
    role=st.sampled_from(["user", "assistant", "system", "tool"]),
    content=st.text(max_size=30),
    labels=st.dictionaries(st.text(min_size=1, max_size=8), st.floats(0, 1), max_size=3),
)
dialogues = st.builds(
    Dialogue,
    id=st.text(max_size=8),
    messages=st.lists(messages, max_size=4).map(tuple),
    source=st.text(max_size=8),
    meta=st.dictionaries(st.text(max_size=8), json_values, max_size=3),
)


@given(dialogues)
def test_a_dialogue_survives_a_line(dialogue: Dialogue) -> None:
    line = dumps(dialogue_to_json(dialogue))
    assert "\n" not in line
    assert parse_line(Dialogue, line.encode()) == dialogue


def test_dialogues_survive_a_file(tmp_path: Path) -> None:
    many = [
        Dialogue(str(n), (Message("user", "grüß \u2028 dich\n🙂", {"harm": 0.5}), Message("assistant", "")), "own", {"n": n, "deep": {"a": [None, 1.5]}})
        for n in range(20)
    ]
    assert write_dialogues(many, tmp_path / "out.jsonl") == 20
    assert list(read_dialogues(tmp_path / "out.jsonl")) == many
    assert (tmp_path / "out.jsonl").read_bytes().count(b"\n") == 20


def test_a_gzipped_file_reads_the_same(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.jsonl", GOOD, {**GOOD, "id": "b"})
    with gzip.open(tmp_path / "a.jsonl.gz", "wb") as stream:
        stream.write(plain.read_bytes())
    assert list(read_dialogues(tmp_path / "a.jsonl.gz")) == list(read_dialogues(plain))


def test_standard_input_is_a_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(GOOD).encode() + b"\n{}\n")))
    records = read_dialogues("-")
    assert next(records).id == "a"
    with pytest.raises(DataError, match=r"^<stdin>:2: id"):
        next(records)


def test_a_scored_dialogue_survives_a_line() -> None:
    turns = (ScoredTurn(0, "user", {"harm": 0.9}, 1, Decision("continue", "redirect", "harmful_turn", "harm", (0,))), ScoredTurn(1, "tool", {}, 0, None))
    scored = ScoredDialogue("a", "tiny@12345678", "continue", None, turns)
    assert parse_line(ScoredDialogue, dumps(scored_to_json(scored)).encode()) == scored


def test_keys_that_may_be_absent() -> None:
    assert parse_record(Dialogue, GOOD) == Dialogue("a", (Message("user", SECRET, {}),), "", {})


def test_lone_surrogates_survive_a_file(tmp_path: Path) -> None:
    """They occur in scraped JSON as escapes; what can be read can be written."""
    path = write(tmp_path / "a.jsonl", b'{"id": "a", "messages": [{"role": "user", "content": "x\\ud83d"}]}')
    read = list(read_dialogues(path))
    assert read[0].messages[0].content == "x\ud83d"
    write_dialogues(read, tmp_path / "b.jsonl")
    assert list(read_dialogues(tmp_path / "b.jsonl")) == read


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
def test_numbers_that_cannot_be_written_are_not_read(number: bytes) -> None:
    error = fails(b'{"id": "a", "messages": [], "meta": {"x": {"y": [' + number + b"]}}}")
    assert error.field.startswith("meta")


def test_writing_refuses_numbers_that_are_not_finite() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        dumps({"x": float("nan")})


# --- odd but valid --------------------------------------------------------------------------------------------------


def test_an_empty_file_gives_nothing(tmp_path: Path) -> None:
    assert list(read_dialogues(write(tmp_path / "a.jsonl"))) == []


def test_blank_lines_are_passed_over_and_still_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b"", GOOD, b"  \t", b"\r", b"[]")
    records = read_dialogues(path)
    assert next(records).id == "a"
    with pytest.raises(DataError, match=r"a\.jsonl:5: found a list of 0, expected a JSON object"):
        next(records)


def test_windows_line_ends_and_no_last_line_end(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\r\n" + json.dumps(GOOD).encode())
    assert len(list(read_dialogues(path))) == 2


def test_an_empty_conversation_and_an_empty_message_are_valid() -> None:
    assert parse_record(Dialogue, {"id": "a", "messages": []}).messages == ()
    assert parse_record(Dialogue, message(content="")).messages[0].content == ""


@pytest.mark.parametrize("value", [0, 1, 0.0, 0.25, 1.0])
def test_soft_labels(value: float) -> None:
    assert parse_record(Dialogue, message(labels={"harm": value})).messages[0].labels == {"harm": value}


# --- errors: the record ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "field", "found", "expected"),
    [
        ({"messages": []}, "id", "nothing", "this key"),
        ({"id": "a"}, "messages", "nothing", "this key"),
        ({**GOOD, "id": 5}, "id", "5", "string"),
        ({**GOOD, "id": None}, "id", "None", "string"),
        ({**GOOD, "extra": 1}, "extra", "", "no such key"),
        ({**GOOD, "source": 3}, "source", "3", "string"),
        ({**GOOD, "meta": None}, "meta", "None", "object|dictionary"),
        ({**GOOD, "messages": SECRET}, "messages", "string", "list"),
        ({**GOOD, "messages": {"role": "user"}}, "messages", "object with 1 key", "list"),
        ({**GOOD, "messages": [SECRET]}, "messages.0", "string", "object|dictionary"),  # turns as bare strings
        ({**GOOD, "messages": [None]}, "messages.0", "None", "object|dictionary"),
        ({**GOOD, "messages": [["user", SECRET]]}, "messages.0", "list of 2", "object|dictionary"),
        (message(role="human"), "messages.0.role", "'human'", "'user', 'assistant', 'system' or 'tool'"),
        (message(role="User"), "messages.0.role", "'User'", "'user'"),
        (message(role=None), "messages.0.role", "None", "'user'"),
        (message(role=[SECRET]), "messages.0.role", "list of 1", "'user'"),
        (message(role=SECRET, content="user"), "messages.0.role", "string", "'user'"),  # role and content swapped
        ({**GOOD, "messages": [{"content": SECRET}]}, "messages.0.role", "nothing", "this key"),
        ({**GOOD, "messages": [{"role": "user"}]}, "messages.0.content", "nothing", "this key"),
        # OpenAI's other shapes
        (message(content=None), "messages.0.content", "NoneType|null", "string"),
        (message(content=[{"type": "text", "text": SECRET}]), "messages.0.content", "list", "string"),
        (message(content={"text": SECRET}), "messages.0.content", "dict|object", "string"),
        (message(content=12), "messages.0.content", "int", "string"),
        (message(name="Bob Smith"), "messages.0.name", "string", "no such key"),
        (message(tool_calls=[{"id": "x"}]), "messages.0.tool_calls", "list of 1", "no such key"),
        (message(refusal=SECRET), "messages.0.refusal", "string", "no such key"),
        # labels
        (message(labels={"harm": 1.5}), "messages.0.labels.harm", "1.5", "number in 0…1"),
        (message(labels={"harm": -0.1}), "messages.0.labels.harm", "-0.1", "number in 0…1"),
        (message(labels={"harm": float("nan")}), "messages.0.labels.harm", "nan", "finite number"),
        (message(labels={"harm": float("inf")}), "messages.0.labels.harm", "inf", "finite number"),
        (message(labels={"harm": 10**400}), "messages.0.labels.harm", "", "number"),
        (message(labels={"harm": SECRET}), "messages.0.labels.harm", "string", "number"),
        (message(labels={"harm": "0.5"}), "messages.0.labels.harm", "string", "number"),
        (message(labels={"harm": True}), "messages.0.labels.harm", "True", "number"),
        (message(labels={"harm": None}), "messages.0.labels.harm", "None", "number"),
        (message(labels=["harm"]), "messages.0.labels", "list of 1", "object|dictionary"),
        (message(labels=None), "messages.0.labels", "None", "object|dictionary"),
        (message(labels={"content": SECRET}), "messages.0.labels.content", "str", "number"),
    ],
)
def test_an_error_names_the_field_what_was_found_and_what_was_expected(record: dict[str, Any], field: str, found: str, expected: str) -> None:
    error = fails(record)
    assert error.field == field
    assert str(error).startswith(f"in.jsonl:7: {field}: found ")
    part, _, rest = error.problem.partition(", expected")
    assert any(word in part for word in found.split("|"))
    assert any(word in rest for word in expected.split("|"))


def test_a_misnamed_key_says_which_keys_there_are() -> None:
    """`text` for `content` is the likeliest slip; either of the two problems may be named, never the text."""
    error = fails({"id": "a", "messages": [{"role": "user", "text": SECRET}]})
    assert error.field in {"messages.0.text", "messages.0.content"}


def test_the_words_of_the_message_are_json_words() -> None:
    """People write JSON lists and objects, not tuples and Messages."""
    for record in ({**GOOD, "messages": SECRET}, {**GOOD, "messages": [None]}, {**GOOD, "meta": None}, message(labels=None)):
        problem = fails(record).problem
        assert not any(word in problem for word in ("tuple", "dictionary", "instance", "Message"))


def test_the_third_message_is_named_as_such() -> None:
    turns = [{"role": "user", "content": SECRET}] * 2
    assert fails({"id": "a", "messages": [*turns, {"role": "bot", "content": SECRET}]}).field == "messages.2.role"


# --- errors: the line -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b"[]", "a list of 0"),
        (b"3", "3"),
        (b"null", "None"),
        (b"true", "True"),
        (json.dumps(SECRET).encode(), "a string"),
        (b'"x"', "string"),
        (b"plain text", "no valid JSON"),
        (SECRET.encode(), "no valid JSON"),
        (b'{"id": "a", "messages": []', "no valid JSON"),
        (b'{"id": "a", "messages": []} {}', "no valid JSON"),
        (b"{'id': 'a'}", "no valid JSON"),
        (b'\xef\xbb\xbf{"id": "a", "messages": []}', "BOM"),
        (b'{"id": "\xff"}', "byte 0xff at offset 8"),
        (b'{"id": "a", "messages": [], "meta": {"n": ' + b"1" * 5000 + b"}}", ""),  # Python refuses to read it
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_line_that_is_no_json_object(raw: bytes, found: str) -> None:
    error = fails(raw)
    assert error.field == ""
    assert found in error.problem


def test_meta_may_be_deep_or_is_refused_by_name() -> None:
    """Neither reading nor writing overflows the stack: what is read can be written."""
    problems: list[str] = []
    for depth in (50, 400, 900, 5000, 100_000):
        raw = b'{"id": "a", "messages": [], "meta": {"x": ' + b"[" * depth + b"]" * depth + b"}}"
        try:
            dialogue = parse_line(Dialogue, raw)
        except DataError as error:
            problems.append(error.problem)
        else:
            dumps(dialogue_to_json(dialogue))
    assert problems
    assert all("deep" in problem for problem in problems)


# --- errors: the file -----------------------------------------------------------------------------------------------


def test_a_missing_file_and_a_directory(tmp_path: Path) -> None:
    for path in (tmp_path / "no.jsonl", tmp_path / "no.jsonl.gz", tmp_path):
        with pytest.raises(DataError) as caught:
            list(read_dialogues(path))
        assert str(caught.value).startswith(f"{path}: cannot be read: ")


def test_a_file_that_cannot_be_read_is_never_a_bad_line(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        bad_lines(tmp_path / "no.jsonl")


def gzipped(tmp_path: Path, change: Any) -> Path:
    """A gzipped file of many lines whose bytes went through `change`."""
    lines = b"".join(json.dumps({**GOOD, "id": str(n)}).encode() + b"\n" for n in range(2000))
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(change(gzip.compress(lines, mtime=0)))
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw[:-4],
        lambda raw: raw[:5],
        lambda raw: b"not gzip at all",
        lambda raw: raw[:-8] + b"\0\0\0\0" + raw[-4:],
        lambda raw: raw[:200] + b"\xff" * 200 + raw[400:],
    ],
    ids=["half", "no length", "header only", "no gzip", "wrong checksum", "garbled"],
)
def test_a_damaged_gzip_file_is_an_error_that_names_it(tmp_path: Path, change: Any) -> None:
    path = gzipped(tmp_path, change)
    with pytest.raises(DataError) as caught:
        list(read_dialogues(path, on_bad=lambda error, raw: None))
    assert str(caught.value).startswith(f"{path}: cannot be read: ")


def test_records_before_the_damage_are_still_given(tmp_path: Path) -> None:
    records = read_dialogues(gzipped(tmp_path, lambda raw: raw[: len(raw) // 2]))
    assert [next(records).id for _ in range(100)] == [str(n) for n in range(100)]


def test_a_bad_line_stops_with_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", GOOD, message(role="bot"), GOOD)
    records = read_dialogues(path)
    next(records)
    with pytest.raises(DataError) as caught:
        next(records)
    assert (caught.value.where, caught.value.field) == (f"{path}:2", "messages.0.role")
    assert str(caught.value) == f"{path}:2: messages.0.role: {caught.value.problem}"


def test_on_bad_receives_each_bad_line_and_reading_goes_on(tmp_path: Path) -> None:
    lines: list[bytes | dict[str, Any]] = [b"oops", GOOD, b"\xff", b"[" * 100_000, b"1" * 5000, {**GOOD, "id": "b"}, b"{}"]
    path = write(tmp_path / "a.jsonl", *lines)
    good, bad = bad_lines(path)
    assert [dialogue.id for dialogue in good] == ["a", "b"]
    assert [where for where, _ in bad] == [f"{path}:{number}" for number in (1, 3, 4, 5, 7)]
    assert [raw for _, raw in bad] == [line + b"\n" for line in lines if isinstance(line, bytes)]


def test_reading_is_lazy(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", GOOD, b"oops")
    assert next(iter_records(Dialogue, path)).id == "a"


# --- split ----------------------------------------------------------------------------------------------------------

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


def test_the_split_of_a_key_never_changes() -> None:
    """Written down once: another value here would move dialogues between the splits of released models."""
    assert [split_of(key, SHARES) for key in ("a", "d", "f", "h", "ü", "")] == SPLITS


SPLITS = ["train", "validation", "test", "validation", "test", "train"]


def test_the_split_is_proportional_and_the_seed_moves_it() -> None:
    keys = [f"dialogue-{n}" for n in range(4000)]
    splits = [split_of(key, SHARES) for key in keys]
    for name, share in SHARES.items():
        assert abs(splits.count(name) / len(keys) - share) < 0.02
    assert splits != [split_of(key, SHARES, seed="other") for key in keys]


def test_a_share_of_nothing_gets_nothing() -> None:
    assert {split_of(str(n), {"none": 0.0, "all": 1.0, "last": 0.0}) for n in range(500)} == {"all"}


@pytest.mark.parametrize("shares", [{}, {"a": 0.5}, {"a": 0.7, "b": 0.7}, {"a": float("nan")}, {"a": 1.5, "b": -0.5}])
def test_shares_that_do_not_add_up_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="shares"):
        split_of("a", shares)


# --- schema ---------------------------------------------------------------------------------------------------------


def test_the_schema_file_is_the_generated_schema() -> None:
    """Regenerate: python -c "import json, lastresort.data as d; print(json.dumps(d.json_schema(), indent=2))" > data/schema.json"""
    assert SCHEMA_FILE.read_text(encoding="utf-8") == json.dumps(json_schema(), indent=2) + "\n"


def test_the_schema_is_a_schema_and_accepts_what_is_written() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    jsonschema.Draft202012Validator(json_schema()).validate(dialogue_to_json(parse_record(Dialogue, message(labels={"harm": 0.5}))))


@pytest.mark.parametrize(
    "record",
    [
        {"id": "a"},
        {**GOOD, "extra": 1},
        message(role="bot"),
        message(content=None),
        message(name="x"),
        message(labels={"harm": "0.5"}),
        message(labels={"harm": 1.5}),
        message(labels={"harm": -1}),
    ],
)
def test_what_the_schema_refuses_is_refused_and_the_other_way_round(record: dict[str, Any]) -> None:
    assert not jsonschema.Draft202012Validator(json_schema()).is_valid(record)
    fails(record)
