"""One self-contained HTML page about scored conversations: no network, no script, readable on a phone. Text is left out unless it is handed in on purpose."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Literal

import numpy as np

from .artifact import Certificate
from .evaluation import ConversationRow, conversation_rows
from .explain import MEANING
from .metrics import Array, average_precision
from .policy import parse_policy
from .types import Decision, Dialogue, LabelSpec, ScoredDialogue, ScoredTurn

BINS = 20
NOTABLE = 60
"""So many conversations get a strip of their own unless told otherwise; those that matter most come first."""

Afterwards = Literal["ended", "support", "harm", "calm", "over"]
AFTERWARDS: Mapping[Afterwards, str] = {
    "ended": "ended",
    "support": "somebody was at risk",
    "harm": "the harm went on",
    "calm": "no harm after it",
    "over": "no user turn after it",
}
"""How a conversation went on after the first apparent distress."""

STYLE = """
:root{color-scheme:light dark;--bg:#fbfaf8;--card:#fff;--fg:#1d1b18;--muted:#6d675e;--line:#e2ddd4;--trigger:#c2410c;--veto:#1d4ed8;--signal:#8a6d1f;
--redirection:#15803d;--distress:#a21caf;--good:#15803d;--bad:#b91c1c}
@media(prefers-color-scheme:dark){:root{--bg:#171614;--card:#211f1c;--fg:#ece8e1;--muted:#a49c90;--line:#3a3631;--trigger:#fb8c4f;--veto:#7aa2ff;
--signal:#d9b75a;--redirection:#5cc98a;--distress:#e58af0;--good:#5cc98a;--bad:#ff8080}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1080px;margin:0 auto;padding:1.2rem 1rem 4rem}h1{font-size:1.5rem;margin:.2rem 0}h2{font-size:1.15rem;margin:2.2rem 0 .5rem}
h3{font-size:.95rem;margin:0 0 .3rem;overflow-wrap:anywhere}p{margin:.4rem 0}.muted,figcaption,.note{color:var(--muted);font-size:.85rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(7.5rem,1fr));gap:.6rem;margin:1rem 0}
.tile,.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:.7rem .8rem}
.tile b{display:block;font-size:1.45rem;line-height:1.2}.tile span{color:var(--muted);font-size:.8rem}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(15rem,1fr));gap:.7rem}.scroll{overflow-x:auto;-webkit-overflow-scrolling:touch}
table{border-collapse:collapse;font-size:.85rem;width:100%}
th,td{text-align:left;padding:.3rem .6rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--muted);font-weight:600;white-space:nowrap}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
svg{display:block;max-width:100%;height:auto}.strip svg{max-width:none}svg text{fill:var(--muted);font:10px system-ui,sans-serif}
.trigger{fill:var(--trigger)}.veto{fill:var(--veto)}.signal{fill:var(--signal)}.redirection{fill:var(--redirection)}.distress{fill:var(--distress)}
.axis{stroke:var(--line);fill:none}.limit{stroke:var(--fg);stroke-dasharray:3 2;opacity:.6}.curve{fill:none;stroke:var(--trigger);stroke-width:2}
.diag{stroke:var(--muted);stroke-dasharray:2 3;opacity:.7}.cell0{fill:var(--fg);opacity:.05}details{margin:.4rem 0}
.pin td:first-child,.pin th:first-child{position:sticky;left:0;background:var(--card)}summary{cursor:pointer;font-size:.85rem;color:var(--muted)}
.end{color:var(--bad);font-weight:700}.ok{color:var(--good)}.strip{margin:.6rem 0}.turn{font-size:.82rem}
.said{font-style:italic;white-space:pre-wrap;overflow-wrap:anywhere}
.bar{display:flex;height:.8rem;border-radius:4px;overflow:hidden;min-width:8rem;background:var(--line)}.bar i{display:block}.a-ended{background:var(--bad)}
.a-support{background:var(--veto)}.a-harm{background:var(--trigger)}.a-calm{background:var(--good)}.a-over{background:var(--muted)}
.key{display:flex;flex-wrap:wrap;gap:.2rem .9rem}
.key i{display:inline-block;width:.8rem;height:.8rem;border-radius:3px;margin-right:.3rem;vertical-align:-1px}
@media(max-width:600px){table{font-size:.8rem}.bar{min-width:0}.pin td:first-child{min-width:6.6rem;max-width:7.4rem;overflow-wrap:anywhere}
.pin td.n{white-space:normal;min-width:4.6rem}table .muted{font-size:inherit}td,th{padding-right:.45rem}.turns th{display:none}
.turns tr{display:block;border-bottom:1px solid var(--line);padding:.4rem 0}.turns td{display:inline;border:0}
.turns td:nth-child(n+4){display:block;padding:.1rem 0}
.turns td:nth-child(5):not(:empty)::before{content:"otherwise with: "}.turns td:nth-child(5){color:var(--muted)}}
"""


@dataclass
class _Label:
    """What the plots of one label need: a histogram of all scores, and the turns whose truth is known."""

    spec: LabelSpec
    histogram: list[int] = field(default_factory=lambda: [0] * BINS)
    truth: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)


def build(
    scored: Sequence[ScoredDialogue],
    *,
    labels: Sequence[LabelSpec] = (),
    dialogues: Iterable[Dialogue] = (),
    certificate: Certificate | None = None,
    with_text: bool = False,
    notable: int = NOTABLE,
) -> str:
    """The page.

    Args:
        scored: with decisions; at least one conversation.
        labels: of the model that scored, with roles and thresholds; without them every label of the scores is shown as a signal.
        dialogues: the same conversations by id, for reliability diagrams and precision–recall (where labelled) and for text.
        certificate: of the model, if it has one.
        with_text: show what was said in the notable conversations.
        notable: at most so many conversations get a strip.

    Raises:
        ValueError: no conversation.
    """
    if not scored:
        raise ValueError("found no conversation, expected at least one")
    given = {dialogue.id: dialogue for dialogue in dialogues}
    known = {one.id: given[one.id] for one in scored if one.id in given and len(given[one.id].messages) == len(one.turns)}
    specs = {label.name: label for label in labels} or _labels_of(scored)
    vetoes = [label.name for label in specs.values() if label.role == "veto"]
    rows = conversation_rows(scored, known.values() if len(known) == len(scored) else (), vetoes)
    title = f"lastresort report: {scored[0].model}"
    body = (
        _head(scored, rows[0]),
        _certificate(certificate, scored),
        _courses(rows),
        _distress(scored, specs),
        _notable(scored, specs, known if with_text else {}, notable),
        _plots(scored, specs, known),
    )
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1"><title>{escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body><main>{"".join(body)}</main></body></html>\n'


def _labels_of(scored: Sequence[ScoredDialogue]) -> dict[str, LabelSpec]:
    """Labels as the scores name them, when no model is at hand."""
    found: dict[str, LabelSpec] = {}
    for one in scored:
        for turn in one.turns:
            for name in turn.scores:
                found.setdefault(name, LabelSpec(name, "assistant" if turn.role == "assistant" else "user", "signal"))
    return found


def _decisions(scored: ScoredDialogue) -> list[tuple[ScoredTurn, Decision]]:
    return [(turn, turn.decision) for turn in scored.turns if turn.decision is not None]


def _warned(scored: ScoredDialogue) -> bool:
    return any(decision.reason == "warned" for _, decision in _decisions(scored))


def _at_risk(scored: ScoredDialogue) -> bool:
    return any(decision.reason == "at_risk" for _, decision in _decisions(scored))


def _head(scored: Sequence[ScoredDialogue], everything: ConversationRow) -> str:
    ended, modes = sum(one.decided_end is not None for one in scored), sorted({one.mode for one in scored})
    tiles = [
        (len(scored), "conversations"),
        (sum(len(one.turns) for one in scored), "turns"),
        (ended, "ended" if modes == ["enforce"] else "ended, or would have"),
        (everything.metrics.false_ends if everything.metrics.must_go_on else "–", "false ends"),
        (sum(map(_warned, scored)), "warned"),
        (sum(map(_at_risk, scored)), "with somebody at risk"),
        (everything.metrics.distressed, "with apparent distress"),
    ]
    models = ", ".join(sorted({one.model for one in scored}))
    cells = "".join(f"<div class=tile><b>{value}</b><span>{name}</span></div>" for value, name in tiles)
    return f"<h1>What became of {len(scored)} conversations</h1><p class=muted>{escape(models)} · mode {', '.join(modes)}</p><div class=tiles>{cells}</div>"


def _certificate(certificate: Certificate | None, scored: Sequence[ScoredDialogue]) -> str:
    if certificate is None:
        return "<h2>Certificate</h2><div class=card><p>The rate of false ends is <b>not certified</b> for this model.</p></div>"
    c = certificate
    rules = parse_policy(c.policy, where="certificate: policy").digest
    unknown = sum(not one.policy for one in scored)
    others = sum(one.policy != rules for one in scored) - unknown
    holds = []
    if others:
        found = f"<b>It does not hold for {others} of these {len(scored)} conversations</b>"
        holds.append(f"{found}: they were decided by other rules than the certified ones ({rules}).")
    if unknown:
        holds.append(f"By which rules {unknown} of them were decided is not recorded.")
    recall = "" if c.end_recall is None else f" Of {c.should_end} that should end, {c.end_recall:.1%} did."
    rows = "".join(f"<tr><td>{escape(name) or '–'}<td class=n>{n}<td class=n>{wrong}" for name, (n, wrong) in c.sources.items())
    rows += "".join(f"<tr><td>{escape(name) or '–'} (outside the claim)<td class=n>{n}<td class=n>{wrong}" for name, (n, wrong) in c.others.items())
    if c.reachable is not None:
        recall += f" {c.reachable} of the {c.n} have enough turns for an end; {c.warned} were warned."
    return (
        f"<h2>Certificate</h2><div class=card><p>At most <b>{c.max_false_end_rate:.3%}</b> of such conversations are ended falsely, "
        f"with confidence {c.confidence:.0%}.</p>"
        f"<p>{c.errors} of {c.n} that must go on were ended (exact bound {c.bound:.4%}); {c.candidates} candidates tested in a fixed order.{recall}</p>"
        + "".join(f"<p>{line}</p>" for line in holds)
        + f"<p class=muted>Population: {escape(c.population)} · {escape(c.model)} · {escape(c.date[:10])}</p>"
        f"<div class=scroll><table><tr><th>source<th class=n>must go on<th class=n>ended{rows}</table></div></div>"
    )


def _courses(rows: Sequence[ConversationRow]) -> str:
    def rate(hits: int, n: int, value: tuple[float, float, float] | None, digits: int, wrong: bool) -> str:
        if value is None:
            return "–"
        count = f"<span class=end>{hits}</span>" if wrong and hits else str(hits)
        return f"{count} of {n}<br><span class=muted>{value[0]:.{digits}%} ({value[1]:.{digits}%} to {value[2]:.{digits}%})</span>"

    lines = []
    for row in rows:
        m = row.metrics
        broken = f"<span class=end>{m.veto_violations}</span>" if m.veto_violations else "0" if m.at_risk else "–"
        delay = "–" if m.delay_median is None or m.delay_90 is None else f"{m.delay_median:g}<br><span class=muted>9 in 10: {m.delay_90:g}</span>"
        name = "<b>all</b>" if row.group == "all" else f"{escape(row.name) or '–'}<br><span class=muted>{row.group}</span>"
        false_ends, ended = rate(m.false_ends, m.must_go_on, m.false_end_rate, 2, True), rate(m.ended, m.should_end, m.end_recall, 1, False)
        cells = (false_ends, ended, delay, f"{m.warnings_per_1000:.0f}", broken)
        lines.append(f"<tr><td>{name}" + "".join(f"<td class=n>{cell}" for cell in cells))
    heads = ("false ends", "ended as due", "delay", "warned<br>per 1000", "veto<br>violations")
    top = f"<table class=pin><tr><th>{''.join(f'<th class=n>{head}' for head in heads)}"
    # kinds in which nothing could go wrong but a false end, and none did, are folded away
    shown = [row.group != "kind" or bool(row.metrics.false_ends or row.metrics.should_end or row.metrics.veto_violations) for row in rows]
    main = "".join(line for line, show in zip(lines, shown, strict=True) if show)
    rest = "".join(line for line, show in zip(lines, shown, strict=True) if not show)
    fold = (
        f"<details><summary>{shown.count(False)} kinds without an end, due or not</summary><div class=scroll>{top}{rest}</table></div></details>"
        if rest
        else ""
    )
    note = "Intervals are exact, 95%. Delay in user turns after an end was justified (median). Veto violations need labelled dialogues."
    return f"<h2>Against what should have become of them</h2><div class=card><div class=scroll>{top}{main}</table></div>{fold}</div><p class=note>{note}</p>"


def _trigger_of(turn: ScoredTurn, specs: Mapping[str, LabelSpec]) -> str:
    """The category of a user turn: its highest trigger at or above the threshold, a particular one before `harm`; else the decision's."""
    reached = {name: value for name, value in turn.scores.items() if name in specs and specs[name].role == "trigger" and value >= specs[name].threshold}
    decided = None if turn.decision is None else turn.decision.category
    return max(reached, key=lambda name: (name != "harm", reached[name]), default=decided or "no trigger")


