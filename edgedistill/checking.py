"""The story of `edgedistill check`: read both sides, measure what a limit needs, judge, tell.

Nothing here needs torch; measuring alone needs onnxruntime, and a time is never compared with one of another machine.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.checklimits import Asked, defaults, growths
from edgedistill.checkresult import BASELINE, GROWTHS, Allowed, Changes, Check, LimitName
from edgedistill.errors import DocumentError, StoppedError, UsageError
from edgedistill.evidence.checks.changes import changes
from edgedistill.evidence.checks.regression import (
    Sides,
    Timed,
    compared,
    rows_of,
    sentence,
    verdict,
)
from edgedistill.evidence.checks.snapshot import OWN, Subject, kept, read_subject, schema_of
from edgedistill.files import sha256_file, write_atomic
from edgedistill.target.measured import HOST

if TYPE_CHECKING:
    from edgedistill.benching import BenchRequest
    from edgedistill.latencyresult import Comparison, Latency
    from edgedistill.progress import Face

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
    old, lost = _old(place, request.update)
    limits, remarks = _limits(asked, new, old, request.update)
    remarks += lost
    if old is None:
        limits = {name: limit for name, limit in limits.items() if name not in GROWTHS}
    timed = _timed(limits, new, old, request, face)
    if timed.rows:  # measured now, as was asked: what a result says of another day is not judged
        new = replace(new, latency=())
    sides = compared(new, old, timed)
    if request.update:
        return _updated(limits, sides, request, remarks)
    return _judged(limits, sides, asked.strict, remarks)


def _old(place: Path | None, update: bool) -> tuple[Subject | None, list[str]]:
    """The older model, and what is to be said where --update takes the place of one that is not there or damaged."""
    if place is None or (update and not place.exists()):
        return None, []
    try:
        return read_subject(place, "--baseline", baseline=True), []
    except DocumentError:
        if not update:
            raise
        return None, [f"What stood in {place} is damaged, so what changed is not known."]


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
    if request.target is not None and (new.file is None or not request.measure):
        why = "--no-measure times nothing: leave one of them out"
        if request.measure:
            why = "the file of the new model is not here: give the run folder with the bundle in it"
        raise UsageError(f"--target times on the board, and {why}")
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
    with tempfile.TemporaryDirectory(prefix="edgedistill-check-") as aside:
        placed = _placed(new, Path(aside) / "new")
        if "max-latency-growth" in limits and old is not None and not same:
            found = _against(
                limits["max-latency-growth"], placed, old, Path(aside) / "old", request, face
            )
        if _by_itself(wanted, new, request):
            rows = _rows(placed, request, face)
            why = "" if any(row.evidence == "measured_on_target" for row in rows) else _not_on(rows)
            found = replace(found, rows=rows, why=found.why or why)
    return found


def _by_itself(wanted: list[LimitName], new: Subject, request: CheckRequest) -> bool:
    """Whether a limit asks for a time or memory that is to be measured: on a board that is named always, here where no
    result has it and this machine is the one that can tell.
    """
    alone = [name for name in wanted if name not in GROWTHS]
    here = not new.latency and new.device in OWN
    return bool(alone) and (request.target is not None or here)


def _not_on(rows: tuple[Latency, ...]) -> str:
    return f"what was measured does not count, as {rows[0].evidence_words}"


@dataclass(frozen=True)
class _Placed:
    """A side as it is timed: a bundle, the model in it, and the hash of that model's file."""

    side: Subject
    bundle: Path
    model: str
    sha256: str


def _placed(side: Subject, aside: Path) -> _Placed:
    """The bundle that a side was read of; of a file that was named, a bundle of that file alone, in `aside`."""
    from edgedistill.deploy.archive import read_bundle
    from edgedistill.deploy.bare import bare_bundle

    assert side.file is not None
    if side.bundle is not None and side.model is not None:
        return _Placed(side, side.bundle, side.model, side.facts.sha256)
    aside.mkdir()
    folder = bare_bundle(side.file, aside)
    model = read_bundle(folder).models[0]
    return _Placed(side, folder, model.name, sha256_file(model.path))


def _bench_request(new: _Placed, request: CheckRequest) -> BenchRequest:
    from edgedistill.benching import BenchRequest

    return BenchRequest(
        new.bundle, request.target, request.device, model=new.model, threads="1",
        wanted=new.side.wanted,
    )  # fmt: skip


def _against(
    limit: Allowed, new: _Placed, old: Subject, aside: Path, request: CheckRequest, face: Face
) -> Timed:
    """Both files in turns; once more with more pairs where the first ones do not decide."""
    from edgedistill.benching import bench

    if old.file is None:
        advice = "give the old model itself: --baseline OLD.onnx, or its bundle"
        what = (
            "a baseline file holds no model" if old.baseline else "the old model's file is not here"
        )
        return Timed(why=f"{what}, and a time of another machine says nothing", advice=advice)
    before = _placed(old, aside)
    face.say("timing both models in turns")
    asked = replace(_bench_request(new, request), compare=before.bundle, compare_model=before.model)
    found = _held(bench(asked, face).comparison, before, new)
    if found.outcome(limit.value) == "inconclusive":
        face.say("the first pairs do not decide: once more, with more of them")
        found = _held(bench(replace(asked, tier="thorough"), face).comparison, before, new)
    return Timed(comparison=found)


def _held(found: Comparison | None, old: _Placed, new: _Placed) -> Comparison:
    """A comparison of these very files. Raises `StoppedError` for one of others."""
    assert found is not None
    for timed, placed in ((found.old, old), (found.new, new)):
        if timed.sha256 != placed.sha256:
            raise StoppedError(
                f"another file was timed than {placed.side.file} (sha256 {timed.sha256[:12]}, not "
                f"{placed.sha256[:12]}): it was changed meanwhile, or the kit is not of this edgedistill. Check again."
            )
    return found


def _rows(new: _Placed, request: CheckRequest, face: Face) -> tuple[Latency, ...]:
    """The new file alone. Of a file that belongs to no device, the machine that times it is the device; `host` is this
    machine and never a board.
    """
    from edgedistill.benching import bench

    face.say("timing the new model")
    rows = bench(_bench_request(new, request), face).rows.get(new.model, [])
    if not rows:
        raise StoppedError(f"the kit gave no time of {new.model}. Check again.")
    own = OWN if request.target is None else [name for name in OWN if name != HOST]
    if request.device is None and new.side.device in own:
        rows = [row.model_copy(update={"evidence": "measured_on_target"}) for row in rows]
    return tuple(rows)


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
