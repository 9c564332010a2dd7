"""What a training step sees: two images mixed by the share that the labels take, rectangles erased, RandAugment."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from edgedistill.data.changes import CHANGES, change
from edgedistill.data.views import GREY, Views

CPU = torch.device("cpu")
MANY = 400


def flat(count: int = MANY) -> npt.NDArray[np.uint8]:
    """Images of one colour each, from black to white."""
    values = np.linspace(0, 255, count).round().astype(np.uint8)
    return np.broadcast_to(values[:, None, None, None], (count, 40, 40, 3)).copy()


def rows(count: int = MANY) -> npt.NDArray[np.int64]:
    return np.arange(count, dtype=np.int64)


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
@pytest.mark.parametrize("alpha", [0.3, 1.0])
@pytest.mark.parametrize("size", [32, 47])
def test_the_share_of_the_pixels_is_the_share_of_the_labels(
    mix: str, alpha: float, size: int
) -> None:
    views = Views(3, 0.8, True, 4, mix=mix, mix_alpha=alpha)
    canvas, index = flat(), rows()
    mixture = views.mixture(index, 1, MANY)
    assert mixture is not None
    assert (mixture.partner != index).all() and mixture.share.min() >= 0 <= mixture.share.max() <= 1
    seen = views.pixels(canvas, index, 1, size, CPU)
    own, other = canvas[index, 0, 0, 0].astype(float), canvas[mixture.partner, 0, 0, 0]
    want = mixture.share * own + (1 - mixture.share) * other
    assert seen.mean((1, 2, 3)).numpy() == pytest.approx(want, abs=0.05)
    if mix == "mixup":
        assert float(seen.flatten(1).std(dim=1).max()) < 1e-3, "every pixel has the same share"
    else:
        near = torch.tensor(own)[:, None, None, None], torch.tensor(other)[:, None, None, None]
        whole = sum(((seen - value).abs() < 1e-3).float().mean((1, 2, 3)) for value in near)
        assert float(whole.mean()) > 0.8, "pixels are of one image or of the other, but for edges"


def test_shares_are_uniform_and_partners_are_all_others() -> None:
    views = Views(0, 0.8, True, 4, mix="mixup")
    found = [views.mixture(rows(), view, MANY) for view in range(20)]
    shares = np.concatenate([one.share for one in found if one is not None])
    assert np.quantile(shares, [0.1, 0.5, 0.9]) == pytest.approx([0.1, 0.5, 0.9], abs=0.02)
    three = [views.mixture(np.zeros(1, np.int64), view, 3) for view in range(50)]
    assert {int(one.partner[0]) for one in three if one is not None} == {1, 2}
    assert views.mixture(rows(1), 0, 1) is None, "a single image has no partner"


def test_a_view_depends_on_its_own_image_and_number_alone() -> None:
    views = Views(5, 0.5, True, 4, magnitude=6.0, erasing=0.5, mix="cutmix")
    canvas = np.random.default_rng(0).integers(0, 256, (30, 40, 40, 3), dtype=np.uint8)
    together = views.pixels(canvas, rows(30), 2, 32, CPU)
    for k in (0, 7, 29):
        alone = views.pixels(canvas, np.array([k], np.int64), 2, 32, CPU)
        assert torch.equal(alone[0], together[k])
    assert not torch.equal(together, views.pixels(canvas, rows(30), 3, 32, CPU))


@pytest.mark.parametrize("probability", [0.25, 1.0])
def test_rectangles_of_2_to_33_percent_are_erased_as_often_as_asked(probability: float) -> None:
    views = Views(1, 0.8, True, 4, erasing=probability)
    canvas = np.zeros((MANY, 40, 40, 3), np.uint8)
    seen = views.pixels(canvas, rows(), 0, 64, CPU) / GREY
    area = seen.mean((1, 2, 3)).numpy()
    assert (area > 0).mean() == pytest.approx(probability, abs=0.06)
    erased = area[area > 0]
    assert erased.min() > 0.015 and 0.3 < erased.max() < 0.34
    assert float(seen.max()) == pytest.approx(1.0)


def picture() -> torch.Tensor:
    """One image (1, 3, 32, 32) of colours between 60 and 214, with a texture."""
    ramp = torch.linspace(60, 200, 32)
    down, across = ramp[:, None].expand(32, 32), ramp.expand(32, 32)
    texture = 7.0 * ((torch.arange(32)[:, None] + torch.arange(32)) % 3)
    return (torch.stack([down, across, ramp.flip(0).expand(32, 32)]) + texture).to(torch.uint8)[
        None
    ]


@pytest.mark.parametrize("kind", [k for k in range(len(CHANGES)) if k not in (1, 2)])
def test_a_change_of_no_strength_changes_nothing(kind: int) -> None:
    assert torch.equal(CHANGES[kind](picture(), 0.0), picture())


@pytest.mark.parametrize("kind", range(1, len(CHANGES)))
def test_a_change_at_full_strength_does_something_either_way(kind: int) -> None:
    for strength in (-1.0, 1.0):
        assert not torch.equal(CHANGES[kind](picture(), strength), picture())


def test_changes_do_what_they_are_called() -> None:
    x = picture().float()
    assert (
        CHANGES[8](picture(), 1.0).float().mean()
        > x.mean()
        > CHANGES[8](picture(), -1.0).float().mean()
    )
    moved = CHANGES[12](picture(), 1.0)
    assert torch.equal(moved[..., 14:], picture()[..., :18]), "0.45 of 32 pixels to the right"
    assert CHANGES[4](picture(), 1.0).unique().numel() <= 16, "four bits are left"


def test_each_image_gets_two_changes_of_its_own() -> None:
    batch = picture().float().expand(3, -1, -1, -1)
    u = np.array([[0, 0.9, 0, 0.9], [0, 0.9, 8.5 / 14, 0.9], [8.5 / 14, 0.1, 0, 0.1]])
    same, brighter, darker = change(batch, u, 9.0)
    assert torch.equal(same, batch[0])
    assert darker.mean() < same.mean() < brighter.mean()


@pytest.mark.parametrize("own", [1, 3, 7])
def test_own_images_are_mixed_among_themselves_and_so_are_the_others(own: int) -> None:
    index, images = np.arange(9), 9
    partners = []
    for view in range(200):
        mixture = Views(0, 0.8, True, 4, mix="mixup", own=own).mixture(index, view, images)
        assert mixture is not None
        assert ((mixture.partner < own) == (index < own)).all()
        assert (mixture.partner >= 0).all() and (mixture.partner < images).all()
        partners.append(mixture.partner)
    seen = np.stack(partners)
    for row in range(images):
        group = set(range(own)) if row < own else set(range(own, images))
        assert set(seen[:, row].tolist()) == (group - {row} or {row})


def test_without_a_border_mixing_is_as_it_was() -> None:
    index = np.arange(9)
    alone, all_own = (Views(0, 0.8, True, 4, mix="mixup", own=own) for own in (0, 9))
    one, other = (views.mixture(index, 3, 9) for views in (alone, all_own))
    assert one is not None and other is not None
    assert np.array_equal(one.partner, other.partner)


@pytest.mark.parametrize("mix", ["none", "mixup", "cutmix"])
def test_images_behind_the_own_ones_have_few_views_that_come_round(mix: str) -> None:
    own, few, canvas = 10, 3, np.random.default_rng(0).integers(0, 256, (24, 40, 40, 3), np.uint8)
    plain = Views(5, 0.5, True, 8, 6.0, 0.5, mix, own=own)
    fewer = Views(5, 0.5, True, 8, 6.0, 0.5, mix, own=own, few=few)
    index = np.array([20, 3, 11, 9, 23])
    behind = index >= own
    for view in range(8):
        seen = fewer.pixels(canvas, index, view, 32, CPU)
        shown = (plain.pixels(canvas, index, v, 32, CPU) for v in (view, view % few))
        of_own, of_others = shown
        assert torch.equal(seen[~behind], of_own[~behind])
        assert torch.equal(seen[behind], of_others[behind])
        mixtures = [v.mixture(index, at, 24) for v, at in ((fewer, view), (plain, view % few))]
        for one, other in [mixtures] if mix != "none" else []:
            assert one is not None and other is not None
            assert np.array_equal(one.partner[behind], other.partner[behind])
            assert np.array_equal(one.share[behind], other.share[behind])
    alone = Views(5, 0.5, True, 8, 6.0, 0.5, mix)
    assert torch.equal(
        alone.pixels(canvas[:own], index[~behind], 7, 32, CPU),
        fewer.pixels(canvas, index, 7, 32, CPU)[~behind],
    ), "what was stored of the own images alone holds with others behind them"
