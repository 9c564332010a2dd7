"""A study's file: one recipe, several arms that each change a part of it, and how many seeds. No torch.

Arms are named one by one, or are the levels of `factors`: the default and one change of it each.

The file is closed and hostile until it is read here: whatever is wrong in it, in its recipe or in an arm is told at
once, each problem with its path (`arms.kd.distill.temperature`).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_core import PydanticCustomError

from edgedistill.arms import DISTILLED, FINETUNE, PLAIN, PROBE, SYNTH
from edgedistill.document import describe
from edgedistill.errors import RecipeError, UsageError, nearest, unknown
from edgedistill.options import data_name
from edgedistill.recipe import Layered, Recipe, leaves, read_yaml, replace, validate
from edgedistill.schema import Section
from edgedistill.studyclaims import Claim, claims_faults
from edgedistill.studyfactors import Level, levels_of

KINDS = (PLAIN, DISTILLED, SYNTH, PROBE, FINETUNE)
PRETRAINED = (PROBE, FINETUNE)
"""Kinds whose student starts from pretrained weights, whatever the shared recipe says."""
SHIPPED = "study-"
MOST_ARMS, MOST_SEEDS = 100, 20
IMAGES = ("source", "image_column", "label_column", "unlabelled", "max_unlabelled", "licence")
"""What a recipe says of certain images, under `data`."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+.=-]{0,39}")
NOT_HERE = {
    "seed": "an arm has the seeds of the study (seeds: 3)",
    "name": "the name of an arm is its key",
    "proof": "a study has seeds and arms of its own, at its top",
}
"""Keys of a recipe that an arm may not set, with the reason."""


@dataclass(frozen=True)
class StudyArm:
    """One way of training: its kind, its whole recipe, and what it changes, by dotted path.

    `factor` is the one that it is a level of.
    """

    name: str
    kind: str
    layered: Layered
    changes: Mapping[str, Any]
    factor: str | None = None


@dataclass(frozen=True)
class Study:
    """What a study file asks for; `seeds` are those of every arm, in the order in which they run."""

    name: str
    seeds: tuple[int, ...]
    baseline: str
    arms: tuple[StudyArm, ...]
    claims: tuple[Claim, ...] = ()

    def chosen(self, only: tuple[str, ...]) -> tuple[StudyArm, ...]:
        """The arms that `only` names, or whose factor it names, in the order of the file; all where it is empty.

        Raises `UsageError`.
        """
        factors = [arm.factor for arm in self.arms if arm.factor]
        names = [*(arm.name for arm in self.arms), *dict.fromkeys(factors)]
        for name in only:
            if name not in names:
                raise UsageError(unknown("arm", name, names))
        return tuple(arm for arm in self.arms if not only or arm.name in only or arm.factor in only)


def _mapping(value: Any) -> Any:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise PydanticCustomError("mapping", "must be a mapping of recipe keys")
    return value


def _name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise PydanticCustomError(
            "name",
            "a name has 1 to 40 letters, digits and _ + . = -, and begins with one of the first two",
        )
    return value


def _recipe(value: Any) -> Any:
    if not isinstance(value, (str, Mapping)):
        raise PydanticCustomError("recipe", "must be a mapping of recipe keys, or a recipe's path")
    return value


class StudyFile(Section):
    """The outline of a study file; recipes are checked apart."""

    name: Annotated[str, AfterValidator(_name)] | None = None
    recipe: Annotated[Any, BeforeValidator(_recipe)] = {}
    seeds: int = Field(default=1, ge=1, le=MOST_SEEDS)
    baseline: str | None = None
    arms: dict[Annotated[str, AfterValidator(_name)], Annotated[Any, BeforeValidator(_mapping)]] = (
        Field(default={}, max_length=MOST_ARMS)
    )
    factors: Any = None
    claims: list[Claim] = Field(default=[], max_length=MOST_ARMS)


