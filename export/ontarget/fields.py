"""Reads a document that may be hostile: bounded size, every field's type checked, no path outside
its folder.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

MAX_DOCUMENT_BYTES = 16_000_000
SHA256 = re.compile(r"[0-9a-f]{64}\Z")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class ContractError(ValueError):
    """A bundle, evaluation set or array that is damaged or of another version; one paragraph."""


def shown(value: object, limit: int = 60) -> str:
    """A short, printable form of an untrusted value for an error text."""
    text = ascii(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def read_json(path: Path) -> Any:
    """The object in a JSON file of at most 16 MB.

    Raises ContractError for a file that is missing, too large, not UTF-8, not JSON, not an object,
    or that has a key twice, NaN, or an integer of more than 20 digits.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_DOCUMENT_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ContractError(f"{path} cannot be read: {reason}.") from None
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise ContractError(
            f"{path} is larger than {MAX_DOCUMENT_BYTES} bytes, which is the most allowed."
        )
    try:
        document = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_int=_short_int,
        )
    except RecursionError:
        raise ContractError(f"{path} is nested too deeply.") from None
    except ValueError as error:
        raise ContractError(f"{path} is not valid JSON: {shown(str(error), 160)}.") from None
    if not isinstance(document, dict):
        raise ContractError(f"{path} must hold a JSON object, got {type(document).__name__}.")
    return document


def _unique(pairs: Any) -> Any:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return document


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a number that is allowed")


def _short_int(text: str) -> int:
    if len(text) > 20:
        raise ValueError("an integer has more than 20 digits")
    return int(text)


class Fields:
    """Typed access to one JSON object; every error names the file and the path of the field."""

    def __init__(self, value: object, where: str, at: str = "") -> None:
        if not isinstance(value, dict):
            raise ContractError(
                f"{where}: {at or 'the document'} must be an object, got {shown(value)}."
            )
        self._value = value
        self.where = where
        self.at = at

    def _path(self, key: str) -> str:
        return f"{self.at}.{key}" if self.at else key

    def fail(self, key: str, need: str) -> ContractError:
        """The error for a field that is missing or of a wrong kind."""
        if key not in self._value:
            return ContractError(
                f'{self.where}: "{self._path(key)}" is missing; it must be {need}.'
            )
        got = shown(self._value[key])
        return ContractError(f'{self.where}: "{self._path(key)}" must be {need}, got {got}.')

    def text(self, key: str, limit: int = 1000, empty: bool = False) -> str:
        """A string of printable text, at most `limit` characters."""
        value = self._value.get(key)
        if (
            not isinstance(value, str)
            or len(value) > limit
            or _CONTROL.search(value)
            or not (value or empty)
        ):
            raise self.fail(key, f"text of at most {limit} characters without control characters")
        return value

    def name(self, key: str) -> str:
        """A name that is safe as a file part, an array name and on a terminal."""
        value = self._value.get(key)
        if not isinstance(value, str) or not NAME.match(value):
            raise self.fail(key, "a name of letters, digits, '.', '_' and '-', at most 64")
        return value

    def choice(self, key: str, *allowed: str) -> str:
        """One of a closed list."""
        value = self._value.get(key)
        if not isinstance(value, str) or value not in allowed:
            raise self.fail(key, "one of " + ", ".join(f'"{a}"' for a in allowed))
        return value

    def sha256(self, key: str) -> str:
        """64 lower-case hexadecimal digits."""
        value = self._value.get(key)
        if not isinstance(value, str) or not SHA256.match(value):
            raise self.fail(key, "a sha256 of 64 lower-case hexadecimal digits")
        return value

    def integer(self, key: str, low: int, high: int) -> int:
        """An integer with low <= value <= high."""
        value = self._value.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.fail(key, f"an integer from {low} to {high}")
        return value

    def triple(self, key: str) -> Any:
        """Three finite numbers as a tuple of float."""
        value = self._value.get(key)
        if not isinstance(value, list) or len(value) != 3:
            raise self.fail(key, "a list of three numbers")
        out = []
        for item in value:
            if isinstance(item, bool) or not isinstance(item, (int, float)):
                raise self.fail(key, "a list of three numbers")
            number = float(item)
            if not math.isfinite(number):
                raise self.fail(key, "a list of three finite numbers")
            out.append(number)
        return tuple(out)

    def items(self, key: str, low: int, high: int) -> Any:
        """A list of low to high items, unchecked inside."""
        value = self._value.get(key)
        if not isinstance(value, list) or not low <= len(value) <= high:
            raise self.fail(key, f"a list of {low} to {high} items")
        return value

    def child(self, key: str) -> Fields:
        """The object at `key`."""
        if not isinstance(self._value.get(key), dict):
            raise self.fail(key, "an object")
        return Fields(self._value[key], self.where, self._path(key))

    def raw(self, key: str) -> object:
        """The value as it is, None when missing."""
        return self._value.get(key)


def inside(folder: Path, relative: str, where: str) -> Path:
    """The path of an existing plain file inside `folder`.

    Raises ContractError for an absolute path, a `..`, a backslash or a colon (a drive), control
    characters, a link that leaves the folder, and for what is not there.
    """
    parts = relative.split("/")
    if (
        not relative
        or len(relative) > 1000
        or _CONTROL.search(relative)
        or "\\" in relative
        or ":" in relative
        or any(part in ("", ".", "..") for part in parts)
    ):
        raise ContractError(
            f"{where}: the file name {shown(relative)} is not a plain path inside the folder: "
            "no absolute path, no '..', no '\\' and no ':' are allowed."
        )
    try:
        root = folder.resolve()
        path = root.joinpath(*parts)
        real = path.resolve()
        found = real.is_file()
    except (OSError, RuntimeError, ValueError):
        raise ContractError(f"{where}: the file {shown(relative)} cannot be reached.") from None
    if root not in real.parents:
        raise ContractError(
            f"{where}: the file {shown(relative)} is a link that leaves the folder."
        )
    if not found:
        raise ContractError(f"{where}: the file {shown(relative)} is named but is not in {folder}.")
    return path


def sha256_of(path: Path, most: int | None = None) -> str | None:
    """The sha256 of a file's bytes as hex, None when it cannot be read.

    Of a file of over `most` bytes it is that of the beginning: no file of that size, and no endless reading.
    """
    digest, read = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
                read += len(block)
                if most is not None and read > most:
                    break
    except OSError:
        return None
    return digest.hexdigest()
