"""What is wrong with a model file, told before a runtime opens it, and what a runtime lacks for it.

A model of a bundle is one protocol buffer, a `ModelProto` of onnx.proto, with all its weights in it. A tensor may name
another file instead ("external data"), any path at all, and the runtime would read that. Boards have no onnx package:
the fields that lead to tensors are followed here, everything else is stepped over unread.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import IO

from ontarget.fields import shown

MOST_BYTES = (1 << 31) - 1
"""What a protocol buffer can hold."""
MOST_DEPTH = 100
"""Messages in one another, as in protobuf's own readers."""
MOST_FIELDS = 1_000_000
"""Some seconds of reading; a classifier has some ten thousand."""
_BLOCK = 1 << 16
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_EXTERNAL_DATA, _DATA_LOCATION, _EXTERNAL = 13, 14, 1
_INSIDE = {
    "Model": {7: "Graph", 20: "TrainingInfo", 25: "Function"},
    "TrainingInfo": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {
        5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor",
    },
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}  # fmt: skip
"""By message, the numbers of its fields that lead to tensors, and the message there (onnx.proto)."""

_OTHERS = (
    (0, b"PK\x03\x04", "a zip archive, as PyTorch saves"),
    (0, b"\x80", "a pickle, as PyTorch saves"),
    (0, b"\x89HDF", "an HDF5 file, as Keras saves"),
    (4, b"TFL3", "a TensorFlow Lite model"),
    (4, b"ORTM", "a model in onnxruntime's own format"),
)


class _FaultError(Exception):
    """What is wrong with the file."""


def fault_of(path: Path) -> str | None:
    """Why no runtime may open the file, as "it is ..."; None for a whole ONNX model with all its weights.

    Whether the graph makes sense only a runtime can tell. Reads in blocks, steps over weights, and ends for any bytes.
    """
    try:
        with path.open("rb", buffering=0) as file:
            size = file.seek(0, 2)
            try:
                _walk(_Bytes(file), size)
            except _FaultError as error:
                return _other(file) or str(error)
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    return None


class _Bytes:
    """A file by position, one block of it in memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._start, self._block = file, 0, b""

    def byte(self, at: int) -> int:
        index = at - self._start
        if not 0 <= index < len(self._block):
            self._file.seek(at)
            self._start, self._block, index = at, self._file.read(_BLOCK), 0
            if not self._block:
                raise _damaged(at)
        return self._block[index]

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """An integer of at most 64 bits, and where it ends."""
        value = 0
        for place in range(at, min(at + 10, end)):
            byte = self.byte(place)
            value |= (byte & 0x7F) << 7 * (place - at)
            if byte < 0x80:
                return value & 0xFFFFFFFFFFFFFFFF, place + 1
        raise _damaged(at)


def _walk(data: _Bytes, size: int) -> None:
    """Follow every field that leads to a tensor. Raises _FaultError."""
    if not 0 < size <= MOST_BYTES:
        raise _FaultError(
            "it is empty" if not size else f"it has {size} bytes, an ONNX file at most {MOST_BYTES}"
        )
    at, fields, graphs = 0, 0, 0
    within = [("Model", size)]
    while within:
        message, end = within[-1]
        if at == end:
            within.pop()
            continue
        began, fields = at, fields + 1
        tag, at = data.varint(at, end)
        number, kind = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise _damaged(began)
        if fields > MOST_FIELDS:
            raise _FaultError(f"it has over {MOST_FIELDS} fields, more than any classifier")
        if kind == _VARINT:
            value, at = data.varint(at, end)
            if message == "Tensor" and number == _DATA_LOCATION and value & 0xFFFFFFFF == _EXTERNAL:
                raise _external(began)
        elif kind == _BYTES:
            length, at = data.varint(at, end)
            inner = _INSIDE[message].get(number)
            if length > end - at or (inner and len(within) == MOST_DEPTH):
                raise _damaged(began)
            if message == "Tensor" and number == _EXTERNAL_DATA:
                raise _external(began)
            graphs += message == "Model" and inner == "Graph"
            if inner:
                within.append((inner, at + length))
            else:
                at += length
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise _damaged(began)
        if at > end:
            raise _damaged(began)
    if not graphs:
        raise _FaultError("it holds no graph")


def _damaged(at: int) -> _FaultError:
    return _FaultError(f"it is cut off or damaged, or no ONNX model at all (byte {at})")


def _external(at: int) -> _FaultError:
    return _FaultError(f"it keeps weights in another file (external data, byte {at})")


def _other(file: IO[bytes]) -> str | None:
    """What the file is instead, where its first bytes say so."""
    file.seek(0)
    head = file.read(16)
    for at, mark, what in _OTHERS:
        if head[at:].startswith(mark):
            return f"it is {what}"
    return None


_LACKS = (
    (r"(\S+):(\w+)\(-?\d+\) is not a registered function", "the operator {1} of the domain {0}"),
    (r"No Op registered for (\w+) with domain_version of (\d+)", "the operator {0} of opset {1}"),
    (
        r"Opset (\d+) is under development.*for domain (\S+) is till opset (\d+)",
        "opset {0} of {1}: it knows up to {2}",
    ),
    (
        r"Unsupported model IR version: (\d+), max supported IR version: (\d+)",
        "IR version {0}: it knows up to {1}",
    ),
    (
        r"Could not find an implementation for (?:the node \S*:)?(\w+)\((\d+)\)",
        "the operator {0} of opset {1} for these types",
    ),
)


def lacking(error: str) -> str | None:
    """What onnxruntime says that it does not have for a file, from its error; None for another fault."""
    for pattern, words in _LACKS:
        found = re.search(pattern, error, re.DOTALL)
        if found:
            return words.format(*(shown(part, 80).strip("'") for part in found.groups()))
    return None


_MARKS = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : |^Load model from .* failed:|/\S+\.(cc|h):\d+ [^()]*\(.*?\) (?=[A-Z[])"
)


def said(error: str) -> str:
    """What onnxruntime says, without its marks, the path of the file and the signatures of its functions."""
    text = " ".join(_MARKS.sub("", _MARKS.sub("", error)).split())
    return shown(text.rstrip("."), 300)
