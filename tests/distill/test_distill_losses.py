"""The loss terms: hand-computed values, known constants, gradients, and the precision they compute in."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgedistill.distill.losses import AlignUniform, Projector, alignment, kd, uniformity
from edgedistill.distill.objectives import Distilled, Plain
from edgedistill.nets import Ints
from edgedistill.recipe import DistillSection


def unit(n: int, d: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def numpy_kd(student: np.ndarray, teacher: np.ndarray, t: float) -> float:
    """sum over classes of p_t (log p_t - log p_s), mean over images, times T squared, in float64."""

    def log_softmax(z: np.ndarray) -> np.ndarray:
        z = z.astype(np.float64) / t
        z = z - z.max(axis=1, keepdims=True)
        return np.asarray(z - np.log(np.exp(z).sum(axis=1, keepdims=True)))

    log_s, log_t = log_softmax(student), log_softmax(teacher)
    return float(t**2 * (np.exp(log_t) * (log_t - log_s)).sum(axis=1).mean())


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


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(2, 12),
    st.floats(0.5, 20),
    st.floats(0.01, 60),
    st.integers(0, 10_000),
)
def test_kd_is_the_plain_formula(n: int, c: int, t: float, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    student, teacher = ((rng.standard_normal((n, c)) * scale).astype(np.float32) for _ in range(2))
    got = float(kd(torch.from_numpy(student), torch.from_numpy(teacher), t))
    assert got == pytest.approx(numpy_kd(student, teacher, t), rel=1e-4, abs=1e-4 * t**2)


def test_kd_worked_out_by_hand() -> None:
    teacher = torch.tensor([[math.log(3.0), 0.0]])  # 3/4 and 1/4
    student = torch.tensor([[0.0, 0.0]])  # 1/2 and 1/2
    want = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert float(kd(student, teacher, 1.0)) == pytest.approx(want, rel=1e-6)
    assert want == pytest.approx(0.130812, abs=1e-6)
    at4 = torch.tensor([[4 * math.log(3.0), 0.0]])
    assert float(kd(student, at4, 4.0)) == pytest.approx(16 * want, rel=1e-6)


def test_kd_is_of_the_student_against_the_teacher_and_not_the_other_way_round() -> None:
    a, b = torch.tensor([[4.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 0.0]])
    assert float(kd(a, b, 1.0)) != pytest.approx(float(kd(b, a, 1.0)), rel=0.05)
    assert float(kd(b, a, 1.0)) == pytest.approx(numpy_kd(b.numpy(), a.numpy(), 1.0), rel=1e-5)


def test_kd_is_zero_for_equal_logits_and_does_not_see_a_shift() -> None:
    z = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
    assert float(kd(z, z + 3, 4.0)) == pytest.approx(0, abs=1e-5)


def test_certain_logits_keep_kd_finite() -> None:
    student, teacher = torch.tensor([[0.0, 500.0]]), torch.tensor([[500.0, 0.0]])
    student.requires_grad_()
    loss = kd(student, teacher, 1.0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == pytest.approx(500.0)
    assert student.grad is not None and bool(torch.isfinite(student.grad).all())


def test_the_gradient_of_kd_does_not_shrink_with_the_temperature() -> None:
    norms = []
    for t in (1.0, 4.0, 16.0):
        s = (torch.randn(8, 10, generator=torch.Generator().manual_seed(4)) * 0.1).requires_grad_()
        kd(s, torch.randn(8, 10, generator=torch.Generator().manual_seed(5)) * 0.1, t).backward()  # type: ignore[no-untyped-call]
        assert s.grad is not None
        norms.append(float(s.grad.norm()))
    assert max(norms) / min(norms) < 1.2


@pytest.mark.parametrize("alpha", [1.0, 2.0, 3.0])
def test_identical_embeddings_have_finite_gradients(alpha: float) -> None:
    x = unit(1, 8, 0).repeat(6, 1).requires_grad_()
    loss = alignment(x, x.detach().clone(), alpha) + uniformity(x)
    loss.backward()  # type: ignore[no-untyped-call]
    assert math.isfinite(float(loss.detach()))
    assert x.grad is not None and bool(torch.isfinite(x.grad).all())


def test_a_batch_of_one_has_no_pair_and_still_trains_the_alignment() -> None:
    x = unit(1, 8, 0).requires_grad_()
    assert float(uniformity(x).detach()) == 0
    (alignment(x, unit(1, 8, 1)) + uniformity(x)).backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None and float(x.grad.abs().sum()) > 0


def test_features_of_zeros_do_not_become_nan() -> None:
    loss = AlignUniform(4, 6, width=3)
    features = torch.zeros(5, 4, requires_grad=True)
    with torch.no_grad():
        for p in loss.parameters():
            p.zero_()
    value = loss(features, torch.zeros(5, 6))
    value.backward()
    assert float(value.detach()) == 0
    assert features.grad is not None and bool(torch.isfinite(features.grad).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_low_precision_inputs_compute_in_float32(dtype: torch.dtype, autocast: bool) -> None:
    x, y = unit(16, 32, 1).to(dtype), unit(16, 32, 2).to(dtype)
    z = (torch.randn(16, 5, generator=torch.Generator().manual_seed(1)) * 30).to(dtype)
    w = (torch.randn(16, 5, generator=torch.Generator().manual_seed(2)) * 30).to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        values = [alignment(x, y), uniformity(x), kd(z, w, 4.0), alignment(x, y, 3.0)]
    wide = [
        alignment(x.float(), y.float()), uniformity(x.float()), kd(z.float(), w.float(), 4.0),
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
    z_s, z_t = loss.student(student).detach(), loss.teacher(teacher).detach()
    squared = (z_s - z_t).square().sum(1)
    pairs = [(i, j) for i in range(9) for j in range(i + 1, 9)]

    def spread(z: Tensor) -> float:
        potential = [math.exp(-1.5 * float((z[i] - z[j]).square().sum())) for i, j in pairs]
        return math.log(sum(potential) / len(pairs))

    want = float(squared.pow(1.5).mean()) + (spread(z_s) + spread(z_t)) / 2
    assert float(loss(student, teacher).detach()) == pytest.approx(want, rel=1e-5)


def test_gradients_agree_with_finite_differences_in_float64() -> None:
    g = torch.Generator().manual_seed(3)
    x, y = (
        torch.randn(5, 4, generator=g, dtype=torch.float64, requires_grad=True) for _ in range(2)
    )
    assert torch.autograd.gradcheck(lambda a, b: kd(a, b, 4.0), (x, y))
    for alpha in (1.0, 2.0, 3.0):
        assert torch.autograd.gradcheck(lambda a, b, p=alpha: alignment(a, b, p), (x, y))
    assert torch.autograd.gradcheck(uniformity, (x,))
    loss = AlignUniform(4, 4, width=3).double()
    assert torch.autograd.gradcheck(loss, (x, y), atol=1e-4)


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


class Taught:
    """Fixed teacher outputs that ask for gradients, to see whether one flows into them."""

    def __init__(self, n: int, features: int, classes: int) -> None:
        self.features = torch.randn(n, features)
        self.logits = torch.randn(n, classes)
        self.asked: list[tuple[int, list[int]]] = []

    def __call__(self, view: int, index: Ints) -> tuple[Tensor, Tensor]:
        self.asked.append((view, index.tolist()))
        return self.features[index], self.logits[index]


def test_align_uniform_trains_both_projectors_and_the_student_but_not_the_teacher() -> None:
    torch.manual_seed(0)
    taught = Taught(6, 20, 3)
    objective = Distilled(DistillSection(), 12, 20, taught)
    features = torch.randn(4, 12, requires_grad=True)
    logits = torch.randn(4, 3, requires_grad=True)
    index = np.array([5, 0, 2, 3])
    loss, _ = objective(features, logits, torch.tensor([0, 1, 2, 0]), 7, index)
    loss.backward()  # type: ignore[no-untyped-call]
    assert taught.asked == [(7, [5, 0, 2, 3])]
    for parameter in [features, logits, *objective.align.parameters()]:
        assert parameter.grad is not None and float(parameter.grad.abs().sum()) > 0
    assert taught.features.grad is None and not taught.features.requires_grad


def test_the_objective_weighs_its_parts_and_reports_them_before_weighting() -> None:
    torch.manual_seed(0)
    taught = Taught(4, 8, 3)
    section = DistillSection(ce=0.5, kd=2.0, align_uniform=0.25, temperature=3.0)
    objective = Distilled(section, 8, 8, taught)
    features, logits = torch.randn(4, 8), torch.randn(4, 3)
    labels = torch.tensor([0, 1, 2, 0])
    loss, parts = objective(features, logits, labels, 0, np.arange(4))
    assert set(parts) == {"ce", "kd", "align_uniform"}
    want_ce = float(F.cross_entropy(logits, labels))
    assert float(parts["ce"]) == pytest.approx(want_ce)
    want_kd = numpy_kd(logits.numpy(), taught.logits.numpy(), 3.0)
    assert float(parts["kd"]) == pytest.approx(want_kd, rel=1e-4)
    total = 0.5 * want_ce + 2.0 * want_kd + 0.25 * float(parts["align_uniform"].detach())
    assert float(loss.detach()) == pytest.approx(total, rel=1e-4)


def test_a_weight_of_zero_switches_its_term_off() -> None:
    torch.manual_seed(0)
    section = DistillSection(ce=1.0, kd=0.0, align_uniform=0.0)
    objective = Distilled(section, 8, 8, Taught(4, 8, 3))
    features = torch.randn(4, 8, requires_grad=True)
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    loss, _ = objective(features, logits, labels, 0, np.arange(4))
    plain, parts = Plain()(features, logits, labels, 0, np.arange(4))
    assert float(loss.detach()) == pytest.approx(float(plain.detach()), rel=1e-6)
    assert parts == {}


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
    z_s, z_t = loss.student(student).detach(), loss.teacher(teacher).detach()
    assert float(alignment(z_s, z_t)) < 0.2
    assert float(uniformity(z_s)) < -2 and float(uniformity(z_t)) < -2


def test_smoothed_cross_entropy_is_a_mix_of_the_label_and_of_all_classes() -> None:
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    logp = logits.log_softmax(1)
    on_label, on_all = -logp[torch.arange(6), labels].mean(), -logp.mean()
    for share in (0.0, 0.1, 0.5):
        loss, parts = Plain(share)(logits, logits, labels, 0, labels.numpy())
        assert parts == {}
        assert float(loss) == pytest.approx(
            float((1 - share) * on_label + share * on_all), abs=1e-6
        )
