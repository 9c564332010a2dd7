"""The losses between logits: the authors' own values, values worked out by hand, gradients, edges, and precision."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgedistill.distill.losses import (
    believed,
    cross_entropy,
    dist,
    dkd,
    hard,
    kd,
    logit_mse,
    soft_cross_entropy,
)

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
LOSSES: dict[str, Loss] = {
    "kd": lambda s, t, y: kd(s, t, 4.0),
    "dkd": lambda s, t, y: dkd(s, t, y, 4.0),
    "dist": lambda s, t, y: dist(s, t, 4.0),
    "soft": lambda s, t, y: soft_cross_entropy(s, t, 2.0),
    "hard": lambda s, t, y: hard(s, t),
    "logit mse": lambda s, t, y: logit_mse(s, t),
    "kd, believed": lambda s, t, y: kd(s, believed(t, 3, 0.9), 4.0),
    "dist, believed": lambda s, t, y: dist(s, believed(t, 3, 0.9), 4.0),
    "dkd, believed": lambda s, t, y: dkd(s, believed(t, 3, 0.9), y, 4.0),
    "labels": lambda s, t, y: cross_entropy(s, y, 0.1),
    "soft labels": lambda s, t, y: cross_entropy(s, t.softmax(1), 0.1),
}
WEIGHTED: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]] = {
    "kd": lambda s, t, y, w: kd(s, t, 4.0, w),
    "dkd": lambda s, t, y, w: dkd(s, t, y, 4.0, weights=w),
    "soft": lambda s, t, y, w: soft_cross_entropy(s, t, 2.0, w),
    "hard": lambda s, t, y, w: hard(s, t, w),
    "logit mse": lambda s, t, y, w: logit_mse(s, t, w),
    "labels": lambda s, t, y, w: cross_entropy(s, y, 0.1, w),
    "soft labels": lambda s, t, y, w: cross_entropy(s, t.softmax(1), 0.1, w),
}


def wave(*shape: int, start: float = 1.0, scale: float = 1.0) -> Tensor:
    """Numbers that any library writes alike: `scale * sin(start + 1.7 i)`, in float64."""
    i = torch.arange(math.prod(shape), dtype=torch.float64)
    return (torch.sin(start + i * 1.7) * scale).reshape(shape)


def batch(
    rows: int, classes: int, seed: int = 0, scale: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Student, asking for a gradient, and teacher (B, C) in float64, and labels (B,)."""
    g = torch.Generator().manual_seed(seed)
    s, t = (torch.randn(rows, classes, generator=g, dtype=torch.float64) * scale for _ in "st")
    return s.requires_grad_(), t, torch.randint(0, classes, (rows,), generator=g)


# -- what the authors' code gives ------------------------------------------------------------------

S, T = wave(4, 5, scale=3), wave(4, 5, start=2.5, scale=4)
Y = torch.tensor([0, 3, 3, 1])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        # HobbitLong/RepDistiller b84f547 distiller_zoo/KD.py, and megvii-research/mdistiller a08d46f
        (lambda: kd(S, T, 1.0), 2.402475958785803),
        (lambda: kd(S, T, 4.0), 4.855246674290732),
        # megvii-research/mdistiller a08d46f mdistiller/distillers/DKD.py
        (lambda: dkd(S, T, Y, 4.0), 39.26091448253179),
        (lambda: dkd(S, T, Y, 1.0, 0.5, 2.0), 4.4959418940835025),
        # hunto/image_classification_sota 6f7a70a lib/models/losses/dist_kd.py and cross_entropy.py
        (lambda: dist(S, T, 1.0), 2.2261527694185492),
        (lambda: dist(S, T, 4.0, 2.0, 0.5), 38.71352167625628),
        (lambda: soft_cross_entropy(S, T), 2.9296463030242257),
        (lambda: cross_entropy(S, T.softmax(1)), 2.9296463030242257),
        (lambda: cross_entropy(S, Y, 0.1), 2.592732240208959),
        # facebookresearch/deit 7e160fe losses.py, distillation_type "hard"
        (lambda: hard(S, T), 3.228338775983173),
    ],
)
def test_the_losses_give_what_their_authors_code_gives(
    ours: Callable[[], Tensor], theirs: float
) -> None:
    assert float(ours()) == pytest.approx(theirs, abs=1e-12)


# -- gradients and edges ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_agree_with_finite_differences_in_float64(name: str) -> None:
    s, t, y = batch(5, 4, seed=3)
    y[2] = -1
    assert torch.autograd.gradcheck(lambda a: LOSSES[name](a, t, y), (s,))


