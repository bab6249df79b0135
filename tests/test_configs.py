"""Every file under configs/ says what it is for and which command uses it, and loads with its type."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lastresort.config import read_settings
from lastresort.data import read_dialogues
from lastresort.policy import PolicyConfig, read_policy

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
FILES = sorted(path for pattern in ("*.yaml", "*.yml") for path in CONFIGS.rglob(pattern))


def load_train(path: Path) -> Any:
    from lastresort_training.config import TrainConfig

    return read_settings(TrainConfig, path)


def load_export(path: Path) -> Any:
    pytest.importorskip("torch", reason="export settings live beside the exporter, which needs torch (extra: train)")
    from lastresort_training.export import ExportSettings

    return read_settings(ExportSettings, path)


def load_data(path: Path) -> Any:
    from lastresort_data.compose import read_config

    return read_config(path)


def load_leave_out(path: Path) -> Any:
    pytest.importorskip("torch", reason="the settings live beside the runs that they describe, which need torch (extra: train)")
    from lastresort_training.leave_out import LeaveOutSettings

    return read_settings(LeaveOutSettings, path)


def load_targets(path: Path) -> Any:
    from lastresort_training.targets import TargetsConfig

    return read_settings(TargetsConfig, path)


LOADERS: dict[str, Callable[[Path], Any]] = {
    "train": load_train,
    "export": load_export,
    "policy": read_policy,
    "data": load_data,
    "leave-out": load_leave_out,
    "targets": load_targets,
}


def opening(path: Path) -> list[str]:
    """The comment lines at the beginning, without their signs."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        if not text.startswith("#"):
            break
        lines.append(text.removeprefix("#"))
    return lines


def name_of(path: Path) -> str:
    return path.relative_to(CONFIGS).as_posix()


@pytest.mark.parametrize("folder", LOADERS)
def test_there_is_something_in_each_folder(folder: str) -> None:
    assert [path for path in FILES if path.parent.name == folder]


def test_every_file_lies_in_a_folder_with_a_type() -> None:
    assert {path.relative_to(CONFIGS).parts[0] for path in FILES} == set(LOADERS)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_it_loads_with_its_type(path: Path) -> None:
    settings = LOADERS[path.relative_to(CONFIGS).parts[0]](path)
    assert type(settings).__dataclass_params__.frozen


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_it_begins_with_its_purpose_and_the_command_that_uses_it(path: Path) -> None:
    purpose, *rest = opening(path)
    assert re.match(r" [A-Z]\w+ .*[.:,;]|.{30,}", purpose), "the first line says what it is for"
    commands = [text.strip() for text in rest if text.startswith("   ")]
    assert commands, "a line with a command, indented"
    verbs = {"score", "decide", "evaluate", "inspect", *importlib.metadata.entry_points(group="lastresort.verbs").names}
    for text in commands:
        found = re.search(r"\blastresort ([\w-]+)", text)
        assert found is not None
        assert found[1] in verbs


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_file_that_the_command_names_exists(path: Path) -> None:
    for text in opening(path):
        for name in re.findall(r"(?<![\w/])(?:configs|data|training|src)/[\w/.-]+\.\w+", text):
            assert (CONFIGS.parent / name).is_file(), name


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name == "export"], ids=name_of)
def test_an_export_names_a_policy_and_golden_dialogues_that_exist(path: Path) -> None:
    settings = load_export(path)
    assert isinstance(read_policy(CONFIGS.parent / settings.policy), PolicyConfig)
    assert list(read_dialogues(CONFIGS.parent / settings.golden))


@pytest.mark.parametrize("name", ["first", "smoke"])
def test_the_policy_fits_the_labels_of_the_recipe(name: str) -> None:
    labels = {(label.speaker, label.name): label.role for label in load_train(CONFIGS / "train" / f"{name}.yaml").labels}
    policy = read_policy(CONFIGS / "policy" / f"{'default' if name == 'first' else name}.yaml")
    assert {("user", label) for label in policy.user_labels} <= set(labels)
    assert ("assistant", policy.redirection_label) in labels
    assert {labels["user", label] for label in policy.triggers} == {"trigger"}
    assert {labels["user", label] for label in policy.vetoes} == {"veto"}
    assert {label for (_, label), role in labels.items() if role == "trigger"} == set(policy.triggers)
    assert {label for (_, label), role in labels.items() if role == "veto"} == set(policy.vetoes)
