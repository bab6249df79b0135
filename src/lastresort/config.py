"""Typed, strict settings: YAML or JSON in, a frozen dataclass out, errors that name file and key."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from .errors import ConfigError

T = TypeVar("T")
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    if not hasattr(kind, "__pydantic_config__"):
        kind.__pydantic_config__ = STRICT  # where pydantic looks on a dataclass
    return TypeAdapter(kind)


def parse_settings(kind: type[T], values: Mapping[str, Any], *, where: str) -> T:
    """Settings as the frozen dataclass `kind`.

    Args:
        kind: a dataclass; each unknown, missing or ill-typed key is an error.
        values: plain data, as read from YAML or JSON.
        where: the file, for messages.

    Raises:
        ConfigError: names `where`, the key, what was found and what was expected. All problems are listed.
    """
    try:
        # as JSON, because strictness there means: lists become tuples and objects dataclasses, but 'yes' is no number
        settings: T = _adapter(cast("Any", kind)).validate_json(json.dumps(dict(values), default=str), strict=True)
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False):
            key = ".".join(str(part) for part in problem["loc"]) or "(top level)"
            if problem["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
                lines.append(f"{where}: {key}: found this key, expected no such setting")
            elif problem["type"] == "missing":
                lines.append(f"{where}: {key}: found nothing, expected this setting")
            elif problem["type"] == "value_error":  # a rule of the dataclass says itself what was found and expected
                lines.append(f"{where}: {key}: {problem['ctx']['error']}")
            else:
                expected = str(problem["msg"]).removeprefix("Input should be ")
                lines.append(f"{where}: {key}: found {problem['input']!r:.80}, expected {expected}")
        raise ConfigError("\n".join(lines)) from None
    return settings


class _Loader(yaml.SafeLoader):
    """The safe loader, which also refuses a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value}: found twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file that holds a mapping. Raises `ConfigError`."""
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a safe loader
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: found bytes that are not UTF-8, expected a YAML file") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: found no valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: found {type(values).__name__}, expected a mapping of settings")
    return values


def read_settings(kind: type[T], path: str | Path, overrides: Sequence[str] = ()) -> T:
    """Settings from a YAML file, with `key=value` overrides (dotted keys, values read as YAML).

    Raises:
        ConfigError: see `parse_settings`.
    """
    values = read_yaml(path)
    for item in overrides:
        key, separator, text = item.partition("=")
        if not separator:
            raise ConfigError(f"{item}: found no '=', expected key=value")
        *parents, last = key.split(".")
        target = values
        for part in parents:
            target = target.setdefault(part, {})
            if not isinstance(target, dict):
                raise ConfigError(f"{path}: {key}: found a value at {part}, expected a mapping")
        try:
            target[last] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"{item}: found no valid YAML after '=', expected key=value") from None
    return parse_settings(kind, values, where=str(path))
