"""What an engine is of: its name, the document beside it, and whether it fits this machine.

An engine fits the very model, TensorRT and GPU that it was built with. `build_engine.sh` and `ontarget.trt` write the
same document, ENGINE.json.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ontarget.contract import Model
from ontarget.fields import shown

SCHEMA = "ontarget.engine/1"
MOST_BYTES = 1 << 16
"""Of the document beside an engine."""


@dataclass(frozen=True)
class Place:
    """Where an engine is built or run: the version of TensorRT, the GPU's compute capability, Jetson Linux, and the
    board or GPU by name; `None` where that is not known.
    """

    tensorrt: str
    sm: str | None
    l4t: str | None
    gpu: str | None = None


def engine_name(model: Model, place: Place, batch: int = 1, dla: int | None = None) -> str:
    """The file name of an engine: what it fits is in it."""
    parts = [model.name, model.sha256[:8], "trt" + place.tensorrt]
    if place.sm:
        parts.append("sm" + place.sm.replace(".", ""))
    if place.l4t:
        parts.append("l4t" + place.l4t)
    if dla is not None:
        parts.append("dla" + str(dla))
    if batch != 1:
        parts.append("batch" + str(batch))
    return "-".join(parts) + ".engine"


def read_about(engine: Path) -> dict[str, Any] | None:
    """The document beside an engine; `None` where there is none, or it is none."""
    path = engine.with_name(engine.name + ".json")
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(MOST_BYTES).decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found.get("schema") == SCHEMA else None


def plain(text: str | None) -> str | None:
    """A name as `build_engine.sh` writes it: letters, digits and a few signs."""
    return re.sub(r"[^A-Za-z0-9_:.x -]", "", text)[:80] if text else None


def batch_of(about: dict[str, Any]) -> int | None:
    """Images of a batch of an engine, from its input ("images:1x224x224x3")."""
    found = re.match(r".*:(\d{1,6})x", str(about.get("input")))
    return int(found.group(1)) if found else None


def misfit(about: dict[str, Any], model: Model, place: Place) -> str | None:
    """Why an engine is not for this model and machine, or `None`. What is not known on either side is no reason."""
    checks = [
        ("onnx_sha256", model.sha256, "another model"),
        ("tensorrt", place.tensorrt, "another TensorRT"),
        ("sm", place.sm, "another GPU"),
        ("l4t", place.l4t, "another Jetson Linux"),
        ("gpu", place.gpu, "another board"),
    ]
    for key, here, words in checks:
        found = about.get(key)
        if key == "onnx_sha256" and not isinstance(found, str):
            return "it does not say of which model it is"
        if found is not None and here is not None and found != here:
            cut = 8 if key == "onnx_sha256" else 60
            return f"it is of {words} ({shown(str(found)[:cut])}, here {here[:cut]})"
    return None


def find_engine(
    model: Model, place: Place, folders: list[Path], batch: int | None = None
) -> tuple[Path | None, list[str]]:
    """The newest engine in `folders` for a model on this machine, of `batch` images where that is given, and why others
    are not.
    """
    fitting, reasons = [], []
    for folder in folders:
        for path in sorted(folder.glob("*.engine")):
            about = read_about(path)
            if about is None:
                reasons.append(f"{path.name}: nothing beside it says what it is ({path.name}.json)")
                continue
            why = misfit(about, model, place)
            if why is None and batch is not None and batch_of(about) != batch:
                why = f"it takes {batch_of(about)} images at once, not {batch}"
            if why is None:
                fitting.append(path)
            elif about.get("model") == model.name:
                reasons.append(f"{path.name}: {why}")
    newest = max(fitting, key=lambda path: path.stat().st_mtime, default=None)
    return newest, reasons


def whole(engine: Path, about: dict[str, Any]) -> bool:
    """Whether an engine's bytes are those that were built; true where their hash is not known."""
    wanted = about.get("engine_sha256")
    if not isinstance(wanted, str):
        return True
    return hashlib.sha256(engine.read_bytes()).hexdigest() == wanted
