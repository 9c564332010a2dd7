"""What every room does with a network: how it sees an image, what it gives, and its weights on disk."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from ontarget.facts import Model, TensorSpec
from ontarget.preprocess import to_input
from safetensors.torch import save_file
from torch import nn

from edgedistill.deploy.stage import preprocess_of
from edgedistill.errors import TeacherError
from edgedistill.nets import (
    Look,
    bn_layers,
    check_fit,
    count_params,
    forward,
    inference,
    load_state,
    outputs,
    pick_device,
    state_bytes,
    torch_bytes,
)

CPU = torch.device("cpu")
LOOK = Look(32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PIXELS = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)


def network(name: str = "test_resnet", seed: int = 0, classes: int = 4) -> nn.Module:
    torch.manual_seed(seed)
    model: nn.Module = timm.create_model(name, num_classes=classes)
    return model


def test_a_look_is_the_kits_float_input_to_the_bit() -> None:
    """One preprocessing contract: training, graph and device see the same numbers."""
    image = TensorSpec("images", "float32", (None, 3, 32, 32), "float_nchw")
    model = Model(
        "m", "m", Path("m"), "0" * 64, 1, "float32", "onnxruntime", 17, image,
        TensorSpec("logits", "float32", (None, 4)),
    )  # fmt: skip
    want = to_input(PIXELS, model, preprocess_of(32, LOOK.mean, LOOK.std))
    got = LOOK.tensor(PIXELS, CPU)
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert np.array_equal(got.contiguous().numpy(), want)


def test_a_look_normalises_by_the_formula() -> None:
    want = (PIXELS / 255 - np.array(LOOK.mean)) / np.array(LOOK.std)
    got = LOOK.tensor(PIXELS, CPU).numpy().transpose(0, 2, 3, 1)
    assert np.allclose(got, want, atol=1e-5)


def test_pixels_that_cannot_be_written_to_are_read(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", PIXELS)
    mapped = np.load(tmp_path / "p.npy", mmap_mode="r")
    assert torch.equal(
        LOOK.tensor(np.asarray(mapped[::2]), CPU), LOOK.tensor(PIXELS[::2].copy(), CPU)
    )


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "mobilenetv3_small_050"])
def test_features_and_logits_are_those_of_one_pass(name: str) -> None:
    model = network(name).eval()
    x = LOOK.tensor(PIXELS, CPU)
    with torch.inference_mode():
        features, logits = forward(model, x)
        assert torch.allclose(logits, model(x), atol=1e-6)
    assert features.shape[0] == logits.shape[0] == 7 and logits.shape[1] == 4
    head = model.get_classifier()  # type: ignore[operator]
    assert features.shape[1] == head.in_features


def test_outputs_do_not_depend_on_the_batches_and_count_every_image() -> None:
    model, seen = network().train(), list[int]()
    features, logits = outputs(model, PIXELS, LOOK, CPU, batch=3, advance=seen.append)
    assert seen == [3, 3, 1] and not model.training
    whole = outputs(model, PIXELS, LOOK, CPU)
    assert np.allclose(features, whole[0], atol=1e-5) and np.allclose(logits, whole[1], atol=1e-5)
    assert features.dtype == logits.dtype == np.float32


def test_outputs_in_low_precision_stay_close_and_come_back_as_float32() -> None:
    model = network().eval()
    exact = outputs(model, PIXELS, LOOK, CPU)
    fast = outputs(model, PIXELS, LOOK, CPU, fast=True)
    for a, b in zip(exact, fast, strict=True):
        assert b.dtype == np.float32
        assert np.abs(a - b).max() < 0.05 * np.abs(a).max()


def test_inference_keeps_no_gradients_and_leaves_the_mode_as_it_was() -> None:
    model = network().eval()
    with inference(CPU, fast=False):
        assert not model(LOOK.tensor(PIXELS, CPU)).requires_grad
    assert torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")


def test_a_device_is_found() -> None:
    assert pick_device().type in ("cpu", "cuda", "mps")


def test_the_same_network_is_always_the_same_bytes_in_any_memory_layout() -> None:
    model = network()
    data = state_bytes(model)
    assert data == state_bytes(network())
    assert data == state_bytes(model.to(memory_format=torch.channels_last))
    assert data != state_bytes(network(seed=1))


def test_weights_come_back_from_disk(tmp_path: Path) -> None:
    model, other = network(), network(seed=1)
    (tmp_path / "w.safetensors").write_bytes(state_bytes(model))
    load_state(other, tmp_path / "w.safetensors", "the weights")
    assert state_bytes(other) == state_bytes(model)


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "noise"])
def test_weights_that_cannot_be_read_are_named(damage: str, tmp_path: Path) -> None:
    path, data = tmp_path / "w.safetensors", state_bytes(network())
    if damage != "missing":
        path.write_bytes({"empty": b"", "cut": data[:-5], "noise": b"\xff" * 50}[damage])
    with pytest.raises(TeacherError, match=r"the stored student .*w\.safetensors cannot be read"):
        load_state(network(), path, "the stored student")


def test_weights_of_another_network_are_refused_and_change_nothing(tmp_path: Path) -> None:
    path, model = tmp_path / "w.safetensors", network()
    save_file(network("test_efficientnet").state_dict(), path)
    before = state_bytes(model)
    with pytest.raises(TeacherError, match="another architecture than ResNet"):
        load_state(model, path, "the weights")
    assert state_bytes(model) == before


def test_the_first_differences_of_a_checkpoint_are_named() -> None:
    model = network()
    state = dict(model.state_dict())
    del state["fc.weight"]
    state["extra.one"] = torch.zeros(1)
    state["fc.bias"] = torch.zeros(9)
    with pytest.raises(TeacherError) as caught:
        check_fit(model, state, "checkpoint x")
    text = str(caught.value)
    assert "1 tensors missing (fc.weight)" in text
    assert "1 tensors unknown (extra.one)" in text
    assert "fc.bias is (9,), must be (4,)" in text


def test_counters_of_batch_normalisation_may_be_missing() -> None:
    model = network()
    state = {k: v for k, v in model.state_dict().items() if "num_batches_tracked" not in k}
    check_fit(model, state, "checkpoint x")


def test_parameters_are_counted_once() -> None:
    layer = nn.Linear(3, 5)
    assert count_params(nn.Sequential(layer, nn.ReLU(), layer)) == 20


def test_normalisation_layers_of_every_kind_are_found() -> None:
    for name in ("test_resnet", "mobilenetv3_small_050"):
        model = network(name)
        kinds = {type(layer).__name__ for layer in bn_layers(model)}
        assert bn_layers(model) and kinds <= {"BatchNorm2d", "BatchNormAct2d"}
        assert sum("running_mean" in k for k in model.state_dict()) == len(bn_layers(model))


def test_a_saved_value_is_read_back_without_running_code() -> None:
    data = torch_bytes({"a": torch.arange(3), "b": 1.5})
    found = torch.load(io.BytesIO(data), weights_only=True)
    assert found["b"] == 1.5 and torch.equal(found["a"], torch.arange(3))
