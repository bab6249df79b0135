"""A conversation as it happens: live equals offline, an older state is a branch, and nothing is shared but the model."""

from __future__ import annotations

import base64
import dataclasses
import json
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lastresort
from lastresort.batch import score_dialogues
from lastresort.config import read_yaml
from lastresort.conversation import ConversationState, Monitor, assemble, decide, load
from lastresort.data import dumps, scored_to_json
from lastresort.errors import ArtifactError, ConfigError, ConversationEnded, ScoringError, StateError
from lastresort.policy import DecisionPolicy, PolicyConfig, read_policy
from lastresort.types import Decision, Dialogue, Message, ScoredDialogue, TurnScore

ENDING = ("persistent-abuse", "hate-persistent", "harassment-persistent")


def observe(monitor: Monitor, messages: Iterable[Message], state: ConversationState | None = None) -> tuple[list[ConversationState], list[Decision]]:
    """Every state (the first one included) and every decision, one live turn after the other, up to an end."""
    states, decisions = [state or monitor.start()], []
    for message in messages:
        if states[-1].ended:
            break
        after, decision = monitor.observe(states[-1], message.role, message.content)
        states.append(after)
        decisions.append(decision)
    return states, decisions


def line(scored: ScoredDialogue) -> str:
    """As it is stored; equal lines are equal to the last bit."""
    return dumps(scored_to_json(scored))


# --- the sample twins


def test_persistent_abuse_ends_after_redirections_and_a_warning(monitor: Monitor, sample: dict[str, Dialogue]) -> None:
    scored = monitor.score(sample["persistent-abuse"])
    assert (scored.call, scored.ended_at) == ("end", 10)
    reasons = [turn.decision.reason for turn in scored.turns if turn.decision is not None]
    assert reasons[:10].count("redirected") == 3
    assert reasons[8:11] == ["warning_due", "warned", "harm_after_warning"]
    assert reasons[11] == "already_ended"
    ending = scored.turns[10].decision
    assert ending is not None
    assert ending.evidence[-1] == 10
    assert set(ending.evidence) <= set(range(11))


def test_its_twin_with_an_apology_does_not_end(monitor: Monitor, sample: dict[str, Dialogue]) -> None:
    twin = sample["persistent-abuse-apology"]
    assert [m.content for m in twin.messages[:9]] == [m.content for m in sample["persistent-abuse"].messages[:9]]
    scored = monitor.score(twin)
    assert (scored.call, scored.ended_at) == ("continue", None)
    assert [turn.decision.reason for turn in scored.turns if turn.decision is not None].count("warned") == 1


def test_its_twin_in_a_crisis_is_never_warned_nor_ended(monitor: Monitor, sample: dict[str, Dialogue]) -> None:
    scored = monitor.score(sample["persistent-abuse-crisis"])
    assert (scored.call, scored.ended_at) == ("continue", None)
    decisions = [turn.decision for turn in scored.turns if turn.decision is not None]
    assert not {"warn", "confirm"} & {decision.advice for decision in decisions}
    assert decisions[-2].advice == "support"


def test_every_sample_conversation_is_called_as_its_author_meant(monitor: Monitor, sample: dict[str, Dialogue]) -> None:
    """The tiny model knows the sample by heart, so its calls are the policy's; two calls need labels that it does not have."""
    found = {name: monitor.score(dialogue).call for name, dialogue in sample.items()}
    meant = {name: str(dialogue.meta["call"]) for name, dialogue in sample.items()}
    assert {name for name in found if found[name] == "end"} == set(ENDING)
    assert {name for name in found if (found[name], meant[name]) == ("end", "continue")} == set()


# --- live = offline


def test_observing_turn_by_turn_equals_scoring_the_stored_dialogue(monitor: Monitor, sample: dict[str, Dialogue]) -> None:
    for dialogue in sample.values():
        scored = monitor.score(dialogue)
        states, decisions = observe(monitor, dialogue.messages)
        turns = [(state.score, decision) for state, decision in zip(states[1:], decisions, strict=True)]
        found = [(score, decision) for score, decision in turns if score is not None]
        live = assemble(dialogue.id, monitor.model, found, monitor.policy, scored.source, scored.meta)
        upto = len(dialogue.messages) if scored.ended_at is None else scored.ended_at + 1
        assert len(turns) == upto
        assert line(replace(scored, turns=scored.turns[:upto])) == line(live)
        assert monitor.observe_all(dialogue.messages) == states[-1]


