"""Does the kit run on 64-bit Arm, and say there what it says here? Debian's arm64 Python under qemu-user.

In `--work` it makes an arm64 root (mmdebstrap, Python from Debian) with the aarch64 wheels of the onnxruntime, numpy
and Pillow that are installed here, and two bundles of a small student that is trained on the built-in images for a
minute: one with the INT8 file for Arm, one with that for x86. Then `info`, `check`, `predict`, `bench` and `eval` of
`ontarget.pyz` run on this machine and on each emulated processor, and the logits of every file for 256 test images are
compared. What is there already is taken. As root on Debian; qemu-user-static and mmdebstrap are installed where they
are missing:

    python -m benchmarks.aarch64 --work /tmp/aarch64 --json aarch64.json
    python -m benchmarks.aarch64 --work /tmp/aarch64 --bundle runs/flowers/bundle

This is emulation: it shows whether the kit is right on Arm, and nothing of its speed. The exit code is 1 where a check
fails or a class differs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ontarget.contract import load_bundle, load_evalset
from ontarget.machine import machine
from ontarget.score import logits_of
from ontarget.session import OrtSession

from benchmarks.aarch64_bundles import IMAGES, make_bundles, write_pictures
from benchmarks.aarch64_guest import PROCESSORS, Guest, install_tools, make_guest
from edgedistill.rundir import now_utc

FOREIGN = ("arm", "tensorrt")
"""INT8 files that the kit computes exactly on x86."""
BENCH = ["--quick", "--threads", "1", "--model", "int8"]
PIXELS = """
import hashlib, pathlib, sys
from ontarget.contract import load_bundle
from ontarget.preprocess import to_pixels
how = load_bundle(sys.argv[1]).preprocess
files = sorted(pathlib.Path(sys.argv[2]).iterdir())
print(hashlib.sha256(b"".join(to_pixels(file, how).tobytes() for file in files)).hexdigest())
"""
TENSORS = """
import sys
import numpy, onnxruntime
file, image, out, how = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.log_severity_level = 1, 3
if how == "exact":
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
numpy.savez(out, *session.run(None, {session.get_inputs()[0].name: numpy.load(image)}))
"""
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """One file on one processor against this machine; `seconds` are those of emulation."""

    processor: str
    bundle: str
    file: str
    reference: str
    same_class: int
    of: int
    difference: float
    same_bits: int
    seconds: float | None


def run(command: Sequence[str], path: Path | None, allowed: int = 0) -> tuple[str, float]:
    """What a command printed, and its seconds. Raises RuntimeError with its words when it ends otherwise."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    start = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, allowed):
        words = f"{done.stdout}{done.stderr}".strip()[-1000:]
        raise RuntimeError(f"{' '.join(command)} ended with exit code {done.returncode}\n{words}")
    return done.stdout, time.monotonic() - start


def asked(
    python: list[str], path: Path | None, bundle: Path, out: Path, words: Mapping[str, list[str]]
) -> dict[str, Any]:
    """What the kit says of a bundle by commands with their `words`: documents with seconds, and logits by file."""
    out.mkdir(parents=True, exist_ok=True)
    said: dict[str, Any] = {}
    for name, more in words.items():
        file, logits = out / f"{name}.json", out / "logits.npz"
        command = [
            *python,
            str(bundle / "ontarget.pyz"),
            name,
            *more,
            str(bundle),
            "--json",
            str(file),
        ]
        if name == "eval":
            command += ["--threads", "1", "--logits", str(logits)]
        file.unlink(missing_ok=True)
        _, seconds = run(command, path, allowed=1 if name == "check" else 0)
        said[name] = json.loads(file.read_text("utf-8")) | {"seconds": round(seconds, 1)}
    with np.load(logits, allow_pickle=False) as arrays:
        said["logits"] = {key.removeprefix("logits_"): arrays[key] for key in arrays}
    return said


def pictures_hash(python: list[str], path: Path, bundle: Path, pictures: Path) -> str:
    """SHA-256 of the pixels that the kit makes of all pictures."""
    kit = Path(f"{bundle / 'ontarget.pyz'}{os.pathsep}{path}")
    return run([*python, "-c", PIXELS, str(bundle), str(pictures)], kit)[0].strip()


