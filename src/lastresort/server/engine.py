"""Messages become scores and decisions, through the library; counts them, and keeps the limits."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from lastresort.conversation import ConversationState, Monitor
from lastresort.explain import explained
from lastresort.types import Call, Decision, Role, ScoredTurn, TurnScore
from lastresort.wire import CourseRequest, DecideAnswer, ModerationAnswer, ModerationRequest, ModerationResult, Said, ScoreAnswer

from .errors import ApiError
from .pool import Deadline
from .settings import ServerSettings
from .telemetry import Metrics
from .tokens import StateSigner

CATEGORIES: dict[str, tuple[str, ...]] = {
    "harassment": ("assistant_abuse", "sexual_harassment"),
    "harassment/threatening": (),
    "hate": ("hate",),
    "hate/threatening": (),
    "illicit": ("other_harm", "mass_harm"),
    "illicit/violent": ("mass_harm",),
    "self-harm": ("self_harm_risk",),
    "self-harm/instructions": (),
    "self-harm/intent": ("self_harm_risk",),
    "sexual": ("sexual_content",),
    "sexual/minors": ("sexual_minors",),
    "violence": ("violence", "violent_intent"),
    "violence/graphic": (),
}
"""OpenAI's categories to the labels that cover them."""
NOT_SCORED = Decision("continue", "none", "not_scored")


@dataclass(frozen=True)
class Course:
    """What came of some messages: the state after them, each turn, and the decision on the last."""

    state: ConversationState
    turns: tuple[ScoredTurn, ...]
    decision: Decision


class Engine:
    """Thread-safe; holds no conversation."""

    def __init__(self, monitor: Monitor, signer: StateSigner, metrics: Metrics, settings: ServerSettings) -> None:
        self.monitor, self.signer, self._metrics, self._settings = monitor, signer, metrics, settings

    def warm_up(self) -> None:
        """Scores a turn of each speaker, so that the first request finds everything loaded. Counts nothing."""
        state = self.monitor.start()
        for role in ("user", "assistant"):
            state, _ = self.monitor.observe(state, "user" if role == "user" else "assistant", "Hello.")

    def check_limits(self, texts: Sequence[str], *, name: str = "messages") -> None:
        """Raises `ApiError` (422) for too many texts or characters."""
        if len(texts) > self._settings.max_messages:
            raise ApiError(422, "too_many_messages", f"{name}: found {len(texts)}, expected at most {self._settings.max_messages}", field=name)
        length, limit = sum(map(len, texts)), self._settings.max_characters
        if length > limit:
            raise ApiError(422, "too_many_characters", f"{name}: found {length} characters, expected at most {limit} in one request", field=name)

    def observe(self, state: ConversationState, role: Role, content: str) -> tuple[ConversationState, Decision]:
        """One turn, measured and not yet counted; raises as `Monitor.observe`."""
        with self._metrics.turn():
            return self.monitor.observe(state, role, content)

    def run(self, state: ConversationState, messages: Sequence[Said], deadline: Deadline) -> Course:
        """Takes messages one after another, exactly as `Monitor.score` would.

        Raises:
            ConversationEnded: the conversation had ended before the first of them. Messages after an end among them are scored and decide nothing.
            ApiError: the time is up.
        """
        turns: list[ScoredTurn] = []
        memory = state.memory
        decision = NOT_SCORED
        for place, message in enumerate(messages):
            deadline.check()
            if place and state.ended:
                score, memory = self.monitor.scorer.score(message.role, message.content, memory, turns[-1].index + 1)
                policy, decision = self.monitor.policy.step(state.policy, score)
                decision = explained(self.monitor.policy, state.policy, policy, score, decision)
            else:
                state, decision = self.observe(state, message.role, message.content)
                memory, score = state.memory, state.score or TurnScore(state.turns - 1, message.role, {}, windows=0)
            turns.append(ScoredTurn(score.index, score.role, score.scores, score.windows, None if decision.reason == "not_scored" else decision))
        return Course(state, tuple(turns), decision)

    def course(self, request: CourseRequest, deadline: Deadline) -> Course:
        """What a request for scores or decisions asks for."""
        if request.messages is not None:
            return self.run(self.monitor.start(), request.messages, deadline)
        assert request.message is not None  # its dataclass says so
        state = self.monitor.start() if request.state is None else self.signer.read(request.state)
        return self.run(state, (request.message,), deadline)

    def score(self, request: CourseRequest, deadline: Deadline) -> ScoreAnswer:
        """`POST /v1/score`."""
        course = self.course(request, deadline)
        turns = tuple(TurnScore(turn.index, turn.role, turn.scores, turn.windows) for turn in course.turns)
        for turn in turns:
            self._metrics.scored(turn)
        return ScoreAnswer(self.monitor.model, turns, self.signer.write(course.state))

    def decide(self, request: CourseRequest, deadline: Deadline) -> DecideAnswer:
        """`POST /v1/decide`."""
        course = self.course(request, deadline)
        for turn in course.turns:
            self._metrics.scored(turn)
            self._metrics.decided(turn.decision or NOT_SCORED)
        ended_at = course.state.policy.ended_at
        call: Call = "continue" if ended_at is None else "end"
        return DecideAnswer(self.monitor.model, self.monitor.policy.mode, call, ended_at, course.decision, course.turns, self.signer.write(course.state))

    def texts(self, request: ModerationRequest) -> list[str]:
        """What is moderated, one text a result. Raises `ApiError` (422) for what is no text."""
        if isinstance(request.input, str):
            return [request.input]
        if not request.input:
            raise ApiError(422, "invalid_request", "input: found an empty list, expected at least one text", field="input")
        texts, parts = [], []
        for item in request.input:
            if isinstance(item, str):
                texts.append(item)
            elif item.type == "text" and item.text is not None:
                parts.append(item.text)
            else:
                raise ApiError(422, "unsupported_input", "input: found a part that is no text, expected parts of the type text", field="input")
        return [*texts, *(["\n".join(parts)] if parts else [])]

    def moderate(self, texts: Sequence[str], deadline: Deadline) -> ModerationAnswer:
        """`POST /v1/moderations`: each text as the first turn of a user."""
        results = []
        for text in texts:
            deadline.check()
            score, _ = self.monitor.scorer.score("user", text, self.monitor.scorer.initial_memory())
            self._metrics.scored(score)
            results.append(self._moderated(score))
        return ModerationAnswer("modr-" + secrets.token_hex(12), self.monitor.model, tuple(results))

    def _moderated(self, score: TurnScore) -> ModerationResult:
        labels = {label.name: label for label in self.monitor.scorer.manifest.labels_of("user")}
        reached = {name: score.scores[name] >= label.threshold for name, label in labels.items()}
        flags: dict[str, bool] = {}
        scores: dict[str, float] = {}
        kinds: dict[str, tuple[str, ...]] = {}
        for category, names in {**CATEGORIES, **{f"lastresort/{name}": (name,) for name in labels}}.items():
            known = [name for name in names if name in labels]
            flags[category] = any(reached[name] for name in known)
            scores[category] = max((score.scores[name] for name in known), default=0.0)
            kinds[category] = ("text",) if known else ()
        flagged = any(flags[name] for name in CATEGORIES) or any(reached[name] for name, label in labels.items() if label.role != "signal")
        return ModerationResult(flagged, flags, scores, kinds)
