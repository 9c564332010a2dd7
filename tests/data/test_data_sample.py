"""The built-in sample set, and the script that makes it."""

from __future__ import annotations

import hashlib
import runpy
from pathlib import Path

import numpy as np
import pytest

from edgedistill.data.dataset import SPLITS, labels
from edgedistill.data.sources import SAMPLE_FILE, open_source
from edgedistill.recipe import DataSection

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "make_sample.py"


def test_the_built_in_set_needs_no_options() -> None:
    data = open_source(DataSection(), seed=0)
    assert (len(data.train), len(data.val), len(data.test)) == (6000, 1000, 2000)
    assert data.classes[0] == "T-shirt/top"
    assert data.classes[9] == "Ankle boot"
    assert (data.image_side, data.duplicates, data.skipped) == (28, 0, ())
    assert data.licence is not None
    for split, each in (("train", 600), ("val", 100), ("test", 200)):
        assert np.bincount(labels(data.items(split))).tolist() == [each] * 10  # type: ignore[arg-type]
    image = data.read(data.test[0])
    assert (image.mode, image.size) == ("RGB", (28, 28))
    assert open_source(DataSection(), seed=5).sha256 == data.sha256


def test_it_is_small_and_its_licence_lies_beside_it() -> None:
    folder = SAMPLE_FILE.parent
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8_000_000
    licence = (folder / "LICENSE.fashion-mnist").read_text("utf-8")
    assert "The MIT License" in licence
    assert "Zalando SE" in licence


def test_no_two_images_of_different_splits_are_near() -> None:
    near = 10.0
    with np.load(SAMPLE_FILE, allow_pickle=False) as sample:
        parts = {s: sample[f"{s}_images"].reshape(-1, 784) for s in ("train", "val", "test")}
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        a, b = parts[one].astype(np.float32), parts[other].astype(np.float32)
        squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
        assert squares.min() >= 784 * near**2


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_the_script_makes_the_same_bytes_again_and_the_indices_are_true() -> None:
    script = runpy.run_path(str(SCRIPT))
    made = hashlib.sha256(script["build"](DEBIAN)).hexdigest()
    assert made == hashlib.sha256(SAMPLE_FILE.read_bytes()).hexdigest()
    whole = {
        "train": script["read_idx"](DEBIAN / "train-images-idx3-ubyte.gz"),
        "t10k": script["read_idx"](DEBIAN / "t10k-images-idx3-ubyte.gz"),
    }
    data = open_source(DataSection(), seed=0)
    for split in SPLITS:
        for item in data.items(split)[::97]:
            file, _, index = item.key.partition("/")
            assert file == ("t10k" if split == "test" else "train")
            assert (np.asarray(data.read(item))[..., 0] == whole[file][int(index)]).all()
