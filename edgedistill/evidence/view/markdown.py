"""`report.md`: the result for a pull request or a job summary, in GitHub's Markdown.

Foreign names stand in code spans, where neither HTML nor mentions nor links work; foreign prose is
escaped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgedistill.evidence.view import figures
from edgedistill.evidence.view.comparisons import (
    comparisons,
    cost_parts,
    costs,
    gains_over,
    notes,
    other_remarks,
    seed_rows,
)
from edgedistill.evidence.view.sections import confused
from edgedistill.result import Artifact, Latency, Member, Result, Teacher

MOST_CLASSES = 100
_MARK = {"pass": "✅", "fail": "❌", "unconfirmed": "⚠️"}
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
        status = f"{_MARK[row.status]} {figures.STATUS_WORD[row.status]}"
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


def _latency_cells(artifact: Artifact, latency: Latency) -> list[str]:
    p50 = figures.percentile(latency, "p50")
    if latency.evidence == "predicted" and latency.band_s is not None:
        p50 += f" (band {figures.band(latency.band_s)})"
    return [
        name(artifact.name),
        name(latency.device),
        prose(figures.runs_on(latency)),
        figures.EVIDENCE_WORD[latency.evidence],
        p50,
        figures.percentile(latency, "p90"),
        figures.percentile(latency, "p99"),
        figures.count(latency.n) if latency.n else figures.UNKNOWN,
    ]


def latency_table(result: Result) -> str:
    """Every latency with its evidence grade."""
    rows = [_latency_cells(a, latency) for a in result.artifacts for latency in a.latency]
    header = ["File", "Device", "Runs on", "Evidence", "p50", "p90", "p99", "Runs"]
    return table(header, rows, (4, 5, 6, 7))


def _details(summary: str, body: str) -> str:
    return f"<details>\n<summary>{summary}</summary>\n\n{body}\n\n</details>"


def _confusions(result: Result) -> list[str]:
    pairs = confused(result, 10)
    if not pairs:
        return []
    rows = [[name(p.label), name(p.predicted), f"{p.count:,} of {p.total:,}"] for p in pairs]
    body = table(["Class", "Taken for", "Images"], rows, (2,))
    return [_details("Most frequent mistakes of the file that ships", body)]


def _proof(result: Result) -> list[str]:
    tables = [("Top-1 by seed", seeds_table(result)), ("Costs of each part", costs_table(result))]
    return [_details(title, body) for title, body in tables if body]


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


def _classes_with(result: Result) -> list[str]:
    """What each class has from synthetic images."""
    made = result.synthetic
    if made is None:
        return []
    rows = [
        [name(c.name), f"{c.real:,}", f"{c.kept:,}", figures.percent(c.recall_without), figures.percent(c.recall_with)]
        for c in made.classes[:MOST_CLASSES]
    ]  # fmt: skip
    head = ["Class", "Real", "Synthetic", "Recall without", "Recall with"]
    return [_details("Synthetic images by class", table(head, rows, (1, 2, 3, 4)))]


def _origins(result: Result) -> list[str]:
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
    return [_details("Data, teacher, student, machine", table(["What", "Which"], rows))]


def markdown(result: Result) -> str:
    """The report as Markdown; ends with a newline."""
    verdict = result.verdict
    status = f"{_MARK[verdict.status]} {figures.STATUS_WORD[verdict.status]}"
    blocks = [
        f"## {status}: {prose(verdict.sentence)}",
        f"Device {name(str(result.device.get('name', 'unknown')))}, file {name(result.chosen)}, "
        f"bundle {figures.megabytes(result.bundle_bytes)}.",
        limits_table(result),
        *[f"> {prose(words)}" for words in figures.attempts(result)],
        *[f"> {prose(remark)}" for remark in other_remarks(result)],
        "### Did distillation help?",
        *comparison_lines(result),
        arms_table(result),
        *synthetic_lines(result),
        *_classes_with(result),
        *_proof(result),
        "### Files",
        artifacts_table(result),
        prose(result.chosen_reason),
        "### Latency",
        latency_table(result),
        *_confusions(result),
        *_origins(result),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"