def compared(
    processor: str,
    bundle: str,
    file: str,
    reference: str,
    want: Floats,
    got: Floats,
    seconds: float,
) -> Row:
    """Logits (N, C) of a file there against those here."""
    return Row(
        processor, bundle, file, reference, int((want.argmax(1) == got.argmax(1)).sum()), len(want),
        float(np.abs(got - want).max() / np.abs(want).max()), int((got == want).all(1).sum()), seconds,
    )  # fmt: skip


def fast_here(bundle: Path) -> Floats:
    """Logits of the INT8 file by the kernels of this machine, whichever processor it is for."""
    opened = load_bundle(bundle)
    pixels, _ = load_evalset(bundle.parent / "evalset")
    model = opened.model("int8")
    with OrtSession(model, "cpu", 1) as session:
        return logits_of(session, model, opened, pixels)


def first_difference(
    bundle: Path, guest: list[str], site: Path, out: Path, want: Floats, got: Floats
) -> dict[str, Any] | None:
    """Where the INT8 file begins to differ, for the image whose logits differ most: the first tensor of bytes that is
    not the same here and there, how many of its values are not, and by how many steps of 255. `None` where none is.

    Raises RuntimeError when the file with its tensors as outputs computes something else than the file that ships.
    """
    import onnx

    model = load_bundle(bundle).model("int8")
    proto = onnx.load(str(model.path))
    names = [node.output[0] for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    proto.graph.output.extend(
        onnx.helper.make_tensor_value_info(n, onnx.TensorProto.UINT8, None) for n in names
    )
    onnx.save(proto, str(out / "opened.onnx"))
    image = int(np.abs(got - want).max(1).argmax())
    pixels, _ = load_evalset(bundle.parent / "evalset")
    np.save(out / "image.npy", pixels[image : image + 1])
    sides = []
    exact = "exact" if model.flavour in FOREIGN else "fast"
    for python, path, how, logits in (
        ([sys.executable], None, exact, want),
        (guest, site, "fast", got),
    ):
        run(
            [
                *python,
                "-c",
                TENSORS,
                *(str(out / n) for n in ("opened.onnx", "image.npy", "tensors.npz")),
                how,
            ],
            path,
        )
        with np.load(out / "tensors.npz", allow_pickle=False) as arrays:
            sides.append(
                [arrays[f"arr_{place}"].astype(np.int64) for place in range(1, len(names) + 1)]
            )
            if not np.array_equal(arrays["arr_0"][0], logits[image]):
                raise RuntimeError(
                    f"{model.file} computes something else when its tensors are looked at"
                )
    for name, here, there in zip(names, *sides, strict=True):
        if (steps := np.abs(here - there)).any():
            return {
                "image": image, "tensor": name, "values": int((steps > 0).sum()), "of": steps.size,
                "steps": int(steps.max()),
            }  # fmt: skip
    return None


def compare(guest: Guest, bundles: Mapping[str, Path], pictures: Path) -> dict[str, Any]:
    """Every bundle here and on each processor: the first with all commands, of another the INT8 file alone."""
    said_in, first = guest.work / "said", next(iter(bundles))
    words = {
        name: {
            "info": [],
            "check": [],
            "predict": [str(pictures / "000.png")],
            "bench": BENCH,
            "eval": [],
        }
        if name == first
        else {"check": [], "eval": ["--model", "int8"]}
        for name in bundles
    }
    here = {
        name: asked([sys.executable], None, path, said_in / name / "here", words[name])
        for name, path in bundles.items()
    }
    hashed = pictures_hash([sys.executable], Path(), bundles[first], pictures)
    report: dict[str, Any] = {
        "rows": [],
        "checks": [],
        "processors": {},
        "int8_begins_to_differ": [],
    }
    for processor in PROCESSORS:
        python = guest.python(processor)
        for name, path in bundles.items():
            print(f"{path} on {processor.name}", flush=True)
            out = said_in / name / processor.name
            said = asked(python, guest.site, path, out, words[name])
            report["checks"].append(
                {"processor": processor.name, "bundle": name, **said["check"]["check"]}
            )
            if name == first:
                report["processors"][processor.name] = {
                    "machine": said["info"]["machine"],
                    "same_pixels": pictures_hash(python, guest.site, path, pictures) == hashed,
                    "same_prediction": classes(here[name]) == classes(said),
                    "bench_runs": said["bench"]["rows"][0]["n"],
                }
            seconds = said["eval"]["seconds"]
            for file, got in said["logits"].items():
                want = here[name]["logits"][file]
                row = compared(processor.name, name, file, "as written", want, got, seconds)
                report["rows"].append(asdict(row))
                if file == "int8" and row.same_bits < row.of:
                    found = first_difference(path, python, guest.site, out, want, got)
                    report["int8_begins_to_differ"].append(
                        {"processor": processor.name, "bundle": name, "begins": found}
                    )
                if file == "int8" and load_bundle(path).model("int8").flavour in FOREIGN:
                    row = compared(
                        processor.name, name, file, "fast kernels", fast_here(path), got, seconds
                    )
                    report["rows"].append(asdict(row))
    return report


def classes(said: Mapping[str, Any]) -> list[str]:
    """The five likeliest classes of the picture."""
    return [best["class"] for best in said["predict"]["predictions"]["top"]]


def good(report: Mapping[str, Any]) -> bool:
    """Whether checks pass, pictures are the same pixels, and each image has the same class in the same arithmetic."""
    return (
        all(check["ok"] for check in report["checks"])
        and all(p["same_pixels"] and p["same_prediction"] for p in report["processors"].values())
        and all(
            r["same_class"] == r["of"] for r in report["rows"] if r["reference"] == "as written"
        )
    )


def table(report: Mapping[str, Any]) -> str:
    """The rows as Markdown, and what else was found, a line each."""
    lines = [
        "| processor | file | here, on x86-64 | same class | largest difference | same to the bit |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        file = f"{row['file']} for {row['bundle']}" if row["file"] == "int8" else row["file"]
        lines.append(
            f"| {row['processor']} | {file} | {row['reference']} | {row['same_class']} of {row['of']} | "
            f"{row['difference']:.1e} | {row['same_bits']} of {row['of']} |"
        )
    lines.append("")
    for check in report["checks"]:
        words = "; ".join(
            f"{g['model']} {g['agree']} of {g['n']}, {g['error']:.1e}" for g in check["golden"]
        )
        passed = "passes" if check["ok"] else "FAILS"
        lines.append(
            f"- check of the bundle for {check['bundle']} on {check['processor']} {passed}: {words}"
        )
    for name, found in report["processors"].items():
        facts, pixels = (
            found["machine"],
            "the same pixels to the bit" if found["same_pixels"] else "OTHER pixels",
        )
        lines.append(
            f"- {name}, which the kit calls {facts['cpu']} ({facts['arch']}): {IMAGES} pictures become {pixels}; "
            f"predict says {'the same' if found['same_prediction'] else 'SOMETHING ELSE'}; bench made "
            f"{found['bench_runs']} runs"
        )
    for found in report["int8_begins_to_differ"]:
        where = found["begins"]
        lines.append(
            f"- int8 for {found['bundle']} on {found['processor']}, image {where['image']}: first differs in "
            f"{where['values']} of {where['of']} values by {where['steps']} of 255 steps, at {where['tensor']}"
            if where
            else f"- int8 for {found['bundle']} on {found['processor']}: every byte is the same, the logits are not"
        )
    return "\n".join(lines)


def main() -> int:
    """Set up, compare, print; exit code 0 when all is the same."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--work", type=Path, required=True, help="where the arm64 root and all else is kept"
    )
    parser.add_argument(
        "--bundle", type=Path, help="compare this bundle, with its evalset/ beside it"
    )
    parser.add_argument(
        "--student", default="mobilenetv3_small_050", help="of the bundles that are made"
    )
    parser.add_argument("--suite", default="bookworm", help="Debian's release [bookworm]")
    parser.add_argument("--json", type=Path, help="write all figures here")
    given = parser.parse_args()
    work = given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    install_tools()
    guest = make_guest(work, given.suite)
    if given.bundle is None:
        bundles = make_bundles(work, given.student)
    else:
        bundles = {load_bundle(given.bundle).device: given.bundle.resolve()}
    report: dict[str, Any] = {
        "when": now_utc(),
        "machine": machine(),
        "qemu": run(["qemu-aarch64-static", "--version"], None)[0].splitlines()[0],
        **compare(guest, bundles, write_pictures(work / "pictures")),
    }
    print(table(report))
    if given.json:
        given.json.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    print("\nOK" if good(report) else "\nFAIL")
    return 0 if good(report) else 1


if __name__ == "__main__":
    raise SystemExit(main())
