"""A unit's images as a WebDataset shard, which any reader of such shards takes."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from ontarget.preprocess import DecodeError, decode
from PIL import Image

from edgedistill.errors import DocumentError
from edgedistill.synth.generators import Pixels
from edgedistill.synth.ledger import Line

UNITS = "units"
"""Where the shards of a job lie."""
MOST_BYTES = 200_000_000
"""No image of a job is larger."""


def pixels_hash(image: Pixels) -> str:
    """SHA-256 of an image's size and pixels, whatever it is packed in."""
    return hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()


def shard_bytes(lines: Sequence[Line], pixels: Sequence[Pixels]) -> bytes:
    """A WebDataset shard: `NUMBER.png`, `.cls` and `.json` of each image; the same images give the same bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for line, image in zip(lines, pixels, strict=True):
            picture = io.BytesIO()
            Image.fromarray(image).save(picture, "PNG")
            about = json.dumps({"class": line.cls, "prompt": line.prompt, "seed": line.seed})
            members = {
                "png": picture.getvalue(),
                "cls": str(line.label).encode(),
                "json": about.encode(),
            }
            for suffix, data in members.items():
                info = tarfile.TarInfo(f"{line.number:08}.{suffix}")
                info.size, info.mode = len(data), 0o644
                tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def read_shard(path: Path) -> list[Pixels]:
    """The images of a shard that this module wrote. Raises `DocumentError`."""
    found = []
    try:
        with tarfile.open(path, mode="r:") as tar:
            for member in tar:
                if member.size > MOST_BYTES:
                    raise ValueError(f"{member.name[:40]} has {member.size:,} bytes")
                file = tar.extractfile(member) if member.name.endswith(".png") else None
                if file is not None:
                    found.append(np.asarray(decode(io.BytesIO(file.read())), dtype=np.uint8))
    except (OSError, tarfile.TarError, ValueError, DecodeError) as error:
        raise DocumentError(
            f"shard {path} cannot be read: {error}. Remove it, and it is made again."
        ) from None
    return found


def reader(folder: Path, lines: Sequence[Line]) -> Callable[[Line], Pixels]:
    """Reads the image of a line of a job whose whole ledger is `lines`; a shard is opened once for lines in order.

    The function raises `DocumentError` for a shard that is damaged, or lacks the image.
    """
    first: dict[str, int] = {}
    for line in lines:
        first[line.unit] = min(first.get(line.unit, line.number), line.number)
    cached: dict[str, list[Pixels]] = {}

    def read(line: Line) -> Pixels:
        if line.unit not in cached:
            cached.clear()
            cached[line.unit] = read_shard(folder / UNITS / f"{line.unit}.tar")
        images, place = cached[line.unit], line.number - first[line.unit]
        if place >= len(images):
            raise DocumentError(f"shard {line.unit}.tar of {folder} lacks image {line.number}")
        return images[place]

    return read
