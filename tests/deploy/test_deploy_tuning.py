"""Training in INT8: the student learns to round, and stays the network that it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from deploy_parts import LOOK, SIZE, pictures, plain, uneven
from torch import nn

from edgedistill.deploy.bundle import Packed
from edgedistill.deploy.int8 import asked
from edgedistill.deploy.onnx import export_float32
from edgedistill.deploy.search import Search, Way
from edgedistill.deploy.stage import Shape, packed, preprocess_of
from edgedistill.deploy.tuning import tuned
from edgedistill.progress import Face
from edgedistill.rundir import Work

CLASSES = ("a", "b", "c", "d")


def grainy(count: int, seed: int) -> np.ndarray:
    """Pictures with so much noise that a network is not sure of them."""
    noise = np.random.default_rng(seed).integers(-90, 90, (count, SIZE, SIZE, 3))
    return np.clip(pictures(count, seed) + noise, 0, 255).astype(np.uint8)


def taught(model: nn.Module, steps: int, **changes: Any) -> nn.Module:
    asked_for = {"method": "minmax", "flavour": "x86", "seed": 0, "advance": lambda k: None}
    return tuned(model, LOOK, grainy(128, 5), steps=steps, **{**asked_for, **changes})


def test_without_a_step_the_network_is_the_one_that_was_given() -> None:
    net, images = plain(), LOOK.tensor(pictures(8, 1), torch.device("cpu"))
    same = taught(net, 0)
    with torch.no_grad():
        got, want = same(images), net(images)
    assert torch.allclose(got, want, atol=1e-5)
    assert not any(hasattr(m, "parametrizations") for m in taught(plain(), 1).modules())


def test_the_same_arguments_give_the_same_weights_and_another_seed_does_not() -> None:
    first, again, other = (taught(plain(), 3, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_each_step_is_told() -> None:
    told: list[int] = []
    taught(plain(), 4, advance=told.append)
    assert told == [1, 1, 1, 1]


def test_a_student_that_loses_half_its_answers_to_rounding_learns_to_lose_none(
    tmp_path: Path,
) -> None:
    """One channel is 3,000 times the others and takes their levels; minmax alone, nothing back to float."""
    net, work = uneven(3000.0), Work(tmp_path)
    shape = Shape(
        "uint8_nhwc", CLASSES, preprocess_of(SIZE, LOOK.mean, LOOK.std), 17, "onnxruntime", "x86"
    )

    def file(model: nn.Module) -> Packed:
        return packed("float32", export_float32(model, LOOK, "uint8_nhwc", 17, {}), shape)

    question = asked(
        file(net), shape, lambda layout: {}, grainy(64, 7), grainy(128, 99), np.arange(128) % 4, work,
        method="minmax", integers=True, allowed=0.0,
    )  # fmt: skip
    after = replace(question, float32=file(taught(net, 150)).data)
    before, learned = (Search(q, work, Face(0)).make(Way("minmax")) for q in (question, after))
    assert before.drop > 0.3 and before.divergence > 0.5
    assert learned.drop <= 0.05 and learned.divergence < 0.1 * before.divergence
