"""How well `devices measure` predicts this machine, and what a search by prediction costs.

Needs `edgedistill devices measure` before. 24 students of mixed kinds at mixed sizes are drawn by a fixed seed, none of
them an anchor, and timed through the kit, float32 and INT8, in rounds over all of them. Then the search: for 8 latency
budgets the student chosen from predictions is timed, and its expected accuracy held against the best of a fixed set of
60 candidates that really fit. About 20 minutes:

    python -m benchmarks.host_latency --json host_latency.json
"""

from __future__ import annotations

import argparse
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
from edgedistill.measuring import ANCHORS, CLASSES
from edgedistill.progress import Face
from edgedistill.result import Limits, Precision
from edgedistill.rundir import now_utc
from edgedistill.target.device import load_device
from edgedistill.target.latency import Prediction, predict
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
ROUNDS = 3
PRECISIONS: tuple[Precision, ...] = ("float32", "int8")


def draw(count: int, seed: int, without: Sequence[str]) -> list[Net]:
    """Different students at sizes drawn by a seed."""
    rng = random.Random(seed)
    names = [s.name for s in load_students() if s.name not in without]
    return [(name, rng.choice(SIZES)) for name in rng.sample(names, count)]


def measure(nets: Sequence[Net], folder: Path, face: Face) -> dict[Model, float]:
    """Median latency in seconds of each network and precision, one thread, in rounds over all of them."""
    device = load_device("host")
    bundles = {}
    for place, (name, size) in enumerate(nets):
        print(f"export {place + 1} of {len(nets)}: {name} at {size} px", file=sys.stderr)
        path = folder / f"{name}-{size}"
        if not path.exists():
            untrained_bundle(path, name, size, CLASSES, device)
        bundles[name, size] = path / "bundle"
    samples: dict[Model, list[float]] = {}
    for turn in range(ROUNDS):
        print(f"round {turn + 1} of {ROUNDS}", file=sys.stderr)
        for (name, size), bundle in bundles.items():
            arguments = ["bench", "--threads", "1", "--min-runs", "11", "--min-seconds", "0.3"]
            document = Here().run(bundle, arguments, folder / "kit.json", face)
            for row in document["rows"]:
                samples.setdefault((name, size, row["model"]), []).extend(row["samples_s"])
    return {model: float(np.median(found)) for model, found in samples.items()}


def predicted(model: Model) -> Prediction:
    """What planning says."""
    name, size, precision = model
    found = predict(load_device("host"), precision, find_student(name).network(size, CLASSES))
    if not isinstance(found, Prediction) or not found.words.startswith("tier B"):
        raise SystemExit("this machine was not measured: edgedistill devices measure")
    return found


def spearman(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Rank correlation of values without ties."""
    return float(np.corrcoef(np.argsort(np.argsort(a)), np.argsort(np.argsort(b)))[0, 1])


def accuracy_of_prediction(measured: dict[Model, float]) -> dict[str, Any]:
    """Errors by precision, and whether the truth lies in the band."""
    out: dict[str, Any] = {}
    for precision in PRECISIONS:
        models = [m for m in measured if m[2] == precision]
        truth = np.array([measured[m] for m in models])
        guesses = [predicted(m) for m in models]
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


def choose(budget_ms: float) -> Model:
    """What planning takes for a latency budget, of all students, with the head and images of the measurement."""
    device = load_device("host")
    found = plan(
        device, Limits(latency_s=budget_ms / 1e3), classes=CLASSES, image_side=256,
        weights="pretrained", at_hand=lambda _: True,
    ).chosen  # fmt: skip
    return found.model, found.input_size, found.precision


def expected(model: Model) -> float:
    """The prior that planning ranks by."""
    name, size, precision = model
    return expected_top1(find_student(name), size, precision, pretrained=True)


def main() -> None:
    """Measure, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--times", type=Path, help="write all times here, or read them from here")
    parser.add_argument("--folder", type=Path, help="keep the exported networks here")
    args = parser.parse_args()
    face = Face(0)
    anchors = [name for name, _ in ANCHORS]
    drawn = draw(DRAWN, SEED, anchors)
    fixed = draw(FIXED, SEED + 1, [*anchors, *(name for name, _ in drawn)])
    with tempfile.TemporaryDirectory(prefix="edgedistill-host-") as name:
        folder = args.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        chosen = {budget: choose(budget) for budget in BUDGETS_MS}
        extra = [
            (m, s) for m, s, _ in chosen.values() if (m, s) not in drawn and (m, s) not in fixed
        ]
        if args.times and args.times.exists():
            rows = json.loads(args.times.read_text("utf-8"))
            measured = {(m, s, p): t for m, s, p, t in rows}
        else:
            measured = measure([*drawn, *fixed, *dict.fromkeys(extra)], folder, face)
            if args.times:
                args.times.write_text(json.dumps([[*m, t] for m, t in measured.items()]), "utf-8")
    report: dict[str, Any] = {
        "when": now_utc(),
        "prediction": accuracy_of_prediction({m: t for m, t in measured.items() if m[:2] in drawn}),
        "search": [],
    }
    for precision, row in report["prediction"].items():
        print(
            f"{precision}: {row['networks']} networks, median error {100 * row['median_error']:.1f} %, p90 "
            f"{100 * row['p90_error']:.1f} %, largest {100 * row['largest_error']:.0f} %, "
            f"Spearman {row['spearman']:.3f}, {100 * row['inside_band']:.0f} % inside the band"
        )
    for budget, model in chosen.items():
        fits = [m for m, t in measured.items() if m[:2] in fixed and 1e3 * t <= budget]
        best = max(fits, key=expected, default=None)
        row = {
            "budget_ms": budget,
            "chosen": model,
            "measured_ms": round(1e3 * measured[model], 3),
            "fits": 1e3 * measured[model] <= budget,
            "expected_top1": round(expected(model), 4),
            "best_of_fixed": best,
            "best_expected_top1": None if best is None else round(expected(best), 4),
        }
        report["search"].append(row)
        print(
            f"{budget:5.1f} ms: {model[0]} at {model[1]} px in {model[2]}, {row['measured_ms']:.2f} ms, "
            f"{'fits' if row['fits'] else 'MISSES'}, expected {row['expected_top1']:.3f}; best of the 60 that fit: "
            f"{best} {row['best_expected_top1']}"
        )
    print(f"fits in {sum(r['fits'] for r in report['search'])} of {len(BUDGETS_MS)} budgets")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
