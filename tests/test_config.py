"""Settings are typed and strict; every error names file and key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from lastresort.config import parse_settings, read_settings, read_yaml
from lastresort.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    rate: float
    name: str = "x"

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ValueError(f"found rate {self.rate}, expected at least 0")


@dataclass(frozen=True)
class Outer:
    steps: int
    inner: Inner
    kind: Literal["a", "b"] = "a"
    names: tuple[str, ...] = ()
    by_name: Mapping[str, Inner] = field(default_factory=dict)
    limit: int | None = None
    flag: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps: found {self.steps}, expected at least 1")


GOOD: dict[str, Any] = {"steps": 3, "inner": {"rate": 0.5}}


def problems(values: dict[Any, Any]) -> list[str]:
    """The lines of the error."""
    with pytest.raises(ConfigError) as caught:
        parse_settings(Outer, values, where="s.yaml")
    lines = str(caught.value).splitlines()
    assert all(line.startswith("s.yaml: ") for line in lines)
    assert all("found" in line and "expected" in line for line in lines)
    return lines


def write(tmp_path: Path, text: str) -> Path:
    """A YAML file."""
    path = tmp_path / "s.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_plain_data_becomes_a_frozen_dataclass() -> None:
    values = {**GOOD, "names": ["p", "q"], "by_name": {"k": {"rate": 1}}, "limit": None, "kind": "b"}
    assert parse_settings(Outer, values, where="s.yaml") == Outer(3, Inner(0.5), "b", ("p", "q"), {"k": Inner(1.0)})


def test_the_input_is_not_changed() -> None:
    values = {**GOOD, "names": ["p"]}
    parse_settings(Outer, values, where="s.yaml")
    assert values == {**GOOD, "names": ["p"]}


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"stepps": 3}, "stepps"),
        ({"inner": {"rate": 1, "nam": "x"}}, "inner.nam"),
        ({"by_name": {"k": {"rate": 1, "nam": "x"}}}, "by_name.k.nam"),
        ({"inner": {}}, "inner.rate"),
        ({"inner": None}, "inner"),
        ({"inner": {"rate": -1}}, "inner"),
        ({"inner": {"rate": float("nan")}}, "inner.rate"),
        ({"inner": {"rate": float("inf")}}, "inner.rate"),
        ({"inner": {"rate": "0.5"}}, "inner.rate"),
        ({"steps": "three"}, "steps"),
        ({"steps": "3"}, "steps"),
        ({"steps": True}, "steps"),
        ({"steps": 3.5}, "steps"),
        ({"steps": None}, "steps"),
        ({"steps": 0}, "steps"),
        ({"kind": "c"}, "kind"),
        ({"names": "p"}, "names"),
        ({"names": [1]}, "names.0"),
        ({"flag": "no"}, "flag"),
        ({"flag": 1}, "flag"),
        ({"limit": []}, "limit"),
        ({1: 2}, "1"),
    ],
)
def test_each_problem_names_its_key(changes: dict[Any, Any], key: str) -> None:
    lines = problems({**GOOD, **changes})
    assert len(lines) == 1
    assert re.match(rf"s\.yaml: (\(top level\): .*)?{re.escape(key)}\b", lines[0])


def test_a_missing_key_is_named() -> None:
    assert problems({"inner": {"rate": 1}}) == ["s.yaml: steps: found nothing, expected this setting"]


def test_all_problems_are_listed() -> None:
    assert len(problems({"steps": "x", "inner": {"rate": "y"}, "other": 1})) == 3


def test_a_rule_of_the_dataclass_speaks_for_itself() -> None:
    """The whole settings are not printed in place of the one value that is wrong."""
    (line,) = problems({**GOOD, "steps": 0})
    assert line.endswith("steps: found 0, expected at least 1")
    assert "inner" not in line
    assert line.count("found") == 1


def test_settings_from_a_file(tmp_path: Path) -> None:
    assert read_settings(Outer, write(tmp_path, "# purpose\nsteps: 3\ninner: {rate: 0.5}\n")) == Outer(3, Inner(0.5))


def test_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, "steps: 3\ninner: {rate: 0.5}\n")
    overrides = ["steps=7", "inner.name=a=b", "names=[p, q]", "by_name.k.rate=2", "limit=null"]
    assert read_settings(Outer, path, overrides) == Outer(7, Inner(0.5, "a=b"), "a", ("p", "q"), {"k": Inner(2.0)})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps", r"steps: found no '=', expected key=value"),
        ("steps.x=1", r"s\.yaml: steps\.x: found a value at steps, expected a mapping"),
        ("stepps=1", r"s\.yaml: stepps: found this key"),
        ("inner.nam=1", r"s\.yaml: inner\.nam: found this key"),
        ("steps=x", r"s\.yaml: steps: found 'x'"),
        ("names=[p", r"names.*YAML"),
        ("=1", r"found"),
    ],
)
def test_a_bad_override_is_an_error_that_names_it(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_settings(Outer, write(tmp_path, "steps: 3\ninner: {rate: 0.5}\n"), [override])


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "found NoneType, expected a mapping"),
        (b"- 1\n", "found list, expected a mapping"),
        (b"just text", "found str, expected a mapping"),
        (b"a: \xff", "not UTF-8"),
        (b"steps: 3\ninner: [1, 2\n", "no valid YAML.*line [23]"),
        (b"a: !!python/object/apply:os.getcwd []", "no valid YAML"),
        (b"steps: 3\nsteps: 4\n", "steps.*twice|duplicate"),
    ],
)
def test_a_file_that_is_no_mapping(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(raw)
    with pytest.raises(ConfigError, match=message) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_missing_file_and_a_directory(tmp_path: Path) -> None:
    for path in (tmp_path / "no.yaml", tmp_path):
        with pytest.raises(ConfigError, match=f"^{re.escape(str(path))}: cannot be read: "):
            read_yaml(path)
