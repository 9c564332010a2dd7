"""The processes that train together under `accelerate launch` (or torchrun); one process alone is a crew of one.

The first process leads: it alone writes the run folder, and the others do what it says. A crew of one never imports
torch for any of this.
"""

from __future__ import annotations

import os
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")
LONGEST_STAGE = timedelta(days=7)
"""The others wait this long for what the leader does alone."""


def size() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process' number, from 0."""
    return int(os.environ.get("RANK", "0"))


def leads() -> bool:
    """Whether this process writes and decides."""
    return rank() == 0


@cache
def accelerator() -> Any:
    """accelerate's view of this process: device, process group, and what wraps a network for several processes."""
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs

    handlers = [InitProcessGroupKwargs(timeout=LONGEST_STAGE)] if size() > 1 else []
    return Accelerator(kwargs_handlers=handlers, mixed_precision="no")


def told(value: T) -> T:
    """What the leader gives, in every process; each process must call it at the same place."""
    if size() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    accelerator()
    box: list[Any] = [value]
    broadcast_object_list(box)
    given: T = box[0]
    return given


def gathered(value: T) -> list[T]:
    """The values of all processes, by rank, in every process."""
    if size() == 1:
        return [value]
    from accelerate.utils import gather_object

    accelerator()
    values: list[T] = gather_object([value])
    return values
