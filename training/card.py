"""The model card and the numbers block of README files, written from `metrics.json`; no number is written by hand.

lastresort card models/lastresort-minilm
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lastresort.artifact import MODEL, TOKENIZER, Manifest, file_sha256, read_manifest
from lastresort.errors import ConfigError
from lastresort.metrics import clopper_pearson
from lastresort_data import markdown

from .export import finish
from .quantisation import most_lost
from .record import CURVES, TRAINING, draw_curves, read_runs
from .targets import Found, read_targets

BEGIN, END = "<!-- numbers: written by `lastresort card`; do not edit -->", "<!-- end of numbers -->"
METRICS, SLICES, TARGETS = "metrics.json", "slices.json", "targets.json"
SMALLEST_SLICE = 30
"""Harmless turns below which a slice says nothing."""
SMALLEST_CALIBRATION = 100
"""Turns that know a label below which a source's calibration error says nothing."""
BASELINES = "`tfidf-lr` and `frozen-minilm-lr` are baselines on the same split: logistic regression on TF-IDF and on frozen embeddings, one turn at a time."


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    lines: str = markdown.table(header, rows)
    return lines


def renew(page: Path, name: str, begin: str, end: str, block: str) -> None:
    """Writes a page's block between `begin` and `end` anew. Raises `ConfigError` where the page has no such block."""
    if not markdown.renew(page, begin, end, block):
        raise ConfigError(f"{page}: found no {name} block, expected {begin} … {end}")


def _gated(found: Mapping[str, Any] | None) -> str:
    """What the quantised graph costs against the full one (`quantisation.py`), in a sentence."""
    if not found:
        return "It was not compared with the fp32 graph on validation."
    name, lost = most_lost(found["average_precision"])
    decided = f"On validation {found['flipped']} of {found['conversations']} conversations are decided otherwise than by the fp32 graph"
    return f"{decided}; the label that loses most average precision is `{name}` ({lost:.4f})."


def number(value: float | None) -> str:
    """Three digits, or a dash where there is nothing to measure."""
    return "–" if value is None else f"{value:.3f}"


def percent(value: float | None) -> str:
    """A share as a percentage."""
    return "–" if value is None else f"{100 * value:.1f}%"


def quality_table(rows: list[Mapping[str, Any]], tag: str) -> str:
    """Pooled measures of every label, the model beside the baselines."""
    scorers = [tag, *dict.fromkeys(row["scorer"] for row in rows if row["scorer"] != tag)]
    found = {(row["label"], row["scorer"]): row for row in rows if row["source"] == "all"}
    labels = [row["label"] for row in rows if row["source"] == "all" and row["scorer"] == tag]
    header = ["label", "turns", "positive", "AP", "F1", "recall at 1% FPR", "ECE", *(f"AP {name}" for name in scorers[1:])]
    body = []
    for label in labels:
        row = found[label, tag]
        others = [number(found[label, name]["average_precision"]) if (label, name) in found else "–" for name in scorers[1:]]
        measures = [number(row[key]) for key in ("average_precision", "f1", "recall_at_1_fpr", "ece")]
        body.append([f"`{label.replace('|', ' or ')}`", str(row["n"]), percent(row["prevalence"]), *measures, *others])
    return table(header, body)


def false_flags_table(rows: list[Mapping[str, Any]], tag: str, *, brief: bool = False) -> str:
    """Harmless turns flagged as `harm`, for each source that has turns without harm only, worst first; `brief` sums up the sources where none is."""
    harmless = [row for row in rows if (row["scorer"], row["label"], row["positives"]) == (tag, "harm", 0) and row["source"] != "all"]
    if not harmless:
        return "No source without harmful turns was measured."
    shown = [row for row in harmless if row["flagged"] > 0] if brief else harmless
    body = []
    for row in sorted(shown, key=lambda row: (-row["flagged"], -row["n"], row["source"])):
        hits = round(row["flagged"] * row["n"])
        low, high = clopper_pearson(hits, row["n"])
        body.append([row["source"], str(row["n"]), str(hits), percent(row["flagged"]), f"{percent(low)}–{percent(high)}"])
    found = [table(["source (no harmful turn in it)", "turns", "flagged as harm", "share", "95% interval"], body)] if body else []
    if quiet := [row["n"] for row in harmless if row not in shown]:
        found.append(f"Of the {sum(quiet)} turns of {len(quiet)} {'more ' if body else ''}sources without a harmful turn, none is flagged.")
    return "\n\n".join(found)


