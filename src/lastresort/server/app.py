"""The service as an ASGI application: routes, errors, life cycle."""

from __future__ import annotations

import asyncio
import html
import json
import logging
import re
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import FastAPI, Header, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import APIKeyHeader, HTTPBearer
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from lastresort import __version__
from lastresort.artifact import load_folder, shipped_model
from lastresort.conversation import ConversationState, Monitor, load
from lastresort.errors import ConfigError, ConversationEnded, ScoringError, StateError
from lastresort.policy import parse_policy
from lastresort.types import Act
from lastresort.wire import (
    NEWEST,
    Acknowledgement,
    Conversation,
    CourseRequest,
    DecideAnswer,
    Feedback,
    FeedbackTaken,
    Info,
    ModerationAnswer,
    ModerationRequest,
    NewTurn,
    ScoreAnswer,
    StoredTurn,
)

from .engine import Engine
from .errors import ApiError, busy, ended, invalid
from .gate import Gate
from .pool import Deadline, Pool
from .settings import NO_STORE, ServerSettings, read_secret
from .static import add_page
from .store import NEW, Key, Moved, Parent, Store, no_turn, turn_id
from .telemetry import Metrics, log
from .tokens import Keys, StateSigner

SWEEP_SECONDS = 3600.0
DAY = 86400
IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key", description="the same request with the same key is done once")]
_KEY = re.compile(r"[\x21-\x7e]{1,200}")
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": what,
        "content": {"application/json": {"schema": {"type": "object", "properties": {"error": {"type": "object", "required": ["code", "message"]}}}}},
    }
    for status, what in {
        400: "the request cannot be read",
        401: "no known key",
        408: "the request was too slow",
        409: "the conversation ended, or the state is forged, foreign or of another version",
        413: "the body is too large",
        421: "without keys: the Host or Origin is not this machine",
        422: "the request is not valid, or beyond a limit",
        429: "too many requests of one key at a time",
        500: "something went wrong here; nothing was decided or acknowledged",
        503: "the queue is full, or the time is up",
    }.items()
}
PLAIN: dict[int | str, dict[str, Any]] = {status: ERRORS[status] for status in (401, 421, 429, 500)}
KEYS = [
    Security(HTTPBearer(auto_error=False, description="asked for where the service has keys")),
    Security(APIKeyHeader(name="X-API-Key", auto_error=False, description="the same key, in a header of its own")),
]
"""Said in the description only: `Gate` asks."""