def afterwards(scored: ScoredDialogue, index: int) -> Afterwards:
    """How a conversation went on after the message `index`."""
    if scored.decided_end is not None and scored.decided_end > index:
        return "ended"
    later = [decision for turn, decision in _decisions(scored) if turn.index > index and turn.role == "user"]
    if any(decision.reason == "at_risk" for decision in later):
        return "support"
    if not later or later[0].reason == "already_ended":
        return "over"
    return "harm" if any(decision.category is not None and decision.reason != "end_requested" for decision in later) else "calm"


def _distress(scored: Sequence[ScoredDialogue], specs: Mapping[str, LabelSpec]) -> str:
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    with_category: Counter[str] = Counter()
    for one in scored:
        users = [turn for turn in one.turns if turn.role == "user"]
        with_category.update({_trigger_of(turn, specs) for turn in users})
        if one.distress:
            before = [turn for turn in users if turn.index < one.distress[0]]
            outcomes[_trigger_of(before[-1], specs) if before else "no trigger"][afterwards(one, one.distress[0])] += 1
    lines = []
    for category, found in sorted(outcomes.items(), key=lambda item: -item[1].total()):
        total, among = found.total(), max(with_category[category], found.total())
        bar = "".join(
            f'<i class="a-{name}" style="width:{100 * found[name] / total:.2f}%" title="{words}: {found[name]}"></i>' for name, words in AFTERWARDS.items()
        )
        said = ", ".join(f"{words} {found[name]}" for name, words in AFTERWARDS.items() if found[name])
        count = f"{total}<br><span class=muted>{total / among:.1%}</span>"
        lines.append(f"<tr><td>{escape(category)}<td class=n>{count}<td><div class=bar>{bar}</div><span class=muted>{said}</span>")
    heads = "<tr><th>before it<th class=n>seen in<th>how they went on"
    key = "".join(f'<span><i class="a-{name}"></i>{words}</span>' for name, words in AFTERWARDS.items())
    body = f"<table>{heads}{''.join(lines)}</table><p class='key muted'>{key}</p>" if lines else "<p>None was seen.</p>"
    note = (
        "By what the user did just before the first assistant turn with apparent distress; share of all conversations with such a user turn. "
        "Distress is reported, and moves no decision."
    )
    return f"<h2>Where the assistant showed apparent distress</h2><div class=card>{body}</div><p class=note>{note}</p>"


