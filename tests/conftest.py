"""Hypothesis profiles: `local` by default, `LASTRESORT_HYPOTHESIS=ci` for more examples."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("local", max_examples=200, deadline=None)
settings.register_profile("ci", max_examples=1000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("LASTRESORT_HYPOTHESIS", "local"))
