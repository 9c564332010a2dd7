"""How well `devices measure` predicts this machine, and what a search by prediction costs.

24 students of mixed kinds at mixed sizes are drawn by a fixed seed, none of them an anchor, and timed through the kit,
float32 and INT8, one thread, in the same rounds as the anchors that `devices measure` fits. Then the search: for 8
latency budgets the student chosen from predictions is timed, and its expected accuracy held against the best of a fixed
set of 60 candidates that really fit. About 25 minutes:

    python -m benchmarks.host_latency --json host_latency.json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgedistill.deploy.untrained import untrained_bundle
from edgedistill.evidence.bench import Here
from edgedistill.measuring import ANCHORS, CLASSES, Timed, fit_anchors, time_networks
from edgedistill.progress import Face
from edgedistill.result import Limits, Precision
from edgedistill.rundir import now_utc
from edgedistill.target.device import Device, load_device
from edgedistill.target.latency import Prediction, predict
from edgedistill.target.measured import Measured, models_of
from edgedistill.target.plan import plan
from edgedistill.target.prior import expected_top1
from edgedistill.target.students import find_student, load_students

Net = tuple[str, int]
Model = tuple[str, int, Precision]
SIZES = (64, 96, 128, 160, 192, 224, 256)
SEED = 2026
DRAWN = 24
FIXED = 30
"""Networks of the fixed set; with two precisions each it has 60 candidates."""
BUDGETS_MS = (1.5, 2.5, 4, 6, 9, 14, 22, 35)
PRECISIONS: tuple[Precision, ...] = ("float32", "int8")


def draw(count: int, seed: int, without: Sequence[str]) -> list[Net]:
    """Different students at sizes drawn by a seed."""
    rng = random.Random(seed)
    names = [s.name for s in load_students() if s.name not in without]
    return [(name, rng.choice(SIZES)) for name in rng.sample(names, count)]


def export(nets: Sequence[Net], folder: Path) -> dict[Net, Path]:
    """Bundles of networks; what the folder holds already is taken."""
    device = load_device("host")
    bundles = {}
    for place, (name, size) in enumerate(nets):
        path = folder / f"{name}-{size}"
        if not (path / "bundle" / "manifest.json").exists():
            print(f"export {place + 1} of {len(nets)}: {name} at {size} px", file=sys.stderr)
            untrained_bundle(path, name, size, CLASSES, device)
        bundles[name, size] = path / "bundle"
    return bundles


def fitted(bundles: dict[Net, Path], timed: dict[Model, Timed]) -> Device:
    """This machine with what its anchors say, as `devices measure` fits it."""
    device = load_device("host")
    anchors = {net: bundles[net] for net in ANCHORS}
    times = {model: one for model, one in timed.items() if model[:2] in anchors}
    fits, rows = fit_anchors(device, anchors, times)
    measured = Measured(
        device="host", created_utc=now_utc(), version="benchmark", fingerprint={}, runtime="onnxruntime",
        threads=1, models=fits, anchors=rows,
    )  # fmt: skip
    return dataclasses.replace(device, latency=models_of(measured))


def predicted(model: Model, device: Device) -> Prediction:
    """What planning says."""
    name, size, precision = model
    found = predict(device, precision, find_student(name).network(size, CLASSES))
    assert isinstance(found, Prediction), found
    return found


def spearman(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Rank correlation of values without ties."""
    return float(np.corrcoef(np.argsort(np.argsort(a)), np.argsort(np.argsort(b)))[0, 1])


def accuracy_of_prediction(measured: dict[Model, float], device: Device) -> dict[str, Any]:
    """Errors by precision, and whether the truth lies in the band."""
    out: dict[str, Any] = {}
    for precision in PRECISIONS:
        models = [m for m in measured if m[2] == precision]
        truth = np.array([measured[m] for m in models])
        guesses = [predicted(m, device) for m in models]
        points = np.array([g.latency_s for g in guesses])
        errors = np.abs(points / truth - 1)
        inside = [g.band_s[0] <= t <= g.band_s[1] for g, t in zip(guesses, truth, strict=True)]
        out[precision] = {
            "networks": len(models),
            "median_error": round(float(np.median(errors)), 4),
            "p90_error": round(float(np.quantile(errors, 0.9)), 4),
            "largest_error": round(float(errors.max()), 4),
            "spearman": round(spearman(points, truth), 4),
            "inside_band": round(float(np.mean(inside)), 3),
            "rows": [
                {"model": m[0], "input_size": m[1], "measured_ms": round(1e3 * t, 3), "predicted_ms": round(1e3 * p, 3)}
                for m, t, p in zip(models, truth, points, strict=True)
            ],
        }  # fmt: skip
    return out


