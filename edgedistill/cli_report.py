"""What `edgedistill report` does: the views of one result or study, or several results side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgedistill.cli_parts import show


def rebuild(run: Path, out: Path | None) -> None:
    """Write the views of a result or a study into `out`, else beside it, and print the verdict."""
    folder = out or (run if run.is_dir() else run.parent)
    if run.name == "study.json" or (run / "study.json").is_file():
        from edgedistill.evidence import study as views
        from edgedistill.studyresult import load as load_study

        found = load_study(run)
        folder.mkdir(parents=True, exist_ok=True)
        views.write_views(found, folder)
        show(views.console(found, folder / "study.html"))
        return
    from edgedistill.evidence.report import console, write_views
    from edgedistill.result import load

    result = load(run)
    folder.mkdir(parents=True, exist_ok=True)
    write_views(result, folder, run if run.is_dir() else run.parent)
    show(console(result, folder / "report.html"))


def compare(runs: Sequence[Path], out: Path | None) -> None:
    """Write `comparison.html` and `comparison.md` of several runs into `out`, else here, and print the table."""
    from edgedistill.evidence import comparison

    found = comparison.entries(runs)
    folder = out or Path()
    folder.mkdir(parents=True, exist_ok=True)
    comparison.write_views(found, folder)
    show(comparison.console(found, folder / "comparison.html"))
