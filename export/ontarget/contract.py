"""The bundle's contract: what `manifest.json` says, as frozen facts, read from a file that may be
hostile.
"""

from __future__ import annotations

from pathlib import Path

from ontarget.arrays import (
    EVALSET_SCHEMA,
    MAX_GOLDEN_BYTES,
    MAX_LABEL_BYTES,
    load_evalset,
    load_golden,
    load_images,
    read_labels,
    write_labels,
)
from ontarget.facts import BYTES, Bundle, Golden, Model, Preprocess, TensorSpec
from ontarget.fields import ContractError, Fields, inside, read_json, sha256_of, shown
from ontarget.modelfile import MOST_BYTES, fault_of

BUNDLE_SCHEMA = "edgedistill.bundle/1"
KIT_SCHEMA = "edgedistill.kit/1"
MANIFEST = "manifest.json"

__all__ = [
    "BUNDLE_SCHEMA",
    "EVALSET_SCHEMA",
    "KIT_SCHEMA",
    "MANIFEST",
    "Bundle",
    "ContractError",
    "Golden",
    "Model",
    "Preprocess",
    "TensorSpec",
    "load_bundle",
    "load_evalset",
    "load_golden",
    "load_images",
    "read_labels",
    "require_packed",
    "verify_hashes",
    "write_labels",
]


def load_bundle(folder: str | Path) -> Bundle:
    """Read `folder/manifest.json`.

    Raises ContractError, and nothing else, with the field that is wrong: another schema version, a
    wrong type, a value out of range, a duplicate model name, a file that is missing or lies outside
    the folder.
    """
    root = Path(folder)
    path = root / MANIFEST
    try:
        found = path.is_file()
    except (OSError, ValueError):
        found = False
    if not found:
        raise ContractError(
            f"{shown(str(root), 300)} is not a bundle: it has no {MANIFEST}. Give the bundle "
            "folder as the last argument, for example: python3 ontarget.pyz info path/to/bundle"
        )
    inside(root, MANIFEST, str(root))
    top = Fields(read_json(path), str(path))
    schema = top.raw("schema")
    if schema != BUNDLE_SCHEMA:
        raise ContractError(
            f"{path}: the schema is {shown(schema)}, this kit reads {BUNDLE_SCHEMA}. "
            "Use the ontarget.pyz that came with the bundle."
        )
    classes = _classes(top)
    preprocess = _preprocess(top.child("preprocess"))
    models = _models(top, root, preprocess, len(classes))
    chosen = top.name("chosen")
    if chosen not in [m.name for m in models]:
        raise top.fail("chosen", "the name of one of the models")
    golden = top.child("golden")
    labels = top.child("labels")
    digest = sha256_of(path)
    if digest is None:
        raise ContractError(f"{path} cannot be read.")
    return Bundle(
        folder=root,
        name=top.text("name", 200),
        device=top.text("device", 200),
        created_utc=top.text("created_utc", 64),
        edgedistill=top.text("edgedistill", 64),
        classes=classes,
        preprocess=preprocess,
        chosen=chosen,
        models=models,
        golden=Golden(
            file=golden.text("file"),
            path=inside(root, golden.text("file"), str(path)),
            sha256=golden.sha256("sha256"),
            n=golden.integer("n", 1, 10_000),
        ),
        labels_path=inside(root, labels.text("file"), str(path)),
        labels_sha256=labels.sha256("sha256"),
        licences=_licences(top),
        manifest_sha256=digest,
    )


def _classes(top: Fields) -> tuple[str, ...]:
    values = top.items("classes", 1, 100_000)
    for value in values:
        if not isinstance(value, str) or not 0 < len(value) <= 1000:
            raise ContractError(
                f'{top.where}: "classes" must be text of 1 to 1000 characters, got {shown(value)}.'
            )
        if any("\ud800" <= c <= "\udfff" for c in value):
            raise ContractError(
                f'{top.where}: "classes" holds {shown(value)}, which is not valid text.'
            )
    return tuple(values)


def _preprocess(fields: Fields) -> Preprocess:
    crop = fields.integer("crop", 1, 8192)
    resize = fields.integer("resize", crop, 8192)
    std = fields.triple("std")
    if min(std) <= 1e-6:
        raise fields.fail("std", "three numbers above 0")
    return Preprocess(
        resize=resize,
        crop=crop,
        mean=fields.triple("mean"),
        std=std,
        resample=fields.choice("resample", "bicubic"),
        color=fields.choice("color", "RGB"),
    )


