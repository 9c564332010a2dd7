"""The files beside the manifest: class names, golden outputs and the evaluation set. Never
unpickles.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ontarget.facts import Bundle
from ontarget.fields import ContractError, Fields, inside, read_json, sha256_of, shown

EVALSET_SCHEMA = "edgedistill.evalset/1"
MAX_GOLDEN_BYTES = 1 << 29
MAX_LABEL_BYTES = 128_000_000
_ESCAPES = (("\\", "\\\\"), ("\n", "\\n"), ("\r", "\\r"))


def write_labels(path: str | Path, classes: Sequence[str]) -> None:
    r"""Write one class a line, UTF-8; a newline in a name becomes `\n`, a return `\r`, a backslash
    `\\`.
    """
    lines = []
    for name in classes:
        for plain, escaped in _ESCAPES:
            name = name.replace(plain, escaped)
        lines.append(name + "\n")
    Path(path).write_bytes("".join(lines).encode("utf-8"))


def read_labels(path: str | Path) -> list[str]:
    """The class names of a label file, in order. Raises ContractError for another file."""
    try:
        if Path(path).stat().st_size > MAX_LABEL_BYTES:
            raise ContractError(f"{path} is larger than a label file can be.")
        text = Path(path).read_bytes().decode("utf-8")
    except OSError as error:
        raise ContractError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ContractError(f"{path} is not UTF-8 text.") from None
    lines = text.split("\n")
    if lines and lines[-1] == "":
        lines.pop()
    return [_unescape(line, path) for line in lines]


def _unescape(line: str, path: object) -> str:
    out = []
    marks = iter(line)
    for mark in marks:
        if mark == "\\":
            code = next(marks, "")
            if code not in ("\\", "n", "r"):
                raise ContractError(f"{path}: the line {shown(line)} has an unknown escape.")
            mark = {"\\": "\\", "n": "\n", "r": "\r"}[code]
        out.append(mark)
    return "".join(out)


def load_golden(bundle: Bundle) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The golden images `(n, S, S, 3)` uint8 and, by model name, the expected logits `(n, C)`
    float32.

    A model without expected logits is absent from the dict. Raises ContractError for a damaged
    file.
    """
    path = bundle.golden.path
    size = bundle.preprocess.crop
    n, count = bundle.golden.n, len(bundle.classes)
    try:
        with zipfile.ZipFile(str(path)) as archive:
            total = sum(info.file_size for info in archive.infolist())
        if total > MAX_GOLDEN_BYTES:
            raise ContractError(
                f"{path} unpacks to {total} bytes; at most {MAX_GOLDEN_BYTES} are read."
            )
        with np.load(str(path), allow_pickle=False) as arrays:
            pixels = arrays["pixels"]
            logits = {
                model.name: arrays["logits_" + model.name]
                for model in bundle.models
                if "logits_" + model.name in arrays.files
            }
    except ContractError:
        raise
    except Exception as error:  # numpy, zipfile and zlib raise many kinds for a damaged file
        raise ContractError(f"{path} is damaged: {shown(str(error), 160)}.") from None
    if pixels.dtype != np.uint8 or pixels.shape != (n, size, size, 3):
        raise ContractError(
            f"{path}: pixels must be uint8 of shape {(n, size, size, 3)}, got {pixels.dtype} "
            f"{pixels.shape}."
        )
    for name, value in logits.items():
        if value.dtype != np.float32 or value.shape != (n, count) or not np.isfinite(value).all():
            raise ContractError(
                f"{path}: logits_{name} must be finite float32 of shape {(n, count)}, "
                f"got {value.dtype} {value.shape}."
            )
    return pixels, logits


def load_images(path: str | Path, size: int | None = None) -> np.ndarray:
    """Images of a `.npy` file, `(N, S, S, 3)` uint8, mapped and not read. Raises ContractError."""
    pixels: np.ndarray = _mapped(Path(path))
    shape = pixels.shape
    if (
        pixels.dtype != np.uint8
        or len(shape) != 4
        or shape[3] != 3
        or shape[1] != shape[2]
        or not shape[0]
    ):
        raise ContractError(
            f"{path}: images must be uint8 of shape (N, S, S, 3), got {pixels.dtype} {shape}."
        )
    if size is not None and shape[1] != size:
        raise ContractError(f"{path}: images are {shape[1]} px wide, the bundle takes {size} px.")
    return pixels


def load_evalset(folder: str | Path, verify: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """The evaluation set: pixels `(N, S, S, 3)` uint8, mapped and not read, and labels `(N,)`
    int64.

    `verify` compares the hashes. Raises ContractError for what is missing, damaged or of another
    version.
    """
    root = Path(folder)
    path = root / "evalset.json"
    if not path.is_file():
        raise ContractError(
            f"{root} is not an evaluation set: it has no evalset.json. "
            "Copy the folder evalset/ beside the bundle, or give it with --evalset FOLDER."
        )
    top = Fields(read_json(path), str(path))
    if top.raw("schema") != EVALSET_SCHEMA:
        raise ContractError(
            f"{path}: the schema is {shown(top.raw('schema'))}, this kit reads {EVALSET_SCHEMA}."
        )
    n = top.integer("n", 1, 10**9)
    top.integer("of", n, 10**9)
    images, marks = inside(root, "pixels.npy", str(path)), inside(root, "labels.npy", str(path))
    wanted = ((images, top.sha256("pixels_sha256")), (marks, top.sha256("labels_sha256")))
    for file, want in wanted:
        if verify and sha256_of(file) != want:
            raise ContractError(f"{file} is not the file that was packed: its sha256 differs.")
    pixels = load_images(images)
    labels = np.array(_mapped(marks))
    if labels.dtype != np.int64 or labels.shape != (n,) or pixels.shape[0] != n:
        raise ContractError(
            f"{root}: {n} images and int64 labels are stated, "
            f"got {pixels.shape[0]} images and {labels.dtype} labels of shape {labels.shape}."
        )
    if int(labels.min()) < 0:
        raise ContractError(f"{marks}: a label is below 0.")
    return pixels, labels


def _mapped(path: Path) -> Any:
    """The array of a `.npy` file; numpy's own `load` would take an archive or a pickle for one as well."""
    try:
        with path.open("rb") as file:
            if file.read(len(np.lib.format.MAGIC_PREFIX)) != np.lib.format.MAGIC_PREFIX:
                raise ContractError(f"{path} is not a .npy file.")
        return np.lib.format.open_memmap(str(path), mode="r")
    except ContractError:
        raise
    except OSError as error:
        raise ContractError(
            f"{path} cannot be read: {error.strerror or shown(str(error), 160)}."
        ) from None
    except Exception as error:  # numpy raises many kinds for a damaged file
        raise ContractError(f"{path} is damaged: {shown(str(error), 160)}.") from None
