"""The report: one page, nothing from outside, no text unless handed in, and what it shows is what was decided."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from lastresort.artifact import Certificate
from lastresort.conversation import Monitor
from lastresort.policy import parse_policy
from lastresort.report import AFTERWARDS, afterwards, build
from lastresort.types import Decision, Dialogue, LabelSpec, Message, ScoredDialogue, ScoredTurn

OPTIONAL = {"tr", "td", "th", "tbody"}
"""Elements that HTML closes by itself."""


class Reader(HTMLParser):
    """Every attribute and tag, and whether elements nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.broken: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in OPTIONAL and tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.broken.append(tag)


LABELS = (
    LabelSpec("abuse", "user", "trigger", 0.5),
    LabelSpec("risk", "user", "veto", 0.3),
    LabelSpec("redirection", "assistant", "signal", 0.5),
    LabelSpec("distress", "assistant", "signal", 0.5),
)
CERTIFICATE = Certificate(
    "made & written", 3000, 0, 0.000998, 0.001, 0.95, 4, {}, {"s": (3000, 0)}, 0.91, 100,
    {"triggers": ["abuse"], "thresholds": {"default": {"enter": 0.6, "release": 0.5}}}, "m@1", "d", "2026-01-01T00:00:00Z", "0.1.0"
)  # fmt: skip


@pytest.fixture(scope="module")
def scored(monitor: Monitor, sample: dict[str, Dialogue]) -> list[ScoredDialogue]:
    return [monitor.score(dialogue) for dialogue in sample.values()]


def page_of(monitor: Monitor, scored: list[ScoredDialogue], sample: dict[str, Dialogue], *, with_text: bool = False) -> str:
    return build(scored, labels=monitor.scorer.manifest.labels, dialogues=sample.values(), certificate=CERTIFICATE, with_text=with_text)


def test_the_page_is_whole_and_asks_nothing_of_anybody(monitor: Monitor, scored: list[ScoredDialogue], sample: dict[str, Dialogue]) -> None:
    page = page_of(monitor, scored, sample, with_text=True)
    reader = Reader(page)
    assert (reader.broken, reader.open) == ([], [])
    assert not {"script", "link", "img", "iframe", "a", "form", "object", "video"} & set(reader.tags)
    assert not {"src", "href", "onload", "onclick", "action"} & {name for name, _ in reader.attributes}
    assert "http" not in page.replace("http-equiv", "")
    assert "url(" not in page
    assert "@import" not in page
    assert 'name="viewport"' in page
    assert page.count("<svg") == page.count("</svg>") > 20


def test_there_is_no_text_unless_it_is_asked_for(monitor: Monitor, scored: list[ScoredDialogue], sample: dict[str, Dialogue]) -> None:
    said = sample["persistent-abuse"].messages[2].content
    assert said not in page_of(monitor, scored, sample)
    assert said in page_of(monitor, scored, sample, with_text=True)
    words = {word for dialogue in sample.values() for message in dialogue.messages for word in re.findall(r"[a-z]{9,}", message.content)}
    own = set(re.findall(r"[a-z]{9,}", build(scored[-1:])))
    assert not words & set(re.findall(r"[a-z]{9,}", page_of(monitor, scored, sample))) - own - {"conversation", "certificate", "assistant"}


def test_what_people_wrote_cannot_become_markup() -> None:
    bad = "<script>alert(1)</script>&\"'"
    turns = (ScoredTurn(0, "user", {"abuse": 0.9}, 1, Decision("continue", "warn", "warned", bad, counterfactual=bad)),)
    one = ScoredDialogue(bad, bad, "end", 0, turns, source=bad, meta={"kind": bad, "call": "end"})
    page = build([one], labels=LABELS, dialogues=[Dialogue(bad, (Message("user", bad),))], certificate=replace(CERTIFICATE, population=bad), with_text=True)
    assert "script" not in Reader(page).tags
    assert "&lt;script&gt;" in page


def test_the_certificate_or_its_absence_is_told(scored: list[ScoredDialogue]) -> None:
    assert "not certified" in build(scored)
    page = build(scored, certificate=CERTIFICATE)
    assert "<b>0.100%</b> of such conversations are ended falsely, with confidence 95%" in page
    assert "made &amp; written" in page


def test_a_certificate_of_other_rules_is_told_not_to_hold(scored: list[ScoredDialogue]) -> None:
    digest = parse_policy(CERTIFICATE.policy, where="x").digest
    assert "It does not hold" not in build([replace(one, policy=digest) for one in scored], certificate=CERTIFICATE)
    mixed = [replace(one, policy=digest) for one in scored[2:]] + [replace(scored[0], policy="0123abcd"), replace(scored[1], policy="")]
    page = build(mixed, certificate=CERTIFICATE)
    assert f"<b>It does not hold for 1 of these {len(scored)} conversations</b>: they were decided by other rules than the certified ones ({digest})" in page
    assert "By which rules 1 of them were decided is not recorded." in page


