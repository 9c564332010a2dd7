"""The story of `edgedistill check`: read both sides, measure what a limit needs, judge, tell.

Nothing here needs torch; measuring alone needs onnxruntime, and a time is never compared with one of another machine.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.checklimits import Asked, defaults, growths
from edgedistill.checkresult import BASELINE, GROWTHS, Allowed, Changes, Check, LimitName
from edgedistill.errors import UsageError
from edgedistill.evidence.checks.changes import changes
from edgedistill.evidence.checks.regression import (
    Sides,
    Timed,
    compared,
    rows_of,
    sentence,
    verdict,
)
from edgedistill.evidence.checks.snapshot import Subject, kept, read_subject, schema_of
from edgedistill.files import write_atomic

if TYPE_CHECKING:
    from edgedistill.latencyresult import Latency
    from edgedistill.progress import Face

HOST = (None, "host", "unknown")
"""Devices of a file that are this machine: what is measured here is measured on the target."""
MEASURED: tuple[LimitName, ...] = ("max-latency-growth", "max-latency-ms", "max-memory-mb")


@dataclass(frozen=True)
class CheckRequest:
    """What to check, against what, and whether to measure and to rewrite the baseline."""

    new: Path
    asked: Asked
    measure: bool = True
    update: bool = False
    target: str | None = None
    device: str | None = None


def run_check(request: CheckRequest, face: Face) -> Check:
    """Check one model. Raises `UsageError` and `DocumentError` for what cannot be read, and `StoppedError` for a
    measurement that is not valid.
    """
    asked, place = request.asked, request.asked.baseline
    if request.update:
        _require_baseline_file(place)
    new = read_subject(request.new, "NEW", baseline=False)
    first = request.update and place is not None and not place.exists()
    old = read_subject(place, "--baseline", baseline=True) if place and not first else None
    limits, remarks = _limits(asked, new, old, request.update)
    if old is None:
        limits = {name: limit for name, limit in limits.items() if name not in GROWTHS}
    timed = _timed(limits, new, old, request, face)
    sides = compared(new, old, timed)
    if request.update:
        return _updated(limits, sides, request, remarks)
    return _judged(limits, sides, asked.strict, remarks)


def _limits(
    asked: Asked, new: Subject, old: Subject | None, update: bool
) -> tuple[dict[LimitName, Allowed], list[str]]:
    """The limits, or the defaults where none is given; and what is left unsaid by that."""
    if asked.limits:
        needy = [f"--{name}" for name in growths(asked.limits)]
        if needy and old is None and not update:
            raise UsageError(
                f"there is no older model for {', '.join(needy)} to compare with: give --baseline OLD"
            )
        return dict(asked.limits), []
    if old is None:
        if update:
            return {}, []
        raise UsageError(
            "there is nothing to check against: give an older model (--baseline OLD), or a limit such as "
            "--max-size-mb 8"
        )
    limits = defaults()
    if not _comparable(new, old):
        del limits["max-drop"]
        lacks = old.lacks if new.facts.top1 is not None else new.lacks
        return limits, [f"Accuracy is not compared, for {lacks}."]
    return limits, []


def _comparable(new: Subject, old: Subject) -> bool:
    same = new.facts.sha256 == old.facts.sha256
    return same or (new.facts.top1 is not None and old.facts.top1 is not None)


def _judged(
    limits: Mapping[LimitName, Allowed], sides: Sides, strict: bool, remarks: list[str]
) -> Check:
    rows = rows_of(limits, sides)
    status = verdict(rows)
    bad = status == "fail" or (strict and status != "pass")
    new, old = (
        side.facts.model_copy(update={"predictions": None}) if side is not None else None
        for side in (sides.new, sides.old)
    )
    assert new is not None
    return Check(
        status=status, strict=strict, exit_code=1 if bad else 0, sentence=sentence(rows, new.name),
        new=new, old=old, rows=rows, remarks=remarks, gain=sides.drop,
        changes=changes(new, old) if old is not None else Changes(),
        comparison=sides.timed.comparison,
    )  # fmt: skip


# Measuring


def _timed(
    limits: Mapping[LimitName, Allowed], new: Subject, old: Subject | None, request: CheckRequest,
    face: Face,
) -> Timed:  # fmt: skip
    """What the limits need to have measured, measured here or on the board; or why it was not."""
    wanted = [name for name in MEASURED if name in limits]
    if not wanted or request.update:
        return Timed(why="--update does not measure")
    if not request.measure:
        return Timed(why="--no-measure was given")
    if new.file is None:
        why = "its file is not here, and the times of two results are never compared"
        return Timed(why=why, advice="give the run folders, with the bundles in them")
    if request.target is None and importlib.util.find_spec("onnxruntime") is None:
        return Timed(
            why="onnxruntime is not installed here", advice='pip install "edgedistill[cpu]"'
        )
    found = Timed()
    same = old is not None and old.facts.sha256 == new.facts.sha256
    if "max-latency-growth" in limits and old is not None and not same:
        found = _against(limits["max-latency-growth"], new, old, request, face)
    if _by_itself(wanted, new, request):
        found = replace(found, rows=_rows(new, request, face))
    return found


def _by_itself(wanted: list[LimitName], new: Subject, request: CheckRequest) -> bool:
    """Whether a limit asks for a time or memory that no result has, and a machine is there that can tell."""
    alone = [name for name in wanted if name not in GROWTHS]
    return bool(alone) and not new.latency and (new.device in HOST or request.target is not None)


def _against(
    limit: Allowed, new: Subject, old: Subject, request: CheckRequest, face: Face
) -> Timed:
    """Both files in turns; once more with more pairs where the first ones do not decide."""
    from edgedistill.benching import BenchRequest, bench

    if old.file is None:
        advice = "give the old model itself: --baseline OLD.onnx, or its bundle"
        what = (
            "a baseline file holds no model" if old.baseline else "the old model's file is not here"
        )
        return Timed(why=f"{what}, and a time of another machine says nothing", advice=advice)
    face.say("timing both models in turns")
    asked = BenchRequest(_place(new), request.target, request.device, compare=_place(old))
    found = bench(asked, face).comparison
    assert found is not None
    if found.outcome(limit.value) == "inconclusive":
        face.say("the first pairs do not decide: once more, with more of them")
        found = bench(replace(asked, tier="thorough"), face).comparison
    return Timed(comparison=found)


def _rows(new: Subject, request: CheckRequest, face: Face) -> tuple[Latency, ...]:
    """The new file alone. Of a file that belongs to no device, the machine that times it is the device."""
    from edgedistill.benching import BenchRequest, bench

    face.say("timing the new model")
    asked = BenchRequest(_place(new), request.target, request.device, threads="1")
    rows = [row for rows in bench(asked, face).rows.values() for row in rows]
    if request.device is None and new.device in HOST:
        rows = [row.model_copy(update={"evidence": "measured_on_target"}) for row in rows]
    return tuple(rows)


def _place(side: Subject) -> Path:
    """What there is to time: the bundle of a file where it lies in one, else the file."""
    assert side.file is not None
    folder = side.file.parent
    return folder if (folder / "manifest.json").is_file() else side.file


# Baselines


def _require_baseline_file(place: Path | None) -> None:
    """--update writes over a file: only a baseline, or none at all, may stand there."""
    if place is None:
        raise UsageError("--update needs to know which file to write: give --baseline FILE.json")
    if place.suffix.lower() != ".json" or place.is_dir():
        raise UsageError(f"--update writes a .json file; got {place}")
    if place.exists() and schema_of(place) != BASELINE:
        raise UsageError(
            f"{place} is no baseline, and --update does not write over it: name another file"
        )


def _updated(
    limits: Mapping[LimitName, Allowed], sides: Sides, request: CheckRequest, remarks: list[str]
) -> Check:
    """Growth is accepted and becomes the baseline; a limit that stands by itself still counts."""
    place = request.asked.baseline
    assert place is not None
    alone = {n: v for n, v in limits.items() if n not in GROWTHS and n not in MEASURED}
    check = _judged(alone, sides, request.asked.strict, remarks)
    if check.exit_code:
        note = f"{place} was not written: a limit that stands by itself is missed."
    else:
        write_atomic(place, kept(sides.new).dumps())
        note = f"{place} was written. Commit it with the model."
        if not alone:
            check = check.model_copy(
                update={"sentence": f"{sides.new.facts.name} is the baseline now."}
            )
    return check.model_copy(update={"remarks": [*check.remarks, note]})
