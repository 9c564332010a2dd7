"""The stage that stores what the teacher says of every view, shard by shard; a broken try goes on at the next one.

Shards know nothing of each other: several processes may store parts of one cache at once, and whoever finds all
shards there writes the index.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from edgedistill.errors import DocumentError, StoppedError
from edgedistill.files import sha256_file
from edgedistill.nets import fast_arithmetic, pick_device
from edgedistill.progress import Advance, Face
from edgedistill.rundir import Work
from edgedistill.teacher.cache import INDEX, Entry, Index, Lectures, Records, said
from edgedistill.teacher.records import (
    Content,
    Shard,
    pack_features,
    pack_logits,
    shard_bytes,
)

BATCH = 128
TIMED_BATCHES = 3
"""Batches after the first that tell how long the rest will take."""
WORTH_SAYING_S = 10.0
"""Storing that takes less is told as a detail: one line a stage is enough for it."""
SPARE_BYTES = 20_000_000
"""What is left free on the disk for headers, the index and the stages to come."""


class Storage(NamedTuple):
    """What storing takes: bytes on disk, and image passes of the teachers."""

    bytes: int
    images: int


def plan_storage(content: Content) -> Storage:
    """Bytes that the records of a cache take, and image passes to make them."""
    rows = [content.row_bytes(lesson.teacher) for lesson in content.lessons]
    return Storage(content.images * sum(rows), content.images * len(rows))


def store(
    work: Work,
    content: Content,
    lecturers: Sequence[Lectures],
    face: Face,
    part: tuple[int, int] = (0, 1),
) -> dict[str, Any]:
    """Store the shards that are missing, with `part` (k, n) those whose number leaves k over n; then the index.

    Another process with another part may be at work in the same folder. The index is written when no shard is
    missing; `facts["missing"]` counts those that are. Raises `TeacherError` for a number that is not finite and
    `StoppedError` when the disk is short.
    """
    shards = content.shards()
    found = {shard.name: _kept(work, content, shard) for shard in shards}
    mine = [s for s in shards[part[0] :: part[1]] if found[s.name] is None]
    _check_disk(work, content, mine)
    with face.bar("teacher: storing outputs", len(content.lessons) * content.images) as advance:
        advance(sum(s.rows for s in shards if found[s.name] is not None))
        for teacher in sorted({shard.lesson.teacher for shard in mine}):
            own = [shard for shard in mine if shard.lesson.teacher == teacher]
            pace = _Pace(face, _words(content, teacher, own), sum(shard.rows for shard in own))
            for shard in own:
                data = _shard(content, shard, lecturers[teacher], [pace.seen, advance])
                work.write(shard.name, data)
                pace.tell()
    entries = [found[shard.name] or _kept(work, content, shard) for shard in shards]
    return _finish(work, content, [entry for entry in entries if entry is not None], len(shards))


def _finish(work: Work, content: Content, entries: list[Entry], shards: int) -> dict[str, Any]:
    if len(entries) == shards:
        index = Index(
            about=dict(content.about),
            images=content.images,
            widths=list(content.widths),
            classes=content.classes,
            top_k=content.kept,
            shards=entries,
        )
        work.write(INDEX, json.dumps(index.model_dump(by_alias=True), indent=1) + "\n")
    return {
        "views": len({lesson.view for lesson in content.lessons}),
        "lessons": len(content.lessons),
        "images": content.images,
        "passes": plan_storage(content).images,
        "bytes": sum(entry.bytes for entry in entries),
        "widths": list(content.widths),
        "classes": content.classes,
        "top_k": content.kept,
        "missing": shards - len(entries),
        "about": dict(content.about),
    }


def _kept(work: Work, content: Content, shard: Shard) -> Entry | None:
    """The index' entry of a shard that is there and whole, else `None`."""
    path = work.path(shard.name)
    if not path.exists():
        return None
    try:
        records = Records(work.folder, content, shard, None)
    except DocumentError:
        return None
    if not records.whole():
        return None
    return Entry(
        name=shard.name,
        teacher=shard.lesson.teacher,
        view=shard.lesson.view,
        first=shard.first,
        rows=shard.rows,
        arithmetic=records.arithmetic,
        bytes=path.stat().st_size,
        sha256=sha256_file(path),
    )


