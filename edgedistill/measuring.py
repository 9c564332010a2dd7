"""Measures a machine: anchor networks with random weights through the kit, a fit, and what is kept of it.

From then on predictions for that machine come from its own times.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill import __version__
from edgedistill.errors import EdgedistillError, StoppedError, UsageError
from edgedistill.evidence.bench import Target, same_class
from edgedistill.progress import Face
from edgedistill.result import Candidate, Limits, Plan, Precision
from edgedistill.rundir import Work, now_utc
from edgedistill.target.attribute import timed_kernels
from edgedistill.target.device import Device
from edgedistill.target.fit import Anchor, Fit, fit
from edgedistill.target.latency import Network
from edgedistill.target.measured import (
    HOST,
    AnchorRow,
    FittedModel,
    Measured,
    fingerprint,
    keep,
    user_place,
)
from edgedistill.target.students import find_student

if TYPE_CHECKING:
    from edgedistill.deploy.bundle import Packed
    from edgedistill.deploy.stage import Pixels, Shape

ANCHORS = (
    *(("semnasnet_100", 128), ("tf_efficientnet_es", 128), ("repghostnet_111", 128)),
    *(("regnetx_008", 160), ("edgenext_small_rw", 128), ("mixnet_m", 96)),
    *(("mobilevitv2_125", 96), ("starnet_s4", 128), ("hardcorenas_b", 64)),
    *(("mobileone_s0", 128), ("mobilenetv3_small_075", 256), ("edgenext_xx_small", 128)),
    *(("rexnet_150", 128), ("tf_efficientnet_lite3", 160), ("repvit_m1_1", 128)),
    *(("tinynet_c", 256), ("lcnet_100", 224), ("shvit_s1", 64), ("mobilenetv2_100", 64)),
    *(("fastvit_t8", 160), ("resnet10t", 96), ("regnety_004", 64), ("mobilevit_xxs", 128)),
    *(("hgnetv2_b0", 160), ("mobilenetv4_hybrid_medium", 64), ("ghostnetv2_130", 224)),
)
"""Students and input sizes that are timed: chosen one by one so that each takes the most uncertainty off the sum of
all students' predictions, none over 20 ms on a workstation's core."""
CLASSES = 1000
ROUNDS = 4
MIN_SECONDS = 0.3
MIN_RUNS = 11


@dataclass(frozen=True)
class Timed:
    """One model of one anchor: every sample of all rounds, and its operators."""

    samples_s: tuple[float, ...]
    operators: tuple[Mapping[str, Any], ...]

    @property
    def latency_s(self) -> float:
        """Mean of the middle four fifths of all samples.

        On a machine that is now faster and now slower, the median jumps from one to the other.
        """
        samples = np.sort(self.samples_s)
        edge = len(samples) // 10
        return float(samples[edge : len(samples) - edge].mean())


def machine_key() -> list[Any]:
    """What tells this machine from another in the keys of stages: processor, cores, memory."""
    from ontarget.machine import machine

    here = machine()
    return [here.get("cpu"), here.get("cores"), here.get("memory_bytes")]


def measure_device(
    device: Device, target: Target, threads: int, face: Face
) -> tuple[Measured, Path]:
    """Time the anchors on `target`, fit, and keep the result in the user's folder.

    Raises `UsageError` for a device that this kind of measurement says nothing about.
    """
    if device.runtime != "onnxruntime":
        raise UsageError(
            f"{device.name} runs {device.runtime}, and a measurement through ONNX Runtime says nothing about it: "
            "measure devices whose runtime is onnxruntime (edgedistill devices list)."
        )
    with tempfile.TemporaryDirectory(prefix="edgedistill-measure-") as name:
        folder = Path(name)
        bundles = export_networks(ANCHORS, CLASSES, device, folder, face)
        timed, machine = time_networks(bundles, target, threads, folder, face, in_detail=ANCHORS)
        if device.name != HOST and not same_class(device, machine):
            raise UsageError(
                f"this machine ({machine.get('cpu')}) is not of the kind of {device.name}: measure on the board "
                "itself, or give a profile of your own (edgedistill devices validate)."
            )
        fits, rows = fit_anchors(device, bundles, timed)
    measured = Measured(
        device=device.name,
        created_utc=now_utc(),
        version=__version__,
        fingerprint=fingerprint(machine),
        runtime="onnxruntime",
        threads=threads,
        power_mode=device.power_mode,
        models=fits,
        anchors=rows,
    )
    return measured, keep(measured, user_place())


def time_candidates(
    plan: Plan, device: Device, limits: Limits, count: int, classes: int, target: Target, face: Face
) -> Plan:
    """The plan with the `count` best candidates timed on `target`, one thread, random weights.

    On `host` what was measured decides: a candidate over the limit is rejected, and the next one is chosen. For
    another device it is a proxy, shown and nothing more; a float16 candidate is timed in float32.
    """
    ranked = [plan.chosen, *plan.runners_up]
    nets = list(dict.fromkeys((c.model, c.input_size) for c in ranked[:count]))
    with tempfile.TemporaryDirectory(prefix="edgedistill-plan-") as name:
        folder = Path(name)
        bundles = export_networks(nets, classes, device, folder, face)
        timed, _ = time_networks(bundles, target, 1, folder, face)
    here = [_with_time(c, timed, device, limits) for c in ranked[:count]]
    kept = [c for c in here if c.fits != "no"] + ranked[count:]
    if not kept:
        kept, here = ranked, []
    missed = [c for c in here if c.fits == "no"]
    return plan.model_copy(
        update={"chosen": kept[0], "runners_up": kept[1:], "rejected": [*missed, *plan.rejected]}
    )


def time_files(
    items: Sequence[Packed],
    shape: Shape,
    images: Pixels,
    device: Device,
    target: Target,
    face: Face,
) -> dict[Precision, float]:
    """Seconds an image of each file that the device computes, on one thread of `target`; in turns, round by round.

    Empty but on `host`: only there is this machine the device, and what was measured says more than a prediction.
    Empty, and said, where they cannot be timed: what was made so far is not lost for that.
    """
    from edgedistill.deploy.stage import pack

    items = [item for item in items if item.precision in device.precisions]
    if device.name != HOST or len(items) < 2:
        return {}
    try:
        with tempfile.TemporaryDirectory(prefix="edgedistill-files-") as name:
            folder = Path(name)
            pack(
                Work(folder), name="files", device=device.name, created_utc=now_utc(), shape=shape,
                models=items, chosen=items[0].name, golden=images[:1], licences={}, evalset=None,
            )  # fmt: skip
            bundles = {("files", shape.preprocess.crop): folder / "bundle"}
            timed, _ = time_networks(bundles, target, 1, folder, face)
    except (EdgedistillError, OSError) as error:
        face.say(f"the files cannot be timed here ({error}); what is predicted decides")
        return {}
    return {precision: one.latency_s for (_, _, precision), one in timed.items()}


def _with_time(
    candidate: Candidate,
    timed: Mapping[tuple[str, int, Precision], Timed],
    device: Device,
    limits: Limits,
) -> Candidate:
    net = (candidate.model, candidate.input_size)
    one = timed.get((*net, candidate.precision)) or timed[(*net, "float32")]
    if device.name != HOST or limits.latency_s is None:
        return candidate.model_copy(update={"measured_s": one.latency_s})
    inside = one.latency_s <= limits.latency_s
    words = f"measured here: {1e3 * one.latency_s:.2f} ms, {1e3 * limits.latency_s:g} ms allowed"
    return candidate.model_copy(
        update={
            "measured_s": one.latency_s,
            "tier": "A",
            "fits": "safe" if inside and candidate.fits != "no" else "no",
            "reason": f"{words}; {candidate.reason}",
        }
    )


def export_networks(
    nets: Sequence[tuple[str, int]], classes: int, device: Device, folder: Path, face: Face
) -> dict[tuple[str, int], Path]:
    """A bundle of each network, float32 and, where the device runs it, INT8."""
    from edgedistill.deploy.untrained import untrained_bundle

    bundles = {}
    with face.bar("export networks", len(nets)) as advance:
        for model, size in nets:
            bundles[model, size] = untrained_bundle(
                folder / f"{model}-{size}", model, size, classes, device
            )
            advance(1)
    return bundles


def time_networks(
    bundles: Mapping[tuple[str, int], Path],
    target: Target,
    threads: int,
    folder: Path,
    face: Face,
    in_detail: Collection[tuple[str, int]] = (),
) -> tuple[dict[tuple[str, int, Precision], Timed], dict[str, Any]]:
    """Rounds over all networks, so that a slow minute falls on all of them alike.

    Operators are timed too of those `in_detail`.
    """
    samples: dict[tuple[str, int, Precision], list[float]] = {}
    operators: dict[tuple[str, int, Precision], list[Sequence[Mapping[str, Any]]]] = {}
    machine: dict[str, Any] = {}
    with face.bar("time networks", ROUNDS * len(bundles)) as advance:
        for _ in range(ROUNDS):
            for (model, size), bundle in bundles.items():
                arguments = ["bench", "--threads", str(threads), "--min-runs", str(MIN_RUNS)]
                arguments += ["--min-seconds", str(MIN_SECONDS)]
                arguments += ["--operators"] if (model, size) in in_detail else []
                document = target.run(bundle, arguments, folder / "kit.json", face)
                for failure in document.get("failures", ()):
                    raise StoppedError(f"{model} at {size} px: {failure['text']}")
                machine = document["machine"]
                for row in document["rows"]:
                    key = (model, size, row["model"])
                    samples.setdefault(key, []).extend(row["samples_s"])
                    operators.setdefault(key, []).append(row.get("operators", ()))
                advance(1)
    timed = {key: Timed(tuple(s), _averaged(operators[key])) for key, s in samples.items()}
    return timed, machine


def _averaged(rounds: Sequence[Sequence[Mapping[str, Any]]]) -> tuple[Mapping[str, Any], ...]:
    """The operators of one model with their mean seconds over the rounds that the runtime planned alike."""
    names = [[one["name"] for one in turn] for turn in rounds]
    like = [turn for turn, own in zip(rounds, names, strict=True) if own == names[0]]
    return tuple(
        {**same[0], "seconds": float(np.mean([one["seconds"] for one in same]))}
        for same in zip(*like, strict=True)
    )


def fit_anchors(
    device: Device,
    bundles: Mapping[tuple[str, int], Path],
    timed: Mapping[tuple[str, int, Precision], Timed],
) -> tuple[dict[Precision, FittedModel], list[AnchorRow]]:
    """A model for each precision, and what each anchor's time and error are."""
    import onnx

    graphs = {key: onnx.load(str(path / "model.float32.onnx")) for key, path in bundles.items()}
    fits: dict[Precision, FittedModel] = {}
    rows: list[AnchorRow] = []
    for precision in device.precisions:
        keys = [(m, s, p) for m, s, p in timed if p == precision]
        anchors = []
        for model, size, _ in keys:
            student = find_student(model)
            one = timed[model, size, precision]
            kernels = timed_kernels(graphs[model, size], one.operators)
            features = student.features(size, CLASSES)
            anchors.append(Anchor(model, student.family, features, kernels, one.latency_s))
        if not anchors:
            continue
        try:
            found = fit(anchors)
        except ValueError as error:
            raise StoppedError(f"nothing can be fitted for {precision}: {error}") from None
        fits[precision] = _fitted(found, anchors)
        rows += [
            AnchorRow(
                model=m,
                input_size=s,
                precision=precision,
                latency_s=a.latency_s,
                error=round(float(e), 4),
            )
            for (m, s, _), a, e in zip(keys, anchors, found.errors, strict=True)
        ]
    return fits, rows


def _fitted(found: Fit, anchors: Sequence[Anchor]) -> FittedModel:
    absolute = np.abs(found.errors)
    macs = [Network(a.name, a.family, frozenset(), a.features).macs for a in anchors]
    return FittedModel(
        seconds={name: float(f"{value:.5g}") for name, value in found.component.seconds.items()},
        band=(round(found.band[0], 3), round(found.band[1], 3)),
        median_error=round(float(np.median(absolute)), 4),
        p90_error=round(float(np.quantile(absolute, 0.9)), 4),
        n=len(anchors),
        macs=(min(macs), max(macs)),
    )
