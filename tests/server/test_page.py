"""The page at `/` in a real Chromium without a window, against `lastresort serve` as a process of its own."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from lastresort.artifact import load_folder, shipped_model
from lastresort.policy import parse_policy
from lastresort.server.static import FILES, FOLDER
from lastresort.types import Dialogue

from .conftest import Process, Serve

webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium: the page is not tried in a browser")
from selenium.webdriver import ActionChains, Keys  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

ENTER = parse_policy(load_folder(shipped_model()).manifest.policy, where="manifest").threshold("assistant_abuse").enter
KEY = "key-of-the-page-0123"
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage", "--no-proxy-server")
NOWHERE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
CONTRAST = """
const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
const part = (c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
const back = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] !== 0) return c; } };
const says = (e) => e.checkVisibility() && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
return [...document.querySelectorAll('body *')].filter(says).map((e) => {
  const [a, b] = [light(rgb(getComputedStyle(e).color)), light(back(e))].sort((x, y) => y - x);
  return [(a + 0.05) / (b + 0.05), e.tagName + '.' + e.className];
}).filter(([ratio]) => ratio < 4.5);
"""


class Page:
    """What a person does and sees."""

    def __init__(self, driver: Any) -> None:
        self.driver, self.width = driver, 0

    def open(self, url: str, *, width: int = 1280, dark: bool = False) -> None:
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500})
        self.width = width
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get(url)

    def start(self, url: str, **how: Any) -> None:
        self.open(url, **how)
        self.until(lambda: self.all("#scenario option"))

    def until(self, found: Callable[[], Any]) -> Any:
        return WebDriverWait(self.driver, 60).until(lambda _: found())

    def all(self, selector: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements(By.CSS_SELECTOR, selector)
        return found

    def one(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def do(self, script: str) -> Any:
        return self.driver.execute_script(script)

    def text(self, selector: str) -> str:
        return str(self.one(selector).text)

    def idle(self) -> None:
        self.until(lambda: not self.all("#talk[aria-busy]"))

    def say(self, role: str, content: str) -> None:
        """Types and sends a message."""
        count = len(self.all(".turn"))
        self.one(f"[name=role][value={role}]").click()
        self.one("#text").send_keys(content)
        self.one("#say .primary").click()
        self.until(lambda: len(self.all(".turn")) == count + 1)
        self.idle()

    def texts(self) -> list[str]:
        """In one step, since the list may be made anew meanwhile."""
        found: list[str] = self.do("return [...document.querySelectorAll('.turn .text')].map((e) => e.innerText)")
        return found

    def verdicts(self) -> list[str]:
        return [element.text.partition(" – ")[0] for element in self.all(".verdict")]

    def paste(self, text: str) -> None:
        if not self.one("#transcript").is_displayed():
            self.one("#load summary").click()
        self.driver.execute_script("document.getElementById('transcript').value = arguments[0]", text)  # key by key would take long
        self.one("#paste button").click()
        self.idle()

    def sideways(self) -> bool:
        """A page that is too wide scrolls, or a phone shows it smaller and so sees more of it."""
        return bool(self.do("return Math.max(document.documentElement.scrollWidth, innerWidth)") > self.width)

    def errors(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    browser, helper = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or helper is None:
        pytest.skip("no chromium or chromedriver (Debian: chromium, chromium-driver): the page is not tried in a browser")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for option in (*OPTIONS, NOWHERE):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(helper))
    yield running
    running.quit()


@pytest.fixture
def page(driver: Any) -> Iterator[Page]:
    yield Page(driver)
    driver.get("about:blank")
    driver.get_log("browser")


def process(*options: str, folder: Path) -> Iterator[str]:
    served = Process(*options, cwd=folder)
    yield served.url
    served.kill()
    assert served.process.stderr is not None
    served.process.stderr.close()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The shipped model, acting on its decisions."""
    yield from process("--mode", "enforce", "--store", "none", folder=tmp_path_factory.mktemp("enforce"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shadow")


@pytest.fixture(scope="module")
def locked(tiny_path: Path, folder: Path) -> Iterator[str]:
    """The tiny model in the mode shadow, with a key and a store."""
    (folder / "keys").write_text(KEY + "\n")
    options = ("--api-key-file", "keys", "--store", "sqlite:///a.db", "--store-text")
    yield from process("--model", str(tiny_path), "--mode", "shadow", *options, folder=folder)


def test_typing_a_conversation_until_the_warning_and_the_end(page: Page, url: str, sample: dict[str, Dialogue]) -> None:
    messages = sample["persistent-abuse"].messages
    page.start(url)
    assert "Nothing said yet" in page.text("#turns")
    assert page.text(".badge") == "enforce"
    for message in messages[:9]:
        page.say(message.role, message.content)
    assert page.texts() == [message.content for message in messages[:9]]
    assert page.verdicts()[-1] == "warn"
    (warning,) = page.all(".notice")
    assert "What the user sees" in warning.text
    assert "will be ended" in warning.text
    assert page.text("#now").startswith("#8 user: warn")
    assert "3 of 3" in page.text("#counts")
    assert len(page.all("#counts .pip.on")) >= 3
    for message in messages[9:11]:
        page.say(message.role, message.content)
    assert page.verdicts()[-1] == "end"
    assert page.text("#now").startswith("Ended at message #10")
    assert not page.one("#say").is_displayed()
    assert "has ended" in page.text(".notice.ended")
    assert page.do("return document.activeElement.matches('.notice.ended')")
    why = page.text("#m10 .why")
    for words in ("harm_after_warning", "call end", "Weighed", f"≥ {ENTER:.2f}", "#2", "Otherwise with"):
        assert words in why
    bars = page.text("#m10 > .bars")
    assert re.search(rf"assistant_abuse\s+0\.\d\d ≥ {ENTER:.2f}", bars), bars
    page.one("#m10 .why a").click()
    assert page.do("return document.activeElement.id") == "m2"
    page.one(".notice.ended button:last-child").click()
    assert page.all(".turn") == []
    assert page.one("#text").is_displayed()
    assert page.errors() == []


def test_an_edit_branches_and_the_siblings_stay_reachable(page: Page, url: str, sample: dict[str, Dialogue]) -> None:
    page.start(url)
    page.paste(json.dumps({"id": "c", "messages": [{"role": m.role, "content": m.content} for m in sample["persistent-abuse"].messages[:11]]}))
    before = page.texts()
    assert len(page.all(".notice.ended")) == 1
    page.one(".notice.ended button").click()  # edit that message
    editor = page.one("#m10 textarea")
    assert editor.get_attribute("value") == before[10]
    editor.clear()
    editor.send_keys("I am sorry. Could you help me with my CV?")
    page.one("#m10 .editor .primary").click()
    page.until(lambda: page.all("#m10 .versions"))
    page.idle()
    assert page.texts() == [*before[:10], "I am sorry. Could you help me with my CV?"]
    assert page.text("#m10 .versions").split() == ["‹", "2", "of", "2", "›"]
    assert page.all(".notice.ended") == []
    page.say("assistant", "Of course. What is in it?")  # the branch goes on
    page.one("#m10 .versions button").click()
    assert page.texts() == before
    assert len(page.all(".notice.ended")) == 1
    assert page.do("return document.activeElement.dataset.key") == "previous10"
    page.one("#m10 .versions button:last-child").click()
    assert page.texts()[10:] == ["I am sorry. Could you help me with my CV?", "Of course. What is in it?"]
    page.one("[data-key=edit2]").click()  # a turn in the middle, whose state nobody kept
    page.one("#m2 textarea").send_keys(Keys.ESCAPE)
    assert page.all("#m2 textarea") == []
    page.one("[data-key=edit2]").click()
    page.one("#m2 textarea").clear()
    page.one("#m2 textarea").send_keys("Thank you, that was kind.")
    page.one("#m2 .editor .primary").click()
    page.until(lambda: len(page.all(".turn")) == 3)
    assert page.texts() == [*before[:2], "Thank you, that was kind."]
    page.one("#m2 .versions button").click()
    assert len(page.texts()) == 12
    assert page.errors() == []


def test_transcripts_from_a_file_and_from_the_clipboard(page: Page, url: str, sample_path: Path, sample: dict[str, Dialogue], tmp_path: Path) -> None:
    page.start(url)
    offered = len(page.all("#scenario option"))
    page.one("#load summary").click()
    page.one("#file").send_keys(str(sample_path))
    page.until(lambda: page.all(".turn"))
    page.idle()
    assert len(page.all("#scenario option")) == offered + len(sample)
    first = next(iter(sample.values()))
    assert page.texts() == [message.content for message in first.messages]
    Select(page.one("#scenario")).select_by_visible_text("crisis-plain")
    page.one("#play button").click()
    page.until(lambda: page.texts() == [message.content for message in sample["crisis-plain"].messages])
    assert page.verdicts()[0] == "support"
    assert "at risk" in page.text("#counts")
    page.paste('[{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello."}]')
    assert page.texts() == ["Be kind.", "Hello."]
    assert page.text("#m0 .verdict") == "carried, not scored"
    for text, words in (
        ("", "Found nothing"),
        ("hello", "line 1: found no valid JSON"),
        ('{"id": "a", "messages": [{"role": "user", "content": "x"}]}\n{"id": "b"}', "line 2: messages"),
        ('[{"role": "robot", "content": "x"}]', "messages.0.role: expected one of user, assistant, system, tool"),
        ('{"messages": [{"role": "user", "content": 3}]}', "messages.0.content: expected text"),
        ('{"messages": []}', "messages: expected a list"),
        ("3", "expected a dialogue"),
    ):
        page.paste(text)
        assert words in page.text("#problem"), text
        assert page.texts() == ["Be kind.", "Hello."]  # as before
    page.paste(json.dumps([{"role": "user", "content": "x"}] * 501))
    assert "found 501, expected at most 500" in page.text("#problem")


def test_what_is_done_while_a_request_runs_is_not_lost(page: Page, url: str) -> None:
    page.start(url)
    for text in ("One.", "Two."):
        page.paste(json.dumps([{"role": "user", "content": text}]))
    assert page.text("#m0 .versions").split() == ["‹", "2", "of", "2", "›"]  # a transcript does not replace the conversation before
    page.do("const real = window.fetch; window.fetch = (...all) => new Promise((go) => (window.go = go)).then(() => real(...all))")
    page.one("#text").send_keys("Three.", Keys.ENTER)
    page.one("[data-key=previous0]").click()
    page.one("#new").click()
    page.one("#text").send_keys(" Four.")
    page.do("window.go()")
    page.until(lambda: len(page.all(".turn")) == 2)
    page.idle()
    assert page.texts() == ["Two.", "Three."]
    assert page.one("#text").get_attribute("value") == "Three. Four."
    page.one("[data-key=previous0]").click()
    assert page.texts() == ["One."]
    page.one("#new").click()
    assert page.all(".turn") == []
    assert page.errors() == []


def test_choosing_a_scenario(page: Page, url: str) -> None:
    page.start(url)
    data = json.loads((FOLDER / "data.json").read_text(encoding="utf-8"))
    dialogues = [dialogue for group in data["groups"] for dialogue in group["dialogues"]]
    assert [option.text for option in page.all("#scenario option")] == [dialogue["about"] for dialogue in dialogues]
    for name, notices in (("insults-end", ["warning", "ended"]), ("stops-at-the-warning", ["warning"]), ("asks-and-confirms", ["question", "ended"])):
        dialogue = next(one for one in dialogues if one["id"] == name)
        Select(page.one("#scenario")).select_by_visible_text(dialogue["about"])
        page.one("#play button").click()
        page.until(lambda dialogue=dialogue: page.texts() == [message["content"] for message in dialogue["messages"]])
        assert [element.get_attribute("class").split()[1] for element in page.all(".notice")] == notices


def test_it_works_by_keyboard_alone(page: Page, url: str) -> None:
    page.start(url)

    def press(*keys: str, shift: bool = False) -> None:
        chain = ActionChains(page.driver)
        if shift:
            chain.key_down(Keys.SHIFT)
        chain.send_keys(*keys)
        if shift:
            chain.key_up(Keys.SHIFT)
        chain.perform()

    def reach(selector: str, *, back: bool = False) -> None:
        for _ in range(60):
            if page.do(f"return document.activeElement.matches({json.dumps(selector)})"):
                outline = page.do("const s = getComputedStyle(document.activeElement); return [s.outlineStyle, parseFloat(s.outlineWidth)]")
                assert outline[0] != "none", selector
                assert outline[1] >= 2, selector
                return
            press(Keys.TAB, shift=back)
        raise AssertionError(f"{selector}: not reached by Tab")

    reach("#text")
    press("You are a stupid worthless machine.", Keys.ENTER)
    page.until(lambda: len(page.all(".turn")) == 1)
    page.idle()
    assert page.one("[value=assistant]").is_selected()  # the other side speaks next
    assert page.one("#now").get_attribute("aria-live") == "polite"
    assert page.text("#now").startswith("#0 user: redirect")
    reach("#suggest", back=True)
    press(Keys.SPACE)
    assert page.one("#text").get_attribute("value")
    reach("#text")
    press(Keys.ENTER)
    page.until(lambda: len(page.all(".turn")) == 2)
    page.idle()
    assert "counts as a redirection" in page.text("#m1 .verdict")
    reach("[name=role]:checked", back=True)
    press(Keys.RIGHT)
    assert page.one("[value=assistant]").is_selected()
    press(Keys.LEFT)
    assert page.one("[value=user]").is_selected()
    reach("[data-key=why0]", back=True)
    press(Keys.ENTER)
    assert "Otherwise with" in page.text("#m0 .why")
    reach("[data-key=edit0]", back=True)
    press(Keys.ENTER)
    assert page.do("return document.activeElement.dataset.key") == "editor"
    press(Keys.END, " Please.", Keys.TAB, Keys.ENTER)
    page.until(lambda: page.texts() == ["You are a stupid worthless machine. Please."])
    page.idle()
    reach("[data-key=previous0]", back=True)
    press(Keys.ENTER)
    assert len(page.all(".turn")) == 2
    reach("#scenario", back=True)
    press(Keys.DOWN)
    reach("#play button")
    press(Keys.ENTER)
    page.until(lambda: len(page.all(".turn")) > 2)
    page.idle()
    reach(".skip", back=True)
    assert page.one(".skip").is_displayed()
    press(Keys.ENTER)
    reach("#text")
    assert page.errors() == []


def test_nothing_is_asked_of_others_and_nothing_is_kept(page: Page, url: str) -> None:
    page.start(url)
    page.say("user", "Hello.")
    page.say("assistant", "Hello! What can I do for you?")
    asked = page.do("return performance.getEntries().filter((e) => ['resource', 'navigation'].includes(e.entryType)).map((e) => e.name)")
    paths = {name.removeprefix(url) for name in asked}
    assert paths <= {*FILES, "/info", "/v1/decide"}, paths
    assert {"/", "/page/app.js", "/info", "/v1/decide"} <= paths
    assert page.do("return [localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    assert page.errors() == []


def test_what_is_said_is_never_markup(page: Page, url: str) -> None:
    page.start(url)
    said = '<img src=x onerror="document.title=1"><b>bold</b>&amp;'
    page.say("user", said)
    assert page.texts() == [said]
    assert page.all("#turns img, #turns b") == []
    with pytest.raises(Exception, match="TrustedHTML"):  # the policy of the page holds also for what somebody adds to it later
        page.do("document.body.innerHTML = '<i>x</i>'")
    source = "".join(file.read_text(encoding="utf-8") for file in FOLDER.iterdir() if file.suffix in {".js", ".html"})
    assert re.findall(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|localStorage|sessionStorage|https?://| style=| on\w+=\"", source) == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_is_readable_in_both_schemes_and_never_scrolls_sideways(page: Page, url: str, width: int, dark: bool) -> None:
    page.start(url, width=width, dark=dark)
    assert not page.sideways()
    page.one("#load summary").click()
    assert not page.sideways()
    page.one("#play button").click()
    page.until(lambda: page.all(".notice.ended"))
    page.idle()
    for details in page.all(".why, .why details"):
        page.driver.execute_script("arguments[0].open = true", details)
    assert not page.sideways()
    assert page.do(CONTRAST) == []
    page.one(".notice.ended button").click()
    assert not page.sideways()
    page.one("#new").click()
    page.say("user", "A" * 300)
    assert not page.sideways()
    shade = page.do("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (max(shade) < 60) if dark else (min(shade) > 230)
    assert page.do("return getComputedStyle(document.documentElement).colorScheme") == "light dark"


def test_a_key_is_asked_for_and_kept_in_memory_only(page: Page, locked: str, folder: Path, sample: dict[str, Dialogue]) -> None:
    page.open(locked)
    page.until(lambda: page.one("#ask").is_displayed())
    page.one("#key").send_keys("ключ-that-no-header-holds", Keys.ENTER)
    assert page.do("return document.getElementById('key').validity.patternMismatch")
    assert page.one("#ask").is_displayed()
    page.one("#key").clear()
    page.one("#key").send_keys(" not-the-key ", Keys.ENTER)
    page.until(lambda: "not known" in page.text("#ask-wrong"))
    page.one("#key").send_keys(KEY, Keys.ENTER)
    page.until(lambda: page.all("#scenario option"))
    assert not page.one("#ask").is_displayed()
    assert page.one("#key").get_attribute("value") == ""
    assert page.do("return [localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]

    assert page.text(".badge") == "shadow"  # what the mode withholds is shown as such
    page.paste(json.dumps([{"role": m.role, "content": m.content} for m in sample["persistent-abuse"].messages[:11]]))
    held = page.all(".notice.held")
    assert ["What the user would see in mode enforce (withheld: this is mode shadow)" in element.text for element in held] == [True, True]
    assert "would end" in page.text("#now")
    assert "call end, advice none – mode shadow lets through: call continue" in page.text("#m10 .why")
    page.say("assistant", "Let us go on.")  # and so it does
    with sqlite3.connect(folder / "a.db") as store:
        assert [store.execute(f"SELECT count(*) FROM {table}").fetchone() for table in ("conversation", "turn")] == [(0,), (0,)]  # nothing is stored
    store.close()

    page.open(locked)
    page.until(lambda: page.one("#ask").is_displayed())  # a reload forgets the key
    page.one("#key").send_keys(Keys.ESCAPE)
    page.until(lambda: "asks for a key" in page.text("#problem"))


def test_a_service_that_is_gone_is_said_so_and_the_text_stays(page: Page, start: Callable[..., Process]) -> None:
    served = start("--store", "none")
    page.start(served.url)
    served.kill()
    page.one("#text").send_keys("Hello.", Keys.ENTER)
    page.until(lambda: "does not answer" in page.text("#problem"))
    assert page.one("#text").get_attribute("value") == "Hello."
    assert page.all(".turn") == []


# without a browser


def test_the_files_are_served_without_a_key_under_a_strict_policy(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(KEY + "\n")
    client: TestClient = serve(api_key_file=str(tmp_path / "keys"))
    kinds = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".json": "application/json", ".svg": "image/svg+xml"}
    for path, name in FILES.items():
        found = client.get(path)
        assert (found.status_code, found.content) == (200, (FOLDER / name).read_bytes())
        assert found.headers["content-type"].startswith(kinds[Path(name).suffix])
        policy = dict(part.strip().partition(" ")[::2] for part in found.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
        assert {policy[name] for name in policy if name.endswith("-src") and name != "default-src"} == {"'self'"}
        assert found.headers["x-content-type-options"] == "nosniff"
    assert {path.name for path in FOLDER.iterdir()} == set(FILES.values())
    for path in ("/page/", "/page/../app.py", "/page/x.js", "/page/%2e%2e/app.py"):
        assert client.get(path).status_code == 401
    assert not any(path in client.get("/openapi.json").json()["paths"] for path in FILES)
