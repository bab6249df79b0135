"""Branches of a conversation (B8, B9): append, edit, retry, go on from any turn; an ended leaf ends nothing but itself; JSON lines keep all of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from lastresort import ConversationTree
from lastresort.batch import score_dialogues
from lastresort.conversation import ConversationState, Monitor
from lastresort.errors import ConversationEnded, DataError, ScoringError, StateError
from lastresort.policy import DecisionPolicy, PolicyConfig, Threshold
from lastresort.types import Decision, Dialogue, LabelSpec, Message, Role, TurnScore

CONFIG = PolicyConfig(
    triggers=("harm",),
    vetoes=("risk",),
    thresholds={"default": Threshold(0.5, 0.4)},
    redirections_before_warning=1,
    persistence_label=None,
    mode="enforce",
)
LABELS = (*tuple(LabelSpec(name, "user", "signal") for name in ("harm", "risk", "end_request")), LabelSpec("redirection", "assistant", "signal"))


@dataclass
class FakeManifest:
    """As much of a manifest as a monitor reads."""

    tag: str = "fake@00000000"
    memory_size: int = 4
    labels: tuple[LabelSpec, ...] = LABELS


class FakeScorer:
    """Scores by letters (h harm, v at risk, e asks to end, R redirection); its memory is a trace of every text, so that a lost or foreign turn shows."""

    manifest = FakeManifest()

    def initial_memory(self) -> Any:
        return np.zeros(4, dtype=np.float32)

    def score(self, role: Role, text: str, memory: Any, index: int = 0) -> tuple[TurnScore, Any]:
        if "!" in text:
            raise ScoringError(f"turn {index}: broken")
        new = (memory * 3 + 1 + sum(map(ord, text + role))) % 1009
        if role not in ("user", "assistant"):
            return TurnScore(index, role, {}, 0), memory
        letters = {"harm": "h", "risk": "v", "end_request": "e"} if role == "user" else {"redirection": "R"}
        return TurnScore(index, role, {name: float(letter in text) for name, letter in letters.items()}), new.astype(np.float32)


FAKE = Monitor(FakeScorer(), DecisionPolicy(CONFIG))  # type: ignore[arg-type]
ROAD: list[tuple[Role, str]] = [("user", "h"), ("assistant", "R"), ("user", "h"), ("assistant", "warned"), ("user", "h again")]
"""Ends at its last turn."""


def grown(*turns: tuple[Role, str]) -> ConversationTree:
    tree = ConversationTree(FAKE)
    for role, text in turns:
        tree.append(role, text)
    return tree


def replayed(*turns: tuple[Role, str]) -> tuple[ConversationState, Decision | None]:
    state, decision = FAKE.start(), None
    for role, text in turns:
        state, decision = FAKE.observe(state, role, text)
    return state, decision


def test_a_line_of_turns_is_what_observing_gives() -> None:
    tree = grown(*ROAD)
    assert [turn.id for turn in tree] == ["t0", "t1", "t2", "t3", "t4"]
    assert [turn.parent for turn in tree] == [None, "t0", "t1", "t2", "t3"]
    assert (tree["t4"].state, tree["t4"].decision) == replayed(*ROAD)
    assert (tree["t4"].ended, tree.head, len(tree)) == (True, "t4", 5)
    assert [turn.id for turn in tree.path("t3")] == ["t0", "t1", "t2", "t3"]


def test_b8_an_ended_leaf_takes_no_turn_and_says_what_to_do_instead() -> None:
    tree = grown(*ROAD)
    with pytest.raises(ConversationEnded, match="ended at message 4; edit an earlier message to branch, or start a new conversation") as caught:
        tree.append("user", "sorry")
    assert (caught.value.ended_at, "edit an earlier message" in caught.value.instead) == (4, True)
    assert len(tree) == 5
    with pytest.raises(ConversationEnded):
        tree.acknowledge("warned")


def test_b9_an_edit_in_an_ended_conversation_branches_from_where_its_parent_stood() -> None:
    tree = grown(*ROAD)
    edited = tree.edit("t4", "sorry", id="calm")
    assert (edited.parent, edited.role, edited.ended, tree.head) == ("t3", "user", False, "calm")
    assert (edited.state, edited.decision) == replayed(*ROAD[:4], ("user", "sorry"))
    assert tree["t4"].ended  # the sibling is as it was
    assert [turn.id for turn in tree.children("t3")] == ["t4", "calm"]
    first = tree.edit("t0", "hello")
    assert (first.parent, first.state) == (None, replayed(("user", "hello"))[0])


def test_b9_a_retry_replaces_the_answer_and_forgets_what_followed_the_old_one() -> None:
    tree = grown(*ROAD)
    again = tree.retry("t1", "an answer, no redirection")
    assert (again.parent, again.role) == ("t0", "assistant")
    assert [tree.append(role, text).decision.advice for role, text in ROAD[2:]] == ["redirect", "none", "redirect"]
    with pytest.raises(StateError, match="retry: found a turn of the user, expected one of the assistant"):
        tree.retry("t0", "R")


def test_b9_going_on_from_any_turn_leaves_the_siblings_untouched() -> None:
    tree = grown(*ROAD)
    before = [(turn.id, turn.state.to_json(), turn.decision) for turn in tree]
    tree.follow("t1", "user", "hv", id="crisis")
    tree.append("assistant", "R")
    assert tree.append("user", "h").decision.advice == "support"
    assert tree.follow("t3", "user", "h").decision.call == "end"  # the crisis belongs to its own branch
    assert [(turn.id, turn.state.to_json(), turn.decision) for turn in tree][:5] == before
    assert tree.follow(None, "user", "h", id="anew").decision.advice == "redirect"


def test_a_turn_that_cannot_be_scored_leaves_the_tree_as_it_was() -> None:
    tree = grown(("user", "h"))
    with pytest.raises(ScoringError):
        tree.append("assistant", "!")
    assert (len(tree), tree.head) == (1, "t0")


def test_ids_are_the_hosts_or_made_and_never_used_twice() -> None:
    tree = grown()
    assert [tree.append("user", "", id="t1").id, tree.append("assistant", "").id, tree.append("user", "").id] == ["t1", "t2", "t3"]
    with pytest.raises(StateError, match="id: found 't1', which is in the tree already"):
        tree.append("user", "", id="t1")
    for call in (lambda: tree.follow("t9", "user", ""), lambda: tree.edit("t9", ""), lambda: tree["t9"], lambda: tree.path("t9")):
        with pytest.raises(StateError, match="turn: found 't9', expected the id of one of the 3 turns"):
            call()


def test_b3_an_acknowledged_warning_is_recorded_on_its_turn() -> None:
    tree = grown(*ROAD[:3])
    turn = tree.acknowledge("warned")
    assert (turn.id, turn.decision.reason, turn.state.policy.acts) == ("t2", "warned", (("warned", 2),))
    assert tree.append("user", "h").ended
    with pytest.raises(StateError, match="acknowledge: found turns after 't2'"):
        tree.acknowledge("warned", turn="t2")
    with pytest.raises(StateError, match="found ''"):
        grown().acknowledge("warned")


def test_b7_an_acknowledged_yes_ends_its_leaf_only() -> None:
    tree = grown(("user", "e"))
    assert tree.acknowledge("confirmed").ended
    with pytest.raises(ConversationEnded):
        tree.append("user", "wait")
    assert not tree.edit("t0", "let us go on").ended


def test_a_saved_tree_goes_on_as_if_it_had_never_been_away(tmp_path: Path) -> None:
    tree = grown(*ROAD)
    tree.retry("t3", "something else", id="other")
    tree.follow("t1", "user", "h")
    tree.acknowledge("warned")
    tree.save(tmp_path / "tree.jsonl")
    back = ConversationTree.load(tmp_path / "tree.jsonl", FAKE)
    assert list(back.to_lines()) == list(tree.to_lines())
    assert [(turn.id, turn.parent, turn.role, turn.state, turn.decision) for turn in back] == [(t.id, t.parent, t.role, t.state, t.decision) for t in tree]
    assert [turn.decision.numbers for turn in back] == [turn.decision.numbers for turn in tree]
    assert back.append("user", "h").state == tree.append("user", "h").state
    with pytest.raises(ConversationEnded):
        back.follow("t4", "user", "h")


def test_an_empty_tree_is_an_empty_file(tmp_path: Path) -> None:
    grown().save(tmp_path / "t.jsonl")
    assert (tmp_path / "t.jsonl").read_bytes() == b""
    assert ConversationTree.load(tmp_path / "t.jsonl", FAKE).head is None


def test_a_tree_of_the_real_model_holds_no_text(monitor: Monitor, sample: dict[str, Dialogue], tmp_path: Path) -> None:
    tree = ConversationTree(monitor)
    for message in sample["persistent-abuse"].messages[:11]:
        tree.append(message.role, message.content)
    assert tree[tree.head or ""].ended
    tree.save(tmp_path / "tree.jsonl")
    text = (tmp_path / "tree.jsonl").read_text(encoding="utf-8")
    assert not any(word in text for message in sample["persistent-abuse"].messages for word in message.content.split() if len(word) > 8)
    assert list(ConversationTree.load(tmp_path / "tree.jsonl", monitor).to_lines()) == list(tree.to_lines())
    with pytest.raises(StateError, match=r"tree\.jsonl: turn 1: found a state of model tiny@\w+, expected fake@00000000"):
        ConversationTree.load(tmp_path / "tree.jsonl", FAKE)


DAMAGE: dict[str, tuple[dict[str, Any], str]] = {
    "an id twice": ({"id": "t0"}, "turn 2: id: found an id used before"),
    "no parent": ({"parent": "t7"}, "turn 2: parent: found the id of no earlier turn"),
    "its own parent": ({"parent": "t1"}, "turn 2: parent: found the id of no earlier turn"),
    "another depth": ({"parent": None}, "turn 2: state.turns: found 2, expected 1 as its parents say"),
    "a strange role": ({"role": "human"}, ":2: role: found 'human', expected: one of"),
    "a damaged state": ({"state": {"version": 2}}, "turn 2: state: state: cannot be read"),
    "an unknown key": ({"mood": 1}, ":2: mood: found 1, expected: no such key"),
    "no decision": ({"decision": None}, ":2: decision: found None"),
}


@pytest.mark.parametrize(("changes", "message"), DAMAGE.values(), ids=list(DAMAGE))
def test_a_damaged_line_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in grown(*ROAD[:2]).to_lines()]
    lines[1] |= changes
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        ConversationTree.load(tmp_path / "t.jsonl", FAKE)


TEXTS: list[tuple[Role, str]] = [
    ("user", "h"), ("assistant", "R"), ("user", "h h"), ("assistant", "R R"), ("user", "."), ("user", "e"), ("assistant", "a"), ("user", "v"), ("tool", "x"),
]  # fmt: skip


@given(st.binary(min_size=12, max_size=60))
def test_every_branch_equals_a_replay_of_its_path(raw: bytes) -> None:
    """Three bytes a step: from which turn, what is said, and whether it is an append, an edit or a host's act."""
    tree, said = ConversationTree(FAKE), {}
    for place, what, how in zip(raw[::3], raw[1::3], raw[2::3], strict=False):
        ids = [None, *(turn.id for turn in tree)]
        parent = ids[place % len(ids)] if how % 4 == 3 else tree.head
        role, text = TEXTS[what % len(TEXTS)]
        before = [(turn.id, turn.state.to_json()) for turn in tree]
        try:
            turn = tree.edit(parent, text) if parent is not None and how % 4 == 3 and how > 127 else tree.follow(parent, role, text)
        except ConversationEnded:
            assert parent is not None
            assert tree[parent].ended
            assert [(turn.id, turn.state.to_json()) for turn in tree] == before
            event("refused")
            continue
        said[turn.id] = text
        assert [(other.id, other.state.to_json()) for other in tree][:-1] == before
    for turn in tree:
        path = [(other.role, said[other.id]) for other in tree.path(turn.id)]
        assert (turn.state, turn.decision) == replayed(*path)


