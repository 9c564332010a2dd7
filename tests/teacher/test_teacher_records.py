"""Numbers of stored targets: float16 where it keeps what matters, and top-k without a lost probability."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgedistill.teacher.records import (
    LARGEST,
    MOST_UINT16,
    SHARD_BYTES,
    SHARD_IMAGES,
    Content,
    pack_features,
    pack_logits,
    shard_bytes,
    unpack_logits,
)
from tests.teacher.cache_parts import content


def logits(rows: int, classes: int, spread: float, seed: int = 0) -> Tensor:
    """Normal logits with an offset that differs from row to row."""
    maker = torch.Generator().manual_seed(seed)
    z = torch.randn(rows, classes, generator=maker) * spread
    return z + 100 * torch.randn(rows, 1, generator=maker)


def divergence(p: Tensor, z: Tensor) -> Tensor:
    """KL(p || softmax(z)) of each row in nats."""
    terms = torch.xlogy(p, p) - p * z.double().log_softmax(1)
    return terms.sum(1)


@pytest.mark.parametrize("spread", [0.01, 1.0, 8.0, 300.0])
def test_probabilities_of_full_logits_survive_float16(spread: float) -> None:
    z = logits(200, 50, spread)
    back = unpack_logits(pack_logits(z, None), 50)
    assert back.dtype == torch.float32 and float(back.max()) == 0
    p, q = z.double().softmax(1), back.double().softmax(1)
    assert (
        float((p - q).abs().max()) < 5e-4
    )  # p * (relative step 2^-11) * logit, at most 1 / e of it
    assert float(divergence(p, back).max()) < 1e-6


def test_logits_are_finest_where_the_probability_is() -> None:
    """Taken less the largest; as they are, an offset of 1,000 would leave steps of half a nat."""
    z = torch.tensor([[1000.0, 999.9, 999.0, 990.0]])
    back = unpack_logits(pack_logits(z, None), 4)
    assert float((back - (z - 1000)).abs()[0, :3].max()) < 1e-4
    assert float((z.half().float() - z).abs().max()) > 0.05


def test_a_logit_beyond_float16_is_a_probability_of_nothing() -> None:
    z = torch.tensor([[1e30, 0.0, 1e30 / 2]])
    back = unpack_logits(pack_logits(z, None), 3)
    assert torch.isfinite(back).all()
    assert back.softmax(1).tolist() == [[1.0, 0.0, 0.0]]


@settings(max_examples=60)
@given(
    st.integers(1, 40), st.integers(2, 60), st.floats(0.001, 50), st.integers(0, 10**6), st.data()
)
def test_top_k_keeps_the_mass_of_the_rest_exactly(
    rows: int, classes: int, spread: float, seed: int, data: st.DataObject
) -> None:
    kept = data.draw(st.integers(1, classes - 1))
    z = logits(rows, classes, spread, seed)
    packed = pack_logits(z, kept)
    back = unpack_logits(packed, classes).double().softmax(1)
    p = z.double().softmax(1)
    chosen = packed["classes"].long()
    assert packed["values"].shape == chosen.shape == (rows, kept)
    assert float((back.gather(1, chosen).sum(1) - p.gather(1, chosen).sum(1)).abs().max()) < 2e-6
    largest = p.topk(kept, dim=1).values.sum(1)
    assert torch.allclose(p.gather(1, chosen).sum(1), largest, atol=1e-12)
    even = (1 - back.gather(1, chosen).sum(1)) / (classes - kept)
    others = torch.ones(rows, classes, dtype=torch.bool).scatter(1, chosen, False)
    assert float((back - even[:, None])[others].abs().max()) < 1e-9


def test_top_k_of_a_confident_teacher_is_close_to_the_whole() -> None:
    """Logits as a network of 1,000 classes has them: what the 100 largest lose is small, what 10 lose is more."""
    z = logits(300, 1000, 3.0)
    p = z.double().softmax(1)
    lost = {k: divergence(p, unpack_logits(pack_logits(z, k), 1000)) for k in (10, 100, 500)}
    assert float(lost[500].mean()) < 0.01
    assert 0.05 < float(lost[100].mean()) < 0.1
    sharp = logits(300, 1000, 6.0)
    near = divergence(sharp.double().softmax(1), unpack_logits(pack_logits(sharp, 100), 1000))
    assert float(near.mean()) < 0.005
    assert float(lost[10].mean()) > float(lost[100].mean()) > float(lost[500].mean())


def test_largest_come_first_and_equal_ones_by_class() -> None:
    z = torch.tensor([[1.0, 3.0, 3.0, 0.0, 2.0]])
    packed = pack_logits(z, 4)
    assert packed["classes"].int().tolist() == [[1, 2, 4, 0]]
    assert packed["values"].tolist() == [[0.0, 0.0, -1.0, -2.0]]


def test_as_many_logits_as_classes_are_the_full_ones() -> None:
    for top_k in (5, 6, 65_535):
        held = content(top_k=top_k)
        assert held.kept is None
        assert held.layout(0) == content().layout(0)
    assert content(top_k=4).kept == 4


def test_class_numbers_take_two_bytes_as_long_as_they_fit() -> None:
    for classes, kind in ((MOST_UINT16, torch.uint16), (MOST_UINT16 + 1, torch.int32)):
        z = torch.zeros(1, classes)
        z[0, -1] = 20.0
        packed = pack_logits(z, 2)
        assert packed["classes"].dtype == kind
        assert content(top_k=2, classes=classes).layout(0)["classes"] == (kind, 2)
        back = unpack_logits({**packed, "classes": packed["classes"].int()}, classes)
        assert int(back.argmax()) == classes - 1


@settings(max_examples=80)
@given(st.floats(-36, 36), st.integers(0, 10**6))
def test_features_keep_eleven_bits_whatever_their_size(power: float, seed: int) -> None:
    f = torch.randn(7, 30, generator=torch.Generator().manual_seed(seed)) * 10**power
    half, scale = pack_features(f)
    assert half.dtype == torch.float16 and torch.isfinite(half).all()
    back = half.double() * scale
    error = (back - f.double()).abs()
    assert float((error / f.abs().max()).max()) <= 2**-11
    large = f.abs() > f.abs().max() * 2**-8
    assert float((error / f.abs().double())[large].max()) <= 2**-11


@pytest.mark.parametrize(
    ("largest", "scale"), [(1.0, 1.0), (LARGEST, 1.0), (70_016.0, 4.0), (2.0**17, 8.0), (0.0, 1.0)]
)
def test_features_are_divided_only_where_float16_ends(largest: float, scale: float) -> None:
    half, found = pack_features(torch.tensor([[0.0, -largest]]))
    assert found == scale
    assert float(half[0, 1]) * found == -largest


# -- how they lie ----------------------------------------------------------------------------------


@pytest.mark.parametrize("top_k", [None, 2])
def test_the_same_records_give_the_same_bytes(top_k: int | None) -> None:
    held = content(top_k=top_k)
    shard = held.shards()[0]

    def made() -> bytes:
        tensors = pack_logits(logits(21, 5, 2.0), held.kept)
        tensors["features"], scale = pack_features(logits(21, 6, 1.0))
        backwards = dict(reversed(tensors.items())) if made_once else tensors
        return shard_bytes(held, shard, backwards, scale, "float32")

    made_once: list[bytes] = []
    made_once.append(made())
    assert made() == made_once[0]


@pytest.mark.parametrize(
    ("width", "classes", "top_k", "bytes_"),
    [(1280, 10, None, 2580), (1280, 1000, None, 4560), (1280, 21841, 100, 2560 + 404)],
)
def test_a_record_takes_the_bytes_that_the_guide_says(
    width: int, classes: int, top_k: int | None, bytes_: int
) -> None:
    held = Content((), 1, (width,), classes, top_k, {})
    assert held.row_bytes(0) == bytes_


@pytest.mark.parametrize(("width", "images"), [(8, 20_000), (6000, 20_000), (64_000_000, 3)])
def test_shards_are_bounded_and_hold_every_image_once(width: int, images: int) -> None:
    held = Content(content().lessons, images, (width,), 10, None, {})
    for lesson in held.lessons:
        shards = [shard for shard in held.shards() if shard.lesson == lesson]
        assert [s.number for s in shards] == list(range(len(shards)))
        rows = [image for s in shards for image in range(s.first, s.first + s.rows)]
        assert rows == list(range(images))
        for shard in shards:
            assert shard.rows <= SHARD_IMAGES
            assert shard.rows == 1 or shard.rows * held.row_bytes(0) <= SHARD_BYTES
    assert len({shard.name for shard in held.shards()}) == len(held.shards())
