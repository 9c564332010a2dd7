"""The losses between features: the authors' own values, known constants, gradients, edges, precision, memory."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgedistill.distill import crd
from edgedistill.distill.closed import AlignedUniform, UnitPerceptron
from edgedistill.distill.contrast import (
    AlignUniform,
    FeatureMatch,
    InfoNCE,
    Projector,
    alignment,
    info_nce,
    uniformity,
)
from edgedistill.distill.crd import CRD, Negatives

LABELS = np.array([0, 1, 0, 1, 1, 0, 1, 0])
"""Of the eight images that the losses with a memory know here."""


def made(name: str, student: int = 5, teacher: Any = 6) -> nn.Module:
    """A loss by its name, in float64."""
    torch.manual_seed(0)
    losses: dict[str, nn.Module] = {
        "mocov2": AlignUniform(student, teacher, width=3),
        "cubed": AlignUniform(student, teacher, width=3, alpha=3.0, t=1.0, projector="linear"),
        "simclr": AlignUniform(student, teacher, width=3, projector="simclr"),
        "simclrv2": AlignUniform(student, teacher, width=3, projector="simclrv2"),
        "info_nce": InfoNCE(student, teacher, width=3),
        "crd": CRD(student, teacher, LABELS, width=3, negatives=3),
        "cosine": FeatureMatch(student, teacher),
        "mse": FeatureMatch(student, teacher, "mse"),
    }
    return losses[name].double()


NAMES = ("mocov2", "cubed", "simclr", "simclrv2", "info_nce", "crd", "cosine", "mse")


def wave(*shape: int, start: float = 1.0, scale: float = 1.0) -> Tensor:
    """Numbers that any library writes alike: `scale * sin(start + 1.7 i)`, in float64."""
    i = torch.arange(math.prod(shape), dtype=torch.float64)
    return (torch.sin(start + i * 1.7) * scale).reshape(shape)


def filled(module: nn.Module) -> None:
    """Give the parameters of a projector such numbers."""
    with torch.no_grad():
        for i, parameter in enumerate(module.parameters()):
            parameter.copy_(wave(*parameter.shape, start=i, scale=0.6))


def features(rows: int, seed: int = 0, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Student (B, 5), asking for a gradient, and teacher (B, 6) in float64, and indices (B,)."""
    g = torch.Generator().manual_seed(seed)
    s = torch.randn(rows, 5, generator=g, dtype=torch.float64) * scale
    t = torch.randn(rows, 6, generator=g, dtype=torch.float64) * scale
    return s.requires_grad_(), t, torch.randperm(8, generator=g)[:rows]


