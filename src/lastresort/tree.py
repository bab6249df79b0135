"""A conversation with its branches, for hosts whose users edit and retry (B8, B9).

Every turn keeps the state after it: a branch begins exactly where its parent stood, and nothing that happened on another branch is remembered. No text is kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .conversation import ConversationState, Monitor
from .data import STRICT, dumps, iter_records
from .errors import DataError, StateError
from .types import Act, Decision, Role


@dataclass(frozen=True)
class Turn:
    """One turn of a tree.

    Attributes:
        id: unique within the tree.
        parent: id of the turn before it, or None for a first one.
        role: who spoke.
        state: after it, and after what the host acknowledged on it.
        decision: on it; after an acknowledgement, the decision on that.
    """

    id: str
    parent: str | None
    role: Role
    state: ConversationState
    decision: Decision

    @property
    def ended(self) -> bool:
        """Whether the conversation ended here."""
        return self.state.ended


class ConversationTree:
    """Turns with ids and parents. Belongs to one conversation and one thread at a time; the monitor may be shared."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self._turns: dict[str, Turn] = {}

    @property
    def head(self) -> str | None:
        """Id of the turn that was made last, after which `append` goes on; None before the first."""
        return next(reversed(self._turns), None)

    def __len__(self) -> int:
        return len(self._turns)

    def __iter__(self) -> Iterator[Turn]:
        """The turns, parents before children."""
        return iter(self._turns.values())

    def __getitem__(self, turn: str) -> Turn:
        """The turn of that id. Raises `StateError`."""
        if turn not in self._turns:
            raise StateError(f"turn: found {turn!r}, expected the id of one of the {len(self)} turns of this tree")
        return self._turns[turn]

    def state(self, turn: str | None) -> ConversationState:
        """The state after a turn; of None, before the first."""
        return self.monitor.start() if turn is None else self[turn].state

    def path(self, turn: str | None) -> list[Turn]:
        """The turns from the first to `turn`: the line that it continues."""
        line: list[Turn] = []
        while turn is not None:
            line.append(self[turn])
            turn = line[-1].parent
        return line[::-1]

    def children(self, turn: str | None) -> list[Turn]:
        """The turns that follow `turn` directly, in the order in which they were made; of None, the first turns."""
        return [other for other in self if other.parent == turn]

    def append(self, role: Role, content: str, *, id: str | None = None) -> Turn:  # noqa: A002 - the host's word for it
        """Goes on after the head. See `follow`."""
        return self.follow(self.head, role, content, id=id)

    def follow(self, parent: str | None, role: Role, content: str, *, id: str | None = None) -> Turn:  # noqa: A002
        """Goes on after any turn; None begins anew.

        Args:
            parent: id of the turn before it.
            role: who speaks.
            content: the text; scored, never kept.
            id: of the new turn; None for a made one.

        Raises:
            ConversationEnded: the conversation ended at `parent`; says what to do instead. Other branches are untouched.
            StateError: there is no such turn, or the id is taken.
            ScoringError: the turn could not be scored; the tree is as before.
        """
        name = id or next(name for number in range(len(self), 2 * len(self) + 1) if (name := f"t{number}") not in self._turns)
        if name in self._turns:
            raise StateError(f"id: found {name!r}, which is in the tree already, expected a new one")
        state, decision = self.monitor.observe(self.state(parent), role, content)
        self._turns[name] = Turn(name, parent, role, state, decision)
        return self._turns[name]

    def edit(self, turn: str, content: str, *, id: str | None = None) -> Turn:  # noqa: A002
        """Another wording of a turn: a sibling with the same speaker, also in an ended conversation. Raises as `follow`."""
        return self.follow(self[turn].parent, self[turn].role, content, id=id)

    def retry(self, turn: str, content: str, *, id: str | None = None) -> Turn:  # noqa: A002
        """Another answer in place of an assistant turn.

        Raises:
            StateError: the turn is not the assistant's; otherwise as `follow`.
        """
        if self[turn].role != "assistant":
            raise StateError(f"retry: found a turn of the {self[turn].role}, expected one of the assistant; edit replaces any turn")
        return self.edit(turn, content, id=id)

    def acknowledge(self, act: Act, *, turn: str | None = None) -> Turn:
        """Records what the host did itself upon the advice on a turn (the head if None); see `Monitor.acknowledge`.

        Raises:
            StateError: the turn has been followed already, or no such advice is open.
            ConversationEnded: the conversation ended there.
        """
        old = self[turn or self.head or ""]
        if self.children(old.id):
            raise StateError(f"acknowledge: found turns after {old.id!r}, expected the last one of its branch: what followed was decided without the act")
        state, decision = self.monitor.acknowledge(old.state, act)
        self._turns[old.id] = replace(old, state=state, decision=decision)
        return self._turns[old.id]

    def to_lines(self) -> Iterator[str]:
        """The tree as JSON lines, one a turn, in the order in which they were made. No text."""
        for turn in self:
            yield dumps({**asdict(replace(turn, state=None)), "state": json.loads(turn.state.to_json())})  # type: ignore[arg-type]

    def save(self, path: str | Path) -> None:
        """Writes the tree as JSON lines."""
        Path(path).write_text("".join(line + "\n" for line in self.to_lines()), encoding="utf-8", newline="\n")

    @classmethod
    def load(cls, path: str | Path, monitor: Monitor) -> ConversationTree:
        """Reads a tree back; it goes on as if it had never been away.

        Raises:
            DataError: a line breaks the format; names file, line and field.
            StateError: the tree was made by another model.
        """
        tree = cls(monitor)
        for number, line in enumerate(iter_records(_Line, path), start=1):
            where = f"{path}: turn {number}"
            if line.id in tree._turns:
                raise DataError("found an id used before, expected a new one", where=where, field="id")
            if line.parent is not None and line.parent not in tree._turns:
                raise DataError("found the id of no earlier turn, expected parents first", where=where, field="parent")
            try:
                state = ConversationState.from_json(json.dumps(line.state))
            except StateError as error:
                raise DataError(str(error), where=where, field="state") from None
            if state.model != monitor.model:
                raise StateError(f"{where}: found a state of model {state.model}, expected {monitor.model}")
            if state.turns != len(tree.path(line.parent)) + 1:
                raise DataError(f"found {state.turns}, expected {len(tree.path(line.parent)) + 1} as its parents say", where=where, field="state.turns")
            tree._turns[line.id] = Turn(line.id, line.parent, line.role, state, line.decision)
        return tree


@dataclass(frozen=True)
class _Line:
    """A turn as it is stored."""

    id: str
    parent: str | None
    role: Role
    decision: Decision
    state: Mapping[str, Any]


_Line.__pydantic_config__ = STRICT  # type: ignore[attr-defined]
