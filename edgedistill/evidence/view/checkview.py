"""A check for the terminal and, as Markdown, for a pull request: the verdict on top, a row a limit, what grew."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgedistill.checkresult import Check, Ending, Verdict
from edgedistill.evidence.view import checkwords as words
from edgedistill.evidence.view import figures, terminal
from edgedistill.evidence.view.markdown import name, prose, table

MOST_SHOWN, MOST_IN_MARKDOWN = 8, 20
_STYLE: dict[Ending | Verdict, str] = {
    "pass": "bold green", "fail": "bold red", "regress": "bold red",
    "inconclusive": "bold yellow", "unconfirmed": "bold yellow",
}  # fmt: skip
_MARK: dict[Ending | Verdict, str] = {
    "pass": "✅",
    "fail": "❌",
    "regress": "❌",
    "inconclusive": "⚠️",
    "unconfirmed": "⚠️",
}
COLUMNS = ("Limit", "Old", "New", "Observed", "Allowed", "Status")


def console(check: Check) -> RenderableType:
    """The check for a terminal."""
    line = Text(words.STATUS_WORD[check.status], style=_STYLE[check.status])
    line.append("  ").append_text(terminal.words(check.sentence, "bold"))
    grid = terminal.grid(*COLUMNS, right=("Old", "New"))
    for row in check.rows:
        old, new = words.sides(row)
        status = terminal.words(words.STATUS_WORD[row.status], _STYLE[row.status])
        cells = (words.title(row), old, new, words.observed(row), words.allowed(row))
        grid.add_row(*map(terminal.words, cells), status)
    parts: list[RenderableType] = [line]
    if check.rows:
        parts += [Text(), grid, terminal.words(words.origins(check), "dim")]
    for row in check.rows:
        if text := words.note(row):
            parts.append(terminal.words(f"  {words.title(row)}: {text}", "dim"))
    grown = words.grown(check)
    if grown:
        parts += [Text(), _layers(check)]
        if len(grown) > MOST_SHOWN:
            parts.append(terminal.words(f"and {len(grown) - MOST_SHOWN} more", "dim"))
    if about := words.facts(check):
        parts += [Text(), *(terminal.words(f"{what}: {text}") for what, text in about)]
    if check.remarks:
        parts += [Text(), *map(terminal.words, check.remarks)]
    return Group(*parts)


def _layers(check: Check) -> Table:
    grid = terminal.grid("What changed", "Old", "New", "Growth", right=("Old", "New"))
    for item in words.grown(check)[:MOST_SHOWN]:
        grid.add_row(terminal.words(figures.short(item.name)), *_bytes(item.old, item.new))
    return grid


def _bytes(old: int | None, new: int | None) -> tuple[str, str, str]:
    before, after = (words.NOTHING if v is None else f"{v:,}" for v in (old, new))
    if old is None or new is None:
        return before, after, f"new, +{after}" if old is None else f"gone, −{before}"
    return before, after, words.growth(old, new)


def markdown(check: Check) -> str:
    """The check as GitHub's Markdown, foreign names escaped; ends with a newline."""
    status = f"{_MARK[check.status]} {words.STATUS_WORD[check.status]}"
    blocks = [f"## {status}: {prose(check.sentence)}"]
    if check.old is not None:
        blocks.append(f"{name(check.old.name)} (old) against {name(check.new.name)} (new)")
    rows = []
    for row in check.rows:
        old, new = words.sides(row)
        ended = f"{_MARK[row.status]} {words.STATUS_WORD[row.status]}"
        rows.append([words.title(row), old, new, words.observed(row), words.allowed(row), ended])
    if rows:
        blocks += [table(COLUMNS, rows, (1, 2)), prose(words.origins(check))]
    notes = [
        f"- {words.title(row)}: {prose(words.note(row))}" for row in check.rows if words.note(row)
    ]
    blocks.append("\n".join(notes))
    grown = words.grown(check)
    if grown:
        listing = [[name(c.name), *_bytes(c.old, c.new)] for c in grown[:MOST_IN_MARKDOWN]]
        listed = table(("What changed", "Old", "New", "Growth"), listing, (1, 2))
        more = (
            f"\n\nand {len(grown) - MOST_IN_MARKDOWN} more" if len(grown) > MOST_IN_MARKDOWN else ""
        )
        blocks.append(
            f"<details><summary>What changed in size ({len(grown)})</summary>\n\n{listed}{more}\n\n</details>"
        )
    about = [f"- {prose(what)}: {prose(text, 2000)}" for what, text in words.facts(check)]
    blocks += ["\n".join(about), *(f"> {prose(remark)}" for remark in check.remarks)]
    return "\n\n".join(block for block in blocks if block) + "\n"
