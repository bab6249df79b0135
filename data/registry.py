"""The registry of public sources, `sources.yaml`: where each comes from, under which licence, and the files that its adapter reads."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import Field
from rich.markup import escape
from rich.table import Table

from lastresort.config import STRICT, read_settings
from lastresort.errors import DataError

from . import adapters

if TYPE_CHECKING:
    from rich.console import Console

PATH = Path(__file__).with_name("sources.yaml")
ALL = "all"
"""In place of names of sources: all of them."""

LicenceClass = Literal["permissive", "share_alike", "non_commercial", "gpl"]
"""What the texts may be used for. `permissive` takes in public domain and attribution; mixed texts have the strictest class of what the adapter keeps."""
LICENCE_CLASSES: tuple[LicenceClass, ...] = get_args(LicenceClass)

Rewrite = Literal["none", "csv", "json"]
"""How upstream's bytes become ours: as they are; as CSV with LF and as few quotes as possible; as JSON with one item a line and no indent."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
Words = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True)
class Upstream:
    """A repository that a source comes from.

    Attributes:
        repository: owner/name.
        commit: the pinned commit, 7 to 40 hexadecimal digits.
        note: whose data it is, if the repository is a copy; or which part was taken.
    """

    repository: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{7,40}$")]
    note: str = ""


@dataclass(frozen=True)
class Download:
    """How to get a file from the source's first repository.

    Attributes:
        path: path in the repository.
        rewrite: how its bytes become ours.
        sha256: of upstream's bytes; null where nobody is known to have published it, so that only the result can be checked.
    """

    path: Annotated[str, Field(pattern=r"^\w[\w./-]*$")]
    rewrite: Rewrite = "none"
    sha256: Sha256 | None = None


@dataclass(frozen=True)
class File:
    """A file that an adapter reads.

    Attributes:
        name: its name in the source's folder.
        sha256: of the file as it lies there.
        content_sha256: of its decompressed bytes; for `.gz` files only.
        download: how to get it; null where no single upstream file has this content.
        reason: why there is no download.
    """

    name: FileName
    sha256: Sha256
    download: Download | None
    content_sha256: Sha256 | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        if self.name.endswith(".gz") != (self.content_sha256 is not None):
            raise ValueError(f"found {'a' if self.content_sha256 else 'no'} content_sha256 for {self.name}, expected one for .gz files only")
        if bool(self.reason) == (self.download is not None):
            raise ValueError(f"found {'both download and' if self.reason else 'neither download nor'} reason for {self.name}, expected one of them")


@dataclass(frozen=True)
class SourceEntry:
    """One source.

    Attributes:
        upstream: repositories, the first being the one that `download` refers to.
        licence: its licence in words.
        licence_class: what that allows.
        split: the rule of the split in words.
        labels: what the adapter maps, in short words.
        weight: starting value of a mixture's `weight`, 0 or more; a mixture has to repeat it.
        cap: starting value of a mixture's `cap`, in training dialogues; likewise.
        files: the files that the adapter reads.
        sensitive: never to be shown as an example.
    """

    upstream: tuple[Upstream, ...]
    licence: Words
    licence_class: LicenceClass
    split: Words
    labels: Words
    weight: Annotated[float, Field(ge=0)]
    cap: Annotated[int, Field(ge=1)]
    files: tuple[File, ...]
    sensitive: bool = False

    def __post_init__(self) -> None:
        if not self.upstream or not self.files:
            raise ValueError(f"found no {'files' if self.upstream else 'upstream'}, expected at least one")

    @property
    def address(self) -> str:
        """Repositories and commits, for messages."""
        return ", ".join(f"{one.repository} @ {one.commit}" for one in self.upstream)

    @property
    def downloadable(self) -> bool:
        """Whether all files can be downloaded."""
        return all(file.download for file in self.files)


@dataclass(frozen=True)
class Registry:
    """All sources.

    Attributes:
        base_url: what `/owner/name/commit/path` is appended to for a download.
        overlaps_sha256: of the list of held-out overlaps, whose row numbers belong to exactly these files.
        sources: name to entry.
    """

    base_url: Annotated[str, Field(pattern=r"^https?://")]
    overlaps_sha256: Sha256
    sources: Mapping[str, SourceEntry]

    def entry(self, source: str) -> SourceEntry:
        """The entry of `source`. Raises `DataError` for an unknown one."""
        if source not in self.sources:
            raise DataError(f"found {source!r}, expected one of {', '.join(self.sources)}", field="source")
        return self.sources[source]


