"""Scores and decisions over HTTP: equal to the library's, signed states, OpenAI's shape, limits, keys, health, metrics, logs."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from lastresort.config import parse_settings
from lastresort.conversation import Monitor
from lastresort.errors import ConfigError
from lastresort.server.engine import CATEGORIES
from lastresort.server.gate import OPEN
from lastresort.server.settings import ServerSettings
from lastresort.server.telemetry import LOGGER, JsonLines
from lastresort.server.tokens import Keys, StateSigner
from lastresort.types import Dialogue, TurnScore

from .conftest import Process, Serve

SECRET = "xyzzy plugh"
"""What somebody wrote; it must stand in no error, log or metric."""


def said(dialogue: Dialogue) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in dialogue.messages]


def error(response: Any, status: int, code: str) -> dict[str, Any]:
    """The error of a response, which never repeats what somebody wrote."""
    assert response.status_code == status, response.text
    assert SECRET not in response.text
    found: dict[str, Any] = response.json()["error"]
    assert found["code"] == code
    assert found["message"]
    return found


def counted(client: TestClient, name: str) -> float:
    """The sum of a metric over all its labels."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return sum(sample.value for family in families for sample in family.samples if sample.name == name)


def plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("name", ["persistent-abuse", "persistent-abuse-crisis", "end-request-yes", "ordinary-help"])
def test_a_whole_conversation_is_decided_as_the_library_decides(client: TestClient, monitor: Monitor, sample: dict[str, Dialogue], name: str) -> None:
    expected = plain(asdict(monitor.score(sample[name])))
    answer = client.post("/v1/decide", json={"messages": said(sample[name])}).json()
    assert answer["turns"] == expected["turns"]
    assert (answer["call"], answer["ended_at"], answer["model"], answer["mode"]) == (expected["call"], expected["ended_at"], monitor.model, "enforce")


def test_one_message_at_a_time_is_decided_as_all_at_once(client: TestClient, sample: dict[str, Dialogue]) -> None:
    messages = said(sample["persistent-abuse"])
    whole = client.post("/v1/decide", json={"messages": messages}).json()
    state = None
    for index, message in enumerate(messages[:11]):
        answer = client.post("/v1/decide", json={"message": message, "state": state}).json()
        assert answer["turns"] == [whole["turns"][index]]
        assert answer["decision"] == whole["turns"][index]["decision"]
        before, state = state, answer["state"]
    assert (answer["call"], answer["ended_at"]) == ("end", 10)
    found = error(client.post("/v1/decide", json={"message": messages[11], "state": state}), 409, "conversation_ended")
    assert found["ended_at"] == 10
    assert [way["do"] for way in found["instead"]] == ["branch", "new"]
    assert client.post("/v1/decide", json={"message": {"role": "user", "content": "Sorry."}, "state": before}).status_code == 200  # a branch


def test_scores_alone(client: TestClient, monitor: Monitor, sample: dict[str, Dialogue]) -> None:
    dialogue = sample["persistent-abuse"]
    answer = client.post("/v1/score", json={"messages": said(dialogue)}).json()
    expected = [{name: value for name, value in plain(asdict(turn)).items() if name != "decision"} for turn in monitor.score(dialogue).turns]
    assert answer["turns"] == expected


@pytest.mark.parametrize(("mode", "advice", "withheld"), [("shadow", "none", "redirect"), ("advise", "redirect", None), ("enforce", "redirect", None)])
def test_the_mode_says_what_reaches_the_host(serve: Serve, sample: dict[str, Dialogue], mode: str, advice: str, withheld: str | None) -> None:
    answer = serve(mode=mode).post("/v1/decide", json={"messages": said(sample["persistent-abuse"])}).json()
    decision = answer["turns"][2]["decision"]
    assert (answer["mode"], decision["advice"], decision["would_advise"]) == (mode, advice, withheld)
    assert answer["call"] == ("end" if mode == "enforce" else "continue")
    assert answer["turns"][10]["decision"]["would_call"] == (None if mode == "enforce" else "end")


def test_carried_roles_have_no_decision(client: TestClient) -> None:
    answer = client.post("/v1/decide", json={"message": {"role": "system", "content": "Be kind."}}).json()
    assert answer["turns"] == [{"index": 0, "role": "system", "scores": {}, "windows": 0, "decision": None}]
    assert answer["decision"]["reason"] == "not_scored"


