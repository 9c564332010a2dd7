"""The kit document (`edgedistill.kit/1`) that carries results back to the workstation, written
whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np

from ontarget import __version__
from ontarget.bench import Failure
from ontarget.contract import KIT_SCHEMA, Bundle


def document(
    bundle: Bundle,
    facts: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]] = (),
    evals: Sequence[Mapping[str, Any]] = (),
    failures: Sequence[Failure] = (),
    check: Mapping[str, Any] | None = None,
    predictions: Mapping[str, Any] | None = None,
    engines: Sequence[Mapping[str, Any]] | None = None,
    compare: Mapping[str, Any] | None = None,
    temperature_end_c: float | None = None,
) -> dict[str, Any]:
    """The document of one command: the machine, the bundle by its manifest's hash, and what was
    found.

    What only one command has is there only when that command wrote it; `content_sha256` is of all the rest.
    """
    out: dict[str, Any] = {
        "schema": KIT_SCHEMA,
        "kit_version": __version__,
        "machine": dict(facts),
        "bundle": {"name": bundle.name, "manifest_sha256": bundle.manifest_sha256},
        "rows": [dict(row) for row in rows],
        "eval": [dict(row) for row in evals],
        "failures": [asdict(failure) for failure in failures],
    }
    extra = {
        "check": check,
        "predictions": predictions,
        "engines": engines,
        "compare": compare,
        "temperature_end_c": temperature_end_c,
    }
    out.update({key: value for key, value in extra.items() if value is not None})
    return {**out, "content_sha256": content_sha256(out)}


def content_sha256(value: Mapping[str, Any]) -> str:
    """The hash of all else that a document holds, whatever its order and blanks: a byte that changes
    on the way is seen.
    """
    held = {key: item for key, item in value.items() if key != "content_sha256"}
    text = json.dumps(held, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a document; a reader sees the old file or the new one, never a part. Raises OSError."""
    text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    _atomically(path, lambda file: file.write(text.encode("utf-8")))


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name, whole or not at all. Raises OSError."""
    named: dict[str, Any] = dict(arrays)
    _atomically(path, lambda file: np.savez(file, **named))


def _atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    handle, part = tempfile.mkstemp(prefix=path.name + ".", suffix=".part", dir=str(path.parent))
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(part, 0o666 & ~mask)
        os.replace(part, str(path))
    except BaseException:
        os.unlink(part)
        raise
