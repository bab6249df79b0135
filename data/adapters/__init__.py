"""The adapters, discovered: every module in this folder is one source, except `base` and those with a leading underscore, named like the module."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, cast

from lastresort.errors import DataError

from .base import Counts, SplitDialogue


class Adapter(Protocol):
    """What an adapter module offers."""

    EXPECTED: Counts

    def read(self, folder: Path) -> Iterator[SplitDialogue]:
        """Yields the labelled dialogues of the source in `folder`, each with its split."""
        ...  # pragma: no cover


def names() -> list[str]:
    """The sources that have an adapter, in alphabetical order."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base" and not module.name.startswith("_"))


def get(name: str) -> Adapter:
    """The adapter of source `name`.

    Raises:
        DataError: no such source.
    """
    if name not in names():
        raise DataError(f"found {name!r}, expected one of {', '.join(names())}", field="source")
    return cast("Adapter", importlib.import_module(f".{name}", __package__))
