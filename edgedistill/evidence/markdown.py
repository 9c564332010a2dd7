"""`report.md`: the result for a pull request or a job summary, in GitHub's Markdown.

Foreign names stand in code spans, where neither HTML nor mentions nor links work; foreign prose is
escaped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgedistill.evidence import figures
from edgedistill.evidence.sections import confused
from edgedistill.result import Artifact, Latency, Result

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


def arms_table(result: Result) -> str:
    """The arms with their intervals and seconds."""
    rows = []
    for arm in result.arms:
        gain = figures.UNKNOWN if arm.gain is None else figures.signed_points(arm.gain.value)
        if arm.gain is not None:
            gain += f" ({figures.gain_interval(arm.gain)}, {figures.p_value(arm.gain.p_value)})"
        rows.append(
            [
                name(arm.name),
                f"{figures.accuracy(arm.top1)} ({figures.interval(arm.top1)})",
                figures.count(arm.top1.n),
                figures.count(arm.steps),
                figures.duration(arm.seconds),
                gain if arm.gain else "the comparison",
            ]
        )
    header = ["Arm", "Top-1 (95 % interval)", "Images", "Steps", "Time", "Gain"]
    return table(header, rows, (1, 2, 3, 4))


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
                prose(a.reason),
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


def _origins(result: Result) -> list[str]:
    data, teacher, student = result.data, result.teacher, result.student
    env = result.environment
    rows = [
        ["Data", f"{name(data.name)}, {data.train:,} / {data.val:,} / {data.test:,} images "
         f"for training, validation, test; {figures.beside(data)}"],
        ["Teacher", f"{name(teacher.model)}, top-1 {figures.accuracy(teacher.top1)} "
         f"({figures.interval(teacher.top1)})"],
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
    gains = [arm.gain.words for arm in result.arms if arm.gain is not None]
    status = f"{_MARK[verdict.status]} {figures.STATUS_WORD[verdict.status]}"
    blocks = [
        f"## {status}: {prose(verdict.sentence)}",
        f"Device {name(str(result.device.get('name', 'unknown')))}, file {name(result.chosen)}, "
        f"bundle {figures.megabytes(result.bundle_bytes)}.",
        limits_table(result),
        *[f"> {prose(words)}" for words in figures.attempts(result)],
        *[f"> {prose(remark)}" for remark in verdict.remarks],
        "### Did distillation help?",
        *[prose(words) for words in gains],
        arms_table(result),
        "### Files",
        artifacts_table(result),
        prose(result.chosen_reason),
        "### Latency",
        latency_table(result),
        *_confusions(result),
        *_origins(result),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"
