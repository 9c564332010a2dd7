"""What changed between two models: files, layers and operators, what grew most first."""

from __future__ import annotations

from collections.abc import Mapping

from edgedistill.checkresult import Change, Changes, Snapshot
from edgedistill.evidence.checks.snapshot import LEAST_LAYER_BYTES, MOST_LAYERS


def changes(new: Snapshot, old: Snapshot) -> Changes:
    """What differs between two models; layers only where both are known."""
    layers, other, rest = _layers(new, old)
    return Changes(
        files=_differing(new.files, old.files),
        layers=layers,
        other_layers=other,
        rest=rest,
        operators=_differing(new.operators, old.operators)
        if new.operators and old.operators
        else [],
    )


def _differing(new: Mapping[str, int], old: Mapping[str, int]) -> list[Change]:
    found = [
        Change(name=name, old=old.get(name), new=new.get(name))
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    ]
    return sorted(found, key=lambda c: ((c.old or 0) - (c.new or 0), c.name))


def _layers(new: Snapshot, old: Snapshot) -> tuple[list[Change], Change | None, Change | None]:
    """Layers that differ, those that the old side only has the sum of, and what belongs to no layer."""
    if not new.layers or not old.layers:
        return [], None, None
    unknown = {}
    if old.other_layers_bytes:
        full = len(old.layers) >= MOST_LAYERS
        unknown = {
            name: size
            for name, size in new.layers.items()
            if name not in old.layers
            and size <= old.other_layers_bytes
            and (full or size < LEAST_LAYER_BYTES)
        }
    named = {name: size for name, size in new.layers.items() if name not in unknown}
    before, after = old.other_layers_bytes, sum(unknown.values()) + new.other_layers_bytes
    other = Change(name="smaller layers", old=before, new=after) if before != after else None
    left, right = (
        max(0, side.size_bytes - sum(side.layers.values()) - side.other_layers_bytes)
        for side in (old, new)
    )
    rest = Change(name="the rest of the file", old=left, new=right) if left != right else None
    return _differing(named, old.layers), other, rest
