"""Stored conversations: trees, ends and the ways on, idempotency, concurrency, feedback, text only if asked for. On SQLite and on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import math
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient

from lastresort.conversation import Monitor
from lastresort.errors import ConversationEnded
from lastresort.server import feedback
from lastresort.server.store import Store, database_url, metadata
from lastresort.tree import ConversationTree
from lastresort.types import Dialogue

from .conftest import Serve
from .test_stateless import SECRET, counted, error, plain, said


@pytest.fixture
def client(serve: Serve, store_url: str) -> TestClient:
    """A service with a store that keeps no text."""
    return serve(store=store_url)


def begin(client: TestClient) -> str:
    answer = client.post("/v1/conversations")
    assert answer.status_code == 201
    name: str = answer.json()["id"]
    return name


def add(client: TestClient, conversation: str, role: str, content: str, *, key: str | None = None, **more: Any) -> Any:
    headers = {} if key is None else {"Idempotency-Key": key}
    return client.post(f"/v1/conversations/{conversation}/turns", json={"role": role, "content": content, **more}, headers=headers)


def tree(client: TestClient, conversation: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/v1/conversations/{conversation}").json()
    return found


def play(client: TestClient, dialogue: Dialogue, count: int) -> str:
    """A conversation with the first `count` messages of a dialogue."""
    name = begin(client)
    for message in said(dialogue)[:count]:
        assert add(client, name, **message).status_code == 201  # type: ignore[arg-type]
    return name


def rows(url: str, table: str) -> int:
    engine = sa.create_engine(database_url(url))
    with engine.connect() as connection:
        count = connection.execute(sa.select(sa.func.count()).select_from(metadata.tables[table])).scalar_one()
    engine.dispose()
    return int(count)


def test_a_new_conversation_is_empty(client: TestClient, monitor: Monitor) -> None:
    name = begin(client)
    found = tree(client, name)
    assert (found["id"], found["model"], found["mode"], found["head"], found["turns"]) == (name, monitor.model, "enforce", None, [])


def test_any_course_of_branches_is_that_of_the_librarys_tree(client: TestClient, monitor: Monitor, sample: dict[str, Dialogue]) -> None:
    picks = random.Random(7)
    texts = [(message.role, message.content) for name in ("persistent-abuse", "persistent-abuse-crisis") for message in sample[name].messages]
    mirror, name, ids = ConversationTree(monitor), begin(client), {}
    place = 0
    for _ in range(40):
        parent = picks.choice(["newest", "newest", "newest", *ids, None])
        role, content = texts[place % len(texts)]
        place += 1
        answer, before = add(client, name, role, content, parent=parent), mirror.head if parent == "newest" else ids.get(parent)
        if mirror.state(before).ended:
            with pytest.raises(ConversationEnded) as ended:
                mirror.follow(before, role, content)
            assert error(answer, 409, "conversation_ended")["ended_at"] == ended.value.ended_at
            continue
        turn = mirror.follow(before, role, content)
        found = answer.json()
        ids[found["id"]] = turn.id
        assert found["decision"] == plain(asdict(turn.decision))
        assert turn.state.score is not None
        assert found["scores"] == turn.state.score.scores
        assert (found["ended"], found["index"]) == (turn.ended, turn.state.turns - 1)
        assert (None if turn.parent is None else turn.parent) == ids.get(found["parent"])
    stored = tree(client, name)
    assert [ids[turn["id"]] for turn in stored["turns"]] == [turn.id for turn in mirror]
    assert ids[stored["head"]] == mirror.head


def test_after_an_end_the_ways_on_are_named_and_work(client: TestClient, sample: dict[str, Dialogue]) -> None:
    name = play(client, sample["persistent-abuse"], 11)
    found = error(add(client, name, "user", SECRET), 409, "conversation_ended")
    assert (found["ended_at"], found["turn"]) == (10, "t10")
    branch, new = found["instead"]
    assert (branch["do"], branch["parent"], new["do"]) == ("branch", "t9", "new")
    edited = add(client, name, "user", "I am sorry. Could you help me with my CV?", parent=branch["parent"])
    assert edited.status_code == 201
    assert (edited.json()["parent"], edited.json()["ended"]) == ("t9", False)
    assert add(client, name, "assistant", "Of course.").json()["parent"] == edited.json()["id"]
    error(add(client, name, "user", "x", parent="t10"), 409, "conversation_ended")
    assert client.post("/v1/conversations").status_code == 201


def test_what_does_not_exist(client: TestClient) -> None:
    name, unknown = begin(client), "c" + "0" * 32
    for wrong in (unknown, "x", "%00", "..", "c" * 500):
        assert client.get(f"/v1/conversations/{wrong}").status_code in (404, 200 if wrong == ".." else 404)
    error(add(client, unknown, "user", SECRET), 404, "no_such_conversation")
    error(client.delete(f"/v1/conversations/{unknown}"), 404, "no_such_conversation")
    for parent in ("t0", "t999999999", "x", "t00", "\x00", "t-1"):
        error(add(client, name, "user", SECRET, parent=parent), 404, "no_such_turn")
    assert error(add(client, name, "robot", SECRET), 422, "invalid_request")["field"] == "role"
    assert tree(client, name)["turns"] == []


def test_a_turn_that_cannot_be_scored_is_not_stored(client: TestClient, monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    name = begin(client)

    def broken(*_: Any) -> Any:
        raise ValueError(SECRET)

    with monkeypatch.context() as patch:
        patch.setattr(monitor.scorer, "_run", broken)
        error(add(client, name, "user", SECRET, key="k"), 500, "internal_error")
    assert tree(client, name)["turns"] == []
    assert add(client, name, "user", SECRET, key="k").json()["id"] == "t0"


# idempotency and concurrency


def test_the_same_key_is_answered_the_same(client: TestClient) -> None:
    name = begin(client)
    first = add(client, name, "user", "Hello.", key="k-1")
    add(client, name, "assistant", "Hello!")
    again = add(client, name, "user", "Hello.", key="k-1")
    assert (first.status_code, again.status_code, again.headers["idempotent-replayed"]) == (201, 200, "true")
    assert again.json() == first.json()
    error(add(client, name, "user", SECRET, key="k-1"), 422, "idempotency_mismatch")
    error(add(client, name, "user", "Hello.", key="k-1", parent=None), 422, "idempotency_mismatch")
    error(add(client, name, "user", SECRET, key="with blank"), 422, "invalid_request")
    assert add(client, begin(client), "user", SECRET, key="k-1").status_code == 201  # keys belong to a conversation
    assert len(tree(client, name)["turns"]) == 2


def test_the_slower_of_two_same_requests_gets_the_quicker_ones_answer(client: TestClient, sample: dict[str, Dialogue], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the quicker one ended the conversation, or took up the advice, after the slower one had looked for an answer."""
    parent = Store.parent

    def too_early() -> None:
        keys: list[Any] = [None]  # as if the key had not been answered yet
        monkeypatch.setattr(Store, "parent", lambda store, name, turn, digest, key: parent(store, name, turn, digest, keys.pop() if keys else key))

    messages = said(sample["persistent-abuse"])
    name = play(client, sample["persistent-abuse"], 9)
    warned = acknowledge(client, name, "t8", "warned", key="act")
    too_early()
    again = acknowledge(client, name, "t8", "warned", key="act")
    assert (warned.status_code, again.status_code, again.json()) == (200, 200, warned.json())
    monkeypatch.setattr(Store, "parent", parent)
    add(client, name, **messages[9])  # type: ignore[arg-type]
    end = add(client, name, **messages[10], key="end")  # type: ignore[arg-type]
    assert end.json()["ended"]
    too_early()
    again = add(client, name, **messages[10], key="end")  # type: ignore[arg-type]
    assert (again.status_code, again.json()) == (200, end.json())
    too_early()
    error(add(client, name, **messages[10], key="another"), 409, "conversation_ended")  # type: ignore[arg-type]


