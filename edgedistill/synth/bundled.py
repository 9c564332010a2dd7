"""The generators that come with the package, and what a generator's name stands for. Nothing heavy here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from edgedistill.errors import GeneratorError, UsageError, unknown

Kind = Literal["text_to_image", "image_to_image", "class_conditional"]

PREFIX = "bundled:"
HOME = Path(__file__).parent / "trained"
INDEX = "model_index.json"
CLASS_PIPELINE = "ClassConditionalPipeline"
FOR_DATA = {"builtin:fashion-mnist": "bundled:fashion-mnist"}
"""Generators that were trained on other images of the same kind as a built-in set."""
NONE = "none"


def local_name(generator: str) -> str:
    """The folder of a generator of the package; any other name stays. Raises `UsageError` for one that is not here."""
    if not generator.startswith(PREFIX):
        return generator
    name = generator.removeprefix(PREFIX)
    known = sorted(path.name for path in HOME.glob("*") if path.is_dir())
    if name not in known:
        raise UsageError(unknown("bundled generator", name, known))
    return str(HOME / name)


def generator_for(source: str) -> str:
    """The generator for images of `source` where none is named. Raises `UsageError` where there is none."""
    if (name := FOR_DATA.get(source)) and (HOME / name.removeprefix(PREFIX)).is_dir():
        return name
    raise UsageError(
        "no generator is named for synthetic images. Give a folder that diffusers' save_pretrained wrote, or the id of "
        "a diffusers model on a hub (--generator stabilityai/sd-turbo), or train one on your images:  "
        "edgedistill synth train"
    )


def kind_of(generator: str) -> Kind:
    """What a generator is asked by, from what its folder says; a model of a hub is asked by prompts."""
    by_class = _index(generator).get("_class_name") == CLASS_PIPELINE
    return "class_conditional" if by_class else "text_to_image"


def classes_of(generator: str) -> list[str]:
    """The classes that the folder of a generator names; none where it names none."""
    names = _index(generator).get("classes")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return []
    return names


def _index(generator: str) -> dict[str, Any]:
    try:
        found = json.loads((Path(local_name(generator)) / INDEX).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def places(generator: str, known: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """The number that a generator of the classes `known` has for each class that is `wanted`, by name.

    Capitals and signs do not count: "T-shirt/top" is "t_shirt_top". Raises `GeneratorError` for a class that it does
    not know, or knows twice.
    """
    names = [_plain(name) for name in known]
    missing = [name for name in wanted if names.count(_plain(name)) != 1]
    if missing:
        raise GeneratorError(
            f"the generator {generator} does not know {', '.join(missing[:5])}"
            f"{' and others' if len(missing) > 5 else ''}. Its classes: {', '.join(known[:20])}. "
            "Train one on your images:  edgedistill synth train"
        )
    return [names.index(_plain(name)) for name in wanted]


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())
