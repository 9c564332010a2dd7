"""What was measured on a machine of the user's: kept in the user's folder, found again by device.

The file names the machine by its fingerprint. For `host` it counts only on that very machine; for
a named board it is what the user said that board is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from edgedistill.document import Count, Document, Seconds, parse
from edgedistill.errors import DocumentError
from edgedistill.files import user_folder, write_atomic
from edgedistill.result import Precision
from edgedistill.target.features import NAMES
from edgedistill.target.latency import Component, LatencyModel

SCHEMA: Final = "edgedistill.measured/1"
HOST = "host"
BEYOND = 5.0
"""How many times the largest anchor a prediction may reach: terms of single kernels carry further than those of whole
networks, and anchors are small so that a measurement takes minutes."""


class AnchorRow(Document):
    """One network that was timed, and what the fit without its family said."""

    model: str
    input_size: Count
    precision: Precision
    latency_s: Seconds
    error: float


class FittedModel(Document):
    """Coefficients in seconds by feature, the band, and how well they did on families left out."""

    seconds: dict[str, float]
    band: tuple[float, float]
    median_error: float
    p90_error: float
    n: Count
    macs: tuple[float, float]


class Measured(Document):
    """A measured machine: `edgedistill devices measure` writes it."""

    schema_: Literal["edgedistill.measured/1"] = Field(default=SCHEMA, alias="schema")
    device: str
    created_utc: str
    version: str
    fingerprint: dict[str, str]
    runtime: str
    threads: Count
    power_mode: str | None = None
    models: dict[Precision, FittedModel]
    anchors: list[AnchorRow]


@dataclass(frozen=True)
class Place:
    """Where measurements are kept."""

    folder: Path

    def path(self, device: str) -> Path:
        """The file of a device."""
        return self.folder / f"{device}.json"


def user_place() -> Place:
    """`devices` in the user's own folder."""
    return Place(user_folder() / "devices")


def fingerprint(machine: Mapping[str, Any]) -> dict[str, str]:
    """What tells machines apart, of the facts that the kit states: processor, cores, board."""
    keys = ("arch", "cpu", "cores", "board", "gpu")
    return {key: str(machine[key]) for key in keys if machine.get(key) is not None}


def keep(measured: Measured, place: Place) -> Path:
    """Write a measurement; an older one of the same device is replaced."""
    path = place.path(measured.device)
    write_atomic(path, json.dumps(measured.model_dump(mode="json", by_alias=True), indent=1) + "\n")
    return path


def recall(device: str, place: Place) -> Measured | None:
    """The measurement of a device, `None` where there is none. Raises `DocumentError`."""
    path = place.path(device)
    if not path.is_file():
        return None
    measured = parse("measurement", Measured, path)
    strange = {name for m in measured.models.values() for name in m.seconds} - set(NAMES)
    if strange:
        raise DocumentError(
            f"the measurement {path} is of another version (it has {sorted(strange)[0]}): run "
            f"edgedistill devices measure {device} again"
        )
    return measured


def models_of(measured: Measured) -> dict[Precision, LatencyModel]:
    """Latency models of a measurement: estimates from this very machine, tier B."""
    threads = f"{measured.threads} thread{'' if measured.threads == 1 else 's'}"
    return {
        precision: LatencyModel(
            components=(Component(model.seconds),),
            bands={"B": model.band},
            tier="B",
            unseen_tier="B",
            macs=model.macs,
            beyond=BEYOND,
            n=model.n,
            runtime=measured.runtime,
            threads=measured.threads,
            power_mode=measured.power_mode,
            sources=(f"edgedistill devices measure, {measured.created_utc}",),
            words=f"estimate from {model.n} networks timed on this machine, {threads}",
        )
        for precision, model in measured.models.items()
    }
