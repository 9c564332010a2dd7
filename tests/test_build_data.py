"""A build from shards with images without labels beside them: what learns from labels never sees a label of -1."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from tests.build_parts import CLASSES, SMALL, Ran, picture, tool, worked
from tests.data_parts import tar

PER_CLASS, MORE = 16, 20


def _jpeg(label: int, number: int) -> bytes:
    out = io.BytesIO()
    picture(label, number).save(out, "JPEG", quality=95)
    return out.getvalue()


def _build(place: Path, *more: object) -> Ran:
    return tool(
        "build", *SMALL, "--data", place / "shards", "--out", place / "run",
        "--until", "distilled", *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards with words for labels, a folder of images without, and a build of both."""
    place = tmp_path_factory.mktemp("build")
    members = []
    for name, label in CLASSES.items():
        for number in range(PER_CLASS):
            members += [(f"{name}{number}.jpg", _jpeg(label, number))]
            members += [(f"{name}{number}.cls", name.encode())]
    tar(place / "shards" / "clothes-000.tar", members)
    (place / "more").mkdir()
    for number in range(MORE):
        (place / "more" / f"{number}.jpg").write_bytes(_jpeg(8, 100 + number))
    (place / "more" / "known.jpg").write_bytes(_jpeg(8, 0))
    ran = _build(place, "--set", f"data.unlabelled={place / 'more'}")
    assert ran.code == 0, ran.text
    return place


def test_the_teacher_speaks_of_them_and_training_on_labels_leaves_them_out(place: Path) -> None:
    stages = place / "run" / "stages"
    facts = json.loads((stages / "01-data" / "done.json").read_text("utf-8"))["facts"]
    assert (facts["unlabelled"], facts["classes"]) == (MORE, sorted(CLASSES))
    truth = np.load(stages / "03-pixels" / "train-labels.npy")
    assert len(np.load(stages / "03-pixels" / "train.npy", mmap_mode="r")) == len(truth)
    assert (truth[-MORE:] == -1).all()
    assert sorted(set(truth[:-MORE].tolist())) == [0, 1, 2]
    targets = json.loads((stages / "06-targets" / "done.json").read_text("utf-8"))["facts"]
    assert targets["images"] == facts["train"] + MORE
    listed = (stages / "01-data" / "split.tsv").read_text("utf-8").splitlines()
    assert sum(line.startswith("unlabelled\t-1\t") for line in listed) == MORE
    for name in ("04-teacher", "08-plain", "09-distilled"):
        done = json.loads((stages / name / "done.json").read_text("utf-8"))["facts"]
        assert 0 <= done["val_top1"] <= 1


def test_stages_that_see_them_run_again_when_they_change_and_only_then(place: Path) -> None:
    same = _build(place, "--set", f"data.unlabelled={place / 'more'}")
    assert (same.code, worked(place / "run")) == (0, [])
    (place / "more" / "another.jpg").write_bytes(_jpeg(9, 300))
    assert _build(place, "--set", f"data.unlabelled={place / 'more'}").code == 0
    assert {"01-data", "03-pixels", "06-targets"} <= set(worked(place / "run"))
