"""What a generator is asked for: templates of a domain, class names as people say them, attributes drawn by seed.

A user's `prompts.yaml` may say any part of it, and what it leaves out is the domain's:

    domain: product
    templates: ["{a class} on a white table", "a catalogue photo of {a class}"]
    attributes: {light: [daylight, studio light], view: ["seen from above", ""]}
    classes: {n02124075: Egyptian cat, boot: [ankle boot, leather boot]}
    negative: drawing, text

`{class}` is the name, `{a class}` the name with its article. One option of each attribute follows the template, or
stands where the template has `{light}`; an empty option says nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter
from typing import Any

from edgedistill.errors import RecipeError, UsageError, nearest, unknown
from edgedistill.plainyaml import read_plain
from edgedistill.synth.words import apart

CLASS, A_CLASS = "class", "a class"
MAX_FILE_BYTES = 1_000_000
MAX_PROMPT = 300
"""Characters; text encoders read 77 tokens and drop the rest."""
KEYS = ("domain", "templates", "attributes", "classes", "negative")
_WORDNET_ID = re.compile(r"n\d{8}")
_MARKS = ("easy", "hard")
"""Ends of class names that are about the data set and not about the class."""


@dataclass(frozen=True)
class Domain:
    """How images of a kind are asked for."""

    templates: tuple[str, ...]
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    negative: str = ""


_LIGHT = ("", "in daylight", "in soft light", "in harsh light", "at dusk", "indoors")
_QUALITY = "drawing, painting, cartoon, text, watermark, collage, frame"
DOMAINS: Mapping[str, Domain] = {
    "photo": Domain(
        (
            "a photo of {a class}", "a close-up photo of {a class}", "{a class} in its surroundings, photo",
            "a photo of {a class} from some distance",
        ),
        {
            "light": _LIGHT,
            "view": ("", "from the side", "from the front", "from above", "slightly blurred"),
        },
        _QUALITY,
    ),
    "scene": Domain(
        ("a photo of {a class}", "the inside of {a class}", "a wide view of {a class}", "a corner of {a class}"),
        {"light": _LIGHT, "people": ("", "with people", "without people")},
        _QUALITY,
    ),
    "texture": Domain(
        ("a close-up of {class} texture", "a {class} surface", "a photo of something {class}", "{class} material"),
        {"light": _LIGHT, "scale": ("", "very close", "from some distance")},
        _QUALITY,
    ),
    "product": Domain(
        (
            "a product photo of {a class}", "{a class} on a white background", "{a class} on a table",
            "a photo of {a class} in a catalogue",
        ),
        {"view": ("", "from the side", "from the front", "from above", "at an angle")},
        _QUALITY,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class PromptBook:
    """Every prompt of a job as a function of (seed, label, number): `names` are the phrases of each class in order."""

    templates: tuple[str, ...]
    attributes: Mapping[str, tuple[str, ...]]
    names: tuple[tuple[str, ...], ...]
    negative: str

    def prompt(self, seed: int, label: int, number: int) -> str:
        """The prompt of the image `number` of class `label`."""
        draws = _draws(f"{seed}/{label}/{number}")
        name = _pick(self.names[label], draws[0])
        template = _pick(self.templates, draws[1])
        chosen = {
            key: _pick(options, _draws(f"{seed}/{label}/{number}/{key}")[0])
            for key, options in self.attributes.items()
        }
        placed = {key for key in _fields(template) if key in chosen}
        text = _filled(template, {CLASS: name, A_CLASS: with_article(name), **chosen})
        tail = [words for key, words in chosen.items() if words and key not in placed]
        return ", ".join([text, *tail])

    def document(self) -> dict[str, Any]:
        """The book as plain data, for a job's file and its hash."""
        return {
            "templates": list(self.templates),
            "attributes": {key: list(options) for key, options in self.attributes.items()},
            "names": [list(phrases) for phrases in self.names],
            "negative": self.negative,
        }