def _tags(scored: ScoredDialogue) -> list[str]:
    """Why a conversation is notable, most important first."""
    call, end = scored.meta.get("call"), scored.decided_end
    tags = ["false end" if call == "continue" else "ended" if scored.ended_at is not None else "would end"] if end is not None else []
    if call == "end" and end is None:
        tags.append("missed end")
    checks = (("apparent distress", bool(scored.distress)), ("warned", _warned(scored)), ("at risk", _at_risk(scored)))
    return tags + [name for name, holds in checks if holds]


RANK = ("false end", "missed end", "apparent distress", "ended", "would end", "warned", "at risk")


def _notable(scored: Sequence[ScoredDialogue], specs: Mapping[str, LabelSpec], texts: Mapping[str, Dialogue], limit: int) -> str:
    tagged = [(one, tags) for one in scored if (tags := _tags(one))]
    tagged.sort(key=lambda item: min(RANK.index(tag) for tag in item[1]))
    strips = "".join(_strip(one, tags, specs, texts.get(one.id)) for one, tags in tagged[:limit])
    shown = f"{min(limit, len(tagged))} of {len(tagged)} conversations with an end, a warning, a veto, apparent distress, or an end that should have come."
    letters = "Below each strip: r redirect, w warn, W warning given, c confirm, s support, R redirection seen, D apparent distress, E end."
    return f"<h2>Notable conversations</h2><p class=note>{shown} {letters} The darker, the higher the score.</p>{strips}"


