"""A conversation as it happens: state = memory + policy state, immutable; an older state is a branch.

One `Monitor` serves any number of conversations and threads: it holds the model and the policy, never a conversation.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from .artifact import load_folder, shipped_model
from .errors import ConfigError, ConversationEnded, StateError
from .explain import explained
from .policy import EVIDENCE_LIMIT, DecisionPolicy, PolicyConfig, PolicyState, parse_policy, read_policy, state_from_json, state_to_json
from .scoring import Memory, TurnScorer
from .types import ROLES, Act, Call, Decision, Dialogue, Message, Mode, Role, ScoredDialogue, ScoredTurn, TurnScore

STATE_VERSION = 2
MEASURED_META = ("kind", "call", "justified_at", "hard_negative")
"""What scored output takes over from a dialogue's `meta`: the truth that measuring needs, no text."""


@dataclass(frozen=True, eq=False)
class ConversationState:
    """Everything that is remembered of a conversation; about 1 kB as JSON. Never changed in place.

    Attributes:
        model: `name@digest8` of the model that made the memory.
        memory: what the network carries; float32, shape (memory_size,).
        policy: the policy's counters.
        turns: how many messages have been observed.
        distress: indices of the assistant turns with apparent distress, the newest of them (B12).
        score: of the newest message, or None before the first.
    """

    model: str
    memory: Memory
    policy: PolicyState
    turns: int = 0
    distress: tuple[int, ...] = ()
    score: TurnScore | None = None

    @property
    def ended(self) -> bool:
        """Whether the conversation has ended."""
        return self.policy.ended_at is not None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConversationState) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(self.to_json())

    def to_json(self) -> str:
        """The state as one line of JSON; gives the same future after `from_json`, to the last bit. The newest score is left out."""
        memory = base64.b64encode(self.memory.astype("<f4").tobytes()).decode("ascii")
        record: dict[str, Any] = {"version": STATE_VERSION, "model": self.model, "turns": self.turns, "distress": self.distress, "memory": memory}
        record["policy"] = state_to_json(self.policy)
        return json.dumps(record, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> ConversationState:
        """Reads a state back.

        Raises:
            StateError: damaged, or of another version.
        """
        try:
            record: dict[str, Any] = json.loads(text)
            if record["version"] != STATE_VERSION:
                raise StateError(f"state version: found {record['version']!r}, expected {STATE_VERSION}")
            memory = np.frombuffer(base64.b64decode(record["memory"], validate=True), dtype="<f4").astype(np.float32)
            policy = state_from_json(record["policy"])
            turns, model, distress = record["turns"], record["model"], record["distress"]
        except (ValueError, KeyError, TypeError, RecursionError, binascii.Error, ConfigError) as error:
            raise StateError(f"state: cannot be read ({type(error).__name__}), expected the output of to_json") from None
        sound = type(turns) is int and turns >= 0 and isinstance(model, str) and isinstance(distress, list) and all(type(place) is int for place in distress)
        if not sound or not np.isfinite(memory).all():
            raise StateError("state: found turns, model, distress or memory out of range, expected the output of to_json")
        return cls(model, memory, policy, turns, tuple(distress))


class Monitor:
    """Observes conversations turn by turn. Thread-safe: holds no conversation."""

    def __init__(self, scorer: TurnScorer, policy: DecisionPolicy) -> None:
        """Joins a scorer and a policy.

        Raises:
            ConfigError: the policy reads a label that the model does not have.
        """
        self.scorer, self.policy = scorer, policy
        _check_labels(scorer, policy.config)

    @property
    def model(self) -> str:
        """`name@digest8` of the loaded model."""
        return self.scorer.manifest.tag

    def start(self) -> ConversationState:
        """The state of a conversation before its first turn."""
        return ConversationState(self.model, self.scorer.initial_memory(), self.policy.start())

    def in_mode(self, mode: Mode) -> Monitor:
        """The same model and rules in another mode; shares the loaded model."""
        return Monitor(self.scorer, self.policy.in_mode(mode))

    def observe(self, state: ConversationState, role: Role, content: str) -> tuple[ConversationState, Decision]:
        """Takes the newest turn of a conversation. In the mode `off` nothing is scored and the memory stays as it is.

        Args:
            state: of the conversation so far; not changed, keep it to branch from here.
            role: user, assistant, system or tool.
            content: the text; may be empty, may be long (it is read in windows).

        Returns:
            The new state (its `score` holds the numbers) and the decision.

        Raises:
            ConversationEnded: the conversation has ended.
            StateError: the state was made by another model, or is damaged.
            ScoringError: the turn could not be scored; the old state still holds.
        """
        self._check(state)
        if role not in ROLES:
            raise StateError(f"role: found {role!r}, expected one of {', '.join(ROLES)}")
        if self.policy.mode == "off":
            score, memory = TurnScore(state.turns, role, {}, windows=0), state.memory
        else:
            score, memory = self.scorer.score(role, content, state.memory, state.turns)
        policy, decision = self.policy.step(state.policy, score)
        distress = state.distress
        if self.policy.mode != "off" and self.policy.distressed(score):
            distress = (*distress, score.index)[-EVIDENCE_LIMIT:]
        after = ConversationState(state.model, memory, policy, state.turns + 1, distress, score)
        return after, explained(self.policy, state.policy, policy, score, decision)

    def acknowledge(self, state: ConversationState, act: Act) -> tuple[ConversationState, Decision]:
        """Takes what the host did itself upon the newest advice; the state's `policy.acts` records it.

        Without it a warning counts as given when an assistant turn followed the advice, and a question as answered by the user's next turn.

        Args:
            state: of the conversation so far; not changed.
            act: `warned`: the host gave the advised warning; `confirmed` or `declined`: the user's answer to the advised question.

        Returns:
            The new state and the decision; `confirmed` ends.

        Raises:
            ConversationEnded: the conversation has ended.
            StateError: no such advice is open, or the state was made by another model.
        """
        self._check(state)
        policy, decision = self.policy.acknowledge(state.policy, act, max(0, state.turns - 1))
        return replace(state, policy=policy), decision

    def _check(self, state: ConversationState) -> None:
        if state.model != self.model:
            raise StateError(f"found a state of model {state.model}, expected {self.model}")
        if state.memory.shape != (self.scorer.manifest.memory_size,):
            raise StateError(f"found a memory of {state.memory.size} numbers, expected {self.scorer.manifest.memory_size}")
        if state.policy.ended_at is not None:
            raise ConversationEnded(state.policy.ended_at)

    def observe_all(self, messages: Iterable[Message]) -> ConversationState:
        """The state after `messages`, from the start; stops at an end."""
        state = self.start()
        for message in messages:
            state, _ = self.observe(state, message.role, message.content)
            if state.ended:
                break
        return state

    def score(self, dialogue: Dialogue, mode: Mode = "enforce") -> ScoredDialogue:
        """Scores a whole stored dialogue, judged exactly as the live conversation would have been.

        Turns after an end are still scored; their decision stays `end` with the reason `already_ended`.

        Args:
            dialogue: with or without labels.
            mode: in which it is judged, whatever the monitor's own mode.

        Raises:
            ScoringError: a turn could not be scored.
        """
        memory, scores = self.scorer.initial_memory(), []
        for index, message in enumerate(dialogue.messages):
            score, memory = self.scorer.score(message.role, message.content, memory, index)
            scores.append(score)
        policy = self.policy.in_mode(mode)
        return assemble(dialogue.id, self.model, judge(policy, scores), policy, dialogue.source, _truth(dialogue, policy.config))


def judge(policy: DecisionPolicy, scores: Iterable[TurnScore]) -> Iterator[tuple[TurnScore, Decision]]:
    """Each score with its explained decision, from the start of a conversation. Raises `ScoringError`."""
    state = policy.start()
    for score in scores:
        after, decision = policy.step(state, score)
        yield score, explained(policy, state, after, score, decision)
        state = after


def assemble(
    dialogue_id: str,
    model: str,
    turns: Iterable[tuple[TurnScore, Decision]],
    policy: DecisionPolicy | None = None,
    source: str = "",
    meta: Mapping[str, Any] | None = None,
) -> ScoredDialogue:
    """Scores and decisions as the scored output of one conversation."""
    scored = tuple(ScoredTurn(s.index, s.role, s.scores, s.windows, None if d.reason == "not_scored" else d) for s, d in turns)
    ended_at = next((turn.index for turn in scored if turn.decision is not None and turn.decision.call == "end"), None)
    would_end_at = next((turn.index for turn in scored if turn.decision is not None and turn.decision.would_call == "end"), None)
    call: Call = "continue" if ended_at is None else "end"
    mode: Mode = "enforce" if policy is None else policy.mode
    distress = tuple(t.index for t in scored if policy is not None and policy.distressed(TurnScore(t.index, t.role, t.scores)))
    return ScoredDialogue(dialogue_id, model, call, ended_at, scored, mode, would_end_at, distress, source, meta or {}, "" if policy is None else policy.digest)


def decide(scored: ScoredDialogue, policy: DecisionPolicy, mode: Mode = "enforce") -> ScoredDialogue:
    """Decides again from stored scores; no model is needed.

    Args:
        scored: as stored.
        policy: the rules.
        mode: in which it is judged, whatever the policy's own mode.

    Raises:
        ScoringError: the scores lack a label that the policy reads.
    """
    scores = [TurnScore(turn.index, turn.role, turn.scores, turn.windows) for turn in scored.turns]
    policy = policy.in_mode(mode)
    return assemble(scored.id, scored.model, judge(policy, scores), policy, scored.source, scored.meta)


def _truth(dialogue: Dialogue, config: PolicyConfig) -> dict[str, Any]:
    """What measuring needs of `meta`. A dialogue whose every user turn is labelled as free of all triggers must go on, also if `meta` does not say so.

    Free of all: `harm`, which is the highest of them, is known and below 0.5, or every single trigger is.
    """
    truth = {name: dialogue.meta[name] for name in MEASURED_META if name in dialogue.meta}
    users = [message.labels for message in dialogue.messages if message.role == "user"]
    if "call" not in truth and users and all(_free(labels, config.triggers) for labels in users):
        truth["call"] = "continue"
    return truth


def _free(labels: Mapping[str, float], triggers: Sequence[str]) -> bool:
    known = [labels[name] for name in triggers if name in labels]
    return bool(known) and max(known) < 0.5 and (len(known) == len(triggers) or "harm" in labels)


def _check_labels(scorer: TurnScorer, config: PolicyConfig) -> None:
    manifest = scorer.manifest
    wanted = {"user": config.user_labels, "assistant": config.assistant_labels}
    for speaker, names in wanted.items():
        known = {label.name for label in manifest.labels if label.speaker == speaker}
        if missing := [name for name in names if name not in known]:
            raise ConfigError(f"policy: found the {speaker} labels {', '.join(missing)}, expected only labels of {manifest.tag}: {', '.join(sorted(known))}")


def load(model: str | Path | None = None, *, policy: str | Path | PolicyConfig | None = None, mode: Mode | None = None) -> Monitor:
    """Loads a model folder and a policy.

    Args:
        model: a model folder; None for the shipped model.
        policy: a policy file or object; None for the one in the model's manifest.
        mode: how far live decisions act: `off`, `shadow`, `advise` or `enforce`; None for the policy's own.

    Returns:
        A monitor, ready to use.

    Raises:
        ArtifactError: the folder is incomplete, altered or of another version.
        ConfigError: the policy or the mode is not valid or does not fit the model.
    """
    if mode is not None and mode not in get_args(Mode):
        raise ConfigError(f"mode: found {mode!r}, expected one of {', '.join(get_args(Mode))}")
    folder = load_folder(shipped_model() if model is None else model)
    if isinstance(policy, PolicyConfig):
        config = policy
    elif policy is not None:
        config = read_policy(policy)
    else:
        config = parse_policy(folder.manifest.policy, where=f"{folder.path}/manifest.json: policy")
    return Monitor(TurnScorer(folder), DecisionPolicy(config, mode))
