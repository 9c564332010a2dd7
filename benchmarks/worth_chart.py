"""The worth of synthetic images over the number of real ones: a chart and a table from the studies worth_*.yaml.

python -m benchmarks.worth_chart runs/worth-20 runs/worth-50 ... --out docs/worth.svg [--table docs/results.md]

With --table, studies that are not given keep the rows that they have in that file.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from edgedistill.accuracy import Gain, SeedGain
from edgedistill.evidence.report import style
from edgedistill.evidence.view import svg
from edgedistill.studyresult import StudyArm, StudyResult

CLASSES = 10
ARMS = ("plain", "1x", "2x", "5x", "own_1x", "own_2x", "own_5x")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860.0, 380.0, 44.0, 850.0, 46.0, 330.0
STEP, GAP = 26.0, 34.0
HEAD = """| real a class | teacher | arm | test top-1 | validation | gain by seed | gain by image |
|---|---|---|---|---|---|---|"""
GAIN = re.compile(r"([+-][\d.]+)(?: \(([+-][\d.]+) to ([+-][\d.]+)\))?$")
BASELINE = "baseline"


@dataclass(frozen=True)
class Row:
    """An arm of a study: the cells of its row in the table, from the number of real images of a class on."""

    real: int
    teacher: str
    arm: str
    top1: str
    val: str
    by_seed: str
    by_image: str

    def __str__(self) -> str:
        cells = (self.teacher, self.arm, self.top1, self.val, self.by_seed, self.by_image)
        return "| " + " | ".join((str(self.real), *cells)) + " |"

    def gain(self) -> tuple[float, float, float] | None:
        """Points gained over `distilled` and the interval, by seed where there is one. None for `distilled` itself."""
        for cell in (self.by_seed, self.by_image):
            if (found := GAIN.match(cell)) and found[2]:
                value, low, high = map(float, found.groups())
                return value, low, high
        return None


def rows_of(study: StudyResult) -> list[Row]:
    """A row for each arm that has run in all seeds."""
    whole = [arm for arm in study.arms if len(arm.runs) == len(study.seeds)]
    real = max(arm.train_images or 0 for arm in study.arms if arm.name == "plain") // CLASSES
    return [_row(arm, real) for arm in whole if arm.top1 is not None]


def _row(arm: StudyArm, real: int) -> Row:
    teacher = arm.teacher.top1.value if arm.teacher is not None and arm.teacher.top1 else None
    top1, val = arm.top1, arm.val_top1
    assert top1 is not None
    spread = f" ({100 * top1.ci95[0]:.1f} to {100 * top1.ci95[1]:.1f})" if top1.ci95 else ""
    return Row(
        real, "" if teacher is None else f"{100 * teacher:.1f}", arm.name, f"{100 * top1.value:.2f}{spread}",
        "" if val is None else f"{100 * val.value:.1f}", _gain(arm.seed_gain), _gain(arm.image_gain),
    )  # fmt: skip


def _gain(value: SeedGain | Gain | None) -> str:
    if value is None:
        return BASELINE
    spread = (
        " ({:+.2f} to {:+.2f})".format(*(100 * end for end in value.ci95)) if value.ci95 else ""
    )
    return f"{100 * value.value:+.2f}{spread}"


def rows_in(text: str) -> list[Row]:
    """The rows of the table in a document."""
    if HEAD not in text:
        return []
    lines = text.split(HEAD, 1)[1].strip().split("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [Row(int(real), *rest) for real, *rest in cells]


def chart(rows: list[Row]) -> str:
    """Gains over `distilled`, a group for each number of real images: filled dots are of the shipped generator."""
    shown = [
        (row, gain)
        for _, group in groupby(rows, lambda row: row.real)
        for row in sorted((r for r in group if r.arm in ARMS), key=lambda r: ARMS.index(r.arm))
        if (gain := row.gain()) is not None
    ]
    groups = len({row.real for row, _ in shown})
    right = max(RIGHT, LEFT + STEP * len(shown) + GAP * groups)
    ends = [end for _, gain in shown for end in gain]
    low, high = min([*ends, 0.0]), max([*ends, 0.0])
    margin = 0.06 * (high - low)
    low, high = low - margin, high + margin

    def y(value: float) -> float:
        return BOTTOM - (value - low) / (high - low) * (BOTTOM - TOP)

    body = [
        part
        for tick in svg.ticks(low, high, 6)
        for part in (
            svg.rule("zero-line" if abs(tick) < 1e-9 else "grid", LEFT, y(tick), right, y(tick)),
            svg.text("tick", LEFT - 6, y(tick) + 4, f"{tick:+g}", "end"),
        )
    ]
    told = "points of top-1 gained over distilled without them, equal steps"
    key = "filled: shipped generator; open: trained on the real images alone"
    body.append(svg.text("tick", LEFT - 36, 18, told))
    body.append(svg.text("tick", right, 18, key, "end"))
    x, words = LEFT + GAP, []
    for real, group in groupby(shown, lambda pair: pair[0].real):
        start = x
        for row, (value, *interval) in group:
            css = "quiet" if row.arm == "plain" else "" if row.arm.startswith("own") else "strong"
            a, b = (y(end) for end in interval)
            body.append(svg.rule(f"whisker {css}", x, a, x, b))
            body.append(svg.circle(f"dot {css}", x, y(value), 5))
            body.append(svg.text("tick", x, BOTTOM + 16, row.arm.removeprefix("own_"), "middle"))
            words.append(f"{real} a class, {row.arm}: {value:+.2f}")
            x += STEP
        middle = (start + x - STEP) / 2
        body.append(svg.text("label", middle, BOTTOM + 38, f"{real} real images a class", "middle"))
        x += GAP
    title = "What synthetic images are worth"
    made = svg.svg("worth", title, "; ".join(words), HEIGHT, body, right + WIDTH - RIGHT)
    return svg.alone(made, style("chart"))


def main() -> None:
    """Draw the chart and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("studies", type=Path, nargs="*", help="folders of the studies")
    parser.add_argument("--out", type=Path, required=True, help="the chart to write")
    parser.add_argument("--table", type=Path, help="a document with rows of earlier studies")
    given = parser.parse_args()
    files = [(folder / "study.json").read_text("utf-8") for folder in given.studies]
    new = [row for file in files for row in rows_of(StudyResult.model_validate_json(file))]
    run = {row.real for row in new}
    kept = rows_in(given.table.read_text("utf-8")) if given.table is not None else []
    rows = sorted([*new, *(r for r in kept if r.real not in run)], key=lambda row: row.real)
    given.out.write_text(chart(rows), "utf-8")
    print(HEAD, *rows, sep="\n")


if __name__ == "__main__":
    main()
