"""Do all students of the table ship? Each is exported at two sizes and held to torch, onnxruntime and TensorRT-RTX.

Untrained, with the BatchNorm statistics of 64 built-in images. For each: the ONNX checker (float32 for opset 17 with
pixels in the graph, and for opset 13 without), onnxruntime against torch on 32 other images, and a strongly typed parse
and build by TensorRT-RTX of float16 and of INT8. A student is asked about in a process of its own; what is in --out is
not asked again. One thread, about an hour:

    python -m benchmarks.coverage --out coverage.json [--sizes 96 160] [--only NAME ...]
    python -m benchmarks.coverage --out coverage.json --table     the table of docs/export.md
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from edgedistill.files import write_atomic
from edgedistill.target.students import load_students

SIZES = (96, 160)
CLASSES, STATISTICS, COMPARED = 10, 64, 32
TOLERANCE = 1e-5
"""Largest difference of a logit from torch's, relative to the largest logit."""
TWICE = 2.0
PATIENCE_S = 900


def images(size: int) -> Any:
    """Built-in images (N, size, size, 3): first those for the statistics, then those to compare on."""
    from edgedistill.data.sources import SAMPLE_FILE
    from edgedistill.synthesis import resized

    with np.load(SAMPLE_FILE, allow_pickle=False) as sample:
        grey = sample["train_images"][: STATISTICS + COMPARED]
    return resized(np.repeat(grey[..., None], 3, axis=3), size)


def asked(name: str, size: int) -> dict[str, Any]:
    """Everything that is found out about a student at a size."""
    import timm
    import torch

    from edgedistill.deploy.onnx import export_float32, to_float16
    from edgedistill.deploy.stage import Shape, model_inputs, packed, preprocess_of
    from edgedistill.deploy.tensorrt import ask_builder
    from edgedistill.deploy.untrained import MEAN, STD
    from edgedistill.nets import Look, bn_layers

    torch.set_num_threads(1)
    torch.manual_seed(0)
    pixels, look = images(size), Look(size, MEAN, STD)
    net: Any = timm.create_model(name, num_classes=CLASSES, exportable=True).train()
    for layer in bn_layers(net):
        layer.momentum = None
    with torch.no_grad():
        for start in range(0, STATISTICS, 16):
            net(look.tensor(pixels[start : start + 16], torch.device("cpu")))
    net.eval()
    test = np.ascontiguousarray(pixels[STATISTICS:])
    with torch.inference_mode():
        fed = look.tensor(test, torch.device("cpu"))
        want = net(fed).numpy()
        exact = copy.deepcopy(net).double()(fed.double()).numpy()
    most = np.abs(want).max()
    found: dict[str, Any] = {"name": name, "size": size}
    found["torch_rounds"] = float(np.abs(want - exact).max() / most)
    shape = Shape(
        "uint8_nhwc", tuple(map(str, range(CLASSES))), preprocess_of(size, MEAN, STD), 17, "ort"
    )
    old = Shape("float_nchw", shape.classes, shape.preprocess, 13, "ort")
    files = {}
    for about in (shape, old):
        data = export_float32(net, look, about.layout, about.opset, {})
        got = run(data, model_inputs(packed("float32", data, about), test, about))
        found[f"opset{about.opset}"] = float(np.abs(got - want).max() / most)
        found[f"opset{about.opset}_rounds"] = float(np.abs(got - exact).max() / most)
        files[about.opset] = data
    found["nodes"] = nodes(files[17])
    half = to_float16(files[17], {})
    int8, integers = quantized_for("tensorrt", files[17], pixels[:STATISTICS], shape)
    cpu, _ = quantized_for("x86", files[17], pixels[:STATISTICS], shape)
    found["integers"] = integers
    found["int8_agrees"] = float((run(cpu, test).argmax(1) == want.argmax(1)).mean())
    for kind, answer in ask_builder({"float16": half, "int8": int8}, "8.7").items():
        found[kind] = answer.document()
    return found


