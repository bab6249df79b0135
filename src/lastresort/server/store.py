"""Stored conversations: SQLite by default, PostgreSQL by URL. Every turn keeps the state after it, so that any turn can be gone on from.

What `append` has returned is on the disk: SQLite writes ahead (WAL) with synchronous=FULL, PostgreSQL commits synchronously by default. A killed process
would lose nothing with synchronous=NORMAL either, since the pages are with the system by then; FULL keeps the promise over a power failure too, where a
forgotten turn could be a forgotten veto.

Appends to one conversation take turns on its row, so that each is there once and concurrent ones to the same parent become siblings.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.engine import URL, make_url

from lastresort.conversation import ConversationState
from lastresort.data import dumps
from lastresort.errors import ConfigError
from lastresort.types import Act, Decision, Role
from lastresort.wire import NEWEST, Conversation, StoredTurn, Verdict

from .errors import ApiError

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_SECONDS = 10
LOCK = 0x1A57
"""PostgreSQL's advisory lock while migrating."""
LIMITS = {"lock_timeout": "10s", "statement_timeout": "20s", "idle_in_transaction_session_timeout": "30s"}
"""Of a PostgreSQL session; migrations have none."""
BATCH = 500
"""How many conversations or keys one transaction of `sweep` forgets."""
KEY_SECONDS = 86400
"""How long an idempotency key of a new conversation is known."""