for _type in (Upstream, Download, File, SourceEntry):  # the entries are as strict as the whole
    setattr(_type, "__pydantic_config__", STRICT)  # noqa: B010 - a standard dataclass declares no such attribute


@cache
def read_registry(path: str | Path = PATH) -> Registry:
    """The registry, checked; read once for each path.

    Raises:
        ConfigError: an unknown, missing or wrong key, named with file and key.
    """
    return read_settings(Registry, path)


def choose(registry: Registry, sources: Iterable[str], licences: Iterable[str] = LICENCE_CLASSES) -> list[str]:
    """The sources to use: those that are named, or, if `all` is, every one of a licence class in `licences`.

    Raises:
        DataError: an unknown class, an unknown source, or one that is named although its class is not in `licences`.
    """
    named, allowed = list(sources), frozenset(licences)
    for unknown in sorted(allowed.difference(LICENCE_CLASSES)):
        raise DataError(f"found {unknown!r}, expected one of {', '.join(LICENCE_CLASSES)}", field="licences")
    if ALL in named:
        return [name for name, entry in registry.sources.items() if entry.licence_class in allowed]
    for name in named:
        found = registry.entry(name).licence_class
        if found not in allowed:
            raise DataError(f"found the licence class {found}, expected one of {', '.join(sorted(allowed))}", where=name, field="licence_class")
    return named


def matches(content: bytes, file: File) -> bool:
    """Whether the bytes of a file are those of the registry, compressed as they are or otherwise."""
    if digest(content) == file.sha256:
        return True
    try:
        return file.content_sha256 is not None and digest(gzip.decompress(content)) == file.content_sha256
    except (OSError, EOFError, zlib.error):
        return False


def verify(folder: Path, file: File) -> None:
    """Checks a file in the folder of its source.

    Raises:
        DataError: it is missing, or its bytes are others; says what was found and what was expected.
    """
    path = folder / file.name
    content = read(path)
    if not matches(content, file):
        raise DataError(f"found sha256 {digest(content)}, expected {file.sha256} (data/sources.yaml)", where=str(path))


def verify_overlaps(path: Path, registry: Registry) -> None:
    """Checks the list of held-out overlaps. Raises `DataError`."""
    found = digest(read(path))
    if found != registry.overlaps_sha256:
        raise DataError(f"found sha256 {found}, expected {registry.overlaps_sha256} (data/sources.yaml: overlaps_sha256)", where=str(path))


def digest(content: bytes) -> str:
    """SHA-256, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def read(path: Path) -> bytes:
    """The bytes of a file. Raises `DataError`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror}), expected a file of the registry", where=str(path)) from None


def describe(registry: Registry) -> list[dict[str, Any]]:
    """Every source as a JSON-able record: its entry, and what its adapter says of itself.

    The adapter gives `description` (one line), and in dialogues `train` and `validation`; in turns `positives`, label to number at 0.5 or more.
    """
    records = []
    for name, entry in registry.sources.items():
        adapter = adapters.get(name)
        description = (adapter.__doc__ or "").splitlines()[0]
        records.append({"name": name, "description": description, **asdict(entry), "downloadable": entry.downloadable, **asdict(adapter.EXPECTED)})
    return records


def show(registry: Registry, console: Console) -> None:
    """Prints the sources as a table."""
    table = Table(title=f"{len(registry.sources)} sources", show_lines=True)
    for column in ("source", "licence class"):
        table.add_column(column, no_wrap=True)
    for column in ("files", "split", "labels", "description"):
        table.add_column(column, overflow="fold")
    for record in describe(registry):
        name = record["name"] + (" (sensitive)" if record["sensitive"] else "")
        files = "\n".join(file["name"] for file in record["files"])
        table.add_row(*map(escape, (name, record["licence_class"], files, record["split"], record["labels"], record["description"])))
    console.print(table)
