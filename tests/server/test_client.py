"""The typed client, sync and async, against a real process; and what it makes of answers that go wrong."""

from __future__ import annotations

import asyncio
import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from lastresort import ConfigError, ConversationEnded, DataError, LastResortError, ScoringError, StateError
from lastresort import client as module
from lastresort.client import AsyncClient, Client, ServiceError, StoredConversationEnded
from lastresort.conversation import Monitor
from lastresort.types import Dialogue
from lastresort.wire import Said

from .conftest import Process

KEY = "key-of-the-chat-0123"


def test_both_clients_against_a_process_of_its_own(start: Callable[..., Process], tmp_path: Path, monitor: Monitor, sample: dict[str, Dialogue]) -> None:
    keys, dialogue = tmp_path / "keys", sample["persistent-abuse"]
    keys.write_text(KEY + "\n")
    served = start("--api-key-file", str(keys), "--store", f"sqlite:///{tmp_path / 'a.db'}", "--store-text", "--keep-days", "30")
    expected = monitor.score(dialogue)
    with Client(served.url, api_key=KEY) as service:
        assert service.ready()
        info = service.info()
        assert (info.model, info.mode, info.store, info.store_text, info.keep_days) == (monitor.model, "enforce", "sqlite", True, 30)
        decided = service.decide(dialogue.messages)
        assert (decided.turns, decided.call, decided.ended_at) == (expected.turns, "end", 10)
        assert decided.turns[10].decision is not None
        assert expected.turns[10].decision is not None
        assert decided.turns[10].decision.numbers == expected.turns[10].decision.numbers
        assert [turn.scores for turn in service.score([Said("user", "Hello."), {"role": "assistant", "content": "Hello!"}]).turns]
        first = service.step("user", "Hello.")
        assert service.step("assistant", "Hello!", first.state).turns[0].index == 1
        with pytest.raises(StateError, match="signature"):
            service.step("user", "Hello.", first.state[:-3])
        with pytest.raises(DataError, match="role") as wrong:
            service.decide([{"role": "robot", "content": "xyzzy"}])
        assert wrong.value.field == "messages.0.role"
        assert len(service.moderate(["a", "b"]).results) == 2
        conversation = service.create()
        for message in dialogue.messages[:11]:
            turn = service.append(conversation.id, message.role, message.content)
        assert (turn.id, turn.ended, turn.content) == ("t10", True, dialogue.messages[10].content)
        with pytest.raises(StoredConversationEnded) as ended:
            service.append(conversation.id, "user", "Hello.")
        assert (ended.value.ended_at, ended.value.turn, ended.value.branch_from) == (10, "t10", "t9")
        assert service.append(conversation.id, "user", "Sorry.", parent=ended.value.branch_from).parent == "t9"
        assert service.feedback(conversation.id, "dispute").turn == "t10"
        asked = service.append(service.create().id, "user", sample["end-request-no"].messages[0].content)
        assert service.acknowledge(asked.conversation, asked.id, "declined").acts == ("declined",)
        with pytest.raises(StateError, match="while the advice"):
            service.acknowledge(asked.conversation, asked.id, "declined")
        with pytest.raises(StateError, match="no id"):
            service.acknowledge(asked.conversation, "../x", "warned")
        same = [service.append(conversation.id, "user", "Sorry?", parent="t9", key="k") for _ in range(2)]
        assert same[0] == same[1]
        with pytest.raises(StateError, match="no such id"):
            service.append(conversation.id, "user", "x", parent="t99")

    async def again() -> None:
        async with AsyncClient(served.url, api_key=KEY) as service:
            assert await service.ready()
            assert (await service.info()).model == monitor.model
            assert (await service.decide(dialogue.messages)).turns == expected.turns
            assert (await service.score(dialogue.messages[:1])).turns[0].role == "user"
            assert (await service.step("user", "Hello.")).call == "continue"
            assert len((await service.moderate("a")).results) == 1
            found = await service.tree(conversation.id)
            assert [turn.id for turn in found.turns] == [f"t{n}" for n in range(13)]
            own = await service.create()
            await service.append(own.id, "user", "Hello.")
            with pytest.raises(StateError, match="while the advice"):
                await service.acknowledge(own.id, "t0", "warned")
            siblings = await asyncio.gather(*(service.append(own.id, "assistant", f"{n}", parent="t0") for n in range(5)))
            assert sorted(turn.id for turn in siblings) == [f"t{n}" for n in range(1, 6)]
            assert (await service.feedback(conversation.id, "confirm", "t10")).verdict == "confirm"
            await service.delete(own.id)
            with pytest.raises(StateError, match="no such id"):
                await service.tree(own.id)

    asyncio.run(again())
    with Client(served.url, api_key="wrong") as stranger, pytest.raises(ConfigError, match="key"):
        stranger.info()
    command = [sys.executable, "-m", "lastresort", "feedback", "export", "--store", f"sqlite:///{tmp_path / 'a.db'}", "-o", str(tmp_path / "f.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (exported,) = [json.loads(line) for line in (tmp_path / "f.jsonl").read_text().splitlines()]
    assert (exported["meta"]["call"], len(exported["messages"]), exported["source"]) == ("continue", 11, "feedback")
    assert "1 dialogues; 0 left out" in done.stderr
    assert served.stop() in (0, -2, 130)


def answering(*answers: Any) -> tuple[httpx.MockTransport, list[httpx.Request]]:
    """A service that gives these answers one after another: (status, body[, headers]) or an exception."""
    left, seen = list(answers), []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        given = left.pop(0)
        if isinstance(given, Exception):
            raise given
        return httpx.Response(given[0], json=given[1], headers=given[2] if len(given) > 2 else {})

    return httpx.MockTransport(answer), seen


def refusal(code: str, **more: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": f"this is {code}", **more}}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (409, refusal("conversation_ended", ended_at=3, instead=[]), ConversationEnded),
        (409, refusal("state_forged"), StateError),
        (404, refusal("no_such_turn"), StateError),
        (404, refusal("not_found"), ServiceError),
        (422, refusal("invalid_request", field="a"), DataError),
        (413, refusal("body_too_large"), DataError),
        (401, refusal("unauthorized"), ConfigError),
        (501, refusal("no_store"), ConfigError),
        (500, refusal("scoring_failed"), ScoringError),
        (500, refusal("internal_error"), ServiceError),
        (502, {"detail": "x"}, ServiceError),
        (200, {"detail": "x"}, ServiceError),
    ],
)
def test_errors_are_those_of_the_library(status: int, body: Any, kind: type[LastResortError]) -> None:
    transport, seen = answering((status, body))
    with Client(transport=transport) as service, pytest.raises(kind) as caught:
        service.info()
    assert type(caught.value) in (kind, StoredConversationEnded)
    assert len(seen) == 1


def test_a_busy_service_is_tried_again_with_the_same_key(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    turn = {"conversation": "c1", "id": "t0", "parent": None, "index": 0, "role": "user", "scores": {}, "windows": 1, "ended": False, "created": 1, "new": 1}
    turn["decision"] = {"call": "continue", "advice": "none", "reason": "calm", "later": True}
    busy = (503, refusal("queue_full"), {"Retry-After": "2"})
    transport, seen = answering(busy, httpx.ReadError("gone"), (201, turn))
    with Client(transport=transport) as service:
        assert service.append("c1", "user", "Hello.").id == "t0"  # keys that are not known are passed over
    assert pauses == [2.0, 0.2]
    assert len({request.headers["idempotency-key"] for request in seen}) == 1
    transport, seen = answering(busy, busy)
    with Client(transport=transport, retries=1) as service, pytest.raises(ServiceError) as caught:
        service.info()
    assert (caught.value.status, caught.value.code, caught.value.retry_after, len(seen)) == (503, "queue_full", 2.0, 2)
    transport, seen = answering(httpx.ReadError("gone"))
    with Client(transport=transport) as service, pytest.raises(ServiceError, match="did not answer"):
        service.feedback("c1", "dispute")  # a vote sent twice would count twice
    assert len(seen) == 1


def test_half_a_character_is_sent_as_it_is() -> None:
    transport, seen = answering((409, refusal("conversation_ended")), (409, refusal("conversation_ended")))

    async def again() -> None:
        async with AsyncClient(transport=transport) as service:
            await service.step("user", "a\ud800")

    with Client(transport=transport) as service, pytest.raises(ConversationEnded):  # also without `ended_at`
        service.step("user", "a\ud800")
    with pytest.raises(ConversationEnded):
        asyncio.run(again())
    for request in seen:
        assert request.headers["content-type"] == "application/json"
        assert json.loads(request.content)["message"]["content"] == "a\ud800"


def test_a_conversation_that_is_no_id_goes_nowhere() -> None:
    transport, seen = answering()
    with Client(transport=transport) as service, pytest.raises(StateError, match="no id"):
        service.tree("../../info")
    assert seen == []


def test_both_clients_have_the_same_methods() -> None:
    def methods(kind: type) -> dict[str, Any]:
        return {name: inspect.signature(value) for name, value in vars(kind).items() if inspect.isfunction(value) and not name.startswith("_")}

    assert methods(Client) == methods(AsyncClient)


def test_the_client_needs_nothing_of_the_server() -> None:
    code = "import sys, lastresort.client; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert loaded & {"fastapi", "starlette", "uvicorn", "sqlalchemy", "alembic", "prometheus_client", "onnxruntime", "numpy"} == set()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("from lastresort.cli import main; sys.argv = ['lastresort', 'serve']; main()", "serve needs fastapi"),
        ("from lastresort.cli import main; sys.argv = ['lastresort', 'feedback', 'export']; main()", "needs fastapi"),
        ("import lastresort.client", "lastresort.client needs httpx"),
        ("import lastresort, lastresort.cli, lastresort.conversation, lastresort.server.settings, lastresort.wire", ""),
    ],
)
def test_without_the_extra_it_is_named_and_the_core_works(code: str, words: str, tmp_path: Path) -> None:
    hidden = "('fastapi', 'uvicorn', 'starlette', 'sqlalchemy', 'alembic', 'prometheus_client', 'httpx')"
    probe = f"import sys\nfor name in {hidden}: sys.modules[name] = None\n{code}"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False, cwd=tmp_path)
    if not words:
        assert (done.returncode, done.stderr) == (0, "")
        return
    assert done.returncode == 1
    assert "pip install 'lastresort[serve]'" in done.stderr
    if "fastapi" not in words:
        assert words in done.stderr


def test_settings_that_are_wrong_stop_the_start(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("mode: enforce\nqueue: 3\n")
    for options, words in (
        (["--host", "0.0.0.0"], "api_key_file"),
        (["--settings", "s.yaml"], "queue: found this key"),
        (["--store", "x"], "store: found no URL"),
    ):
        command = [sys.executable, "-m", "lastresort", "serve", "--port", "0", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120)
        assert done.returncode == 1
        assert words in done.stderr
        assert "Traceback" not in done.stderr