@pytest.mark.parametrize("name", ["kd", "dkd", "dist", "soft"])
def test_the_teacher_may_have_a_gradient_too(name: str) -> None:
    s, t, y = batch(5, 4, seed=4)
    assert torch.autograd.gradcheck(lambda a, b: LOSSES[name](a, b, y), (s, t.requires_grad_()))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("rows", "classes"), [(1, 1), (1, 2), (1, 10), (6, 1), (6, 2), (6, 10)])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_nothing_is_nan_in_small_batches_few_classes_and_huge_logits(
    name: str, dtype: torch.dtype, rows: int, classes: int, scale: float
) -> None:
    s, t, y = batch(rows, classes, seed=1, scale=scale)
    s, t = s.detach().to(dtype).requires_grad_(), t.to(dtype)
    y[0] = -1
    for teacher in (t, -t, s.detach()):
        s.grad = None
        loss = LOSSES[name](s, teacher, y)
        loss.backward()
        assert loss.ndim == 0 and bool(torch.isfinite(loss)) and float(loss.detach()) > -1e-3
        assert s.grad is not None and bool(torch.isfinite(s.grad).all())


@pytest.mark.parametrize(
    ("name", "exact"),
    [("kd", 1e-9), ("dkd", 1e-9), ("dist", 1e-3)],  # dist has 1e-8 in its denominator
)
def test_a_student_that_equals_its_teacher_has_no_loss(name: str, exact: float) -> None:
    s, _, y = batch(6, 5, seed=2, scale=3)
    loss = LOSSES[name](s, s.detach() + 3.0, y)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=exact)
    assert s.grad is not None and float(s.grad.abs().max()) < exact


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_logits_are_computed_in_float32_under_autocast_too(
    name: str, dtype: torch.dtype
) -> None:
    s, t, y = batch(8, 6, seed=5, scale=20)
    s, t = s.detach().to(dtype), t.to(dtype)
    if name == "soft labels":
        t = t.softmax(1)
        loss: Loss = lambda s, t, y: cross_entropy(s, t, 0.1)  # noqa: E731
    else:
        loss = LOSSES[name]
    want = loss(s.float(), t.float(), y)
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            got = loss(s, t, y)
        assert got.dtype == torch.float32
        assert float(got) == float(want)


# -- weights and missing labels --------------------------------------------------------------------


@settings(max_examples=60)
@given(
    st.sampled_from(sorted(WEIGHTED)),
    st.integers(1, 8),
    st.integers(2, 6),
    st.integers(0, 10_000),
    st.data(),
)
def test_a_weighted_loss_is_the_weighted_mean_of_single_images(
    name: str, rows: int, classes: int, seed: int, data: st.DataObject
) -> None:
    s, t, y = batch(rows, classes, seed)
    w = torch.tensor(data.draw(st.lists(st.floats(0, 9), min_size=rows, max_size=rows))).double()
    s = s.detach()
    single = [WEIGHTED[name](s[i : i + 1], t[i : i + 1], y[i : i + 1], None) for i in range(rows)]
    total = float(w.sum())
    want = sum(float(a) * float(b) for a, b in zip(w, single, strict=True)) / total if total else 0
    assert float(WEIGHTED[name](s, t, y, w).detach()) == pytest.approx(want, rel=1e-9, abs=1e-12)
    even = float(WEIGHTED[name](s, t, y, torch.full((rows,), 0.3, dtype=torch.float64)).detach())
    assert even == pytest.approx(float(WEIGHTED[name](s, t, y, None).detach()), rel=1e-9)


@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_of_zero_give_zero_with_a_graph(name: str) -> None:
    s, t, y = batch(4, 3)
    loss = WEIGHTED[name](s, t, y, torch.zeros(4, dtype=torch.float64))
    loss.backward()
    assert float(loss.detach()) == 0
    assert s.grad is not None and float(s.grad.abs().max()) == 0


def test_unlabelled_images_do_not_count_in_cross_entropy() -> None:
    s, _, y = batch(6, 4)
    y[[1, 4]] = -1
    labelled = y >= 0
    want = F.cross_entropy(s[labelled], y[labelled], label_smoothing=0.1)
    assert float(cross_entropy(s, y, 0.1).detach()) == pytest.approx(float(want.detach()))
    w = torch.arange(6.0, dtype=torch.float64)
    want = cross_entropy(s[labelled], y[labelled], 0.1, w[labelled])
    assert float(cross_entropy(s, y, 0.1, w).detach()) == pytest.approx(float(want.detach()))


