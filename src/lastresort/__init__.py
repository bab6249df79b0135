"""lastresort: decides, as a last resort and almost never wrongly, when a chat assistant may leave a conversation.

    import lastresort
    monitor = lastresort.load()
    state = monitor.start()
    state, decision = monitor.observe(state, role="user", content="…")

Scores are data; the decision is a pure function of scores. Nothing happens at import: no threads set, no logging configured, no model read.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .errors import ArtifactError, ConfigError, ConversationEnded, DataError, FalseEndAlarm, LastResortError, MissingExtraError, ScoringError, StateError
from .types import Decision, Dialogue, LabelSpec, Message, ScoredDialogue, ScoredTurn, TurnScore

if TYPE_CHECKING:
    from .conversation import ConversationState, Monitor, decide, load
    from .policy import DecisionPolicy, PolicyConfig
    from .tree import ConversationTree

__version__ = "0.1.0"

_LAZY = {
    "ConversationState": "conversation",
    "ConversationTree": "tree",
    "Monitor": "conversation",
    "decide": "conversation",
    "load": "conversation",
    "DecisionPolicy": "policy",
    "PolicyConfig": "policy",
}

__all__ = [
    "ArtifactError",
    "ConfigError",
    "ConversationEnded",
    "ConversationState",
    "ConversationTree",
    "DataError",
    "Decision",
    "DecisionPolicy",
    "Dialogue",
    "FalseEndAlarm",
    "LabelSpec",
    "LastResortError",
    "Message",
    "MissingExtraError",
    "Monitor",
    "PolicyConfig",
    "ScoredDialogue",
    "ScoredTurn",
    "ScoringError",
    "StateError",
    "TurnScore",
    "__version__",
    "decide",
    "load",
]


def __getattr__(name: str) -> Any:
    """Loads the rooms that need numpy and ONNX Runtime when first asked for, so that the import stays fast."""
    if name in _LAZY:
        return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