def test_no_look_ahead(monitor: Monitor, sample: dict[str, Dialogue]) -> None:
    for dialogue in sample.values():
        whole = monitor.score(dialogue).turns
        for cut in range(len(dialogue.messages)):
            assert monitor.score(replace(dialogue, messages=dialogue.messages[:cut])).turns == whole[:cut]


def test_the_output_has_one_turn_for_each_message_and_none_of_its_text(monitor: Monitor) -> None:
    messages = (
        Message("system", "Be kind."),
        Message("user", ""),
        Message("tool", "{}"),
        Message("assistant", "Hello."),
        Message("user", "hello " * 200, {"harm": 1.0}),
    )
    scored = monitor.score(Dialogue("d", messages))
    assert [(turn.index, turn.role, bool(turn.scores), turn.decision is None) for turn in scored.turns] == [
        (0, "system", False, True),
        (1, "user", True, False),
        (2, "tool", False, True),
        (3, "assistant", True, False),
        (4, "user", True, False),
    ]
    assert [turn.windows for turn in scored.turns] == [0, 1, 0, 1, len(monitor.scorer.encoder.windows("hello " * 200))]
    assert scored.model == monitor.model
    assert "ello" not in line(scored)


def test_carried_turns_change_no_score(monitor: Monitor, sample: dict[str, Dialogue]) -> None:
    messages = sample["persistent-abuse"].messages
    carried = [part for message in messages for part in (Message("tool", "You stupid bot."), message, Message("system", ""))]
    plain, mixed = monitor.score(Dialogue("d", messages)), monitor.score(Dialogue("d", tuple(carried)))
    assert [turn.scores for turn in mixed.turns if turn.scores] == [turn.scores for turn in plain.turns]
    assert mixed.ended_at == 3 * 10 + 1


def test_a_conversation_without_turns(monitor: Monitor) -> None:
    assert monitor.score(Dialogue("empty", ())) == ScoredDialogue("empty", monitor.model, "continue", None, (), policy=monitor.policy.digest)
    assert monitor.observe_all([]) == monitor.start()


# --- states


def test_a_state_is_immutable_and_observing_changes_nothing_in_it(monitor: Monitor, sample: dict[str, Dialogue]) -> None:
    states, _ = observe(monitor, sample["persistent-abuse"].messages)
    before = [state.to_json() for state in states]
    for state in states[:-1]:
        monitor.observe(state, "user", "Something else.")
    assert [state.to_json() for state in states] == before
    assert len(set(states)) == len(states)
    with pytest.raises(dataclasses.FrozenInstanceError):
        states[0].turns = 1  # type: ignore[misc]


def test_the_newest_score_is_in_the_state(monitor: Monitor) -> None:
    state, _ = monitor.observe(monitor.start(), "user", "Hello.")
    assert monitor.start().score is None
    assert state.score is not None
    assert (state.score.index, state.turns, state.ended) == (0, 1, False)
    assert set(state.score.scores) == {label.name for label in monitor.scorer.manifest.labels_of("user")}


def test_an_older_state_is_a_branch(monitor: Monitor, sample: dict[str, Dialogue]) -> None:
    """B9: what follows an older state equals a replay of the prefix with the new turns, also after the first line ended."""
    messages = sample["persistent-abuse"].messages
    states, _ = observe(monitor, messages)
    assert states[-1].ended
    other = sample["persistent-abuse-apology"].messages[-4:]
    for cut in range(len(states) - 1):
        branch, _ = observe(monitor, other, states[cut])
        replay, _ = observe(monitor, (*messages[:cut], *other))
        assert [state.to_json() for state in branch] == [state.to_json() for state in replay[cut:]]


