"""What a person sees while a build runs: bars with an ETA on a terminal, one line a stage elsewhere.

`Face` is given to the rooms as an argument; nothing in a room prints. Tools read `events.jsonl` instead.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Advance = Callable[[int], None]


class Face:
    """Prints to standard error; `verbosity` 0 is quiet, 1 normal, 2 tells every detail."""

    def __init__(self, verbosity: int = 1, console: Console | None = None) -> None:
        self.verbosity = verbosity
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)

    @property
    def live(self) -> bool:
        """Whether bars make sense: a terminal, and not quiet."""
        return self.verbosity > 0 and self.console.is_terminal

    def say(self, text: str) -> None:
        """One line for a person."""
        if self.verbosity > 0:
            self.console.print(text, markup=False)

    def detail(self, text: str) -> None:
        """One line that only `-v` shows."""
        if self.verbosity > 1:
            self.console.print(f"    {text}", style="dim", markup=False)

    def warn(self, text: str) -> None:
        """One line that even `-q` shows."""
        self.console.print(f"warning: {text}", style="yellow", markup=False)

    @contextlib.contextmanager
    def bar(self, title: str, total: int) -> Iterator[Advance]:
        """A progress bar over `total` steps; `advance(k)` moves it by `k`. Nothing where it is not live."""
        if not self.live or total <= 0:
            yield lambda _: None
            return
        columns = (
            SpinnerColumn(),
            TextColumn("    {task.description}", markup=False),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(title, total=total)
            yield lambda step: progress.advance(task, step)

    def counter(self, title: str) -> Callable[[int, int], None]:
        """A `progress(done, total)` function for work of unknown length: on a terminal, a line every two seconds."""
        last = [time.monotonic()]

        def tell(done: int, total: int) -> None:
            if self.live and time.monotonic() - last[0] > 2:
                last[0] = time.monotonic()
                self.console.print(f"    {title}: {done:,} of {total:,}", style="dim")

        return tell


def silent() -> Face:
    """A face that says nothing but warnings; for library use and tests."""
    return Face(verbosity=0, console=Console(file=sys.stderr, highlight=False))