def _mark(scored: ScoredDialogue, turn: ScoredTurn) -> str:
    decision = turn.decision
    if turn.index == scored.decided_end:
        return "E"
    if turn.index in scored.distress:
        return "D"
    if decision is None or decision.reason == "already_ended":
        return ""
    return {"warned": "W", "redirected": "R"}.get(decision.reason) or {"redirect": "r", "warn": "w", "confirm": "c", "support": "s"}.get(
        decision.decided_advice, ""
    )


def _strip(scored: ScoredDialogue, tags: Sequence[str], specs: Mapping[str, LabelSpec], dialogue: Dialogue | None) -> str:
    """A heat strip: a row a label, a column a turn."""
    highest: dict[str, float] = defaultdict(float)
    for turn in scored.turns:
        for name, value in turn.scores.items():
            highest[name] = max(highest[name], value)
    rows = [
        name for name in specs if highest[name] >= 0.2 and (specs[name].role != "signal" or name in ("persistence", "end_request", "redirection", "distress"))
    ]
    gutter, wide, high = 122, 20, 15
    cells = [f'<text x="{gutter - 6}" y="{high * row + 11}" text-anchor="end">{escape(name)}</text>' for row, name in enumerate(rows)]
    for place, turn in enumerate(scored.turns):
        x = gutter + wide * place
        for row, name in enumerate(rows):
            if name not in turn.scores:
                continue
            value, spec = turn.scores[name], specs[name]
            hue = name if name in ("redirection", "distress") else spec.role
            box = f'x="{x}" y="{high * row}" width="{wide - 2}" height="{high - 2}" rx="2"'
            tip = f"<title>message {turn.index}: {escape(name)} {value:.2f}</title>"
            cells.append(f'<rect class=cell0 {box}/><rect class="{hue}" opacity="{value:.2f}" {box}>{tip}</rect>')
        mark = _mark(scored, turn)
        weight = ' font-weight="700"' if mark in ("E", "D", "W") else ""
        cells.append(f'<text x="{x + 9}" y="{high * len(rows) + 11}" text-anchor="middle"{weight}>{mark}</text>')
        cells.append(f'<text x="{x + 9}" y="{high * len(rows) + 24}" text-anchor="middle" opacity=".7">{turn.index}</text>')
    width, height = gutter + wide * len(scored.turns), high * len(rows) + 28
    svg = f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" aria-label="scores by turn">{"".join(cells)}</svg>'
    kind = f" · {escape(str(scored.meta['kind']))}" if scored.meta.get("kind") else ""
    words = ", ".join(f"<span class=end>{tag}</span>" if tag in ("false end", "missed end", "ended", "would end") else tag for tag in tags)
    title = f"<h3>{escape(scored.id)}<span class=muted>{kind}</span> · {words}</h3>"
    return f"<div class='card strip'>{title}<div class=scroll>{svg}</div>{_turns(scored, dialogue)}</div>"