class Service:
    """Everything that the routes need. Made once for each process."""

    def __init__(self, settings: ServerSettings, monitor: Monitor | None = None, store: Store | None = None) -> None:
        """Loads what is not given.

        Raises:
            LastResortError: the model, policy, key files or store cannot be used.
        """
        self.settings = settings
        self.monitor = load(settings.model, policy=settings.policy) if monitor is None else monitor
        if settings.mode is not None:
            self.monitor = self.monitor.in_mode(settings.mode)
        if self.monitor.policy.mode == "off":
            raise ConfigError("mode: found off in the policy, expected shadow, advise or enforce: a service that decides nothing need not run")
        self.certificate = _certificate(settings, self.monitor)
        self.keys = None if settings.api_key_file is None else Keys.read(settings.api_key_file)
        secret = None if settings.state_key_file is None else read_secret(settings.state_key_file)
        self.store = store
        if store is None and settings.store != NO_STORE:
            self.store = Store(settings.store, store_text=settings.store_text, connections=settings.scoring_threads + 2)
        if secret is None:
            secret = secrets.token_bytes(32) if self.store is None else self.store.secret()
        self._sweeping, self._closed = threading.Lock(), False
        self.metrics = Metrics()
        self.digest = self.monitor.scorer.manifest.digest
        self.signer = StateSigner(secret, self.digest)
        self.engine = Engine(self.monitor, self.signer, self.metrics, settings)
        self.pool = Pool(settings.scoring_threads, settings.queue_size, settings.time_limit, self.metrics)
        self.ready = False
        self._looking, self._look_at, self._answers = asyncio.Lock(), 0.0, True

    @property
    def stored(self) -> Store:
        """The store. Raises `ApiError` where there is none."""
        if self.store is None:
            raise ApiError(501, "no_store", "this service runs without a store, expected /v1/decide with the state that it returns")
        return self.store

    def key(self, given: str | None, *parts: str | None) -> Key | None:
        """An idempotency key with the fingerprint of its request. Raises `ApiError`."""
        if given is None:
            return None
        if not _KEY.fullmatch(given):
            raise ApiError(422, "invalid_request", "Idempotency-Key: expected 1 to 200 visible ASCII characters", field="Idempotency-Key")
        return Key(given, self.signer.fingerprint(*parts))

    def append(self, conversation: str, turn: NewTurn, key: Key | None, deadline: Deadline) -> tuple[StoredTurn, bool]:
        """Scores a turn and stores it: the whole of `POST …/turns`, in a thread."""
        return self._once(conversation, key, lambda: self._append(conversation, turn, key, deadline))

    def acknowledge(self, conversation: str, turn: str, act: Act, key: Key | None, deadline: Deadline) -> tuple[StoredTurn, bool]:
        """Takes an act of the host and stores it: the whole of `POST …/acknowledge`, in a thread."""
        return self._once(conversation, key, lambda: self._acknowledge(conversation, turn, act, key, deadline))

    def _once(self, conversation: str, key: Key | None, work: Callable[[], tuple[StoredTurn, bool]]) -> tuple[StoredTurn, bool]:
        """What `work` gives, or the key was answered with, before or by the same request at the same time, which may be why `work` is refused."""
        try:
            return work()
        except ApiError:
            if key is None or (found := self.stored.replay(conversation, key)) is None:
                raise
            return found, True

    def _append(self, conversation: str, turn: NewTurn, key: Key | None, deadline: Deadline) -> tuple[StoredTurn, bool]:
        store = self.stored
        while True:
            parent, before = self._open(conversation, turn.parent, key)
            after, decision = self.engine.observe(before, turn.role, turn.content)
            deadline.check()
            with suppress(Moved):
                stored, was = store.append(conversation, parent, after, turn.role, turn.content, decision, key)
                if not was:
                    if after.score is not None:
                        self.metrics.scored(after.score)
                    self.metrics.decided(decision)
                return stored, was

    def _open(self, conversation: str, turn: str | None, key: Key | None) -> tuple[Parent, ConversationState]:
        """A stored turn to go on from (None: the beginning) and the state after it. Raises `ApiError`, also where the conversation ended there."""
        parent = self.stored.parent(conversation, turn, self.digest, key)
        state = self.monitor.start() if parent.state is None else ConversationState.from_json(parent.state)
        if state.policy.ended_at is not None:
            raise ended(state.policy.ended_at, turn_id(parent.above), stored=True, turn=turn_id(parent.number))
        return parent, state

    def _acknowledge(self, conversation: str, turn: str, act: Act, key: Key | None, deadline: Deadline) -> tuple[StoredTurn, bool]:
        store = self.stored
        if turn == NEWEST:  # another turn may have come meanwhile: the host names the one that it acted upon
            raise no_turn()
        while True:
            here, before = self._open(conversation, turn, key)
            try:
                after, decision = self.monitor.acknowledge(before, act)
            except StateError as error:
                raise ApiError(409, "no_open_advice", str(error)) from None
            deadline.check()
            with suppress(Moved):
                stored, was = store.acknowledge(conversation, here, after, decision, key)
                if not was:
                    self.metrics.decided(decision)
                return stored, was

    def info(self) -> Info:
        """`GET /info`."""
        settings, manifest = self.settings, self.monitor.scorer.manifest
        limits = {name: getattr(settings, name) for name in ("max_body_bytes", "max_messages", "max_characters", "time_limit", "queue_size")}
        labels = tuple(asdict(label) for label in manifest.labels)
        kind = None if self.store is None else self.store.kind
        keeps = self.store is not None and self.store.store_text
        mode = self.monitor.policy.mode
        config = self.monitor.policy.config
        thresholds = {label: config.threshold(label).enter for label in (*config.user_labels, *config.assistant_labels)}
        own = (self.certificate, kind, keeps, settings.keep_days, limits, thresholds)
        return Info("lastresort", __version__, manifest.tag, self.digest, mode, labels, *own)

    async def warm_up(self) -> None:
        """Until this is done `/health/ready` says no."""
        while not self.ready:
            try:
                await self.pool.run(lambda _: self.engine.warm_up())
                if self.store is not None:
                    await self.pool.run(lambda _: self.stored.ping())
                self.ready = True
                log("ready", model=self.monitor.model, mode=self.monitor.policy.mode, store=self.store.kind if self.store else NO_STORE)
            except Exception as error:  # tried again: a database that was there at the start may be away for a moment
                log("warm_up_failed", level=logging.ERROR, error=error)
                await asyncio.sleep(1.0)

    async def look(self) -> bool:
        """Whether the store answers, or there is none; looked at once a second at most."""
        async with self._looking:
            if self.store is not None and time.monotonic() >= self._look_at:
                try:
                    await asyncio.to_thread(self.store.ping)
                    self._answers = True
                except (DBAPIError, PoolTimeout):
                    self._answers = False
                self._look_at = time.monotonic() + 1.0
        return self._answers

    async def sweep(self) -> None:
        """Deletes old conversations and keys, at once and every hour."""
        days = self.settings.keep_days
        while self.store is not None:
            try:
                count = await asyncio.to_thread(self._sweep, self.store, None if days is None else time.time() - days * DAY)
                log("sweep", deleted=count, keep_days=days)
            except Exception as error:
                log("sweep_failed", level=logging.ERROR, error=error)
            await asyncio.sleep(SWEEP_SECONDS)

    def _sweep(self, store: Store, before: float | None) -> int:
        with self._sweeping:
            return 0 if self._closed else store.sweep(before)

    def close(self) -> None:
        """Finishes the work at hand, a sweep too, and closes the store."""
        self.pool.close()
        with self._sweeping:  # to cancel its task does not stop its thread, whose connection would outlive the store
            self._closed = True
            if self.store is not None:
                self.store.close()