def unit(n: int, d: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


# -- what the authors' code gives ------------------------------------------------------------------

X, Y = F.normalize(wave(6, 4)), F.normalize(wave(6, 4, start=2.0))
STUDENT, TEACHER = wave(8, 5, scale=2), wave(8, 6, start=0.3, scale=2)


def test_alignment_and_uniformity_are_those_of_wang_and_isola() -> None:
    """ssnl/align_uniform 78ccdb1 align_uniform/__init__.py."""
    for alpha, want in ((1, 0.9578285440385949), (2, 0.9217525983351086), (3, 0.8911722532452809)):
        assert float(alignment(X, Y, alpha)) == pytest.approx(want, abs=1e-14)
    for t, want in ((2.0, -1.370955203783385), (0.7, -0.6858252026369602)):
        assert float(uniformity(X, t)) == pytest.approx(want, abs=1e-14)


@pytest.mark.parametrize(
    ("kind", "want"),
    [
        ("mocov2", 1.0195690036982545),
        ("linear", -1.1625237601516618),
        ("simclr", -0.3829315912070297),
        ("simclrv2", -0.25854713610234126),
    ],
)
def test_align_uniform_is_that_of_farhat_and_chen(kind: Any, want: float) -> None:
    """sfarhat/dapt ccdbeb1 kd_losses/align_uniform.py and models/projector.py, alpha = t = 2, weights 1."""
    loss = AlignUniform(5, 6, width=3, projector=kind).double()
    filled(loss.projectors.student)
    filled(loss.projectors.teachers[0])
    assert float(loss(STUDENT, TEACHER).detach()) == pytest.approx(want, abs=1e-12)


def test_info_nce_is_that_of_clip() -> None:
    """mlfoundations/open_clip 89fb801 src/open_clip/loss.py, ClipLoss with the logit scale 1 / temperature."""
    assert float(info_nce(X, Y, 0.07)) == pytest.approx(5.327411334530794, abs=1e-12)
    assert float(info_nce(X, Y, 0.5)) == pytest.approx(1.6690455932456083, abs=1e-12)


@pytest.mark.parametrize("dense", [0, 16])
def test_crd_is_that_of_tian_over_three_steps(dense: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """HobbitLong/RepDistiller b84f547 crd/criterion.py and crd/memory.py; all four images of the other class drawn."""
    monkeypatch.setattr(crd, "DENSE", dense)
    loss = CRD(5, 6, LABELS, width=3, negatives=4, temperature=0.2, momentum=0.5).double()
    filled(loss.projectors.student)
    filled(loss.projectors.teachers[0])
    loss.memory_s.copy_(wave(8, 3, start=0.5))
    loss.memory_t[0].copy_(wave(8, 3, start=1.5))
    wanted = (12.20473561150448, 9.390895952814818, 7.466369822332533)
    batches = ([0, 1, 2, 3], [4, 5, 6, 7], [1, 6, 0, 2])
    for step, (rows, want) in enumerate(zip(batches, wanted, strict=True)):
        index = torch.tensor(rows)
        got = loss(STUDENT[index], TEACHER[index], index, step)
        assert float(got.detach()) == pytest.approx(want, abs=1e-12)


def test_feature_matching_by_squares_is_the_hint_of_fitnets() -> None:
    """HobbitLong/RepDistiller b84f547 distiller_zoo/FitNet.py, on mapped features."""
    loss = FeatureMatch(5, 6, "mse").double()
    with torch.no_grad():
        loss.maps[0].weight.copy_(wave(6, 5))
        loss.maps[0].bias.zero_()
    assert float(loss(STUDENT, TEACHER).detach()) == pytest.approx(21.234648599016086, abs=1e-12)


# -- all of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_gradients_agree_with_finite_differences_in_float64(name: str) -> None:
    s, t, index = features(5, seed=3)
    loss = made(name)
    loss(s, t, index, 0)  # CRD's constants are set

    def fresh(a: Tensor, b: Tensor) -> Tensor:
        value: Tensor = copy.deepcopy(loss)(a, b, index, 1)
        return value

    assert torch.autograd.gradcheck(fresh, (s, t.requires_grad_()), atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_is_nan_in_small_batches_and_for_features_of_any_size(
    name: str, rows: int, scale: float, dtype: torch.dtype
) -> None:
    s, t, index = features(rows, scale=scale)
    s, t = s.detach().to(dtype).requires_grad_(), t.to(dtype)
    loss = made(name).to(dtype)
    for step in range(2):
        value = loss(s, t, index, step)
        value.backward()
        assert value.ndim == 0 and value.dtype == dtype and bool(torch.isfinite(value))
        for tensor in (s, *loss.parameters()):
            assert tensor.grad is None or bool(torch.isfinite(tensor.grad).all())
    assert s.grad is not None


@pytest.mark.parametrize("name", NAMES)
def test_images_that_look_alike_have_finite_gradients(name: str) -> None:
    s, t, _ = features(1)
    s, t = s.detach().repeat(6, 1).requires_grad_(), t.repeat(6, 1)
    loss = made(name)
    value = loss(s, t, torch.arange(6), 0)
    value.backward()
    assert bool(torch.isfinite(value))
    for tensor in (s, *loss.parameters()):
        assert tensor.grad is not None and bool(torch.isfinite(tensor.grad).all())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_features_are_computed_in_float32_under_autocast_too(
    name: str, dtype: torch.dtype
) -> None:
    s, t, index = features(6)
    s, t = s.detach().to(dtype), t.to(dtype)
    loss = made(name).float()
    want = copy.deepcopy(loss)(s.float(), t.float(), index, 0)
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            got = copy.deepcopy(loss)(s, t, index, 0)
        assert got.dtype == torch.float32
        assert float(got.detach()) == float(want.detach())


@pytest.mark.parametrize("name", NAMES)
def test_each_teacher_has_a_projector_of_its_own(name: str) -> None:
    torch.manual_seed(1)
    loss = made(name, teacher=(6, 4))
    s, _, index = features(5)
    for which, width in ((0, 6), (1, 4)):
        loss.zero_grad()
        loss(s, torch.randn(5, width, dtype=torch.float64), index, 0, which).backward()
        for label, parameter in loss.named_parameters():
            if "teachers." in label or "maps." in label:
                whose = int(label.split("teachers." if "teachers." in label else "maps.")[1][0])
                assert (parameter.grad is None) == (whose != which), label


@pytest.mark.parametrize("name", NAMES)
def test_student_and_projectors_learn_and_stored_features_do_not(name: str) -> None:
    s, t, index = features(6)
    loss = made(name)
    loss(s, t, index, 0).backward()
    assert t.grad is None
    for tensor in (s, *loss.parameters()):
        assert tensor.grad is not None
        if "simclr" not in name:  # what BatchNorm subtracts has a gradient of next to nothing
            assert float(tensor.grad.abs().sum()) > 0


# -- alignment and uniformity ----------------------------------------------------------------------


def defined(x: Tensor, y: Tensor, alpha: float, t: float) -> Tensor:
    """The loss as its definition says."""
    return alignment(x, y, alpha) + (uniformity(x, t) + uniformity(y, t)) / 2


@settings(max_examples=60)
@given(
    st.integers(1, 20),
    st.integers(1, 12),
    st.sampled_from([1.0, 1.5, 2.0, 3.0]),
    st.floats(0.1, 5),
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(0, 10_000),
)
def test_the_closed_form_is_the_definition(
    rows: int, width: int, alpha: float, t: float, dtype: torch.dtype, seed: int
) -> None:
    both = [unit(rows, width, seed + i).to(dtype).requires_grad_() for i in (0, 1)]
    got, want = AlignedUniform.apply(*both, alpha, t), defined(*both, alpha, t)
    exact = 1e-12 if dtype == torch.float64 else 2e-6
    assert float(got.detach()) == pytest.approx(float(want.detach()), abs=exact, rel=exact)
    mine, torchs = (torch.autograd.grad(value, both) for value in (got, want))
    for a, b in zip(mine, torchs, strict=True):
        assert torch.allclose(a, b, atol=20 * exact * max(1, t), rtol=20 * exact)


def test_uniformity_of_far_points_does_not_vanish() -> None:
    """The definition's potential is 0 in float32 from t = 26 on, and its logarithm not a number to train on."""
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    loss = AlignedUniform.apply(x, x.detach().clone(), 2.0, 40.0)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-160.0)
    assert x.grad is not None and bool(torch.isfinite(x.grad).all())


def test_the_closed_perceptron_is_torchs_own() -> None:
    torch.manual_seed(0)
    projector = Projector(7, 3).double()
    x = torch.randn(6, 7, dtype=torch.float64, requires_grad=True)
    way = torch.randn(6, 3, dtype=torch.float64)
    tensors = [x, *projector.parameters()]
    mine = torch.autograd.grad((projector(x) * way).sum(), tensors)
    torchs = torch.autograd.grad((F.normalize(projector.layers(x), dim=1) * way).sum(), tensors)
    for a, b in zip(mine, torchs, strict=True):
        assert torch.allclose(a, b, atol=1e-14)
    parameters = list(projector.parameters())
    assert torch.autograd.gradcheck(lambda a, *p: UnitPerceptron.apply(a, *p), (x, *parameters))


@pytest.mark.parametrize("kind", ["linear", "simclr", "simclrv2"])
def test_the_other_projectors_have_the_layers_of_the_paper(kind: Any) -> None:
    projector = Projector(10, 4, kind)
    hidden = [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    want = {
        "linear": [nn.Linear],
        "simclr": [*hidden, nn.Linear, nn.BatchNorm1d],
        "simclrv2": [*hidden, *hidden, nn.Linear, nn.BatchNorm1d],
    }[kind]
    assert all(isinstance(a, b) for a, b in zip(projector.layers, want, strict=True))
    x = torch.randn(6, 10)
    assert torch.allclose(projector(x).norm(dim=1), torch.ones(6), atol=1e-6)
    for layer in projector.layers:
        if isinstance(layer, nn.Linear):
            assert (layer.bias is not None) == (kind == "linear")
    last = list(projector.layers)[-1]
    assert kind == "linear" or (isinstance(last, nn.BatchNorm1d) and not last.affine)


def test_a_batch_of_one_goes_through_batchnorm_by_its_running_statistics() -> None:
    torch.manual_seed(0)
    projector = Projector(5, 3, "simclr")
    projector(torch.randn(16, 5))
    x = torch.randn(1, 5)
    got = projector(x)
    assert torch.equal(got, projector.eval()(x))


def test_random_unit_vectors_give_the_values_that_theory_and_the_papers_code_give() -> None:
    aligns = [float(alignment(unit(64, 128, s), unit(64, 128, s + 500))) for s in range(40)]
    uniforms = [float(uniformity(unit(64, 128, s))) for s in range(40)]
    assert np.mean(aligns) == pytest.approx(2.0, abs=0.02)  # E|x - y|^2 = 2 for independent ones
    assert all(1.85 < value < 2.15 for value in aligns)
    assert np.mean(uniforms) == pytest.approx(-3.93, abs=0.02)


def test_total_collapse_gives_zero_for_both_terms() -> None:
    point = unit(1, 128, 3).repeat(64, 1)
    assert float(alignment(point, point)) == 0
    assert float(uniformity(point)) == 0


def test_alignment_is_two_minus_twice_the_cosine() -> None:
    x, y = unit(32, 16, 1), unit(32, 16, 2)
    assert float(alignment(x, y)) == pytest.approx(float((2 - 2 * (x * y).sum(1)).mean()), abs=1e-6)


def test_alignment_of_vectors_worked_out_by_hand() -> None:
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8]])
    y = torch.tensor([[0.0, 1.0], [-1.0, 0.0], [0.6, 0.8]])
    # distances: sqrt 2, 2, 0
    assert float(alignment(x, y)) == pytest.approx((2 + 4 + 0) / 3)
    assert float(alignment(x, y, alpha=1)) == pytest.approx((math.sqrt(2) + 2) / 3, abs=1e-5)
    assert float(alignment(x, y, alpha=4)) == pytest.approx((4 + 16) / 3)


