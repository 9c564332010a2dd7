"""Views as a pure function, and their pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgedistill.data.transforms import (
    GAMMA,
    render,
    splitmix64,
    uniforms,
    view_params,
)

WHOLE = np.array([[0.0, 0.0, 1.0, 1.0, 1.0]])


def canvases(n: int, side: int) -> torch.Tensor:
    values = np.random.default_rng(side).integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    return torch.from_numpy(values)


def test_splitmix64_gives_the_published_sequence() -> None:
    # first outputs of the reference C code for the seeds 0 and 1234567
    zero = [(k * GAMMA) % 2**64 for k in range(3)]
    assert [hex(x) for x in splitmix64(np.array(zero, dtype=np.uint64))] == [
        "0xe220a8397b1dcdaf",
        "0x6e789e6aa1b965f4",
        "0x6c45d188009454f",
    ]
    other = [(1234567 + k * GAMMA) % 2**64 for k in range(3)]
    assert splitmix64(np.array(other, dtype=np.uint64)).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_numbers_are_pinned_for_ever() -> None:
    # independent of numpy's generators: plain Python integers
    def mix(x: int) -> int:
        z = (x + GAMMA) % 2**64
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    key = mix(mix(mix(7) ^ 123) ^ 4)
    expected = [(mix((key + k * GAMMA) % 2**64) >> 11) / 2**53 for k in range(5)]
    assert uniforms(7, np.array([123]), 4, 5)[0].tolist() == expected
    assert view_params(0, np.array([0, 1]), 0, 0.7, True)[:, 4].tolist() == [
        -1.0 if uniforms(0, k, 0, 5)[0, 4] < 0.5 else 1.0 for k in (0, 1)
    ]


def test_a_view_does_not_depend_on_its_batch() -> None:
    images, views = np.arange(50), np.arange(50) % 3
    together = view_params(3, images, views, 0.5, True)
    for k in (0, 17, 49):
        alone = view_params(3, np.array([images[k]]), int(views[k]), 0.5, True)
        assert (alone[0] == together[k]).all()
    assert len(np.unique(together, axis=0)) == 50
    assert (view_params(4, images, views, 0.5, True) != together).any(axis=1).all()


@settings(max_examples=40)
@given(st.integers(0, 2**31 - 1), st.integers(0, 2**40), st.floats(0.01, 1.0))
def test_every_box_lies_in_the_image_and_has_the_area(seed: int, view: int, least: float) -> None:
    x, y, width, height, sign = view_params(seed, np.arange(200), view, least, True).T
    assert (np.abs(x) + width <= 1 + 1e-12).all()
    assert (np.abs(y) + height <= 1 + 1e-12).all()
    area = width * height
    assert (area >= least - 1e-9).all()
    assert (area <= 1 + 1e-12).all()
    ratio = width / height
    assert (ratio >= 0.75 - 1e-9).all()
    assert (ratio <= 4 / 3 + 1e-9).all()
    assert set(np.unique(sign)) <= {-1.0, 1.0}


def test_areas_are_uniform_and_half_of_the_views_are_mirrored() -> None:
    box = view_params(0, np.arange(20_000), 0, 0.5, True)
    area = box[:, 2] * box[:, 3]
    assert np.histogram(area, bins=5, range=(0.5, 1))[0] == pytest.approx([4000] * 5, rel=0.06)
    assert (box[:, 4] < 0).mean() == pytest.approx(0.5, abs=0.015)
    assert (view_params(0, np.arange(500), 0, 0.5, False)[:, 4] == 1).all()


def test_no_crop_and_no_flip_is_the_whole_image() -> None:
    assert (view_params(0, np.arange(9), 5, 1.0, False) == WHOLE).all()
    with pytest.raises(ValueError, match="min_crop"):
        view_params(0, np.arange(9), 5, 0.0, False)


@pytest.mark.parametrize("side", [1, 7, 64, 72, 100])
def test_the_whole_image_at_its_own_size_is_the_canvas_exactly(side: int) -> None:
    canvas = canvases(3, side)
    shown = render(canvas, np.repeat(WHOLE, 3, 0), side)
    assert shown.dtype == torch.float32
    assert shown.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(shown, canvas.permute(0, 3, 1, 2).float())
    mirrored = render(canvas, np.repeat(WHOLE * [1, 1, 1, 1, -1], 3, 0), side)
    assert torch.equal(mirrored, canvas.permute(0, 3, 1, 2).float().flip(3))


@pytest.mark.parametrize(("side", "size"), [(72, 64), (40, 64), (96, 20)])
def test_a_view_is_what_pillow_makes_of_the_same_box(side: int, size: int) -> None:
    canvas = canvases(6, side)
    params = view_params(1, np.arange(6), 0, 0.4, True)
    shown = render(canvas, params, size).permute(0, 2, 3, 1).numpy()
    for image, (x, y, width, height, sign), view in zip(canvas, params, shown, strict=True):
        left, top, right, bottom = (
            float((c + 1) / 2 * side) for c in (x - width, y - height, x + width, y + height)
        )
        picture = Image.fromarray(image.numpy())
        expected = np.asarray(
            picture.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, right, bottom))
        )
        expected = expected[:, ::-1] if sign < 0 else expected
        assert np.abs(view - expected).max() < 1.6


def test_fine_stripes_turn_grey_when_they_shrink() -> None:
    stripes = torch.zeros(1, 128, 128, 3, dtype=torch.uint8)
    stripes[:, :, ::2] = 255
    shown = render(stripes, WHOLE, 32)
    assert (shown[..., 2:-2] - 127.5).abs().max() < 1


def test_teacher_and_student_see_the_same_part() -> None:
    smooth = torch.from_numpy(
        np.array(Image.fromarray(canvases(1, 6)[0].numpy()).resize((144, 144)), dtype=np.uint8)
    )[None]
    params = view_params(9, np.array([4]), 2, 0.3, True)
    large, small = render(smooth, params, 128), render(smooth, params, 32)
    pooled = torch.nn.functional.avg_pool2d(large, 4)
    assert (pooled - small).abs().mean() < 2


def test_rendering_ignores_autocast_and_keeps_the_range() -> None:
    canvas, params = canvases(8, 72), view_params(0, np.arange(8), 0, 0.5, True)
    expected = render(canvas, params, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(render(canvas, params, 64), expected)
    assert expected.min() >= 0
    assert expected.max() <= 255.001


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="canvas"):
        render(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), WHOLE, 8)
    with pytest.raises(ValueError, match="canvas"):
        render(canvases(1, 8).float(), WHOLE, 8)
    with pytest.raises(ValueError, match="params"):
        render(canvases(2, 8), WHOLE, 8)


@pytest.mark.gpu
def test_a_gpu_makes_the_same_views() -> None:
    canvas, params = canvases(8, 72), view_params(0, np.arange(8), 0, 0.5, True)
    shown = render(canvas.cuda(), params, 64)
    assert shown.is_cuda
    assert (shown.cpu() - render(canvas, params, 64)).abs().max() < 0.6