def book_for(classes: Sequence[str], domain: str, file: Path | None = None) -> PromptBook:
    """The prompts of `classes`: those of a domain, with what the user's file says in its place.

    Raises `UsageError` for an unknown domain and for class names that say nothing, `RecipeError` with every problem of
    the file.
    """
    values = _read(file, classes) if file is not None else {}
    domain = values.get("domain", domain)
    if domain not in DOMAINS:
        raise UsageError(unknown("domain of prompts", domain, DOMAINS))
    known = DOMAINS[domain]
    given: Mapping[str, tuple[str, ...]] = values.get("classes", {})
    if codes := [name for name in classes if _WORDNET_ID.fullmatch(name) and name not in given]:
        raise UsageError(
            f"the classes {', '.join(codes[:5])}{' and more' if len(codes) > 5 else ''} are WordNet numbers, which "
            "no generator knows. Say what they are in a prompts file:  classes: {"
            + codes[0]
            + ": ...}"
        )
    return PromptBook(
        templates=values.get("templates", known.templates),
        attributes=values.get("attributes", known.attributes),
        names=tuple(given.get(name, (clean(name),)) for name in classes),
        negative=values.get("negative", known.negative),
    )


def bare_book(classes: Sequence[str]) -> PromptBook:
    """The names alone, for a generator that is asked by number."""
    return PromptBook(("{class}",), {}, tuple((name,) for name in classes), "")


def clean(name: str) -> str:
    """A class name as people say it: `Faces_easy` is "faces", `001.Black_footed_Albatross` "black footed albatross".

    A name without spaces that is two known words is taken apart (`grocerystore`) where symspellpy is installed.
    """
    text = re.sub(r"^\d+[._\s-]+", "", name.strip()) or name
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    text = re.sub(r"(?<=\w\w)-(?=\w\w)", " ", text.replace("/", " or "))
    words = re.sub(r"[_\s]+", " ", text).strip().split(" ")
    if len(words) > 1 and words[-1].lower() in _MARKS:
        words = words[:-1]
    if len(words) == 1 and words[0].isalpha() and not words[0].isupper():
        words = apart(words[0].lower())
    return " ".join(word if _keeps_case(word) else word.lower() for word in words)


def _keeps_case(word: str) -> bool:
    """Whether capitals of a word mean something: `T-shirt`, `BMW`."""
    return word.isupper() or (len(word) > 1 and word[1] == "-")


def with_article(name: str) -> str:
    """The name with "a" or "an"; a plural stays as it is."""
    last = name.split(" ")[-1].lower()
    if last.endswith("s") and not last.endswith(("ss", "us", "is")):
        return name
    return f"{'an' if name[:1].lower() in 'aeio' or name.lower().startswith('um') else 'a'} {name}"


def _draws(text: str) -> tuple[int, int]:
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")


def _pick(options: Sequence[str], draw: int) -> str:
    return options[draw % len(options)]


def _fields(template: str) -> list[str]:
    """Names in braces. Raises ValueError for braces that do not close, or that hold more than a name."""
    found = []
    for _, name, spec, conversion in Formatter().parse(template):
        if name is not None:
            if spec or conversion:
                raise ValueError(f"{{{name}...}} holds more than a name")
            found.append(name)
    return found


def _filled(template: str, values: Mapping[str, str]) -> str:
    """The template with its names replaced; nothing that stands in a value is read as a template again."""
    parts = []
    for literal, name, _, _ in Formatter().parse(template):
        parts.append(literal)
        if name is not None:
            parts.append(values[name])
    return "".join(parts)


# -- a user's file --------------------------------------------------------------------------------


