"""One factor at a time: the levels of a study's factors as arms that each change the default in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgedistill.recipe import assign

DEFAULT = "default"
"""The arm that changes nothing, which every level is compared with."""
HOW = "a factor has paths with lists of values (distill.temperature: [1, 2]) or named levels (kd: {distill: {...}})"


@dataclass(frozen=True)
class Level:
    """An arm of a factor, as a study file would write it; `where` it stands there, for problems."""

    name: str
    factor: str | None
    entry: Mapping[str, Any]
    where: str


def levels_of(factors: Any, problems: list[str]) -> list[Level]:
    """The default and every level of `factors`; what is wrong is added to `problems`."""
    if not isinstance(factors, Mapping):
        problems.append(f"factors  must be a mapping of names to factors: {HOW}")
        return []
    found = [Level(DEFAULT, None, {}, f"arms.{DEFAULT}")]
    for factor, told in factors.items():
        if not isinstance(told, Mapping) or not told:
            problems.append(f"factors.{factor}  {HOW}")
            continue
        for key, value in told.items():
            where = f"factors.{factor}.{key}"
            if isinstance(value, list):
                found += _values(str(factor), str(key), value, where, problems)
            elif isinstance(value, Mapping):
                found.append(Level(str(key), str(factor), value, where))
            else:
                problems.append(f"{where}  {HOW}")
    return found


def _values(
    factor: str, path: str, values: list[Any], where: str, problems: list[str]
) -> list[Level]:
    """A level for each value of a recipe's key."""
    levels = []
    for value in values:
        if isinstance(value, list | Mapping):
            problems.append(f"{where}  takes plain values; name a level of several keys instead")
            continue
        entry: dict[str, Any] = {}
        assign(entry, path, value)
        said = {None: "none", True: "yes", False: "no"}.get(value, value) if not _number(value) else value  # fmt: skip
        levels.append(Level(f"{path.rpartition('.')[2]}={said}", factor, entry, where))
    return levels


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
