"""A check as GitHub's workflow commands: an error or a warning beside the file in a pull request.

The runner reads commands from whatever a step prints. So what is printed for people, which holds foreign names, stands
between `stop-commands` and a word that nobody can guess.
"""

from __future__ import annotations

from edgedistill.checkresult import Check
from edgedistill.evidence.view import checkwords as words
from edgedistill.evidence.view import figures


def _data(text: str) -> str:
    """The message of a command: percent and line ends escaped, as the runner undoes it."""
    shown = figures.short(text, 1000)
    return shown.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _value(text: str) -> str:
    """The value of a command's property, where colons and commas would end it too."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def workflow_commands(check: Check, file: str | None) -> list[str]:
    """A line for each limit that is not kept; `file` is the model as the repository knows it."""
    lines = []
    for row in check.rows:
        if row.status == "pass":
            continue
        bad = row.status in ("fail", "regress") or check.strict
        place = f"file={_value(file)}," if file else ""
        head = f"{'error' if bad else 'warning'} {place}title={_value(f'edgedistill: {words.title(row)}')}"
        seen = f"{words.observed(row)}, allowed {words.allowed(row)}"
        rest = f" ({words.note(row)})" if words.note(row) else ""
        text = f"{words.STATUS_WORD[row.status]}: {figures.short(check.new.name)}: {seen}{rest}"
        lines.append(f"::{head}::{_data(text)}")
    return lines
