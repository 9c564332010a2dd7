"""The one preprocessing contract, by bits, for pictures as users have them."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ontarget.contract import Preprocess, load_bundle
from ontarget.preprocess import DecodeError, decode, resize_crop, resized, to_input, to_pixels
from PIL import Image

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow tells of damaged files

RGB = np.array(
    [[[10, 20, 30], [40, 50, 60]], [[70, 80, 90], [100, 110, 120]], [[130, 140, 150], [0, 255, 1]]],
    dtype=np.uint8,
)


def _file(image: Image.Image, kind: str = "PNG", **options: Any) -> io.BytesIO:
    out = io.BytesIO()
    image.save(out, kind, **options)
    out.seek(0)
    return out


def _bits(source: Any) -> np.ndarray:
    image = decode(source)
    assert image.mode == "RGB"
    return np.asarray(image)


def _png(width: int, height: int, depth: int, color: int, rows: bytes, *chunks: Any) -> io.BytesIO:
    """A PNG written by hand, so that the test does not lean on Pillow's writer."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    body = b"".join(chunk(name, data) for name, data in chunks)
    data = chunk(b"IHDR", head) + body + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + data)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_lossless_rgb_comes_through_bit_by_bit(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(_bits(_file(Image.fromarray(RGB), kind, **options)), RGB)


def test_alpha_is_laid_over_white() -> None:
    rgba = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 128]]], dtype=np.uint8)
    assert _bits(_file(Image.fromarray(rgba))).tolist() == [
        [[200, 100, 0], [255, 255, 255], [227, 177, 127]]
    ]


def test_grey_with_alpha_is_laid_over_white() -> None:
    la = np.array([[[0, 255], [0, 0], [100, 255]]], dtype=np.uint8)
    want = [[[0] * 3, [255] * 3, [100] * 3]]
    assert _bits(_file(Image.fromarray(la, "LA"))).tolist() == want


def test_a_palette_with_transparency_is_laid_over_white() -> None:
    rows = b"\x00\x00\x01\x02"
    palette = (b"PLTE", bytes([255, 0, 0, 0, 255, 0, 0, 0, 255]))
    got = _bits(_png(3, 1, 8, 3, rows, palette, (b"tRNS", bytes([255, 0, 128]))))
    assert got.tolist() == [[[255, 0, 0], [255, 255, 255], [127, 127, 255]]]


def test_a_palette_without_transparency_gives_its_colours() -> None:
    palette = (b"PLTE", bytes([9, 8, 7, 1, 2, 3]))
    assert _bits(_png(2, 1, 8, 3, b"\x00\x01\x00", palette)).tolist() == [[[1, 2, 3], [9, 8, 7]]]


def test_a_transparent_colour_of_an_rgb_png_is_white() -> None:
    rows = b"\x00" + bytes([1, 2, 3, 4, 5, 6])
    got = _bits(_png(2, 1, 8, 2, rows, (b"tRNS", struct.pack(">HHH", 1, 2, 3))))
    assert got.tolist() == [[[255, 255, 255], [4, 5, 6]]]


def test_a_gif_with_transparency_is_laid_over_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    assert _bits(_file(image, "GIF", transparency=1)).tolist() == [[[10, 20, 30], [255] * 3]]


def test_16_bit_grey_is_scaled_by_value_and_never_clipped() -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65534, 65535]], dtype=np.uint16)
    want = [0, 0, 1, 1, 128, 255, 255]
    png = _png(7, 1, 16, 0, b"\x00" + values.astype(">u2").tobytes())
    assert _bits(png)[0, :, 0].tolist() == want
    assert _bits(_file(Image.fromarray(values), "TIFF"))[0, :, 2].tolist() == want


def test_a_dark_16_bit_png_stays_dark() -> None:
    png = _png(2, 1, 16, 0, b"\x00" + np.array([[100, 200]], ">u2").tobytes())
    assert _bits(png)[0, :, 0].tolist() == [0, 1]


def test_a_transparent_value_of_a_16_bit_png_is_white() -> None:
    png = _png(
        2, 1, 16, 0, b"\x00" + np.array([[700, 9000]], ">u2").tobytes(), (b"tRNS", b"\x02\xbc")
    )
    assert _bits(png)[0, :, 0].tolist() == [255, 35]


def test_16_bit_colour_keeps_its_high_byte() -> None:
    row = b"\x00" + np.array([0, 0x80FF, 0xFFFF], ">u2").tobytes()
    assert _bits(_png(1, 1, 16, 2, row)).tolist() == [[[0, 128, 255]]]


