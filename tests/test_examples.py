"""Pictures of the surest mistakes, and the most frequent ones, for the result document."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from edgedistill.data.dataset import Item
from edgedistill.examples import RIGHT, SIDE, WRONG, examples_of, mistakes_of, small_png


def found(images: int = 200, side: int = 224) -> list:
    """Examples of images of which every third is wrong, surer with each one."""
    rng = np.random.default_rng(0)
    labels = np.arange(images) % 5
    logits = np.zeros((images, 5), np.float32)
    answers = np.where(np.arange(images) % 3 == 0, (labels + 1) % 5, labels)
    logits[np.arange(images), answers] = np.linspace(1, 4, images)
    pixels = rng.integers(0, 256, (images, side, side, 3), dtype=np.uint8)
    items = [Item(f"test/{i}.jpg", int(labels[i]), "") for i in range(images)]
    return examples_of(logits, labels, pixels, items)


def test_the_surest_mistakes_come_first_then_some_that_are_right() -> None:
    examples = found()
    wrong = [e for e in examples if e.label != e.predicted]
    assert len(wrong) == WRONG and examples[: len(wrong)] == wrong
    assert [e.confidence for e in wrong] == sorted((e.confidence for e in wrong), reverse=True)
    assert len(examples) == WRONG + RIGHT
    assert wrong[0].name == "test/198.jpg" and wrong[0].label == 198 % 5


def test_all_pictures_of_photographs_leave_room_in_the_page() -> None:
    """Noise is the worst that a PNG can meet: 36 pictures stay under 0.6 MB."""
    examples = found()
    assert sum(len(e.png) for e in examples) < 600_000
    with Image.open(io.BytesIO(base64.b64decode(examples[0].png))) as image:
        assert image.size == (SIDE, SIDE)


def test_a_small_plain_picture_keeps_every_pixel() -> None:
    pixels = np.zeros((28, 28, 3), np.uint8)
    pixels[3:9, 4:7] = (200, 100, 50)
    with Image.open(io.BytesIO(base64.b64decode(small_png(pixels)))) as image:
        assert (np.asarray(image.convert("RGB")) == pixels).all()


def test_images_that_are_all_right_or_all_wrong_are_no_fault() -> None:
    for shift in (0, 1):
        labels = np.arange(6) % 3
        logits = np.eye(3, dtype=np.float32)[(labels + shift) % 3]
        pixels = np.zeros((6, 8, 8, 3), np.uint8)
        items = [Item(str(i), int(labels[i]), "") for i in range(6)]
        assert len(examples_of(logits, labels, pixels, items)) == 6


def test_the_most_frequent_mistakes_are_counted_and_ordered() -> None:
    counts = np.array([[7, 2, 1], [0, 9, 1], [2, 0, 8]])
    rows = [(m.label, m.predicted, m.count, m.total) for m in mistakes_of(counts)]
    assert rows == [(0, 1, 2, 10), (2, 0, 2, 10), (0, 2, 1, 10), (1, 2, 1, 10)]
