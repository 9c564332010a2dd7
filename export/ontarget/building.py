"""`build-engine`: engines of the float16 and the INT8 model, built here, checked and timed; the faster accurate one is
kept.

Without TensorRT's Python package `build_engine.sh` does the building alone, with trtexec.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ontarget.bench import Timing, bench_bundle
from ontarget.contract import Bundle, Model, load_evalset, require_packed
from ontarget.fields import ContractError
from ontarget.opening import ENGINE
from ontarget.score import check_golden, evaluate_bundle, score
from ontarget.session import SessionError

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
        if m.precision == "float16" or (m.precision == "int8" and m.runtime == "tensorrt")
    ]
    if not found:
        raise ContractError(
            "the bundle has no float16 model and no INT8 one made for TensorRT; name one with --model."
        )
    return found


def by_script(models: Sequence[Model], bundle: Bundle, arguments: Sequence[str]) -> int:
    """Build with `build_engine.sh` of the bundle and its trtexec; its words go to the terminal. Its exit code."""
    script = bundle.folder / SCRIPT
    if not script.is_file():
        raise SessionError(f"{script} is not there: copy the whole bundle.")
    code = 0
    for model in models:
        command = ["sh", str(script), "-m", model.name, *arguments, str(bundle.folder)]
        code = max(code, subprocess.run(command, check=False).returncode)
    return code


def by_python(
    models: Sequence[Model],
    bundle: Bundle,
    wanted: Any,
    again: bool,
    timing: Timing,
    progress: Callable[[str], None],
) -> tuple[list[Engine], list[dict[str, Any]]]:
    """Build, check and time each model; engines lie in the bundle's folder. Raises SessionError."""
    from ontarget.trt import build_engine

    engines, rows = [], []
    evalset = bundle.folder.resolve().parent / "evalset"
    for model in models:
        require_packed(model)
        progress(f"building {model.name}: this takes minutes")
        path = build_engine(model, bundle.folder, wanted, again)
        golden = check_golden(bundle, [model.name], ENGINE)[0]
        top1 = None
        if (evalset / "evalset.json").is_file():
            pixels, labels = load_evalset(evalset)
            logits = evaluate_bundle(bundle, pixels, [model.name], ENGINE, progress=progress)
            top1 = score(logits[model.name], labels)["top1"]
        measured, failures = bench_bundle(
            bundle, [model.name], ENGINE, (1,), wanted.batch, None, timing, progress
        )
        if failures:
            raise SessionError(f"{path.name} was built, but {failures[0].text}")
        rows.append(measured[0])
        p50 = float(measured[0]["p50_s"] or measured[0]["mean_s"])
        engines.append(Engine(model.name, path.name, p50, top1, golden.ok, golden.text))
    return engines, rows


def kept(engines: Sequence[Engine], max_drop: float) -> Engine | None:
    """The fastest engine that is accurate enough; `None` where none is.

    With test images: at most `max_drop` (a fraction) below the best of them; without: it gives the golden outputs.
    """
    best = max((e.top1 for e in engines if e.top1 is not None), default=None)
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
