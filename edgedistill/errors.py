"""Every error that a user can cause, and how the program ends on it.

    EdgedistillError            exit 2   base; its text is one paragraph: got, allowed, what to do
    |-- UsageError              exit 2   an option, a name or a budget that is not allowed
    |   |-- RecipeError         exit 2   a recipe with one or more problems, all listed at once
    |   |-- DeviceError         exit 2   an unknown device, or a profile that does not hold
    |   `-- MissingExtraError   exit 2   a part of edgedistill that is not installed, with the command
    |-- DataError               exit 2   images or labels that cannot be used
    |-- TeacherError            exit 2   a teacher or a checkpoint that cannot be loaded or does not fit
    |-- GeneratorError          exit 2   a generator of images that cannot be loaded, or makes none that can be used
    |-- DocumentError           exit 2   a result, manifest or bundle that is damaged or of another version
    |-- BusyError               exit 2   another process is at work in the same run folder
    |-- BudgetError             exit 1   no candidate fits the limits; names the closest one
    `-- StoppedError            exit 3   stopped before the end and resumable: full disk, out of memory, Ctrl-C

`assert` is for our own bugs only; whatever a user can do wrong raises one of these.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

MOST_SHOWN = 40


class EdgedistillError(Exception):
    """A fault that the user can mend; its text is one paragraph without a traceback."""

    exit_code = 2


class UsageError(EdgedistillError):
    """An option, a name or a number that is not allowed."""


class RecipeError(UsageError):
    """A recipe with problems; `problems` has one line each, path first; the text shows the first 40."""

    def __init__(self, where: str, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = [f"  {problem}" for problem in problems[:MOST_SHOWN]]
        if len(problems) > MOST_SHOWN:
            lines.append(f"  and {len(problems) - MOST_SHOWN} more")
        super().__init__("\n".join([f"{where} has {count}", *lines]))


class DeviceError(UsageError):
    """An unknown device, or a profile with problems."""


class MissingExtraError(UsageError):
    """A part of edgedistill that is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f'{what} needs the "{extra}" extra, which is not installed: '
            f'run  pip install "edgedistill[{extra}]"'
        )


class DataError(EdgedistillError):
    """Images or labels that cannot be used."""


class TeacherError(EdgedistillError):
    """A teacher or a checkpoint that cannot be loaded, or that does not fit."""


class GeneratorError(EdgedistillError):
    """A generator of synthetic images that cannot be loaded, or makes none that can be used."""


class DocumentError(EdgedistillError):
    """A result, manifest or bundle that is damaged, or of another version."""


class BusyError(EdgedistillError):
    """Another process is at work in the same run folder."""


class BudgetError(EdgedistillError):
    """No candidate fits the limits."""

    exit_code = 1


class StoppedError(EdgedistillError):
    """Stopped before the end; the same command continues."""

    exit_code = 3


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint such as `; did you mean "temperature"?`, or the empty string when nothing is near."""
    close = difflib.get_close_matches(name, list(known), n=5, cutoff=0.6)
    longer = [word for word in close if word.startswith(name)]
    return f'; did you mean "{(longer or close)[0]}"?' if close else ""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """One paragraph for a name outside a closed vocabulary: got, nearest, allowed."""
    names = sorted(known)
    hint = nearest(name, names) or "."
    return f'unknown {kind} "{name}"{hint} Known: {", ".join(names)}.'
