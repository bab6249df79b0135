"""A typed client of the HTTP service, sync and async. Needs httpx, and nothing of the server.

    with Client("http://127.0.0.1:8000") as service:
        conversation = service.create()
        turn = service.append(conversation.id, "user", "…")
        print(turn.decision.call, turn.decision.advice)

What the service refuses is raised as in the library: `ConversationEnded`, `StateError`, `DataError`, `ConfigError`, `ScoringError`; what is its own as
`ServiceError`.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from .errors import ConfigError, ConversationEnded, DataError, LastResortError, MissingExtraError, ScoringError, StateError
from .types import Act, Message, Role
from .wire import NEWEST, Conversation, DecideAnswer, FeedbackTaken, Info, ModerationAnswer, Said, ScoreAnswer, StoredTurn, Verdict

try:
    import httpx
except ModuleNotFoundError as _error:
    raise MissingExtraError(f"lastresort.client needs {_error.name}, which is not installed: pip install 'lastresort[serve]'") from None

T = TypeVar("T")
DEFAULT_URL = "http://127.0.0.1:8000"
LONGEST_PAUSE = 10.0
"""Seconds; a service that asks to wait longer is not waited for."""

AnyMessage = Message | Said | Mapping[str, str]
"""A message of the library, of the service, or `{"role", "content"}`."""


class ServiceError(LastResortError):
    """The service could not be reached, could not answer now, or answered something else than expected.

    Attributes:
        status: of HTTP; 0 if there was no answer.
        code: of the error, e.g. `queue_full`; `unreachable` if there was no answer.
        retry_after: seconds after which it may be tried again, or None.
    """

    def __init__(self, message: str, *, status: int = 0, code: str = "unreachable", retry_after: float | None = None) -> None:
        self.status, self.code, self.retry_after = status, code, retry_after
        super().__init__(message)


class StoredConversationEnded(ConversationEnded):
    """A stored conversation has ended.

    Attributes:
        turn: id of the turn at which it ended.
        branch_from: id of the turn before it, as `parent` of an edited turn; None: the beginning.
    """

    def __init__(self, ended_at: int, turn: str | None = None, branch_from: str | None = None) -> None:
        self.turn, self.branch_from = turn, branch_from
        super().__init__(ended_at)


@dataclass(frozen=True)
class _Call(Generic[T]):
    """A request and what its answer is read as; `safe` if it may be sent twice."""

    method: str
    path: str
    kind: type[T] | None
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    safe: bool = True

    def parts(self) -> dict[str, Any]:
        """Of the request, for httpx. Its own JSON is UTF-8, which has no halves of characters; ours is ASCII."""
        headers, content = dict(self.headers), None
        if self.body is not None:
            headers["Content-Type"], content = "application/json", json.dumps(self.body)
        return {"method": self.method, "url": self.path, "headers": headers, "content": content}


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _said(message: AnyMessage) -> dict[str, str]:
    if isinstance(message, Mapping):
        return dict(message)
    return {"role": message.role, "content": message.content}


def _path(conversation: str, rest: str = "") -> str:
    if not conversation.isalnum():
        raise StateError("conversation: found no id, expected that of a stored conversation")
    return f"/v1/conversations/{conversation}{rest}"


def _whole(path: str, kind: type[T], messages: Iterable[AnyMessage]) -> _Call[T]:
    return _Call("POST", path, kind, {"messages": [_said(message) for message in messages]})


def _step(role: Role, content: str, state: str | None) -> _Call[DecideAnswer]:
    return _Call("POST", "/v1/decide", DecideAnswer, {"message": {"role": role, "content": content}, "state": state})


def _moderate(texts: str | Iterable[str]) -> _Call[ModerationAnswer]:
    return _Call("POST", "/v1/moderations", ModerationAnswer, {"input": texts if isinstance(texts, str) else list(texts)})


def _create(key: str | None) -> _Call[Conversation]:
    return _Call("POST", "/v1/conversations", Conversation, headers={"Idempotency-Key": key or secrets.token_hex(16)})


def _append(conversation: str, role: Role, content: str, parent: str | None, key: str | None) -> _Call[StoredTurn]:
    body = {"role": role, "content": content, "parent": parent}
    return _Call("POST", _path(conversation, "/turns"), StoredTurn, body, {"Idempotency-Key": key or secrets.token_hex(16)})


def _acknowledge(conversation: str, turn: str, act: Act, key: str | None) -> _Call[StoredTurn]:
    if not turn.isalnum():
        raise StateError("turn: found no id, expected that of a stored turn")
    path = _path(conversation, f"/turns/{turn}/acknowledge")
    return _Call("POST", path, StoredTurn, {"act": act}, {"Idempotency-Key": key or secrets.token_hex(16)})


def _feedback(conversation: str, verdict: Verdict, turn: str | None) -> _Call[FeedbackTaken]:
    return _Call("POST", _path(conversation, "/feedback"), FeedbackTaken, {"verdict": verdict, "turn": turn}, safe=False)


def _tree(conversation: str) -> _Call[Conversation]:
    return _Call("GET", _path(conversation), Conversation)


def _delete(conversation: str) -> _Call[None]:
    return _Call("DELETE", _path(conversation), None, safe=False)  # sent twice it would say that there is none


def _read(call: _Call[T], response: httpx.Response) -> T:
    """The answer. Raises what the service refused."""
    if response.is_success:
        if call.kind is None:
            return cast("T", None)
        try:
            answer: T = _adapter(cast("Any", call.kind)).validate_json(response.content)
        except ValidationError:
            raise ServiceError(f"{call.path}: found another answer than expected: is this the service?", status=response.status_code, code="answer") from None
        return answer
    raise _error_of(response)


def _error_of(response: httpx.Response) -> LastResortError:
    status = response.status_code
    try:
        found: dict[str, Any] = response.json()["error"]
        code, message = str(found["code"]), str(found["message"])
    except (ValueError, KeyError, TypeError):
        return ServiceError(f"found status {status} without an error of this service", status=status, code="answer")
    if code == "conversation_ended":
        branch: dict[str, Any] = next((way for way in found.get("instead", ()) if way.get("do") == "branch"), {})
        return StoredConversationEnded(found.get("ended_at", -1), found.get("turn"), branch.get("parent"))
    if code == "scoring_failed":
        return ScoringError(message)
    if code in {"unauthorized", "wrong_host", "no_store"}:
        return ConfigError(message)
    if status in {404, 409} and code != "not_found":
        return StateError(message)
    if status in {400, 413, 422}:
        place = str(found.get("field", ""))
        return DataError(message.removeprefix(f"{place}: "), field=place)
    return ServiceError(message, status=status, code=code, retry_after=_retry_after(response))


def _retry_after(response: httpx.Response) -> float | None:
    given = response.headers.get("retry-after", "")
    return float(given) if given.isdecimal() else None


def _pause(call: _Call[Any], response: httpx.Response | None, attempt: int, retries: int) -> float | None:
    """Seconds to wait before the next attempt, or None for no other one."""
    if attempt >= retries or not call.safe:
        return None
    if response is None:
        return 0.1 * 2.0**attempt
    if response.status_code not in {429, 503}:
        return None
    asked = _retry_after(response)
    return asked if asked is not None and asked <= LONGEST_PAUSE else None


def _unreachable(error: httpx.HTTPError) -> ServiceError:
    return ServiceError(f"the service did not answer ({type(error).__name__})")


def _headers(api_key: str | None) -> dict[str, str]:
    return {} if api_key is None else {"Authorization": f"Bearer {api_key}"}


class Client:
    """The service from ordinary code. Thread-safe."""

    def __init__(
        self, url: str = DEFAULT_URL, *, api_key: str | None = None, timeout: float = 60.0, retries: int = 2, transport: httpx.BaseTransport | None = None
    ) -> None:
        """Connects when first used.

        Args:
            url: of the service.
            api_key: if it asks for one.
            timeout: seconds for one attempt.
            retries: further attempts where the service is busy or away; a turn is never added twice, since each carries an idempotency key.
            transport: of httpx, e.g. for tests.
        """
        self._retries = retries
        self._http = httpx.Client(base_url=url, headers=_headers(api_key), timeout=timeout, transport=transport)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def _send(self, call: _Call[T]) -> T:
        attempt = 0
        while True:
            response, failure = None, None
            try:
                response = self._http.request(**call.parts())
            except httpx.HTTPError as error:
                failure = _unreachable(error)
            pause = _pause(call, response, attempt, self._retries)
            if pause is None:
                if response is None:
                    raise failure or ServiceError("no answer")
                return _read(call, response)
            time.sleep(pause)
            attempt += 1

    def score(self, messages: Iterable[AnyMessage]) -> ScoreAnswer:
        """Scores of a whole conversation."""
        return self._send(_whole("/v1/score", ScoreAnswer, messages))

    def decide(self, messages: Iterable[AnyMessage]) -> DecideAnswer:
        """Decisions on a whole conversation."""
        return self._send(_whole("/v1/decide", DecideAnswer, messages))

    def step(self, role: Role, content: str, state: str | None = None) -> DecideAnswer:
        """The decision on one new message; `state` is that of the answer before, None for the first message. Raises as `Monitor.observe`."""
        return self._send(_step(role, content, state))

    def moderate(self, texts: str | Iterable[str]) -> ModerationAnswer:
        """Single texts in OpenAI's shape."""
        return self._send(_moderate(texts))

    def create(self, *, key: str | None = None) -> Conversation:
        """A new stored conversation; `key` is an idempotency key, None for a made one."""
        return self._send(_create(key))

    def append(self, conversation: str, role: Role, content: str, *, parent: str | None = NEWEST, key: str | None = None) -> StoredTurn:
        """Adds a turn after `parent`: the newest, an older one (edit, retry), or None (anew). Raises `StoredConversationEnded` after an end."""
        return self._send(_append(conversation, role, content, parent, key))

    def acknowledge(self, conversation: str, turn: str, act: Act, *, key: str | None = None) -> StoredTurn:
        """Says what the host did itself upon the advice on the last turn of a branch. Raises `StateError` if no such advice is open, or turns followed."""
        return self._send(_acknowledge(conversation, turn, act, key))

    def tree(self, conversation: str) -> Conversation:
        """A stored conversation with all branches. Raises `StateError` if there is none."""
        return self._send(_tree(conversation))

    def delete(self, conversation: str) -> None:
        """Deletes a stored conversation. Raises `StateError` if there is none."""
        self._send(_delete(conversation))

    def feedback(self, conversation: str, verdict: Verdict, turn: str | None = None) -> FeedbackTaken:
        """Disputes or confirms an end. Raises `StateError` if nothing was ended."""
        return self._send(_feedback(conversation, verdict, turn))

    def info(self) -> Info:
        """What runs there."""
        return self._send(_Call("GET", "/info", Info))

    def ready(self) -> bool:
        """Whether the service is warm; False also if it cannot be reached."""
        try:
            return self._http.get("/health/ready").is_success
        except httpx.HTTPError:
            return False