def test_32_bit_grey_with_a_known_range_is_scaled_and_any_other_is_refused() -> None:
    def tiff(values: Any, kind: str) -> io.BytesIO:
        return _file(Image.fromarray(np.array([values], dtype=kind)), "TIFF")

    assert _bits(tiff([0, 255], "<i4"))[0, :, 0].tolist() == [0, 255]
    assert _bits(tiff([0, 65535], "<i4"))[0, :, 0].tolist() == [0, 255]
    assert _bits(tiff([0.0, 0.5, 1.0], "<f4"))[0, :, 0].tolist() == [0, 128, 255]
    assert _bits(tiff([0.0, 127.4, 255.0], "<f4"))[0, :, 0].tolist() == [0, 127, 255]
    for values, kind in [
        ([0, 70000], "<i4"),
        ([-1, 5], "<i4"),
        ([0, 256], "<f4"),
        ([0, np.nan], "<f4"),
    ]:
        with pytest.raises(DecodeError, match="no known range"):
            decode(tiff(values, kind))


def test_one_bit_and_8_bit_grey() -> None:
    bits = np.array([[0, 255, 0]], dtype=np.uint8)
    assert _bits(_file(Image.fromarray(bits).convert("1")))[0, :, 0].tolist() == [0, 255, 0]
    grey = np.array([[0, 77, 255]], dtype=np.uint8)
    assert _bits(_file(Image.fromarray(grey)))[0, :, 1].tolist() == [0, 77, 255]


def test_cmyk_is_turned_into_its_colours() -> None:
    cmyk = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 0, 255]]], dtype=np.uint8)
    got = _bits(_file(Image.fromarray(cmyk, "CMYK"), "TIFF"))
    assert got.tolist() == [[[255, 255, 255], [0, 255, 255], [0, 0, 0]]]


def test_a_cmyk_jpeg_is_not_inverted() -> None:
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    got = _bits(_file(image, "JPEG", quality=95))[8, 8]
    assert abs(got.astype(int) - [0, 255, 255]).max() <= 3


def test_ycbcr_is_turned_into_its_colours() -> None:
    image = Image.fromarray(np.full((8, 8, 3), (200, 30, 30), np.uint8)).convert("YCbCr")
    assert abs(_bits(_file(image, "TIFF"))[4, 4].astype(int) - [200, 30, 30]).max() <= 2


TURNS = {
    1: RGB,
    2: RGB[:, ::-1],
    3: RGB[::-1, ::-1],
    4: RGB[::-1],
    5: RGB.transpose(1, 0, 2),
    6: RGB.transpose(1, 0, 2)[:, ::-1],
    7: RGB.transpose(1, 0, 2)[::-1, ::-1],
    8: RGB.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_exif_orientation_is_turned_upright_once(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    got = _bits(_file(Image.fromarray(RGB), kind, exif=exif, **options))
    assert np.array_equal(got, TURNS[orientation])


def test_a_turned_16_bit_png_is_still_scaled_as_16_bits() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(np.array([[100], [257]], dtype=np.uint16))
    assert _bits(_file(image, exif=exif))[0, :, 0].tolist() == [1, 0]


@pytest.mark.parametrize("exif", [b"Exif\x00\x00nonsense", b"Exif\x00\x00MM\x00*\xff\xff\xff\xff"])
def test_a_damaged_exif_block_does_not_lose_the_picture(exif: bytes) -> None:
    assert _bits(
        _file(Image.fromarray(np.full((9, 9, 3), 99, np.uint8)), "JPEG", exif=exif)
    ).shape == (
        9,
        9,
        3,
    )


def test_the_content_decides_and_not_the_suffix(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "x.png")
    (tmp_path / "x.png").rename(tmp_path / "x.jpg")
    assert np.array_equal(_bits(tmp_path / "x.jpg"), RGB)
    assert np.array_equal(_bits(str(tmp_path / "x.jpg")), RGB)


def _noise(kind: str) -> bytes:
    rng = np.random.default_rng(0)
    return _file(Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)), kind).getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM"])
def test_a_truncated_file_is_refused_at_any_length(kind: str) -> None:
    raw = _noise(kind)
    assert decode(io.BytesIO(raw)).size == (64, 64)
    for share in (0.02, 0.3, 0.6, 0.9):
        with pytest.raises(DecodeError):
            decode(io.BytesIO(raw[: int(len(raw) * share)]))


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "empty file"),
        (b"hello, not a picture", "not an image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image of a known format"),
    ],
    ids=["empty", "text", "eps", "svg"],
)
def test_what_is_no_picture_is_refused_with_the_reason(
    tmp_path: Path, raw: bytes, words: str
) -> None:
    with pytest.raises(DecodeError, match=words):
        decode(io.BytesIO(raw))
    (tmp_path / "x.jpg").write_bytes(raw)
    with pytest.raises(DecodeError, match=words):
        decode(tmp_path / "x.jpg")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match="No such file"):
        decode(tmp_path / "none.jpg")
    with pytest.raises(DecodeError, match="cannot be read"):
        decode(tmp_path)