def _shard(
    content: Content, shard: Shard, lecturer: Lectures, counters: Sequence[Advance]
) -> bytes:
    """A shard's file; logits are packed batch by batch, as many classes in full would fill the memory."""
    features: list[Tensor] = []
    logits: list[Mapping[str, Tensor]] = []
    end = shard.first + shard.rows
    for start in range(shard.first, end, BATCH):
        index = np.arange(start, min(start + BATCH, end), dtype=np.int64)
        f, z = said(lecturer, shard.lesson, index)
        features.append(f.cpu())
        logits.append(pack_logits(z.cpu(), content.kept))
        for count in counters:
            count(len(index))
    packed, scale = pack_features(torch.cat(features))
    tensors = {name: torch.cat([part[name] for part in logits]) for name in logits[0]}
    arithmetic = fast_arithmetic(pick_device())
    return shard_bytes(content, shard, {"features": packed, **tensors}, scale, arithmetic)


def _check_disk(work: Work, content: Content, mine: Sequence[Shard]) -> None:
    needed = sum(shard.rows * content.row_bytes(shard.lesson.teacher) for shard in mine)
    free = shutil.disk_usage(work.folder).free
    if needed and needed + SPARE_BYTES > free:
        raise StoppedError(
            f"the teacher's outputs take {_size(needed)} more ({len(content.lessons):,} views of "
            f"{content.images:,} images) and the disk has {_size(free)} free. Free some space, store "
            "fewer views (--set distill.views=...) or fewer logits (--set distill.top_k=...), or ask the "
            "teacher at each step (--set distill.targets=live); then give the same command again."
        )


# -- size and time, said beforehand ----------------------------------------------------------------


class _Pace:
    """Says once, after a few batches, how long the rest of `images` will take; the first batch is warm-up."""

    def __init__(self, face: Face, words: str, images: int) -> None:
        self.face, self.words, self.images = face, words, images
        self.start = self.first = time.monotonic()
        self.done = self.warm = self.batches = 0
        self.told = False

    def seen(self, images: int) -> None:
        """Count a batch."""
        self.done += images
        self.batches += 1
        if self.batches == 1:
            self.first, self.warm = time.monotonic(), images
        if self.batches > TIMED_BATCHES:
            self.tell()

    def tell(self) -> None:
        """Say size and time, if they are not said yet."""
        if self.told:
            return
        self.told = True
        once = self.batches == 1
        since, done = (self.start, self.done) if once else (self.first, self.done - self.warm)
        seconds = (time.monotonic() - since) * self.images / done
        text = f"{self.words}, about {_time(seconds)}"
        if seconds >= WORTH_SAYING_S:
            self.face.say(f"    {text}")
        else:
            self.face.detail(text)


def _words(content: Content, teacher: int, own: Sequence[Shard]) -> str:
    views = [lesson for lesson in content.lessons if lesson.teacher == teacher]
    count = len(views)
    text = f"storing {count:,} view{'' if count == 1 else 's'} of {content.images:,} images"
    if len(content.widths) > 1:
        text += f", teacher {teacher + 1} of {len(content.widths)}"
    size = content.row_bytes(teacher)
    text += f": {_size(size * content.images * count)}"
    rows = sum(shard.rows for shard in own)
    return text if rows == content.images * count else f"{text}, {_size(size * rows)} to do here"


def _size(count: int) -> str:
    return f"{_figures(count / 1e9)} GB" if count >= 1e9 else f"{_figures(count / 1e6)} MB"


def _time(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{_figures(seconds / length)} {unit}"
    return f"{max(1, round(seconds))} s"


def _figures(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"
