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

from .export import finish

BEGIN, END = "<!-- numbers: written by `lastresort card`; do not edit -->", "<!-- end of numbers -->"
METRICS, SLICES = "metrics.json", "slices.json"
SMALLEST_SLICE = 30
"""Harmless turns below which a slice says nothing."""


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    names = list(header)
    lines = [" | ".join(names), " | ".join("---" for _ in names), *(" | ".join(row) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines)


def renew(page: Path, name: str, begin: str, end: str, block: str) -> None:
    """Writes a page's block between `begin` and `end` anew. Raises `ConfigError` where the page has no such block."""
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ConfigError(f"{page}: found no {name} block, expected {begin} … {end}")
    page.write_text(before + begin + block + end + after, encoding="utf-8", newline="\n")


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


def false_flags_table(rows: list[Mapping[str, Any]], tag: str) -> str:
    """Harmless turns flagged as `harm`, for each source that has turns without harm only, and the share for the others' harmless turns."""
    body = []
    for row in rows:
        if row["scorer"] == tag and row["label"] == "harm" and row["source"] != "all" and row["positives"] == 0:
            body.append([row["source"], str(row["n"]), percent(row["flagged"])])
    return table(["source (no harmful turn in it)", "turns", "flagged as harm"], body)


def slices_table(record: Mapping[str, Any] | None) -> str:
    """Harmless turns flagged, by mentioned group, length, dialect and language."""
    if record is None:
        return "Not measured by group, length and dialect for this version."
    body = [[one["kind"], one["name"], str(one["n"]), percent(one["flagged"] / one["n"])] for one in record["slices"] if one["n"] >= SMALLEST_SLICE]
    return table(["harmless turns by", "", "turns", "flagged as harm"], body)


def by_source_table(rows: list[Mapping[str, Any]], tag: str) -> str:
    """Average precision by label and source."""
    body = []
    for row in rows:
        if row["scorer"] == tag and row["source"] != "all" and row["positives"]:
            measures = [number(row["average_precision"]), number(row["macro_f1"]), percent(row["flagged"])]
            body.append([f"`{row['label'].replace('|', ' or ')}`", row["source"], str(row["n"]), str(row["positives"]), *measures])
    return table(["label", "source", "turns", "positives", "AP", "macro-F1", "flagged"], body)


def card(manifest: Manifest, metrics: Mapping[str, Any], slices: Mapping[str, Any] | None = None) -> str:
    """The model card as Markdown: who may be wrongly flagged first, then quality, data, limits."""
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

## Quality on validation

{quality_table(rows, manifest.tag)}

`tfidf-lr` and `frozen-minilm-lr` are baselines on the same split: logistic regression on TF-IDF and on frozen embeddings, one turn at a time.

<details><summary>By source</summary>

{by_source_table(rows, manifest.tag)}

</details>

## Labels

{labels}

## How it is made

Base: {base}. Data: {provenance.get("data", unknown)}. Licence: {provenance.get("licence", unknown)}.
Precision `{provenance["precision"]}`: over the {agreement["turns"]} golden turns, probabilities differ from torch by at most {agreement["probability"]:.4f}.
`distress`, `end_request`, `violent_intent` and large parts of `persistence` are learnt from our own material alone; numbers for them say how well our own
writing is recognised.

## Not for

Moderating what people may say, judging people, diagnosing or predicting suicide or violence, or ending conversations without the policy's redirections and
warning. Scores are about turns in English conversations with assistants; refit calibration and thresholds on your own data before you act on them.
"""


def write_card(folder: Path, readme: Path | None) -> Manifest:
    """Writes the card of a model folder and, if given, the numbers block of a README; renews the manifest's hashes.

    Raises:
        ConfigError: no `metrics.json`, or one of another model.
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
    slices = json.loads((folder / SLICES).read_text(encoding="utf-8")) if (folder / SLICES).is_file() else None
    if slices is not None and slices["model"] != manifest.tag:
        raise ConfigError(f"{folder / SLICES}: found measures of {slices['model']}, expected {manifest.tag}")
    (folder / "README.md").write_text(card(manifest, metrics, slices), encoding="utf-8", newline="\n")
    if readme is not None:
        block = f"\n{quality_table(metrics['rows'], manifest.tag)}\n\n{false_flags_table(metrics['rows'], manifest.tag)}\n"
        renew(readme, "numbers", BEGIN, END, block)
    return finish(folder, manifest)
