"""The recipe: everything that a build depends on, as data.

A `Recipe` is frozen and closed. It is made in three layers: the schema's defaults, a YAML file, the options of the
command line; `resolve` then fills every `auto` with a value and says why. `Resolved.dump` writes `recipe.yaml`, which
is a recipe again: building from it gives the same run.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgedistill.document import describe
from edgedistill.errors import MOST_SHOWN, RecipeError, UsageError, nearest
from edgedistill.plainyaml import read_plain
from edgedistill.schema import (
    BUILTIN_DATA,
    BenchSection,
    BudgetSection,
    DataSection,
    DistillSection,
    ExportSection,
    QuantizeSection,
    Recipe,
    StudentSection,
    SynthSection,
    TeacherSection,
)

MAX_RECIPE_BYTES = 64_000

# What a layer may say, with the reason that is written beside the value.
Reasons = Mapping[str, str]


@dataclass(frozen=True)
class Layered:
    """A recipe with the source of every value that is not the schema's default."""

    recipe: Recipe
    reasons: Reasons = field(default_factory=dict)


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a nested mapping with its dotted path."""
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from leaves(value, path + ".")
        else:
            yield path, value


def known_paths() -> list[str]:
    """Every dotted path that a recipe may set."""
    return [path for path, _ in leaves(Recipe().model_dump())]


def assign(tree: dict[str, Any], path: str, value: Any) -> None:
    """Set a dotted `path` in a nested dict, in place."""
    *parents, last = path.split(".")
    for key in parents:
        branch = tree.setdefault(key, {})
        if not isinstance(branch, dict):
            branch = tree[key] = {}
        tree = branch
    tree[last] = value


def read_yaml(path: Path) -> dict[str, Any]:
    """A recipe file as a nested dict. Raises `RecipeError` for whatever is not a mapping."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_RECIPE_BYTES + 1)
        if len(raw) > MAX_RECIPE_BYTES:
            raise RecipeError(str(path), [f"larger than {MAX_RECIPE_BYTES:,} bytes"])
        tree = read_plain(raw.decode("utf-8-sig"))
    except IsADirectoryError:
        raise UsageError(
            f"{path} is a folder, and a recipe is a YAML file. For a folder of images give --data {path}"
        ) from None
    except FileNotFoundError:
        raise UsageError(
            f"recipe {path} does not exist. Give the path of a YAML file, or no recipe at all."
        ) from None
    except OSError as error:
        raise RecipeError(str(path), [f"cannot be read: {error.strerror}"]) from None
    except ValueError as error:
        raise RecipeError(str(path), [f"cannot be read as YAML: {error}"]) from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise RecipeError(str(path), [f"must be a mapping, is a {type(tree).__name__}"])
    return tree


def parse_set(text: str) -> tuple[str, Any]:
    """`key=value` of `--set`; the value is YAML, so `true`, `3` and `auto` mean what they look like."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise UsageError(f'--set takes key=value, for example distill.epochs=30; got "{text[:80]}"')
    try:
        return key.strip(), read_plain(value)
    except ValueError as error:
        raise UsageError(
            f'--set {key}: the value "{value[:80]}" is not valid YAML: {error}'
        ) from None


def compose(file: Path | None, options: Mapping[str, Any], settings: Mapping[str, Any]) -> Layered:
    """Defaults, then the file, then options, then `--set`; all problems are raised at once.

    `options` and `settings` map dotted paths to values; an option that is `None` was not given, a setting that is
    `None` takes a limit away. A setting that is a mapping stands for its leaves.
    """
    tree: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    if file is not None:
        tree = read_yaml(file)
        reasons.update({str(path): f"from {file.name}" for path, _ in leaves(tree)})
    given = {path: value for path, value in options.items() if value is not None}
    for source, values in (("from the command line", given), ("from --set", settings)):
        for path, value in leaves(values):
            assign(tree, path, value)
            reasons[path] = source
    return Layered(validate(tree, str(file) if file else "the command line"), reasons)


def validate(tree: Mapping[str, Any], where: str) -> Recipe:
    """A nested mapping as a `Recipe`; every unknown key and bad value is named in one `RecipeError`."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(where, _problems(error)) from None