# states


def test_a_forged_foreign_or_old_state_is_refused(client: TestClient, serve: Serve) -> None:
    message = {"role": "user", "content": SECRET}
    state = client.post("/v1/decide", json={"message": message}).json()["state"]
    version, payload, mac = state.split(".")
    other = serve().post("/v1/decide", json={"message": message}).json()["state"]  # without a store each service has a secret of its own
    changed = base64.urlsafe_b64encode(base64.urlsafe_b64decode(payload + "==").replace(b'"turns": 1', b'"turns": 2')).decode().rstrip("=")
    assert changed != payload
    for forged in (f"{version}.{changed}.{mac}", f"{version}.{payload}.{mac[:-2]}", f"{version}.{payload}", "", "ü.x.y", other, state[1:]):
        error(client.post("/v1/decide", json={"message": message, "state": forged}), 409, "state_forged")
        error(client.post("/v1/score", json={"message": message, "state": forged}), 409, "state_forged")
    error(client.post("/v1/decide", json={"message": message, "state": f"ls9.{payload}.{mac}"}), 409, "state_version")


def test_a_state_of_another_model_is_refused(serve: Serve, monitor: Monitor, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"0123456789abcdef0123456789abcdef\n")
    client = serve(state_key_file=str(secret))
    foreign = StateSigner(secret.read_bytes().strip(), "f" * 64).write(monitor.start())
    error(client.post("/v1/decide", json={"message": {"role": "user", "content": "Hi"}, "state": foreign}), 409, "state_foreign")
    own = StateSigner(secret.read_bytes().strip(), monitor.scorer.manifest.digest).write(monitor.start())
    assert client.post("/v1/decide", json={"message": {"role": "user", "content": "Hi"}, "state": own}).status_code == 200


# requests that are not valid, and limits

