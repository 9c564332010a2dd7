"""`build-engine`: engines of the float16 and the INT8 model, built here, checked and timed; the faster accurate one is
kept.

Without TensorRT's Python package `build_engine.sh` does the building alone, with trtexec.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ontarget.bench import What, bench_bundle
from ontarget.builder import Wanted, build_engine
from ontarget.contract import Bundle, Model, load_evalset, require_packed
from ontarget.fields import ContractError
from ontarget.measure import Timing
from ontarget.opening import ENGINE
from ontarget.score import check_golden, evaluate_bundle, score
from ontarget.session import Session, SessionError
from ontarget.trt import TrtSession

SCRIPT = "build_engine.sh"
PRECISIONS = ("float16", "int8")


@dataclass(frozen=True)
class Engine:
    """One engine: how long a run takes, how often it is right (`None` without test images), and whether it gives the
    golden outputs.
    """

    model: str
    file: str
    p50_s: float
    top1: float | None
    golden: bool
    text: str


def to_build(bundle: Bundle, name: str | None) -> list[Model]:
    """The models to build: the one named, else those in float16 and, made for TensorRT, in INT8."""
    if name is not None:
        return [bundle.model(name)]
    found = [
        m
        for m in bundle.models
        if m.precision == "float16" or (m.precision == "int8" and m.flavour == "tensorrt")
    ]
    if not found:
        raise ContractError(
            "the bundle has no float16 model and no INT8 one made for TensorRT; name one with --model."
        )
    return found


def by_script(models: Sequence[Model], bundle: Bundle, arguments: Sequence[str]) -> int:
    """Build with `build_engine.sh` and its trtexec into the bundle's folder; its words go to the terminal.
    Its exit code.
    """
    script = bundle.folder.resolve() / SCRIPT
    if not script.is_file():
        raise SessionError(f"{script} is not there: copy the whole bundle.")
    code = 0
    for model in models:
        command = ["sh", str(script), "-m", model.name, *arguments, "."]
        ended = subprocess.run(command, check=False, cwd=str(script.parent)).returncode
        code = max(code, ended if ended >= 0 else 1)
    return code


def by_python(
    models: Sequence[Model],
    bundle: Bundle,
    wanted: Wanted,
    again: bool,
    timing: Timing,
    progress: Callable[[str], None],
) -> tuple[list[Engine], list[dict[str, Any]], list[str]]:
    """Build, check and time each model: engines in the bundle's folder, rows of the kit document, and what went wrong
    with others. Raises ContractError for a damaged bundle or evaluation set.
    """
    engines, rows, faults = [], [], []
    for model in models:
        require_packed(model)
    images = _evalset(bundle)
    for model in models:
        progress(f"building {model.name}: this takes minutes")
        try:
            engine, row = _one(model, bundle, wanted, again, timing, images, progress)
        except SessionError as error:
            faults.append(str(error))
            continue
        engines.append(engine)
        rows.append(row)
    return engines, rows, faults


def _evalset(bundle: Bundle) -> tuple[Any, Any] | None:
    folder = bundle.folder.resolve().parent / "evalset"
    if not (folder / "evalset.json").is_file():
        return None
    pixels, labels = load_evalset(folder)
    if pixels.shape[1] != bundle.preprocess.crop:
        raise ContractError(
            f"{folder}: images of {pixels.shape[1]} px, the bundle takes {bundle.preprocess.crop}."
        )
    return pixels, labels


def _one(
    model: Model,
    bundle: Bundle,
    wanted: Wanted,
    again: bool,
    timing: Timing,
    images: tuple[Any, Any] | None,
    progress: Callable[[str], None],
) -> tuple[Engine, dict[str, Any]]:
    path = build_engine(model, bundle.folder, wanted, again).resolve()

    def session(model: Model, provider: str, threads: int) -> Session:
        return TrtSession(model, path)

    golden, top1 = check_golden(bundle, [model.name], ENGINE, session)[0], None
    if images is not None:
        pixels, labels = images
        logits = evaluate_bundle(
            bundle, pixels, [model.name], ENGINE, session=session, progress=progress
        )
        top1 = score(logits[model.name], labels)["top1"]
    batch = model.input.shape[0] or wanted.batch
    measured, failures = bench_bundle(
        bundle, [model.name], ENGINE, (1,), What(batch=batch), timing, progress,
        engines={model.name: path},
    )  # fmt: skip
    if failures:
        raise SessionError(f"{path.name} was built, but {failures[0].text}")
    p50 = float(measured[0]["p50_s"] or measured[0]["mean_s"])
    return Engine(model.name, path.name, p50, top1, golden.ok, golden.text), measured[0]


def kept(engines: Sequence[Engine], max_drop: float) -> Engine | None:
    """The fastest engine that is accurate enough; `None` where none is.

    It gives the golden outputs; or, with test images, it loses at most `max_drop` (a fraction) of the top-1 of the best
    engine that does.
    """
    sound = [e for e in engines if e.golden]
    best = max((e.top1 for e in sound if e.top1 is not None), default=None)
    good = [
        e
        for e in engines
        if (e.golden if e.top1 is None or best is None else e.top1 >= best - max_drop - 1e-12)
    ]
    return min(good, key=lambda e: e.p50_s, default=None)


def report(engines: Sequence[Engine], keep: Engine | None) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table for a person."""
    head = ["engine", "p50 ms", "top-1 %", "golden outputs", ""]
    rows = [
        [
            e.file,
            f"{1e3 * e.p50_s:.3f}",
            "not measured" if e.top1 is None else f"{100 * e.top1:.2f}",
            "ok" if e.golden else e.text,
            "keep" if e is keep else "",
        ]
        for e in engines
    ]
    return head, rows
