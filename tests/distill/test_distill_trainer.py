"""The training engine: resumable to the bit, pure in order and views, and clear when the loss runs away."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from engine_parts import (
    CLASSES,
    LOOK,
    VIEWS,
    WIDTH,
    Killed,
    Killing,
    Knowing,
    images,
    make,
    network,
    outcome,
    schedule,
    section,
    taught,
    work,
)
from safetensors.torch import load
from torch import Tensor, nn

from edgedistill.data.views import Views
from edgedistill.distill import trainer as engine
from edgedistill.distill.facts import Images, Synthetic
from edgedistill.distill.objectives import Batch, Distilled, Plain
from edgedistill.distill.stage import EdgedistillOutOfMemory, run
from edgedistill.distill.trainer import Trainer
from edgedistill.errors import StoppedError
from edgedistill.nets import Ints, Look, state_bytes
from edgedistill.progress import Face, silent
from edgedistill.rundir import Work
from edgedistill.teacher.course import Course

CPU = torch.device("cpu")


def cut(canvas: Any, index: Any, view: int, views: Views, look: Look, device: Any) -> Tensor:
    return look.normalise(views.pixels(canvas, index, view, look.size, device))


class Quiet(Face):
    """Keeps the details instead of printing them."""

    def __init__(self) -> None:
        super().__init__(verbosity=0)
        self.lines: list[str] = []

    def detail(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, ...]]:
    """Weights, projectors and curve of runs that nothing disturbed."""
    torch.set_num_threads(1)
    found = {}
    for name, objective in (("plain", Plain()), ("taught", taught())):
        trainer = make(objective)
        folder = work(tmp_path_factory.mktemp(name))
        found[name] = outcome(trainer.run(folder, silent()), trainer)
    return found


@pytest.mark.parametrize("kind", ["plain", "taught"])
@pytest.mark.parametrize(("every", "kills"), [(50, [4]), (1, [2, 1]), (2, [5]), (2, [1, 3, 2, 1])])
def test_killed_and_resumed_it_ends_with_the_weights_of_an_unbroken_run(
    kind: str,
    every: int,
    kills: list[int],
    tmp_path: Path,
    unbroken: dict[str, tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dropout is on, each try is a new Trainer, and the random state before it is another one."""
    monkeypatch.setattr(engine, "CHECKPOINT_STEPS", every)
    folder = work(tmp_path / "stage")
    for k, steps in enumerate(kills):
        trainer = make(taught() if kind == "taught" else Plain())
        torch.manual_seed(1000 + k)
        with pytest.raises(Killed):
            trainer.run(folder, Killing(steps))
    trainer = make(taught() if kind == "taught" else Plain())
    torch.manual_seed(77)
    assert outcome(trainer.run(folder, silent()), trainer) == unbroken[kind]