TURN = {"role": "user", "content": SECRET}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, ""),
        ({"messages": []}, ""),
        ({"messages": [TURN], "message": TURN}, ""),
        ({"messages": [TURN], "state": "x"}, ""),
        ({"messages": [{"role": SECRET, "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages.0.content"),
        ({"messages": [{**TURN, "name": SECRET}]}, "messages.0.name"),
        ({"messages": [{**TURN, SECRET: 1}]}, "messages.0.…"),
        ({"messages": SECRET}, "messages"),
        ([SECRET], ""),
    ],
)
def test_what_is_not_valid_is_named_without_repeating_it(client: TestClient, body: Any, field: str) -> None:
    assert error(client.post("/v1/decide", json=body), 422, "invalid_request")["field"] == field


def test_no_json_is_said_so(client: TestClient) -> None:
    headers = {"Content-Type": "application/json"}
    error(client.post("/v1/decide", content=b'{"messages": "xyzzy plugh', headers=headers), 422, "invalid_json")
    error(client.post("/v1/decide", content=b'"\xff"', headers=headers), 400, "bad_request")
    assert client.post("/v1/decide", content=b'{"message": {"role": "user", "content": "\\ud800"}}', headers=headers).status_code == 200  # any string is scored
    error(client.post("/v1/decide", content=json.dumps({"message": TURN}), headers={"Content-Type": "text/plain"}), 422, "invalid_request")
    error(client.post("/v1/decide"), 422, "invalid_request")


def test_unknown_paths_and_methods(client: TestClient) -> None:
    error(client.get("/nowhere"), 404, "not_found")
    error(client.get("/v1/decide"), 405, "method_not_allowed")


def test_limits_of_a_request(serve: Serve) -> None:
    client = serve(max_body_bytes=2000, max_messages=2, max_characters=100)
    message = {"role": "user", "content": "x" * 50}
    assert client.post("/v1/decide", json={"messages": [message] * 2}).status_code == 200
    error(client.post("/v1/decide", json={"messages": [{"role": "user", "content": ""}] * 3}), 422, "too_many_messages")
    error(client.post("/v1/decide", json={"messages": [message, {"role": "user", "content": "x" * 51}]}), 422, "too_many_characters")
    error(client.post("/v1/moderations", json={"input": ["x" * 101]}), 422, "too_many_characters")
    error(client.post("/v1/decide", json={"message": {"role": "user", "content": "x" * 2000}}), 413, "body_too_large")

    def chunks() -> Iterator[bytes]:  # without a length
        yield from (b"x" * 500 for _ in range(5))

    error(client.post("/v1/decide", content=chunks(), headers={"Content-Type": "application/json"}), 413, "body_too_large")


class Stuck:
    """Holds the service at work until let go."""

    def __init__(self, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.let_go = threading.Semaphore(0), threading.Event()
        engine = client.app.state.service.engine  # type: ignore[attr-defined]
        decide = engine.decide

        def slowly(*arguments: Any) -> Any:
            self.begun.release()
            assert self.let_go.wait(60)
            return decide(*arguments)

        monkeypatch.setattr(engine, "decide", slowly)


def test_a_full_queue_refuses_at_once_and_goes_on_afterwards(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    client = serve(threads=1, queue_size=0)
    client.portal.call(asyncio.shield, client.app.state.warming)  # type: ignore[union-attr,attr-defined]
    stuck, body = Stuck(client, monkeypatch), {"message": {"role": "user", "content": "Hi"}}
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/v1/decide", json=body)
        assert stuck.begun.acquire(timeout=60)
        refused = client.post("/v1/decide", json=body)
        assert client.get("/health/live").status_code == 200
        stuck.let_go.set()
        assert first.result().status_code == 200
    error(refused, 503, "queue_full")
    assert int(refused.headers["retry-after"]) >= 1
    assert client.post("/v1/decide", json=body).status_code == 200


def test_one_key_cannot_fill_the_queue(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    client = serve(max_in_flight_per_key=1)
    stuck, body = Stuck(client, monkeypatch), {"message": {"role": "user", "content": "Hi"}}
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/v1/decide", json=body)
        assert stuck.begun.acquire(timeout=60)
        refused = client.post("/v1/decide", json=body)
        stuck.let_go.set()
        assert first.result().status_code == 200
    error(refused, 429, "too_many_requests")
    assert refused.headers["retry-after"] == "1"
    assert client.post("/v1/decide", json=body).status_code == 200


def test_a_request_that_takes_too_long_is_answered(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    client = serve(time_limit=0.05)
    stuck = Stuck(client, monkeypatch)
    error(client.post("/v1/decide", json={"message": {"role": "user", "content": "Hi"}}), 503, "time_limit")
    stuck.let_go.set()


def test_a_turn_that_cannot_be_scored_is_an_error_and_no_low_score(client: TestClient, monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise ValueError(SECRET)

    monkeypatch.setattr(monitor.scorer, "_run", broken)
    error(client.post("/v1/decide", json={"message": TURN}), 500, "internal_error")
    error(client.post("/v1/moderations", json={"input": SECRET}), 500, "internal_error")


# keys and hosts


def test_a_key_is_asked_for(serve: Serve, key_file: str) -> None:
    client = serve(api_key_file=key_file)
    for headers in ({}, {"Authorization": "Bearer key-of-the-chat-012"}, {"Authorization": "Basic key-of-the-chat-0123"}, {"X-API-Key": ""}):
        for path in ("/info", "/metrics", "/v1/conversations/x"):
            found = client.get(path, headers=headers)
            error(found, 401, "unauthorized")
            assert found.headers["www-authenticate"] == "Bearer"
    for headers in ({"Authorization": "Bearer key-of-the-chat-0123"}, {"authorization": "bearer key-of-the-page-4567"}, {"X-API-Key": "key-of-the-page-4567"}):
        assert client.get("/info", headers=headers).status_code == 200
    assert client.get("/health/live").status_code == 200
    assert client.get("/docs").status_code == 200


def test_every_key_is_compared(key_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keys, seen = Keys.read(key_file), []

    def compare(a: bytes, b: bytes) -> bool:
        seen.append((len(a), len(b)))
        return a == b

    monkeypatch.setattr("lastresort.server.tokens.hmac.compare_digest", compare)
    assert keys.find("key-of-the-chat-0123") == 0
    assert keys.find("k") is None
    assert keys.find(None) is None
    assert seen == [(32, 32)] * 6


@pytest.mark.parametrize("text", ["", "# nothing\n", "short\n", "a key with blanks in it\n"])
def test_a_key_file_without_good_keys_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(ConfigError, match="expected") as caught:
        Keys.read(str(path))
    assert "short" not in str(caught.value)


def test_without_keys_only_names_of_this_machine_are_served(client: TestClient) -> None:
    for host in ("localhost:8000", "LocalHost", "127.0.0.1", "[::1]:80", "[::1]"):
        assert client.get("/info", headers={"Host": host}).status_code == 200
    for host in ("evil.example", "127.0.0.1.evil.example:8000", ""):
        error(client.get("/info", headers={"Host": host}), 421, "wrong_host")
    for origin in ("https://evil.example", "null"):
        error(client.post("/v1/conversations", headers={"Origin": origin}), 421, "wrong_host")
    assert client.get("/info", headers={"Origin": "http://127.0.0.1:8000"}).status_code == 200


def test_the_own_address_is_served_and_anonymous_takes_any_name(serve: Serve) -> None:
    own, open_ = serve(host="127.0.0.2"), serve(anonymous=True)
    assert own.get("/info", headers={"Host": "127.0.0.2:8000"}).status_code == 200
    error(own.get("/info", headers={"Host": "evil.example"}), 421, "wrong_host")
    assert open_.get("/info", headers={"Host": "chat.example", "Origin": "https://chat.example"}).status_code == 200


@pytest.mark.parametrize(
    "values",
    [
        {"host": "0.0.0.0"},
        {"mode": "off"},
        {"workers": 0},
        {"workers": 2, "store": "none"},
        {"queue_size": -1},
        {"time_limit": 0},
        {"port": 70000},
        {"keep_days": 0},
        {"max_messages": "many"},
        {"colour": "red"},
    ],
)
def test_settings_are_strict(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"test: {next(iter(values))}|test: .*expected"):
        parse_settings(ServerSettings, values, where="test")


def test_beyond_loopback_needs_keys() -> None:
    assert ServerSettings().loopback
    assert not parse_settings(ServerSettings, {"host": "0.0.0.0", "api_key_file": "keys"}, where="test").loopback
    assert not parse_settings(ServerSettings, {"host": "example.org", "anonymous": True}, where="test").loopback


# moderations


def test_moderations_have_openais_shape(client: TestClient, monitor: Monitor, sample: dict[str, Dialogue]) -> None:
    text = sample["persistent-abuse"].messages[2].content
    score, _ = monitor.scorer.score("user", text, monitor.scorer.initial_memory())
    answer = client.post("/v1/moderations", json={"input": text, "model": "omni-moderation-latest"}).json()
    (result,) = answer["results"]
    assert result["category_scores"]["lastresort/assistant_abuse"] == pytest.approx(score.scores["assistant_abuse"])
    assert result["category_scores"]["harassment"] == result["category_scores"]["lastresort/assistant_abuse"]
    assert result["flagged"]
    assert result["category_applied_input_types"]["sexual"] == []  # the tiny model has no such label
    assert result["category_applied_input_types"]["harassment"] == ["text"]
    assert set(result["categories"]) == set(result["category_scores"]) == set(result["category_applied_input_types"])


def test_flagged_says_whether_any_of_openais_categories_is(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CATEGORIES, "violence", ("end_request",))  # a signal: flags nothing by itself
    manifest = client.app.state.service.monitor.scorer.manifest  # type: ignore[attr-defined]
    labels = {label.name: label for label in manifest.labels_of("user")}
    assert labels["end_request"].role == "signal"
    for high in (None, "end_request"):
        score = TurnScore(0, "user", {name: float(name == high) for name in labels})
        result = client.app.state.service.engine._moderated(score)  # type: ignore[attr-defined]
        assert (result.flagged, result.categories["violence"]) == (high is not None,) * 2


def test_moderations_of_several_inputs(client: TestClient) -> None:
    results = client.post("/v1/moderations", json={"input": ["Hello.", "", "Thanks."]}).json()["results"]
    assert len(results) == 3
    parts = {"input": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo."}]}
    assert len(client.post("/v1/moderations", json=parts).json()["results"]) == 1
    image = {"input": [{"type": "image_url", "image_url": {"url": "data:"}}]}
    error(client.post("/v1/moderations", json=image), 422, "unsupported_input")
    error(client.post("/v1/moderations", json={"input": []}), 422, "invalid_request")
    assert error(client.post("/v1/moderations", json={"input": 3}), 422, "invalid_request")["field"].startswith("input")


def test_the_openai_client_and_a_process_of_its_own(start: Callable[..., Process], tmp_path: Path, sample: dict[str, Dialogue]) -> None:
    keys = tmp_path / "keys"
    keys.write_text("key-of-the-chat-0123\n")
    served = start("--store", "none", "--api-key-file", str(keys))
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="key-of-the-chat-0123", max_retries=0) as client:
        answer = client.moderations.create(input=["Hello.", sample["persistent-abuse"].messages[2].content])
        assert answer.id.startswith("modr-")
        assert [result.flagged for result in answer.results] == [False, True]
        assert answer.results[1].categories.harassment is True
        assert answer.results[1].category_scores.harassment > 0.3
        assert answer.results[1].categories.sexual_minors is False
        assert answer.results[1].category_applied_input_types.harassment == ["text"]
        with pytest.raises(openai.UnprocessableEntityError, match="expected") as caught:
            client.moderations.create(input=[])
        assert caught.value.code == "invalid_request"
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="wrong", max_retries=0) as stranger, pytest.raises(openai.AuthenticationError):
        stranger.moderations.create(input=SECRET)
    assert httpx.get(f"{served.url}/health/ready").json() == {"status": "ready"}
    assert served.stop() in (0, -2, 130)
    assert all("no JSON" not in line["event"] for line in served.lines), served.lines
    assert SECRET not in json.dumps(served.lines)
    requests = [line for line in served.lines if line["event"] == "request"]
    assert {(line["route"], line["status"], line["code"]) for line in requests} >= {("/v1/moderations", 200, None), ("unmatched", 401, "unauthorized")}


# health, metrics, logs, pages


def test_ready_only_after_warm_up(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    let_go = threading.Event()
    monkeypatch.setattr("lastresort.server.engine.Engine.warm_up", lambda self: let_go.wait(60))
    client = serve()
    assert client.get("/health/live").json() == {"status": "live"}
    error(client.get("/health/ready"), 503, "not_ready")
    let_go.set()
    client.portal.call(asyncio.shield, client.app.state.warming)  # type: ignore[union-attr,attr-defined]
    assert client.get("/health/ready").json() == {"status": "ready"}


def test_metrics_count_decisions_scores_and_refusals(client: TestClient, sample: dict[str, Dialogue]) -> None:
    client.post("/v1/decide", json={"messages": said(sample["persistent-abuse"])})
    client.post("/v1/decide", json={"message": TURN, "state": "x"})
    client.get(f"/v1/conversations/{'c' + '0' * 32}")
    page = client.get("/metrics").text
    values = {(sample.name, *sorted(sample.labels.items())): sample.value for family in text_string_to_metric_families(page) for sample in family.samples}

    def value(name: str, **labels: str) -> float:
        return values[(name, *sorted(labels.items()))]

    assert value("lastresort_decisions_total", call="end", would_call="", advice="none", reason="harm_after_warning") == 1
    assert value("lastresort_decisions_total", call="continue", would_call="", advice="warn", reason="warning_due") == 1
    assert value("lastresort_score_count", label="assistant_abuse") == 6
    assert value("lastresort_refused_total", code="state_forged") == 1
    assert value("lastresort_request_seconds_count", method="POST", route="/v1/decide", status="200") == 1
    assert value("lastresort_request_seconds_count", method="GET", route="/v1/conversations/{conversation}", status="501") == 1
    assert "0" * 32 not in page
    assert SECRET not in page


def test_scores_alone_are_no_decisions(client: TestClient, sample: dict[str, Dialogue]) -> None:
    body = {"messages": [{"role": "system", "content": "Be kind."}, *said(sample["ordinary-help"])[:2]]}
    client.post("/v1/score", json=body)
    assert counted(client, "lastresort_decisions_total") == 0
    client.post("/v1/decide", json=body)
    assert counted(client, "lastresort_decisions_total") == 3
    assert counted(client, "lastresort_turn_seconds_count") == 6


def test_logs_hold_no_text_even_of_a_crash(client: TestClient, monitor: Monitor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: Any) -> Any:
        raise ValueError(SECRET)

    caplog.set_level(logging.INFO, LOGGER)
    monkeypatch.setattr(monitor.scorer, "_run", broken)
    answer = client.post("/v1/decide", json={"message": TURN}, headers={"X-Request-ID": "me-1"})
    assert answer.headers["x-request-id"] == "me-1"
    error(answer, 500, "internal_error")
    lines = [json.loads(JsonLines().format(record)) for record in caplog.records if record.name == LOGGER]
    crash = next(line for line in lines if line["event"] == "crash")
    assert (crash["exception"], crash["request_id"]) == ("ValueError", "me-1")
    assert crash["at"][-1].startswith("test_stateless.py:")
    assert {"route": "/v1/decide", "status": 500, "code": "internal_error", "method": "POST"}.items() <= next(
        line for line in lines if line["event"] == "request"
    ).items()
    assert SECRET not in json.dumps(lines)
    assert SECRET not in caplog.text  # as another server's own format would write it


def test_info_says_what_runs_here(client: TestClient, monitor: Monitor) -> None:
    info = client.get("/info").json()
    assert (info["model"], info["mode"], info["store"], info["certificate"]) == (monitor.model, "enforce", None, None)
    assert {label["name"] for label in info["labels"]} == {label.name for label in monitor.scorer.manifest.labels}
    assert info["thresholds"]["redirection"] == monitor.policy.config.threshold("redirection").enter
    assert set(info["thresholds"]) == {*monitor.policy.config.user_labels, *monitor.policy.config.assistant_labels}


def test_the_api_is_described_without_outside_requests(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    assert {"/v1/score", "/v1/decide", "/v1/moderations", "/v1/conversations", "/health/ready", "/metrics", "/info"} <= set(schema["paths"])
    assert {kind["type"] for kind in schema["components"]["securitySchemes"].values()} == {"http", "apiKey"}
    for path, methods in schema["paths"].items():
        for operation in methods.values():
            assert ("security" in operation) == (path not in OPEN)
            assert "421" in operation["responses"]
    assert {"200", "201", "400", "404", "408", "500", "501"} <= set(schema["paths"]["/v1/conversations/{conversation}/turns"]["post"]["responses"])
    page = client.get("/docs")
    assert "POST /v1/decide" in page.text
    assert "<script" not in page.text
    assert "http" not in page.text.replace("httpx", "").lower().split("<style>")[1].split("</style>")[0]


def test_two_workers_share_states_and_metrics(start: Callable[..., Process], tmp_path: Path) -> None:
    served = start("--workers", "2", "--store", f"sqlite:///{tmp_path / 'a.db'}")
    state = None
    for index in range(12):  # each on a connection of its own, so that both workers are likely to be met
        answer = httpx.post(f"{served.url}/v1/decide", json={"message": {"role": "user", "content": "Hello."}, "state": state})
        assert answer.json()["turns"][0]["index"] == index
        state = answer.json()["state"]
        page = httpx.get(f"{served.url}/metrics").text
        families = {sample.name: sample.value for family in text_string_to_metric_families(page) for sample in family.samples}
        assert families["lastresort_turn_seconds_count"] == index + 1
    served.stop()
    assert all("no JSON" not in line["event"] for line in served.lines), served.lines


def test_the_page_about_the_service_names_every_endpoint_and_code(client: TestClient, root: Path) -> None:
    folder = root / "src" / "lastresort" / "server"
    page = (folder / "README.md").read_text(encoding="utf-8")
    paths = [path.replace("{conversation}", "$ID").replace("{turn}", "$TURN") for path in client.get("/openapi.json").json()["paths"]]
    assert [path for path in paths if path not in page] == []
    source = "".join(file.read_text(encoding="utf-8") for file in folder.glob("*.py"))
    codes = set(re.findall(r'(?:ApiError\(\s*\d+, |busy\()"(\w+)"', source))
    assert {"queue_full", "state_forged", "conversation_ended"} <= codes
    assert sorted(code for code in codes if f"`{code}`" not in page) == []
