"""`report.md`: the result for a pull request or a job summary, in GitHub's Markdown.

Foreign names stand in code spans, where neither HTML nor mentions nor links work; foreign prose is
escaped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgedistill.evidence.view import figures, latency
from edgedistill.evidence.view.comparisons import (
    comparisons,
    cost_parts,
    costs,
    gains_over,
    notes,
    other_remarks,
    seed_rows,
)
from edgedistill.evidence.view.confusion import confused
from edgedistill.result import Artifact, Latency, Member, Result, Teacher

MOST_CLASSES = 100
MARK = {"pass": "✅", "fail": "❌", "unconfirmed": "⚠️"}
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|~$&])")


def prose(text: str, limit: int = 1000) -> str:
    """Foreign prose as plain text: no markup, links, mentions or line breaks."""
    flat = " ".join(text.split())
    escaped = _SPECIAL.sub(r"\\\1", figures.short(flat, limit))
    escaped = escaped.replace("://", "\\://").replace("@", "@\u200b")
    return re.sub(r"(?i)\bwww\.", lambda found: found[0][:-1] + "\\.", escaped)


def name(text: str, limit: int = 80) -> str:
    """A foreign name as a code span that also holds inside a table."""
    shown = figures.short(text, limit).replace("\\|", "\\\\u{7c}").replace("|", "\\|")
    runs = re.findall(r"`+", shown)
    fence = "`" * (max(map(len, runs), default=0) + 1)
    pad = " " if not shown.strip() or shown[0] in "` " or shown[-1] in "` " else ""
    if shown.endswith("\\"):
        pad = " "
    return f"{fence}{pad}{shown or '(empty)'}{pad}{fence}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """A table whose cells are already escaped; columns in `right` are aligned to the right."""
    rule = ["---:" if i in right else "---" for i in range(len(header))]
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, rule, *rows])


def limits_table(result: Result) -> str:
    """The limits with their evidence and advice."""
    rows = []
    for row in result.verdict.rows:
        allowed, observed = figures.limit_numbers(row)
        status = f"{MARK[row.status]} {figures.STATUS_WORD[row.status]}"
        words = " ".join(part for part in (prose(row.note), prose(row.advice)) if part)
        cells = [prose(figures.limit_name(row)), allowed, observed]
        rows.append([*cells, figures.limit_evidence(row), status, words])
    return table(["Limit", "Allowed", "Observed", "Evidence", "Status", "Advice"], rows, (1, 2))


def comparison_lines(result: Result) -> list[str]:
    """What distillation gained, each comparison by its name, what it cost, and what happened on the way."""
    made = [f"- **{prose(c.title)}{c.more}**: {prose(c.words)}" for c in comparisons(result.arms)]
    if not made:
        return ["No comparison between arms was made."]
    lines = ["\n".join(made), prose(costs(result.arms))]
    return [*lines, "\n".join(f"- {prose(note)}" for note in notes(result.arms))]


def arms_table(result: Result) -> str:
    """The arms with their intervals and seconds, and what the distilled one gained over each."""
    rows, gains = [], gains_over(result.arms)
    for arm in result.arms:
        gain, taught = gains.get(arm.name), arm.gain is not None or arm.gains
        over = "the distilled arm" if taught else "not compared"
        if gain is not None:
            interval, p = figures.gain_interval(gain), figures.p_value(gain.p_value)
            over = f"{figures.signed_points(gain.value)} ({interval}, {p})"
        rows.append(
            [
                name(arm.name),
                prose(arm.what),
                f"{figures.accuracy(arm.top1)} ({figures.interval(arm.top1)})",
                figures.count(arm.top1.n),
                figures.count(arm.steps),
                figures.duration(arm.seconds),
                over,
            ]
        )
    header = ["Arm", "What", "Top-1 (95 % interval)", "Images", "Steps", "Time"]
    return table([*header, "Distilled against it"], rows, (2, 3, 4, 5))


def seeds_table(result: Result) -> str:
    """Top-1 on test of every arm by seed; empty with one seed."""
    rows = [
        [str(seed), *(figures.percent(one.top1 if one else None, 2) for one in found)]
        for seed, found in seed_rows(result.arms)
    ]
    header = ["Seed", *(name(arm.name) for arm in result.arms)]
    return table(header, rows, range(1, len(header))) if rows else ""


def costs_table(result: Result) -> str:
    """Seconds and floating-point operations of each part of the work, by arm."""
    rows = []
    for part in cost_parts(result.arms):
        cells = []
        for arm in result.arms:
            seconds, flops = arm.seconds_parts.get(part), arm.flops_parts.get(part)
            known = [figures.duration(seconds)] if seconds is not None else []
            known += [figures.operations(flops)] if flops is not None else []
            cells.append(", ".join(known) or "no part of it")
        rows.append([name(part), *cells])
    header = ["Part", *(name(arm.name) for arm in result.arms)]
    return table(header, rows, range(1, len(header))) if rows else ""


def _drop(artifact: Artifact) -> str:
    if artifact.drop is None:
        return "the reference" if artifact.precision == "float32" else figures.UNKNOWN
    return f"{figures.signed_points(artifact.drop.value)} ({figures.gain_interval(artifact.drop)})"


def artifacts_table(result: Result) -> str:
    """The files that could ship."""
    rows = []
    for a in result.artifacts:
        parity = figures.UNKNOWN
        if a.parity is not None:
            parity = f"{figures.percent(a.parity.top1_agreement)} of {a.parity.n:,} agree"
        ships = " **ships**" if a.name == result.chosen else ""
        rows.append(
            [
                name(a.name) + ships,
                a.precision,
                figures.megabytes(a.size_bytes),
                f"{figures.accuracy(a.top1)} ({figures.interval(a.top1)})",
                _drop(a),
                parity,
                prose(figures.file_words(a)),
            ]
        )
    header = ["File", "Precision", "Size", "Top-1 (95 % interval)", "Against float"]
    return table([*header, "Parity with torch", "Why"], rows, (2, 3))


def _latency_cells(row: latency.Row, percentiles: Sequence[str]) -> list[str]:
    found = row.latency
    cells = []
    for which in percentiles:
        low = figures.lower(found, which)
        cells.append(figures.percentile(found, which) + (f" ({low})" if low else ""))
    if row.predicted and found.band_s is not None:
        cells[0] += f" (band {figures.band(found.band_s)})"
    steady = "" if found.stable is not False else " **unstable**"
    return [
        name(row.file),
        name(found.device),
        prose(f"{figures.runs_on(found)}{_scenario(found)}"),
        figures.EVIDENCE_WORD[found.evidence] + steady,
        *cells,
        figures.count(found.n) if found.n else figures.UNKNOWN,
    ]


def _scenario(found: Latency) -> str:
    """What is not the model alone, back to back."""
    paced = f", {latency.pace(found)}" if found.arrival == "paced" else ""
    return paced + (", picture to class" if found.scope == "end_to_end" else "")


def latency_table(result: Result) -> str:
    """Every latency with its evidence grade; a percentile is an upper bound with 99 % confidence."""
    found = latency.rows(result)
    percentiles = latency.shown_percentiles(found)
    rows = [_latency_cells(row, list(percentiles)) for row in found]
    header = ["File", "Device", "Runs on", "Evidence", *percentiles.values(), "Runs"]
    return table(header, rows, range(4, len(header)))


def latency_lines(result: Result) -> list[str]:
    """The headline, the table, and what its percentiles mean."""
    if not latency.rows(result):
        return [prose(latency.headline(result))]
    meaning = "A percentile is an upper bound that holds with 99 % confidence; nothing is clipped."
    older = latency.left_out(result)
    meaning += f" {older}" if older else ""
    return [prose(latency.headline(result)), latency_table(result), meaning]


def _details(summary: str, body: str) -> str:
    return f"<details>\n<summary>{summary}</summary>\n\n{body}\n\n</details>"


def _confusions(result: Result) -> str:
    rows = [
        [name(p.label), name(p.predicted), f"{p.count:,} of {p.total:,}"]
        for p in confused(result, 10)
    ]
    return table(["Class", "Taken for", "Images"], rows, (2,)) if rows else ""


def _softness(teacher: Teacher | Member) -> str:
    """How soft a teacher's answers are, as far as it is known."""
    parts = []
    if teacher.calibration is not None:
        parts.append(f"calibration error {figures.percent(teacher.calibration.ece)}")
    if teacher.entropy is not None:
        parts.append(f"entropy {figures.nats(teacher.entropy)}")
    return ", ".join(parts) or f"calibration {figures.UNKNOWN}"


