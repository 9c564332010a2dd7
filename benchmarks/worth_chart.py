"""The worth of synthetic images over the number of real ones: a chart and a table from the studies worth_*.yaml.

python -m benchmarks.worth_chart runs/worth-20 runs/worth-50 ... --out docs/worth.svg
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedistill.evidence import svg
from edgedistill.evidence.report import style
from edgedistill.studyresult import StudyArm, StudyResult

CLASSES = 10
ARMS = ("plain", "1x", "2x", "5x", "own_1x", "own_2x", "own_5x")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860.0, 380.0, 44.0, 850.0, 46.0, 330.0
STEP, GAP = 26.0, 34.0


@dataclass(frozen=True)
class Point:
    """An arm of a study: points gained over `distilled`, with the intervals by seed and by image."""

    arm: str
    gain: float
    by_seed: tuple[float, float] | None
    by_image: tuple[float, float] | None


def read(folder: Path) -> StudyResult:
    """A study that has run."""
    return StudyResult.model_validate_json((folder / "study.json").read_text("utf-8"))


def points(study: StudyResult) -> list[Point]:
    """The arms that have run in all seeds, in the order of the chart."""
    arms = {arm.name: arm for arm in study.arms}
    done = [arms[n] for n in ARMS if n in arms and len(arms[n].runs) == len(study.seeds)]
    return [_point(arm) for arm in done if arm.image_gain is not None]


def _point(arm: StudyArm) -> Point:
    gain: Any = arm.image_gain
    seeds = arm.seed_gain.ci95 if arm.seed_gain is not None else None
    return Point(
        arm.name, 100 * gain.value,
        (100 * seeds[0], 100 * seeds[1]) if seeds else None,
        (100 * gain.ci95[0], 100 * gain.ci95[1]) if gain.ci95 else None,
    )  # fmt: skip


def chart(studies: list[StudyResult]) -> str:
    """Gains over `distilled`, a group for each number of real images: filled dots are of the shipped generator."""
    every = [(_images(study), points(study)) for study in studies]
    groups = [(images, group) for images, group in every if group]
    ends = [v for _, group in groups for p in group for v in (p.by_seed or p.by_image or (0, 0))]
    low, high = min([*ends, 0.0]), max([*ends, 0.0])
    margin = 0.06 * (high - low)
    low, high = low - margin, high + margin

    def y(value: float) -> float:
        return BOTTOM - (value - low) / (high - low) * (BOTTOM - TOP)

    body = [
        part
        for tick in svg.ticks(low, high, 6)
        for part in (
            svg.rule("zero-line" if abs(tick) < 1e-9 else "grid", LEFT, y(tick), RIGHT, y(tick)),
            svg.text("tick", LEFT - 6, y(tick) + 4, f"{tick:+g}", "end"),
        )
    ]
    body.append(
        svg.text(
            "tick", LEFT - 36, 18, "points of top-1 gained over distilled without them, equal steps"
        )
    )
    body.append(
        svg.text(
            "tick",
            RIGHT,
            18,
            "filled: shipped generator; open: trained on the real images alone",
            "end",
        )
    )
    x, words = LEFT + GAP, []
    for images, group in groups:
        start = x
        for point in group:
            own = point.arm.startswith("own")
            css = "quiet" if point.arm == "plain" else "" if own else "strong"
            if point.by_seed is not None:
                a, b = (y(v) for v in point.by_seed)
                body.append(svg.rule(f"whisker {css}", x, a, x, b))
            body.append(svg.circle(f"dot {css}", x, y(point.gain), 5))
            body.append(svg.text("tick", x, BOTTOM + 16, point.arm.removeprefix("own_"), "middle"))
            x += STEP
        middle = (start + x - STEP) / 2
        body.append(
            svg.text("label", middle, BOTTOM + 38, f"{images} real images a class", "middle")
        )
        words += [f"{images} a class, {p.arm}: {p.gain:+.2f}" for p in group]
        x += GAP
    title = "What synthetic images are worth"
    made = svg.svg("worth", title, "; ".join(words), HEIGHT, body, max(WIDTH, x))
    return svg.alone(made, style("chart"))


def _images(study: StudyResult) -> int:
    return max(arm.train_images or 0 for arm in study.arms if arm.name == "plain") // CLASSES


def table(studies: list[StudyResult]) -> str:
    """A row for each arm and number of real images."""
    lines = [
        "| real a class | teacher | arm | test top-1 | validation | gain by seed | gain by image |",
        "|---|---|---|---|---|---|---|",
    ]
    for study in studies:
        found = {p.arm: p for p in points(study)}
        for arm in study.arms:
            if len(arm.runs) < len(study.seeds) or arm.top1 is None:
                continue
            p = found.get(arm.name) or (_point(arm) if arm.image_gain is not None else None)
            top1, val = arm.top1, arm.val_top1
            spread = f" ({100 * top1.ci95[0]:.1f} to {100 * top1.ci95[1]:.1f})" if top1.ci95 else ""
            gains = [
                "baseline"
                if p is None
                else f"{p.gain:+.2f} ({i[0]:+.2f} to {i[1]:+.2f})"
                if i
                else f"{p.gain:+.2f}"
                for i in ((p.by_seed, p.by_image) if p is not None else (None, None))
            ]
            told = arm.teacher.top1.value if arm.teacher is not None and arm.teacher.top1 else None
            cells = [
                str(_images(study)), "" if told is None else f"{100 * told:.1f}", arm.name,
                f"{100 * top1.value:.2f}{spread}", "" if val is None else f"{100 * val.value:.1f}", *gains,
            ]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Draw the chart and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("studies", type=Path, nargs="+", help="folders of the studies")
    parser.add_argument("--out", type=Path, required=True, help="the chart to write")
    given = parser.parse_args()
    studies = [read(folder) for folder in given.studies]
    given.out.write_text(chart(studies), "utf-8")
    print(table(studies))


if __name__ == "__main__":
    main()