def _turns(scored: ScoredDialogue, dialogue: Dialogue | None) -> str:
    lines = []
    for turn, decision in _decisions(scored):
        numbers = sorted(decision.numbers.items(), key=lambda item: item[1][1] - item[1][0])[:3]
        weighed = "; ".join(f"{escape(name)} {found:.2f} {'≥' if found >= limit else '&lt;'} {limit:.2f}" for name, (found, limit) in numbers)
        said = "" if dialogue is None else f"<div class=said>{escape(dialogue.messages[turn.index].content)}</div>"
        why = f"{MEANING[decision.reason]}{f'<br><span class=muted>{weighed}</span>' if weighed else ''}"
        decided = "<span class=end>END</span>" if decision.decided_call == "end" else decision.decided_advice.replace("none", "–")
        lines.append(f"<tr class=turn><td class=n>{turn.index}<td>{turn.role}<td>{decided}<td>{said}{why}<td>{escape(decision.counterfactual)}")
    table = f"<table class=turns><tr><th class=n>#<th>who<th>decided<th>why<th>otherwise with{''.join(lines)}</table>"
    return f"<details><summary>turn by turn</summary><div class=scroll>{table}</div></details>"


def _plots(scored: Sequence[ScoredDialogue], specs: Mapping[str, LabelSpec], known: Mapping[str, Dialogue]) -> str:
    found = {name: _Label(spec) for name, spec in specs.items()}
    for one in scored:
        messages = known[one.id].messages if one.id in known else None
        for turn in one.turns:
            for name, value in turn.scores.items():
                if name in found:
                    found[name].histogram[min(int(value * BINS), BINS - 1)] += 1
                    if messages is not None and name in messages[turn.index].labels:
                        found[name].truth.append(messages[turn.index].labels[name])
                        found[name].scores.append(value)
    cards = "".join(_card(label) for label in found.values() if sum(label.histogram))
    note = (
        "Bars: how many turns got such a score, on a logarithmic scale; the dashed line is the label's reporting threshold. Where the truth is known: "
        "calibration (left; on the diagonal a score of 0.7 is right seven times in ten) and precision over recall (right)."
    )
    return f"<h2>Scores by label</h2><p class=note>{note}</p><div class=grid>{cards}</div>"


