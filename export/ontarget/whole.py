"""End to end: from the bytes of a picture to its class, with the time of each part."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ontarget.contract import Bundle, ContractError, Model, load_golden
from ontarget.fields import shown
from ontarget.preprocess import FORMATS, DecodeError, decode, resize_crop, to_input
from ontarget.session import Session

MOST_PICTURES = 64
MOST_BYTES = 50_000_000
PARTS = ("decode", "resize", "input", "run", "argmax")
QUALITY = 90


def pictures(bundle: Bundle, folder: Path | None) -> tuple[list[bytes], str]:
    """Up to 64 encoded pictures and where they come from: the files of a folder, else the golden images as JPEG.

    Golden images have the model's own size, so decoding and resizing them is quicker than a camera's. Raises
    ContractError without one.
    """
    if folder is not None:
        found = []
        for path in sorted(p for p in _files(folder) if p.stat().st_size <= MOST_BYTES):
            data = path.read_bytes()
            try:
                decode(io.BytesIO(data))
            except DecodeError:
                continue
            found.append(data)
            if len(found) == MOST_PICTURES:
                break
        if not found:
            raise ContractError(
                f"{shown(str(folder), 300)} holds no picture that can be read ({', '.join(FORMATS[:4])} and others)."
            )
        return found, f"{len(found)} given pictures"
    try:
        from PIL import Image
    except ImportError:
        raise ContractError(
            "end to end decodes pictures, which needs Pillow: run  pip install Pillow"
        ) from None
    out = []
    for pixels in load_golden(bundle)[0][:MOST_PICTURES]:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY)
        out.append(buffer.getvalue())
    return out, f"golden images as JPEG of {bundle.preprocess.crop} px"


def _files(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_file()]
    except OSError as error:
        raise ContractError(
            f"{shown(str(folder), 300)} cannot be read: {error.strerror}."
        ) from None


class EndToEnd:
    """Runs picture after picture through everything; `parts_s` keeps the seconds of each part of each run.

    One picture a run: a camera gives no batches.
    """

    def __init__(
        self,
        session: Session,
        model: Model,
        bundle: Bundle,
        encoded: Sequence[bytes],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._session, self._model, self._preprocess = session, model, bundle.preprocess
        self._encoded, self._clock = encoded, clock
        self.parts_s: list[tuple[float, ...]] = []
        self.answer = -1

    def __call__(self) -> None:
        """The next picture."""
        clock = self._clock
        data = self._encoded[len(self.parts_s) % len(self._encoded)]
        at = [clock()]
        image = decode(io.BytesIO(data))
        at.append(clock())
        pixels = resize_crop(image, self._preprocess.resize, self._preprocess.crop)
        at.append(clock())
        inputs = to_input(pixels[None], self._model, self._preprocess)
        at.append(clock())
        logits = self._session.run(inputs)
        at.append(clock())
        self.answer = int(logits[0].argmax())
        at.append(clock())
        self.parts_s.append(tuple(b - a for a, b in zip(at, at[1:])))  # noqa: RUF007 pairwise is not in 3.8

    def medians(self, last: int) -> dict[str, float]:
        """The median seconds of each part over the `last` runs, those that were timed."""
        rows = np.asarray(self.parts_s[-last:], dtype=np.float64)
        return {name: float(value) for name, value in zip(PARTS, np.median(rows, axis=0))}
