"""Fetches raw files from their upstream repositories at the pinned commits, checked by hash, into a cache folder.

Only few sources can be fetched: most files of the collection are cleaned, merged or subsets, and no upstream file has their content. For those there
is an error that says so. Nothing is sent but the request for the file.
"""

from __future__ import annotations

import csv
import gzip
import http.client
import io
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from lastresort.errors import ConfigError, DataError

from .registry import Download, File, Rewrite, SourceEntry, digest, matches

TIMEOUT_S = 30.0
"""Seconds without a byte after which a download fails."""
MOST_BYTES = 64 * 2**20
"""No file of the registry comes near this; more is an error."""
BASE_URL_VARIABLE = "LASTRESORT_DATA_BASE_URL"


def fetch(source: str, entry: SourceEntry, cache_dir: Path, base_url: str, *, timeout_s: float = TIMEOUT_S) -> Path:
    """Makes sure that `cache_dir/<source>/` holds the files of a source, and gives that folder back.

    A file that is there and matches the registry is not fetched again. A file appears whole and checked, or not at all. Two processes may fetch into the
    same folder.

    Args:
        source: its name.
        entry: its entry in the registry.
        cache_dir: folder with one folder a source; made if needed.
        base_url: what `/owner/name/commit/path` is appended to; http or https.
        timeout_s: seconds without a byte after which a download fails.

    Raises:
        ConfigError: `base_url` is no http address.
        DataError: a file cannot be fetched, is cut short, or is not the expected one. What was fetched before it stays.
    """
    if urllib.parse.urlsplit(base_url).scheme not in ("http", "https"):
        raise ConfigError(f"base URL: found {base_url!r}, expected an address that begins with http:// or https://")
    folder = cache_dir / source
    missing = [file for file in entry.files if not _is_there(folder, file)]
    for file in missing:
        if file.download is None:
            problem = f"no single file of upstream ({entry.address}) has this content: {file.reason}; get the file elsewhere and use --from"
            raise DataError(problem, where=f"{source}/{file.name}", field="download")
    for file in missing:
        assert file.download is not None
        _write(folder / file.name, _file(file, file.download, _address(entry, file.download, base_url), timeout_s))
    return folder


def _is_there(folder: Path, file: File) -> bool:
    path = folder / file.name
    return path.is_file() and matches(path.read_bytes(), file)


def _address(entry: SourceEntry, download: Download, base_url: str) -> str:
    first = entry.upstream[0]
    return f"{base_url.rstrip('/')}/{first.repository}/{first.commit}/{urllib.parse.quote(download.path)}"


def _file(file: File, download: Download, address: str, timeout_s: float) -> bytes:
    """The bytes of the file as it will lie in the cache."""
    fetched = _get(address, timeout_s)
    if download.sha256 is not None and digest(fetched) != download.sha256:
        raise DataError(f"found sha256 {digest(fetched)}, expected {download.sha256} (data/sources.yaml: {file.name}: download)", where=address)
    content = rewritten(fetched, download.rewrite, address)
    compressed = file.content_sha256 is not None and not content.startswith(b"\x1f\x8b")
    if compressed:
        content = gzip.compress(content, mtime=0)
    if not matches(content, file):
        plain = gzip.decompress(content) if compressed else content
        problem = f"found sha256 {digest(plain)} (rewrite: {download.rewrite}), expected {file.content_sha256 or file.sha256} (data/sources.yaml: {file.name})"
        raise DataError(problem, where=address)
    return content


def _get(address: str, timeout_s: float) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=timeout_s) as answer:
            content: bytes = answer.read(MOST_BYTES + 1)
            promised = answer.headers.get("Content-Length")
    except urllib.error.HTTPError as error:
        with error:  # it holds the connection
            raise DataError(f"found HTTP status {error.code}, expected 200", where=address) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(f"cannot be fetched: {type(error).__name__}: {reason}", where=address) from None
    if len(content) > MOST_BYTES:
        raise DataError(f"found more than {MOST_BYTES} bytes, expected fewer", where=address)
    if promised is not None and promised.isdigit() and len(content) != int(promised):
        raise DataError(f"found {len(content)} bytes, expected {promised}: the transfer was cut short", where=address)
    return content


def rewritten(content: bytes, rewrite: Rewrite, where: str) -> bytes:
    """Upstream's bytes as the collection has them.

    Raises:
        DataError: the bytes are no UTF-8, CSV or JSON.
    """
    if rewrite == "none":
        return content
    try:
        text = content.decode("utf-8")
        if rewrite == "json":
            return json.dumps(json.loads(text), indent=0, ensure_ascii=False).encode()
        out = io.StringIO(newline="")
        csv.writer(out, lineterminator="\n").writerows(csv.reader(io.StringIO(text, newline="")))
        return out.getvalue().encode()
    except (ValueError, csv.Error) as error:
        raise DataError(f"cannot be rewritten as {rewrite}: {type(error).__name__}", where=where) from None


def _write(path: Path, content: bytes) -> None:
    """The whole file at once: a temporary file beside it takes its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