def test_a_state_survives_json_with_the_same_future(monitor: Monitor, sample: dict[str, Dialogue]) -> None:
    for name in ("persistent-abuse", "persistent-abuse-crisis", "end-request-no"):
        messages = sample[name].messages
        states, decisions = observe(monitor, messages)
        for cut, state in enumerate(states):
            text = state.to_json()
            back = ConversationState.from_json(text)
            assert back == state
            assert back.to_json() == text
            assert back.memory.tobytes() == state.memory.tobytes()
            assert (back.memory.dtype, back.score) == (np.float32, None)
            future, decided = observe(monitor, messages[cut:], back)
            assert [later.to_json() for later in future] == [later.to_json() for later in states[cut:]]
            assert [later.score for later in future[1:]] == [later.score for later in states[cut + 1 :]]
            assert decided == decisions[cut:]


def test_a_state_as_json_is_small_one_line_and_holds_no_text(monitor: Monitor) -> None:
    state = monitor.observe_all([Message("user", "You stupid bot."), Message("assistant", "Please don't.")] * 100)
    text = state.to_json()
    assert "\n" not in text
    assert len(text) < 2000
    assert "stupid" not in text
    assert json.loads(text)["turns"] == state.turns


def test_a_state_of_another_model_is_refused(monitor: Monitor) -> None:
    foreign = replace(monitor.start(), model="tiny@00000000")
    with pytest.raises(StateError, match=rf"found a state of model tiny@00000000, expected {monitor.model}"):
        monitor.observe(foreign, "user", "hello")
    with pytest.raises(StateError):
        monitor.observe(ConversationState.from_json(foreign.to_json()), "system", "hello")


def test_an_unknown_role_is_refused(monitor: Monitor) -> None:
    with pytest.raises(StateError, match="role: found 'human', expected one of user, assistant, system, tool"):
        monitor.observe(monitor.start(), "human", "hello")  # type: ignore[arg-type]


def memory_of(*numbers: float) -> str:
    return base64.b64encode(np.array(numbers, dtype="<f4").tobytes()).decode()


DAMAGE: dict[str, dict[str, Any]] = {
    "other version": {"version": 1},
    "no version": {"version": ...},
    "no model": {"model": ...},
    "no memory": {"memory": ...},
    "no policy": {"policy": ...},
    "no turns": {"turns": ...},
    "no distress": {"distress": ...},
    "distress no indices": {"distress": ["a"]},
    "model no text": {"model": 3},
    "negative turns": {"turns": -1},
    "turns no number": {"turns": "3"},
    "turns a fraction": {"turns": 1.5},
    "turns a truth": {"turns": True},
    "memory no base64": {"memory": "*****"},
    "memory cut": {"memory": memory_of(1, 2)[:-5]},
    "memory a number": {"memory": 3},
    "memory not finite": {"memory": memory_of(*[float("nan")] * 16)},
    "policy no object": {"policy": [1]},
    "policy empty": {"policy": {}},
}
POLICY_DAMAGE: dict[str, dict[str, Any]] = {
    "unknown key": {"courage": 1},
    "a lost veto": {"at_risk": ...},
    "negative count": {"warnings": -1},
    "count no number": {"redirections": "many"},
    "veto no boolean": {"at_risk": "yes"},
    "unknown phase": {"confirmation": "perhaps"},
    "evidence out of order": {"evidence": [3, 1]},
}


def changed(record: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in {**record, **changes}.items() if value is not ...}


@pytest.mark.parametrize("changes", DAMAGE.values(), ids=list(DAMAGE))
def test_a_damaged_state_is_refused(monitor: Monitor, changes: dict[str, Any]) -> None:
    record = json.loads(monitor.start().to_json())
    assert ConversationState.from_json(json.dumps(record)) == monitor.start()
    with pytest.raises(StateError):
        ConversationState.from_json(json.dumps(changed(record, changes)))