def _problems(error: ValidationError) -> list[str]:
    """One line a problem: unknown keys first, the first of them with the nearest name."""
    unknown: dict[str, str] = {}
    for item in error.errors(include_url=False):
        if item["type"] == "extra_forbidden":
            key, value = ".".join(str(part) for part in item["loc"]), item["input"]
            inner = leaves(value, key + ".") if isinstance(value, Mapping) and value else [(key, 0)]
            unknown.update((path, key) for path, _ in inner)
    keys = sorted(unknown)
    problems = [f"{key}  unknown key{_near_key(key)}" for key in keys[:MOST_SHOWN]]
    problems += [f"{key}  unknown key" for key in keys[MOST_SHOWN:]]
    taken = set(unknown.values())
    return problems + [line for line in _merge(describe(error)) if line.split("  ")[0] not in taken]


def _near_key(key: str) -> str:
    known = known_paths()
    if key in known:
        section, _, field_name = key.partition(".")
        return f"; write it nested: {section}: {{{field_name}: ...}}"
    ends = {path.rpartition(".")[2]: path for path in known}
    sections = [name for name in Recipe.model_fields if name not in known]
    return nearest(key, [*known, *sections]) or _path_of(
        nearest(key.rpartition(".")[2], ends), ends
    )


def _path_of(hint: str, ends: Mapping[str, str]) -> str:
    """A hint that names the last part of a path, with the whole path."""
    return re.sub(r'"(.*)"', lambda found: f'"{ends[found[1]]}"', hint)


_MEMBER = re.compile(r"\.(int|float|bool|str|constrained-\w+|literal\[[^\]]*\])$")


def _merge(lines: list[str]) -> list[str]:
    """Unions such as `int | auto` give one line for each member; keep one line a path."""
    merged: dict[str, str] = {}
    for line in lines:
        path, _, text = line.partition("  ")
        path = _MEMBER.sub("", path)
        if path in merged:
            head, _, got = merged[path].rpartition("; got ")
            merged[path] = f"{head}, or {text.rpartition('; got ')[0]}; got {got}"
        else:
            merged[path] = text
    return [f"{path}  {text}" for path, text in merged.items()]


@dataclass(frozen=True)
class Resolved:
    """A recipe without any `auto`, and the reason of every value."""

    recipe: Recipe
    reasons: Reasons

    def sha256(self) -> str:
        """Hash of the values alone; the name of the run is not part of it."""
        return hash_of(self.recipe.model_dump(mode="json", exclude={"name"}))

    def dump(self) -> str:
        """`recipe.yaml`: every value with its reason as a comment. It is a recipe itself."""
        lines = ["# Every value of this run, with its reason. Build it again:"]
        lines += ["#   edgedistill build recipe.yaml", ""]
        lines += _dump(self.recipe.model_dump(mode="json"), self.reasons, "", 0)
        return "\n".join(lines) + "\n"


def _dump(tree: Mapping[str, Any], reasons: Reasons, prefix: str, depth: int) -> Iterator[str]:
    for key, value in tree.items():
        path = f"{prefix}{key}"
        pad = "  " * depth
        if isinstance(value, Mapping):
            yield f"{pad}{key}:"
            yield from _dump(value, reasons, path + ".", depth + 1)
        else:
            reason = " ".join(reasons.get(path, "default").split())
            text = json.dumps(value, ensure_ascii=False)
            yield f"{pad}{key}: {_UNPRINTABLE.sub(_escaped, f'{text}  # {reason}')}"


_UNPRINTABLE = re.compile(
    "[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
"""What YAML does not take as it is: control characters, line ends of Unicode, byte order marks, lone surrogates."""


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def hash_of(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def replace(layered: Layered, values: Mapping[str, tuple[Any, str]]) -> Layered:
    """Set dotted paths to `(value, reason)`; used to fill what is `auto`."""
    tree = layered.recipe.model_dump()
    reasons = dict(layered.reasons)
    for path, (value, reason) in values.items():
        assign(tree, path, value)
        reasons[path] = reason
    return Layered(Recipe.model_validate(tree), reasons)


DECIDED_LATER = ("teacher.adapt", "quantize.method")
"""What says `auto` in a run too: validation images decide it, when the rest is long resolved."""


def autos(recipe: Recipe) -> list[str]:
    """Dotted paths that still say `auto`, though they are derived before a run begins."""
    every = [path for path, value in leaves(recipe.model_dump()) if value == "auto"]
    return [path for path in every if path not in DECIDED_LATER]


__all__ = [
    "BUILTIN_DATA",
    "BenchSection",
    "BudgetSection",
    "DataSection",
    "DistillSection",
    "ExportSection",
    "Layered",
    "QuantizeSection",
    "Recipe",
    "Resolved",
    "StudentSection",
    "SynthSection",
    "TeacherSection",
    "assign",
    "autos",
    "compose",
    "hash_of",
    "known_paths",
    "leaves",
    "parse_set",
    "read_yaml",
    "replace",
    "validate",
]