def test_a_picture_with_too_many_pixels_is_refused_before_it_is_unpacked() -> None:
    bomb = _png(60_000, 60_000, 8, 0, b"")
    with pytest.raises(DecodeError, match="too large"):
        decode(bomb)
    small = _file(Image.fromarray(RGB))
    with pytest.raises(DecodeError, match="2 x 3 pixels, at most 5"):
        decode(small, max_pixels=5)


@settings(max_examples=80)
@given(
    raw=st.binary(max_size=300), kind=st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP"])
)
def test_damaged_bytes_raise_nothing_but_decode_error(raw: bytes, kind: str) -> None:
    whole = bytearray(_noise(kind))
    start = len(raw) % 40
    whole[start : start + len(raw)] = raw
    for data in (raw, bytes(whole)):
        try:
            image = decode(io.BytesIO(data))
        except DecodeError as error:
            assert str(error).isprintable()
        else:
            assert image.mode == "RGB"


@pytest.mark.parametrize(
    ("size", "want"),
    [
        ((100, 200), [10, 20]),
        ((3, 2), [15, 10]),
        ((4, 5), [10, 13]),
        ((8, 10), [10, 13]),
        ((7, 7), [10, 10]),
    ],
)
def test_the_longer_side_is_rounded_half_up(size: tuple[int, int], want: list[int]) -> None:
    assert resized(*size, 10) == want


def test_resize_and_crop_give_these_very_bytes() -> None:
    ramp = np.arange(6 * 9, dtype=np.uint8).reshape(6, 9) * 4
    image = Image.fromarray(np.stack([ramp, 255 - ramp, ramp // 2], axis=2))
    got = resize_crop(image, 4, 3)
    assert got.dtype == np.uint8
    assert got.flags.c_contiguous
    assert got[:, :, 0].tolist() == [[17, 23, 29], [69, 75, 81], [125, 131, 137]]
    assert got[:, :, 2].tolist() == [[8, 12, 14], [34, 38, 40], [62, 66, 68]]


def test_the_crop_offset_is_rounded_down_and_no_resize_keeps_every_bit() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (8, 11, 3), np.uint8)
    assert np.array_equal(resize_crop(Image.fromarray(pixels), 8, 5), pixels[1:6, 3:8])


@pytest.mark.parametrize(
    ("height", "width", "checksum"), [(40, 30, 3124295163), (90, 20, 2488099852)]
)
def test_a_file_becomes_the_same_bytes_with_every_version_of_pillow(
    height: int, width: int, checksum: int, tmp_path: Path
) -> None:
    """The checksums are those of Pillow 12 and 13, the first also of 10.4; the second picture is tall, which 13 resizes
    in another order.
    """
    y, x, c = np.mgrid[0:height, 0:width, 0:3]
    picture = ((y * y * 7 + x * 13 + c * 101 + x * y * 3) % 256).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "x.png")
    pixels = to_pixels(tmp_path / "x.png", Preprocess(resize=12, crop=10))
    assert pixels.shape == (10, 10, 3)
    assert zlib.crc32(pixels.tobytes()) == checksum


def test_a_ribbon_that_would_not_fit_in_memory_is_refused() -> None:
    with pytest.raises(DecodeError, match="too long"):
        resize_crop(Image.new("RGB", (1_000_000, 1)), 224, 224)


def test_bytes_go_in_as_they_are_and_floats_are_normalised_in_float32(shared: Any) -> None:
    bundle = load_bundle(shared.folder)
    pixels = shared.pixels[:3]
    same = to_input(pixels, bundle.model("bytes"), bundle.preprocess)
    assert same.dtype == np.uint8
    assert np.array_equal(same, pixels)
    floats = to_input(pixels, bundle.model("floats"), bundle.preprocess)
    assert floats.dtype == np.float32
    assert floats.shape == (3, 3, 8, 8)
    assert floats.flags.c_contiguous
    want = np.float32(pixels[2, 4, 5, 1]) * np.float32(1 / (255 * 0.25)) + np.float32(-0.4 / 0.25)
    assert floats[2, 1, 4, 5] == want
    assert want == pytest.approx((pixels[2, 4, 5, 1] / 255 - 0.4) / 0.25, abs=1e-6)
    model = bundle.model("floats")
    half = replace(model, input=replace(model.input, dtype="float16"))
    got = to_input(pixels, half, bundle.preprocess)
    assert got.dtype == np.float16
    assert np.array_equal(got, floats.astype(np.float16))


def test_pixels_of_another_kind_are_refused(shared: Any) -> None:
    bundle = load_bundle(shared.folder)
    for pixels in (
        np.zeros((1, 8, 8, 3)),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((1, 3, 8, 8), np.uint8),
    ):
        with pytest.raises(ValueError, match="pixels must be uint8"):
            to_input(pixels, bundle.model(), bundle.preprocess)
