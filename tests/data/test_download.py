"""Downloads from a real server on this machine: fetched once, checked, whole or not at all."""

from __future__ import annotations

import gzip
import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from lastresort.config import read_yaml
from lastresort.data import read_dialogues
from lastresort.errors import ConfigError, DataError
from lastresort_data import registry
from lastresort_data.cli import app
from lastresort_data.download import BASE_URL_VARIABLE, fetch, rewritten
from lastresort_data.prepare import OVERLAP_COLUMNS
from lastresort_data.registry import PATH, Download, File, SourceEntry, Upstream, read_registry

UPSTREAM = Upstream("owner/data", "0123abcd")
PLAIN = b'text,category\r\nWhere is my card?,card_arrival\r\n"Two words, please",other\r\n'
OURS = b'text,category\nWhere is my card?,card_arrival\n"Two words, please",other\n'


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Upstreams:
    """A server and what it serves: path to (status, body, promised length)."""

    url: str
    files: dict[str, tuple[int, bytes, int]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def put(self, path: str, body: bytes, *, status: int = 200, promised: int | None = None) -> None:
        self.files[f"/{UPSTREAM.repository}/{UPSTREAM.commit}/{path}"] = (status, body, len(body) if promised is None else promised)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Upstreams]:
    """On a free port of this machine, whatever proxy the environment names."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "*")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            upstreams.asked.append(self.path)
            status, body, promised = upstreams.files.get(self.path, (404, b"nothing here", 12))
            self.send_response(status)
            self.send_header("Content-Length", str(promised))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        upstreams = Upstreams(f"http://127.0.0.1:{httpd.server_port}")
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield upstreams
        finally:
            httpd.shutdown()
            thread.join()


def entry(*files: File) -> SourceEntry:
    return SourceEntry((UPSTREAM,), "MIT", "permissive", "none", "harmless", 1.0, 10, files)


def plain(name: str = "a.csv", content: bytes = OURS) -> File:
    return File(name, sha256(content), Download(f"folder/{name}"))


COMPRESSED = File("train.csv.gz", "0" * 64, Download("train.csv", "csv", sha256(PLAIN)), sha256(OURS))


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


# -- what works -------------------------------------------------------------------------------------------------------------------------


def test_a_file_is_fetched_from_the_commit_and_kept_as_it_is(server: Upstreams, tmp_path: Path) -> None:
    server.put("folder/a.csv", OURS)
    folder = fetch("mine", entry(plain()), tmp_path, server.url + "/")
    assert folder == tmp_path / "mine"
    assert (folder / "a.csv").read_bytes() == OURS
    assert server.asked == ["/owner/data/0123abcd/folder/a.csv"]
    assert left(tmp_path) == ["a.csv"]


def test_upstream_bytes_are_rewritten_and_compressed_as_the_registry_says(server: Upstreams, tmp_path: Path) -> None:
    server.put("train.csv", PLAIN)
    folder = fetch("mine", entry(COMPRESSED), tmp_path, server.url)
    assert gzip.decompress((folder / "train.csv.gz").read_bytes()) == OURS


def test_a_file_that_upstream_compresses_itself_is_not_compressed_again(server: Upstreams, tmp_path: Path) -> None:
    body = gzip.compress(OURS, mtime=5)
    server.put("a.csv.gz", body)
    folder = fetch("mine", entry(File("a.csv.gz", sha256(body), Download("a.csv.gz"), sha256(OURS))), tmp_path, server.url)
    assert (folder / "a.csv.gz").read_bytes() == body


def test_what_is_there_is_not_fetched_again(server: Upstreams, tmp_path: Path) -> None:
    server.put("train.csv", PLAIN)
    server.put("folder/a.csv", OURS)
    both = entry(COMPRESSED, plain())
    fetch("mine", both, tmp_path, server.url)
    assert len(server.asked) == 2
    fetch("mine", both, tmp_path, server.url)
    assert len(server.asked) == 2
    (tmp_path / "mine" / "a.csv").write_bytes(OURS[:-1])  # damaged: fetched again, alone
    fetch("mine", both, tmp_path, server.url)
    assert server.asked[2:] == ["/owner/data/0123abcd/folder/a.csv"]
    assert (tmp_path / "mine" / "a.csv").read_bytes() == OURS


def test_a_file_without_download_may_lie_in_the_cache_already(server: Upstreams, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "b.csv").write_bytes(b"b")
    server.put("folder/a.csv", OURS)
    fetch("mine", entry(File("b.csv", sha256(b"b"), None, reason="merged"), plain()), tmp_path, server.url)
    assert left(tmp_path) == ["a.csv", "b.csv"]


# -- what does not ----------------------------------------------------------------------------------------------------------------------


def test_a_wrong_hash_leaves_nothing_behind(server: Upstreams, tmp_path: Path) -> None:
    server.put("folder/a.csv", b"other")
    with pytest.raises(DataError, match=rf"folder/a\.csv: found sha256 {sha256(b'other')}.*expected {sha256(OURS)}"):
        fetch("mine", entry(plain()), tmp_path, server.url)
    assert left(tmp_path) == []


def test_upstream_bytes_are_checked_before_they_are_rewritten(server: Upstreams, tmp_path: Path) -> None:
    changed = PLAIN.replace(b"card?", b"cards?")
    server.put("train.csv", changed)
    with pytest.raises(DataError, match=rf"found sha256 {sha256(changed)}, expected {sha256(PLAIN)}"):
        fetch("mine", entry(COMPRESSED), tmp_path, server.url)
    unknown = replace(COMPRESSED, download=Download("train.csv", "csv"))
    with pytest.raises(DataError, match=rf"found sha256 {sha256(OURS.replace(b'card?', b'cards?'))} \(rewrite: csv\), expected {sha256(OURS)}"):
        fetch("mine", entry(unknown), tmp_path, server.url)
    assert left(tmp_path) == []


def test_a_missing_file_is_an_error_with_its_status(server: Upstreams, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"owner/data/0123abcd/folder/a\.csv: found HTTP status 404, expected 200"):
        fetch("mine", entry(plain()), tmp_path, server.url)
    assert left(tmp_path) == []


def test_a_body_that_is_cut_short_leaves_nothing_behind(server: Upstreams, tmp_path: Path) -> None:
    server.put("folder/a.csv", OURS[:20], promised=len(OURS))
    with pytest.raises(DataError, match=rf"found 20 bytes, expected {len(OURS)}"):
        fetch("mine", entry(plain()), tmp_path, server.url)
    assert left(tmp_path) == []


def test_a_file_that_was_there_survives_a_failure(server: Upstreams, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.csv").write_bytes(b"older")
    server.put("folder/a.csv", b"other")
    with pytest.raises(DataError, match="sha256"):
        fetch("mine", entry(plain()), tmp_path, server.url)
    assert (tmp_path / "mine" / "a.csv").read_bytes() == b"older"


def test_what_was_fetched_before_a_failure_stays(server: Upstreams, tmp_path: Path) -> None:
    server.put("train.csv", PLAIN)
    both = entry(COMPRESSED, plain())
    with pytest.raises(DataError, match="404"):
        fetch("mine", both, tmp_path, server.url)
    assert left(tmp_path) == ["train.csv.gz"]
    server.put("folder/a.csv", OURS)
    fetch("mine", both, tmp_path, server.url)
    assert server.asked.count("/owner/data/0123abcd/train.csv") == 1


def test_nobody_listening_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as unused:  # bound, not listening: nobody else gets the port
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(DataError, match="cannot be fetched"):
            fetch("mine", entry(plain()), tmp_path, f"http://127.0.0.1:{unused.getsockname()[1]}")


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(DataError, match=r"cannot be fetched.*timed out"):
        fetch("mine", entry(plain()), tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.05)


@pytest.mark.parametrize("base_url", ["file:///etc", "ftp://127.0.0.1", "owner", ""])
def test_only_http_addresses_are_taken(base_url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="base URL: found"):
        fetch("mine", entry(plain()), tmp_path, base_url)


def test_a_source_that_cannot_be_downloaded_says_why_and_what_to_do(server: Upstreams, tmp_path: Path) -> None:
    server.put("folder/a.csv", OURS)
    with pytest.raises(DataError, match=r"mine/b\.csv: download: .*owner/data @ 0123abcd.*: merged; .*--from"):
        fetch("mine", entry(plain(), File("b.csv", sha256(b"b"), None, reason="merged")), tmp_path, server.url)
    assert server.asked == []


# -- rewriting --------------------------------------------------------------------------------------------------------------------------


def test_rewriting_changes_form_only() -> None:
    assert rewritten(b'a,"b"\r\n"x\r\ny",""\r\n', "csv", "here") == b'a,b\n"x\r\ny",\n'
    assert rewritten(b'[\n  {"a": "\\u00e9", "b": [1, 2.5]}\n]', "json", "here") == '[\n{\n"a": "é",\n"b": [\n1,\n2.5\n]\n}\n]'.encode()
    assert rewritten(b"\xff\r\n", "none", "here") == b"\xff\r\n"


@pytest.mark.parametrize(("content", "rewrite"), [(b"\xff", "csv"), (b"{", "json")])
def test_bytes_that_cannot_be_rewritten_are_an_error(content: bytes, rewrite: registry.Rewrite) -> None:
    with pytest.raises(DataError, match=f"here: cannot be rewritten as {rewrite}"):
        rewritten(content, rewrite, "here")


# -- the command ------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def overlaps(tmp_path: Path) -> Path:
    path = tmp_path / "overlaps.tsv"
    path.write_text("\t".join(OVERLAP_COLUMNS) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def known(overlaps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> registry.Registry:
    """The registry with an invented `banking77` and `edos`, as the command sees it."""
    values = read_yaml(PATH)
    values["sources"] = {name: values["sources"][name] for name in ("banking77", "edos")}
    values["overlaps_sha256"] = sha256(overlaps.read_bytes())
    bank = values["sources"]["banking77"]
    bank["upstream"] = [{"repository": UPSTREAM.repository, "commit": UPSTREAM.commit}]
    bank["files"][0] |= {"sha256": "0" * 64, "content_sha256": sha256(OURS), "download": {"path": "train.csv", "rewrite": "csv", "sha256": sha256(PLAIN)}}
    (tmp_path / "registry.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    mine = read_registry(tmp_path / "registry.yaml")
    monkeypatch.setattr(registry, "read_registry", lambda: mine)
    return mine


@pytest.mark.usefixtures("known")
def test_the_command_downloads_prepares_and_does_not_fetch_twice(server: Upstreams, overlaps: Path, tmp_path: Path) -> None:
    server.put("train.csv", PLAIN)
    folders = ["--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out"), "--overlaps", str(overlaps)]
    for _ in range(2):
        result = CliRunner().invoke(app, ["prepare", "banking77", "--download", *folders], env={BASE_URL_VARIABLE: server.url})
        assert result.exit_code == 0, result.output
    assert len(server.asked) == 1
    written = [one for split in ("train", "validation") for one in read_dialogues(tmp_path / "out" / "banking77" / f"{split}.jsonl")]
    assert {one.messages[0].content for one in written} == {"Where is my card?", "Two words, please"}
    assert json.loads((tmp_path / "out" / "counts.json").read_text(encoding="utf-8")).keys() == {"banking77"}


@pytest.mark.usefixtures("known")
def test_the_command_fetches_only_what_is_not_in_the_given_folder(server: Upstreams, overlaps: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    (raw / "banking77").mkdir(parents=True)
    (raw / "banking77" / "train.csv.gz").write_bytes(gzip.compress(OURS))
    overlaps.rename(raw / "heldout_overlap.tsv")
    command = ["prepare", "banking77", "--from", str(raw), "--download", "--base-url", server.url, "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert server.asked == []


@pytest.mark.usefixtures("known")
def test_the_command_says_which_source_cannot_be_downloaded(server: Upstreams, overlaps: Path, tmp_path: Path) -> None:
    command = ["prepare", "edos", "--download", "--base-url", server.url, "--cache", str(tmp_path / "cache"), "--overlaps", str(overlaps)]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, DataError)
    assert "rewire-online/edos @ b1f1fbcca9d4" in str(result.exception)
    assert "--from" in str(result.exception)
    assert server.asked == []


def test_the_command_needs_raw_files_from_somewhere() -> None:
    for options in ([], ["--download"]):
        result = CliRunner().invoke(app, ["prepare", "edos", *options])
        assert result.exit_code == 2
        assert "--from" in result.output
