"""What an arm minimises: its terms, their weights, and which images count how much."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from engine_parts import section
from torch import Tensor

from edgedistill.distill import focus
from edgedistill.distill.losses import kd
from edgedistill.distill.methods import METHODS, TERMS, method_values
from edgedistill.distill.objectives import WARMUP_ALIGN, Batch, Distilled, Plain
from edgedistill.nets import Ints
from edgedistill.recipe import Recipe
from edgedistill.schema import WeightsSection
from edgedistill.teacher.course import Course, Lesson

LABELS = torch.tensor([0, 1, 2, 0])


def num(x: Tensor) -> float:
    return float(x.detach())


class Taught:
    """Fixed teacher outputs."""

    def __init__(self, n: int, widths: tuple[int, ...] = (8,), classes: int = 3) -> None:
        torch.manual_seed(7)
        self.widths, self.classes = widths, classes
        self.features = [torch.randn(n, width) for width in widths]
        self.logits = torch.randn(n, classes)
        self.asked: list[tuple[Lesson, list[int]]] = []

    def __call__(self, lesson: Lesson, index: Ints) -> tuple[Tensor, Tensor]:
        """Features (B, D) and logits (B, C)."""
        self.asked.append((lesson, index.tolist()))
        return self.features[lesson.teacher][index], self.logits[index]


def batch(**changes: Any) -> Batch:
    base: dict[str, Any] = {"index": np.arange(4), "labels": LABELS, "lesson": Lesson(0, 0)}
    return Batch(**{**base, **changes})


def objective(taught: Taught, **changes: Any) -> Distilled:
    return Distilled(section(**changes), 8, taught, LABELS.numpy())


def outputs() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(4, 8, requires_grad=True), torch.randn(4, 3, requires_grad=True)


def test_it_trains_the_student_and_both_projectors_but_not_the_teacher() -> None:
    taught, (features, logits) = Taught(6), outputs()
    aim = objective(taught)
    index = np.array([5, 0, 2, 3])
    loss, _ = aim(features, logits, batch(index=index, lesson=Lesson(0, 7)))
    loss.backward()  # type: ignore[no-untyped-call]
    assert taught.asked == [(Lesson(0, 7), [5, 0, 2, 3])]
    for parameter in [features, logits, *aim.embeddings["align_uniform"].parameters()]:
        assert parameter.grad is not None and num(parameter.grad.abs().sum()) > 0
    assert not taught.features[0].requires_grad


def test_the_parts_are_told_before_they_are_weighed() -> None:
    taught, (features, logits) = Taught(4), outputs()
    aim = objective(taught, weights={"ce": 0.5, "kd": 2.0, "align_uniform": 0.25}, temperature=3.0)
    loss, parts = aim(features, logits, batch())
    assert set(parts) == {"ce", "kd", "align_uniform"}
    assert num(parts["ce"]) == pytest.approx(num(F.cross_entropy(logits, LABELS)))
    assert num(parts["kd"]) == pytest.approx(num(kd(logits, taught.logits, 3.0)))
    total = 0.5 * parts["ce"] + 2.0 * parts["kd"] + 0.25 * parts["align_uniform"]
    assert num(loss) == pytest.approx(num(total), rel=1e-5)


def test_a_weight_of_zero_switches_its_term_off() -> None:
    features, logits = outputs()
    aim = objective(Taught(4), weights={"kd": 0.0, "align_uniform": 0.0})
    loss, _ = aim(features, logits, batch())
    plain, parts = Plain()(features, logits, batch())
    assert num(loss) == pytest.approx(num(plain), rel=1e-6)
    assert parts == {} and not aim.modules


def test_smoothed_cross_entropy_is_a_mix_of_the_label_and_of_all_classes() -> None:
    features, logits = outputs()
    logp = logits.log_softmax(1)
    on_label, on_all = -logp[torch.arange(4), LABELS].mean(), -logp.mean()
    for share in (0.0, 0.1, 0.5):
        loss, _ = Plain(share)(features, logits, batch())
        assert num(loss) == pytest.approx(num((1 - share) * on_label + share * on_all), abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_each_method_has_the_terms_that_it_names_and_a_finite_gradient(method: str) -> None:
    features, logits = outputs()
    aim = objective(Taught(4), method=method, crd_negatives=2)
    loss, parts = aim(features, logits, batch(progress=0.5))
    assert set(parts) == set(METHODS[method].weights)  # type: ignore[index]
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None and bool(torch.isfinite(logits.grad).all())
    assert num(logits.grad.abs().sum()) > 0


def test_the_teachers_terms_move_with_their_schedule_and_the_labels_do_not() -> None:
    taught, (features, logits) = Taught(4), outputs()
    aim = objective(taught, method="kd", weight_schedule="linear")
    losses = [aim(features, logits, batch(progress=p)) for p in (0.0, 0.75)]
    for (loss, parts), factor in zip(losses, (1.0, 0.25), strict=True):
        assert num(loss) == pytest.approx(num(parts["ce"] + factor * parts["kd"]), rel=1e-5)


def test_views_of_two_images_are_learned_by_their_shares() -> None:
    features, logits = outputs()
    soft = torch.tensor([[0.5, 0.5, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]])
    loss, _ = Plain()(features, logits, batch(soft=soft))
    assert num(loss) == pytest.approx(num(-(soft * logits.log_softmax(1)).sum(1).mean()))


def test_another_teacher_of_the_course_has_a_projector_of_its_own() -> None:
    taught, (features, logits) = Taught(4, (8, 5)), outputs()
    aim = objective(taught)
    loss, _ = aim(features, logits, batch(lesson=Lesson(1, 0)))
    loss.backward()  # type: ignore[no-untyped-call]
    first, second = aim.embeddings["align_uniform"].projectors.teachers
    assert all(num(p.grad.abs().sum()) == 0 for p in first.parameters())
    assert all(num(p.grad.abs().sum()) > 0 for p in second.parameters())


def test_the_anchor_holds_the_student_to_what_it_answered_before() -> None:
    features, logits = outputs()
    aim = objective(Taught(4))
    anchor = torch.randn(4, 3)
    free, _ = aim(features, logits, batch())
    held, parts = aim(features, logits, batch(anchor=anchor))
    assert num(held - free) == pytest.approx(num(kd(logits, anchor, 1.0)), rel=1e-4)
    assert "anchor" in parts


def test_what_student_and_teacher_see_differently_counts_more_at_first_and_never_later() -> None:
    taught, (features, logits) = Taught(4), outputs()
    aim, even = objective(taught, warmup_align=True), objective(taught)
    early = aim(features, logits, batch(progress=0.0))[1]["kd"]
    late = aim(features, logits, batch(progress=WARMUP_ALIGN))[1]["kd"]
    assert num(late) == pytest.approx(num(even(features, logits, batch())[1]["kd"]))
    said = F.softmax(taught.logits, 1)[torch.arange(4), logits.argmax(1)]
    weights = focus.mean_one((1 - said).clamp_min(focus.LEAST))
    each = torch.stack([kd(logits[k : k + 1], taught.logits[k : k + 1], 4.0) for k in range(4)])
    assert num(early) == pytest.approx(num((weights * each).mean()), rel=1e-4)


def test_an_image_whose_gradient_agrees_with_that_of_others_counts_more() -> None:
    measure = focus.Influence(3, 8)
    features, logits = (t.detach() for t in outputs())
    teacher = torch.randn(4, 3)
    assert measure(features, logits, teacher, LABELS, 2.0).tolist() == [1.0] * 4
    weights = measure(features, logits, teacher, LABELS, 2.0)
    delta = F.softmax(logits / 2, 1) - F.softmax(teacher / 2, 1)
    wrong = F.softmax(logits, 1) - F.one_hot(LABELS, 3)
    mean = (wrong.T @ features).flatten()
    for k in range(4):
        own = torch.outer(delta[k], features[k]).flatten()
        want = max(focus.LEAST, 1 + num(F.cosine_similarity(own, mean, dim=0)))
        assert num(weights[k]) == pytest.approx(want, abs=1e-5)


def test_without_a_label_in_the_batch_influence_learns_nothing() -> None:
    measure = focus.Influence(3, 8)
    features, logits = (t.detach() for t in outputs())
    measure(features, logits, torch.randn(4, 3), torch.full((4,), -1), 2.0)
    assert not measure.mean.any()


def test_parts_of_a_step_with_few_labels_add_up_to_the_whole() -> None:
    torch.manual_seed(3)
    logits, labels = torch.randn(6, 3), torch.tensor([0, -1, -1, 2, -1, 1])
    index = np.arange(6, dtype=np.int64)
    whole = Plain()(logits, logits, Batch(index, labels, Lesson(0, 0), labelled=0.5))[0]
    assert num(whole) == pytest.approx(num(F.cross_entropy(logits, labels, ignore_index=-1)))
    parts = [slice(0, 4), slice(4, 6)]
    found = [
        Plain()(
            logits[part],
            logits[part],
            Batch(index[part], labels[part], Lesson(0, 0), labelled=0.5),
        )[0]
        for part in parts
    ]
    assert (4 * num(found[0]) + 2 * num(found[1])) / 6 == pytest.approx(num(whole))


def test_a_method_sets_what_the_recipe_leaves_open_and_nothing_else() -> None:
    recipe = Recipe.model_validate({"distill": {"method": "dkd", "weights": {"ce": 0.3}}})
    values = method_values(recipe)
    assert "distill.weights.ce" not in values
    assert values["distill.weights.dkd"][0] == 1.0 and values["distill.weights.kd"][0] == 0.0
    assert values["distill.weight_schedule"][0] == "warmup"
    assert "Zhao" in values["distill.temperature"][1]
    assert (
        method_values(Recipe.model_validate({"distill": {"method": "function_matching"}}))[
            "data.mix"
        ][0]
        == "mixup"
    )


@pytest.mark.parametrize(
    ("given", "images", "schedule"),
    [({}, None, "linear"), ({}, 3_000, "linear"), ({}, 2_999, "constant"),
     ({"weight_schedule": "linear"}, 500, None), ({"method": "dkd"}, 500, "warmup")],
)  # fmt: skip
def test_a_teacher_of_few_images_does_not_fade_out(
    given: dict[str, Any], images: int | None, schedule: str | None
) -> None:
    found = method_values(Recipe.model_validate({"distill": given}), images)
    assert found.get("distill.weight_schedule", (None,))[0] == schedule


def test_every_term_can_be_weighed() -> None:
    assert set(WeightsSection.model_fields) == set(TERMS)
    assert {term for blend in METHODS.values() for term in blend.weights} <= set(TERMS)


def test_a_course_gives_each_teacher_an_equal_share_and_views_come_round() -> None:
    course = Course(6, 2, 3)
    assert [course.lesson(epoch).teacher for epoch in range(6)] == [0, 0, 1, 1, 2, 2]
    assert [course.lesson(epoch).view for epoch in range(6)] == [0, 1, 0, 1, 0, 1]
    assert len(course.lessons()) == 6
    assert Course(4, 8).lessons() == [Lesson(0, view) for view in range(4)]
    few = Course(2, 1, 5)
    assert [few.lesson(epoch).teacher for epoch in range(2)] == [3, 4], "the last state last"
