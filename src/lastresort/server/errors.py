"""What a request can be answered with instead of a result: `{"error": {"code", "message", …}}`. Never repeats what people wrote."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from starlette.responses import JSONResponse

_NAME = re.compile(r"[A-Za-z_]\w{0,31}")


class ApiError(Exception):
    """A refusal.

    Attributes:
        status: HTTP status.
        code: stable, for programs.
        message: for people: what was found, what was expected.
        retry_after: seconds after which it may be tried again, or None.
        more: further keys of the body.
    """

    def __init__(self, status: int, code: str, message: str, *, retry_after: int | None = None, **more: Any) -> None:
        self.status, self.code, self.message, self.retry_after, self.more = status, code, message, retry_after, more
        super().__init__(f"{status} {code}: {message}")

    def response(self) -> JSONResponse:
        """The answer."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse({"error": {"code": self.code, "message": self.message, **self.more}}, self.status, headers)


def busy(code: str, message: str) -> ApiError:
    """503, to be tried again."""
    return ApiError(503, code, message, retry_after=1)


def ended(ended_at: int, branch_from: str | None = None, *, stored: bool = False, turn: str | None = None) -> ApiError:
    """409 for a turn after an end, with the ways on.

    Args:
        ended_at: index of the message.
        branch_from: id of the turn before the end, from which a branch may go on; None: from the beginning.
        stored: whether the service holds the conversation.
        turn: id of the turn at which it ended.
    """
    if stored:
        new = {"do": "new", "how": "POST /v1/conversations"}
        branch = {"do": "branch", "how": "POST the edited turn with this parent, or an older one", "parent": branch_from}
        return ApiError(
            409,
            "conversation_ended",
            f"this conversation ended at message {ended_at} and takes no further turn",
            ended_at=ended_at,
            turn=turn,
            instead=[branch, new],
        )
    ways = [
        {"do": "branch", "how": "send the state that was returned before the end, or the messages with an edited one"},
        {"do": "new", "how": "send no state"},
    ]
    return ApiError(409, "conversation_ended", f"this conversation ended at message {ended_at} and takes no further turn", ended_at=ended_at, instead=ways)


def invalid(problems: Iterable[Mapping[str, Any]]) -> ApiError:
    """422 from what pydantic found, without any of the input."""
    first = next(iter(problems))
    places = [str(part) if isinstance(part, int) or _NAME.fullmatch(str(part)) else "…" for part in first["loc"] if part != "body"]
    kind, field = first["type"], ".".join(places)
    if kind == "json_invalid":
        return ApiError(422, "invalid_json", f"found no valid JSON ({first['ctx']['error']} at character {first['loc'][-1]}), expected a JSON object", field="")
    if kind == "missing":
        message = "found nothing, expected this key" if field else "found no JSON body, expected one with Content-Type: application/json"
    elif kind in {"extra_forbidden", "unexpected_keyword_argument"}:
        message = "found this key, expected no such key"
    else:
        message = "expected " + str(first["msg"]).removeprefix("Input should be ").removeprefix("Value error, ").removeprefix("expected ")
    return ApiError(422, "invalid_request", f"{field}: {message}" if field else message, field=field)
