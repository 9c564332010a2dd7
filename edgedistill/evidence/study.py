"""The views of a study: pages, the chart alone, and the table in the terminal. They compute nothing new."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgedistill.evidence.report import environment, style
from edgedistill.evidence.view import figures, svg
from edgedistill.evidence.view.factorchart import factor_chart
from edgedistill.evidence.view.markdown import name, prose, table
from edgedistill.evidence.view.studychart import interval_of, study_chart
from edgedistill.files import write_atomic
from edgedistill.result import Gain, SeedGain
from edgedistill.studyresult import StudyArm, StudyClaim, StudyResult

NOT_RUN = "not run yet"
MOST_NAMED = 8
"""Arms of a teacher that are named one by one."""
CROWDED = 30
"""More arms than this have no room for their names in a chart of points."""
HEADS = (
    "Arm", "Test top-1", "95 % interval", "Validation", "Gain by seed", "Gain by image", "Training", "In all",
)  # fmt: skip


def top1(arm: StudyArm) -> str:
    """Mean test top-1 over seeds: `87.35 %`."""
    if arm.top1 is None:
        return NOT_RUN
    return figures.percent(arm.top1.value, _places(arm))


def interval(arm: StudyArm) -> str:
    """The interval of the mean over seeds; of a single seed, Wilson's over images."""
    ends = interval_of(arm)
    if ends is None:
        return figures.UNKNOWN
    places = _places(arm)
    return f"{100 * ends[0]:.{places}f} to {100 * ends[1]:.{places}f} %"


def validation(arm: StudyArm) -> str:
    """Mean validation top-1 over seeds."""
    return figures.percent(arm.val_top1.value if arm.val_top1 else None)


def _places(arm: StudyArm) -> int:
    return figures.decimals_for(arm.runs[0].top1.n) if arm.runs else 1


def gain(found: Gain | SeedGain | None, places: int = 2) -> str:
    """A gain in points with its interval: `+0.90 (+0.20 to +1.60)`."""
    if found is None:
        return figures.UNKNOWN
    value = figures.signed_points(found.value, places).removesuffix(" points")
    if found.ci95 is None:
        return value
    low, high = (f"{100 * end:+.{places}f}".replace("-", "\u2212") for end in found.ci95)
    return f"{value} ({low} to {high})"


def gains(study: StudyResult, arm: StudyArm) -> tuple[str, str]:
    """Both gains over the baseline, by seed and by image."""
    if arm.name == study.baseline:
        return "the baseline", "the baseline"
    return gain(arm.seed_gain), gain(arm.image_gain)


def sides(claim: StudyClaim) -> str:
    """What a claim compares: `kd over plain`, and by how much where that is not 0."""
    than = f"{claim.better} over {claim.than}"
    return (
        f"{than}, by more than {100 * claim.by:+g} points".replace("-", "\u2212")
        if claim.by
        else than
    )


def value(found: object) -> str:
    """A value of a recipe as YAML writes it."""
    return found if isinstance(found, str) else json.dumps(found)


def changes(arm: StudyArm) -> list[str]:
    """What an arm changes: `distill.method: kd`."""
    return [f"{path}: {value(found)}" for path, found in arm.changes.items()]


def flops(arm: StudyArm) -> str:
    """Operations of the parts that can be counted: `1.2e+15`."""
    return f"{sum(arm.flops_parts.values()):.2g}" if arm.flops_parts else "not counted"


def _cells(study: StudyResult, arm: StudyArm) -> list[str]:
    if arm.top1 is None:
        return [NOT_RUN, *[""] * 6]
    over_seeds, over_images = gains(study, arm)
    return [
        top1(arm), interval(arm), validation(arm), over_seeds, over_images,
        figures.duration(arm.seconds), figures.duration(arm.seconds_total),
    ]  # fmt: skip


def teachers(study: StudyResult) -> list[str]:
    """Each teacher of the study in a sentence; where there are several, with the arms that it taught."""
    found = {arm.teacher.key: arm.teacher for arm in study.arms if arm.teacher}
    words = []
    for key, one in found.items():
        taught = [arm.name for arm in study.arms if arm.teacher and arm.teacher.key == key]
        of = f" of {_few(taught)}" if len(found) > 1 else ""
        words.append(
            f"Teacher{of}: {one.model}, {one.adaptation}; test top-1 {figures.accuracy(one.top1)} "
            f"({figures.interval(one.top1)}), validation {figures.percent(one.val_top1)}, prepared in "
            f"{figures.duration(one.seconds)}"
        )
    return words