@pytest.mark.parametrize("changes", POLICY_DAMAGE.values(), ids=list(POLICY_DAMAGE))
def test_a_damaged_policy_state_is_refused(monitor: Monitor, changes: dict[str, Any]) -> None:
    record = json.loads(monitor.start().to_json())
    with pytest.raises(StateError):
        ConversationState.from_json(json.dumps({**record, "policy": changed(record["policy"], changes)}))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "3", '"state"', "[" * 100_000, "\x00"], ids=["empty", "cut", "list", "null", "number", "text", "deep", "nul"]
)
def test_what_is_no_state_at_all_is_refused(text: str) -> None:
    with pytest.raises(StateError):
        ConversationState.from_json(text)


@pytest.mark.parametrize("size", [0, 15, 17])
@pytest.mark.parametrize("role", ["user", "system"])
def test_a_state_with_a_memory_of_another_size_is_refused(monitor: Monitor, size: int, role: Any) -> None:
    state = ConversationState.from_json(json.dumps({**json.loads(monitor.start().to_json()), "memory": memory_of(*[0.0] * size)}))
    with pytest.raises(StateError, match=f"memory of {size} numbers, expected 16"):
        monitor.observe(state, role, "hello")


# --- modes, acknowledgement, distress


def test_b13_a_new_deployment_decides_and_records_but_never_acts(tiny_path: Path, monitor: Monitor, sample: dict[str, Dialogue]) -> None:
    """The default of `load`: what enforce would have done stands beside the call, and the host is never stopped."""
    shadow = load(tiny_path)
    assert shadow.policy.mode == "shadow"
    states, decisions = observe(shadow, sample["persistent-abuse"].messages)
    assert len(decisions) == len(sample["persistent-abuse"].messages)
    assert not any(state.ended for state in states)
    assert {(decision.call, decision.advice) for decision in decisions} == {("continue", "none")}
    ended_at = monitor.score(sample["persistent-abuse"]).ended_at
    assert next(index for index, decision in enumerate(decisions) if decision.would_call == "end") == ended_at
    enforced = [turn.decision for turn in monitor.score(sample["persistent-abuse"]).turns[: 10 + 1]]
    assert [(d.decided_call, d.decided_advice, d.reason) for d in decisions[:11]] == [(d.call, d.advice, d.reason) for d in enforced if d is not None]


def test_b13_advise_acts_up_to_the_warning(tiny_path: Path, sample: dict[str, Dialogue]) -> None:
    advise = load(tiny_path, mode="advise")
    states, decisions = observe(advise, sample["persistent-abuse"].messages)
    assert "warn" in {decision.advice for decision in decisions}
    assert {decision.call for decision in decisions} == {"continue"}
    assert not states[-1].ended
    assert (decisions[10].would_call, decisions[10].advice, decisions[10].reason) == ("end", "redirect", "harm_after_warning")