@pytest.mark.parametrize("soft", [False, True])
def test_a_batch_without_any_label_gives_zero_with_a_graph(soft: bool) -> None:
    s, _, _ = batch(3, 4)
    target = torch.zeros(3, 4, dtype=torch.float64) if soft else torch.full((3,), -1)
    loss = cross_entropy(s, target, 0.1)
    loss.backward()
    assert float(loss.detach()) == 0
    assert s.grad is not None and float(s.grad.abs().max()) == 0


def test_soft_targets_that_name_one_class_are_labels() -> None:
    s, _, y = batch(6, 4)
    y[3] = -1
    one_hot = F.one_hot(y.clamp_min(0), 4).double() * (y >= 0).unsqueeze(1)
    w = torch.arange(6.0, dtype=torch.float64)
    for weights in (None, w):
        got, want = cross_entropy(s, one_hot, 0.2, weights), cross_entropy(s, y, 0.2, weights)
        assert float(got.detach()) == pytest.approx(float(want.detach()))


def test_an_image_mixed_with_an_unlabelled_one_counts_with_its_labelled_share() -> None:
    s, _, _ = batch(2, 3)
    target = torch.tensor([[1.0, 0, 0], [0, 0.25, 0]], dtype=torch.float64)
    per_class = -s.detach().log_softmax(1)
    want = (per_class[0, 0] + 0.25 * per_class[1, 1]) / 1.25
    assert float(cross_entropy(s, target).detach()) == pytest.approx(float(want))


# -- decoupled and relational ----------------------------------------------------------------------


def test_dkd_takes_the_teachers_choice_where_there_is_no_label() -> None:
    s, t, y = batch(6, 5)
    missing = torch.full_like(y, -1)
    want = float(dkd(s, t, t.argmax(1), 4.0).detach())
    assert float(dkd(s, t, missing, 4.0).detach()) == pytest.approx(want)
    assert float(dkd(s, t, y, 4.0).detach()) != pytest.approx(want, rel=1e-3)


@settings(max_examples=40)
@given(st.integers(1, 6), st.integers(2, 9), st.floats(0.5, 10), st.integers(0, 10_000))
def test_kd_is_dkd_with_the_weight_that_decoupling_took_away(
    rows: int, classes: int, temperature: float, seed: int
) -> None:
    """KD = TCKD + (1 - p_target of the teacher) * NCKD, image by image (Zhao et al. 2022, equation 5)."""
    s, t, y = batch(rows, classes, seed, scale=3)
    for i in range(rows):
        one = s[i : i + 1], t[i : i + 1]
        rest = 1 - float((one[1] / temperature).softmax(1)[0, y[i]])
        both = dkd(*one, y[i : i + 1], temperature, alpha=1.0, beta=rest)
        assert float(both.detach()) == pytest.approx(
            float(kd(*one, temperature).detach()), abs=1e-9
        )


def test_two_classes_leave_nothing_among_the_others() -> None:
    s, t, y = batch(5, 2)
    assert float(dkd(s, t, y, 3.0, alpha=0.0, beta=8.0).detach()) == 0
    assert float(dkd(s, t, y, 3.0, alpha=1.0).detach()) == pytest.approx(
        float(kd(s, t, 3.0).detach())
    )


def test_dkd_stays_right_where_the_target_outweighs_any_mask() -> None:
    student = torch.tensor([[1e4, 0.0, 1.0, 3.0]], dtype=torch.float64)
    teacher = torch.tensor([[9e3, 2.0, 1.0, 0.0]], dtype=torch.float64)
    got = float(dkd(student, teacher, torch.tensor([0]), 1.0, alpha=0.0, beta=1.0))
    assert got == pytest.approx(float(kd(student[:, 1:], teacher[:, 1:], 1.0)))


def test_dist_is_one_less_the_correlations_of_numpy() -> None:
    s, t, _ = batch(7, 5, seed=8, scale=2)
    p, q = (F.softmax(z.detach() / 3, dim=1).numpy() for z in (s, t))
    rows = 1 - np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    columns = 1 - np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
    want = 9 * (2.0 * rows + 0.5 * columns)
    assert float(dist(s, t, 3.0, 2.0, 0.5).detach()) == pytest.approx(want, rel=1e-6)


def test_a_class_that_no_image_of_the_batch_shows_counts_as_uncorrelated_in_dist() -> None:
    s, t, _ = batch(6, 4, scale=1)
    s, t = s.detach().clone(), t.clone()
    s[:, 3] = t[:, 3] = -1e4  # nobody holds it possible
    s.requires_grad_()
    loss = dist(s, s.detach(), 1.0, beta=0.0, gamma=1.0)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.25, abs=1e-6)
    assert s.grad is not None and bool(torch.isfinite(s.grad).all())