def choose(budget_ms: float, device: Device) -> Model:
    """What planning takes for a latency budget, of all students, with the head and images of the measurement."""
    found = plan(
        device, Limits(latency_s=budget_ms / 1e3), classes=CLASSES, image_side=256,
        weights="pretrained", at_hand=lambda _: True,
    ).chosen  # fmt: skip
    return found.model, found.input_size, found.precision


def expected(model: Model) -> float:
    """The prior that planning ranks by."""
    name, size, precision = model
    return expected_top1(find_student(name), size, precision, pretrained=True)


def search(
    measured: dict[Model, float], chosen: dict[float, Model], fixed: Sequence[Net]
) -> list[dict[str, Any]]:
    """The choice for each budget against the best of the fixed set that really fits."""
    rows = []
    for budget, model in chosen.items():
        fits = [m for m, t in measured.items() if m[:2] in fixed and 1e3 * t <= budget]
        best = max(fits, key=expected, default=None)
        rows.append({
            "budget_ms": budget,
            "chosen": model,
            "measured_ms": round(1e3 * measured[model], 3),
            "fits": 1e3 * measured[model] <= budget,
            "expected_top1": round(expected(model), 4),
            "best_of_fixed": best,
            "best_expected_top1": None if best is None else round(expected(best), 4),
        })  # fmt: skip
    return rows


def tell(report: dict[str, Any]) -> None:
    """Print what was found."""
    for precision, row in report["prediction"].items():
        print(
            f"{precision}: {row['networks']} networks, median error {100 * row['median_error']:.1f} %, p90 "
            f"{100 * row['p90_error']:.1f} %, largest {100 * row['largest_error']:.0f} %, "
            f"Spearman {row['spearman']:.3f}, {100 * row['inside_band']:.0f} % inside the band"
        )
    for row in report["search"]:
        name, size, precision = row["chosen"]
        print(
            f"{row['budget_ms']:5.1f} ms: {name} at {size} px in {precision}, {row['measured_ms']:.2f} ms, "
            f"{'fits' if row['fits'] else 'MISSES'}, expected {row['expected_top1']:.3f}; best of the 60 that fit: "
            f"{row['best_of_fixed']} {row['best_expected_top1']}"
        )
    print(f"fits in {sum(r['fits'] for r in report['search'])} of {len(report['search'])} budgets")


def main() -> None:
    """Measure, fit, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--folder", type=Path, help="keep the exported networks here")
    args = parser.parse_args()
    face = Face(1)
    anchors = [name for name, _ in ANCHORS]
    drawn = draw(DRAWN, SEED, anchors)
    fixed = draw(FIXED, SEED + 1, [*anchors, *(name for name, _ in drawn)])
    with tempfile.TemporaryDirectory(prefix="edgedistill-host-") as name:
        folder = args.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        bundles = export([*ANCHORS, *drawn, *fixed], folder)
        timed, machine = time_networks(bundles, Here(), 1, folder, face, in_detail=ANCHORS)
        device = fitted(bundles, timed)
        chosen = {budget: choose(budget, device) for budget in BUDGETS_MS}
        extra = [
            net
            for net in dict.fromkeys((m, s) for m, s, _ in chosen.values())
            if net not in bundles
        ]
        if extra:
            timed |= time_networks(export(extra, folder), Here(), 1, folder, face)[0]
    measured = {model: one.latency_s for model, one in timed.items()}
    report: dict[str, Any] = {
        "when": now_utc(),
        "machine": machine,
        "prediction": accuracy_of_prediction({m: t for m, t in measured.items() if m[:2] in drawn}, device),
        "search": search(measured, chosen, fixed),
    }  # fmt: skip
    tell(report)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