def test_b13_off_scores_nothing_and_cannot_fail(tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    off = load(tiny_path, mode="off")
    monkeypatch.setattr(off.scorer, "_session", None)  # any run would fail
    state, decision = off.observe(off.start(), "user", "You stupid bot.")
    assert (decision.call, decision.advice, decision.reason, decision.would_call) == ("continue", "none", "mode_off", None)
    assert (state.turns, dict(state.score.scores) if state.score else None) == (1, {})
    assert state.memory.tobytes() == off.start().memory.tobytes()


def test_b13_the_mode_can_change_within_a_conversation_and_withheld_warnings_do_not_count(monitor: Monitor, sample: dict[str, Dialogue]) -> None:
    """Three redirections and a warning in shadow: when somebody switches enforce on, the warning was never given, so the next harm is warned about."""
    shadow, messages = monitor.in_mode("shadow"), sample["persistent-abuse"].messages
    state = shadow.observe_all(messages[:10])
    assert state.policy.warnings == 1
    state, decision = monitor.observe(ConversationState.from_json(state.to_json()), "user", messages[10].content)
    assert (decision.call, decision.advice) == ("continue", "warn")
    assert not state.ended


def test_b13_stored_conversations_are_judged_in_full_unless_asked_otherwise(tiny_path: Path, monitor: Monitor, sample: dict[str, Dialogue]) -> None:
    shadow, dialogue = load(tiny_path), sample["persistent-abuse"]
    assert line(shadow.score(dialogue)) == line(monitor.score(dialogue))
    withheld = shadow.score(dialogue, "shadow")
    assert (withheld.call, withheld.ended_at, withheld.would_end_at, withheld.mode, withheld.decided_end) == ("continue", None, 10, "shadow", 10)
    assert line(decide(withheld, shadow.policy)) == line(monitor.score(dialogue))
    assert line(decide(monitor.score(dialogue), monitor.policy, "shadow")) == line(withheld)


def test_b13_an_unknown_mode_is_refused(tiny_path: Path) -> None:
    with pytest.raises(ConfigError, match="mode: found 'on', expected one of off, shadow, advise, enforce"):
        load(tiny_path, mode="on")  # type: ignore[arg-type]


def test_b3_a_host_that_warned_itself_says_so_and_it_is_recorded(monitor: Monitor, sample: dict[str, Dialogue]) -> None:
    messages = sample["persistent-abuse"].messages
    state = monitor.observe_all(messages[:9])
    assert state.policy.warning_due
    warned, decision = monitor.acknowledge(state, "warned")
    assert (decision.reason, warned.policy.warnings, warned.policy.acts) == ("warned", 1, (("warned", 8),))
    assert (state.policy.warnings, state.policy.acts) == (0, ())
    again = ConversationState.from_json(warned.to_json())
    assert again.policy.acts == (("warned", 8),)
    ended, decision = monitor.observe(again, "user", messages[10].content)
    assert (decision.call, ended.ended) == ("end", True)
    with pytest.raises(StateError, match="expected it only while the advice to do so is open"):
        monitor.acknowledge(warned, "warned")
    with pytest.raises(ConversationEnded):
        monitor.acknowledge(ended, "warned")


def test_b12_distress_is_kept_in_the_state_and_in_the_scored_output_and_moves_nothing(tiny_path: Path, monitor: Monitor, sample: dict[str, Dialogue]) -> None:
    """The tiny model has no such label, so another one stands for it."""
    config = replace(monitor.policy.config, distress_label="redirection")
    own, dialogue = load(tiny_path, policy=config, mode="enforce"), sample["persistent-abuse"]
    scored = own.score(dialogue)
    marked = tuple(turn.index for turn in scored.turns if turn.role == "assistant" and turn.scores["redirection"] >= 0.5)
    assert scored.distress == marked != ()
    assert [turn.decision for turn in scored.turns] == [turn.decision for turn in monitor.score(dialogue).turns]
    state = own.observe_all(dialogue.messages)
    assert state.distress == tuple(index for index in marked if index <= 10)
    assert ConversationState.from_json(state.to_json()).distress == state.distress


def test_scored_output_takes_over_the_truth_and_nothing_else_of_meta(monitor: Monitor) -> None:
    harmless = Dialogue("d", (Message("user", "hi", {"harm": 0.0}), Message("assistant", "hello")), "there", {"kind": "chat", "note": "private"})
    assert (monitor.score(harmless).source, monitor.score(harmless).meta) == ("there", {"kind": "chat", "call": "continue"})
    assert monitor.score(replace(harmless, meta={"call": None})).meta == {"call": None}
    unknown = replace(harmless, messages=(*harmless.messages, Message("user", "and now?")), meta={})
    assert monitor.score(unknown).meta == {}
    one_of_many = replace(harmless, messages=(Message("user", "hi", {"hate": 0.0}),), meta={})  # says nothing of the other triggers
    assert monitor.score(one_of_many).meta == {}
    all_of_them = {name: 0.1 for name in monitor.policy.config.triggers if name != "harm"}
    assert monitor.score(replace(harmless, messages=(Message("user", "hi", {**all_of_them, "harm": 0.1}),), meta={})).meta == {"call": "continue"}


# --- the end


def test_an_ended_conversation_takes_no_further_turn(monitor: Monitor, sample: dict[str, Dialogue]) -> None:
    """B8: no turn of any role, not even after JSON; a new conversation starts at once."""
    state = monitor.observe_all(sample["persistent-abuse"].messages)
    assert (state.ended, state.turns) == (True, 11)
    for ended in (state, ConversationState.from_json(state.to_json())):
        for role in ("user", "assistant", "system", "tool"):
            with pytest.raises(ConversationEnded, match="ended at message 10; edit an earlier message to branch, or start a new conversation"):
                monitor.observe(ended, role, "I am sorry.")  # type: ignore[arg-type]
    _, decision = monitor.observe(monitor.start(), "user", "Hello again.")
    assert decision.call == "continue"


def test_a_failure_to_score_leaves_the_state_as_it_was(monitor: Monitor, tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """B14."""
    own = load(tiny_path, mode="enforce")
    state, _ = own.observe(own.start(), "user", "You stupid bot.")
    before = state.to_json()

    class Broken:
        def run(self, *_: Any) -> Any:
            raise RuntimeError("no memory left")

    with monkeypatch.context() as patch:
        patch.setattr(own.scorer, "_session", Broken())
        with pytest.raises(ScoringError):
            own.observe(state, "user", "hello")
        with pytest.raises(ScoringError):
            own.score(Dialogue("d", (Message("user", "hello"),)))
    assert state.to_json() == before
    assert own.observe(state, "user", "hello")[0] == monitor.observe(ConversationState.from_json(before), "user", "hello")[0]


# --- many conversations


def test_interleaved_conversations_never_touch(monitor: Monitor, sample: dict[str, Dialogue]) -> None:
    alone = {name: [state.to_json() for state in observe(monitor, dialogue.messages)[0]] for name, dialogue in sample.items()}
    states = {name: [monitor.start()] for name in sample}
    for turn in range(max(len(dialogue.messages) for dialogue in sample.values())):
        for name, dialogue in sample.items():
            if turn < len(dialogue.messages) and not states[name][-1].ended:
                message = dialogue.messages[turn]
                states[name].append(monitor.observe(states[name][-1], message.role, message.content)[0])
    assert {name: [state.to_json() for state in found] for name, found in states.items()} == alone


def test_threads_equal_serial(monitor: Monitor, sample: dict[str, Dialogue]) -> None:
    serial = [line(monitor.score(dialogue)) for dialogue in sample.values()]
    barrier = threading.Barrier(4)

    def score_all(shift: int) -> list[str]:
        dialogues = [*sample.values()]
        barrier.wait(60)
        turned = [line(monitor.score(dialogue)) for dialogue in dialogues[shift:] + dialogues[:shift]]
        return turned[len(turned) - shift :] + turned[: len(turned) - shift]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(score_all, [0, 5, 11, 20])) == [serial] * 4
    for workers in (1, 2, 7):
        assert [line(scored) for scored in score_dialogues(monitor, sample.values(), workers=workers)] == serial


def test_the_first_dialogue_that_cannot_be_scored_stops_the_batch(tiny_path: Path, sample: dict[str, Dialogue]) -> None:
    own = load(tiny_path)
    real = own.scorer.score

    def score(role: Any, text: str, memory: Any, index: int = 0) -> Any:
        if text == "break here":
            raise ScoringError(f"turn {index}: broken")
        return real(role, text, memory, index)

    own.scorer.score = score  # type: ignore[method-assign]
    first, rest = list(sample.values())[:5], list(sample.values())[5:]
    dialogues = [*first, Dialogue("bad", (Message("user", "break here"),)), *rest]
    for workers in (1, 3):
        results = score_dialogues(own, dialogues, workers=workers)
        assert [next(results).id for _ in first] == [dialogue.id for dialogue in first]
        with pytest.raises(ScoringError, match="turn 0: broken"):
            next(results)


# --- deciding again


def test_deciding_from_stored_scores_equals_scoring(monitor: Monitor, sample: dict[str, Dialogue]) -> None:
    for dialogue in sample.values():
        scored = monitor.score(dialogue)
        assert line(decide(scored, monitor.policy)) == line(scored)
        undecided = replace(scored, call="continue", ended_at=None, turns=tuple(replace(turn, decision=None) for turn in scored.turns))
        assert line(decide(undecided, monitor.policy)) == line(scored)


def test_deciding_with_another_policy_equals_scoring_with_it(monitor: Monitor, tiny_path: Path, sample: dict[str, Dialogue]) -> None:
    patient = replace(monitor.policy.config, redirections_before_warning=10)
    other = load(tiny_path, policy=patient)
    found = [decide(monitor.score(dialogue), DecisionPolicy(patient)) for dialogue in sample.values()]
    assert [line(scored) for scored in found] == [line(other.score(dialogue)) for dialogue in sample.values()]
    assert {scored.call for scored in found} == {"continue"}


def test_scores_that_lack_a_label_of_the_policy_raise(monitor: Monitor, sample: dict[str, Dialogue]) -> None:
    scored = monitor.score(sample["persistent-abuse"])
    for missing in ("harm", "self_harm_risk", "redirection"):
        turns = tuple(replace(turn, scores={name: value for name, value in turn.scores.items() if name != missing}) for turn in scored.turns)
        with pytest.raises(ScoringError, match=missing):
            decide(replace(scored, turns=turns), monitor.policy)


# --- loading


def test_load_takes_the_policy_of_the_model_a_file_or_an_object(tiny_path: Path, root: Path, tmp_path: Path) -> None:
    config = read_policy(root / "configs" / "policy" / "smoke.yaml")
    strict = tmp_path / "strict.yaml"
    strict.write_text("triggers: [harm]\nthresholds: {default: {enter: 0.9, release: 0.8}}\npersistence_label: null\n", encoding="utf-8")
    assert lastresort.load(tiny_path).policy.config == config
    assert lastresort.load(str(tiny_path), policy=str(strict)).policy.config == read_policy(strict)
    assert lastresort.load(tiny_path, policy=strict).policy.config.triggers == ("harm",)
    own = replace(config, warnings_before_end=2)
    assert lastresort.load(tiny_path, policy=own).policy.config is own


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"triggers": ("harm", "boredom")}, "boredom"),
        ({"vetoes": ("despair",)}, "despair"),
        ({"triggers": ("redirection",)}, "redirection"),
        ({"redirection_label": "harm"}, "harm"),
        ({"end_request_label": "goodbye"}, "goodbye"),
        ({"persistence_label": "stubbornness"}, "stubbornness"),
    ],
)
def test_a_policy_that_names_a_label_the_model_lacks_is_a_config_error(monitor: Monitor, tiny_path: Path, changes: dict[str, Any], name: str) -> None:
    config: PolicyConfig = replace(monitor.policy.config, **changes)
    with pytest.raises(ConfigError, match=rf"{name}.*expected only labels of tiny@"):
        lastresort.load(tiny_path, policy=config)