def _few(arms: Sequence[str]) -> str:
    """Names of arms, or the first and how many more."""
    if len(arms) <= MOST_NAMED:
        return ", ".join(arms)
    return f"{arms[0]} and {len(arms) - 1} more arms"


def seeds_words(study: StudyResult) -> str:
    """What the intervals mean."""
    if len(study.seeds) > 1:
        return (
            "t interval over seeds (where they do not differ, or one has run, Wilson's over images)"
        )
    return "Wilson's interval over images; one seed tells nothing of others"


def _row(study: StudyResult, arm: StudyArm) -> list[str]:
    """An arm in few letters: per cent, points and seconds stand in the heads."""
    if arm.top1 is None:
        return [NOT_RUN, *[""] * 5]
    found = arm.seed_gain if len(study.seeds) > 1 else arm.image_gain
    return [
        top1(arm).removesuffix(" %"), interval(arm).removesuffix(" %"), validation(arm).removesuffix(" %"),
        "the baseline" if arm.name == study.baseline else gain(found, 1),
        figures.significant(arm.seconds or 0.0), figures.significant(arm.seconds_total or 0.0),
    ]  # fmt: skip


def console(study: StudyResult, page: Path | None = None) -> RenderableType:
    """The study in the terminal: headline, table, teachers, remarks."""
    shown = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    shown.show_edge = False
    for head in ("Arm", "Top-1", "95 %", "Val.", "Gain, points", "Train, s", "All, s"):
        left = head in ("Arm", "Gain, points")
        shown.add_column(
            head, justify="left" if left else "right", overflow="fold", no_wrap=head != "Arm"
        )
    factor = None
    for arm in study.arms:
        if arm.factor != factor and arm.factor is not None:
            shown.add_row(Text(figures.short(arm.factor, 60), "italic"), *[""] * 6)
        factor = arm.factor
        row = "dim" if arm.top1 is None else ""
        shown.add_row(Text(arm.name, "bold"), *_row(study, arm), style=row)
    by = "seed" if len(study.seeds) > 1 else "image"
    legend = f"Per cent of {study.data.test:,} test images; 95 %: {seeds_words(study)}. "
    legend += f"Gain over {study.baseline}, paired by {by}."
    parts: list[RenderableType] = [
        Text(figures.short(study.headline, 1000), "bold"), Text(), shown, Text(),
        *[Text(figures.short(words, 1000)) for words in teachers(study)],
        Text(figures.short(legend, 1000), "dim"),
        *[Text(figures.short(remark, 1000)) for remark in study.remarks],
    ]  # fmt: skip
    told = [claim for claim in study.claims if claim.verdict != "not run yet"]
    if told:
        parts += [Text(), _claims(study, told)]
    rest = len(study.claims) - len(told)
    if rest:
        more = f"{rest} {'more ' if told else ''}claim{' is' if rest == 1 else 's are'}"
        parts += [Text(), Text(f"{more} about arms that have not run.", "dim")]
    if page is not None:
        parts += [Text(), Text(figures.short(f"Study: {page}", 1000))]
    return Group(*parts)


def _claims(study: StudyResult, claims: Sequence[StudyClaim]) -> Table:
    """Claims in the terminal, each with its verdict."""
    shown = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    shown.show_edge = False
    by = "seed" if len(study.seeds) > 1 else "image"
    for head in ("Claim", f"Gain by {by}, points", "Verdict"):
        shown.add_column(head, overflow="fold")
    for claim in claims:
        found = claim.seed_gain if len(study.seeds) > 1 else claim.image_gain
        bold = "bold" if claim.verdict.endswith("here") else "dim"
        said = Text(figures.short(claim.says, 300))
        shown.add_row(said, gain(found, 1), Text(claim.verdict, bold))
    return shown