# --- the invariants of conversations, on the same stub: any turns, any order


def said(raw: bytes) -> tuple[Message, ...]:
    return tuple(Message(*TEXTS[byte % len(TEXTS)]) for byte in raw)


@given(st.binary(max_size=24))
def test_live_equals_offline_and_there_is_no_look_ahead(raw: bytes) -> None:
    dialogue = Dialogue("d", said(raw))
    stored = FAKE.score(dialogue)
    state, live = FAKE.start(), []
    for message in dialogue.messages:
        if state.ended:
            break
        state, decision = FAKE.observe(ConversationState.from_json(state.to_json()), message.role, message.content)
        live.append(decision)
    judged = [turn.decision for turn in stored.turns[: len(live)]]
    assert [None if decision.reason == "not_scored" else decision for decision in live] == judged
    assert [decision.numbers for decision in live] == [{} if decision is None else decision.numbers for decision in judged]
    assert state.ended == (stored.call == "end")
    assert FAKE.score(replace(dialogue, messages=dialogue.messages[: len(raw) // 2])).turns == stored.turns[: len(raw) // 2]


@given(st.lists(st.binary(min_size=1, max_size=12), min_size=2, max_size=5), st.binary(min_size=40, max_size=40))
def test_conversations_never_touch_however_they_interleave(raws: list[bytes], order: bytes) -> None:
    dialogues = [said(raw) for raw in raws]
    alone = [FAKE.observe_all(messages).to_json() for messages in dialogues]
    states, places = [FAKE.start() for _ in dialogues], [0] * len(dialogues)
    for which in [byte % len(dialogues) for byte in order] + [place for place in range(len(dialogues)) for _ in range(12)]:
        if places[which] < len(dialogues[which]) and not states[which].ended:
            message = dialogues[which][places[which]]
            states[which], _ = FAKE.observe(states[which], message.role, message.content)
            places[which] += 1
    assert [state.to_json() for state in states] == alone


@given(st.lists(st.binary(max_size=6), max_size=5), st.sampled_from([1, 2, 3]))
def test_batch_equals_single_and_threads_equal_serial(raws: list[bytes], workers: int) -> None:
    dialogues = [Dialogue(f"d{place}", said(raw)) for place, raw in enumerate(raws)]
    assert list(score_dialogues(FAKE, dialogues, workers=workers)) == [FAKE.score(dialogue) for dialogue in dialogues]
