"""Export, quantize, choose, pack: from trained weights to the folder that ships."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ontarget.facts import Preprocess
from ontarget.opening import open_session
from ontarget.preprocess import to_input
from ontarget.score import logits_of

from edgedistill.deploy.bundle import Packed, spec, write_bundle, write_evalset
from edgedistill.errors import EdgedistillError
from edgedistill.metrics import parity, top1
from edgedistill.result import Precision
from edgedistill.rundir import Work, replace_folder, sha256_file
from edgedistill.target.device import Device

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
FLOAT32_PARITY = 1e-4
PAYS = 0.97
"""INT8 takes the place of a file that is small enough only for less than this share of its latency."""
NOTHING: Mapping[Precision, str] = {}


class ParityError(EdgedistillError):
    """An exported file does not compute what the trained model computes."""


@dataclass(frozen=True)
class Shape:
    """What every file of a bundle shares: input layout, classes, preprocessing, opset, target runtime, and what an INT8
    file is for.
    """

    layout: str
    classes: tuple[str, ...]
    preprocess: Preprocess
    opset: int
    runtime: str
    flavour: str | None = None


def preprocess_of(size: int, mean: Sequence[float], std: Sequence[float]) -> Preprocess:
    """The contract of this project: shorter side and centre crop are both the input size."""
    return Preprocess(
        resize=size, crop=size, mean=(mean[0], mean[1], mean[2]), std=(std[0], std[1], std[2])
    )


def shape_for(
    device: Device, classes: Sequence[str], preprocess: Preprocess, layout: str, opset: int
) -> Shape:
    """The shape of what ships to a device; where that has no fast INT8, the INT8 file is one that runs here."""
    runtime = "tensorrt" if device.runtime == "tensorrt" else "onnxruntime"
    return Shape(layout, tuple(classes), preprocess, opset, runtime, device.int8_flavour or "x86")


def packed(name: Precision, data: bytes, shape: Shape, layout: str | None = None) -> Packed:
    """A model file with what the manifest says of it; `layout` where its input is not that of the others."""
    flavour = shape.flavour if name == "int8" else None
    return Packed(name, data, name, shape.runtime, shape.opset, layout or shape.layout, flavour)


def with_batch(item: Packed, batch: int) -> Packed:
    """The same file for batches of `batch` images alone."""
    from edgedistill.deploy.onnx import fixed_batch

    return replace(item, data=fixed_batch(item.data, batch), batch=batch)


class _Reader:
    """The part of a bundle that the kit's scoring looks at, before there is a bundle."""

    def __init__(self, shape: Shape) -> None:
        self.classes, self.preprocess = shape.classes, shape.preprocess


def kit_logits(item: Packed, pixels: Pixels, shape: Shape, work: Work) -> Floats:
    """Logits (N, C) of a model file through the kit's own session and preprocessing, on the CPU."""
    path = work.write(f"{item.name}.probe.onnx", item.data)
    try:
        model = spec(item, path, shape.preprocess.crop, len(shape.classes))
        with open_session(model, "cpu", 0) as session:
            bundle: Any = _Reader(shape)
            return np.asarray(logits_of(session, model, bundle, pixels))
    finally:
        path.unlink()


def model_inputs(item: Packed, pixels: Pixels, shape: Shape) -> npt.NDArray[Any]:
    """Pixels (N, S, S, 3) as the graph of a file takes them."""
    model = spec(item, Path(item.file), shape.preprocess.crop, len(shape.classes))
    return np.asarray(to_input(pixels, model, shape.preprocess))


def check_parity(item: Packed, logits: Floats, reference: Floats) -> dict[str, Any]:
    """The file against torch on real images.

    Raises `ParityError` when float32 differs by more than 1e-4, or than 1e-4 of the largest logit where that is over 1.
    """
    found = parity(reference, logits)
    allowed = FLOAT32_PARITY * max(1.0, float(np.abs(reference).max()))
    if item.precision == "float32" and found["max_abs"] > allowed:
        raise ParityError(
            f"the float32 ONNX file differs from the trained model by {found['max_abs']:.3g} on "
            f"{found['n']} images; at most {allowed:.3g} is allowed. This is a fault of the export: "
            "try another opset (--set export.opset=13) and report it."
        )
    return {**found, "against": "torch float32"}