def test_dist_of_a_batch_of_one_is_its_row_term_and_a_constant() -> None:
    s, t, _ = batch(1, 6)
    assert float(dist(s, t, 2.0, beta=0.0, gamma=1.0).detach()) == pytest.approx(4.0)
    (row,) = torch.autograd.grad(dist(s, t, 2.0, gamma=0.0), s)
    (both,) = torch.autograd.grad(dist(s, t, 2.0), s)
    assert float(row.abs().max()) > 0
    assert torch.equal(row, both)


def test_soft_cross_entropy_is_kd_and_the_teachers_entropy() -> None:
    s, t, _ = batch(6, 5)
    p = (t / 3).softmax(1)
    entropy = float(-(p * p.log()).sum(1).mean())
    want = float(kd(s, t, 3.0).detach()) + 9 * entropy
    assert float(soft_cross_entropy(s, t, 3.0).detach()) == pytest.approx(want)
    (a,) = torch.autograd.grad(soft_cross_entropy(s, t, 3.0), s)
    (b,) = torch.autograd.grad(kd(s, t, 3.0), s)
    assert torch.allclose(a, b, atol=1e-12)


def test_hard_distillation_sees_the_first_choice_and_nothing_else() -> None:
    s, t, _ = batch(6, 5)
    want = F.cross_entropy(s, t.argmax(1))
    assert float(hard(s, t).detach()) == pytest.approx(float(want.detach()))
    assert float(hard(s, t * 7).detach()) == float(hard(s, t).detach())


# -- kd, worked out by hand ------------------------------------------------------------------------


def numpy_kd(student: np.ndarray, teacher: np.ndarray, t: float) -> float:
    """sum over classes of p_t (log p_t - log p_s), mean over images, times T squared, in float64."""

    def log_softmax(z: np.ndarray) -> np.ndarray:
        z = z.astype(np.float64) / t
        z = z - z.max(axis=1, keepdims=True)
        return np.asarray(z - np.log(np.exp(z).sum(axis=1, keepdims=True)))

    log_s, log_t = log_softmax(student), log_softmax(teacher)
    return float(t**2 * (np.exp(log_t) * (log_t - log_s)).sum(axis=1).mean())


@settings(max_examples=40)
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


# -- what is believed of a teacher -------------------------------------------------------------------


def test_the_classes_that_are_believed_share_the_probability_of_the_others() -> None:
    shares = torch.tensor([[0.5, 0.05, 0.3, 0.15]], dtype=torch.float64)
    logits = shares.log() + 7
    said = {
        (None, None): [0.5, 0.05, 0.3, 0.15],
        (1, None): [1.0, 0.0, 0.0, 0.0],
        (2, None): [0.625, 0.0, 0.375, 0.0],
        (9, None): [0.5, 0.05, 0.3, 0.15],
        (None, 0.5): [1.0, 0.0, 0.0, 0.0],
        (None, 0.51): [0.625, 0.0, 0.375, 0.0],
        (None, 0.95): [0.5 / 0.95, 0.0, 0.3 / 0.95, 0.15 / 0.95],
        (2, 0.95): [0.625, 0.0, 0.375, 0.0],
        (3, 0.01): [1.0, 0.0, 0.0, 0.0],
    }
    for (top_k, top_p), wanted in said.items():
        found = believed(logits, top_k, top_p).softmax(1)
        torch.testing.assert_close(found[0], torch.tensor(wanted, dtype=torch.float64))


@given(st.integers(0, 2**31), st.integers(1, 8), st.floats(0.01, 1.0), st.floats(0.1, 50))
def test_the_first_choice_stays_and_no_class_gains_on_a_likelier_one(
    seed: int, top_k: int, top_p: float, scale: float
) -> None:
    _, teacher, _ = batch(5, 6, seed, scale)
    found = believed(teacher, top_k, top_p)
    assert torch.equal(found.argmax(1), teacher.argmax(1))
    left = found.softmax(1) > 0
    assert (left.sum(1) <= top_k).all()
    kept = found == teacher
    assert kept.any(1).all()
    least = teacher.masked_fill(~kept, torch.inf).min(1).values
    most = teacher.masked_fill(kept, -torch.inf).max(1).values
    assert (least >= most).all()


def test_believing_everything_is_the_loss_itself_to_the_bit() -> None:
    s, t, _ = batch(6, 5)
    assert torch.equal(kd(s, believed(t, 5, None), 4.0), kd(s, t, 4.0))
    assert torch.equal(kd(s, believed(t, None, 1.0), 4.0), kd(s, t, 4.0))


def test_the_difference_of_logits_by_hand() -> None:
    s, t = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[3.0, 2.0], [0.0, 1.0]])
    assert float(logit_mse(s, t)) == pytest.approx((4 / 2 + 1 / 2) / 2)
