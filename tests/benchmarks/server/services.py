"""What is run and asked here: `lastresort serve` as a process, a PostgreSQL of its own, and a client that costs little."""

from __future__ import annotations

import http.client
import json
import os
import platform
import secrets
import select
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import psycopg
import yaml
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parents[3]
START_SECONDS = 600.0
"""A busy machine may need long to start a process."""

LOAD = os.getloadavg()[0]
"""Load average of the last minute when the command was begun: parts that follow others make a load of their own."""

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]) if path.parts[-3].isdecimal() else 0)


class Postgres:
    """PostgreSQL with its defaults (fsync and synchronous_commit are on), without a network, in a new folder."""

    def __init__(self) -> None:
        """Makes the cluster and starts it. Raises `SystemExit` where PostgreSQL is not installed."""
        found = shutil.which("initdb") or (str(BINARIES[-1]) if BINARIES else None)
        if found is None:
            raise SystemExit("found no initdb in PATH or /usr/lib/postgresql, expected PostgreSQL, or --store sqlite")
        self._binaries = Path(found).parent
        self.folder = Path(tempfile.mkdtemp(prefix="lastresort-pg-"))  # a short path: sockets have little room
        self._as: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}  # it does not run as root
        if self._as:
            shutil.chown(self.folder, "postgres", "postgres")
        self._process: subprocess.Popen[bytes] | None = None
        try:
            call = [found, "-D", str(self.folder / "data"), "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C"]
            subprocess.run(call, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True, **self._as)
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def version(self) -> str:
        """Of the binaries."""
        return subprocess.run([self._binaries / "postgres", "--version"], capture_output=True, text=True, check=True).stdout.split()[2]

    def url(self, name: str) -> str:
        """Of a database, as `--store` takes it."""
        return f"postgresql://postgres@/{name}?host={self.folder}"

    def database(self) -> str:
        """URL of a new, empty database."""
        name = "b" + secrets.token_hex(6)
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def start(self) -> None:
        """Starts it, after a crash too, and waits until it answers."""
        command = [str(self._binaries / "postgres"), "-D", str(self.folder / "data"), "-c", "listen_addresses=", "-c", f"unix_socket_directories={self.folder}"]
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            with (self.folder / "log").open("ab") as said:
                self._process = subprocess.Popen(
                    command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True, **self._as
                )
            while self._process.poll() is None and time.monotonic() < end:  # it ends at once while something of a killed one is still there
                with suppress(psycopg.OperationalError), psycopg.connect(self.url("postgres")):
                    return
                time.sleep(0.05)
            time.sleep(0.1)
        raise SystemExit("PostgreSQL does not start:\n" + (self.folder / "log").read_text(errors="replace")[-2000:])

    def kill(self) -> None:
        """`kill -9` of all its processes."""
        assert self._process is not None
        own = psutil.Process(self._process.pid)
        processes = [own, *own.children(recursive=True)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        psutil.wait_procs(processes[1:], timeout=30)

    def close(self) -> None:
        """Stops it and removes everything."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)  # a fast shutdown
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=60)
            if self._process.poll() is None:
                self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Service:
    """`lastresort serve` as a process of its own; keeps its port over restarts."""

    def __init__(self, folder: Path, store: str, *options: str, model: Path | None = None, cpus: int | None = None, **settings: Any) -> None:
        """Nothing is started yet.

        Args:
            folder: for its files.
            store: as `--store`.
            options: further ones of `lastresort serve`.
            model: model folder; None for the shipped one.
            cpus: run it on so many CPUs; None for all.
            settings: of `ServerSettings`, those without an option among them.
        """
        self.port, self.log = free_port(), folder / f"serve-{secrets.token_hex(4)}.log"
        self._folder, self._cpus = folder, cpus
        file = self.log.with_suffix(".yaml")
        file.write_text(yaml.safe_dump(settings), encoding="utf-8")
        self._command = [sys.executable, "-m", "lastresort", "serve", "--port", str(self.port), "--store", store, "--settings", str(file), *options]
        if model is not None:
            self._command += ["--model", str(model)]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self.process is not None
        return self.process.pid

    def launch(self) -> None:
        """Starts the process and waits for nothing."""
        before = os.sched_getaffinity(0)
        if self._cpus is not None:
            os.sched_setaffinity(0, sorted(before)[: self._cpus])  # what is started inherits it
        try:
            with self.log.open("ab") as said:
                self.process = subprocess.Popen(self._command, cwd=self._folder, stdout=said, stderr=said, stdin=subprocess.DEVNULL)
        finally:
            os.sched_setaffinity(0, before)

    def start(self) -> None:
        """Starts the process and waits until it is warm. Raises `SystemExit` if it ends instead."""
        self.launch()
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process is not None and self.process.poll() is None:
            with suppress(OSError, http.client.HTTPException), Caller(self.port) as caller:
                if caller.ask("GET", "/health/ready").status == 200:
                    return
            time.sleep(0.05)
        raise SystemExit("the service does not start:\n" + self.log.read_text(errors="replace")[-2000:])

    def kill(self) -> None:
        """`kill -9`."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        """Ends it in an orderly way."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=60)
            self.kill()

    def cpu_seconds(self) -> float:
        """That it and its workers have computed so far."""
        own = psutil.Process(self.pid)
        return sum(times.user + times.system for times in (process.cpu_times() for process in (own, *own.children(recursive=True))))

    def errors(self) -> list[str]:
        """Log lines of the level error; they hold no text and no ids."""
        with self.log.open(encoding="utf-8", errors="replace") as lines:
            return [line.rstrip("\n") for line in lines if '"level": "error"' in line or not line.startswith("{")]

    def metrics(self) -> dict[tuple[str, str], float]:
        """Samples of `/metrics`: (name, route or "") to value, summed over the other labels."""
        with Caller(self.port) as caller:
            page = caller.ask("GET", "/metrics").body.decode()
        found: dict[tuple[str, str], float] = {}
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                key = (sample.name, sample.labels.get("route", ""))
                found[key] = found.get(key, 0.0) + sample.value
        return found


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        status: of HTTP; 0 if nothing came.
        body: as it came.
        began: `time.perf_counter()` before it was sent.
        seconds: until the whole body was here.
        retry_after: as the header says.
        failure: name of the error where nothing came.
    """

    status: int
    body: bytes
    began: float
    seconds: float
    retry_after: str | None = None
    failure: str = ""

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """`200`, or the status with the code of the error."""
        if self.status < 400:
            return str(self.status) if self.status else f"no answer ({self.failure})"
        try:
            return f"{self.status} {self.json['error']['code']}"
        except (ValueError, KeyError, TypeError):
            return f"{self.status} without a code"


class Caller:
    """One connection that is kept; of the standard library, since it shares the CPUs with the service."""

    def __init__(self, port: int, timeout: float = 60.0) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def ask(self, method: str, path: str, body: Any = None, key: str | None = None) -> Answer:
        """One request. Raises `OSError` or `HTTPException` where no answer came; the next call connects anew."""
        payload = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if key is not None:
            headers["Idempotency-Key"] = key
        if self._http.sock is not None and select.select([self._http.sock], [], [], 0)[0]:  # the service closes what was idle for seconds
            self._http.close()
        began = time.perf_counter()
        try:
            self._http.request(method, path, payload, headers)
            response = self._http.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException):
            self._http.close()
            raise
        return Answer(response.status, content, began, time.perf_counter() - began, response.getheader("Retry-After"))

    def try_(self, method: str, path: str, body: Any = None, key: str | None = None) -> Answer:
        """As `ask`, but no answer is an answer with status 0."""
        began = time.perf_counter()
        try:
            return self.ask(method, path, body, key)
        except (OSError, http.client.HTTPException) as error:
            return Answer(0, b"", began, time.perf_counter() - began, failure=type(error).__name__)


def free_port() -> int:
    """A free port below those that the system gives to clients: a client that keeps asking a dead service must not be given its port."""
    for _ in range(1000):
        port = 20000 + secrets.randbelow(12000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise SystemExit("found no free port from 20000 to 31999")


def quantiles(seconds: Iterable[float]) -> dict[str, float]:
    """`n`, `p50` and `p99` in milliseconds."""
    taken = sorted(seconds)
    if len(taken) < 2:
        return {"n": len(taken), "p50": 1000 * (taken or [0.0])[0], "p99": 1000 * (taken or [0.0])[0]}
    cuts = statistics.quantiles(taken, n=100, method="inclusive")
    return {"n": len(taken), "p50": 1000 * cuts[49], "p99": 1000 * cuts[98]}


def conditions() -> dict[str, Any]:
    """Machine and versions, date of this part, load before the first one."""
    processor = platform.machine()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    versions = {}
    for name in ("onnxruntime", "fastapi", "uvicorn", "h11", "httptools", "uvloop", "sqlalchemy", "psycopg"):
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": processor,
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": versions,
        "load": round(LOAD, 2),
    }


@contextmanager
def scratch() -> Iterator[tuple[Path, ExitStack]]:
    """A folder that goes away, and a stack for what must be closed before it does."""
    with tempfile.TemporaryDirectory(prefix="lastresort-bench-") as name, ExitStack() as stack:
        yield Path(name), stack


def shares(codes: Mapping[str, int]) -> dict[str, float]:
    """Counts as shares of all."""
    whole = sum(codes.values())
    return {code: count / whole for code, count in sorted(codes.items())} if whole else {}


def dialogues() -> Sequence[Any]:
    """The sample conversations."""
    from lastresort.data import read_dialogues

    return list(read_dialogues(ROOT / "data" / "sample" / "dialogues.jsonl"))