def quantized_for(flavour: str, float32: bytes, pixels: Any, shape: Any) -> tuple[bytes, bool]:
    """The INT8 file of a flavour, ranges by minmax, and whether it takes pixels as integers."""
    import onnx

    from edgedistill.deploy.integers import integer_input, takes_integers
    from edgedistill.deploy.quantize import prepared, quantized
    from edgedistill.deploy.ranges import observe, ranges

    model, signed = onnx.load_model_from_string(float32), flavour == "tensorrt"
    integers = takes_integers(model)
    if integers:
        model = integer_input(model, shape.preprocess, signed)
        pixels = (pixels ^ 128).view(np.int8) if signed else pixels
    ready = prepared(model.SerializeToString())
    limits = ranges(observe(ready, np.ascontiguousarray(pixels)), "minmax")
    return quantized(ready, limits, flavour, {}), integers


def run(data: bytes, inputs: Any) -> Any:
    """Logits (N, C) of a file by onnxruntime on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: inputs})[0]


def nodes(data: bytes) -> int:
    """Nodes of a graph."""
    import onnx

    return len(onnx.load_model_from_string(data).graph.node)


def holds(row: dict[str, Any], opset: str) -> bool:
    """Whether a file is as near to torch as asked, or about as near to double precision as torch itself."""
    return bool(row[opset] <= TOLERANCE or row[f"{opset}_rounds"] <= TWICE * row["torch_rounds"])


def faults(row: dict[str, Any]) -> list[str]:
    """What does not hold of a row."""
    if "error" in row:
        return [row["error"]]
    found = [
        f"{key}: differs from torch by {row[key]:.1e}, from double precision by {row[f'{key}_rounds']:.1e} "
        f"(torch itself by {row['torch_rounds']:.1e})"
        for key in ("opset17", "opset13")
        if not holds(row, key)
    ]
    return found + [
        f"{k}: {'; '.join(row[k]['reasons'])}" for k in ("float16", "int8") if row[k]["reasons"]
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """The coverage by family, and each fault."""
    families = {student.name: student.family for student in load_students()}
    lines = [
        "| family | students | float32, opset 17 | opset 13 | float16 by TensorRT-RTX | INT8 by TensorRT-RTX |",
        "|---|---|---|---|---|---|",
    ]
    by_family: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_family.setdefault(families[row["name"]], []).append(row)
    every = {"all": rows}
    for family, these in {**by_family, **every}.items():
        whole = [r for r in these if "error" not in r]
        exact = [sum(holds(r, key) for r in whole) for key in ("opset17", "opset13")]
        taken = [sum(not r[key]["reasons"] for r in whole) for key in ("float16", "int8")]
        cells = " | ".join(f"{n} of {len(these)}" for n in (*exact, *taken))
        lines.append(f"| {family} | {len({r['name'] for r in these})} | {cells} |")
    lines += ["", *(f"- {r['name']} at {r['size']}: {f}" for r in rows for f in faults(r))]
    return "\n".join(lines)


def main() -> None:
    """Ask about what is not known yet, or print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs=2, default=SIZES)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--ask", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ask:
        print(json.dumps(asked(given.ask[0], int(given.ask[1]))))
        return
    rows = json.loads(given.out.read_text()) if given.out.exists() else []
    known = {(row["name"], row["size"]) for row in rows}
    names = [s.name for s in load_students() if not given.only or s.name in given.only]
    todo = [(n, s) for s in given.sizes for n in names if (n, s) not in known]
    for place, (name, size) in enumerate([] if given.table else todo):
        began = time.monotonic()
        command = [sys.executable, "-m", "benchmarks.coverage", "--out", str(given.out)]
        row: dict[str, Any] = {"name": name, "size": size}
        try:
            ran = subprocess.run(
                [*command, "--ask", name, str(size)],
                capture_output=True, text=True, check=False, timeout=PATIENCE_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            row["error"] = f"no answer within {PATIENCE_S} s"
        else:
            if ran.returncode == 0:
                row = json.loads(ran.stdout.strip().splitlines()[-1])
            else:
                row["error"] = " ".join(ran.stderr.split())[-300:]
        rows.append(row)
        write_atomic(given.out, json.dumps(rows, indent=1) + "\n")
        seconds = time.monotonic() - began
        print(
            f"{place + 1} of {len(todo)}: {name} at {size}: {faults(row) or 'well'}, {seconds:.0f} s",
            flush=True,
        )
    print(table(rows))


if __name__ == "__main__":
    main()
