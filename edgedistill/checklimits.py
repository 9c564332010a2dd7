"""The limits of a check: from options, from `edgedistill.toml` or `[tool.edgedistill.check]` of a pyproject.toml, or
the defaults; each remembers where it comes from.

A name means the same in a file as on the command line. A file is hostile until it is read here.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from edgedistill.checkresult import GROWTHS, Allowed, LimitName
from edgedistill.errors import RecipeError, UsageError, nearest

FILES = ("edgedistill.toml", "pyproject.toml")
LIMITS: tuple[LimitName, ...] = get_args(LimitName)
KEYS = (*LIMITS, "baseline", "strict")
DEFAULTS: dict[LimitName, Any] = {"max-size-growth": "1%", "max-drop": 1.0}
"""What holds against a baseline where no limit is given at all."""
MOST_BYTES = 1_000_000
LARGEST = 1e9
_GROWTH = re.compile(r"\s*(\d{1,12}(?:\.\d{1,12})?|\.\d{1,12})\s*(%|B|KB|MB|GB|)\s*", re.IGNORECASE)
_UNITS = {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9}


@dataclass(frozen=True)
class Asked:
    """What a check is asked for; `config` is the file that was read, `found` whether it was looked for."""

    limits: dict[LimitName, Allowed]
    baseline: Path | None
    strict: bool
    config: Path | None = None


def asked_from(
    options: Mapping[LimitName, Any], baseline: Path | None, strict: bool, config: Path | None
) -> Asked:
    """Options over the file `config`, or over the nearest file upwards. Raises `UsageError` and `RecipeError`."""
    file, table = _config(config)
    limits: dict[LimitName, Allowed] = {}
    if file is not None:
        limits = _limits_of(file, table)
    for name, value in options.items():
        if value is not None:
            try:
                limits[name] = allowed(name, value, f"--{name}")
            except ValueError as error:
                raise UsageError(f"--{name} {error}") from None
    if baseline is None and file is not None and "baseline" in table:
        baseline = file.parent / table["baseline"]
    strict = strict or bool(table.get("strict"))
    return Asked(limits, baseline, strict, file)


def defaults() -> dict[LimitName, Allowed]:
    """The limits where none is given."""
    return {name: allowed(name, value, "default") for name, value in DEFAULTS.items()}


def growths(limits: Mapping[LimitName, Allowed]) -> list[LimitName]:
    """Those that need a model to compare with."""
    return [name for name in limits if name in GROWTHS]


def allowed(name: LimitName, value: Any, origin: str) -> Allowed:
    """A limit in SI from what a person wrote. Raises ValueError with the rest of a sentence that begins with its
    name.
    """
    if name in ("max-size-growth", "max-latency-growth"):
        return _growth(name, value, origin)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"must be a number; got {str(value)[:40]!r}")
    if value < 0 or (value == 0 and name != "max-drop"):
        least = "of 0 or more" if name == "max-drop" else "above 0"
        raise ValueError(f"must be a number {least}; got {value:g}")
    if name in ("max-drop", "min-top1"):
        if value > 100:
            raise ValueError(f"is in percent, at most 100; got {value:g}")
        if name == "min-top1" and value <= 1:
            raise ValueError(f"is in percent; for {100 * value:g} % give {100 * value:g}")
        return Allowed(value=value / 100, unit="fraction", origin=origin)
    if value > LARGEST:
        raise ValueError(f"must be at most {LARGEST:g}; got {value:g}")
    if name == "max-latency-ms":
        return Allowed(value=value / 1e3, unit="seconds", origin=origin)
    return Allowed(value=max(1, round(value * 1e6)), unit="bytes", origin=origin)


def _growth(name: LimitName, value: Any, origin: str) -> Allowed:
    units = "5% or 10KB" if name == "max-size-growth" else "5%"
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    found = _GROWTH.fullmatch(text)
    if found is None or (not found[2] and float(found[1])):
        more = f" ({value}%?)" if found else ""
        raise ValueError(
            f"is a growth with its unit, such as {units}, or 0; got {str(value)[:40]!r}{more}"
        )
    number, unit = float(found[1]), found[2].lower()
    if unit in ("%", ""):
        return Allowed(value=number / 100, unit="fraction", origin=origin)
    if name != "max-size-growth":
        raise ValueError(f"is a growth in percent, such as {units}; got {text[:40]!r}")
    return Allowed(value=number * _UNITS[unit], unit="bytes", origin=origin)


def _config(named: Path | None) -> tuple[Path | None, dict[str, Any]]:
    """The file that is named, or the nearest one upwards that speaks of a check, and its table."""
    if named is not None:
        table = _table(named)
        if table is None:
            raise UsageError(
                f"{named} has no table [tool.edgedistill.check]: add it, or name another file with --config"
            )
        return named, table
    here = Path.cwd()
    for folder in (here, *here.parents):
        for name in FILES:
            path = folder / name
            if path.is_file() and (table := _table(path)) is not None:
                return path, table
    return None, {}


def _table(path: Path) -> dict[str, Any] | None:
    """The table `check` of a file; `None` for a pyproject.toml that does not speak of edgedistill."""
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise UsageError(f"{path} has more than the {MOST_BYTES:,} bytes allowed")
        found: Any = tomllib.loads(raw.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        if path.name == "pyproject.toml" and b"edgedistill" not in raw:
            return None  # another tool's to tell
        raise UsageError(f"{path} is no TOML: {str(error)[:200]}") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    where = ""
    if path.name == "pyproject.toml":
        found, where = found.get("tool", {}), "tool.edgedistill"
        if not isinstance(found, dict) or "edgedistill" not in found:
            return None
        found = found["edgedistill"]
    if not isinstance(found, dict):
        raise RecipeError(str(path), [f"{where}  must be a table"])
    problems = [
        f"{'.'.join(filter(None, (where, key)))[:80]}  unknown table{nearest(key, ['check'])}. Known: check"
        for key in found
        if key != "check"
    ]
    table = found.get("check", {})
    if not isinstance(table, dict):
        problems.append(f"{'.'.join(filter(None, (where, 'check')))}  must be a table")
    if problems:
        raise RecipeError(str(path), problems)
    return table if isinstance(table, dict) else {}


def _limits_of(path: Path, table: Mapping[str, Any]) -> dict[LimitName, Allowed]:
    """The limits of a file's table. Raises `RecipeError` with every problem in it."""
    limits: dict[LimitName, Allowed] = {}
    problems = []
    for key, value in table.items():
        if key in LIMITS:
            try:
                limits[key] = allowed(key, value, path.name)
            except ValueError as error:
                problems.append(f"check.{key}  {error}")
        elif key not in KEYS:
            known = ", ".join(KEYS)
            problems.append(
                f"check.{key[:80]}  unknown key{nearest(key, KEYS) or '.'} Known: {known}"
            )
    if not isinstance(table.get("baseline", ""), str) or table.get("baseline") == "":
        problems.append("check.baseline  must be the path of a file, from this file's folder")
    if not isinstance(table.get("strict", False), bool):
        problems.append("check.strict  must be true or false")
    if problems:
        raise RecipeError(str(path), problems)
    return limits
