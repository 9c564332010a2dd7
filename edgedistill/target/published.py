"""The latency models that ship: constants fitted on published measurements, each with its sources.

`latency.json` is made by `benchmarks/fit_latency.py`. It holds no published table, only what was
fitted on one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from edgedistill.result import Precision
from edgedistill.target.latency import Component, LatencyModel

TABLE = "latency.json"


@cache
def shipped_models() -> dict[str, dict[Precision, LatencyModel]]:
    """Models by device and precision."""
    text = resources.files("edgedistill.target").joinpath(TABLE).read_text("utf-8")
    models: dict[str, dict[Precision, LatencyModel]] = {}
    for row in json.loads(text)["models"]:
        models.setdefault(row["device"], {})[row["precision"]] = _model(row)
    return models


def _model(row: Mapping[str, Any]) -> LatencyModel:
    return LatencyModel(
        components=tuple(
            Component(c["seconds"], c["weight"], c["offsets"]) for c in row["components"]
        ),
        bands={tier: (band[0], band[1]) for tier, band in row["bands"].items()},
        tier=row["tier"],
        unseen_tier=row["unseen_tier"],
        families=frozenset(row["families"]),
        widening=row.get("widening", 0.0),
        macs=None if row["macs"] is None else (row["macs"][0], row["macs"][1]),
        n=row["n"],
        runtime=row["runtime"],
        threads=row["threads"],
        power_mode=row["power_mode"],
        sources=tuple(row["sources"]),
        words=row["words"],
    )
