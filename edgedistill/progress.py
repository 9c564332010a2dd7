"""What a person sees while a build runs: bars with an ETA on a terminal; elsewhere a line a stage, and one a minute.

`Face` is given to the rooms as an argument; nothing in a room prints. Tools read `events.jsonl` instead.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from statistics import fmean

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from edgedistill.result import CurvePoint

Advance = Callable[[int], None]
Sink = Callable[[Sequence[CurvePoint]], None]
"""Takes every epoch of a training so far, at the end of each epoch."""
SPARKS = "▁▂▃▄▅▆▇█"
MOST_SPARKS, FEWEST_SPARKS = 24, 6
MOST_BAR, LEAST_BAR = 28, 6
BEAT_S = 60.0
"""Seconds between two lines about work that goes on, where there is no terminal."""


class Face:
    """Prints to standard error; `verbosity` 0 is quiet, 1 normal, 2 tells every detail."""

    def __init__(self, verbosity: int = 1, console: Console | None = None) -> None:
        self.verbosity = verbosity
        self.console = console or Console(
            stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty()
        )
        self._note = ""
        self._sink: Sink | None = None
        self.watch: Callable[[str, Sequence[CurvePoint]], None] | None = None
        """Is told of every epoch of every training, with its name, and may end one by what it raises."""

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
    def following(self, sink: Sink | None) -> Iterator[None]:
        """Trainings inside give their curves to `sink` too."""
        before, self._sink = self._sink, sink
        try:
            yield
        finally:
            self._sink = before

    def curve(self, title: str, points: Sequence[CurvePoint], epochs: int) -> None:
        """The last epoch of a training in words and its whole course in small; under the bar, or a line with `-v`."""
        if self._sink is not None:
            self._sink(points)
        last = points[-1]
        text = f"{title}: epoch {last.epoch} of {epochs}, loss {last.loss:.3f}"
        if last.val_top1 is not None:
            text += f", validation top-1 {last.val_top1:.3f}"
        self._note = self._course(points, epochs)
        self.detail(text)
        if self.watch is not None:
            self.watch(title, points)

    def _course(self, points: Sequence[CurvePoint], epochs: int) -> str:
        """Loss and validation top-1 of every epoch on one line of the terminal."""
        last, scores = points[-1], [p.val_top1 for p in points if p.val_top1 is not None]
        words = [f"epoch {last.epoch}/{epochs}", f"loss {last.loss:.3f}"]
        if scores:
            words.append(f"validation {scores[-1]:.3f}")
        room = self.console.width - 5 - sum(len(word) + 3 for word in words)
        width = min(MOST_SPARKS, max(FEWEST_SPARKS, room // (len(words) - 1)))
        drawn = ["", *(sparkline(v, width) for v in ([p.loss for p in points], scores) if v)]
        return "  ".join(f"{word} {line}".strip() for word, line in zip(words, drawn, strict=True))

    @contextlib.contextmanager
    def bar(self, title: str, total: int) -> Iterator[Advance]:
        """A progress bar over `total` steps; `advance(k)` moves it by `k`. Without a terminal, a line a minute.

        The course of a training stands on a line of its own, so that the ETA is never pushed out.
        """
        if not self.live or total <= 0:
            yield self._beats(title, total)
            return
        others = len(title) + 2 * len(str(total)) + 30
        progress = Progress(
            SpinnerColumn(),
            TextColumn("    {task.description}", markup=False),
            BarColumn(bar_width=min(MOST_BAR, max(LEAST_BAR, self.console.width - others))),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
        )
        task = progress.add_task(title, total=total)
        self._note = ""

        def shown() -> Group:
            line = Text(f"    {self._note}", style="dim", no_wrap=True, overflow="ellipsis")
            return Group(progress, line) if self._note else Group(progress)

        with Live(get_renderable=shown, console=self.console, transient=True):
            yield lambda step: progress.advance(task, step)

    def _beats(self, title: str, total: int) -> Advance:
        """How far work is and how long it will take, by its pace since the line before."""
        done, told, at = 0, 0, time.monotonic()

        def advance(step: int) -> None:
            nonlocal done, told, at
            done += step
            passed = time.monotonic() - at
            if passed < 1.0:
                told = done  # what an earlier process did comes at once
            if passed < BEAT_S or done <= told:
                return
            left = (total - done) * passed / (done - told)
            words = f"{left / 60:.0f} min" if left >= 120 else f"{max(0.0, left):.0f} s"
            if done < total:
                self.say(f"    {title}: {done:,} of {total:,}, about {words} to go")
            told, at = done, time.monotonic()

        return advance

    def counter(self, title: str) -> Callable[[int, int], None]:
        """A `progress(done, total)` function for work of unknown length: on a terminal, a line every two seconds."""
        last = [time.monotonic()]

        def tell(done: int, total: int) -> None:
            if self.live and time.monotonic() - last[0] > 2:
                last[0] = time.monotonic()
                self.console.print(f"    {title}: {done:,} of {total:,}", style="dim")

        return tell


def sparkline(values: Sequence[float], width: int = MOST_SPARKS) -> str:
    """At most `width` small bars from the lowest to the highest value; of more values, means of equal shares."""
    count = min(len(values), width)
    edges = [i * len(values) // count for i in range(count + 1)] if count else []
    shown = [fmean(values[a:b]) for a, b in pairwise(edges)]
    low, high = min(shown, default=0.0), max(shown, default=0.0)
    span = high - low if high > low else 1.0
    return "".join(SPARKS[round((value - low) / span * (len(SPARKS) - 1))] for value in shown)


def silent() -> Face:
    """A face that says nothing but warnings; for library use and tests."""
    return Face(verbosity=0, console=Console(file=sys.stderr, highlight=False))