def _certificate(settings: ServerSettings, monitor: Monitor) -> dict[str, Any] | None:
    folder = load_folder(shipped_model() if settings.model is None else settings.model)
    found = folder.certificate
    if found is None or folder.manifest.digest != monitor.scorer.manifest.digest:
        return None
    certified = parse_policy({**found.policy, "mode": monitor.policy.config.mode}, where="certificate")
    names = ("population", "n", "errors", "bound", "max_false_end_rate", "confidence", "date")
    return {**{name: getattr(found, name) for name in names}, "holds": certified == monitor.policy.config}


def create_app(settings: ServerSettings | None = None, *, monitor: Monitor | None = None, store: Store | None = None) -> FastAPI:
    """The service as an ASGI application.

    Args:
        settings: None for the default ones.
        monitor: instead of loading `settings.model`.
        store: instead of opening `settings.store`; closed with the application.

    Raises:
        LastResortError: the model, policy, key files or store cannot be used.
    """
    settings = settings or ServerSettings()
    service = Service(settings, monitor, store)

    @asynccontextmanager
    async def life(application: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(service.warm_up()), asyncio.create_task(service.sweep())]
        application.state.warming = tasks[0]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.to_thread(service.close)

    silent: Any = {"tracing": False, "metrics": False, "logs": False, "operation_spans": False, "auto_configure": False}
    app = FastAPI(
        title="lastresort",
        version=__version__,
        summary="Decides, as a last resort, when a chat assistant may leave a persistently abusive conversation.",
        lifespan=life,
        docs_url=None,
        redoc_url=None,
        telemetry=silent,  # nothing of requests goes anywhere
    )
    app.state.service = service
    app.add_middleware(Gate, settings=settings, keys=service.keys, metrics=service.metrics)
    _add_errors(app)
    _add_stateless(app, service)
    _add_stateful(app, service)
    _add_about(app, service)
    add_page(app)
    return app


