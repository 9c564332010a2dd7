"""The one preprocessing contract: a picture file -> `(crop, crop, 3)` uint8 pixels -> a graph's
input.

decode -> EXIF orientation -> RGB (alpha over white; deep greyscale scaled by value) -> shorter side
to `resize` with Pillow's antialiased bicubic -> centre crop. Training evaluation, calibration,
parity and the device use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ontarget.facts import BYTES, Model, Preprocess
from ontarget.fields import shown

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 89_478_485
MAX_RESIZED_PIXELS = 1 << 26
FORMATS = (
    "JPEG",
    "MPO",
    "PNG",
    "WEBP",
    "BMP",
    "DIB",
    "GIF",
    "TIFF",
    "PPM",
    "JPEG2000",
    "AVIF",
    "ICO",
)
"""Formats that are read; not those that start a program (EPS) or have no signature (TGA)."""

_ORIENTATION_TAG = 0x0112


class DecodeError(ValueError):
    """A file that is not an image that can be used; the text is the reason, without the path."""


def decode(path_or_file: Any, max_pixels: int = MAX_PIXELS) -> Image:
    """The picture as an upright RGB image of 8 bits.

    Takes a path or a binary file; the content decides the format, never the suffix. Raises
    DecodeError for what is empty, truncated, unknown, of a greyscale range that is not known, or of
    more than `max_pixels` pixels.
    """
    try:
        from PIL import Image
    except ImportError:
        raise DecodeError("reading images needs Pillow: run  pip install Pillow") from None
    Image.init()
    formats = [name for name in FORMATS if name in Image.OPEN]
    try:
        with Image.open(path_or_file, formats=formats) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise DecodeError(
                    f"too large: {width} x {height} pixels, at most {max_pixels} are read"
                )
            if not width or not height:
                raise DecodeError("no pixels")
            image.load()
            rgb: Image.Image = _to_rgb(_upright(image), image.format)
            return rgb
    except DecodeError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DecodeError(f"too large: more than {max_pixels} pixels") from None
    except Exception as error:  # Pillow's readers raise many kinds for a damaged file
        raise DecodeError(_reason(error, path_or_file)) from None


def _reason(error: Exception, source: Any) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "empty file (0 bytes)" if _is_empty(source) else "not an image of a known format"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return f"damaged or truncated: {shown(str(error) or type(error).__name__, 120)}"


def _is_empty(source: Any) -> bool:
    try:
        if hasattr(source, "seek"):
            return int(source.seek(0, 2)) == 0
        with open(source, "rb") as file:
            return not file.read(1)
    except (OSError, ValueError, TypeError):
        return False


def _upright(image: Any) -> Any:
    """Turn by the EXIF orientation 2-8; one that cannot be read is 1. Call after `load`."""
    from PIL import Image

    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # a damaged EXIF block must not lose a sound picture
        return image
    ways = getattr(Image, "Transpose", Image)  # Pillow below 9.1 has no Transpose
    turns = {
        2: ways.FLIP_LEFT_RIGHT,
        3: ways.ROTATE_180,
        4: ways.FLIP_TOP_BOTTOM,
        5: ways.TRANSPOSE,
        6: ways.ROTATE_270,
        7: ways.TRANSVERSE,
        8: ways.ROTATE_90,
    }
    turn = turns.get(orientation) if isinstance(orientation, int) else None
    if turn is None:
        return image
    turned = image.transpose(turn)
    if "transparency" in image.info:
        turned.info["transparency"] = image.info["transparency"]
    return turned


def _to_rgb(image: Any, file_format: Any) -> Any:
    from PIL import Image

    mode = image.mode
    if mode in ("I", "F") or mode.startswith("I;16"):
        return Image.fromarray(_deep_grey(image, file_format)).convert("RGB")
    if mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("LA").convert("RGBA") if mode == "La" else image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB") if mode != "RGB" else image.copy()


def _deep_grey(image: Any, file_format: Any) -> np.ndarray:
    """8-bit values `(H, W)` of a greyscale image of more bits, rounded and never clipped."""
    values = np.asarray(image).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)) or low < 0:
        raise DecodeError(f"greyscale values from {low:g} to {high:g} have no known range")
    if image.mode == "F":
        if high > 255:
            raise DecodeError(f"greyscale values up to {high:g} have no known range")
        scaled = values * 255 if high <= 1 else values
    else:
        if high > 65535:
            raise DecodeError(f"greyscale values up to {high:g} have no known range")
        deep = image.mode != "I" or file_format == "PNG" or high > 255
        scaled = values / 257 if deep else values
    out = np.floor(scaled + 0.5).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        out[values == transparent] = 255
    return out


def resized(width: int, height: int, resize: int) -> list[int]:
    """Size after the shorter side became `resize`; the other side is rounded half up."""
    short = min(width, height)
    return [(2 * side * resize + short) // (2 * short) for side in (width, height)]


def resize_crop(image: Image, resize: int, crop: int) -> np.ndarray:
    """Pixels `(crop, crop, 3)` uint8 of an RGB image. Raises DecodeError for an extreme aspect
    ratio.

    The width is resized first, then the height: each pass rounds to bytes, so the order shows, and
    which one `resize` takes first depends on the release of Pillow (13 on, for tall pictures).
    """
    from PIL import Image

    width, height = resized(image.width, image.height, resize)
    if width * height > MAX_RESIZED_PIXELS:
        raise DecodeError(
            f"too long: {image.width} x {image.height} pixels do not resize to {resize} pixels"
        )
    bicubic = getattr(Image, "Resampling", Image).BICUBIC
    small = image.resize((width, image.height), bicubic).resize((width, height), bicubic)
    left, top = (width - crop) // 2, (height - crop) // 2
    return np.array(small.crop((left, top, left + crop, top + crop)), dtype=np.uint8)


def to_pixels(
    path_or_file: Any, preprocess: Preprocess, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """A picture file as the pixels `(crop, crop, 3)` uint8 that every model of the bundle starts
    from.
    """
    return resize_crop(decode(path_or_file, max_pixels), preprocess.resize, preprocess.crop)


def to_input(pixels: np.ndarray, model: Model, preprocess: Preprocess) -> np.ndarray:
    """Pixels `(N, S, S, 3)` uint8 as the graph takes them.

    `uint8_nhwc`: the same bytes. `int8_nhwc`: pixel - 128, int8. `float_nchw`: `pixel * scale + shift` in float32 (see
    `scale_and_shift`), `(N, 3, S, S)`, then cast to the input's type. Raises ValueError for pixels
    of another type or size.
    """
    size = preprocess.crop
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (size, size, 3):
        raise ValueError(
            f"pixels must be uint8 of shape (N, {size}, {size}, 3), got {pixels.dtype} "
            f"{pixels.shape}"
        )
    if model.input.layout in BYTES:
        fed = np.ascontiguousarray(pixels)
        return fed if model.input.layout == "uint8_nhwc" else (fed ^ 128).view(np.int8)
    scale, shift = scale_and_shift(preprocess.mean, preprocess.std)
    values = pixels.astype(np.float32) * scale + shift
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2)).astype(model.input.dtype, copy=False)


def scale_and_shift(mean: Sequence[float], std: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """`(pixel / 255 - mean) / std` as `pixel * scale + shift`, both `(3,)` float32.

    Training, the graph and the kit all multiply and add with these very numbers, so that they agree
    to the bit.
    """
    spread = np.array(std, dtype=np.float64)
    scale = 1.0 / (255.0 * spread)
    shift = -np.array(mean, dtype=np.float64) / spread
    return scale.astype(np.float32), shift.astype(np.float32)
