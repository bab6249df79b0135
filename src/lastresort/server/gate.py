"""What stands before every request: who may come in, how much they may bring, and one line in the log for each."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import ApiError
from .settings import ServerSettings
from .static import FILES
from .telemetry import Metrics, log
from .tokens import Keys

OPEN = frozenset({"/health/live", "/health/ready", "/docs", "/openapi.json", *FILES})
"""Paths that ask for no key."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PORT = re.compile(r":\d*\Z")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Gate:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, settings: ServerSettings, keys: Keys | None, metrics: Metrics) -> None:
        self._app, self._settings, self._keys, self._metrics = app, settings, keys, metrics
        self._in_flight: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, headers = time.perf_counter(), Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        notes: dict[str, str] = scope.setdefault("state", {})
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), (b"x-request-id", request_id.encode())]}
            await send(message)

        try:
            with self._admitted(scope, headers, notes):
                body = await asyncio.wait_for(self._body(headers, receive), self._settings.time_limit)
                if body is not None:
                    await self._app(scope, _replay(body, receive), answer)
        except ApiError as error:
            notes["code"] = error.code
            await error.response()(scope, receive, answer)
        except asyncio.TimeoutError:
            notes["code"] = "body_too_slow"
            await ApiError(408, "body_too_slow", f"the request was not here after {self._settings.time_limit:g} s").response()(scope, receive, answer)
        except Exception as error:
            notes["code"] = "internal_error"
            log("crash", level=logging.ERROR, error=error, request_id=request_id)
            if status == 0:
                await ApiError(500, "internal_error", f"something went wrong here; its log names request {request_id}").response()(scope, receive, answer)
        finally:
            if status:
                seconds = time.perf_counter() - began
                route = getattr(scope.get("route"), "path", "unmatched")
                method = scope["method"] if scope["method"] in _METHODS else "other"
                self._metrics.request(method, route, status, seconds, notes.get("code"))
                log("request", method=method, route=route, status=status, code=notes.get("code"), ms=round(1000 * seconds, 2), request_id=request_id)

    @contextmanager
    def _admitted(self, scope: Scope, headers: Headers, notes: dict[str, str]) -> Iterator[None]:
        """Lets a request in, and notes the digest of its key as `caller`. Raises `ApiError`."""
        names = [headers.get("host", ""), *(origin.partition("://")[2] for origin in headers.getlist("origin"))]
        settings = self._settings
        own = {*_LOCAL, settings.host.lower(), f"[{settings.host.lower()}]"}
        if self._keys is None and settings.loopback and not settings.anonymous and any(_PORT.sub("", name).lower() not in own for name in names):
            # somebody else's page in a browser here must not reach a service without keys
            raise ApiError(421, "wrong_host", "Host or Origin: found another name than this machine's own, expected 127.0.0.1 or localhost")
        if scope["path"] in OPEN:
            yield
            return
        who = (scope.get("client") or ("",))[0]
        if self._keys is not None:
            scheme, _, token = headers.get("authorization", "").partition(" ")
            presented = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
            place = self._keys.find(presented)
            if place is None:
                raise ApiError(401, "unauthorized", "found no known key, expected one as Authorization: Bearer KEY")
            who = f"key {place}"
            notes["caller"] = hashlib.sha256(presented.encode()).hexdigest()
        limit = settings.max_in_flight_per_key
        if limit is not None and self._in_flight[who] >= limit:
            raise ApiError(429, "too_many_requests", f"found {limit} requests of yours at work, expected at most {limit} at a time", retry_after=1)
        self._in_flight[who] += 1
        try:
            yield
        finally:
            self._in_flight[who] -= 1
            if not self._in_flight[who]:
                del self._in_flight[who]

    async def _body(self, headers: Headers, receive: Receive) -> bytes | None:
        """The whole body, or None if the client left. Raises `ApiError` (413)."""
        limit = self._settings.max_body_bytes
        error = ApiError(413, "body_too_large", f"found a body of more than {limit} bytes, expected at most so many")
        if (length := headers.get("content-length", "")).isdecimal() and int(length) > limit:
            raise error
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > limit:
                raise error
            if not message.get("more_body", False):
                return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body as one message, then what comes after it."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
