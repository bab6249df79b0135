"""Typed, strict settings: YAML or JSON in, a frozen dataclass out, errors that name file and key."""

from __future__ import annotations

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
        settings: T = _adapter(cast("Any", kind)).validate_python(dict(values))
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False):
            key = ".".join(str(part) for part in problem["loc"]) or "(top level)"
            if problem["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
                lines.append(f"{where}: {key}: found this key, expected no such setting")
            elif problem["type"] == "missing":
                lines.append(f"{where}: {key}: found nothing, expected this setting")
            else:
                expected = str(problem["msg"]).removeprefix("Input should be ").removeprefix("Value error, ")
                lines.append(f"{where}: {key}: found {problem['input']!r:.80}, expected {expected}")
        raise ConfigError("\n".join(lines)) from None
    return settings


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file that holds a mapping. Raises `ConfigError`."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: found bytes that are not UTF-8, expected a YAML file") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: found no valid YAML: {str(error).splitlines()[0]}") from None
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
        target[last] = yaml.safe_load(text)
    return parse_settings(kind, values, where=str(path))
