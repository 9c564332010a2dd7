"""The search for an INT8 file: each step keeps the better, and as little as possible goes back to float."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deploy_parts import LOOK, SIZE, pictures, plain, uneven
from torch import nn

from edgedistill.deploy.int8 import Pupil, find
from edgedistill.deploy.onnx import export_float32
from edgedistill.deploy.ranges import METHODS
from edgedistill.deploy.search import Asked, Search, Way, divergence
from edgedistill.deploy.stage import Shape, kit_logits, metadata, packed, preprocess_of
from edgedistill.progress import Face
from edgedistill.rundir import Work

CLASSES = ("a", "b", "c", "d")


def asked(work: Work, model: nn.Module, flavour: str = "arm", **changes: Any) -> Asked:
    shape = Shape(
        "uint8_nhwc", CLASSES, preprocess_of(SIZE, LOOK.mean, LOOK.std), 17, "onnxruntime", flavour
    )
    data = export_float32(model, LOOK, "uint8_nhwc", 17, {})
    pixels = pictures(80, 99)
    return Asked(**{
        "float32": data, "shape": shape, "metadata": lambda layout: metadata(shape, "plain", {}, layout),
        "calibration": pictures(40, 7), "pixels": pixels, "labels": np.arange(80) % 4,
        "logits": kit_logits(packed("float32", data, shape), pixels, shape, work),
        "method": "auto", "integers": True, "allowed": 0.01, **changes,
    })  # fmt: skip


def searched(work: Work, model: nn.Module, flavour: str = "arm", **changes: Any) -> Search:
    return Search(asked(work, model, flavour, **changes), work, Face(0))


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path)


def test_all_methods_are_tried_and_the_file_nearest_to_float_is_kept(work: Work) -> None:
    search = searched(work, plain(), integers=False)
    best = search.best()
    assert {made.way.method for made in search.tried} == set(METHODS)
    assert best.divergence == min(made.divergence for made in search.tried)
    assert best.drop <= 0.01


def test_a_method_that_is_named_is_the_only_way(work: Work) -> None:
    search = searched(work, plain(), method="percentile")
    assert search.best().way == Way("percentile", integers=True)
    assert len(search.tried) == 1


@pytest.mark.parametrize(("flavour", "layout"), [("x86", "uint8_nhwc"), ("tensorrt", "int8_nhwc")])
def test_pixels_are_taken_as_integers_where_the_target_takes_them(
    work: Work, flavour: str, layout: str
) -> None:
    best = searched(work, plain(), flavour).best()
    assert best.way.integers and best.layout == layout
    assert not searched(work, plain(), flavour, integers=False).best().way.integers


def test_a_channel_that_takes_the_levels_of_all_others_is_equalised(work: Work) -> None:
    search = searched(work, uneven(2000.0))
    best = search.best()
    assert best.way.equalized and not best.way.float_nodes
    assert best.drop <= 0.01 < next(made for made in search.tried if made.way == Way("minmax")).drop


def test_where_too_much_is_lost_only_the_products_at_the_tensor_that_loses_it_go_back_to_float(
    work: Work,
) -> None:
    search = searched(work, uneven(2000.0), method="minmax")
    best = search.best()
    assert best.drop <= 0.01 < search.tried[0].drop
    assert {name.split("/")[-2] for name in best.way.float_nodes} == {"depthwise", "third"}
    assert 0 < search.float_share(best.way) < 1
    assert "2 of 6 products in float" in best.way.words(search.products)


def test_a_file_that_nothing_helps_is_the_one_that_loses_least_and_says_so(work: Work) -> None:
    search = searched(work, plain(), method="minmax", allowed=-1.0)
    best = search.best()
    assert best.drop > -1.0 and not best.way.float_nodes
    assert [len(made.way.float_nodes) for made in search.tried] == [0, 1, 2]


def test_ways_are_compared_on_images_of_all_classes_and_a_loss_is_looked_at_on_every_image(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images lie in the order of their classes; 8 of them hold each class, and all 80 are scored in the end."""
    order = np.argsort(np.arange(80) % 4, kind="stable")
    pixels = pictures(80, 99)[order]
    seen: list[np.ndarray] = []

    def scored(item: Any, images: np.ndarray, *rest: Any) -> np.ndarray:
        seen.append(images)
        return kit_logits(item, images, *rest)

    question = asked(work, plain(), method="minmax", allowed=-1.0)
    logits = kit_logits(
        packed("float32", question.float32, question.shape), pixels, question.shape, work
    )
    question = replace(question, pixels=pixels, labels=order % 4, logits=logits)
    monkeypatch.setattr("edgedistill.deploy.search.RANKED", 8)
    monkeypatch.setattr("edgedistill.deploy.search.kit_logits", scored)
    Search(question, work, Face(0)).best()
    places = [next(k for k in range(80) if np.array_equal(pixels[k], one)) for one in seen[0]]
    assert {int(order[k] % 4) for k in places} == {0, 1, 2, 3} and len(places) == 8
    assert len(seen[1]) == 80


def test_the_divergence_of_the_same_logits_is_0_and_of_others_what_the_formula_says() -> None:
    logits = np.array([[0.0, 0.0], [2.0, 0.0]])
    assert divergence(logits, logits + 3) == pytest.approx(0, abs=1e-12)
    p, q = np.exp([2, 0]) / np.exp([2, 0]).sum(), np.array([0.5, 0.5])
    want = float((p * np.log(p / q)).sum()) / 2
    assert divergence(logits, np.zeros((2, 2))) == pytest.approx(want)


def test_the_way_of_the_shipped_file_is_told_with_all_that_were_tried(work: Work) -> None:
    found = find(asked(work, plain(), "x86"), None, work, Face(0))
    assert found.item.precision == "int8" and found.item.flavour == "x86"
    assert found.facts["made"].startswith("ranges by ") and found.facts["images"] == 40
    assert len(found.facts["tried"]) >= len(METHODS) + 2
    assert found.float_share == 0


def test_a_student_that_no_way_helps_is_trained_in_int8(work: Work) -> None:
    """One channel is 2,000 times the others; with nothing but minmax and few products it is learned away."""
    pupil = Pupil(lambda: uneven(2000.0), lambda: pictures(64, 5), steps=3, seed=0)
    question = asked(work, uneven(2000.0), method="minmax", allowed=-1.0)
    told: list[str] = []
    face = Face(0)
    face.say = told.append  # type: ignore[method-assign]
    find(question, pupil, work, face)
    assert len(told) == 1 and "training in INT8" in told[0]
