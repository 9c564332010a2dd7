"""Whether NVIDIA's parser and builder take a file, with no GPU and no board at hand.

TensorRT-RTX (package tensorrt-rtx-cu13) has TensorRT's ONNX parser and a builder that needs no GPU. It knows the SM of
desktop GPUs, none of a Jetson: what it takes is "accepted by TensorRT-RTX for SM 8.6", never "runs on the board".
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from edgedistill.deploy.bundle import Packed
from edgedistill.progress import Face
from edgedistill.result import Precision
from edgedistill.target.device import Device

DISTRIBUTION, WORKER = "tensorrt-rtx-cu13", "edgedistill.deploy.rtx"
KNOWN = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
"""Compute capabilities that TensorRT-RTX 1.7 builds for."""
PATIENCE_S = 300.0
"""For each file."""
BATCH = 8
Name = TypeVar("Name", bound=str)


@dataclass(frozen=True)
class Answer:
    """What was said of a file: by whom, for which SM, and why not, or the bytes of the engine and the seconds.

    Not `answered`: the builder could not be asked, and `reasons` say why; that is no refusal.
    """

    builder: str
    sm: str
    reasons: tuple[str, ...]
    engine_bytes: int | None = None
    seconds: float | None = None
    answered: bool = True

    @property
    def accepted(self) -> bool:
        """Whether parser and builder took it."""
        return self.answered and not self.reasons

    @property
    def refused(self) -> bool:
        """Whether they were asked and did not."""
        return self.answered and bool(self.reasons)

    def document(self) -> dict[str, Any]:
        """As the result holds it."""
        found = {**asdict(self), "reasons": list(self.reasons)}
        del found["answered"]
        return found


def nearest_sm(sm: str | None) -> str:
    """The nearest compute capability that TensorRT-RTX knows: the largest that is not newer, else the oldest."""
    wanted = _pair(sm) if sm is not None else _pair("8.6")
    older = [known for known in KNOWN if _pair(known) <= wanted]
    return older[-1] if older else KNOWN[0]


def _pair(sm: str) -> tuple[int, int]:
    major, _, minor = sm.partition(".")
    return int(major), int(minor or 0)


def installed() -> str | None:
    """The version of TensorRT-RTX that is installed, `None` without one."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return None


def builder_for(device: Device) -> str | None:
    """The version of TensorRT-RTX that is asked about a device's files; `None` without it, or for another runtime."""
    return installed() if device.runtime == "tensorrt" else None


def ask_device(device: Device, items: Sequence[Packed], face: Face) -> dict[Precision, Answer]:
    """What NVIDIA's parser and builder say of each file, where they can be asked; a silence is told."""
    if builder_for(device) is None:
        return {}
    accelerator = device.accelerator
    sm = accelerator.sm if accelerator is not None else None
    face.detail("asking TensorRT-RTX whether it takes the files")
    answers = ask_builder({item.precision: item.data for item in items}, sm)
    silent = [answer for answer in answers.values() if not answer.answered]
    if silent:
        face.warn(
            f"TensorRT-RTX could not be asked about {len(silent)} files ({silent[0].reasons[0]}); whether TensorRT "
            "takes them is not known"
        )
    return answers


def ask_builder(
    files: Mapping[Name, bytes], sm: str | None, batch: int = BATCH
) -> dict[Name, Answer]:
    """What is said of each ONNX file for the SM nearest to `sm`, one after the other in one process; by their names.

    Needs TensorRT-RTX. A file at which the process is killed by a signal is refused, and the others are asked about
    again without it; where it ends otherwise or takes too long, the files that are left are not answered.
    """
    near, left = nearest_sm(sm), dict(files)
    found: dict[Name, Answer] = {}
    while left:
        answers, fault, killed = _asked(left, near, batch)
        found |= dict(zip(left, answers, strict=False))
        left = {name: data for name, data in left.items() if name not in found}
        if left and killed:
            found[next(iter(left))] = Answer("TensorRT-RTX", near, (fault,))
        elif left:
            found |= {name: Answer("TensorRT-RTX", near, (fault,), answered=False) for name in left}
        left = {name: data for name, data in left.items() if name not in found}
    return found


def _asked(files: Mapping[Name, bytes], sm: str, batch: int) -> tuple[list[Answer], str, bool]:
    """The answers that came, in the order of the files; how the process ended, and whether by a signal."""
    with tempfile.TemporaryDirectory(prefix="edgedistill-rtx-") as name:
        paths = []
        for place, data in enumerate(files.values()):
            paths.append(Path(name) / f"{place}.onnx")
            paths[-1].write_bytes(data)
        command = [sys.executable, "-m", WORKER, sm, str(batch), *map(str, paths)]
        patience = PATIENCE_S * len(files)
        out, fault, killed = "", "its process said nothing", False
        try:
            ran = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=patience
            )
            out, killed = ran.stdout, ran.returncode < 0
            if ran.returncode:
                words = ran.stderr.strip().splitlines()[-1:] or ["without a word"]
                fault = f"its process ended with {ran.returncode}: {words[0]}"
        except subprocess.TimeoutExpired as error:
            given = error.stdout or b""
            out = given.decode("utf-8", "replace") if isinstance(given, bytes) else given
            fault = f"no answer in {patience:.0f} s"
    lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    answers = [Answer(**{**line, "reasons": tuple(line["reasons"])}) for line in lines]
    return answers, fault, killed