def _add_errors(app: FastAPI) -> None:
    def answer(request: Request, error: ApiError) -> JSONResponse:
        request.scope.setdefault("state", {})["code"] = error.code
        return error.response()

    async def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ApiError)
        return answer(request, error)

    async def not_valid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return answer(request, invalid(error.errors()))

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        codes = {404: ("not_found", "found no such path"), 405: ("method_not_allowed", "this path does not take that method")}
        code, message = codes.get(error.status_code, ("bad_request", "the request cannot be read"))
        return answer(request, ApiError(error.status_code, code, message))

    async def library(request: Request, error: Exception) -> JSONResponse:
        if isinstance(error, ConversationEnded):
            return answer(request, ended(error.ended_at))
        if isinstance(error, StateError):
            return answer(request, ApiError(409, "state_foreign", str(error)))
        log("scoring_failed", level=logging.ERROR, error=error)
        return answer(request, ApiError(500, "scoring_failed", "the turn could not be scored, so nothing was decided on it"))

    async def database(request: Request, error: Exception) -> JSONResponse:
        log("store_failed", level=logging.ERROR, error=error)
        if isinstance(error, DBAPIError) and not (isinstance(error, OperationalError) or error.connection_invalidated):
            return answer(request, ApiError(500, "store_failed", "the store refused; nothing was acknowledged"))
        return answer(request, busy("store_unavailable", "the store does not answer; nothing was acknowledged"))

    app.add_exception_handler(ApiError, refused)
    app.add_exception_handler(RequestValidationError, not_valid)
    app.add_exception_handler(HTTPException, http)
    for kind in (ConversationEnded, StateError, ScoringError):
        app.add_exception_handler(kind, library)
    for failure in (DBAPIError, PoolTimeout):
        app.add_exception_handler(failure, database)


def _add_stateless(app: FastAPI, service: Service) -> None:
    engine, pool = service.engine, service.pool

    def check(request: CourseRequest) -> None:
        engine.check_limits([message.content for message in request.messages or (request.message,) if message is not None])

    @app.post("/v1/score", responses=ERRORS, dependencies=KEYS, tags=["stateless"])
    async def score(request: CourseRequest) -> ScoreAnswer:
        """Scores all messages of a conversation, or one new message on top of a state."""
        check(request)
        return await pool.run(lambda deadline: engine.score(request, deadline))

    @app.post("/v1/decide", responses=ERRORS, dependencies=KEYS, tags=["stateless"])
    async def decide(request: CourseRequest) -> DecideAnswer:
        """Scores and decides; `call` is the only thing a host must obey."""
        check(request)
        return await pool.run(lambda deadline: engine.decide(request, deadline))

    @app.post("/v1/moderations", responses=ERRORS, dependencies=KEYS, tags=["stateless"])
    async def moderations(request: ModerationRequest) -> ModerationAnswer:
        """Single texts, in the shape of OpenAI's endpoint. Knows no conversation, so it never advises to end one."""
        texts = engine.texts(request)
        engine.check_limits(texts, name="input")
        return await pool.run(lambda deadline: engine.moderate(texts, deadline))