@dataclass(frozen=True)
class Option:
    """A file that could ship: size, and where they are known validation top-1 and the latency on the device, which is
    predicted where it was not `measured`.
    """

    precision: Precision
    size_bytes: int
    val_top1: float | None
    latency_s: float | None
    measured: bool = False

    def latency(self) -> str:
        """The latency in words."""
        assert self.latency_s is not None
        return f"{1e3 * self.latency_s:.2f} ms {'measured here' if self.measured else 'predicted'}"


def options_of(
    items: Sequence[Packed],
    scores: Mapping[str, float],
    timed: Mapping[Precision, float],
    predicted: Callable[[Precision], float | None],
) -> list[Option]:
    """Files as what could ship, with the latency that was measured where there is one."""
    return [
        Option(
            i.name, len(i.data), scores.get(i.name), timed.get(i.name, predicted(i.name)), i.name in timed
        )
        for i in items
    ]  # fmt: skip


def choose(
    options: Sequence[Option],
    natural: Precision,
    runs: Sequence[Precision],
    max_drop: float,
    refused: Mapping[Precision, str] = NOTHING,
    size_limit: int | None = None,
) -> tuple[Precision, dict[str, str]]:
    """Which file ships, and a reason for each, from validation images and latencies.

    The device's natural precision stands, or float32 where its builder `refused` that; INT8 takes its place when it is
    smaller, loses no more than `max_drop` on validation, and pays: it is expected to be faster on the device, or no
    slower where the natural file passes the size limit.
    """
    by_name = {o.precision: o for o in options}
    base = by_name.get("float32", options[0])
    if natural not in refused:
        base = by_name.get(natural, base)
    reasons: dict[str, str] = {}
    chosen: Precision = base.precision
    for option in options:
        if option is base:
            continue
        why = _against(option, base, runs, max_drop, size_limit)
        if option.precision in refused and option.precision in runs:
            why = f"TensorRT's parser or builder refuses it ({refused[option.precision]})"
        if why is None and option.precision == "int8":
            chosen = "int8"
            reasons["int8"] = _won(option, base)
        else:
            reasons[option.precision] = why or "the device's natural precision is smaller or faster"
    if chosen == base.precision:
        reasons[base.precision] = _stands(base.precision, natural, refused)
    else:
        reasons[base.precision] = f"{chosen} is smaller and fast enough, see there"
    return chosen, reasons


def _stands(base: Precision, natural: Precision, refused: Mapping[Precision, str]) -> str:
    """Why the file stands that no other took the place of."""
    if base in refused:
        return (
            f"no file is left: TensorRT's parser or builder refuses this one too ({refused[base]})"
        )
    if natural in refused:
        return f"{natural} is refused by TensorRT's parser or builder, see there"
    return "the natural precision of the device"


def _against(
    option: Option,
    base: Option,
    runs: Sequence[Precision],
    max_drop: float,
    size_limit: int | None,
) -> str | None:
    """Why an option does not take the place of the natural file, or `None`."""
    if option.precision not in runs:
        return f"the device has no fast {option.precision}"
    if option.size_bytes >= base.size_bytes:
        return f"not smaller than {base.precision}"
    lost = _lost(option, base)
    if lost > max_drop:
        return (
            f"loses {100 * lost:.1f} points on validation, {100 * max_drop:.1f} are allowed; "
            "more calibration images or another method may help (--set quantize.method=entropy)"
        )
    if option.latency_s is None or base.latency_s is None:
        return f"no latency prediction for {option.precision} on this device: measure it there"
    if option.latency_s > base.latency_s:
        slower = "slower" if option.measured else "expected to be slower"
        return f"{slower}: {option.latency()}, {1e3 * base.latency_s:.2f} ms in {base.precision}"
    small = size_limit is None or base.size_bytes <= size_limit
    if small and option.latency_s > PAYS * base.latency_s:
        return (
            f"does not pay: {option.latency()}, "
            f"{1e3 * base.latency_s:.2f} ms in {base.precision}, which keeps the size limit"
        )
    return None


