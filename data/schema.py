"""Prints the JSON schema of a dialogue line: `python -m lastresort_data.schema > data/schema.json`."""

from __future__ import annotations

import json

from lastresort.data import json_schema

if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