def test_the_same_key_begins_one_conversation(client: TestClient) -> None:
    answers = [client.post("/v1/conversations", headers={"Idempotency-Key": "begin"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 200]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    client.delete(f"/v1/conversations/{answers[0].json()['id']}")
    assert client.post("/v1/conversations", headers={"Idempotency-Key": "begin"}).status_code == 201  # deleted with its conversation


def test_a_key_of_another_caller_begins_another_conversation(serve: Serve, store_url: str, key_file: str) -> None:
    client = serve(store=store_url, api_key_file=key_file)
    names = []
    for key in ("key-of-the-chat-0123", "key-of-the-page-4567", "key-of-the-chat-0123"):
        answer = client.post("/v1/conversations", headers={"Idempotency-Key": "begin", "X-API-Key": key})
        names.append((answer.status_code, answer.json()["id"]))
    assert [status for status, _ in names] == [201, 201, 200]
    assert names[0][1] == names[2][1] != names[1][1]


def test_a_used_key_does_not_make_a_conversation_of_what_is_none(client: TestClient) -> None:
    client.post("/v1/conversations", headers={"Idempotency-Key": "used"})
    for wrong in ("new", "%00"):
        error(add(client, wrong, "user", SECRET, key="used"), 404, "no_such_conversation")
        error(acknowledge(client, wrong, "t0", "warned", key="used"), 404, "no_such_conversation")


def together(count: int, work: Any) -> list[Any]:
    """Calls `work(number)` in `count` threads at the same time."""
    gate = threading.Barrier(count)

    def one(number: int) -> Any:
        gate.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def test_turns_at_the_same_time_become_siblings(client: TestClient) -> None:
    name = begin(client)
    add(client, name, "user", "Hello.")
    answers = together(8, lambda number: add(client, name, "assistant", f"Hello {number}.", parent="t0"))
    assert [answer.status_code for answer in answers] == [201] * 8
    assert len({answer.json()["id"] for answer in answers}) == 8
    turns = tree(client, name)["turns"]
    assert [turn["id"] for turn in turns] == [f"t{number}" for number in range(9)]
    assert [turn["parent"] for turn in turns[1:]] == ["t0"] * 8
    assert {json.dumps(turn) for turn in turns[1:]} == {json.dumps(answer.json()) for answer in answers}


def test_the_same_key_at_the_same_time_is_one_turn(client: TestClient) -> None:
    name = begin(client)
    answers = together(6, lambda _: add(client, name, "user", "Hello.", key="once"))
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [201]
    assert len({json.dumps(answer.json()) for answer in answers}) == 1
    assert len(tree(client, name)["turns"]) == 1


def test_the_same_key_at_the_same_time_is_one_conversation(client: TestClient) -> None:
    answers = together(6, lambda _: client.post("/v1/conversations", headers={"Idempotency-Key": "once"}))
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1


# what the host says it did


def acknowledge(client: TestClient, conversation: str, turn: str, act: str, *, key: str | None = None) -> Any:
    headers = {} if key is None else {"Idempotency-Key": key}
    return client.post(f"/v1/conversations/{conversation}/turns/{turn}/acknowledge", json={"act": act}, headers=headers)


def test_a_warning_that_the_host_gave_counts_as_in_the_librarys_tree(client: TestClient, monitor: Monitor, sample: dict[str, Dialogue]) -> None:
    dialogue, mirror = sample["persistent-abuse"], ConversationTree(monitor)
    name = play(client, dialogue, 9)
    for message in dialogue.messages[:9]:
        mirror.append(message.role, message.content)
    warned = acknowledge(client, name, "t8", "warned")
    assert (warned.status_code, warned.json()["acts"]) == (200, ["warned"])
    assert warned.json()["decision"] == plain(asdict(mirror.acknowledge("warned").decision))
    assert tree(client, name)["turns"][8] == warned.json()
    found = add(client, name, "user", dialogue.messages[10].content)  # no assistant turn between
    expected = mirror.append("user", dialogue.messages[10].content)
    assert (found.json()["ended"], expected.ended) == (True, True)
    assert found.json()["decision"] == plain(asdict(expected.decision))
    assert (found.json()["acts"], [turn["acts"] for turn in tree(client, name)["turns"]].count([])) == ([], 9)
    error(acknowledge(client, name, found.json()["id"], "warned"), 409, "conversation_ended")
    sibling = add(client, name, "user", "I am sorry. Could you help me with my CV?", parent="t8")
    assert (sibling.status_code, sibling.json()["ended"]) == (201, False)


def test_a_yes_to_the_hosts_question_ends_and_a_no_does_not(client: TestClient, sample: dict[str, Dialogue]) -> None:
    for act, call in (("confirmed", "end"), ("declined", "continue")):
        name = play(client, sample["end-request-no"], 1)
        found = acknowledge(client, name, "t0", act).json()
        assert (found["decision"]["call"], found["ended"], found["acts"]) == (call, call == "end", [act])
        after = add(client, name, "assistant", "Goodbye.")
        if act == "declined":
            assert (after.status_code, after.json()["acts"]) == (201, [])
            continue
        assert error(after, 409, "conversation_ended")["turn"] == "t0"
        assert client.post(f"/v1/conversations/{name}/feedback", json={"verdict": "confirm"}).json()["turn"] == "t0"


def test_an_act_without_an_open_advice_is_refused_and_changes_nothing(client: TestClient, serve: Serve, sample: dict[str, Dialogue], store_url: str) -> None:
    name = play(client, sample["persistent-abuse"], 10)
    before = tree(client, name)["turns"]
    for turn, act, code in (("t9", "warned", "no_open_advice"), ("t9", "confirmed", "no_open_advice")):
        error(acknowledge(client, name, turn, act), 409, code)
    add(client, name, "user", "Hello.", parent="t7")
    add(client, name, **said(sample["persistent-abuse"])[8], parent="t7")  # type: ignore[arg-type]
    error(acknowledge(client, name, "t8", "warned"), 409, "turn_followed")
    for turn in ("t99", "newest", "x"):
        error(acknowledge(client, name, turn, "warned"), 404, "no_such_turn")
    error(acknowledge(client, "c" + "0" * 32, "t0", "warned"), 404, "no_such_conversation")
    assert error(acknowledge(client, name, "t9", SECRET), 422, "invalid_request")["field"] == "act"
    assert tree(client, name)["turns"][:10] == before
    shadow = serve(store=store_url, mode="shadow")  # the advice was withheld there, so nobody can have acted upon it
    error(acknowledge(shadow, play(shadow, sample["persistent-abuse"], 9), "t8", "warned"), 409, "no_open_advice")


def test_an_act_with_a_key_is_done_once(client: TestClient, sample: dict[str, Dialogue]) -> None:
    name = play(client, sample["persistent-abuse"], 9)
    answers = together(6, lambda _: acknowledge(client, name, "t8", "warned", key="once"))
    assert sorted((answer.status_code, answer.headers.get("idempotent-replayed", "")) for answer in answers) == [(200, "")] + [(200, "true")] * 5
    assert len({json.dumps(answer.json()) for answer in answers}) == 1
    error(acknowledge(client, name, "t8", "warned"), 409, "no_open_advice")
    error(acknowledge(client, name, "t8", "declined", key="once"), 422, "idempotency_mismatch")


def test_acts_and_turns_at_the_same_time_are_one_after_the_other(client: TestClient, sample: dict[str, Dialogue]) -> None:
    """Either the turn came first and the act is refused, or the act came first and the turn was decided with it."""
    ending = sample["persistent-abuse"].messages[10].content
    for _ in range(6):
        name = play(client, sample["persistent-abuse"], 9)
        act, turn = together(2, lambda number, name=name: add(client, name, "user", ending) if number else acknowledge(client, name, "t8", "warned"))
        assert (act.status_code, turn.status_code, turn.json()["ended"]) in [(200, 201, True), (409, 201, False)]


def test_a_turn_whose_parent_was_acknowledged_meanwhile_is_decided_again(
    client: TestClient, sample: dict[str, Dialogue], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, append = play(client, sample["persistent-abuse"], 9), Store.append
    acts: list[int] = []

    def late(self: Store, *arguments: Any) -> Any:
        if not acts:
            acts.append(acknowledge(client, name, "t8", "warned").status_code)
        return append(self, *arguments)

    monkeypatch.setattr(Store, "append", late)
    found = add(client, name, "user", sample["persistent-abuse"].messages[10].content)
    assert (acts, found.status_code, found.json()["ended"], found.json()["id"]) == ([200], 201, True, "t9")
    assert counted(client, "lastresort_decisions_total") == 9 + 1 + 1  # turns, the act, the turn: once though it was decided twice
    assert add(client, name, "user", "Hello.", parent="t7", key="k").json() == add(client, name, "user", "Hello.", parent="t7", key="k").json()
    assert counted(client, "lastresort_decisions_total") == 12


# text, deletion, retention


def test_text_is_kept_only_if_asked_for(serve: Serve, tmp_path: Path) -> None:
    for keeps in (False, True):
        path = tmp_path / f"{keeps}.db"
        client = serve(store=f"sqlite:///{path}", store_text=keeps)
        name = begin(client)
        answer = add(client, name, "user", SECRET, key="k")
        assert answer.json()["content"] == (SECRET if keeps else None)
        assert tree(client, name)["turns"] == [answer.json()]
        on_disk = b"".join(file.read_bytes() for file in tmp_path.glob(f"{keeps}.db*"))
        assert (SECRET.encode() in on_disk) == keeps
        assert client.get("/info").json()["store_text"] == keeps


@pytest.mark.parametrize("content", ["", "a\x00b", "\u00e9\U0001f600\u2028", 'quote " and \\'])
def test_any_text_is_kept_as_it_is(serve: Serve, store_url: str, content: str) -> None:
    client = serve(store=store_url, store_text=True)
    assert add(client, begin(client), "user", content).json()["content"] == content


def test_half_a_character_is_kept_as_a_mark(serve: Serve, store_url: str) -> None:
    client = serve(store=store_url, store_text=True)
    path, body = f"/v1/conversations/{begin(client)}/turns", b'{"role": "user", "content": "a\\ud83d"}'
    assert client.post(path, content=body, headers={"Content-Type": "application/json"}).json()["content"] == "a\ufffd"


def test_deletion_leaves_nothing(client: TestClient, store_url: str, sample: dict[str, Dialogue]) -> None:
    name, other = play(client, sample["persistent-abuse"], 11), begin(client)
    assert add(client, name, "user", "x", key="k", parent="t0").status_code == 201
    assert client.post(f"/v1/conversations/{name}/feedback", json={"verdict": "dispute"}).status_code == 201
    answer = client.delete(f"/v1/conversations/{name}")
    assert (answer.status_code, answer.content) == (204, b"")
    error(client.get(f"/v1/conversations/{name}"), 404, "no_such_conversation")
    error(client.delete(f"/v1/conversations/{name}"), 404, "no_such_conversation")
    assert tree(client, other)["id"] == other
    assert [rows(store_url, table) for table in ("conversation", "turn", "answer", "feedback")] == [1, 0, 0, 0]


def test_old_conversations_are_swept(serve: Serve, store_url: str) -> None:
    client = serve(store=store_url, keep_days=1)
    name = begin(client)
    add(client, name, "user", "Hello.")
    store = client.app.state.service.store  # type: ignore[attr-defined]
    updated = tree(client, name)["updated"]
    assert store.sweep(updated) == 0
    assert store.sweep(updated + 1) == 1
    error(client.get(f"/v1/conversations/{name}"), 404, "no_such_conversation")
    assert client.get("/info").json()["keep_days"] == 1


# feedback


def test_feedback_is_about_an_end(client: TestClient, sample: dict[str, Dialogue]) -> None:
    name = play(client, sample["persistent-abuse"], 10)
    path = f"/v1/conversations/{name}/feedback"
    error(client.post(path, json={"verdict": "dispute"}), 409, "nothing_ended")
    add(client, name, **said(sample["persistent-abuse"])[10])  # type: ignore[arg-type]
    add(client, name, "user", "Hello.", parent="t9")
    assert client.post(path, json={"verdict": "dispute"}).json() == {"conversation": name, "turn": "t10", "verdict": "dispute"}
    assert client.post(path, json={"verdict": "confirm", "turn": "t10"}).status_code == 201
    error(client.post(path, json={"verdict": "confirm", "turn": "t2"}), 409, "nothing_ended")
    error(client.post(path, json={"verdict": "confirm", "turn": "t99"}), 404, "no_such_turn")
    error(client.post(path, json={"verdict": SECRET}), 422, "invalid_request")


def test_feedback_becomes_labelled_dialogues(serve: Serve, store_url: str, sample: dict[str, Dialogue]) -> None:
    dialogue = sample["persistent-abuse"]
    client = serve(store=store_url, store_text=True, mode="shadow")  # also about an end that was withheld
    for verdicts in (["confirm"], ["dispute", "dispute", "confirm"], ["dispute", "confirm"]):
        path = f"/v1/conversations/{play(client, dialogue, 12)}/feedback"
        for verdict in verdicts:
            assert client.post(path, json={"verdict": verdict, "turn": "t10"}).status_code == 201
    exported = [item for item in feedback.dialogues(store_url) if item is not None]
    by_votes = {item.meta["votes"]: item for item in exported}
    assert len(exported) == 3
    assert {votes: item.meta["call"] for votes, item in by_votes.items()} == {1: "end", 2: "continue", 3: "continue"}
    assert by_votes[1].meta["justified_at"] == 10
    for votes, share in ((1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))):
        item = by_votes[votes]
        assert [message.content for message in item.messages] == [message.content for message in dialogue.messages[:11]]
        (label,) = item.messages[10].labels.items()
        assert label[0] in {"assistant_abuse", "harm"}
        assert label[1] == share
        assert not any(message.labels for message in item.messages[:10])


def test_feedback_without_text_is_left_out(client: TestClient, store_url: str, sample: dict[str, Dialogue]) -> None:
    path = f"/v1/conversations/{play(client, sample['persistent-abuse'], 11)}/feedback"
    assert client.post(path, json={"verdict": "dispute"}).status_code == 201
    assert list(feedback.dialogues(store_url)) == [None]


# stores that fail or change


def test_a_conversation_of_another_model_is_not_gone_on_with(client: TestClient) -> None:
    name = begin(client)
    store: Store = client.app.state.service.store  # type: ignore[attr-defined]
    with store._writer.begin() as connection:
        connection.execute(metadata.tables["conversation"].update().values(digest="f" * 64))
    error(add(client, name, "user", SECRET), 409, "state_foreign")
    assert tree(client, name)["id"] == name


def test_a_store_that_does_not_answer_is_503(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    name = begin(client)

    def broken(*_: Any, **__: Any) -> Any:
        raise OperationalError(SECRET, {}, Exception(SECRET))

    monkeypatch.setattr(Store, "append", broken)
    answer = add(client, name, "user", SECRET)
    error(answer, 503, "store_unavailable")
    assert answer.headers["retry-after"] == "1"


def test_ready_says_whether_the_store_answers_now(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    client.portal.call(asyncio.shield, client.app.state.warming)  # type: ignore[union-attr,attr-defined]
    service, looks, ping = client.app.state.service, [], Store.ping  # type: ignore[attr-defined]

    def broken(self: Store) -> None:
        looks.append(1)
        ping(self)
        raise OperationalError(SECRET, {}, Exception(SECRET))

    assert client.get("/health/ready").json() == {"status": "ready"}
    monkeypatch.setattr(Store, "ping", broken)
    service._look_at = 0.0
    error(client.get("/health/ready"), 503, "store_unavailable")
    service._look_at = math.inf  # looked just now
    error(client.get("/health/ready"), 503, "store_unavailable")
    assert len(looks) == 1
    monkeypatch.setattr(Store, "ping", ping)
    service._look_at = 0.0
    assert client.get("/health/ready").json() == {"status": "ready"}


def test_states_are_good_after_a_restart(serve: Serve, store_url: str) -> None:
    message = {"role": "user", "content": "Hello."}
    state = serve(store=store_url).post("/v1/decide", json={"message": message}).json()["state"]
    assert serve(store=store_url).post("/v1/decide", json={"message": message, "state": state}).status_code == 200


def test_without_a_store_it_is_said_so(serve: Serve) -> None:
    client = serve()
    for answer in (client.post("/v1/conversations"), client.get("/v1/conversations/x"), add(client, "x", "user", SECRET)):
        error(answer, 501, "no_store")
