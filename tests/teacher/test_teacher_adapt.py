"""How a teacher learns the task: its head, and which of its own head, the probe and fine-tuning stays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from edgedistill.errors import TeacherError
from edgedistill.nets import forward
from edgedistill.teacher.adapt import Adapted, Probe, adapt, check_head, own_head, set_head

# The head


@pytest.mark.parametrize("name", ["test_resnet", "dla46x_c", "test_efficientnet"])
def test_the_probes_head_in_the_network_gives_the_probes_logits(name: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=4).eval()
    width = model.num_features
    probe = Probe(torch.randn(4, width), torch.randn(4), 0.1, 0.5)
    set_head(model, probe)
    with torch.inference_mode():
        features, logits = forward(model, torch.randn(2, 3, 64, 64))
        want = features @ probe.weight.T + probe.bias
        assert torch.allclose(logits, want, atol=1e-3 * float(want.abs().max()))
    check_head(model, 64, 4, name)


@pytest.mark.parametrize("name", ["repvit_m0_9", "levit_128s"])
def test_a_network_without_one_linear_classifier_is_refused_in_words(name: str) -> None:
    model = timm.create_model(name, num_classes=3)
    with pytest.raises(TeacherError, match="not one linear layer") as caught:
        check_head(model, 224, 3, name)
    assert name in str(caught.value)


def test_a_size_that_a_network_does_not_take_is_refused_in_words() -> None:
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3)
    with pytest.raises(TeacherError, match="does not take RGB images of 96 px"):
        check_head(model, 96, 3, "vit_tiny_patch16_224")
    grey = timm.create_model("test_resnet", num_classes=3, in_chans=1)
    with pytest.raises(TeacherError, match="RGB"):
        check_head(grey, 96, 3, "grey")


# Which of them stays


def fresh() -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = timm.create_model("test_resnet", num_classes=4)
    return model


PROBE = Probe(torch.full((4, 96), 0.5), torch.full((4,), 0.25), 0.01, 0.8)


def head_of(model: nn.Module) -> Any:
    net: Any = model
    return net.get_classifier()


def adapted(score: float | None, probe: Probe | None = PROBE, from_probe: bool = False) -> Adapted:
    def finetune(model: nn.Module) -> float:
        assert score is not None
        with torch.no_grad():
            head_of(model).bias.fill_(9.0)
        return score

    heads = {} if probe is None else {"linear probe": probe}
    return adapt(fresh, heads, None if score is None else finetune, "too large", from_probe)


def test_fine_tuning_is_kept_when_it_pays() -> None:
    got = adapted(0.9)
    assert (got.adaptation, got.val_top1) == ("fine-tuned", 0.9)
    assert got.reason == "validation top-1 0.900, against 0.800 of the linear probe"
    assert bool((head_of(got.model).bias == 9.0).all())


@pytest.mark.parametrize("score", [0.8, 0.7])
def test_the_probe_is_kept_when_fine_tuning_does_not_pay(score: float) -> None:
    got = adapted(score)
    assert (got.adaptation, got.val_top1) == ("linear probe", 0.8)
    assert got.reason.startswith(f"fine-tuning did not pay: validation top-1 {score:.3f}")
    assert torch.equal(head_of(got.model).weight, PROBE.weight)


def test_without_fine_tuning_the_reason_is_told() -> None:
    got = adapted(None)
    assert (got.adaptation, got.reason) == ("linear probe", "too large")


def test_without_a_probe_the_fine_tuned_one_stands() -> None:
    got = adapted(0.1, probe=None)
    assert (got.adaptation, got.reason, got.val_top1) == ("fine-tuned", "asked for", 0.1)


@pytest.mark.parametrize("from_probe", [True, False])
def test_fine_tuning_starts_from_the_probes_head_only_when_told(from_probe: bool) -> None:
    begun: list[Tensor] = []

    def finetune(model: nn.Module) -> float:
        begun.append(head_of(model).weight.detach().clone())
        return 1.0

    adapt(fresh, {"linear probe": PROBE}, finetune, "", from_probe)
    assert torch.equal(begun[0], PROBE.weight) == from_probe


def test_a_probe_that_is_always_right_leaves_nothing_for_fine_tuning_to_show() -> None:
    made: list[nn.Module] = []

    def fresh() -> nn.Module:
        model: nn.Module = timm.create_model("test_resnet", num_classes=2)
        made.append(model)
        return model

    def tune(model: nn.Module) -> float:
        raise AssertionError("it must not be tried")

    width = head_of(fresh()).weight.shape[1]
    probe = Probe(torch.zeros(2, width), torch.zeros(2), 0.1, 1.0)
    found = adapt(fresh, {"linear probe": probe}, tune, "", True)
    assert found.adaptation == "linear probe" and "every validation image" in found.reason


OWN = Probe(torch.full((4, 96), -0.5), torch.zeros(4), 0.0, 0.8)


@pytest.mark.parametrize(
    ("own", "stays"), [(0.9, "zero-shot head"), (0.8, "zero-shot head"), (0.7, "linear probe")]
)
def test_of_two_heads_the_better_one_stays_and_the_cheaper_one_at_a_tie(
    own: float, stays: str
) -> None:
    heads = {"zero-shot head": replace(OWN, val_top1=own), "linear probe": PROBE}
    got = adapt(fresh, heads, None, "too large", True)
    assert got.adaptation == stays and got.val_top1 == max(own, 0.8)
    assert torch.equal(head_of(got.model).weight, heads[stays].weight)
    other = ({*heads} - {stays}).pop()
    assert got.reason == (
        f"too large; validation top-1 {got.val_top1:.3f}, against {heads[other].val_top1:.3f} of the {other}"
    )


def test_fine_tuning_starts_from_the_better_head_and_is_held_to_it() -> None:
    begun: list[Tensor] = []

    def finetune(model: nn.Module) -> float:
        begun.append(head_of(model).weight.detach().clone())
        return 0.85

    heads = {"zero-shot head": replace(OWN, val_top1=0.9), "linear probe": PROBE}
    got = adapt(fresh, heads, finetune, "", True)
    assert torch.equal(begun[0], OWN.weight)
    assert (
        got.adaptation == "zero-shot head"
        and "0.850, against 0.900 of the zero-shot head" in got.reason
    )


@pytest.mark.parametrize("name", ["test_resnet", "dla46x_c", "test_efficientnet"])
def test_rows_of_a_networks_own_head_give_those_columns_of_its_logits(name: str) -> None:
    torch.manual_seed(0)
    model: Any = timm.create_model(name, num_classes=6).eval()
    head = own_head(model, [4, 0], model.num_features)
    assert head is not None
    with torch.inference_mode():
        features, logits = forward(model, torch.randn(2, 3, 64, 64))
    assert torch.allclose(features @ head[0].T + head[1], logits[:, [4, 0]], atol=1e-4)
    assert own_head(timm.create_model("levit_128s", num_classes=3), [0], 384) is None
