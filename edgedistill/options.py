"""From what a person types to a layered recipe: milliseconds, megabytes and percent become SI here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgedistill.errors import UsageError
from edgedistill.recipe import Layered, Recipe, compose, parse_set

QUICK: dict[str, Any] = {
    "data.max_train": 600,
    "teacher.epochs": 1,
    "distill.epochs": 1,
    "quantize.calibration_images": 32,
    "quantize.method": "minmax",
    "bench.min_seconds": 0.2,
    "bench.min_runs": 64,
}
"""What `--quick` sets where nothing else was said: enough to see that every stage works, and no more."""

LARGEST = 1e9
"""A petabyte in megabytes, eleven days in milliseconds: more is a slip of the keyboard."""
MAX_NAME = 100

Units = dict[str, tuple[str, str, Callable[[float], Any]]]
UNITS: Units = {
    "latency_ms": ("budget.latency_s", "--latency-ms", lambda v: v / 1e3),
    "size_mb": ("budget.size_bytes", "--size-mb", lambda v: max(1, round(v * 1e6))),
    "memory_mb": ("budget.memory_bytes", "--memory-mb", lambda v: max(1, round(v * 1e6))),
    "min_top1": ("budget.min_top1", "--min-top1", lambda v: v / 100),
    "max_drop": ("budget.max_top1_drop", "--max-drop", lambda v: v / 100),
}


def layered_from(
    file: Path | None,
    options: Mapping[str, Any],
    limits: Mapping[str, float | None],
    settings: Sequence[str],
    *,
    quick: bool,
) -> Layered:
    """Defaults, the recipe file, `--quick`, options, `--set`. Raises `UsageError` and `RecipeError`."""
    values = dict(options)
    for name, value in limits.items():
        if value is not None:
            path, option, convert = UNITS[name]
            check_limit(option, value)
            values[path] = convert(value)
    layered = compose(file, values, dict(parse_set(text) for text in settings))
    if not quick:
        return layered
    missing = {path: value for path, value in QUICK.items() if path not in layered.reasons}
    whole = compose(file, {**missing, **values}, dict(parse_set(text) for text in settings))
    return Layered(whole.recipe, {**whole.reasons, **dict.fromkeys(missing, "--quick")})


def check_limit(option: str, value: float) -> None:
    """A budget must be a number above zero (a drop may be zero); a percentage at most 100."""
    if not math.isfinite(value) or value < 0 or (value == 0 and option != "--max-drop"):
        least = "of 0 or more" if option == "--max-drop" else "above 0"
        raise UsageError(f"{option} must be a number {least}; got {value:g}")
    if value > LARGEST:
        raise UsageError(f"{option} must be at most {LARGEST:g}; got {value:g}")
    if option in ("--min-top1", "--max-drop") and value > 100:
        raise UsageError(f"{option} is in percent, at most 100; got {value:g}")
    if option == "--min-top1" and value <= 1:
        raise UsageError(
            f"--min-top1 is in percent, and {value:g} means {value:g} %; for {100 * value:g} % give "
            f"--min-top1 {100 * value:g}"
        )


def synthetic_images(text: str | None) -> int | str | None:
    """What `--synthetic` says: a number of images, `auto`, or nothing."""
    if text is None or text == "auto":
        return text
    if not text.isdecimal():
        raise UsageError(f'--synthetic is a number of images, or auto; got "{text}"')
    return int(text)


def out_folder(recipe: Recipe, out: Path | None) -> Path:
    """The run folder: `--out`, else `runs/` and the name of the run, the data or the device."""
    if out is not None:
        return out
    name = recipe.name
    if name is None:
        name = f"{data_name(recipe.data.source)}-{Path(recipe.device).stem}"
    return Path("runs") / (_safe(name) or "run")


def data_name(source: str) -> str:
    """A short name of images for folders, from where they come."""
    from edgedistill.data.kinds import short_name

    name = source.partition(":")[2] if source.startswith("builtin:") else short_name(source)
    return _safe(name) or "data"


def _safe(name: str) -> str:
    """What of a name may stand in a path on every system."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name).strip(".-")[:MAX_NAME]
