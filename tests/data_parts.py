"""What the tests of data sources share: small pictures, and the ways in which people pack them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from edgedistill.data.dataset import Dataset
from edgedistill.data.sources import open_source
from edgedistill.recipe import DataSection

Members = Iterable[tuple[str, bytes]]


def png(seed: int, side: int = 6, kind: str = "PNG") -> bytes:
    """A small picture of noise, encoded."""
    values = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(values).save(out, kind)
    return out.getvalue()


def section(source: object, **values: object) -> DataSection:
    """The data part of a recipe."""
    return DataSection(source=str(source), **values)  # type: ignore[arg-type]


def opened(source: object, **values: object) -> Dataset:
    """The data set of a source, with seed 0 and no cache."""
    return open_source(section(source, **values), 0)


def tar(path: Path, members: Members) -> Path:
    """A tar file of plain members, in order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def samples(n: int, start: int = 0, classes: int = 2) -> list[tuple[str, bytes]]:
    """Members of `n` sound samples: a picture and the index of its class."""
    members = []
    for k in range(start, start + n):
        members += [(f"{k:05d}.png", png(k)), (f"{k:05d}.cls", str(k % classes).encode())]
    return members


def images(folder: Path, n: int, start: int = 0) -> Path:
    """`n` pictures in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(start, start + n):
        (folder / f"{k}.png").write_bytes(png(k))
    return folder


def reasons(data: Dataset) -> dict[str, str]:
    """What was left out, and why."""
    return {skipped.path: skipped.reason for skipped in data.skipped}