class AsyncClient:
    """The service from async code; the methods are those of `Client`. Belongs to one event loop."""

    def __init__(
        self, url: str = DEFAULT_URL, *, api_key: str | None = None, timeout: float = 60.0, retries: int = 2, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """As `Client`."""
        self._retries = retries
        self._http = httpx.AsyncClient(base_url=url, headers=_headers(api_key), timeout=timeout, transport=transport)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def _send(self, call: _Call[T]) -> T:
        attempt = 0
        while True:
            response, failure = None, None
            try:
                response = await self._http.request(**call.parts())
            except httpx.HTTPError as error:
                failure = _unreachable(error)
            pause = _pause(call, response, attempt, self._retries)
            if pause is None:
                if response is None:
                    raise failure or ServiceError("no answer")
                return _read(call, response)
            await asyncio.sleep(pause)
            attempt += 1

    async def score(self, messages: Iterable[AnyMessage]) -> ScoreAnswer:
        """See `Client.score`."""
        return await self._send(_whole("/v1/score", ScoreAnswer, messages))

    async def decide(self, messages: Iterable[AnyMessage]) -> DecideAnswer:
        """See `Client.decide`."""
        return await self._send(_whole("/v1/decide", DecideAnswer, messages))

    async def step(self, role: Role, content: str, state: str | None = None) -> DecideAnswer:
        """See `Client.step`."""
        return await self._send(_step(role, content, state))

    async def moderate(self, texts: str | Iterable[str]) -> ModerationAnswer:
        """See `Client.moderate`."""
        return await self._send(_moderate(texts))

    async def create(self, *, key: str | None = None) -> Conversation:
        """See `Client.create`."""
        return await self._send(_create(key))

    async def append(self, conversation: str, role: Role, content: str, *, parent: str | None = NEWEST, key: str | None = None) -> StoredTurn:
        """See `Client.append`."""
        return await self._send(_append(conversation, role, content, parent, key))

    async def acknowledge(self, conversation: str, turn: str, act: Act, *, key: str | None = None) -> StoredTurn:
        """See `Client.acknowledge`."""
        return await self._send(_acknowledge(conversation, turn, act, key))

    async def tree(self, conversation: str) -> Conversation:
        """See `Client.tree`."""
        return await self._send(_tree(conversation))

    async def delete(self, conversation: str) -> None:
        """See `Client.delete`."""
        await self._send(_delete(conversation))

    async def feedback(self, conversation: str, verdict: Verdict, turn: str | None = None) -> FeedbackTaken:
        """See `Client.feedback`."""
        return await self._send(_feedback(conversation, verdict, turn))

    async def info(self) -> Info:
        """See `Client.info`."""
        return await self._send(_Call("GET", "/info", Info))

    async def ready(self) -> bool:
        """See `Client.ready`."""
        try:
            return (await self._http.get("/health/ready")).is_success
        except httpx.HTTPError:
            return False