def test_a_kill_while_the_checkpoint_is_written_leaves_the_one_before(
    tmp_path: Path, unbroken: dict[str, tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "CHECKPOINT_STEPS", 2)
    folder = work(tmp_path / "stage")
    real, calls = Path.replace, [0]

    def dying(self: Path, target: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3:  # the first says where the run begins
            raise Killed
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dying)
        with pytest.raises(Killed):
            make(Plain()).run(folder, silent())
    state = torch.load(folder.path("student.checkpoint"), weights_only=True)
    assert state["step"] == 2
    trainer = make(Plain())
    assert outcome(trainer.run(folder, silent()), trainer) == unbroken["plain"]


def test_a_resumed_try_does_not_do_again_what_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = work(tmp_path / "stage")
    with pytest.raises(Killed):
        make(Plain()).run(folder, Killing(7))
    trainer = make(Plain())
    steps: list[int] = []
    real = trainer.batch

    def batch(epoch: int, step: int) -> Ints:
        steps.append(step)
        return real(epoch, step)

    monkeypatch.setattr(trainer, "batch", batch)
    trainer.run(folder, silent())
    assert steps == [6, 7, 8]


def test_a_finished_training_is_not_trained_again(
    tmp_path: Path, unbroken: dict[str, tuple[Any, ...]]
) -> None:
    folder = work(tmp_path / "stage")
    make(Plain()).run(folder, silent())
    trainer = make(Plain())
    assert outcome(trainer.run(folder, Killing(0)), trainer) == unbroken["plain"]


def test_seconds_of_every_try_are_added_up(tmp_path: Path) -> None:
    folder = work(tmp_path / "stage")
    with pytest.raises(Killed):
        make(Plain()).run(folder, Killing(4))
    before = torch.load(folder.path("student.checkpoint"), weights_only=True)["seconds"]
    fitted = make(Plain()).run(folder, silent())
    assert 0 < before < fitted.seconds < 60


def test_another_seed_of_order_gives_other_weights(
    tmp_path: Path, unbroken: dict[str, tuple[Any, ...]]
) -> None:
    trainer = make(Plain(), seed=6)
    trainer.run(work(tmp_path / "stage"), silent())
    assert state_bytes(trainer.model) != unbroken["plain"][0]


def test_the_curve_has_one_point_an_epoch_with_the_mean_of_each_part(
    unbroken: dict[str, tuple[Any, ...]],
) -> None:
    _, _, curve, steps, val = unbroken["taught"]
    assert [point.epoch for point in curve] == [1, 2, 3]
    assert steps == 9  # 20 images, 6 a step: 3 whole batches an epoch
    assert curve[-1].val_top1 == val
    for point in curve:
        assert set(point.parts) == {"ce", "kd", "align_uniform"}
        own = point.parts["ce"]
        teachers = (
            sum(point.parts.values()) - own
        )  # it fades: 1, 2/3, 1/3 at the first steps of the epochs
        assert own + teachers * (4 - point.epoch) / 3 > point.loss > own
    assert all(not point.parts for point in unbroken["plain"][2])


def test_training_learns(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = timm.create_model("test_resnet", num_classes=CLASSES)
    plan = schedule(epochs=5, batch_size=10)
    trainer = Trainer(
        "student", model, Plain(), images(60), LOOK, VIEWS, Course(plan.epochs, 2), plan
    )
    fitted = trainer.run(work(tmp_path / "stage"), silent())
    assert fitted.curve[-1].loss < 0.5 * fitted.curve[0].loss
    assert fitted.val_top1 == 1.0


def test_the_engine_does_what_a_loop_written_out_by_hand_does(
    tmp_path: Path, unbroken: dict[str, tuple[Any, ...]]
) -> None:
    """Plain AdamW on cross entropy, the rate of the schedule, decay on matrices, BatchNorm momentum 0.1."""
    data, plan, model = images(), schedule(), network().to(memory_format=torch.channels_last)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.1
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=plan.lr)
    torch.manual_seed(plan.seed)
    losses = []
    for step in range(9):
        order = np.random.default_rng([plan.seed, step // 3]).permutation(20)
        index = order[step % 3 * 6 : step % 3 * 6 + 6]
        rate = (step + 1) / 2 if step < 2 else 0.5 * (1 + math.cos(math.pi * (step - 2) / 7))
        for group in optimizer.param_groups:
            group["lr"] = plan.lr * rate
        model.train()
        x = cut(data.canvas, index, step // 3 % 2, VIEWS, LOOK, CPU)
        loss = F.cross_entropy(model(x), torch.from_numpy(data.labels[index]))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    curve = unbroken["plain"][2]
    for k, point in enumerate(curve):
        assert point.loss == pytest.approx(sum(losses[3 * k : 3 * k + 3]) / 3, rel=1e-3)
    state = load(unbroken["plain"][0])
    for name in ("conv_stem.weight", "classifier.weight"):
        assert torch.allclose(state[name], model.state_dict()[name], atol=1e-3)


def test_an_epoch_shows_no_image_twice_and_the_order_depends_on_seed_and_epoch_alone() -> None:
    a, b = make(Plain()), make(taught(), batch_size=6)
    orders = []
    for epoch in range(4):
        seen = [a.batch(epoch, epoch * a.per_epoch + k) for k in range(a.per_epoch)]
        again = [b.batch(epoch, k) for k in reversed(range(b.per_epoch))][::-1]
        assert all(np.array_equal(x, y) for x, y in zip(seen, again, strict=True))
        flat = np.concatenate(seen).tolist()
        assert len(flat) == len(set(flat)) == 18 and set(flat) <= set(range(20))
        orders.append(flat)
    assert len({tuple(order) for order in orders}) == 4
    assert make(Plain(), seed=6).batch(0, 0).tolist() != orders[0][:6]


def test_a_view_is_a_pure_function_of_its_arguments() -> None:
    canvas, index = images().canvas, np.array([4, 9, 2])
    first = cut(canvas, index, 1, VIEWS, LOOK, CPU)
    np.random.default_rng(0)
    torch.manual_seed(99)
    assert torch.equal(first, cut(canvas, index, 1, VIEWS, LOOK, CPU))
    assert first.shape == (3, 3, 32, 32) and first.dtype == torch.float32
    for row, one in zip(first, index, strict=True):
        alone = cut(canvas, np.array([one]), 1, VIEWS, LOOK, CPU)[0]
        assert torch.allclose(row, alone, atol=1e-5)
    assert not torch.allclose(first, cut(canvas, index, 0, VIEWS, LOOK, CPU), atol=0.05)
    other = Views(seed=4, min_crop=0.7, flip=True, count=2)
    assert not torch.allclose(first, cut(canvas, index, 1, other, LOOK, CPU), atol=0.05)


def test_a_view_without_crop_and_mirror_is_the_normalised_image() -> None:
    whole = Views(seed=0, min_crop=1.0, flip=False, count=1)
    canvas = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    got = cut(canvas, np.array([1, 0]), 5, whole, LOOK, CPU)
    want = (canvas[[1, 0]] / 255 - np.array(LOOK.mean)) / np.array(LOOK.std)
    assert np.allclose(got.numpy(), want.transpose(0, 3, 1, 2), atol=1e-4)


def test_each_epoch_asks_the_teacher_for_the_view_that_the_student_sees(tmp_path: Path) -> None:
    teacher = Knowing()
    objective = Distilled(section(), WIDTH, teacher, images().labels)
    make(objective).run(work(tmp_path / "stage"), silent())
    assert teacher.asked == [(0, 6)] * 3 + [(1, 6)] * 3 + [(0, 6)] * 3


def test_a_set_smaller_than_a_batch_is_one_step_an_epoch(tmp_path: Path) -> None:
    trainer = make(taught(), images(4), batch_size=32, epochs=2)
    fitted = trainer.run(work(tmp_path / "stage"), silent())
    assert (trainer.per_epoch, fitted.steps, len(fitted.curve)) == (1, 2, 2)
    assert sorted(trainer.batch(0, 0).tolist()) == [0, 1, 2, 3]


class Diverging:
    """Cross entropy that is no number at some steps."""

    modules: Sequence[nn.Module] = ()
    labels_only = True

    def __init__(self, at: Sequence[int], value: float) -> None:
        self.at, self.value, self.calls = set(at), value, -1

    def __call__(
        self, features: Tensor, logits: Tensor, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        self.calls += 1
        loss = F.cross_entropy(logits, batch.labels)
        return (loss * self.value if self.calls in self.at else loss), {}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_after_a_loss_that_is_not_finite_it_goes_back_and_on_with_half_the_rate_and_says_so(
    value: float, tmp_path: Path
) -> None:
    folder = work(tmp_path / "stage")
    trainer = make(Diverging([4], value))
    fitted = trainer.run(folder, silent())
    assert fitted.steps == 9 and len(fitted.curve) == 3
    assert fitted.notes == (
        "the loss was not finite at step 6: back to step 3, with 50 % of the rate",
    )
    assert trainer.lowered == 0.5
    assert all(bool(torch.isfinite(v).all()) for v in trainer.model.state_dict().values())
    state = torch.load(folder.path("student.checkpoint"), weights_only=True)
    assert (state["step"], state["lowered"], state["restarts"]) == (9, 0.5, 1)


def test_a_loss_that_runs_away_in_the_first_epoch_begins_again_from_the_start(
    tmp_path: Path,
) -> None:
    trainer = make(Diverging([0], math.nan))
    fitted = trainer.run(work(tmp_path / "stage"), silent())
    assert "back to step 0" in fitted.notes[0] and fitted.steps == 9


def test_what_runs_away_again_after_the_checkpoint_begins_anew_with_a_quarter_of_the_rate(
    tmp_path: Path,
) -> None:
    trainer = make(Diverging([4, 7], math.nan))
    fitted = trainer.run(work(tmp_path / "stage"), silent())
    assert [note.partition(": ")[2] for note in fitted.notes] == [
        "back to step 3, with 50 % of the rate",
        "back to step 0, with 25 % of the rate",
    ]
    assert fitted.steps == 9 and len(fitted.curve) == 3


def test_a_loss_that_is_never_finite_stops_with_what_to_do_and_keeps_a_good_checkpoint(
    tmp_path: Path,
) -> None:
    folder = work(tmp_path / "stage")
    with pytest.raises(StoppedError) as caught:
        make(Diverging(range(4, 1000), math.nan)).run(folder, silent())
    text = str(caught.value)
    assert "student: the loss is not finite at step 3 of 9, also with a rate 8 times lower" in text
    assert "--set distill.lr=" in text and "the same command" in text
    assert "\n" not in text and caught.value.exit_code == 3
    state = torch.load(folder.path("student.checkpoint"), weights_only=True)
    assert state["step"] == 0
    assert all(bool(torch.isfinite(v).all()) for v in state["net"]["model"].values())


def test_after_a_stop_the_faster_gradient_is_undone(tmp_path: Path) -> None:
    trainer = make(Diverging(range(1, 1000), math.nan))
    with pytest.raises(StoppedError):
        trainer.run(work(tmp_path / "stage"), silent())
    assert not [m for m in trainer.model.modules() if "forward" in vars(m)]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 TB"), True),
        (RuntimeError("shapes do not match"), False),
    ],
)
def test_running_out_of_memory_is_a_paragraph_and_other_faults_are_not_hidden(
    error: Exception, told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(Plain())

    def broken(index: Ints, epoch: int) -> None:
        raise error

    trainer.micro = 1
    monkeypatch.setattr(trainer, "_learn", broken)
    with pytest.raises(EdgedistillOutOfMemory if told else RuntimeError) as caught:
        run(trainer, work(tmp_path / "stage"), silent())
    if told:
        assert "batch_size" in str(caught.value)
        assert caught.value.exit_code == 3  # type: ignore[attr-defined]


def test_matrices_decay_vectors_do_not_and_the_body_may_learn_slower() -> None:
    objective = taught()
    trainer = Trainer(
        "t",
        network(),
        objective,
        images(),
        LOOK,
        VIEWS,
        Course(3, 2),
        schedule(lr=0.1, body_lr_ratio=0.25),
    )
    rates: dict[int, tuple[float, float]] = {
        id(p): (group["peak"], group["weight_decay"])
        for group in trainer.optimizer.param_groups
        for p in group["params"]
    }
    head: Any = trainer.model.get_classifier()  # type: ignore[operator]
    for p in trainer.model.parameters():
        own = any(p is q for q in head.parameters())
        assert rates[id(p)] == (0.1 if own else 0.025, 0.01 if p.ndim > 1 else 0.0)
    for p in objective.embeddings["align_uniform"].parameters():
        assert rates[id(p)] == (0.1, 0.01 if p.ndim > 1 else 0.0)
    assert len(rates) == len(list(trainer.model.parameters())) + 4, "two linear projectors"


def test_frozen_statistics_stay_while_the_weights_learn(tmp_path: Path) -> None:
    trainer = make(Plain(), frozen_norm=True)
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    trainer.run(work(tmp_path / "stage"), silent())
    for name, value in trainer.model.state_dict().items():
        statistic = "running" in name or "num_batches" in name
        assert torch.equal(value, before[name]) == statistic, name


def test_frozen_layers_keep_every_bit_and_the_rest_learns(tmp_path: Path) -> None:
    trainer = make(Plain(), frozen_share=0.5)
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    trainer.run(work(tmp_path / "stage"), silent())
    kept = {k for k, v in trainer.model.state_dict().items() if torch.equal(v, before[k])}
    assert {k for k in before if k.startswith(("conv_stem", "bn1", "blocks.0"))} <= kept
    assert "classifier.weight" not in kept and "conv_head.weight" not in kept
    frozen = {k for k, p in trainer.model.named_parameters() if not p.requires_grad}
    assert frozen <= kept


def test_with_frozen_layers_a_resumed_run_ends_the_same_too(tmp_path: Path) -> None:
    whole = make(taught(), frozen_share=0.5, frozen_norm=True)
    want = outcome(whole.run(work(tmp_path / "whole"), silent()), whole)
    folder = work(tmp_path / "broken")
    with pytest.raises(Killed):
        make(taught(), frozen_share=0.5, frozen_norm=True).run(folder, Killing(5))
    trainer = make(taught(), frozen_share=0.5, frozen_norm=True)
    assert outcome(trainer.run(folder, silent()), trainer) == want


@pytest.mark.parametrize("share", [0.0, 0.01])
def test_a_share_of_less_than_one_layer_freezes_nothing(share: float) -> None:
    model = network()
    assert engine.freeze(model, share) == 0
    assert all(p.requires_grad for p in model.parameters())


def test_the_first_and_last_steps_use_the_rate_of_the_schedule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(Plain(), epochs=4, warmup=0.25)
    seen: list[float] = []
    real = trainer.optimizer.step

    def step(*args: Any, **kw: Any) -> Any:
        seen.append(trainer.optimizer.param_groups[0]["lr"])
        return real(*args, **kw)

    monkeypatch.setattr(trainer.optimizer, "step", step)
    trainer.run(work(tmp_path / "stage"), silent())
    assert seen[:3] == pytest.approx([2e-3 / 3, 4e-3 / 3, 2e-3])
    assert len(seen) == 12 and 0 < seen[-1] < 1e-4


def test_a_person_who_asks_for_details_gets_a_line_an_epoch(tmp_path: Path) -> None:
    face = Quiet()
    make(Plain()).run(work(tmp_path / "stage"), face)
    assert len(face.lines) == 3
    assert face.lines[0].startswith("student: epoch 1 of 3, loss ")


def _with_synthetic(**how: Any) -> Images:
    """Twelve real images and twelve synthetic ones behind them, which are not labelled unless they weigh something."""
    data = images(24)
    labels = data.labels.copy()
    if not how.get("label_weight"):
        labels[12:] = -1
    extra = Synthetic(**{"first": 12, "share": 0.5, **how})
    return replace(data, labels=labels, synthetic=extra)


def test_synthetic_images_take_their_share_of_each_batch_at_equal_steps(tmp_path: Path) -> None:
    teacher = Knowing()
    trainer = make(taught(teacher), _with_synthetic())
    plain = make(taught(), replace(images(12)))
    assert trainer.total == plain.total == 6
    seen = [trainer.batch(epoch, step) for step in range(6) for epoch in [step // 2]]
    assert [int((batch >= 12).sum()) for batch in seen] == [3] * 6
    assert {int(row) for batch in seen for row in batch} <= set(range(24))
    fitted = trainer.run(work(tmp_path / "a"), silent())
    assert fitted.steps == 6 and fitted.passes == 36


def test_synthetic_first_and_real_last_ends_on_real_images_alone() -> None:
    trainer = make(taught(), _with_synthetic(at_first=True))
    per_epoch = [int((trainer.batch(epoch, 2 * epoch) >= 12).sum()) for epoch in range(3)]
    assert per_epoch == [6, 3, 0]


def test_a_prompts_class_counts_with_its_weight_beside_a_label(tmp_path: Path) -> None:
    """Cross entropy of half real and half synthetic images is the mean weighted by what their labels count."""
    found = {}
    for weight in (0.0, 0.5, 1.0):
        trainer = make(Plain(), _with_synthetic(label_weight=weight))
        trainer.rows = np.arange(24)
        index, net = np.array([0, 1, 2, 12, 13, 14]), trainer.net
        trainer.shuffled = (0, False, np.tile(index, 2))
        net.model.eval()
        loss, _ = trainer._loss(index, 0)
        found[weight] = float(loss.detach())
    real, both = found[0.0], found[1.0]
    made = 2 * both - real
    assert real != pytest.approx(made)
    assert found[0.5] == pytest.approx((real + 0.5 * made) / 1.5, rel=1e-5)


def test_a_training_with_synthetic_images_is_resumed_to_the_bit(tmp_path: Path) -> None:
    def trainer() -> Trainer:
        return make(taught(), _with_synthetic(label_weight=0.5))

    whole = trainer()
    unbroken = outcome(whole.run(work(tmp_path / "whole"), silent()), whole)
    with pytest.raises(Killed):
        trainer().run(work(tmp_path / "broken"), Killing(3))
    again = trainer()
    assert outcome(again.run(work(tmp_path / "broken"), silent()), again) == unbroken


@pytest.mark.parametrize(("least", "saved"), [(0, [2, 4, 6, 8]), (3, [2, 6, 8]), (99, [2, 8])])
def test_short_epochs_do_not_each_cost_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: int, saved: list[int]
) -> None:
    monkeypatch.setattr(engine, "EPOCH_STEPS", least)
    steps: list[int] = []

    class Noting(Work):
        def write(self, name: str, data: bytes | str) -> Path:
            if name.endswith(".checkpoint"):
                steps.append(trainer.step)
            return super().write(name, data)

    trainer = make(Plain(), images(12), epochs=4)
    trainer.run(Noting(work(tmp_path / "a").folder), silent())
    assert steps == saved
