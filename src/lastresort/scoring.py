"""A turn becomes scores. One shared ONNX session, no state of its own: memory goes in and comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .artifact import INPUTS, OUTPUTS, ModelFolder, load_folder
from .encoding import TOKEN_TYPE, TurnEncoder
from .errors import ArtifactError, ScoringError
from .types import Role, TurnScore

Memory = npt.NDArray[np.float32]
"""What the network carries from turn to turn; shape (memory_size,), read-only by convention."""


class TurnScorer:
    """Scores one turn at a time. One object serves any number of conversations and threads.

    Each turn is a run of its own (batch size 1), so its scores depend on nothing but the model, the text, the role and the memory.
    """

    def __init__(self, folder: ModelFolder) -> None:
        """Builds the session.

        Args:
            folder: verified by `artifact.load_folder`.

        Raises:
            ArtifactError: the graph cannot be loaded or does not fit the manifest.
        """
        import onnxruntime as ort  # here, so that deciding from stored scores needs no runtime

        self.manifest = folder.manifest
        self.encoder = TurnEncoder.from_file(folder.tokenizer_path, self.manifest.encoding)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(str(folder.model_path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime raises many unrelated types
            raise ArtifactError(f"{folder.model_path}: cannot be loaded as ONNX: {error}") from None
        inputs = tuple(value.name for value in self._session.get_inputs())
        outputs = tuple(value.name for value in self._session.get_outputs())
        if inputs != INPUTS or outputs != OUTPUTS:
            raise ArtifactError(f"{folder.model_path}: found inputs {inputs} and outputs {outputs}, expected {INPUTS} and {OUTPUTS}")
        sizes = ((self._session.get_inputs()[3], self.manifest.memory_size), (self._session.get_outputs()[0], len(self.manifest.labels)))
        for value, expected in sizes:
            if value.shape[-1] != expected:
                raise ArtifactError(f"{folder.model_path}: {value.name}: found size {value.shape[-1]}, expected {expected} as in the manifest")
        self._columns: dict[Role, list[tuple[int, str]]] = {role: [] for role in TOKEN_TYPE}
        for column, label in enumerate(self.manifest.labels):
            self._columns[label.speaker].append((column, label.name))

    @classmethod
    def load(cls, path: str | Path) -> TurnScorer:
        """Verifies and loads a model folder. Raises `ArtifactError`."""
        return cls(load_folder(path))

    def initial_memory(self) -> Memory:
        """The memory before the first turn: zeros, shape (memory_size,)."""
        return np.zeros(self.manifest.memory_size, dtype=np.float32)

    def score(self, role: Role, text: str, memory: Memory, index: int = 0) -> tuple[TurnScore, Memory]:
        """Scores one turn.

        A turn longer than the token budget is read as overlapping windows, memory flowing through, the highest score of each label kept.
        System and tool turns are carried: no scores, memory unchanged.

        Args:
            role: who speaks.
            text: any string, also empty.
            memory: as returned for the turn before; shape (memory_size,). Not changed.
            index: position of the turn, for the result.

        Returns:
            The score and the new memory.

        Raises:
            ScoringError: the memory does not fit, the run failed, or a number is not finite.
        """
        if role not in TOKEN_TYPE:
            return TurnScore(index, role, {}, windows=0), memory
        if memory.shape != (self.manifest.memory_size,):
            raise ScoringError(f"found memory of shape {memory.shape}, expected ({self.manifest.memory_size},)")
        windows = self.encoder.windows(text)
        best: npt.NDArray[np.float32] | None = None
        carried = memory.reshape(1, -1).astype(np.float32, copy=False)
        for ids in windows:
            probabilities, carried = self._run(ids, TOKEN_TYPE[role], carried)
            if not (np.isfinite(probabilities).all() and np.isfinite(carried).all()):  # of each window: the maximum would hide a minus infinity
                raise ScoringError(f"turn {index}: found numbers that are not finite, expected probabilities; nothing was decided on them")
            best = probabilities if best is None else np.maximum(best, probabilities)
        assert best is not None  # windows() gives at least one
        scores = {name: float(best[0, column]) for column, name in self._columns[role]}
        return TurnScore(index, role, scores, windows=len(windows)), carried[0]

    def _run(self, ids: list[int], token_type: int, memory: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """One window through the graph: probabilities (1, labels) and new memory (1, memory_size)."""
        tokens = np.asarray([ids], dtype=np.int64)
        feed: dict[str, Any] = {
            "input_ids": tokens,
            "attention_mask": np.ones_like(tokens),
            "token_type_ids": np.full_like(tokens, token_type),
            "memory": memory,
        }
        try:
            probabilities, new_memory = self._session.run(OUTPUTS, feed)
        except Exception as error:  # the runtime raises many unrelated types
            raise ScoringError(f"the model run failed: {error}") from None
        return np.asarray(probabilities, dtype=np.float32), np.asarray(new_memory, dtype=np.float32)
