"""What the name of a generator stands for, and what its folder says of it, without loading it. Nothing heavy here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from edgedistill.errors import GeneratorError, UsageError, unknown

Kind = Literal["text_to_image", "image_to_image", "class_conditional"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PREFIX, HOME = "bundled:", Path(__file__).parent / "trained"
FOR_DATA = {"builtin:fashion-mnist": "bundled:fashion-mnist"}
"""The generator of a built-in set, trained on other images of the same kind."""
INDEX = "model_index.json"
CLASS_PIPELINE = "ClassConditionalPipeline"


def folder_of(generator: str) -> Path | None:
    """The folder that a generator's name stands for, `None` for a model of a hub.

    Raises `UsageError` for a bundled one that does not exist.
    """
    if generator.startswith(PREFIX):
        known = [f"{PREFIX}{path.name}" for path in sorted(HOME.glob("*"))]
        if generator not in known:
            raise UsageError(unknown("bundled generator", generator, known))
        return HOME / generator.removeprefix(PREFIX)
    path = Path(generator).expanduser()
    return path if path.exists() or generator.startswith((".", "/", "~")) else None


def shown(generator: str) -> str:
    """The name that a ledger and a report give it: of a folder of yours, its last part."""
    folder = folder_of(generator)
    return generator if folder is None or generator.startswith(PREFIX) else folder.name


def kind_of(generator: str) -> Kind:
    """What a generator is asked by, from what its folder says; a model of a hub is asked by prompts."""
    by_class = _index(generator).get("_class_name") == CLASS_PIPELINE
    return "class_conditional" if by_class else "text_to_image"


def asked_by(text: str) -> Kind:
    """The kind of this name. Raises `UsageError` for another."""
    for kind in KINDS:
        if kind == text:
            return kind
    raise UsageError(unknown("kind of generator", text, KINDS))


def classes_of(generator: str) -> list[str]:
    """The classes that the folder of a generator names; none where it names none."""
    names = _index(generator).get("classes")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return []
    return names


def _index(generator: str) -> dict[str, Any]:
    folder = folder_of(generator)
    if folder is None:
        return {}
    try:
        found = json.loads((folder / INDEX).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def places(generator: str, known: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """The number that a generator of the classes `known` has for each class that is `wanted`, by name.

    A name that is the same stands for itself; else capitals and signs do not count, so that "t_shirt_top" is
    "T-shirt/top". Raises `GeneratorError` for a class that it does not know, or knows twice.
    """
    found = [_place(name, known, wanted) for name in wanted]
    missing = [name for name, place in zip(wanted, found, strict=True) if place is None]
    if missing:
        raise GeneratorError(
            f"the generator {generator} does not know {', '.join(missing[:5])}"
            f"{' and others' if len(missing) > 5 else ''}. Its classes: {', '.join(known[:20])}. "
            "Train one on your images:  edgedistill synth train"
        )
    return [place for place in found if place is not None]


def _place(name: str, known: Sequence[str], wanted: Sequence[str]) -> int | None:
    if known.count(name) == 1:
        return list(known).index(name)
    alike = [k for k, other in enumerate(known) if _plain(other) == _plain(name)]
    rivals = sum(_plain(other) == _plain(name) for other in wanted)
    return alike[0] if len(alike) == rivals == 1 else None


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())
