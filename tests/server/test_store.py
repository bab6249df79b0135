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

from lastresort.conversation import Monitor
from lastresort.errors import ConfigError
from lastresort.server import store as module
from lastresort.server.errors import ApiError
from lastresort.server.store import LIMITS, Answered, Key, Parent, Store, metadata

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


def test_a_key_is_one_callers_and_is_forgotten_after_a_day(store_url: str) -> None:
    store, key = Store(store_url), Key("once", "f" * 64)
    first, _ = store.create("m", "d", "enforce", key, "a" * 64)
    assert store.create("m", "d", "enforce", key, "a" * 64) == (first, True)
    assert store.create("m", "d", "enforce", key, "b" * 64)[1] is False
    assert store.sweep(None, now=first.created + 86400) == 0
    assert store.create("m", "d", "enforce", key, "a" * 64) == (first, True)
    assert store.sweep(None, now=first.created + 86401) == 0
    assert store.create("m", "d", "enforce", key, "a" * 64)[1] is False
    assert store.tree(first.id) == first
    store.close()


def test_a_sweep_takes_some_at_a_time_until_none_is_left(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 2)
    store = Store(store_url)
    made = [store.create("m", "d", "enforce", Key(str(number), "f" * 64))[0] for number in range(5)]
    assert store.sweep(None, now=made[-1].created + 86401) == 0
    with store._engine.connect() as connection:
        assert connection.execute(sa.select(metadata.tables["answer"].c.key)).all() == []
    assert store.sweep(made[-1].updated + 1) == 5
    store.close()


def test_a_key_whose_turn_was_deleted_meanwhile_finds_no_conversation(store_url: str, monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    store, key = Store(store_url), Key("k", "f" * 64)
    name = store.create("m", "d", "enforce")[0].id
    state, decision = monitor.observe(monitor.start(), "user", "Hello.")
    store.append(name, Parent(), state, "user", "Hello.", decision, key)
    here = store.parent(name, "t0", "d")
    monkeypatch.setattr(Store, "answered", lambda *_: None)
    for again in (lambda: store.append(name, Parent(), state, "user", "Hello.", decision, key), lambda: store.acknowledge(name, here, state, decision, key)):
        with pytest.raises(ApiError, match="no_such_conversation"):
            again()
    store.close()


def test_a_turn_is_one_reading_and_one_transaction(store_url: str, monitor: Monitor) -> None:
    store, said = Store(store_url), list[str]()
    name = store.create("m", "d", "enforce")[0].id
    state, decision = monitor.observe(monitor.start(), "user", "Hello.")
    store.append(name, Parent(), state, "user", "Hello.", decision)
    sa.event.listen(store._engine, "before_cursor_execute", lambda *about: said.append(about[2].split()[0]))
    sa.event.listen(store._engine, "commit", lambda _: said.append("COMMIT"))
    key = Key("k", "f" * 64)
    here = store.parent(name, "newest", "d", key)
    assert said == ["SELECT"]
    store.append(name, here, monitor.observe(state, "assistant", "Hello.")[0], "assistant", "Hello.", decision, key)
    assert said[1:] == [*(["BEGIN"] if store.kind == "sqlite" else []), "UPDATE", "INSERT", "INSERT", "COMMIT"]
    with pytest.raises(Answered):
        store.parent(name, "newest", "d", key)
    store.close()


@pytest.mark.parametrize(
    ("stored", "reason", "evidence"),
    [
        (  # as the first release wrote it
            '{"advice": "none", "call": "end", "category": "harm", "counterfactual": "", "counts": {"redirections": [2, 2]}, "evidence": [2, 10], '
            '"numbers": {"harm": [0.9, 0.5]}, "reason": "harm_after_warning", "would_advise": null, "would_call": null}',
            "harm_after_warning",
            (2, 10),
        ),
        ('{"advice": "sing", "call": "end", "evidence": [2, 10], "reason": "of_another_version", "tune": 1}', "uncertain", (2, 10)),
        ('{"call": "end", "evidence": "2"}', "uncertain", ()),
    ],
)
def test_what_another_version_stored_is_read_as_far_as_it_is_known(
    store_url: str, monitor: Monitor, stored: str, reason: str, evidence: tuple[int, ...]
) -> None:
    store = Store(store_url)
    name = store.create("m", "d", "enforce")[0].id
    state, decision = monitor.observe(monitor.start(), "user", "Hello.")
    store.append(name, Parent(), state, "user", "Hello.", decision)
    with store._writer.begin() as connection:
        connection.execute(metadata.tables["turn"].update().values(decision=stored, state='{"policy": {}}'))
    (turn,) = store.tree(name).turns
    assert (turn.ended, turn.acts, turn.decision.advice, turn.decision.reason, turn.decision.evidence) == (True, (), "none", reason, evidence)
    assert store.judge(name, None, "dispute") == "t0"
    store.close()


def test_sessions_of_postgresql_wait_for_nothing_for_long_but_migrations(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def limits(connection: sa.Connection) -> list[str]:
        return [connection.execute(sa.text(f"SHOW {name}")).scalar_one() for name in LIMITS]

    upgrade, seen = module.command.upgrade, []

    def watched(config: Any, revision: str) -> None:
        seen.extend(limits(config.attributes["connection"]))
        upgrade(config, revision)

    monkeypatch.setattr(module.command, "upgrade", watched)
    for more, lock in (("", "10s"), ("&options=-c%20lock_timeout%3D3s", "3s")):
        store = Store(postgres.format("postgres") + more)
        with store._engine.connect() as connection:
            assert limits(connection) == [lock, "20s", "30s"]
        store.close()
    assert seen == ["0"] * 6


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


def test_the_files_of_sqlite_are_for_their_owner_only(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'a.db'}")
    store.secret()
    assert {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == dict.fromkeys(("a.db", "a.db-wal", "a.db-shm"), 0o600)
    store.close()


@pytest.mark.parametrize("by", ["delete", "sweep"])
def test_nothing_of_a_deleted_text_stays_in_the_files(tmp_path: Path, monitor: Monitor, by: str) -> None:
    store, text = Store(f"sqlite:///{tmp_path / 'a.db'}", store_text=True), "xyzzy plugh"

    def on_disk() -> bool:
        return text.encode() in b"".join(file.read_bytes() for file in tmp_path.iterdir())

    made = store.create("m", "d", "enforce")[0]
    state, decision = monitor.observe(monitor.start(), "user", text)
    store.append(made.id, Parent(), state, "user", text, decision)
    assert on_disk()
    if by == "delete":
        store.delete(made.id)
    else:
        assert store.sweep(made.updated + 100) == 1
    assert not on_disk()
    store.close()


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
