"""What every table in the terminal is made of."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from edgedistill.evidence.view import figures


def words(text: str, style: str = "") -> Text:
    """Foreign text, cut and without what a terminal would obey."""
    return Text(figures.short(text, 1000), style=style)


def grid(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """An empty table without a frame; `right` names the columns that are set to the right."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    table.show_edge = False
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table