def _models(top: Fields, root: Path, preprocess: Preprocess, classes: int) -> tuple[Model, ...]:
    models: list[Model] = []
    for index, value in enumerate(top.items("models", 1, 64)):
        fields = Fields(value, top.where, f"models[{index}]")
        name = fields.name("name")
        if name in [m.name for m in models]:
            raise ContractError(
                f'{top.where}: two models have the name "{name}"; names must differ.'
            )
        file = fields.text("file")
        models.append(
            Model(
                name=name,
                file=file,
                path=inside(root, file, top.where),
                sha256=fields.sha256("sha256"),
                size_bytes=fields.integer("size_bytes", 0, MOST_BYTES),
                precision=fields.choice("precision", "float32", "float16", "int8"),
                runtime=fields.choice("runtime", "onnxruntime", "tensorrt"),
                opset=fields.integer("opset", 1, 1000),
                input=_input(fields.child("input"), preprocess.crop),
                output=_output(fields.child("output"), classes),
                flavour=_flavour(fields),
            )
        )
    return tuple(models)


def _flavour(fields: Fields) -> str | None:
    if fields.raw("flavour") is None:
        return None
    return fields.choice("flavour", "x86", "arm", "tensorrt")


def _shape(fields: Fields, rank: int) -> tuple[int | None, ...]:
    values = fields.items("shape", rank, rank)
    for value in values:
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1_000_000:
            raise fields.fail("shape", "a list of null or integers from 1 to 1000000")
    return tuple(values)


def _input(fields: Fields, crop: int) -> TensorSpec:
    layout = fields.choice("layout", *BYTES, "float_nchw")
    if layout in BYTES:
        dtype = fields.choice("dtype", BYTES[layout])
        need: tuple[int, ...] = (crop, crop, 3)
    else:
        dtype = fields.choice("dtype", "float32", "float16")
        need = (3, crop, crop)
    shape = _shape(fields, 4)
    if shape[1:] != need:
        raise fields.fail("shape", f"[batch or null, {need[0]}, {need[1]}, {need[2]}] for {layout}")
    return TensorSpec(name=fields.text("name", 200), dtype=dtype, shape=shape, layout=layout)


def _output(fields: Fields, classes: int) -> TensorSpec:
    shape = _shape(fields, 2)
    if shape[1] != classes:
        raise fields.fail("shape", f"[batch or null, {classes}], as there are {classes} classes")
    dtype = fields.choice("dtype", "float32", "float16")
    return TensorSpec(name=fields.text("name", 200), dtype=dtype, shape=shape)


def _licences(top: Fields) -> dict[str, str | None]:
    fields = top.child("licences")
    return {
        key: None if fields.raw(key) is None else fields.text(key, 20_000, empty=True)
        for key in ("teacher", "student", "data")
    }


def require_packed(model: Model) -> str:
    """The sha256 of a model's file, before a runtime opens it.

    Raises ContractError when it is not the one of the manifest, or not one whole ONNX file.
    """
    digest = sha256_of(model.path, model.size_bytes)
    if digest is None or digest != model.sha256:
        raise ContractError(
            f"{model.file} is not the file that was packed: its sha256 differs from the manifest. "
            "Copy the bundle again."
        )
    fault = fault_of(model.path)
    if fault is not None:
        raise ContractError(f"{model.file} {_cannot(fault)}. Export the model again.")
    return digest


def _cannot(fault: str) -> str:
    return f"cannot be opened: {fault}; a model is one ONNX file with all its weights"


def verify_hashes(bundle: Bundle) -> list[str]:
    """What does not match the manifest, one sentence each; an empty list when all is as it was
    packed.
    """
    problems = []
    golden, labels = bundle.golden, bundle.labels_path
    stated = [(m.path, m.file, m.sha256, m.size_bytes) for m in bundle.models]
    stated.append((golden.path, golden.file, golden.sha256, MAX_GOLDEN_BYTES))
    stated.append((labels, labels.name, bundle.labels_sha256, MAX_LABEL_BYTES))
    for path, name, want, most in stated:
        got = sha256_of(path, most)
        if got is None:
            problems.append(f"{name} cannot be read")
        elif got != want:
            problems.append(
                f"{name} is not the file that was packed (sha256 {got[:12]}, manifest {want[:12]})"
            )
    for model in bundle.models:
        try:
            size = model.path.stat().st_size
        except OSError:
            continue
        if size != model.size_bytes:
            problems.append(f"{model.file} has {size} bytes, the manifest says {model.size_bytes}")
        fault = fault_of(model.path)
        if fault is not None:
            problems.append(f"{model.file} {_cannot(fault)}")
    try:
        if tuple(read_labels(bundle.labels_path)) != bundle.classes:
            problems.append("the label file and the manifest's classes differ")
    except ContractError as error:
        problems.append(str(error))
    return problems