def test_uniformity_of_vectors_worked_out_by_hand() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    # squared distances of the pairs: 2, 4, 2
    want = math.log((math.exp(-4) + math.exp(-8) + math.exp(-4)) / 3)
    assert float(uniformity(x)) == pytest.approx(want, rel=1e-5)
    assert want == pytest.approx(-4.39635, abs=1e-5)
    other = math.log((math.exp(-1) + math.exp(-2) + math.exp(-1)) / 3)
    assert float(uniformity(x, t=0.5)) == pytest.approx(other, rel=1e-5)


def test_opposite_points_are_the_most_uniform_pair() -> None:
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert float(uniformity(x)) == pytest.approx(-8.0, rel=1e-6)


@pytest.mark.parametrize("alpha", [1.0, 2.0, 3.0])
def test_identical_embeddings_have_finite_gradients(alpha: float) -> None:
    x = unit(1, 8, 0).repeat(6, 1).requires_grad_()
    loss = alignment(x, x.detach().clone(), alpha) + uniformity(x)
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert x.grad is not None and bool(torch.isfinite(x.grad).all())


def test_a_batch_of_one_has_no_pair_and_still_trains_the_alignment() -> None:
    x = unit(1, 8, 0).requires_grad_()
    assert float(uniformity(x).detach()) == 0
    (alignment(x, unit(1, 8, 1)) + uniformity(x)).backward()
    assert x.grad is not None and float(x.grad.abs().sum()) > 0