def claims_table(study: StudyResult) -> str:
    """Claims with their verdicts as a table in Markdown."""
    rows = [
        [
            prose(claim.says), prose(claim.source or ""), prose(sides(claim)), gain(claim.seed_gain),
            gain(claim.image_gain), claim.verdict,
        ]
        for claim in study.claims
    ]  # fmt: skip
    heads = ["Claim", "Source", "Compared", "Gain by seed", "Gain by image", "Verdict"]
    return table(heads, rows)


def markdown(study: StudyResult) -> str:
    """The study as Markdown; ends with a newline."""
    factors = any(arm.factor for arm in study.arms)
    of = {
        arm.name: [name(arm.factor) if arm.factor else ""] if factors else [] for arm in study.arms
    }
    rows = [[*of[arm.name], name(arm.name), *_cells(study, arm)] for arm in study.arms]
    heads, right = (
        (HEADS, (1, 2, 3, 6, 7)) if not factors else (("Factor", *HEADS), (2, 3, 4, 7, 8))
    )
    data = study.data
    blocks = [
        f"## {prose(study.headline)}",
        f"Study {name(study.study)}: {len(study.arms)} arms, seeds "
        f"{', '.join(map(str, study.seeds))}; {name(data.name)}, {data.test:,} test images.",
        table(heads, rows, right),
        f"Gains in points over {name(study.baseline)}; interval of top-1: {seeds_words(study)}.",
        *[f"{prose(words)}." for words in teachers(study)],
        *[f"> {prose(remark)}" for remark in study.remarks],
        *(["### Claims", claims_table(study)] if study.claims else []),
        "### Seeds",
        _seed_table(study.arms),
        "### What the arms change",
        table(
            ["Arm", "Kind", "Student", "Start", "Changes"],
            [
                [
                    name(arm.name), arm.kind, name(arm.student) if arm.student else NOT_RUN, arm.start or "",
                    ", ".join(name(change) for change in changes(arm)) or "nothing",
                ]
                for arm in study.arms
            ],
        ),
        f"Made by {name(study.command, 1000)} with edgedistill {name(study.version)} on {name(study.environment.cpu)}, "
        f"{study.environment.cores} cores, {name(study.environment.gpu) if study.environment.gpu else 'no GPU'}; "
        f"{figures.duration(study.seconds_spent)} of work.",
    ]  # fmt: skip
    return "\n\n".join(blocks) + "\n"


def _seed_table(arms: Sequence[StudyArm]) -> str:
    rows = [
        [
            name(arm.name), str(run.seed), f"{figures.accuracy(run.top1)} ({figures.interval(run.top1)})",
            figures.percent(run.val_top1), gain(run.gain) if run.gain else "",
            figures.p_value(run.gain.p_value) if run.gain else "", figures.count(run.passes),
            figures.duration(run.seconds),
        ]
        for arm in arms
        for run in arm.runs
    ]  # fmt: skip
    header = ["Arm", "Seed", "Test top-1", "Validation", "Gain", "McNemar", "Passes", "Training"]
    return table(header, rows, (1, 3, 6, 7))


def html(study: StudyResult) -> str:
    """The study as one page without scripts or requests."""
    parts = list(dict.fromkeys(part for arm in study.arms for part in arm.seconds_parts))
    context = {
        "s": study,
        "style": style(),
        "factors": factor_chart(study),
        "chart": study_chart(study) if len(study.arms) <= CROWDED else None,
        "parts": parts,
        "top1": top1,
        "interval": interval,
        "validation": validation,
        "gain": gain,
        "changes": changes,
        "flops": flops,
        "sides": sides,
        "teachers": teachers(study),
        "seeds_words": seeds_words(study),
        "not_run": NOT_RUN,
    }
    return environment().get_template("study.html.j2").render(context)


def picture(study: StudyResult) -> str | None:
    """The chart as an SVG file of its own, for other documents; `None` where no arm has run."""
    chart = factor_chart(study) or study_chart(study)
    return None if chart is None else svg.alone(chart, style("chart"))


def write_views(study: StudyResult, folder: Path) -> list[Path]:
    """Write `study.md`, `study.html` and `study.svg` into `folder`, each aside and then renamed; gives their paths."""
    views = {"study.html": html(study), "study.md": markdown(study), "study.svg": picture(study)}
    texts = {file: text for file, text in views.items() if text is not None}
    for file, text in texts.items():
        write_atomic(folder / file, text)
    return [folder / file for file in texts]
