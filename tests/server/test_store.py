"""The store itself: migrations, durability against `kill -9`, and the errors of opening."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from lastresort.errors import ConfigError
from lastresort.server.store import Store, metadata

from .conftest import Process


def test_the_migrations_make_the_tables_of_the_code(store_url: str) -> None:
    store = Store(store_url)
    with store._engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    store.close()


def test_opening_again_changes_nothing_and_keeps_the_secret(store_url: str) -> None:
    first = Store(store_url)
    secret, made = first.secret(), first.create("m", "d", "enforce")[0]
    first.close()
    second = Store(store_url)
    assert second.secret() == secret
    assert second.tree(made.id) == made
    second.close()


def test_several_workers_may_open_a_new_store_at_once(store_url: str) -> None:
    gate = threading.Barrier(4)

    def open_(_: int) -> bytes:
        gate.wait()
        store = Store(store_url)
        secret = store.secret()
        store.close()
        return secret

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(open_, range(4)))) == 1


def test_a_store_of_a_newer_version_is_refused(store_url: str) -> None:
    store = Store(store_url)
    with store._writer.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = 'v9999'"))
    store.close()
    with pytest.raises(ConfigError, match="newer version"):
        Store(store_url)


@pytest.mark.parametrize(
    "url", ["", "store.db", "mysql://x/y", "sqlite://", "sqlite:///:memory:", "postgresql://me:hidden@127.0.0.1:1/none", "sqlite:////nowhere/x.db"]
)
def test_a_store_that_cannot_be_opened_is_said_so(url: str) -> None:
    with pytest.raises(ConfigError, match=r"store: .*(expected|cannot be opened)") as caught:
        Store(url)
    assert "hidden" not in str(caught.value)


def test_sqlite_writes_ahead_and_waits_for_the_disk(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'a.db'}")
    with store._engine.connect() as connection:
        found = [connection.execute(sa.text(f"PRAGMA {name}")).scalar() for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete")]
    store.close()
    assert found == ["wal", 2, 1, 1]
    with sqlite3.connect(tmp_path / "a.db") as plain:
        assert plain.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    plain.close()


class Writers:
    """Clients that add turns until the service is gone, each noting what was acknowledged."""

    def __init__(self, url: str, conversation: str, count: int) -> None:
        self.url, self.conversation = url, conversation
        self.acknowledged: dict[str, dict[str, Any]] = {}
        self.open: list[tuple[str, dict[str, Any]]] = []
        self.progress = threading.Semaphore(0)
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def _write(self, number: int) -> None:
        with httpx.Client(base_url=self.url, timeout=60) as client:
            for step in range(10_000):
                key, body = f"{number}-{step}", {"role": "assistant", "content": f"Turn {number}-{step}.", "parent": "t0"}
                try:
                    answer = client.post(f"/v1/conversations/{self.conversation}/turns", json=body, headers={"Idempotency-Key": key})
                except httpx.HTTPError:
                    self.open.append((key, body))
                    return
                assert answer.status_code == 201, answer.text
                self.acknowledged[key] = answer.json()
                self.progress.release()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()


def begin(url: str) -> str:
    """A conversation with one turn."""
    conversation: str = httpx.post(f"{url}/v1/conversations").json()["id"]
    httpx.post(f"{url}/v1/conversations/{conversation}/turns", json={"role": "user", "content": "Hello."})
    return conversation


def test_nothing_acknowledged_is_lost_or_doubled_by_kill_9(start: Callable[..., Process], store_url: str) -> None:
    options = ("--store", store_url, "--store-text")
    served = start(*options)
    for _ in range(2):
        writers = Writers(served.url, begin(served.url), 4)
        for _ in range(25):
            assert writers.progress.acquire(timeout=120)
        served.kill()
        writers.join()
        served = start(*options)
        address = f"{served.url}/v1/conversations/{writers.conversation}"
        turns = httpx.get(address).json()["turns"]
        stored = {turn["content"]: turn for turn in turns[1:]}
        assert len(stored) == len(turns) - 1  # nothing twice
        assert [turn["id"] for turn in turns] == [f"t{number}" for number in range(len(turns))]
        for key, turn in writers.acknowledged.items():
            assert stored[f"Turn {key}."] == turn
        for key, body in writers.open:  # tried again with its key, what was not acknowledged is there once too
            answer = httpx.post(f"{address}/turns", json=body, headers={"Idempotency-Key": key})
            assert (answer.status_code == 200) == (body["content"] in stored)
        contents = [turn["content"] for turn in httpx.get(address).json()["turns"]]
        assert len(set(contents)) == len(contents) == 1 + len(writers.acknowledged) + len(writers.open)