def teacher_lines(result: Result) -> list[str]:
    """Softness of the teacher and, of several, each with its own and how they agree; already escaped."""
    teacher = result.teacher
    lines = [f"{_softness(teacher)} on test"]
    if len(teacher.members) > 1:
        agree = teacher.members_agreement
        words = "" if agree is None else f", which agree on {figures.percent(agree)} of validation"
        lines.append(f"{teacher.combine} of {len(teacher.members)}{words}")
        lines += [
            f"{name(m.model)}: {prose(m.adaptation)}, validation top-1 {figures.percent(m.val_top1)}, {_softness(m)}"
            for m in teacher.members
        ]
    return lines


def synthetic_lines(result: Result) -> list[str]:
    """Where synthetic images come from and what became of them; empty where there are none."""
    made = result.synthetic
    if made is None:
        return []
    dropped = ", ".join(f"{prose(why)} {count:,}" for why, count in made.dropped.items())
    return [
        f"- Synthetic images: {made.kept:,} of {made.made:,} kept, by {name(made.generator)} "
        f"({made.steps} steps, guidance {made.guidance:g}); the teacher sees the class asked for in "
        f"{figures.percent(made.agreement)}. Dropped: {dropped or 'none'}."
    ]


def _classes_with(result: Result) -> str:
    """What each class has from synthetic images."""
    made = result.synthetic
    if made is None:
        return ""
    rows = [
        [name(c.name), f"{c.real:,}", f"{c.kept:,}", figures.percent(c.recall_without), figures.percent(c.recall_with)]
        for c in made.classes[:MOST_CLASSES]
    ]  # fmt: skip
    return table(
        ["Class", "Real", "Synthetic", "Recall without", "Recall with"], rows, (1, 2, 3, 4)
    )


