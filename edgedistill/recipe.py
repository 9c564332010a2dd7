"""The recipe: everything that a build depends on, as data.

A `Recipe` is frozen and closed. It is made in three layers: the schema's defaults, a YAML file, the options of the
command line; `resolve` then fills every `auto` with a value and says why. `Resolved.dump` writes `recipe.yaml`, which
is a recipe again: building from it gives the same run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgedistill.errors import RecipeError, UsageError, nearest
from edgedistill.result import Fraction, Limits, describe

MAX_RECIPE_BYTES = 1_000_000
BUILTIN_DATA = "builtin:fashion-mnist"
Auto = Literal["auto"]


class Section(BaseModel):
    """Part of a recipe: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def _f(default: Any, text: str, **limits: Any) -> Any:
    return Field(default=default, description=text, **limits)


class DataSection(Section):
    source: str = _f(BUILTIN_DATA, "Image folder, folder of idx files, or the built-in set.")
    val_fraction: float = _f(0.15, "Share for validation where the folder has none.", gt=0, lt=0.5)
    test_fraction: float = _f(0.2, "Share for testing where the folder has none.", gt=0, lt=0.5)
    max_bad_fraction: float = _f(0.1, "More undecodable files than this is an error.", ge=0, le=1)
    max_pixels: int = _f(100_000_000, "Images with more pixels are left out.", ge=1)
    flip: bool = _f(True, "Mirror training views left to right.")
    min_crop: float = _f(0.7, "Smallest area of a training crop, as a share.", gt=0, le=1)
    max_train: int | None = _f(None, "Use at most this many training images.", ge=1)
    licence: str | None = _f(None, "Licence of the images, for the model card.")


class TeacherSection(Section):
    model: str = _f("bundled:efficientnet_lite2", "bundled:, timm name, hf-hub: or local-dir:.")
    weights: str | None = _f(None, "Local checkpoint (.safetensors or .pth) for `model`.")
    revision: str | None = _f(None, "Hub revision (branch, tag or commit) to pin.")
    adapt: Literal["auto", "none", "probe", "finetune"] = _f("auto", "How it learns the task.")
    input_size: Annotated[int, Field(ge=32, le=1024)] | Auto = _f("auto", "Square input in pixels.")
    epochs: Annotated[int, Field(ge=0, le=1000)] | Auto = _f("auto", "Epochs of fine-tuning.")
    batch_size: int = _f(32, "Images a step of fine-tuning.", ge=2, le=4096)
    lr: float = _f(1e-3, "Peak learning rate of the head when fine-tuning.", gt=0, le=1)
    body_lr_ratio: float = _f(1.0, "Body's learning rate as a share of the head's.", ge=0, le=1)
    licence: str | None = _f(None, "Licence of the weights where the hub does not say.")


class StudentSection(Section):
    model: str = _f("auto", "A student of the table, or auto: the best that fits.")
    weights: Literal["auto", "pretrained", "random"] = _f("auto", "Where the student starts.")
    input_size: Annotated[int, Field(ge=32, le=512)] | Auto = _f("auto", "Square input in pixels.")


class DistillSection(Section):
    epochs: Annotated[int, Field(ge=1, le=10_000)] | Auto = _f("auto", "Epochs of each arm.")
    batch_size: int = _f(32, "Images a step.", ge=2, le=4096)
    lr: float = _f(1e-3, "Peak learning rate (AdamW, warm-up then cosine).", gt=0, le=1)
    weight_decay: float = _f(0.01, "AdamW weight decay.", ge=0, le=1)
    warmup: float = _f(0.15, "Share of the steps that warm up.", ge=0, lt=1)
    ce: float = _f(1.0, "Weight of cross entropy on the labels.", ge=0)
    kd: float = _f(1.0, "Weight of the KL term on softened logits.", ge=0)
    align_uniform: float = _f(1.0, "Weight of the Alignment/Uniformity term.", ge=0)
    temperature: float = _f(4.0, "Softening of both logits in the KL term.", gt=0, le=100)
    align_alpha: float = _f(2.0, "Power of the alignment distance.", gt=0, le=8)
    uniform_t: float = _f(2.0, "Scale of the uniformity kernel.", gt=0, le=20)
    projection_dim: int = _f(128, "Width of the shared embedding.", ge=2, le=4096)
    views: Annotated[int, Field(ge=1, le=1000)] | Auto = _f(
        "auto", "Stored views of each training image."
    )


class ExportSection(Section):
    input: Literal["auto", "uint8_nhwc", "float_nchw"] = _f("auto", "What the graph takes.")
    opset: Annotated[int, Field(ge=13, le=20)] | Auto = _f("auto", "ONNX opset.")
    parity_images: int = _f(256, "Real images for the comparison with torch.", ge=1, le=10_000)
    eval_images: int = _f(2000, "Test images packed for the board (0: none).", ge=0)


class QuantizeSection(Section):
    calibration_images: int = _f(256, "Training images that set the INT8 ranges.", ge=8, le=10_000)
    method: Literal["minmax", "entropy", "percentile"] = _f("minmax", "How ranges are found.")
    max_drop: Fraction = _f(0.01, "Validation top-1 that INT8 may lose (budget's drop if less).")