def _card(label: _Label) -> str:
    spec = label.spec
    plots = ""
    truth, scores = np.asarray(label.truth), np.asarray(label.scores)
    hard = (truth >= 0.5).astype(np.float64)
    caption = f"{sum(label.histogram)} turns"
    if len(hard) and 0 < hard.sum() < len(hard):
        plots = f"<div style='display:grid;grid-template-columns:1fr 1fr;gap:.5rem'>{_reliability(truth, scores)}{_precision_recall(hard, scores)}</div>"
        caption += f", {len(hard)} with known truth, {int(hard.sum())} positive; average precision {average_precision(hard, scores):.3f}"
    title = f"<h3>{escape(spec.name)} <span class=muted>{spec.speaker}, {spec.role}</span></h3>"
    return f"<div class=card>{title}{_histogram(label)}{plots}<p class=note>{caption}</p></div>"


def _histogram(label: _Label) -> str:
    top = np.log10(1 + max(label.histogram))
    hue = label.spec.name if label.spec.name in ("redirection", "distress") else label.spec.role
    bars = []
    for place, count in enumerate(label.histogram):
        height = 60 * np.log10(1 + count) / top
        tip = f"<title>{place / BINS:.2f} to {(place + 1) / BINS:.2f}: {count} turns</title>"
        bars.append(f'<rect class="{hue}" x="{12 * place + 1}" y="{62 - height:.1f}" width="10" height="{height:.1f}">{tip}</rect>')
    x = 12 * BINS * label.spec.threshold
    line = f'<line class=limit x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="62"/><line class=axis x1="0" x2="240" y1="62.5" y2="62.5"/>'
    ticks = '<text x="0" y="74">0</text><text x="120" y="74" text-anchor="middle">0.5</text><text x="240" y="74" text-anchor="end">1</text>'
    return f'<svg viewBox="0 0 240 78" role="img" aria-label="distribution of scores">{"".join(bars)}{line}{ticks}</svg>'


def _square(inside: str, name: str) -> str:
    frame = '<rect class=axis x="14" y="4" width="100" height="100"/>'
    ticks = '<text x="14" y="114">0</text><text x="114" y="114" text-anchor="end">1</text><text x="10" y="12" text-anchor="end">1</text>'
    return f'<svg viewBox="0 0 120 118" role="img" aria-label="{name}">{frame}{inside}{ticks}</svg>'


def _reliability(truth: Array, scores: Array) -> str:
    place = np.minimum((scores * 10).astype(int), 9)
    dots = ['<line class=diag x1="14" y1="104" x2="114" y2="4"/>']
    for number in range(10):
        inside = place == number
        if count := int(inside.sum()):
            x, y = float(scores[inside].mean()), float(truth[inside].mean())
            radius = 1.6 + 1.1 * float(np.log10(count))
            tip = f"<title>scores about {x:.2f}: {y:.2f} true, {count} turns</title>"
            dots.append(f'<circle class=veto cx="{14 + 100 * x:.1f}" cy="{104 - 100 * y:.1f}" r="{radius:.1f}" opacity=".8">{tip}</circle>')
    return _square("".join(dots), "calibration")


def _precision_recall(hard: Array, scores: Array) -> str:
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    true = np.cumsum(hard[order])[last]
    precision, recall = true / (last + 1), true / true[-1]
    keep = np.unique(np.linspace(0, len(last) - 1, min(len(last), 120)).astype(int))
    points = " ".join(f"{14 + 100 * recall[i]:.1f},{104 - 100 * precision[i]:.1f}" for i in keep)
    return _square(f'<polyline class=curve points="{points}"/>', "precision over recall")