def slices_table(record: Mapping[str, Any] | None) -> str:
    """Harmless turns flagged, by mentioned group, length, dialect and language, at the model's threshold and at 0.5; and how far groups are apart."""
    big = [] if record is None else [one for one in record["slices"] if one["n"] >= SMALLEST_SLICE]
    if record is None or not big:
        return "Not measured by group, length and dialect for this version."
    columns = {"flagged": f"flagged as harm at {record['threshold']:.3f}, the model's threshold", "flagged_at_half": "at 0.5"}
    if record["threshold"] == 0.5:
        columns = {"flagged": "flagged as harm at 0.5, which is the model's threshold"}
    body = [[one["kind"], one["name"], str(one["n"]), *(percent(one[key] / one["n"]) for key in columns)] for one in big]
    lines = [table(["harmless turns by", "", "turns", *columns.values()], body)]
    found = {one["name"]: one for one in big if one["kind"] == "group"}
    if {"any of them", "none of them"} <= set(found):
        some, none = found["any of them"], found["none of them"]
        for key, at in (("flagged", f"{record['threshold']:.3f}"), ("flagged_at_half", "0.5"))[: len(columns)]:
            some_share, none_share = some[key] / some["n"], none[key] / none["n"]
            gap = f"{percent(some_share)} of harmless turns that mention a protected group are flagged, {percent(none_share)} of the others"
            lines.append(f"At a threshold of {at}: {gap}; {100 * (some_share - none_share):.1f} points apart.")
    return "\n\n".join(lines)


def by_source_table(rows: list[Mapping[str, Any]], tag: str) -> str:
    """Average precision by label and source."""
    body = []
    for row in rows:
        if row["scorer"] == tag and row["source"] != "all" and row["positives"]:
            measures = [number(row[key]) for key in ("average_precision", "f1", "macro_f1")]
            ece = number(row["ece"]) if row["n"] >= SMALLEST_CALIBRATION else "–"
            counts = [str(row["n"]), str(row["positives"])]
            body.append([f"`{row['label'].replace('|', ' or ')}`", row["source"], *counts, *measures, percent(row["flagged"]), ece])
    header = ["label", "source", "turns", "positives", "AP", "F1", "macro-F1", "flagged", "ECE"]
    return table(header, body) if body else "No source has a turn with one of the labels."


def calibration_table(rows: list[Mapping[str, Any]], tag: str) -> str:
    """Calibration error of each label: pooled, and where it is worst among sources of enough turns."""
    ours = [row for row in rows if row["scorer"] == tag]
    body = []
    for pooled in (row for row in ours if row["source"] == "all"):
        sources = [row for row in ours if row["label"] == pooled["label"] and row["source"] != "all" and row["n"] >= SMALLEST_CALIBRATION]
        if sources:
            worst = max(sources, key=lambda row: (row["ece"], row["source"]))
            cells = [number(pooled["ece"]), str(len(sources)), worst["source"], str(worst["n"]), number(worst["ece"]), number(worst["ece_by_chance"])]
            body.append([f"`{pooled['label'].replace('|', ' or ')}`", *cells])
    header = ["label", "ECE, all sources", "sources measured", "worst of them", "turns", "ECE there", "by chance alone, about"]
    return table(header, body) if body else f"No source has {SMALLEST_CALIBRATION} turns that know a label."


def targets_table(found: Iterable[Found]) -> str:
    """What was wanted and what was found."""
    found = list(found)
    if not found:
        return "No targets were measured for this version."
    compared = any(one.before is not None for one in found)
    body = []
    for one in found:
        show = percent if one.wanted.endswith("%") else number
        before = [show(one.before)] if compared else []
        body.append([one.name, one.wanted, show(one.value), *before, "yes" if one.met else "**no**", str(one.n), str(one.positives), one.detail])
    return table(["target", "wanted", "found", *(["version before"] if compared else []), "met", "turns", "positive", ""], body)


def runs_table(runs: Iterable[Mapping[str, Any]]) -> str:
    """One row a training run."""
    body = []
    for run in runs:
        steps = max((entry["step"] for entry in run["history"]), default=None)
        values = [entry["eval_macro_ap"] for entry in run["history"] if "eval_macro_ap" in entry]
        command = f"`{run['command']}`" if run.get("command") else "not noted; its settings are in the file"
        row = [run["name"], command, "–" if steps is None else str(steps), number(values[-1] if values else None)]
        body.append([*row, str(run.get("processes", "–")), str(run.get("versions", {}).get("torch", "–"))])
    return table(["run", "command", "steps", "mean AP on validation at the end", "processes", "torch"], body)