def _add_stateful(app: FastAPI, service: Service) -> None:
    engine, pool = service.engine, service.pool
    kept: dict[int | str, dict[str, Any]] = {**ERRORS, 501: {**ERRORS[422], "description": "the service runs without a store"}}
    missing = {**kept, 404: {**ERRORS[422], "description": "no such conversation or turn"}}

    def again(kind: Any) -> dict[int | str, dict[str, Any]]:
        return {200: {"model": kind, "description": "done before, with the same Idempotency-Key"}}

    def replayed(response: Response, was: bool) -> None:
        if was:
            response.status_code = 200
            response.headers["Idempotent-Replayed"] = "true"

    @app.post("/v1/conversations", status_code=201, responses={**kept, **again(Conversation)}, dependencies=KEYS, tags=["stateful"])
    async def new_conversation(request: Request, response: Response, idempotency_key: IdempotencyKey = None) -> Conversation:
        """Begins a conversation that the service keeps. Takes no body."""
        store, mode, caller = service.stored, service.monitor.policy.mode, service.signer.fingerprint(request.scope["state"].get("caller"))
        key = service.key(idempotency_key, NEW, caller)
        conversation, was = await pool.run(lambda _: store.create(service.monitor.model, service.digest, mode, key, caller))
        replayed(response, was)
        return conversation

    @app.post("/v1/conversations/{conversation}/turns", status_code=201, responses={**missing, **again(StoredTurn)}, dependencies=KEYS, tags=["stateful"])
    async def new_turn(conversation: str, turn: NewTurn, response: Response, idempotency_key: IdempotencyKey = None) -> StoredTurn:
        """Adds a turn after `parent`: the newest one, or an older one to edit or retry."""
        engine.check_limits([turn.content], name="content")
        key = service.key(idempotency_key, turn.role, turn.content, turn.parent)
        stored, was = await pool.run(lambda deadline: service.append(conversation, turn, key, deadline))
        replayed(response, was)
        return stored

    @app.post("/v1/conversations/{conversation}/turns/{turn}/acknowledge", responses=missing, dependencies=KEYS, tags=["stateful"])
    async def acknowledge(
        conversation: str, turn: str, acknowledgement: Acknowledgement, response: Response, idempotency_key: IdempotencyKey = None
    ) -> StoredTurn:
        """Says what the host did itself upon the open advice on the last turn of a branch: `warned`, `confirmed` (which ends) or `declined`."""
        key = service.key(idempotency_key, "acknowledge", turn, acknowledgement.act)
        stored, was = await pool.run(lambda deadline: service.acknowledge(conversation, turn, acknowledgement.act, key, deadline))
        replayed(response, was)
        return stored

    @app.get("/v1/conversations/{conversation}", responses=missing, dependencies=KEYS, tags=["stateful"])
    async def conversation_tree(conversation: str) -> Conversation:
        """The conversation with all its branches."""
        store = service.stored
        return await pool.run(lambda _: store.tree(conversation))

    @app.delete("/v1/conversations/{conversation}", status_code=204, responses=missing, dependencies=KEYS, tags=["stateful"])
    async def forget_conversation(conversation: str) -> None:
        """Deletes the conversation, its turns and its feedback."""
        store = service.stored
        await pool.run(lambda _: store.delete(conversation))

    @app.post("/v1/conversations/{conversation}/feedback", status_code=201, responses=missing, dependencies=KEYS, tags=["stateful"])
    async def new_feedback(conversation: str, feedback: Feedback) -> FeedbackTaken:
        """Disputes or confirms an end, also one that the mode withheld."""
        store = service.stored
        turn = await pool.run(lambda _: store.judge(conversation, feedback.turn, feedback.verdict))
        return FeedbackTaken(conversation, turn, feedback.verdict)


def _add_about(app: FastAPI, service: Service) -> None:
    @app.get("/health/live", tags=["about"], responses={421: ERRORS[421]})
    async def live() -> dict[str, str]:
        """The process runs."""
        return {"status": "live"}

    @app.get("/health/ready", tags=["about"], responses={421: ERRORS[421], 503: ERRORS[503]})
    async def ready() -> dict[str, str]:
        """The model is warm and the store answers."""
        if not service.ready:
            raise busy("not_ready", "the model is not warm yet")
        if not await service.look():
            raise busy("store_unavailable", "the store does not answer")
        return {"status": "ready"}

    @app.get("/info", tags=["about"], responses=PLAIN, dependencies=KEYS)
    async def info() -> Info:
        """Model, mode, labels, certificate, limits."""
        return service.info()

    @app.get("/metrics", tags=["about"], responses=PLAIN, dependencies=KEYS)
    async def metrics() -> Response:
        """Prometheus."""
        return Response(service.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        """The API for people; without scripts and outside requests."""
        return HTMLResponse(_docs(app.openapi()), headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"})


def _docs(schema: dict[str, Any]) -> str:
    def block(title: str, value: Any) -> str:
        return f"<details><summary>{html.escape(title)}</summary><pre>{html.escape(json.dumps(value, indent=1, ensure_ascii=False))}</pre></details>"

    parts = []
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            parts.append(f"<h2><code>{method.upper()} {html.escape(path)}</code></h2><p>{html.escape(operation.get('description', ''))}</p>")
            parts += [block(name, operation[name]) for name in ("parameters", "requestBody", "responses") if name in operation]
    parts.append("<h2>Shapes</h2>")
    parts += [block(name, shape) for name, shape in schema.get("components", {}).get("schemas", {}).items()]
    style = ":root{color-scheme:light dark}body{font:1rem/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}pre{overflow-x:auto}"
    head = (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>lastresort API</title><style>{style}</style>"
    )
    return f"{head}<h1>lastresort {html.escape(schema['info']['version'])}</h1><p><a href=openapi.json>openapi.json</a></p>{''.join(parts)}</html>"
