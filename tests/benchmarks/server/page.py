"""The results as Markdown, between the markers of a page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lastresort_data.markdown import renew, table

BEGIN, END = "<!-- results: written by `make bench-server`; do not edit -->", "<!-- end of results -->"
TARGET_MS = 2.0
QUIET = 0.5
"""Load average at the start from which a result is marked as one of a busy machine."""


def keep(results: Path, page: Path, part: str, result: Mapping[str, Any]) -> None:
    """Puts the result of a part beside those of the others, and writes the page anew."""
    whole = json.loads(results.read_text(encoding="utf-8")) if results.exists() else {}
    whole[part] = result
    results.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if not renew(page, BEGIN, END, f"\n\n{markdown(whole)}\n\n"):
        raise SystemExit(f"{page}: found no results block, expected {BEGIN} … {END}")


def markdown(whole: Mapping[str, Any]) -> str:
    """All parts that were measured."""
    parts = [write(whole[name]) for name, write in (("load", _load), ("queue", _queue), ("faults", _faults), ("soak", _soak)) if name in whole]
    return "\n\n".join(parts) or "Nothing was measured yet."


def _about(result: Mapping[str, Any], *more: str) -> str:
    found = result["conditions"]
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    load = f"**{found['load']}: the machine was busy**" if found["load"] >= QUIET else f"{found['load']}"
    lines = [f"{found['processor']}, {found['cpus']} CPUs, {found['memory_gb']} GB, {found['system']}, Python {found['python']}, {versions}"]
    lines += [found["date"], f"load average at the start {load}", *more]
    return "; ".join(lines) + "."


def _ms(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _load(result: Mapping[str, Any]) -> str:
    settings, ms, inside = result["settings"], result["added"]["ms"], result["added"]["inside_mean_ms"]
    rows = [[name, _ms(one["p50"]), _ms(one["p99"]), f"{one['added_p50']:+.2f}" if "added_p50" in one else ""] for name, one in ms.items()]
    met = {name: one["added_p50"] <= TARGET_MS for name, one in ms.items() if "added_p50" in one}
    word = "; ".join(f"{name}: {'met' if well else 'not met'}" for name, well in met.items())
    if result["conditions"]["load"] >= QUIET:
        word = "not judged on a busy machine"
    loads = [
        [one["path"], str(one["clients"]), f"{one['rate']:.0f}", _ms(one["p50"]), _ms(one["p99"]), _ms(one["cpu_ms"]), _answers(one["answers"])]
        for one in result["load"]
    ]
    means = ", ".join(f"{name} {value:.1f}" for name, value in inside.items())
    return "\n\n".join(
        [
            "## Time",
            _about(result, f"model {result['model']}", f"{settings['workers']} process on {min(settings['cpus'], result['conditions']['cpus'])} CPUs"),
            f"One turn, taken in turns {settings['rounds']} times; one client. Target: at most {TARGET_MS:g} ms added at p50 ({word}).",
            table(["", "p50, ms", "p99, ms", "p50 added to the library, ms"], rows),
            f"Means inside the service, ms: {means}.",
            f"As many requests as they get answered, {settings['seconds']:g} s a row; the clients run on the same CPUs.",
            table(["", "clients", "requests/s", "p50, ms", "p99, ms", "CPU of the service, ms a request", "answers"], loads),
        ]
    )


def _answers(codes: Mapping[str, int]) -> str:
    return ", ".join(f"{count} × {code}" for code, count in codes.items())


def _queue(result: Mapping[str, Any]) -> str:
    settings, rows = result["settings"], []
    for one in result["cases"]:
        codes = ", ".join(f"{share:.1%} {code}" for code, share in one["shares"].items())
        served, refused, after = one["until_served_ms"], one["refused_ms"], one["after"]
        cells = [f"{one['served_per_second']:.0f}", f"{_ms(served['p50'])} / {_ms(served['p99'])}", f"{_ms(refused['p50'])} / {_ms(refused['p99'])}"]
        rows.append([one["case"], codes, *cells, str(one["no_answer"]), f"{after['status']}, {_ms(after['ms'])} ms, {after['pending']:.0f} pending"])
    header = ["case", "answers", "served/s", "until served, ms, p50 / p99", "refused, ms, p50 / p99", "without an answer", "afterwards"]
    without = sum(one["refused_without_retry_after"] for one in result["cases"])
    return "\n\n".join(
        [
            "## A full queue",
            _about(result, f"{settings['clients']} clients, {settings['seconds']:g} s a case"),
            table(header, rows),
            f"Refusals without `Retry-After`: {without}.",
        ]
    )


def _faults(result: Mapping[str, Any]) -> str:
    settings, rows = result["settings"], result["differences"]
    kills = ", ".join(f"{count} × {name}" for name, count in result["kills"].items())
    counted = {
        "conversations / turns / branches": f"{result['conversations']} / {result['turns']} / {result['branches']}",
        "requests": str(result["requests"]),
        "at the same time: one request twice / three siblings": f"{result['sent_twice_at_once']} / {result['siblings_at_once']}",
        "`kill -9`": kills,
        "away after a kill, s, p50 / most": f"{away['p50']:.1f} / {away['most']:.1f}" if (away := result["away_s"]) else "–",
        "sent again because of": _answers(result["sent_again"]) or "–",
        "stored, but the first answer was lost": str(result["stored_but_first_answer_lost"]),
        "hung requests": str(result["hung"]),
        "ends / refused after an end / acts of hosts": f"{result['ends']} / {result['refused_after_an_end']} / {result['acts_of_hosts']}",
        **{f"{name}: store against clients": str(count) for name, count in rows.items()},
        "replayed by the library": f"{result['replayed_by_the_library']['conversations']} conversations, {result['replayed_by_the_library']['differ']} differ",
        "found wrong by clients": str(result["wrong"]),
    }
    verdict = "Nothing acknowledged was lost, nothing doubled." if result["ok"] else "**Something was lost, doubled or wrong.**"
    about = _about(result, f"{settings['store']}, {settings['clients']} clients, {result['seconds']:.0f} s")
    return "\n\n".join(["## Faults", about, verdict, table(["", ""], [[name, value] for name, value in counted.items()])])


def _soak(result: Mapping[str, Any]) -> str:
    settings, rss = result["settings"], result["rss_mb"]
    errors = {name: count for name, count in result["counts"].items() if name.startswith("error")}
    rows = [
        ["RSS when ready / in the middle / at the end / most, MB", " / ".join(f"{rss[name]:.0f}" for name in ("ready", "middle", "end", "most"))],
        ["slope of the second half, MB an hour", f"{result['slope_mb_per_hour']:+.2f} ± {result['slope_error_mb_per_hour']:.2f}"],
        ["threads, open files at the start → at the end", " · ".join(" → ".join(map(str, result[name])) for name in ("threads", "open_files"))],
        ["requests", str(result["requests"])],
        ["errors", _answers(errors) or "none"],
    ]
    about = _about(result, f"{settings['minutes']:g} minutes, {settings['clients']} clients, {settings['store']}")
    return "\n\n".join(["## Soak", about, table(["", ""], rows)])