def test_each_notable_conversation_has_a_strip_and_the_worst_come_first(monitor: Monitor, scored: list[ScoredDialogue], sample: dict[str, Dialogue]) -> None:
    wrong = [replace(one, meta={**one.meta, "call": "continue"}) if one.id == "hate-persistent" else one for one in scored]
    page = build(wrong, labels=monitor.scorer.manifest.labels)
    titles = re.findall(r"<div class='card strip'><h3>([^<]+)", page)
    assert titles[0] == "hate-persistent"
    assert {"persistent-abuse", "persistent-abuse-apology", "persistent-abuse-crisis"} <= set(titles)
    assert "ordinary-help" not in titles
    assert len(re.findall("class='card strip'", build(wrong, notable=2))) == 2
    strip = page[page.index("<h3>persistent-abuse<") :]
    marks = re.findall(r'text-anchor="middle"(?: font-weight="700")?>([A-Za-z]?)</text>', strip[: strip.index("</svg>")])
    assert "".join(mark or "." for mark in marks) == "..rRrRrRwWE."


def test_diagrams_against_labels_need_labelled_dialogues(monitor: Monitor, scored: list[ScoredDialogue], sample: dict[str, Dialogue]) -> None:
    assert "average precision" in page_of(monitor, scored, sample)
    assert "average precision" not in build(scored, labels=monitor.scorer.manifest.labels)
    bare = build(scored)  # without the model's labels, the names in the scores do
    assert "self_harm_risk" in bare


def course(*user_reasons: str, distress_at: int = 1, end: int | None = None) -> ScoredDialogue:
    """User turns with these reasons (`calm`, `harm`, `risk`, `over`), an assistant turn after each."""
    made = {
        "calm": Decision("continue", "none", "calm"),
        "harm": Decision("continue", "redirect", "harmful_turn", "abuse"),
        "risk": Decision("continue", "support", "at_risk", "risk"),
        "wish": Decision("continue", "confirm", "end_requested", "end_request"),
        "over": Decision("end", "none", "already_ended"),
    }
    turns: list[ScoredTurn] = []
    for reason in user_reasons:
        scores = {"abuse": 0.9 if reason == "harm" else 0.1, "risk": 0.1}
        turns.append(ScoredTurn(len(turns), "user", scores, 1, made[reason]))
        turns.append(ScoredTurn(len(turns), "assistant", {"redirection": 0.1, "distress": 0.9}, 1, Decision("continue", "none", "observed")))
    name = "-".join((*user_reasons, str(distress_at)))
    return ScoredDialogue(name, "m", "continue" if end is None else "end", end, tuple(turns), distress=(distress_at,))


@pytest.mark.parametrize(
    ("scored", "expected"),
    [
        (course("harm", "harm", end=2), "ended"),
        (course("harm", "harm", "over", end=2, distress_at=3), "over"),  # distress in the goodbye
        (course("harm", "harm"), "harm"),
        (course("harm", "calm", "harm"), "harm"),
        (course("harm", "calm"), "calm"),
        (course("harm", "wish"), "calm"),
        (course("harm", "risk", "harm"), "support"),
        (course("harm"), "over"),
    ],
)
def test_how_a_conversation_went_on_after_distress(scored: ScoredDialogue, expected: str) -> None:
    assert afterwards(scored, scored.distress[0]) == expected
    assert expected in AFTERWARDS


def test_distress_is_shown_by_what_the_user_did_before_it() -> None:
    page = build([course("harm", "harm"), course("harm", "calm"), course("calm", "calm"), course("harm", "harm", "calm", distress_at=3)], labels=LABELS)
    table = page[page.index("apparent distress</h2>") : page.index("Notable conversations")]
    assert re.findall(r"<tr><td>([^<]+)<td class=n>(\d+)", table) == [("abuse", "3"), ("no trigger", "1")]
    assert "the harm went on 1, no harm after it 2" in table
    assert "None was seen." in build([replace(course("calm"), distress=())], labels=LABELS)


def test_nothing_to_report_is_an_error() -> None:
    with pytest.raises(ValueError, match="found no conversation, expected at least one"):
        build([])


def test_a_report_of_a_shadow_says_would(monitor: Monitor, sample: dict[str, Dialogue]) -> None:
    page = build([monitor.score(sample["persistent-abuse"], "shadow")])
    assert "would end" in page
    assert "ended, or would have" in page


def test_the_styles_of_the_page_are_those_that_it_uses(monitor: Monitor, scored: list[ScoredDialogue], sample: dict[str, Dialogue]) -> None:
    page = page_of(monitor, scored, sample, with_text=True)
    styles, body = page.split("</style>")
    used = {name for value in re.findall(r"""class=(?:"([^"]+)"|'([^']+)'|([\w-]+))""", body) for name in " ".join(value).split()}
    defined = set(re.findall(r"\.([a-z][\w-]*)", styles))
    assert used - defined == set()
