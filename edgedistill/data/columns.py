"""Which column of a table holds the images and which the labels: by type, or by the name that is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgedistill.data.dataset import printable
from edgedistill.errors import DataError

USUAL_LABEL = "label"
_INTEGERS = frozenset(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
_TEXTS = frozenset(("string", "large_string"))
_BYTES = frozenset(("binary", "large_binary"))


@dataclass(frozen=True)
class Columns:
    """The column of the images and whether the library would decode it, that of the labels, and class names.

    `label` is `None` where none is wanted, `classes` where the column does not name them.
    """

    image: str
    decodes: bool
    label: str | None
    classes: tuple[str, ...] | None

    @property
    def names(self) -> tuple[str, ...]:
        """Both columns."""
        return (self.image,) if self.label is None else (self.image, self.label)


def find_columns(
    features: Mapping[str, Any], image: str | None, label: str | None, labelled: bool, shown: str
) -> Columns:
    """The columns of a table with `features`. Raises DataError, with all columns, where it is not clear which.

    Without labels, the name of the image's column is a wish only.
    """
    if image not in features and not labelled:
        image = None
    chosen = _image(features, image, shown)
    decodes = _type(features[chosen]) == "Image"
    if not labelled:
        return Columns(chosen, decodes, None, None)
    named = _label(features, label, shown)
    names = getattr(features[named], "names", None)
    return Columns(chosen, decodes, named, tuple(names) if names else None)


def _image(features: Mapping[str, Any], asked: str | None, shown: str) -> str:
    decoded = [name for name, feature in features.items() if _type(feature) == "Image"]
    encoded = [name for name, feature in features.items() if _holds_bytes(feature)]
    if asked is not None:
        if asked in decoded or asked in encoded:
            return asked
        raise _unclear(f"no column {printable(asked)!r} of images", features, "image", shown)
    found = decoded or encoded
    if len(found) != 1:
        count = f"{len(found)} columns" if found else "no column"
        raise _unclear(f"{count} of images", features, "image", shown)
    return found[0]


def _label(features: Mapping[str, Any], asked: str | None, shown: str) -> str:
    classes = [name for name, feature in features.items() if _type(feature) == "ClassLabel"]
    plain = [name for name, feature in features.items() if _is_plain(feature)]
    if asked is not None:
        if asked in classes or asked in plain:
            return asked
        raise _unclear(f"no column {printable(asked)!r} of labels", features, "label", shown)
    found: Sequence[str] = classes or plain
    if len(found) > 1 and not classes and USUAL_LABEL in found:
        found = [USUAL_LABEL]
    if len(found) != 1:
        count = f"{len(found)} columns that may be the labels" if found else "no column of labels"
        raise _unclear(count, features, "label", shown)
    return found[0]


def _unclear(fault: str, features: Mapping[str, Any], what: str, shown: str) -> DataError:
    listed = ", ".join(f"{printable(name)} ({_described(f)})" for name, f in features.items())
    return DataError(
        f"{shown} has {fault}. Its columns are: {listed or 'none'}. "
        f"Name the right one with --set data.{what}_column=..."
    )


def _type(feature: Any) -> str:
    return type(feature).__name__


def _described(feature: Any) -> str:
    return str(getattr(feature, "dtype", "")) if _type(feature) == "Value" else _type(feature)


def _holds_bytes(feature: Any) -> bool:
    """Whether a column is of encoded images without saying so: bytes, or bytes beside a path."""
    if isinstance(feature, dict):
        return "bytes" in feature and getattr(feature["bytes"], "dtype", "") in _BYTES
    return _type(feature) == "Value" and getattr(feature, "dtype", "") in _BYTES


def _is_plain(feature: Any) -> bool:
    return _type(feature) == "Value" and getattr(feature, "dtype", "") in _INTEGERS | _TEXTS