def _origins(result: Result) -> str:
    data, teacher, student = result.data, result.teacher, result.student
    env = result.environment
    rows = [
        ["Data", f"{name(data.name)}, {data.train:,} / {data.val:,} / {data.test:,} images "
         f"for training, validation, test; {figures.beside(data)}"],
        ["Teacher", f"{name(teacher.model)}, top-1 {figures.accuracy(teacher.top1)} "
         f"({figures.interval(teacher.top1)}); {'; '.join(teacher_lines(result))}"],
        ["Student", f"{name(student.model)} at {student.input_size} px, "
         f"{figures.magnitude(student.params)} parameters, {student.weights} weights"],
        ["Machine", f"{name(env.cpu)}, {env.cores} cores, "
         f"{name(env.gpu) if env.gpu else 'no GPU'}, {name(env.os)}, Python {name(env.python)}"],
        ["Run", f"{name(result.run)}, edgedistill {name(result.version)}, seed {result.seed}, "
         f"{name(result.created_utc)}"],
        ["Command", name(result.command, 1000)],
    ]  # fmt: skip
    return table(["What", "Which"], rows)


def key_line(result: Result) -> str:
    """Device, file, accuracy, latency and size in one line."""
    ships = next((a for a in result.artifacts if a.name == result.chosen), None)
    best = figures.best_latency(ships.latency) if ships is not None else None
    device = name(str(result.device.get("name", "unknown")))
    parts = [f"{name(result.chosen)} of {name(result.student.model)} for {device}"]
    if ships is not None:
        parts.append(f"top-1 {figures.accuracy(ships.top1)} ({figures.interval(ships.top1)})")
        parts.append(figures.megabytes(ships.size_bytes))
    if best is not None:
        which, value = figures.headline(best)
        grade = figures.EVIDENCE_WORD[best.evidence]
        parts.append(f"{which} {figures.milliseconds(value)}, {grade}")
    return "; ".join([*parts, f"bundle {figures.megabytes(result.bundle_bytes)}"]) + "."


def markdown(result: Result) -> str:
    """The report for a pull request: verdict, limits and remarks; the rest is folded. Ends with a newline."""
    verdict = result.verdict
    status = f"{MARK[verdict.status]} {figures.STATUS_WORD[verdict.status]}"
    folded = {
        "Latency": latency_lines(result),
        "Files": [artifacts_table(result), prose(result.chosen_reason)],
        "Did distillation help?": [*comparison_lines(result), arms_table(result)],
        "Top-1 by seed": [seeds_table(result)],
        "Costs of each part": [costs_table(result)],
        "Synthetic images": [*synthetic_lines(result), _classes_with(result)],
        "Most frequent mistakes of the file that ships": [_confusions(result)],
        "Data, teacher, student, machine": [_origins(result)],
    }
    bodies = {title: "\n\n".join(part for part in parts if part) for title, parts in folded.items()}
    blocks = [
        f"## {status}: {prose(verdict.sentence)}",
        limits_table(result) if verdict.rows else "No limit was set.",
        key_line(result),
        *[f"> {prose(words)}" for words in figures.attempts(result)],
        *[f"> {prose(remark)}" for remark in other_remarks(result)],
        *[_details(title, body) for title, body in bodies.items() if body],
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"