def _read(file: Path, classes: Sequence[str]) -> dict[str, Any]:
    """What a prompts file says, checked. Raises `RecipeError` with every problem at once."""
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_FILE_BYTES + 1)
        if len(raw) > MAX_FILE_BYTES:
            raise ValueError(f"it has more than {MAX_FILE_BYTES:,} bytes")
        tree = read_plain(raw.decode("utf-8"))
    except FileNotFoundError:
        raise UsageError(f"prompts file {file} does not exist") from None
    except (OSError, ValueError) as error:
        raise RecipeError(str(file), [f"cannot be read: {error}"]) from None
    if not isinstance(tree, dict):
        raise RecipeError(str(file), [f"must be a mapping with some of {', '.join(KEYS)}"])
    problems = [
        f"{key}  unknown key{nearest(str(key), KEYS) or '.'} Known: {', '.join(KEYS)}"
        for key in tree
        if key not in KEYS
    ]
    values: dict[str, Any] = {}
    for key in ("domain", "negative"):
        if key in tree:
            if isinstance(tree[key], str):
                values[key] = tree[key]
            else:
                problems.append(f"{key}  must be text; got {tree[key]!r}")
    attributes = _attributes(tree.get("attributes", {}), problems)
    if "attributes" in tree:
        values["attributes"] = attributes
    if "templates" in tree:
        known = DOMAINS.get(values.get("domain", "photo"), DOMAINS["photo"])
        places = {*(attributes if "attributes" in tree else known.attributes)}
        values["templates"] = _templates(tree["templates"], places, problems)
    if "classes" in tree:
        values["classes"] = _classes(tree["classes"], classes, problems)
    if problems:
        raise RecipeError(str(file), problems)
    return values


def _texts(
    value: object, path: str, problems: list[str], *, empty: bool = False
) -> tuple[str, ...]:
    """One text or several, each of a line and of bounded length."""
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not found:
        problems.append(f"{path}  must be text, or a list of texts; got {value!r}"[:MAX_PROMPT])
        return ()
    for item in found:
        if not isinstance(item, str) or "\n" in item or not (item.strip() or empty):
            problems.append(f"{path}  must be text of one line; got {item!r}"[:MAX_PROMPT])
        elif len(item) > MAX_PROMPT:
            problems.append(
                f"{path}  has {len(item):,} characters, at most {MAX_PROMPT} are allowed"
            )
    return tuple(str(item).strip() for item in found)


def _templates(value: object, places: set[str], problems: list[str]) -> tuple[str, ...]:
    found = _texts(value, "templates", problems)
    for template in found:
        try:
            names = _fields(template)
        except ValueError as error:
            problems.append(f"templates  {template!r} cannot be read: {error}")
            continue
        allowed = {CLASS, A_CLASS, *places}
        for name in names:
            if name not in allowed:
                shown = ", ".join(f"{{{one}}}" for one in sorted(allowed))
                problems.append(f"templates  {template!r} has {{{name}}}; allowed: {shown}")
        if not {CLASS, A_CLASS} & set(names):
            problems.append(
                f"templates  {template!r} names no class: it needs {{class}} or {{a class}}"
            )
    return found


def _attributes(value: object, problems: list[str]) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, dict):
        problems.append(
            f"attributes  must be a mapping of a name to its options; got {value!r}"[:MAX_PROMPT]
        )
        return {}
    for key in value:
        if key in (CLASS, A_CLASS) or not re.fullmatch(r"[A-Za-z]\w*", str(key)):
            problems.append(f"attributes.{key}  must be called by a word other than class")
    return {
        str(key): _texts(options, f"attributes.{key}", problems, empty=True)
        for key, options in value.items()
    }


def _classes(
    value: object, classes: Sequence[str], problems: list[str]
) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, dict):
        problems.append(
            f"classes  must be a mapping of a class to its phrases; got {value!r}"[:MAX_PROMPT]
        )
        return {}
    for key in value:
        if str(key) not in classes:
            problems.append(
                f"classes.{key}  the images have no such class{nearest(str(key), classes) or '.'}"
            )
    return {str(key): _texts(phrases, f"classes.{key}", problems) for key, phrases in value.items()}
