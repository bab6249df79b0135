"""A conversation as it happens: state = memory + policy state, immutable; an older state is a branch.

One `Monitor` serves any number of conversations and threads: it holds the model and the policy, never a conversation.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .artifact import load_folder, shipped_model
from .errors import ConfigError, ConversationEnded, StateError
from .policy import DecisionPolicy, PolicyConfig, PolicyState, parse_policy, read_policy, state_from_json, state_to_json
from .scoring import Memory, TurnScorer
from .types import ROLES, Decision, Dialogue, Message, Role, ScoredDialogue, ScoredTurn, TurnScore

STATE_VERSION = 1


@dataclass(frozen=True, eq=False)
class ConversationState:
    """Everything that is remembered of a conversation; about 1 kB as JSON. Never changed in place.

    Attributes:
        model: `name@digest8` of the model that made the memory.
        memory: what the network carries; float32, shape (memory_size,).
        policy: the policy's counters.
        turns: how many messages have been observed.
        score: of the newest message, or None before the first.
    """

    model: str
    memory: Memory
    policy: PolicyState
    turns: int = 0
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
        record = {"version": STATE_VERSION, "model": self.model, "turns": self.turns, "memory": memory, "policy": state_to_json(self.policy)}
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
            turns, model = record["turns"], record["model"]
        except (ValueError, KeyError, TypeError, RecursionError, binascii.Error, ConfigError) as error:
            raise StateError(f"state: cannot be read ({type(error).__name__}), expected the output of to_json") from None
        if type(turns) is not int or turns < 0 or not isinstance(model, str) or not np.isfinite(memory).all():
            raise StateError("state: found turns, model or memory out of range, expected the output of to_json")
        return cls(model, memory, policy, turns)


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

    def observe(self, state: ConversationState, role: Role, content: str) -> tuple[ConversationState, Decision]:
        """Takes the newest turn of a conversation.

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
        if state.model != self.model:
            raise StateError(f"found a state of model {state.model}, expected {self.model}")
        if state.memory.shape != (self.scorer.manifest.memory_size,):
            raise StateError(f"found a memory of {state.memory.size} numbers, expected {self.scorer.manifest.memory_size}")
        if role not in ROLES:
            raise StateError(f"role: found {role!r}, expected one of {', '.join(ROLES)}")
        if state.ended:
            where = f"this conversation ended at message {state.policy.ended_at}"
            raise ConversationEnded(f"{where}; edit an earlier message to branch, or start a new conversation")
        return self._step(state, role, content)

    def _step(self, state: ConversationState, role: Role, content: str) -> tuple[ConversationState, Decision]:
        score, memory = self.scorer.score(role, content, state.memory, state.turns)
        policy, decision = self.policy.step(state.policy, score)
        return replace(state, memory=memory, policy=policy, turns=state.turns + 1, score=score), decision

    def observe_all(self, messages: Iterable[Message]) -> ConversationState:
        """The state after `messages`, from the start; stops at an end."""
        state = self.start()
        for message in messages:
            state, _ = self.observe(state, message.role, message.content)
            if state.ended:
                break
        return state

    def score(self, dialogue: Dialogue) -> ScoredDialogue:
        """Scores a whole stored dialogue, judged exactly as the live conversation would have been.

        Turns after an end are still scored; their decision stays `end` with the reason `already_ended`.

        Raises:
            ScoringError: a turn could not be scored.
        """
        state, turns = self.start(), []
        for message in dialogue.messages:
            state, decision = self._step(state, message.role, message.content)
            assert state.score is not None  # set by every step
            turns.append((state.score, decision))
        return assemble(dialogue.id, self.model, turns)


def assemble(dialogue_id: str, model: str, turns: Iterable[tuple[TurnScore, Decision]]) -> ScoredDialogue:
    """Scores and decisions as the scored output of one conversation."""
    scored = tuple(ScoredTurn(s.index, s.role, s.scores, s.windows, None if d.reason == "not_scored" else d) for s, d in turns)
    ended_at = next((turn.index for turn in scored if turn.decision is not None and turn.decision.call == "end"), None)
    return ScoredDialogue(dialogue_id, model, "continue" if ended_at is None else "end", ended_at, scored)


def decide(scored: ScoredDialogue, policy: DecisionPolicy) -> ScoredDialogue:
    """Decides again from stored scores; no model is needed.

    Raises:
        ScoringError: the scores lack a label that the policy reads.
    """
    scores = [TurnScore(turn.index, turn.role, turn.scores, turn.windows) for turn in scored.turns]
    return assemble(scored.id, scored.model, zip(scores, policy.run(scores), strict=True))


def _check_labels(scorer: TurnScorer, config: PolicyConfig) -> None:
    manifest = scorer.manifest
    wanted = {"user": config.user_labels, "assistant": (config.redirection_label,)}
    for speaker, names in wanted.items():
        known = {label.name for label in manifest.labels if label.speaker == speaker}
        if missing := [name for name in names if name not in known]:
            raise ConfigError(f"policy: found the {speaker} labels {', '.join(missing)}, expected only labels of {manifest.tag}: {', '.join(sorted(known))}")


def load(model: str | Path | None = None, *, policy: str | Path | PolicyConfig | None = None) -> Monitor:
    """Loads a model folder and a policy.

    Args:
        model: a model folder; None for the shipped model.
        policy: a policy file or object; None for the one in the model's manifest.

    Returns:
        A monitor, ready to use.

    Raises:
        ArtifactError: the folder is incomplete, altered or of another version.
        ConfigError: the policy is not valid or does not fit the model.
    """
    folder = load_folder(shipped_model() if model is None else model)
    if isinstance(policy, PolicyConfig):
        config = policy
    elif policy is not None:
        config = read_policy(policy)
    else:
        config = parse_policy(folder.manifest.policy, where=f"{folder.path}/manifest.json: policy")
    return Monitor(TurnScorer(folder), DecisionPolicy(config))
