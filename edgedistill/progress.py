"""What a person sees while a build runs: bars with an ETA on a terminal, one line a stage elsewhere.

`Face` is given to the rooms as an argument; nothing in a room prints. Tools read `events.jsonl` instead.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence

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

from edgedistill.result import CurvePoint

Advance = Callable[[int], None]
SPARKS = "▁▂▃▄▅▆▇█"
CURVE_POINTS = 24


class Face:
    """Prints to standard error; `verbosity` 0 is quiet, 1 normal, 2 tells every detail."""

    def __init__(self, verbosity: int = 1, console: Console | None = None) -> None:
        self.verbosity = verbosity
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._note: Callable[[str], None] | None = None

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

    def curve(self, title: str, points: Sequence[CurvePoint], epochs: int) -> None:
        """The last epoch of a training in words and its whole course in small; under the bar, or a line with `-v`."""
        last = points[-1]
        text = f"{title}: epoch {last.epoch} of {epochs}, loss {last.loss:.3f}"
        if last.val_top1 is not None:
            text += f", validation top-1 {last.val_top1:.3f}"
        if self._note is not None:
            losses = sparkline([point.loss for point in points])
            scores = sparkline([p.val_top1 for p in points if p.val_top1 is not None])
            self._note(
                f"loss {last.loss:.3f} {losses}  validation {last.val_top1 or 0:.3f} {scores}"
            )
        self.detail(text)

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
            TextColumn("{task.fields[note]}", markup=False, style="dim"),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(title, total=total, note="")
            self._note = lambda text: progress.update(task, note=text)
            try:
                yield lambda step: progress.advance(task, step)
            finally:
                self._note = None

    def counter(self, title: str) -> Callable[[int, int], None]:
        """A `progress(done, total)` function for work of unknown length: on a terminal, a line every two seconds."""
        last = [time.monotonic()]

        def tell(done: int, total: int) -> None:
            if self.live and time.monotonic() - last[0] > 2:
                last[0] = time.monotonic()
                self.console.print(f"    {title}: {done:,} of {total:,}", style="dim")

        return tell


def sparkline(values: Sequence[float]) -> str:
    """A line of small bars from the lowest to the highest value; of many values, the last ones."""
    shown = list(values)[-CURVE_POINTS:]
    low, high = min(shown, default=0.0), max(shown, default=0.0)
    scale = (len(SPARKS) - 1) / (high - low) if high > low else 0.0
    return "".join(SPARKS[round((value - low) * scale)] for value in shown)


def silent() -> Face:
    """A face that says nothing but warnings; for library use and tests."""
    return Face(verbosity=0, console=Console(file=sys.stderr, highlight=False))
