"""Stores a part of a cache of formulas, slowly: a process that tests start, and kill.

python -m tests.teacher.storing_process FOLDER PART OF SECONDS_A_BATCH
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from edgedistill.progress import silent
from edgedistill.rundir import Work
from edgedistill.teacher.storing import store
from tests.teacher.cache_parts import Formula, content, small_shards


class Slow(Formula):
    """Thinks about each batch."""

    def __call__(self, index: Any, view: int) -> Any:
        """As a formula, later."""
        time.sleep(float(sys.argv[4]))
        return super().__call__(index, view)


def main() -> None:
    """Store, and say how many shards are missing."""
    small_shards()
    part = (int(sys.argv[2]), int(sys.argv[3]))
    facts = store(Work(Path(sys.argv[1])), content(views=4), [Slow()], silent(), part)
    print(facts["missing"], flush=True)


if __name__ == "__main__":
    main()
