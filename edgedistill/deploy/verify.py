"""Whether a bundle is whole and says the truth: its files, its kit, each model, and the golden outputs.

Everything in it may be hostile: files are read, none but the kit of this version is run, and models run in a process of
their own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto
from ontarget.contract import Bundle, Model, TensorSpec, verify_hashes
from ontarget.modelfile import fault_of
from ontarget.views import clean

from edgedistill import __version__
from edgedistill.deploy.archive import read_bundle, strangers
from edgedistill.deploy.bundle import KIT, SHIPPED_BESIDE, beside_bytes, kit_bytes
from edgedistill.deploy.onnx import CONTENT, content_hash, opset_of

PATIENCE_S = 600.0
ELEMENTS = {
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
}
MOST_NAMED = 10


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, and what was found, in words."""

    ok: bool
    words: str


def checks(folder: Path) -> Iterator[Check]:
    """Every check of the bundle in a folder, one after the other. Raises `DocumentError` for what is no bundle."""
    bundle = read_bundle(folder)
    yield Check(
        True,
        f"manifest: {clean(bundle.name)} for {clean(bundle.device)}, {len(bundle.classes):,} classes",
    )
    problems = [clean(problem, 300) for problem in verify_hashes(bundle)]
    yield from _one("files: each is the one that was packed", problems)
    yield from _one("folder: nothing that does not belong to it", _foreign(folder))
    yield _kit(folder, bundle)
    sound = not problems
    for model in bundle.models:
        found = list(_model(model, bundle))
        sound = sound and not found
        file = clean(model.file)
        yield from _one(f"{file}: sound, as the manifest says", [f"{file}: {f}" for f in found])
    if sound:
        yield from _golden(folder)
    else:
        yield Check(False, "golden outputs: not computed, as the files above are not right")


def _one(good: str, problems: list[str]) -> list[Check]:
    """A line for what holds, or one for each problem."""
    return [Check(False, problem) for problem in problems] or [Check(True, good)]


def _foreign(folder: Path) -> list[str]:
    found = [
        f"{clean(name, 100)} {'is a link' if (folder / name).is_symlink() else 'does not belong to the bundle'}"
        for name in strangers(folder)
    ]
    more = len(found) - MOST_NAMED
    return found if more <= 0 else [*found[:MOST_NAMED], f"and {more:,} more files"]


def _kit(folder: Path, bundle: Bundle) -> Check:
    """Whether what runs on the board is what this version ships, or of which version it is."""
    own = {KIT: kit_bytes(), **{name: beside_bytes(name) for name in SHIPPED_BESIDE}}
    missing = [name for name in own if not (folder / name).is_file()]
    if missing:
        return Check(False, f"kit: {', '.join(missing)} is missing")
    other = [name for name, data in own.items() if not _same(folder / name, data)]
    if not other:
        return Check(True, f"kit: that of edgedistill {__version__}")
    if bundle.edgedistill != __version__:
        return Check(
            True,
            f"kit: of edgedistill {clean(bundle.edgedistill)}, not compared: this is {__version__}",
        )
    return Check(
        False,
        f"kit: not that of edgedistill {__version__}, which the manifest names: {', '.join(other)}",
    )


def _same(path: Path, data: bytes) -> bool:
    return path.stat().st_size == len(data) and path.read_bytes() == data


def _model(model: Model, bundle: Bundle) -> Iterator[str]:
    """What is wrong with one ONNX file."""
    try:
        fault = fault_of(model.path)
        if fault is not None:
            yield fault
            return
        proto = onnx.load(str(model.path), load_external_data=False)
        onnx.checker.check_model(proto, full_check=True)
        opset = opset_of(proto)
    except Exception as error:  # protocol buffers and the checker raise many kinds
        yield f"ONNX's checker refuses it ({clean(' '.join(str(error).split()), 160)})"
        return
    if opset != model.opset:
        yield f"its opset is {opset}, the manifest says {model.opset}"
    stored = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in stored]
    for what, values, spec in (
        ("input", inputs, model.input),
        ("output", proto.graph.output, model.output),
    ):
        if [_spec(value) for value in values] != [_asked(spec)]:
            got = ", ".join(str(_spec(value)) for value in values)
            yield f"its {what} is {clean(got, 200)}, the manifest says {_asked(spec)}"
    yield from _says(proto, model, bundle)


def _spec(value: onnx.ValueInfoProto) -> tuple[str, str, tuple[int | None, ...]]:
    """Name, element type and shape of a graph's input or output."""
    tensor = value.type.tensor_type
    kind = next((k for k, v in ELEMENTS.items() if v == tensor.elem_type), str(tensor.elem_type))
    dims = tuple(int(d.dim_value) if d.HasField("dim_value") else None for d in tensor.shape.dim)
    return value.name, kind, dims


def _asked(spec: TensorSpec) -> tuple[str, str, tuple[int | None, ...]]:
    return spec.name, spec.dtype, tuple(spec.shape)


def _says(proto: onnx.ModelProto, model: Model, bundle: Bundle) -> Iterator[str]:
    """Where a file says something else of itself than the manifest."""
    own = {entry.key: entry.value for entry in proto.metadata_props}
    wanted = {
        "edgedistill.classes": list(bundle.classes),
        "edgedistill.preprocess": json.loads(json.dumps(vars(bundle.preprocess))),
        "edgedistill.input": model.input.layout,
    }
    for key, want in wanted.items():
        try:
            got = own.get(key) if isinstance(want, str) else json.loads(own.get(key, "null"))
        except (ValueError, RecursionError):
            got = None
        if got != want:
            yield f"its metadata {key} is not what the manifest says"
    if own.get(CONTENT) != content_hash(proto):
        yield f"its metadata {CONTENT} is not the hash of its graph and weights"


def _golden(folder: Path) -> list[Check]:
    """The golden images through every model by this version's kit, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="edgedistill-kit-") as name:
        kit, answer = Path(name) / KIT, Path(name) / "check.json"
        kit.write_bytes(kit_bytes())
        command = [
            sys.executable,
            "-I",
            str(kit),
            "check",
            str(folder.resolve()),
            "--json",
            str(answer),
        ]
        try:
            ran = subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=False,
                timeout=PATIENCE_S,
                errors="replace",
            )
        except subprocess.TimeoutExpired:
            return [Check(False, f"golden outputs: no answer of the kit in {PATIENCE_S:.0f} s")]
        if not answer.is_file():
            said = (ran.stderr.strip() or ran.stdout.strip() or "nothing").splitlines()[-1]
            return [
                Check(
                    False,
                    f"golden outputs: the kit ended with {ran.returncode}: {clean(said, 300)}",
                )
            ]
        rows = json.loads(answer.read_text("utf-8"))["check"]["golden"]
    return [
        Check(
            row["ok"],
            f"golden outputs, {row['model']}: same class for {row['agree']} of {row['n']}; {row['text']}",
        )
        for row in rows
    ]
