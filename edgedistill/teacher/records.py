"""Records of stored targets: what a teacher said of one view, as numbers in float16, and how they lie in shards.

A record is `features` (D) in float16 and either `logits` (C) in float16, less the largest, or the K largest of them:
`values` in float16, `classes` in uint16 (int32 above 65,536 classes) and `rest` in float32, the log-sum-exp of all
others.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from edgedistill.teacher.course import Lesson

SHARD_IMAGES, SHARD_BYTES = 8_192, 64_000_000
MOST_UINT16 = 65_536
SMALLEST, LARGEST = 2.0**-6, 65_504.0
"""Features whose largest lies between are float16 as they are; others are divided by a power of two, so that a number
with a 256th of the largest still has eleven bits."""
ABOUT = "about"


@dataclass(frozen=True)
class Shard:
    """A file of records: lesson, number within the lesson, first image and how many."""

    lesson: Lesson
    number: int
    first: int
    rows: int

    @property
    def name(self) -> str:
        """Name of the file."""
        return shard_name(self.lesson, self.number)


def shard_name(lesson: Lesson, number: int) -> str:
    """Name of a shard's file."""
    return f"t{lesson.teacher}-v{lesson.view:04d}-s{number:04d}.safetensors"


@dataclass(frozen=True)
class Content:
    """What a cache holds: lessons of `images` images, by teachers whose features are `widths` wide, and of what.

    `top_k` logits of each record are kept, all when it is `None`.
    """

    lessons: tuple[Lesson, ...]
    images: int
    widths: tuple[int, ...]
    classes: int
    top_k: int | None
    about: Mapping[str, str]

    @property
    def kept(self) -> int | None:
        """How many logits of a record are stored, `None` for all of them."""
        return None if self.top_k is None or self.top_k >= self.classes else self.top_k

    def layout(self, teacher: int) -> dict[str, tuple[torch.dtype, int]]:
        """Type and width of each tensor of a shard; width 0 is one number a row."""
        found = {"features": (torch.float16, self.widths[teacher])}
        if self.kept is None:
            return {**found, "logits": (torch.float16, self.classes)}
        ids = torch.uint16 if self.classes <= MOST_UINT16 else torch.int32
        return {
            **found,
            "values": (torch.float16, self.kept),
            "classes": (ids, self.kept),
            "rest": (torch.float32, 0),
        }

    def row_bytes(self, teacher: int) -> int:
        """Bytes of one record."""
        return sum(kind.itemsize * max(1, width) for kind, width in self.layout(teacher).values())

    def shards(self) -> list[Shard]:
        """Every shard, by teacher, view and image."""
        found = []
        for lesson in self.lessons:
            rows = max(1, min(SHARD_IMAGES, SHARD_BYTES // self.row_bytes(lesson.teacher)))
            starts = range(0, self.images, rows)
            found += [
                Shard(lesson, number, first, min(rows, self.images - first))
                for number, first in enumerate(starts)
            ]
        return found


def pack_features(features: Tensor) -> tuple[Tensor, float]:
    """Float32 features (N, D) in float16, and the power of two that they were divided by (mostly 1)."""
    largest = float(features.abs().max())
    scale = 1.0
    if largest > 0 and not SMALLEST <= largest <= LARGEST:
        scale = 2.0 ** (math.frexp(largest)[1] - 15)
    return (features.double() / scale).half(), scale


def pack_logits(logits: Tensor, kept: int | None) -> dict[str, Tensor]:
    """Logits (N, C), less the largest of each row, in float16; with `kept`, the largest and the mass of the rest.

    `rest` is taken against the rounded values, so that probabilities of the rest as a whole stay exact.
    """
    centred = logits.double()
    centred = centred - centred.amax(dim=1, keepdim=True)
    if kept is None:
        return {"logits": centred.clamp(min=-LARGEST).half()}
    chosen = centred.topk(kept, dim=1).indices.sort(dim=1).values
    values, order = centred.gather(1, chosen).sort(dim=1, descending=True, stable=True)
    chosen = chosen.gather(1, order)
    rounded = values.clamp(min=-LARGEST).half()
    others = centred.scatter(1, chosen, -math.inf).logsumexp(1)
    rest = others - values.logsumexp(1) + rounded.double().logsumexp(1)
    ids = torch.uint16 if logits.shape[1] <= MOST_UINT16 else torch.int32
    return {"values": rounded, "classes": chosen.to(ids), "rest": rest.float()}


def unpack_logits(record: Mapping[str, Tensor], classes: int) -> Tensor:
    """Float32 logits (B, C) of rows as `pack_logits` made them; the rest is spread evenly over the other classes."""
    if "logits" in record:
        return record["logits"].float()
    values = record["values"].float()
    others = record["rest"] - math.log(classes - values.shape[1])
    dense = others[:, None].repeat(1, classes)
    return dense.scatter_(1, record["classes"].long(), values)


def shard_bytes(
    content: Content, shard: Shard, tensors: dict[str, Tensor], scale: float, arithmetic: str
) -> bytes:
    """A shard as safetensors: the same records always give the same bytes.

    `scale` is that of the features, `arithmetic` what the teacher computed in (float32 or bfloat16).
    """
    mark = {
        **mark_of(content, shard),
        "scale": scale,
        "arithmetic": arithmetic,
        "sha256": digest_of(tensors),
    }
    # one key, as safetensors writes several in no fixed order
    return save_tensors(tensors, metadata={ABOUT: json.dumps(mark, sort_keys=True)})


def mark_of(content: Content, shard: Shard) -> dict[str, Any]:
    """What a shard says of itself in its header."""
    return {
        "about": dict(content.about),
        "teacher": shard.lesson.teacher,
        "view": shard.lesson.view,
        "first": shard.first,
        "rows": shard.rows,
    }


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the numbers, by name: what tells a shard that a broken try left from a damaged one."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