metadata = sa.MetaData()
settings = sa.Table("setting", metadata, sa.Column("name", sa.String(40), primary_key=True), sa.Column("value", sa.Text, nullable=False))
conversations = sa.Table(
    "conversation",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("model", sa.String(200), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("mode", sa.String(10), nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("updated", sa.BigInteger, nullable=False),
    sa.Column("turns", sa.Integer, nullable=False),
    sa.Index("conversation_updated", "updated"),
)
turns = sa.Table(
    "turn",
    metadata,
    sa.Column("conversation", sa.String(40), sa.ForeignKey("conversation.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("parent", sa.Integer, nullable=True),
    sa.Column("depth", sa.Integer, nullable=False),
    sa.Column("role", sa.String(10), nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("decision", sa.Text, nullable=False),
    sa.Column("scores", sa.Text, nullable=False),
    sa.Column("windows", sa.Integer, nullable=False),
    sa.Column("content", sa.Text, nullable=True),
    sa.Column("created", sa.BigInteger, nullable=False),
)
answers = sa.Table(
    "answer",
    metadata,
    sa.Column("scope", sa.String(40), primary_key=True),
    sa.Column("key", sa.String(200), primary_key=True),
    sa.Column("request", sa.String(64), nullable=False),
    sa.Column("conversation", sa.String(40), sa.ForeignKey("conversation.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("turn", sa.Integer, nullable=True),
)
feedback = sa.Table(
    "feedback",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("conversation", sa.String(40), sa.ForeignKey("conversation.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("turn", sa.Integer, nullable=False),
    sa.Column("verdict", sa.String(10), nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
)

_DECISION: TypeAdapter[Decision] = TypeAdapter(Decision)
_TURN_ID = re.compile(r"t(0|[1-9]\d{0,8})")
_LONE = re.compile("[\ud800-\udfff]")
_ID = re.compile(r"c[0-9a-f]{32}")
NEW = "new"
"""With a hash of the caller the scope of idempotency keys for new conversations."""
_NO_ACTS = '"acts": []'
_STATE = sa.case((turns.c.state.contains(_NO_ACTS, autoescape=True), _NO_ACTS), else_=turns.c.state).label("state")
_COLUMNS = (_STATE, *(column for column in turns.c if column.name != "state"))
"""Of a turn that is shown: its state only where it holds acts."""
_NO_CONVERSATION = (404, "no_such_conversation", "conversation: found no such id, expected that of a stored one: it may have been deleted")
_UNKNOWN = {"call": "continue", "advice": "none", "reason": "uncertain"}

# What every append says is built once: to build a statement costs SQLAlchemy more than to send it.
_WHICH, _NUMBER = sa.bindparam("which", type_=sa.String), sa.bindparam("number", type_=sa.Integer)
_PARENT = (
    sa.select(conversations.c.model, conversations.c.digest, conversations.c.turns, turns.c.number, turns.c.state, turns.c.parent, answers.c.key)
    .select_from(conversations)
    .outerjoin(turns, sa.and_(turns.c.conversation == _WHICH, turns.c.number == sa.func.coalesce(_NUMBER, conversations.c.turns - 1)))
    .outerjoin(answers, sa.and_(answers.c.scope == _WHICH, answers.c.key == sa.bindparam("given", type_=sa.String)))
    .where(conversations.c.id == _WHICH)
)
"""A conversation, its turn of that number (null: the newest) and the key, if it was answered there."""
_LOCK = (
    conversations.update()
    .where(conversations.c.id == _WHICH)
    .values(turns=conversations.c.turns + sa.bindparam("more", type_=sa.Integer), updated=sa.bindparam("now", type_=sa.BigInteger))
    .returning(conversations.c.turns)
)
_ANSWER = answers.select().where(answers.c.scope == sa.bindparam("in_scope"), answers.c.key == sa.bindparam("given"))
_TAKE = answers.insert()
_BEFORE = turns.alias("before")
_AS_READ = sa.select(_BEFORE.c.number).where(
    _BEFORE.c.conversation == sa.bindparam("conversation"), _BEFORE.c.number == sa.bindparam("parent"), _BEFORE.c.state == sa.bindparam("before")
)
_APPEND = (
    turns.insert()
    .from_select(
        turns.c.keys(),
        sa.select(*(sa.bindparam(column.name, type_=column.type) for column in turns.c)).where(
            sa.or_(sa.bindparam("parent", type_=sa.Integer).is_(None), _AS_READ.exists())
        ),
    )
    .returning(turns.c.number)
)
"""A turn, unless the state of its parent is another one than `before`."""


@dataclass(frozen=True)
class Key:
    """An idempotency key and a fingerprint of the request that it came with."""

    key: str
    request: str


@dataclass(frozen=True)
class Parent:
    """From where a turn goes on: number and stored state, both None for the beginning; `above` is the parent's parent."""

    number: int | None = None
    state: str | None = None
    above: int | None = None


class Moved(Exception):  # noqa: N818
    """The turn to go on from was acknowledged meanwhile: its state is another one, so what was made from the old one is not stored."""


def turn_id(number: int | None) -> str | None:
    """The id of a turn as the service says it."""
    return None if number is None else f"t{number}"


def no_conversation() -> ApiError:
    """404."""
    return ApiError(*_NO_CONVERSATION)


class Answered(ApiError):  # noqa: N818 - it unwinds a transaction
    """The key was answered, with what `Store.replay` says; 404 where it says nothing, since that was deleted meanwhile."""


def database_url(text: str) -> URL:
    """The URL for SQLAlchemy. Raises `ConfigError`, which never repeats a password."""
    try:
        url = make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        raise ConfigError("store: found no URL, expected sqlite:///FILE or postgresql://USER@HOST/DATABASE") from None
    if url.drivername in {"postgres", "postgresql"}:
        return url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() == "sqlite" and url.database in {None, "", ":memory:"}:
        raise ConfigError("store: found sqlite without a file, expected sqlite:///FILE")
    if url.get_backend_name() not in {"sqlite", "postgresql"}:
        raise ConfigError(f"store: found {url.drivername}, expected sqlite or postgresql")
    return url


class Store:
    """Thread-safe; several processes may share a database."""

    def __init__(self, url: str, *, store_text: bool = False, connections: int = 8) -> None:
        """Opens the database and brings its tables up to date.

        Args:
            url: of SQLAlchemy.
            store_text: whether `append` keeps what was said.
            connections: at a time.

        Raises:
            ConfigError: the URL is wrong, the driver is missing, the database cannot be reached or was made by a newer version.
        """
        parsed = database_url(url)
        self.kind, self.store_text = parsed.get_backend_name(), store_text
        options: dict[str, Any] = {"hide_parameters": True, "pool_size": connections, "max_overflow": 2, "pool_timeout": BUSY_SECONDS}
        if self.kind == "sqlite":
            options["connect_args"] = {"timeout": BUSY_SECONDS}
            if not str(parsed.database).startswith("file:"):
                with suppress(OSError):  # O_EXCL: to close a file that is in use would let go of SQLite's locks on it
                    os.close(os.open(str(parsed.database), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        else:
            options["pool_pre_ping"] = True
            limits = " ".join(f"-c {name}={value}" for name, value in LIMITS.items())
            given = parsed.query
            options["connect_args"] = {"connect_timeout": given.get("connect_timeout", 10), "options": f"{limits} {given.get('options', '')}"}
        try:
            self._engine = sa.create_engine(parsed, **options)
        except ModuleNotFoundError as error:
            raise ConfigError(f"store: {error.name} is not installed: pip install 'lastresort[postgres]'") from None
        if self.kind == "sqlite":
            sa.event.listen(self._engine, "connect", _sqlite_connect)
            sa.event.listen(self._engine, "begin", _sqlite_begin)
        self._writer = self._engine.execution_options(writes=True)
        self._reader = self._engine.execution_options(**({"alone": True} if self.kind == "sqlite" else {"isolation_level": "AUTOCOMMIT"}))
        """For a single statement, which needs no transaction."""
        try:
            with self._writer.begin() as connection:
                if self.kind == "postgresql":
                    for name in LIMITS:
                        connection.execute(sa.text(f"SET LOCAL {name} = 0"))
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
                config = Config()
                config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except (sa.exc.DBAPIError, sa.exc.TimeoutError) as error:
            self.close()
            reason = str(getattr(error, "orig", None) or type(error).__name__).strip().splitlines()[0]
            raise ConfigError(f"store: {parsed.render_as_string(hide_password=True)}: cannot be opened: {reason}") from None
        except CommandError as error:
            self.close()
            reason = f"cannot be brought up to date ({error}): was it made by a newer version of lastresort?"
            raise ConfigError(f"store: {parsed.render_as_string(hide_password=True)}: {reason}") from None

    def close(self) -> None:
        """Closes every connection."""
        self._engine.dispose()

    def ping(self) -> None:
        """Raises an error of SQLAlchemy if the database does not answer."""
        with self._engine.connect() as connection:
            connection.execute(sa.select(settings.c.name).limit(1))  # a table, since SQLite reads no file for less

    def secret(self) -> bytes:
        """The secret of this database, made on the first call; all workers get the same."""
        with self._writer.begin() as connection:
            found = connection.execute(sa.select(settings.c.value).where(settings.c.name == "secret")).scalar()
            if found is None and self.kind == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
                found = connection.execute(sa.select(settings.c.value).where(settings.c.name == "secret")).scalar()
            if found is None:
                found = secrets.token_hex(32)
                connection.execute(settings.insert().values(name="secret", value=found))
        return bytes.fromhex(str(found))

    def create(self, model: str, digest: str, mode: str, key: Key | None = None, caller: str = "") -> tuple[Conversation, bool]:
        """A new conversation, or the one that the key of this caller (a hash) was answered with; and whether it is that. Raises `ApiError`."""
        scope = f"{NEW}{caller}"[:40]
        if key is not None and (found := self.answered(scope, key)) is not None:
            return self.tree(found[0], with_turns=False), True
        name, now = "c" + secrets.token_hex(16), int(time.time())
        try:
            with self._writer.begin() as connection:
                connection.execute(conversations.insert().values(id=name, model=model, digest=digest, mode=mode, created=now, updated=now, turns=0))
                if key is not None:
                    connection.execute(answers.insert().values(scope=scope, key=key.key, request=key.request, conversation=name, turn=None))
        except sa.exc.IntegrityError:  # the same key at the same time
            if key is None or (found := self.answered(scope, key)) is None:
                raise
            return self.tree(found[0], with_turns=False), True
        return self.tree(name, with_turns=False), False

    def answered(self, scope: str, key: Key) -> tuple[str, int | None] | None:
        """Conversation and turn that a key was answered with, or None. Raises `ApiError` (422) if it came with another request."""
        with self._engine.connect() as connection:
            return _answer(connection, scope, key)

    def parent(self, conversation: str, turn: str | None, digest: str, key: Key | None = None) -> Parent:
        """From where a turn goes on.

        Args:
            conversation: its id.
            turn: id of the turn before it; None for the beginning; `newest`.
            digest: of the model at work.
            key: of the request.

        Raises:
            Answered: the key was.
            ApiError: 404 `no_such_conversation` or `no_such_turn`, 409 `state_foreign` for a conversation of another model.
        """
        if not _ID.fullmatch(conversation):
            raise no_conversation()
        known = None if turn is None else _TURN_ID.fullmatch(turn)
        number = None if turn == NEWEST else -1 if known is None else int(known[1])
        with self._reader.connect() as connection:
            row = connection.execute(_PARENT, {"which": conversation, "number": number, "given": None if key is None else key.key}).first()
        if row is None:
            raise no_conversation()
        if row.key is not None:
            raise Answered(*_NO_CONVERSATION)
        if row.digest != digest:
            raise ApiError(409, "state_foreign", f"conversation: found one of model {row.model}, expected one of the model at work: start a new one")
        if row.number is None and turn is not None and (turn != NEWEST or row.turns):
            raise no_turn()
        return Parent(row.number, row.state, row.parent)

    def append(
        self, conversation: str, parent: Parent, state: ConversationState, role: Role, content: str, decision: Decision, key: Key | None = None
    ) -> tuple[StoredTurn, bool]:
        """Stores a turn; once this returns it is not lost.

        Args:
            conversation: its id.
            parent: the turn before it, as it was when `state` was made.
            state: after it, with its score.
            role: who spoke.
            content: kept only where the store keeps text.
            decision: on it.
            key: so that the same request is stored once.

        Returns:
            The turn, and whether it was there already.

        Raises:
            ApiError: 404: the conversation was deleted meanwhile.
            Moved: the parent was acknowledged meanwhile.
        """
        assert state.score is not None
        now = int(time.time())
        values = {
            "conversation": conversation,
            "parent": parent.number,
            "depth": state.turns - 1,
            "role": role,
            "state": state.to_json(),
            "decision": dumps(asdict(decision)),
            "scores": dumps(state.score.scores),
            "windows": state.score.windows,
            "content": json.dumps(_LONE.sub("\ufffd", content)) if self.store_text else None,  # as JSON: PostgreSQL takes no NUL
            "created": now,
        }
        try:
            with self._writer.begin() as connection:
                number = _lock(connection, conversation, now, more=1) - 1
                _take(connection, conversation, number, key)
                if connection.execute(_APPEND, {"number": number, "before": parent.state, **values}).scalar() is None:
                    raise Moved
        except Answered:
            return self._replayed(conversation, key), True
        return _stored(SimpleNamespace(number=number, **values)), False

    def acknowledge(self, conversation: str, turn: Parent, state: ConversationState, decision: Decision, key: Key | None = None) -> tuple[StoredTurn, bool]:
        """Stores what became of a turn by an act of the host; once this returns it is not lost.

        Args:
            conversation: its id.
            turn: as it was when `state` was made.
            state: after the act.
            decision: on the act.
            key: so that the same request is done once.

        Returns:
            The turn, and whether the key was answered already.

        Raises:
            ApiError: 404: the conversation was deleted meanwhile; 409 `turn_followed`: what followed was decided without the act.
            Moved: the turn was acknowledged meanwhile.
        """
        assert turn.number is not None
        here = _at(conversation, turn.number)
        try:
            with self._writer.begin() as connection:
                _lock(connection, conversation, int(time.time()))
                _take(connection, conversation, turn.number, key)
                if connection.execute(sa.select(turns.c.number).where(turns.c.conversation == conversation, turns.c.parent == turn.number).limit(1)).first():
                    raise ApiError(409, "turn_followed", "turn: found turns after it, expected the last one of its branch: they were decided without the act")
                change = turns.update().where(*here, turns.c.state == turn.state).values(state=state.to_json(), decision=dumps(asdict(decision)))
                if not connection.execute(change).rowcount:
                    raise Moved
        except Answered:
            return self._replayed(conversation, key), True
        return self._turn(conversation, turn.number), False

    def replay(self, conversation: str, key: Key) -> StoredTurn | None:
        """The turn that a key was answered with, or None. Raises `ApiError` (404, 422)."""
        if not _ID.fullmatch(conversation):
            raise no_conversation()
        found = self.answered(conversation, key)
        return None if found is None or found[1] is None else self._turn(conversation, found[1])

    def _replayed(self, conversation: str, key: Key | None) -> StoredTurn:
        found = None if key is None else self.replay(conversation, key)
        if found is None:  # deleted meanwhile
            raise no_conversation()
        return found

    def tree(self, conversation: str, *, with_turns: bool = True) -> Conversation:
        """A conversation with all its turns, parents first. Raises `ApiError` (404)."""
        with self._engine.connect() as connection:
            head = self._head(connection, conversation)
            query = sa.select(*_COLUMNS).where(turns.c.conversation == conversation).order_by(turns.c.number)
            rows = connection.execute(query).all() if with_turns else ()
        newest = turn_id(head.turns - 1) if head.turns else None
        return Conversation(head.id, head.model, head.mode, head.created, head.updated, newest, tuple(map(_stored, rows)))

    def delete(self, conversation: str) -> None:
        """Forgets a conversation and everything about it. Raises `ApiError` (404)."""
        with self._writer.begin() as connection:
            if not _ID.fullmatch(conversation) or not connection.execute(conversations.delete().where(conversations.c.id == conversation)).rowcount:
                raise no_conversation()
        self._truncate()

    def sweep(self, before: float | None, now: float | None = None) -> int:
        """Forgets conversations without a turn since `before` (seconds since 1970; None: none), and keys of conversations begun a day before `now`.

        Returns:
            How many conversations.
        """
        new, begun = answers.c.turn.is_(None), conversations.c.created < int(time.time() if now is None else now) - KEY_SECONDS
        old = conversations.c.updated < int(before or 0)
        self._forget(sa.select(answers.c.conversation).join(conversations).where(new, begun), answers.delete().where(new), answers.c.conversation)
        count = self._forget(sa.select(conversations.c.id).where(old), conversations.delete().where(old), conversations.c.id)
        self._truncate()
        return count

    def _forget(self, which: sa.Select[tuple[str]], delete: sa.Delete, column: sa.ColumnElement[str]) -> int:
        """Deletes the rows with those ids, some in each transaction, so that nobody waits for long; returns how many."""
        total = 0
        while True:
            with self._writer.begin() as connection:
                some = connection.execute(which.limit(BATCH)).scalars().all()
                total += connection.execute(delete.where(column.in_(some))).rowcount
            if len(some) < BATCH:
                return total

    def _truncate(self) -> None:
        """Empties SQLite's WAL, which still holds what was deleted; where somebody reads for long, a later call does."""
        if self.kind == "sqlite":
            with suppress(sqlite3.Error, sa.exc.SQLAlchemyError), closing(self._engine.raw_connection()) as connection:
                connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").close()

    def judge(self, conversation: str, turn: str | None, verdict: Verdict) -> str:
        """Stores feedback on an end and returns the id of its turn.

        Raises:
            ApiError: 404: there is no such conversation or turn; 409 `nothing_ended`: nothing was ended there, nor would have been.
        """
        with self._writer.begin() as connection:
            self._head(connection, conversation)
            query = sa.select(turns.c.number, turns.c.decision).where(turns.c.conversation == conversation).order_by(turns.c.number.desc())
            rows = connection.execute(query if turn is None else query.where(turns.c.number == _number(turn))).all()
            if turn is not None and not rows:
                raise no_turn()
            number = next((row.number for row in rows if _decision(row.decision).decided_call == "end"), None)
            if number is None:
                raise ApiError(409, "nothing_ended", "feedback: found no end, expected a turn that ended the conversation or would have")
            connection.execute(feedback.insert().values(conversation=conversation, turn=number, verdict=verdict, created=int(time.time())))
        return f"t{number}"

    def judged(self) -> Iterator[tuple[list[StoredTurn], list[Verdict]]]:
        """Each turn that got feedback, as the line from the first turn to it, with the verdicts in order."""
        with self._engine.connect() as connection:
            rows = connection.execute(feedback.select().order_by(feedback.c.conversation, feedback.c.turn, feedback.c.id)).all()
        verdicts: dict[tuple[str, int], list[Verdict]] = {}
        for row in rows:
            verdicts.setdefault((row.conversation, row.turn), []).append(row.verdict)
        for (conversation, number), said in verdicts.items():
            try:
                by_id = {turn.id: turn for turn in self.tree(conversation).turns}
            except ApiError:  # deleted meanwhile
                continue
            line: list[StoredTurn] = []
            here: str | None = turn_id(number)
            while here is not None:
                line.append(by_id[here])
                here = line[-1].parent
            yield line[::-1], said

    def _head(self, connection: sa.Connection, conversation: str) -> Any:
        row = connection.execute(conversations.select().where(conversations.c.id == conversation)).first() if _ID.fullmatch(conversation) else None
        if row is None:
            raise no_conversation()
        return row

    def _turn(self, conversation: str, number: int) -> StoredTurn:
        with self._engine.connect() as connection:
            row = connection.execute(turns.select().where(*_at(conversation, number))).first()
        if row is None:
            raise no_conversation()
        return _stored(row)


def _at(conversation: str, number: int) -> tuple[sa.ColumnElement[bool], ...]:
    return turns.c.conversation == conversation, turns.c.number == number


def _lock(connection: sa.Connection, conversation: str, now: int, more: int = 0) -> int:
    """Holds a conversation until the transaction is over, and says how many turns it has with `more` ones. Raises `ApiError` (404)."""
    count = connection.execute(_LOCK, {"which": conversation, "more": more, "now": now}).scalar()
    if count is None:
        raise no_conversation()
    return int(count)


def _take(connection: sa.Connection, conversation: str, turn: int, key: Key | None) -> None:
    """Stores what a key is answered with, in the transaction that `_lock` began. Raises `Answered` if it was answered before, which undoes that transaction."""
    if key is not None:
        try:
            connection.execute(_TAKE, {"scope": conversation, "key": key.key, "request": key.request, "conversation": conversation, "turn": turn})
        except sa.exc.IntegrityError:
            raise Answered(*_NO_CONVERSATION) from None


def _decision(text: str) -> Decision:
    """A stored decision; what another version wrote is read as far as this one knows it."""
    try:
        return _DECISION.validate_json(text)
    except ValidationError as error:
        wrong = {problem["loc"][0] for problem in error.errors()}
        return _DECISION.validate_python({**_UNKNOWN, **{name: value for name, value in json.loads(text).items() if name not in wrong}})


def _stored(row: Any) -> StoredTurn:
    decision = _decision(row.decision)
    content = None if row.content is None else json.loads(row.content)
    scores, ended, parent = json.loads(row.scores), decision.call == "end", turn_id(row.parent)
    own = (row.conversation, f"t{row.number}", parent, row.depth, row.role, scores, row.windows, decision, ended, row.created, content)
    return StoredTurn(*own, acts=_acts(row.state, row.depth))


def _acts(state: str, depth: int) -> tuple[Act, ...]:
    """The acts of the host on the turn of that depth, from its state."""
    return () if _NO_ACTS in state else tuple(act for act, index in json.loads(state)["policy"].get("acts", ()) if index == depth)


def _answer(connection: sa.Connection, scope: str, key: Key) -> tuple[str, int | None] | None:
    row = connection.execute(_ANSWER, {"in_scope": scope, "given": key.key}).first()
    if row is None:
        return None
    if row.request != key.request:
        raise ApiError(422, "idempotency_mismatch", "Idempotency-Key: found one that came with another request before, expected a new one for each request")
    return row.conversation, row.turn


def no_turn() -> ApiError:
    """404."""
    return ApiError(404, "no_such_turn", "turn: found no such id in this conversation, expected that of one of its turns")


def _number(turn: str) -> int:
    found = _TURN_ID.fullmatch(turn)
    if found is None:
        raise no_turn()
    return int(found[1])


def _sqlite_connect(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions begin where `_sqlite_begin` says
    patience = time.monotonic() + BUSY_SECONDS
    while True:  # SQLite's own timeout does not cover the change to WAL while another connection makes it
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
            break
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() >= patience:
                raise
            time.sleep(0.01)
    for pragma in ("synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _sqlite_begin(connection: sa.Connection) -> None:
    options = connection.get_execution_options()
    if not options.get("alone"):
        connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("writes") else "BEGIN")
