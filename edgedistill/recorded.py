"""A result with what boards measured folded into it: rows, accuracies, and the verdict judged again. Pure functions.

A result is made from what the build left and every record, so that the same records give the same result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedistill import metrics
from edgedistill.errors import DocumentError, EdgedistillError
from edgedistill.evidence.bench import latency_rows
from edgedistill.evidence.gate import Facts, judge
from edgedistill.evidence.kitdocument import KitDocument
from edgedistill.result import Artifact, BoardTop1, Latency, Proportion, Result, Table, Verdict
from edgedistill.target.fingerprint import CPU, declared_in, match
from edgedistill.target.students import find_student

RECORDS = "records"
BOARD = "On the board "
"""How a remark on an accuracy measured there begins."""


@dataclass(frozen=True)
class Record:
    """A kit document that is kept: its name in the run folder, its hash, and what it holds."""

    name: str
    sha256: str
    tree: Mapping[str, Any]
    document: KitDocument

    @property
    def place(self) -> str:
        """Its path inside the run folder."""
        return f"{RECORDS}/{self.name}"


def require_models(result: Result, record: Record, file: Path) -> None:
    """Raise `DocumentError` for a record with times or accuracies of files that are none of the run."""
    known = {a.name: a.sha256 for a in result.artifacts}
    for row in record.document.rows:
        if known.get(row.model) != row.sha256:
            raise DocumentError(
                f"{file} has times of a file that is none of {result.run}: {row.model} with sha256 "
                f"{row.sha256[:12]}, and the "
                f"run has {', '.join(f'{n} {s[:12]}' for n, s in known.items())}"
            )
    strangers = sorted({s.model for s in record.document.scores} - set(known))
    if strangers:
        raise DocumentError(
            f"{file} has an accuracy of {strangers[0]!r}, which is no file of {result.run}"
        )


def fold(result: Result, records: Sequence[Record]) -> Result:
    """The result with every record in it, and without those that were in it before; the verdict judged anew."""
    base = without_records(result)
    if not records and base is result:
        return result
    rows: dict[str, list[Latency]] = {}
    for kept in records:
        for name, more in rows_of(kept, base).items():
            rows.setdefault(name, []).extend(more)
    artifacts = [
        a.model_copy(
            update={
                "latency": [*a.latency, *rows.get(a.name, [])],
                "boards": [*a.boards, *_boards(a.name, records, base)],
            }
        )
        for a in base.artifacts
    ]
    tables = dict(base.tables)
    for kept in records:
        what = "a kit document taken on a board: every timed run, in seconds"
        tables[f"record_{kept.name.split('-')[0]}"] = Table(
            path=kept.place, sha256=kept.sha256, what=what
        )
    folded = base.model_copy(update={"artifacts": artifacts, "tables": tables})
    return folded.model_copy(update={"verdict": _verdict(result, folded)})


def without_records(result: Result) -> Result:
    """The result as the build left it, but for its verdict; itself where nothing was recorded."""
    mark = RECORDS + "/"
    if not any(table.path.startswith(mark) for table in result.tables.values()):
        return result
    artifacts = [
        a.model_copy(
            update={
                "latency": [r for r in a.latency if not (r.samples or "").startswith(mark)],
                "boards": [],
            }
        )
        for a in result.artifacts
    ]
    tables = {k: t for k, t in result.tables.items() if not t.path.startswith(mark)}
    return result.model_copy(update={"artifacts": artifacts, "tables": tables})


def _host_of(result: Result) -> dict[str, Any]:
    """What is known of the machine that made a result: what `host` means in it."""
    return {"cpu": result.environment.cpu, "cores": result.environment.cores}


def rows_of(kept: Record, result: Result) -> dict[str, list[Latency]]:
    """The rows of a record by model. Raises `DocumentError` for what no row can be made of."""
    return latency_rows(kept.tree, declared_in(result.device), kept.place, _host_of(result))


def _boards(name: str, records: Sequence[Record], result: Result) -> list[BoardTop1]:
    wanted, here, found = declared_in(result.device), _host_of(result), []
    for kept in records:
        machine = kept.document.machine
        fits = match(wanted, kept.tree["machine"], None, here).fits
        for score in kept.document.scores:
            if score.model == name and score.correct is not None:
                low, high = metrics.wilson(score.correct, score.n)
                top1 = Proportion(value=score.correct / score.n, n=score.n, ci95=(low, high))
                found.append(
                    BoardTop1(
                        machine=machine.board or machine.cpu or "unknown machine",
                        evidence="measured_on_target" if fits else "measured_on_proxy",
                        top1=top1,
                        record=kept.place,
                    )
                )
    return found


def _verdict(before: Result, folded: Result) -> Verdict:
    """The verdict on the file that ships, with what the boards measured."""
    chosen = folded.artifact(folded.chosen)
    shown = chosen.model_copy(update={"latency": _judged(chosen.latency, before)})
    facts = Facts(
        device=declared_in(folded.device).name,
        student=folded.student.model,
        chosen=shown,
        proxy_counts=True,
        predicted_memory_bytes=_memory(folded),
    )
    remarks = [r for r in before.verdict.remarks if not r.startswith(BOARD)]
    return judge(folded.budget, facts, [*remarks, *_remarks(chosen)])


def _judged(rows: Sequence[Latency], before: Result) -> list[Latency]:
    """The rows that a limit may look at: of one setting on one machine the latest, and of proxies those of the device's
    class.
    """
    counted = any(
        r.limit == "latency_s" and r.evidence == "measured_on_proxy" for r in before.verdict.rows
    )
    latest: dict[tuple[Any, ...], Latency] = {}
    for row in rows:
        if row.scope != "model" or row.arrival != "back_to_back":
            continue
        like = counted if row.same_class is None else row.same_class and row.provider == CPU
        if row.evidence != "measured_on_proxy" or like:
            latest[row.evidence, row.machine, row.provider, row.threads, row.batch] = row
    return list(latest.values())


def _memory(result: Result) -> int | None:
    """Predicted bytes of the running model, as the build predicts them."""
    spare = result.device.get("runtime_memory_bytes")
    artifact = result.artifact(result.chosen)
    try:
        return find_student(result.student.model).memory_bytes(
            artifact.precision, result.student.input_size, len(result.data.classes),
            spare if isinstance(spare, int) else None,
        )  # fmt: skip
    except EdgedistillError:
        return None


def _remarks(chosen: Artifact) -> list[str]:
    """What the accuracy on boards says beside that of the file here."""
    remarks = []
    for board in chosen.boards:
        share = f"{100 * board.top1.value:.2f} % of {board.top1.n:,} images"
        text = f"{BOARD}({board.machine[:80]}) {chosen.name} is right on {share}"
        if chosen.top1 is not None and chosen.top1.n == board.top1.n:
            text += f", and on {100 * chosen.top1.value:.2f} % of as many here"
            if chosen.top1.value - board.top1.value > 0.005:
                text += ": the board does not compute what this file does here, run  ontarget.pyz check .  there"
        remarks.append(text + ".")
    return remarks