def test_labels_that_the_policy_does_without_need_not_exist(monitor: Monitor, tiny_path: Path) -> None:
    config = replace(monitor.policy.config, vetoes=(), end_request_label=None, persistence_label=None)
    assert lastresort.load(tiny_path, policy=config).policy.config == config


def test_loading_names_what_is_wrong(tmp_path: Path, tiny_path: Path) -> None:
    with pytest.raises(ArtifactError, match="found no folder"):
        lastresort.load(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read"):
        lastresort.load(tiny_path, policy=tmp_path / "nowhere.yaml")


def test_the_policy_in_the_manifest_is_the_smoke_policy(root: Path, monitor: Monitor) -> None:
    assert dict(monitor.scorer.manifest.policy) == read_yaml(root / "configs" / "policy" / "smoke.yaml")


def test_assembling_nothing_and_the_first_end() -> None:
    turn = TurnScore(0, "user", {}, 1)
    assert assemble("d", "m", []) == ScoredDialogue("d", "m", "continue", None, ())
    ended = Decision("end", "none", "harm_after_warning")
    scored = assemble("d", "m", [(turn, Decision("continue", "none", "calm")), (replace(turn, index=1), ended), (replace(turn, index=2), ended)])
    assert (scored.call, scored.ended_at) == ("end", 1)