class BenchSection(Section):
    provider: Literal["cpu", "cuda", "tensorrt"] = _f("cpu", "Execution provider measured here.")
    min_seconds: float = _f(1.0, "Least seconds of each timed run.", gt=0, le=3600)
    min_runs: int = _f(130, "Least number of timed runs.", ge=11, le=1_000_000)


class BudgetSection(Section):
    """The limits; what is not given comes from the device's profile, `null` there is no limit."""

    latency_s: float | None = _f(None, "Seconds for one image at batch 1.", gt=0, le=3600)
    size_bytes: int | None = _f(None, "Bytes of the chosen model file.", gt=0)
    memory_bytes: int | None = _f(None, "Peak bytes of the process that runs it.", gt=0)
    min_top1: float | None = _f(None, "Least top-1 on test, as a fraction.", gt=0, le=1)
    max_top1_drop: float | None = _f(None, "Most top-1 lost by conversion.", ge=0, le=1)

    def limits(self) -> Limits:
        """The same limits for the result document."""
        return Limits(**self.model_dump())


class Recipe(Section):
    """What to build. Every field has a default; `auto` is derived, with a reason."""

    name: str | None = _f(None, "Name of the run.", max_length=100)
    seed: int = _f(0, "Seed of all randomness.", ge=0, le=2**31 - 1)
    device: str = _f("host", "Profile name, alias or a path to a profile.")
    budget: BudgetSection = BudgetSection()
    data: DataSection = DataSection()
    teacher: TeacherSection = TeacherSection()
    student: StudentSection = StudentSection()
    distill: DistillSection = DistillSection()
    export: ExportSection = ExportSection()
    quantize: QuantizeSection = QuantizeSection()
    bench: BenchSection = BenchSection()


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
        if path.stat().st_size > MAX_RECIPE_BYTES:
            raise RecipeError(str(path), [f"larger than {MAX_RECIPE_BYTES:,} bytes"])
        tree = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f"recipe {path} does not exist. Give the path of a YAML file, or no recipe at all."
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError, ValueError) as error:
        text = " ".join(str(error).split())
        raise RecipeError(str(path), [f"cannot be read as YAML: {text}"]) from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise RecipeError(str(path), [f"must be a mapping, is a {type(tree).__name__}"])
    return tree


def parse_set(text: str) -> tuple[str, Any]:
    """`key=value` of `--set`; the value is YAML, so `true`, `3` and `auto` mean what they look like."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise UsageError(f'--set takes key=value, for example distill.epochs=30; got "{text}"')
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        raise UsageError(f'--set {key}: the value "{value}" is not valid YAML') from None


def compose(file: Path | None, options: Mapping[str, Any], settings: Mapping[str, Any]) -> Layered:
    """Defaults, then the file, then options, then `--set`; all problems are raised at once.

    `options` and `settings` map dotted paths to values; an option that is `None` was not given.
    """
    tree: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    if file is not None:
        tree = read_yaml(file)
        reasons.update({str(path): f"from {file.name}" for path, _ in leaves(tree)})
    for source, values in (("from the command line", options), ("from --set", settings)):
        for path, value in values.items():
            if value is not None:
                assign(tree, path, value)
                reasons[path] = source
    return Layered(validate(tree, str(file) if file else "the command line"), reasons)


def validate(tree: Mapping[str, Any], where: str) -> Recipe:
    """A nested mapping as a `Recipe`; every unknown key and bad value is named in one `RecipeError`."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        unknown = {
            ".".join(str(p) for p in e["loc"])
            for e in error.errors()
            if e["type"] == "extra_forbidden"
        }
        problems = [f"{key}  unknown key{_near_key(key)}" for key in sorted(unknown, key=str)]
        problems += [line for line in _merge(describe(error)) if line.split("  ")[0] not in unknown]
        raise RecipeError(where, problems) from None


def _near_key(key: str) -> str:
    return nearest(key, known_paths()) or nearest(
        key.rsplit(".", 1)[-1], {p.rsplit(".", 1)[-1] for p in known_paths()}
    )


def _merge(lines: list[str]) -> list[str]:
    """Unions such as `int | auto` give one line for each member; keep one line a path."""
    merged: dict[str, str] = {}
    for line in lines:
        path, _, text = line.partition("  ")
        for member in (".int", ".float", ".bool", ".str", ".literal['auto']", ".constrained-int"):
            path = path.removesuffix(member)
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
            yield f"{pad}{key}: {json.dumps(value, ensure_ascii=False)}  # {reason}"


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


def autos(recipe: Recipe) -> list[str]:
    """Dotted paths that still say `auto`."""
    return [path for path, value in leaves(recipe.model_dump()) if value == "auto"]


__all__ = [
    "BUILTIN_DATA",
    "Layered",
    "Recipe",
    "Resolved",
    "autos",
    "compose",
    "hash_of",
    "parse_set",
    "replace",
    "validate",
]
