"""The file of the page is what its command writes."""

from __future__ import annotations

import json

from lastresort.server.static import FOLDER
from lastresort_data.page import PICKED, bundle


def test_the_file_is_the_written_one() -> None:
    assert json.loads((FOLDER / "data.json").read_text(encoding="utf-8")) == bundle()


def test_its_scenarios_are_dialogues() -> None:
    dialogues = [dialogue for group in bundle()["groups"] for dialogue in group["dialogues"]]
    assert [dialogue["id"] for dialogue in dialogues] == [one for ids in PICKED.values() for one in ids]
    assert all(len(dialogue["messages"]) >= 4 and all(message["content"] for message in dialogue["messages"]) for dialogue in dialogues)
