"""The rooms of the runtime: who may import whom, what is never loaded, and which names are public."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import lastresort

PACKAGE = Path(lastresort.__file__).parent

LAYERS: list[set[str]] = [
    {"errors"},
    {"types"},
    {"files"},
    {"config", "data", "encoding", "artifact", "wire"},
    {"scoring", "policy", "metrics"},
    {"explain"},
    {"conversation", "calibration", "evaluation"},
    {"tree"},
    {"batch"},
    {"report", "server", "client", "engine_ray"},
    {"bench"},
    {"cli"},
    {"__main__"},
]
"""Lowest first; a room imports only from layers below its own. As in the architecture page."""

EXCEPTIONS = {("artifact", "config"), ("artifact", "encoding")}
"""The one room that imports siblings: the manifest holds settings and the encoding's budget."""

PUBLIC = {
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
}

NEVER = {"torch", "transformers", "datasets", "accelerate", "lastresort_training", "lastresort_data"}


def module_name(path: Path) -> str:
    """The dotted name of a file of the package."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)
MODULES = [module_name(path) for path in FILES]


def room(module: str) -> str:
    """`lastresort.server.app` is in the room `server`; the package itself has no name."""
    return [*module.split("."), ""][1]


def layer(name: str) -> int:
    """The layer of a room; a new room must be given one."""
    found = [index for index, rooms in enumerate(LAYERS) if name in rooms]
    assert found, f"{name} is a new room: give it a layer in LAYERS and in the linter's contract"
    return found[0]


def imported(path: Path) -> set[str]:
    """Absolute names of all modules that a file imports, anywhere in it, also for type checking only."""
    package = module_name(path).split(".") if path.name == "__init__.py" else module_name(path).split(".")[:-1]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])]) if node.level else str(node.module)
            names |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base for alias in node.names}
    return names


def loaded_after(statement: str) -> set[str]:
    """Top-level modules in a fresh interpreter after `statement`."""
    code = f"import sys\n{statement}\nprint('\\n'.join(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    search = os.pathsep.join([str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": search})
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return set(done.stdout.split())


def test_there_is_something_to_look_at() -> None:
    assert {"lastresort", "lastresort.policy", "lastresort.batch"} <= set(MODULES)


@pytest.mark.parametrize("path", FILES, ids=MODULES)
def test_imports_go_in_one_direction(path: Path) -> None:
    own = room(module_name(path))
    others = {room(name) for name in imported(path) if name.split(".")[0] == "lastresort"} - {own, ""}
    if own == "":  # the package's face may name every room
        assert {layer(name) for name in others} <= set(range(len(LAYERS)))
        return
    wrong = {(own, other) for other in others if layer(other) >= layer(own)} - EXCEPTIONS
    assert wrong == set()


def test_the_exceptions_are_in_use() -> None:
    others = {room(name) for name in imported(PACKAGE / "artifact.py")}
    assert {("artifact", other) for other in others} >= EXCEPTIONS


def test_the_policy_knows_nothing_of_models_or_text() -> None:
    assert {room(name) for name in imported(PACKAGE / "policy.py") if name.startswith("lastresort.")} == {"config", "errors", "types"}


@pytest.mark.parametrize("path", FILES, ids=MODULES)
def test_no_file_names_a_training_library(path: Path) -> None:
    assert {name.split(".")[0] for name in imported(path)} & NEVER == set()


@pytest.mark.parametrize("module", MODULES)
def test_each_module_imports_alone_and_loads_no_training_library(module: str) -> None:
    if module.endswith("__main__"):
        pytest.skip("running it is its purpose")
    assert loaded_after(f"import {module}") & NEVER == set()


def test_importing_lastresort_alone_loads_neither_numpy_nor_onnxruntime() -> None:
    assert loaded_after("import lastresort") & {"numpy", "onnxruntime", "tokenizers", "pydantic", "yaml", "typer", "rich"} == set()


def test_the_policy_loads_neither_numpy_nor_onnxruntime() -> None:
    assert loaded_after("import lastresort.policy") & {"numpy", "onnxruntime", "tokenizers"} == set()


def test_importing_configures_no_logging_and_no_warnings() -> None:
    probe = (
        "import logging, warnings; before = (list(logging.getLogger().handlers), logging.getLogger().level, list(warnings.filters))\n"
        "import lastresort.batch\n"
        "assert before[:2] == (list(logging.getLogger().handlers), logging.getLogger().level)\n"
    )
    assert "lastresort" in loaded_after(probe)


def test_the_public_names_are_the_documented_ones() -> None:
    assert set(lastresort.__all__) == PUBLIC
    assert list(lastresort.__all__) == sorted(lastresort.__all__)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_each_public_name_resolves(name: str) -> None:
    value = getattr(lastresort, name)
    assert getattr(value, "__name__", name) == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        lastresort.no_such_name  # noqa: B018


def test_the_errors_are_one_tree() -> None:
    errors = [getattr(lastresort, name) for name in PUBLIC if isinstance(getattr(lastresort, name), type) and issubclass(getattr(lastresort, name), Exception)]
    assert len(errors) == 9
    assert all(issubclass(error, lastresort.LastResortError) for error in errors)
