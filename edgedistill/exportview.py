"""What the terminal shows of an export, of a bundle that is verified, and of an archive."""

from __future__ import annotations

import shlex
from pathlib import Path

from ontarget.views import table
from rich.text import Text

from edgedistill.deploy.archive import Sizes
from edgedistill.evidence.view.figures import visible
from edgedistill.exported import Exported, Row


def exported_view(found: Exported) -> Text:
    """A line a file, why the one ships and the others do not, what to know, and the next command."""
    head = ["file", "MB", "precision", "off torch by", "same class", "top-1"]
    rows = [_cells(row, row.precision == found.chosen) for row in found.rows]
    lines = [f"{found.title} for {found.device}", "", table(head, rows), ""]
    lines += [
        f"{'* ' if row.precision == found.chosen else '  '}{row.precision}: {row.reason}"
        for row in found.rows
    ]
    n = found.rows[0].parity["n"]
    lines += ["", f"compared with torch on {n:,} images; golden images: {found.images}"]
    if found.val_images:
        lines.append(f"top-1 of {found.val_images:,} validation images, by the kit")
    lines += [f"- {note}" for note in found.notes]
    folder = shlex.quote(str(found.folder))
    lines += ["", f"{found.folder}  {found.bundle_bytes / 1e6:.1f} MB. Next:"]
    lines.append(f"  python3 {folder}/ontarget.pyz check {folder}")
    return Text("\n".join(visible(line) for text in lines for line in text.split("\n")))


def _cells(row: Row, chosen: bool) -> list[str]:
    return [
        f"{row.file}{' *' if chosen else ''}",
        f"{row.size_bytes / 1e6:.2f}",
        row.precision,
        f"{row.parity['max_abs']:.1e}",
        f"{100 * row.parity['top1_agreement']:.1f} %",
        "-" if row.val_top1 is None else f"{100 * row.val_top1:.2f} %",
    ]


def packed_view(out: Path, sizes: Sizes) -> Text:
    """The archive, and where its bytes are before they are packed."""
    return Text(
        f"{visible(str(out))}  {out.stat().st_size / 1e6:.2f} MB, from {sizes.whole / 1e6:.2f} MB: models "
        f"{sizes.models / 1e6:.2f} MB, labels and golden images {sizes.images / 1e3:.1f} kB, all else "
        f"{sizes.rest / 1e3:.1f} kB"
    )
