"""The generator that comes with the package: small, of the built-in classes, and what it makes looks like them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("diffusers")

from edgedistill.data.idx import FASHION_CLASSES
from edgedistill.data.sources import SAMPLE_FILE
from edgedistill.synth.generators import Wish, open_source
from edgedistill.synth.naming import FOR_DATA, classes_of, folder_of
from edgedistill.synth.pipelines import Making

NAME = FOR_DATA["builtin:fashion-mnist"]
EACH = 4


@pytest.fixture(scope="module")
def made() -> tuple[Any, list[Any]]:
    """Its source, and some images of every class."""
    source = open_source(Making("class_conditional", NAME), FASHION_CLASSES)
    wishes = [Wish(n, n % 10, "", 77 + n) for n in range(10 * EACH)]
    return source, source.make(wishes)


def test_it_is_small_has_a_licence_and_knows_the_built_in_classes(made: Any) -> None:
    folder = folder_of(NAME)
    assert folder is not None and classes_of(NAME) == list(FASHION_CLASSES)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert size <= 6_000_000
    for config in folder.rglob("*.json"):
        assert "_name_or_path" not in config.read_text("utf-8"), "a path of another machine"
    facts = made[0].facts
    assert (facts.model, facts.licence, facts.kind) == (NAME, "apache-2.0", "class_conditional")
    assert facts.sha256 is not None and facts.steps <= 12


def test_its_images_are_those_of_the_class_that_was_asked_for(made: Any) -> None:
    """By a linear classifier on pixels, fitted on the built-in images: two of three, where chance has one of ten."""

    def rows(images: Any) -> Any:
        return np.pad(images.reshape(len(images), -1) / 255, ((0, 0), (0, 1)), constant_values=1)

    with np.load(SAMPLE_FILE, allow_pickle=False) as sample:
        x, y = rows(sample["train_images"]), np.eye(10)[sample["train_labels"]]
    weights = np.linalg.solve(x.T @ x + 100 * np.eye(x.shape[1]), x.T @ y)
    images = np.stack(made[1])
    assert images.shape == (10 * EACH, 28, 28, 3) and (images[..., :1] == images).all()
    right = (rows(images[..., 0]) @ weights).argmax(1) == np.arange(10 * EACH) % 10
    assert right.mean() > 2 / 3
    assert len({image.tobytes() for image in images}) == len(images)