def test_features_of_zeros_do_not_become_nan() -> None:
    loss = AlignUniform(4, 6, width=3)
    features = torch.zeros(5, 4, requires_grad=True)
    with torch.no_grad():
        for p in loss.parameters():
            p.zero_()
    value = loss(features, torch.zeros(5, 6))
    value.backward()
    assert float(value.detach()) == pytest.approx(0, abs=1e-20)
    assert features.grad is not None and bool(torch.isfinite(features.grad).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_low_precision_inputs_compute_in_float32(dtype: torch.dtype, autocast: bool) -> None:
    x, y = unit(16, 32, 1).to(dtype), unit(16, 32, 2).to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        values = [alignment(x, y), uniformity(x), alignment(x, y, 3.0)]
    wide = [
        alignment(x.float(), y.float()), uniformity(x.float()),
        alignment(x.float(), y.float(), 3.0),
    ]  # fmt: skip
    for got, want in zip(values, wide, strict=True):
        assert got.dtype == torch.float32
        assert float(got) == float(want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_align_uniform_computes_in_float32_under_autocast(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    loss = AlignUniform(12, 20, width=8)
    student, teacher = torch.randn(9, 12).to(dtype), torch.randn(9, 20).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        got = loss(student, teacher)
    assert got.dtype == torch.float32
    assert float(got.detach()) == float(loss(student.float(), teacher.float()).detach())


def test_align_uniform_is_the_sum_of_its_parts_with_half_the_uniformity_of_each_side() -> None:
    torch.manual_seed(0)
    loss = AlignUniform(12, 20, width=8, alpha=3.0, t=1.5)
    student, teacher = torch.randn(9, 12), torch.randn(9, 20)
    z_s, z_t = (
        loss.projectors.student(student).detach(),
        loss.projectors.teachers[0](teacher).detach(),
    )
    squared = (z_s - z_t).square().sum(1)
    pairs = [(i, j) for i in range(9) for j in range(i + 1, 9)]

    def spread(z: Tensor) -> float:
        potential = [math.exp(-1.5 * float((z[i] - z[j]).square().sum())) for i, j in pairs]
        return math.log(sum(potential) / len(pairs))

    want = float(squared.pow(1.5).mean()) + (spread(z_s) + spread(z_t)) / 2
    assert float(loss(student, teacher).detach()) == pytest.approx(want, rel=1e-5)


def test_the_projector_is_linear_relu_linear_to_unit_length() -> None:
    torch.manual_seed(0)
    projector = Projector(10, 128)
    layers = list(projector.layers)
    first, middle, last = layers
    assert isinstance(first, nn.Linear) and (first.in_features, first.out_features) == (10, 10)
    assert isinstance(middle, nn.ReLU)
    assert isinstance(last, nn.Linear) and (last.in_features, last.out_features) == (10, 128)
    x = torch.randn(4, 10)
    z = projector(x)
    assert torch.allclose(z.norm(dim=1), torch.ones(4), atol=1e-6)
    raw = F.relu(x @ first.weight.T + first.bias) @ last.weight.T + last.bias
    assert torch.allclose(z, raw / raw.norm(dim=1, keepdim=True), atol=1e-6)


def test_training_with_align_uniform_alone_neither_collapses_nor_diverges() -> None:
    """Both projectors learn: matching pairs come together while different images stay apart."""
    torch.manual_seed(0)
    hidden = torch.randn(48, 6)
    student, teacher = hidden @ torch.randn(6, 10), hidden @ torch.randn(6, 14)
    loss = AlignUniform(10, 14, width=8)
    optimizer = torch.optim.AdamW(loss.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        loss(student, teacher).backward()
        optimizer.step()
    z_s, z_t = (
        loss.projectors.student(student).detach(),
        loss.projectors.teachers[0](teacher).detach(),
    )
    assert float(alignment(z_s, z_t)) < 0.2
    assert float(uniformity(z_s)) < -2 and float(uniformity(z_t)) < -2


# -- contrast --------------------------------------------------------------------------------------


def test_info_nce_knows_nothing_of_images_that_look_alike() -> None:
    x = unit(1, 8, 0).repeat(6, 1)
    assert float(info_nce(x, x, 0.07)) == pytest.approx(math.log(6), rel=1e-6)
    assert float(info_nce(x[:1], x[:1], 0.07)) == 0


def test_info_nce_worked_out_by_hand() -> None:
    x, y = torch.eye(2), torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    rows = (
        -math.log(math.e / (math.e + math.exp(0.6))),
        -math.log(math.exp(0.8) / (1 + math.exp(0.8))),
    )
    columns = (
        -math.log(math.e / (math.e + 1)),
        -math.log(math.exp(0.8) / (math.exp(0.8) + math.exp(0.6))),
    )
    assert float(info_nce(x, y, 1.0)) == pytest.approx((sum(rows) + sum(columns)) / 4, rel=1e-6)


def test_matched_features_have_no_loss_and_the_cosine_does_not_see_their_length() -> None:
    s, _, _ = features(6)
    for kind in ("cosine", "mse"):
        loss = FeatureMatch(5, 5, kind).double()
        with torch.no_grad():
            loss.maps[0].weight.copy_(torch.eye(5))
            loss.maps[0].bias.zero_()
        assert float(loss(s, s.detach()).detach()) == pytest.approx(0, abs=1e-12)
        longer = float(loss(s, 3 * s.detach()).detach())
        assert longer == pytest.approx(0, abs=1e-12) if kind == "cosine" else longer > 0.1
        if kind == "cosine":
            assert float(loss(s, -s.detach()).detach()) == pytest.approx(2)


# -- negatives and memory --------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    st.lists(st.integers(-1, 4), min_size=2, max_size=40), st.integers(1, 50), st.integers(0, 99)
)
def test_negatives_are_of_other_classes_and_none_twice_where_there_are_enough(
    labels: list[int], count: int, seed: int
) -> None:
    known = np.array(labels)
    negatives = Negatives(known, count, seed)
    index = np.arange(len(known))
    drawn = negatives.draw(index, 3)
    assert drawn.shape == (len(known), 1 + count)
    assert (drawn[:, 0] == index).all()
    for image, row in zip(index, drawn[:, 1:], strict=True):
        others = np.flatnonzero(known != known[image])
        if known[image] < 0 or not len(others):
            others = np.delete(index, image)
        assert set(row) <= set(others)
        if count <= len(others):
            assert len(set(row)) == count


def test_negatives_are_a_function_of_seed_step_and_image_alone() -> None:
    labels = np.arange(60) % 3
    a, b = Negatives(labels, 20, 7), Negatives(labels, 20, 7)
    whole = a.draw(np.array([4, 9, 33]), 5)
    a.draw(np.array([1, 2]), 6)  # what was drawn before does not count
    assert np.array_equal(b.draw(np.array([33]), 5)[0], whole[2])
    assert not np.array_equal(b.draw(np.array([33]), 6)[0], whole[2])
    assert not np.array_equal(Negatives(labels, 20, 8).draw(np.array([33]), 5)[0], whole[2])


def test_every_image_of_another_class_is_drawn_about_as_often() -> None:
    labels = np.arange(20) % 2
    negatives = Negatives(labels, 3, 0)
    counts = np.zeros(20)
    for step in range(2000):
        np.add.at(counts, negatives.draw(np.array([6]), step)[0, 1:], 1)
    assert (counts[::2] == 0).all()
    assert counts[1::2].min() > 500 and counts[1::2].max() < 700  # 600 expected, sd 21


@pytest.mark.parametrize("labels", [[0], [-1], [3, 3, 3], [-1, -1, -1]])
def test_crd_of_one_class_and_of_one_image_is_finite(labels: list[int]) -> None:
    torch.manual_seed(0)
    loss = CRD(5, 6, np.array(labels), width=3, negatives=4)
    s = torch.randn(1, 5, requires_grad=True)
    for step in range(2):
        value = loss(s, torch.randn(1, 6), torch.tensor([0]), step)
        value.backward()
        assert math.isfinite(float(value.detach())) and float(value.detach()) >= 0
    assert s.grad is not None and bool(torch.isfinite(s.grad).all())


def test_crd_does_not_overflow_at_temperatures_where_scores_do() -> None:
    torch.manual_seed(0)
    loss = CRD(5, 6, LABELS, width=3, negatives=3, temperature=0.001)
    s, t, index = features(4)
    value = loss(s.detach().float().requires_grad_(), t.float(), index, 0)
    assert bool(torch.isfinite(value))


def test_crd_that_is_resumed_goes_on_to_the_bit() -> None:
    torch.manual_seed(0)
    unbroken = CRD(5, 6, LABELS, width=3, negatives=3, seed=4)
    optimizer = torch.optim.SGD(unbroken.parameters(), 0.1)

    def train(loss: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> list[float]:
        values = []
        for step in steps:
            s, t, index = features(4, seed=step)
            optimizer.zero_grad()
            value = loss(s.detach().float(), t.float(), index, step)
            value.backward()
            optimizer.step()
            values.append(float(value.detach()))
        return values

    train(unbroken, optimizer, range(3))
    saved = copy.deepcopy(unbroken.state_dict())
    want = train(unbroken, optimizer, range(3, 6))
    resumed = CRD(5, 6, LABELS, width=3, negatives=3, seed=4)
    resumed.load_state_dict(saved)
    assert train(resumed, torch.optim.SGD(resumed.parameters(), 0.1), range(3, 6)) == want


def test_the_constants_are_those_of_the_first_batch_of_each_teacher() -> None:
    loss: Any = made("crd", teacher=(6, 6))
    assert bool(loss.log_z.isnan().all())
    s, t, index = features(4)
    loss(s, t, index, 0, 1)
    first = loss.log_z.clone()
    assert bool(first[0].isnan().all()) and bool(first[1].isfinite().all())
    loss(s * 2, t * 3, index, 1, 1)
    assert torch.equal(loss.log_z[1], first[1])


def test_the_memory_moves_half_way_for_the_images_that_were_seen() -> None:
    loss: Any = made("crd")
    before = loss.memory_s.clone(), loss.memory_t.clone()
    s, t, _ = features(2)
    index = torch.tensor([6, 1])
    z_s, z_t = loss.projectors.own(s, t, 0)
    loss(s, t, index, 0)
    for memory, old, z in ((loss.memory_s, before[0], z_s), (loss.memory_t[0], before[1][0], z_t)):
        want = F.normalize((old[index] + z.detach()) / 2, dim=1)
        assert torch.allclose(memory[index], want)
        unseen = [i for i in range(8) if i not in (1, 6)]
        assert torch.equal(memory[unseen], old[unseen])


def test_a_memory_is_the_same_for_the_same_seed_whatever_torch_drew_before() -> None:
    torch.manual_seed(1)
    a = CRD(5, 6, LABELS, width=3, seed=2)
    torch.manual_seed(2)
    b, c = CRD(5, 6, LABELS, width=3, seed=2), CRD(5, 6, LABELS, width=3, seed=3)
    assert torch.equal(a.memory_s, b.memory_s) and torch.equal(a.memory_t, b.memory_t)
    assert not torch.equal(a.memory_s, c.memory_s)
    assert float(a.memory_s.abs().max()) <= 1 / math.sqrt(3 / 3)


def test_training_with_crd_brings_each_image_to_its_own_and_not_to_others() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(48, 6)
    student, teacher = hidden @ torch.randn(6, 10), hidden @ torch.randn(6, 14)
    loss = CRD(10, 14, np.arange(48), width=8, negatives=24, temperature=0.2)
    optimizer = torch.optim.AdamW(loss.parameters(), lr=1e-2)
    for step in range(200):
        optimizer.zero_grad()
        loss(student, teacher, torch.arange(48), step).backward()
        optimizer.step()
    z_s, z_t = (z.detach() for z in loss.projectors.own(student, teacher, 0))
    assert float(((z_s @ z_t.T).argmax(1) == torch.arange(48)).float().mean()) > 0.9
