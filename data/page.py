"""What the page of the HTTP service has at hand: scenarios to play, and each reason in words: `src/lastresort/server/page/data.json`.

    python -m lastresort_data.page > src/lastresort/server/page/data.json

The scenarios are those of `data/scenarios/`, by id; the page shows what the model at work makes of them, so what is expected of it is left out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from lastresort.config import read_yaml
from lastresort.explain import MEANING
from lastresort.types import ROLES

SCENARIOS = Path(__file__).parent / "scenarios"
PICKED: dict[str, tuple[str, ...]] = {
    "The road to an end": ("insults-end", "stops-at-the-warning", "apologises-after-the-warning", "one-bad-turn", "a-quiet-spell-forgets", "asks-and-confirms"),
    "Somebody may be at risk": ("crisis-with-abuse", "crisis-after-the-warning"),
    "Must never be ended": (
        "customer-parcel",
        "friendly-swearing",
        "quoting-a-boss",
        "fiction-abusive-character",
        "security-phishing-training",
        "over-refused-medicine",
        "german-customer",
    ),
}
"""Group to scenarios, in the order in which the page offers them; without any that the shipped model is known to fail."""


def bundle() -> dict[str, Any]:
    """Everything that is written into the file."""
    known = {scenario["id"]: scenario for path in sorted(SCENARIOS.glob("*.yaml")) for scenario in read_yaml(path)["scenarios"]}
    groups = [{"name": name, "dialogues": [_dialogue(known[one]) for one in ids]} for name, ids in PICKED.items()]
    return {"groups": groups, "reasons": dict(MEANING)}


def _dialogue(scenario: dict[str, Any]) -> dict[str, Any]:
    messages = [{"role": role, "content": turn[role]} for turn in scenario["turns"] for role in ROLES if role in turn]
    return {"id": scenario["id"], "about": scenario["about"], "messages": messages}


if __name__ == "__main__":
    json.dump(bundle(), sys.stdout, ensure_ascii=False, indent=1)
    sys.stdout.write("\n")