def load_study(path: Path, seeds: int | None = None, data: str | None = None) -> Study:
    """The study in the file `path`, or the shipped one of that name, with `seeds` and the images of `data` in the place
    of the file's; it is then named after them too.

    Raises `UsageError` where there is no such file, and `RecipeError` with every problem in it.
    """
    known = shipped()
    if not path.exists():
        path = known.get(str(path), path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UsageError(
            f"study {path} {what}. Give the path of a YAML file, or a name: {', '.join(known)}."
        )
    tree = read_yaml(path)
    tree, faults = _with_claims(tree, path)
    outline, problems = _outline(tree)
    problems += faults
    given, recipe = tree.get("arms"), tree.get("recipe")
    levels = levels_of(tree["factors"], problems) if "factors" in tree else []
    base, faults = _base(recipe, path)
    problems += [f"recipe{'' if line.startswith(' ') else '.'}{line}" for line in faults]
    found: list[StudyArm] = []
    for name, entry in (given if isinstance(given, Mapping) else {}).items():
        if isinstance(name, str) and (entry is None or isinstance(entry, Mapping)):
            levels.append(Level(name, None, dict(entry or {}), f"arms.{name}"))
    arms = [level.name for level in levels]
    problems += _arms_faults(levels)
    if data is not None:
        problems += _own_images(levels)
    for level in levels:
        found += _arm(level, base, faults, path.name, problems)
    baseline = tree.get("baseline")
    if isinstance(baseline, str) and arms and baseline not in arms:
        problems.append(f"baseline  {unknown('arm', baseline, arms)}")
    problems += claims_faults(outline.claims if outline else (), arms)
    if problems or outline is None:
        raise RecipeError(str(path), problems)
    first, name = found[0].layered.recipe.seed, outline.name or path.stem
    return Study(
        name=name if data is None else f"{name}-{data_name(data)}",
        seeds=tuple(first + k for k in range(seeds or outline.seeds)),
        baseline=outline.baseline or found[0].name,
        arms=tuple(found if data is None else [_on(data, arm) for arm in found]),
        claims=tuple(outline.claims),
    )


def shipped() -> dict[str, Path]:
    """The studies that come with edgedistill, by name."""
    home = Path(__file__).parent
    folders = [home / "_recipes", home.parent / "recipes"]
    files = [path for folder in folders for path in sorted(folder.glob(f"{SHIPPED}*.yaml"))]
    return {path.stem.removeprefix(SHIPPED): path for path in files}


def _with_claims(tree: Mapping[str, Any], study: Path) -> tuple[dict[str, Any], list[str]]:
    """The file with claims that stand in a file of their own beside it, and what is wrong with that one."""
    given = tree.get("claims")
    if not isinstance(given, str):
        return dict(tree), []
    rest = {key: value for key, value in tree.items() if key != "claims"}
    if not (study.parent / given).is_file():
        return rest, [
            f"claims  {given}: does not exist; give a list of claims, or the path of a file with them"
        ]
    try:
        return {**rest, "claims": read_yaml(study.parent / given).get("claims", [])}, []
    except (RecipeError, UsageError) as error:
        return rest, [f"claims  {given}: {error}"]


def _arms_faults(levels: Sequence[Level]) -> list[str]:
    """What is wrong with the arms as a whole, and with the names of levels."""
    faults = [] if levels else ["arms  a study has at least one arm, or factors"]
    if len(levels) > MOST_ARMS:
        faults.append(f"arms  {len(levels)} are more than the {MOST_ARMS} allowed")
    seen: set[str] = set()
    for level in levels:
        if level.name in seen:
            faults.append(f"{level.where}  there are two arms {level.name}")
        elif level.factor is not None and not NAME.fullmatch(level.name):
            faults.append(
                f"{level.where}  {level.name[:60]!r} is no name of an arm; name the level"
            )
        seen.add(level.name)
    return faults


def _outline(tree: Mapping[str, Any]) -> tuple[StudyFile | None, list[str]]:
    """The top of the file, or its problems."""
    try:
        return StudyFile.model_validate(tree), []
    except ValidationError as error:
        unknown_keys = [
            str(item["loc"][0])
            for item in error.errors(include_url=False)
            if item["type"] == "extra_forbidden"
        ]
        lines = [line.replace(".[key]  ", "  ") for line in describe(error)]
        rest = [line for line in lines if line.partition("  ")[0] not in unknown_keys]
        return None, [f"{key}  unknown key{_near(key)}" for key in unknown_keys] + rest


def _near(key: str) -> str:
    if key in Recipe.model_fields:
        return f"; recipe keys stand under recipe: {{{key}: ...}}"
    return nearest(key, StudyFile.model_fields)


def _base(given: Any, study: Path) -> tuple[dict[str, Any], list[str]]:
    """The recipe that all arms share, and its problems."""
    if isinstance(given, str):
        try:
            tree = read_yaml(study.parent / given)
        except RecipeError as error:
            return {}, [f"  {given}: {line}" for line in error.problems]
        except UsageError as error:
            return {}, [f"  {error}"]
        tree.pop("proof", None)
    elif isinstance(given, Mapping):
        tree = dict(given)
    else:
        return {}, []
    proof = [f"proof  {NOT_HERE['proof']}"] if "proof" in tree else []
    return tree, proof + _faults(tree)


def _faults(tree: Mapping[str, Any]) -> list[str]:
    try:
        validate(tree, "")
    except RecipeError as error:
        return list(error.problems)
    return []


def _arm(
    level: Level,
    base: Mapping[str, Any],
    known: list[str],
    file: str,
    problems: list[str],
) -> Iterator[StudyArm]:
    """The arm, where it holds; otherwise its `problems` are told, but for those that the shared recipe has."""
    name, where, entry = level.name, level.where, dict(level.entry)
    kind = entry.pop("arm", DISTILLED)
    if not isinstance(kind, str) or kind not in KINDS:
        problems.append(f"{where}.arm  {unknown('kind of arm', str(kind)[:40], KINDS)}")
    wrong = [key for key in NOT_HERE if key in entry]
    problems += [f"{where}.{key}  {NOT_HERE[key]}" for key in wrong]
    own = {key: value for key, value in entry.items() if key not in wrong}
    tree = merged(base, own)
    faults = [line for line in _faults(tree) if line not in known]
    problems += [f"{where}.{line}" for line in faults]
    changes = dict(leaves(own))
    if kind in PRETRAINED and changes.get("student.weights", "pretrained") != "pretrained":
        problems.append(f"{where}.student.weights  {kind} starts from pretrained weights")
    if kind == SYNTH and not faults and validate(tree, "").synth.images in (0, "auto"):
        problems.append(f"{where}.synth.images  {SYNTH} needs a number of synthetic images to keep")
    if problems:
        return
    reasons = {str(path): f"from {file}" for path, _ in leaves(base)}
    reasons.update(dict.fromkeys(changes, f"arm {name} of {file}"))
    layered = Layered(validate(tree, file), reasons)
    if kind in PRETRAINED:
        layered = replace(layered, {"student.weights": ("pretrained", f"what {kind} starts from")})
    yield StudyArm(name, kind, layered, changes, level.factor)


def _own_images(levels: Sequence[Level]) -> Iterator[str]:
    """Problems of arms that have images of their own, where all shall have the same others."""
    for level in levels:
        data = level.entry.get("data")
        own = data if isinstance(data, Mapping) else {}
        for key in IMAGES:
            if key in own:
                yield f"{level.where}.data.{key}  with --data, all arms have those images"


def _on(data: str, arm: StudyArm) -> StudyArm:
    """The arm on the images that were asked for; what the file says of its own is taken back."""
    told: dict[str, tuple[Any, str]] = {
        f"data.{key}": (None, "not of these images") for key in IMAGES
    }
    told["data.source"] = (data, "from the command line")
    return dataclasses.replace(arm, layered=replace(arm.layered, told))


def merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `own` in their places, section by section."""
    tree = dict(base)
    for key, value in own.items():
        below = tree.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        tree[key] = merged(below, value) if both else value  # type: ignore[arg-type]
    return tree
