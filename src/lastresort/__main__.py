"""`python -m lastresort …`, the same as the command `lastresort`; `accelerate launch -m lastresort train …` needs it."""

from __future__ import annotations

from .cli import main

if __name__ == "__main__":
    main()
