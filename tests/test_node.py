"""The Node.js example (tests/node) gives the scores that Python gives. Skips, and says why, where Node.js or its packages are missing."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from lastresort.artifact import MODEL, load_folder, read_manifest, shipped_model, write_manifest
from lastresort.data import read_dialogues
from lastresort.scoring import TurnScorer
from lastresort.types import Dialogue, Message, Role

NODE = Path(__file__).parent / "node"
CLOSE = 1e-4
TEXTS = [
    "",
    "Café naïve, Ångström, ΟΔΥΣΣΕΥΣ, İstanbul ısı, straße ẞ",
    "cafe\u0301 \ufb01ne \uff46ull \u2460 ſo",
    "id\u200bi\u00adot\ufeff \u202eyou\u202c",
    "see https://example.org/a?b=c#d and WWW.example.org/ü, wwww.no, ftp://x",
    "@somebody_1 and a@b.c, x.@y, @\u0301a, @ab\u0301c, é@xyz",
    "[SEP] [CLS] [UNK] ##ing [MASK]",
    "don't---stop... 3.14 $5 a+b <tag> `x` ^_^ ~",
    "日本語 한국어 العربية हिन्दी \U00020000\U0002b820",
    "you😂clown🤡🤡 👍🏽 🇫🇷🇫🇷 🇦🇦🇧 👩\u200d💻 ❤\ufe0f ™",
    "a" * 5000,
    "x" * 99 + "@handle " + "y" * 99 + "https://example.org",
    "a\x1cb\x85c\u3000d\u2028e\x00f\ufffdg\ud800h",
    "flour and salt, twice a day. " * 120,
]


@pytest.fixture(scope="module")
def node() -> str:
    """The interpreter, once the example's packages are known to load."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("no node in PATH: the Node.js example is not tested")
    check = "await import('onnxruntime-node'); await import('@huggingface/tokenizers')"
    loaded = subprocess.run([found, "--input-type=module", "-e", check], cwd=NODE, capture_output=True, text=True, check=False)
    if loaded.returncode:
        reason = next((line for line in loaded.stderr.splitlines() if "Error" in line), "")
        pytest.skip(f"the packages of tests/node do not load ({reason}); `cd tests/node && npm ci` installs them: the Node.js example is not tested")
    return found


@pytest.fixture
def score(node: str, tmp_path: Path) -> Callable[[Path, list[Dialogue]], list[dict[str, Any]]]:
    """Scores dialogues with the example."""

    def run(folder: Path, dialogues: list[Dialogue]) -> list[dict[str, Any]]:
        source = tmp_path / "dialogues.jsonl"
        source.write_text("".join(json.dumps({"id": d.id, "messages": [asdict(m) for m in d.messages]}) + "\n" for d in dialogues), encoding="utf-8")
        done = subprocess.run([node, "score.mjs", str(folder), str(source)], cwd=NODE, capture_output=True, text=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


def odd() -> list[Dialogue]:
    """Every odd text as the user's and as the assistant's, in one conversation, with turns between them that are carried."""
    roles: tuple[Role, ...] = ("user", "system", "assistant", "tool")
    return [Dialogue("odd", tuple(Message(role, text) for text in TEXTS for role in roles))]


def differences(folder: Path, dialogues: list[Dialogue], found: list[dict[str, Any]]) -> float:
    """Largest difference from Python's scores; everything else must be equal."""
    scorer, worst = TurnScorer(load_folder(folder)), 0.0
    assert [line["id"] for line in found] == [dialogue.id for dialogue in dialogues]
    for dialogue, line in zip(dialogues, found, strict=True):
        memory = scorer.initial_memory()
        for index, (message, turn) in enumerate(zip(dialogue.messages, line["turns"], strict=True)):
            score, memory = scorer.score(message.role, message.content, memory, index)
            assert (turn["index"], turn["role"], turn["windows"]) == (index, message.role, score.windows)
            assert list(turn["scores"]) == list(score.scores)
            worst = max([worst, *(abs(turn["scores"][name] - value) for name, value in score.scores.items())])
    return worst


def test_the_shipped_model_scores_the_sample_as_in_python(score: Callable[..., list[dict[str, Any]]], sample_path: Path) -> None:
    dialogues = [*read_dialogues(sample_path), *odd()]
    assert differences(shipped_model(), dialogues, score(shipped_model(), dialogues)) < CLOSE


@pytest.mark.parametrize("emoji_names", [False, True])
def test_odd_texts_and_many_windows(emoji_names: bool, score: Callable[..., list[dict[str, Any]]], tiny_path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_path, folder)
    manifest = read_manifest(folder)
    write_manifest(folder, replace(manifest, encoding=replace(manifest.encoding, emoji_names=emoji_names)))
    found = score(folder, odd())
    assert differences(folder, odd(), found) < CLOSE
    assert max(turn["windows"] for turn in found[0]["turns"]) > 5


def test_an_altered_model_is_refused(node: str, tiny_path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_path, folder)
    (folder / MODEL).write_bytes((folder / MODEL).read_bytes()[:-1])
    done = subprocess.run([node, "score.mjs", str(folder)], cwd=NODE, input="", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "model.onnx: found sha256" in done.stderr


@pytest.mark.parametrize("role", ["constructor", "robot"])
def test_an_unknown_role_is_refused(node: str, tiny_path: Path, role: str) -> None:
    line = json.dumps({"id": "c1", "messages": [{"role": "user", "content": "Hello."}, {"role": role, "content": "x"}]})
    done = subprocess.run([node, "score.mjs", str(tiny_path)], cwd=NODE, input=line, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f'c1: messages.1: role: found "{role}", expected one of user, assistant, system, tool\n'