def card(
    manifest: Manifest,
    metrics: Mapping[str, Any],
    slices: Mapping[str, Any] | None = None,
    targets: Iterable[Found] = (),
    training: str = "Not recorded for this version.",
) -> str:
    """The model card as Markdown: who may be wrongly flagged first, then targets, quality, calibration, training, data, limits."""
    rows = metrics["rows"]
    provenance = manifest.provenance
    agreement = provenance["agreement_with_torch"][provenance["precision"]]
    meanings = [[f"`{label.name}`", label.speaker, label.role, number(label.threshold), label.description] for label in manifest.labels]
    labels = table(["label", "turns of", "role", "threshold", "meaning"], meanings)
    base = provenance.get("base_model", provenance["training"]["base"])
    unknown = "see provenance in manifest.json"
    return f"""# {manifest.name} {manifest.version}

Scores each turn of a chat for abuse, risk and the assistant's reactions. Every number on this page is written by `lastresort card` from `metrics.json`, which
`lastresort evaluate` wrote on the validation split ({", ".join(metrics["data"])}). No held-out benchmark was looked at.

## Who may be wrongly flagged, and how often

A flagged turn is not an ended conversation: the policy ends only after several observed redirections and an ignored warning, and never while a veto holds.

{false_flags_table(rows, manifest.tag)}

{slices_table(slices)}

Dialects are those that the writers of our own corpus imitated, not samples of their speakers. Languages other than English are hardly known to the model.

## Targets, and what was found

{targets_table(targets)}

## Quality on validation

{quality_table(rows, manifest.tag)}

{BASELINES if any(row["scorer"] != manifest.tag for row in rows) else "No baseline was measured on this split."}

<details><summary>By source</summary>

{by_source_table(rows, manifest.tag)}

</details>

## Calibration

ECE is the expected calibration error over ten bins. By source, only where at least {SMALLEST_CALIBRATION} turns know the label; on so few turns even a
perfectly calibrated model shows some, as the last column says.

{calibration_table(rows, manifest.tag)}

## Labels

{labels}

## How it is made

Base: {base}. Data: {provenance.get("data", unknown)}. Licence: {provenance.get("licence", unknown)}.
Precision `{provenance["precision"]}`: over the {agreement["turns"]} golden turns, probabilities differ from torch by at most {agreement["probability"]:.4f}.
{_gated(provenance.get("quantisation"))}
`distress`, `end_request`, `violent_intent` and large parts of `persistence` are learnt from our own material alone; numbers for them say how well our own
writing is recognised.

## Training

{training}

## Not for

Moderating what people may say, judging people, diagnosing or predicting suicide or violence, or ending conversations without the policy's redirections and
warning. Scores are about turns in English conversations with assistants; refit calibration and thresholds on your own data before you act on them.
"""


def _training(folder: Path) -> str:
    """The section on training; draws the curves beside the card."""
    runs = read_runs(folder)
    drawn = draw_curves(runs, folder / CURVES)
    picture = f"\n\n![Loss and average precision on validation, over the steps]({CURVES})" if drawn else ""
    return f"Settings, logs, digests of the data and versions of every run are in [{TRAINING}]({TRAINING}).\n\n{runs_table(runs)}{picture}"


def write_card(folder: Path, readme: Path | None) -> Manifest:
    """Writes the card and the curves of a model folder and, if given, the numbers block of a README; renews the manifest's hashes.

    Raises:
        ConfigError: no `metrics.json`, one without rows by source, or measures of another model.
    """
    manifest = read_manifest(folder)
    for name in (MODEL, TOKENIZER):  # only card and metrics may have changed since the export
        if file_sha256(folder / name) != manifest.files[name]:
            raise ConfigError(f"{folder / name}: found another file than the manifest names, expected the exported one")
    path = folder / METRICS
    if not path.is_file():
        raise ConfigError(f"{path}: found no such file, expected the output of `lastresort evaluate -o`")
    metrics = json.loads(path.read_text(encoding="utf-8"))
    if metrics["model"] != manifest.tag:
        raise ConfigError(f"{path}: found measures of {metrics['model']}, expected {manifest.tag}")
    if {row["source"] for row in metrics["rows"]} <= {"all"} or "ece_by_chance" not in metrics["rows"][0]:
        raise ConfigError(f"{path}: found no rows by source (or of an older version), expected those of `lastresort evaluate` without --pooled")
    slices = json.loads((folder / SLICES).read_text(encoding="utf-8")) if (folder / SLICES).is_file() else None
    if slices is not None and slices["model"] != manifest.tag:
        raise ConfigError(f"{folder / SLICES}: found measures of {slices['model']}, expected {manifest.tag}")
    if slices is not None and "threshold" not in slices:
        raise ConfigError(f"{folder / SLICES}: found no threshold, expected the output of this version's `lastresort slices`")
    measured, targets = read_targets(folder / TARGETS) if (folder / TARGETS).is_file() else (manifest.tag, [])
    if measured != manifest.tag:
        raise ConfigError(f"{folder / TARGETS}: found measures of {measured}, expected {manifest.tag}")
    text = card(manifest, metrics, slices, targets, _training(folder)) if (folder / TRAINING).is_file() else card(manifest, metrics, slices, targets)
    (folder / "README.md").write_text(text, encoding="utf-8", newline="\n")
    if readme is not None:
        block = f"\n{quality_table(metrics['rows'], manifest.tag)}\n\n{false_flags_table(metrics['rows'], manifest.tag, brief=True)}\n"
        renew(readme, "numbers", BEGIN, END, block)
    return finish(folder, manifest)
