"""How often two files in turns are told apart, and how often one file is told apart from itself.

    python -m benchmarks.duels --work DIR --count 100

Three cases, one after the other, `count` times: a file against itself; against one made 10 % slower; against one made
3 % slower. Each is what `edgedistill check` runs, on whatever else this machine is busy with. The files are a student
with random weights; the slower ones have one more convolution, whose width is fitted, and how much slower they are is
measured at length first. What is done stays in DIR/duels.jsonl, and the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from ontarget.contract import load_bundle
from ontarget.duel import DUELS, Duel, Side
from ontarget.duel import compare as timed_in_turns
from ontarget.percentiles import centre

from edgedistill.deploy.bare import bare_bundle
from edgedistill.deploy.untrained import untrained_bundle
from edgedistill.evidence.bench import Here, compare
from edgedistill.progress import silent
from edgedistill.target.device import load_device

STUDENT, SIZE, CLASSES = "mobilenetv3_small_100", 96, 10
CASES = {"same": 0.0, "slower by 10 %": 0.10, "slower by 3 %": 0.03}
LIMITS = (0.0, 0.02, 0.05)
LONG, FIT = Duel(pairs=60, sessions=6), Duel(pairs=30)


def main(argv: Sequence[str] | None = None) -> None:
    """Make the files, run the comparisons that are not done, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--case", choices=list(CASES), action="append")
    parser.add_argument("--tier", choices=list(DUELS), default="default")
    given = parser.parse_args(argv)
    given.work.mkdir(parents=True, exist_ok=True)
    cases = given.case or list(CASES)
    bundles = {case: _bundle(given.work, case) for case in dict.fromkeys(["same", *cases])}
    kept = given.work / "duels.jsonl"
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    for index in range(given.count):
        for case in cases:
            if sum(row["case"] == case for row in rows) > index:
                continue
            begun = time.time()
            found = compare(bundles["same"], bundles[case], Here(), silent(), tier=given.tier)
            row = {"case": case, "ratio": found.ratio, "low": found.low, "high": found.high}
            row |= {"seconds": round(time.time() - begun, 1), "warnings": found.warnings}
            rows.append(row)
            with kept.open("a") as file:
                file.write(json.dumps(row) + "\n")
    print(table(rows, {case: _truth(given.work, case) for case in CASES if CASES[case]}))


def _bundle(work: Path, case: str) -> Path:
    """The bundle of a case, made once."""
    share = CASES[case]
    place = work / f"{round(100 * share)}"
    if not (place / "bundle").exists():
        if not (work / "student").exists():
            untrained_bundle(work / "student", STUDENT, SIZE, CLASSES, load_device("host"))
        base = onnx.load(str(work / "student" / "bundle" / "model.float32.onnx"))
        _write(slower(base, _fitted(base, share, work) if share else 0), place)
    return place / "bundle"


def _truth(work: Path, case: str) -> dict[str, float] | None:
    """How much slower a case is, measured at length, once; `None` where it was not made."""
    kept = work / f"truth-{round(100 * CASES[case])}.json"
    if not (kept.parent / f"{round(100 * CASES[case])}").exists():
        return None
    if not kept.exists():
        ratio, low, high = _measured(work / "0", work / f"{round(100 * CASES[case])}", LONG)
        kept.write_text(json.dumps({"ratio": ratio, "low": low, "high": high}))
    found: dict[str, float] = json.loads(kept.read_text())
    return found


def _write(model: onnx.ModelProto, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(folder / "model.onnx"))
    bare_bundle(folder / "model.onnx", folder)


def slower(base: onnx.ModelProto, width: int) -> onnx.ModelProto:
    """The same function with one more convolution, to `width` channels, of which nothing reaches the output."""
    model = onnx.ModelProto()
    model.CopyFrom(base)
    graph = model.graph
    if not width:
        return model
    last = [node for node in graph.node if node.op_type == "Conv"][-1]
    kernel = next(t for t in graph.initializer if t.name == last.input[1])
    rng, out = np.random.default_rng(0), graph.output[0].name
    for node in graph.node:
        for place, name in enumerate(node.output):
            if name == out:
                node.output[place] = "before"
    weights = {
        "more_kernel": rng.normal(0, 0.1, (width, kernel.dims[1], 3, 3)),
        "more_zero": np.zeros((width, CLASSES)),
    }
    for name, values in weights.items():
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    graph.node.extend(
        [
            helper.make_node("Conv", [last.input[0], "more_kernel"], ["more"], pads=[1] * 4),
            helper.make_node("GlobalAveragePool", ["more"], ["more_mean"]),
            helper.make_node("Flatten", ["more_mean"], ["more_flat"]),
            helper.make_node("MatMul", ["more_flat", "more_zero"], ["more_none"]),
            helper.make_node("Add", ["before", "more_none"], [out]),
        ]
    )
    return model


def _fitted(base: onnx.ModelProto, share: float, work: Path) -> int:
    """The width that makes the file slower by `share`, from two widths in a straight line."""
    _write(base, work / "base")
    known = []
    for width in (32, 320):
        _write(slower(base, width), work / f"width-{width}")
        known.append(_measured(work / "base", work / f"width-{width}", FIT)[0] - 1)
    slope = (known[1] - known[0]) / (320 - 32)
    return max(1, round(32 + (share - known[0]) / slope))


def _measured(old: Path, new: Path, plan: Duel) -> tuple[float, float, float]:
    sides = []
    for folder in (old, new):
        bundle = load_bundle(folder / "bundle")
        sides.append(Side(bundle, bundle.model()))
    found = timed_in_turns(sides[0], sides[1], plan=plan)
    logs = [math.log(ratio) for ratio in found["ratios"]]
    middle, low, high = centre(logs, 0.95)
    return math.exp(middle), math.exp(low), math.exp(high)


def table(rows: Sequence[dict[str, Any]], truth: dict[str, Any]) -> str:
    """Outcomes by case and limit, as Markdown."""
    lines = [
        "| new file | truly slower by (95 %) | comparisons | seconds each | limit | pass | regress | inconclusive |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|")
    for case in CASES:
        own = [row for row in rows if row["case"] == case]
        if not own:
            continue
        about = truth.get(case)
        words = "0 %"
        if about:
            low, high = (100 * (about[key] - 1) for key in ("low", "high"))
            words = f"{100 * (about['ratio'] - 1):.1f} % ({low:.1f} to {high:.1f})"
        seconds = float(np.median([row["seconds"] for row in own]))
        for limit in LIMITS:
            counts = {"pass": 0, "regress": 0, "inconclusive": 0}
            for row in own:
                key = "regress" if row["low"] > 1 + limit else "inconclusive"
                counts["pass" if row["high"] <= 1 + limit else key] += 1
            figures = " | ".join(str(count) for count in counts.values())
            lines.append(
                f"| {case} | {words} | {len(own)} | {seconds:.0f} | {limit:.0%} | {figures} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