def _lost(option: Option, base: Option) -> float:
    """Validation top-1 that an option loses; 0 where no image has a label."""
    if option.val_top1 is None or base.val_top1 is None:
        return 0.0
    return base.val_top1 - option.val_top1


def _won(option: Option, base: Option) -> str:
    lost = _lost(option, base)
    words = f"loses {100 * lost:.1f} points" if lost > 0 else "loses nothing"
    assert base.latency_s is not None
    return (
        f"{option.size_bytes / 1e6:.1f} MB instead of {base.size_bytes / 1e6:.1f} MB, {words} on "
        f"validation, {option.latency()} instead of {1e3 * base.latency_s:.2f} ms"
    )


def pack(
    work: Work,
    *,
    name: str,
    device: str,
    created_utc: str,
    shape: Shape,
    models: Sequence[Packed],
    chosen: str,
    golden: Pixels,
    licences: Mapping[str, str | None],
    evalset: tuple[Pixels, npt.NDArray[np.int64], int] | None,
    golden_words: str | None = None,
) -> dict[str, Any]:
    """Write `bundle/` and `evalset/` into the working folder; golden outputs are those of the files themselves.

    `golden_words` say what the golden images are where they are no training images of the model.
    """
    shutil.rmtree(work.path("bundle"), ignore_errors=True)
    work.path("bundle").mkdir()
    logits: dict[str, Floats] = {
        item.name: kit_logits(item, golden, shape, work) for item in models
    }
    write_bundle(
        Work(work.path("bundle")),
        name=name,
        device=device,
        created_utc=created_utc,
        classes=shape.classes,
        preprocess=shape.preprocess,
        models=models,
        chosen=chosen,
        golden_pixels=golden,
        golden_logits=logits,
        golden_words=golden_words,
        licences=licences,
    )
    if evalset is not None:
        write_evalset(work, *evalset)
    sizes = {p.name: p.stat().st_size for p in sorted(work.path("bundle").iterdir())}
    return {"created_utc": created_utc, "chosen": chosen, "bundle_bytes": sum(sizes.values())}


def publish(stage: Path, run: Path) -> None:
    """Put `bundle/` and `evalset/` of the finished stage into the run folder, where a person looks for them."""
    for name in ("bundle", "evalset"):
        source, target = stage / name, run / name
        if not source.exists():
            shutil.rmtree(target, ignore_errors=True)
        elif not _same(source, target):
            aside = run / f".{name}.tmp"
            shutil.rmtree(aside, ignore_errors=True)
            shutil.copytree(source, aside)
            replace_folder(aside, target)


def _same(source: Path, target: Path) -> bool:
    """Whether two folders hold the same files, by size and hash."""
    names = sorted(os.listdir(source))
    if not target.is_dir() or sorted(os.listdir(target)) != names:
        return False
    return all(
        (source / n).stat().st_size == (target / n).stat().st_size
        and sha256_file(source / n) == sha256_file(target / n)
        for n in names
    )


def evaluate_options(
    items: Sequence[Packed], pixels: Pixels, labels: npt.NDArray[np.int64], shape: Shape, work: Work
) -> dict[str, float]:
    """Validation top-1 of each file as the kit runs it."""
    return {item.name: top1(kit_logits(item, pixels, shape, work), labels) for item in items}


def metadata(
    shape: Shape, model: str, licences: Mapping[str, str | None], layout: str | None = None
) -> dict[str, str]:
    """What stands inside each ONNX file, so that the file alone says how it is used."""
    return {
        "edgedistill.classes": json.dumps(list(shape.classes)),
        "edgedistill.input": layout or shape.layout,
        "edgedistill.licences": json.dumps(dict(licences)),
        "edgedistill.model": model,
        "edgedistill.preprocess": json.dumps(vars(shape.preprocess)),
    }
