"""The verdict in the terminal as a rich renderable: status, limits, arms, files, the report."""

from __future__ import annotations

from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgedistill.evidence.view import figures
from edgedistill.evidence.view.comparisons import (
    comparisons,
    costs,
    gains_over,
    notes,
    other_remarks,
)
from edgedistill.evidence.view.terminal import grid, words
from edgedistill.result import Artifact, Result, Status

LONGEST_NAME = 20
"""Characters of an arm's name that are not cut where the terminal is narrow."""
_STYLE: dict[Status, str] = {
    "pass": "bold green",
    "fail": "bold red",
    "unconfirmed": "bold yellow",
}


def _limits(result: Result) -> Table:
    table = grid(
        "Limit", "Allowed", "Observed", "Evidence", "Status", right=("Allowed", "Observed")
    )
    for row in result.verdict.rows:
        allowed, observed = figures.limit_numbers(row)
        table.add_row(
            words(figures.limit_name(row)),
            allowed,
            observed,
            figures.limit_evidence(row),
            words(figures.STATUS_WORD[row.status], _STYLE[row.status]),
        )
    return table


def _arms(result: Result) -> Table:
    columns = ("Arm", "Top-1", "95 % interval", "Time", "Distilled against it, points", "")
    table, gains = grid(*columns, right=("Top-1", "Time")), gains_over(result.arms)
    table.columns[0].min_width = min(
        LONGEST_NAME, max(map(len, (a.name for a in result.arms)), default=0)
    )
    for arm in result.arms:
        gain, taught = gains.get(arm.name), arm.gain is not None or arm.gains
        over = "" if taught else "not compared"
        if gain is not None:
            value = figures.signed_points(gain.value)
            over = f"{value} ({figures.gain_interval(gain)})".replace(" points", "")
        ships = arm.name == result.chosen_arm
        table.add_row(
            words(arm.name, "bold" if ships else ""),
            figures.accuracy(arm.top1),
            figures.interval(arm.top1),
            figures.duration(arm.seconds),
            over,
            Text("ships", style="bold") if ships else Text(""),
        )
    return table


def _proof(result: Result) -> list[Text]:
    """Each comparison by its name, what distillation cost, the seeds, and what happened on the way."""
    made = [words(f"{c.title}{c.more}: {c.words}") for c in comparisons(result.arms)]
    cost = costs(result.arms)
    seeds = [
        words(
            f"{arm.name} by seed: {', '.join(figures.percent(s.top1, 2) for s in arm.seeds)}", "dim"
        )
        for arm in result.arms
        if arm.seeds
    ]
    told = [words(note, "yellow") for note in notes(result.arms)]
    return [*made, *([words(cost, "dim")] if cost else []), *seeds, *told]


def _latency(artifact: Artifact) -> tuple[str, str]:
    best = figures.best_latency(artifact.latency)
    if best is None:
        return figures.UNKNOWN, "none"
    return figures.milliseconds(best.p50_s), figures.EVIDENCE_WORD[best.evidence]


def _artifacts(result: Result) -> Table:
    columns = ("File", "Size", "Top-1", "p50", "Evidence", "")
    table = grid(*columns, right=("Size", "Top-1", "p50"))
    for artifact in result.artifacts:
        ships = artifact.name == result.chosen
        p50, evidence = _latency(artifact)
        table.add_row(
            words(artifact.name, "bold" if ships else ""),
            figures.megabytes(artifact.size_bytes),
            figures.accuracy(artifact.top1),
            p50,
            evidence,
            Text("ships", style="bold") if ships else Text(""),
        )
    return table


def console(result: Result, report: Path | None = None) -> RenderableType:
    """The verdict for a terminal; `report` is the path of the page, left out when it is `None`."""
    verdict = result.verdict
    line = Text(figures.STATUS_WORD[verdict.status], style=_STYLE[verdict.status])
    line.append("  ").append_text(words(verdict.sentence, "bold"))
    parts: list[RenderableType] = [line, Text(), _limits(result)]
    advice = [row for row in verdict.rows if row.advice and row.status != "pass"]
    parts += [words(f"  {figures.limit_name(row)}: {row.advice}", "dim") for row in advice]
    parts += [Text(), _arms(result)]
    parts += _proof(result)
    parts += [Text(), _artifacts(result)]
    parts += [Text(), *(words(remark) for remark in other_remarks(result))]
    if report is not None:
        parts += [Text(), words(f"Report: {report}")]
    return Group(*parts)
