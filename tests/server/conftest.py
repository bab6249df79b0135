"""The service in this process (`Served`), and as a process of its own (`Process`)."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from lastresort.conversation import Monitor
from lastresort.server.app import create_app
from lastresort.server.settings import ServerSettings

ORIGIN = "http://127.0.0.1"
Serve = Callable[..., TestClient]


@pytest.fixture
def serve(tiny_path: Path, monitor: Monitor, tmp_path: Path) -> Iterator[Serve]:
    """A running service on the tiny model, with settings; in mode `enforce` and without a store unless told otherwise."""
    with ExitStack() as stack:

        def begin(**settings: Any) -> TestClient:
            chosen = ServerSettings(**{"model": str(tiny_path), "mode": "enforce", "store": "none", "threads": 2, **settings})
            return stack.enter_context(TestClient(create_app(chosen, monitor=monitor), base_url=ORIGIN))

        yield begin


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    """A file with two API keys."""
    path = tmp_path / "keys"
    path.write_text("# of the chat\nkey-of-the-chat-0123\n\nkey-of-the-page-4567\n")
    return str(path)


@pytest.fixture
def client(serve: Serve) -> TestClient:
    """The stateless service."""
    return serve()


class Process:
    """`lastresort serve` as a process of its own, on a free port of 127.0.0.1."""

    def __init__(self, *options: str, cwd: Path) -> None:
        own = "ignore:unclosed <socket:ResourceWarning"  # uvicorn's parent of several workers leaves its socket to the interpreter
        command = [sys.executable, "-W", "error", "-W", own, "-m", "lastresort", "serve", "--port", "0", *options]
        self.process = subprocess.Popen(command, cwd=cwd, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
        self.lines: list[dict[str, Any]] = []
        self._said = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = self.wait("running on ")["event"].partition("running on ")[2].split()[0]
        self.wait("ready")

    def _read(self) -> None:
        assert self.process.stderr is not None
        for text in self.process.stderr:
            with self._said:
                self.lines.append(json.loads(text) if text.startswith("{") else {"event": f"no JSON: {text}"})
                self._said.notify_all()
        with self._said:
            self.lines.append({"event": "(end)"})
            self._said.notify_all()

    def wait(self, words: str) -> dict[str, Any]:
        """The first log line whose event holds `words`."""

        def found() -> dict[str, Any] | None:
            return next((line for line in self.lines if words in line["event"] or line["event"] == "(end)"), None)

        with self._said:
            assert self._said.wait_for(found, timeout=120), self.lines
            line = found()
        assert line is not None
        assert line["event"] != "(end)", self.lines
        return line

    def kill(self) -> None:
        """`kill -9`."""
        self.process.kill()
        self.process.wait()
        self._reader.join()

    def stop(self) -> int:
        """Ends it in an orderly way; its exit status."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(timeout=60)
        self._reader.join()
        return code


BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]) if path.parts[-3].isdecimal() else 0)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Address of a real PostgreSQL of its own, without a network; give it the name of a database."""
    initdb = shutil.which("initdb") or (str(BINARIES[-1]) if BINARIES else None)
    if initdb is None:
        pytest.skip("no initdb in PATH or /usr/lib/postgresql: the tests on PostgreSQL are left out")
    as_root = os.geteuid() == 0
    if as_root and not shutil.which("runuser"):
        pytest.skip("PostgreSQL does not run as root and there is no runuser: its tests are left out")
    folder = Path(tempfile.mkdtemp(prefix="lastresort-pg-"))  # a short path, since sockets have little room; not pytest's, which only root may enter
    if as_root:
        shutil.chown(folder, "postgres")

    def call(name: str, *arguments: str) -> None:
        command = [*(("runuser", "-u", "postgres", "--") if as_root else ()), str(Path(initdb).parent / name), "-D", str(folder / "data"), *arguments]
        with (folder / "calls").open("w+") as said:  # a file, since the server it starts would hold a pipe open
            done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said, check=False)
            said.seek(0)
            assert done.returncode == 0, said.read()

    try:
        call("initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C")
        call("pg_ctl", "start", "-w", "-t", "120", "-l", str(folder / "log"), "-o", f"-c listen_addresses='' -c unix_socket_directories={folder}")
        yield f"postgresql://postgres@/{{}}?host={folder}"
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            call("pg_ctl", "stop", "-w", "-m", "immediate")
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    address: str = request.getfixturevalue("postgres")
    name = "t" + secrets.token_hex(6)
    with psycopg.connect(address.format("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return address.format(name)


@pytest.fixture
def start(tiny_path: Path, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts `lastresort serve` on the tiny model."""
    running: list[Process] = []

    def begin(*options: str) -> Process:
        running.append(Process("--model", str(tiny_path), "--mode", "enforce", *options, cwd=tmp_path))
        return running[-1]

    yield begin
    for process in running:
        if process.process.poll() is None:
            process.kill()
        if process.process.stderr is not None:
            process.process.stderr.close()
