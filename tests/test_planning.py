"""What planning asks of teachers before any of them is loaded: their files and their size."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
from teacher_parts import saved

from edgedistill.errors import TeacherError
from edgedistill.planning import teacher_files
from edgedistill.recipe import TeacherSection
from edgedistill.teacher.shape import shape_of


def test_every_local_file_of_every_teacher_counts(tmp_path: Path) -> None:
    """One byte more in any of them is another teacher."""
    files = {
        "w.pth": "weights", "m/config.json": "{}", "m/model.safetensors": "a", "m/notes.txt": "no",
        "h/config.json": "{}", "h/pytorch_model.bin": "b", "g.onnx": "g",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    section = TeacherSection(
        model="resnet18", weights=str(tmp_path / "w.pth"),
        others=[f"local-dir:{tmp_path}/m", f"hf:{tmp_path}/h", f"onnx:{tmp_path}/g.onnx", "hf:a/b"],
    )  # fmt: skip
    before = teacher_files(section)
    assert sorted(before) == sorted(str(tmp_path / n) for n in files if n != "m/notes.txt")
    for name in files:
        if name != "m/notes.txt":
            (tmp_path / name).write_text("changed")
            assert teacher_files(section) != before
            (tmp_path / name).write_text(files[name])
    assert teacher_files(section) == before
    assert teacher_files(TeacherSection(model="hf:facebook/dinov2-small")) == {}


def test_several_teachers_see_the_largest_size_or_that_of_one_that_takes_no_other(
    tmp_path: Path,
) -> None:
    small = saved(tmp_path / "s", "test_resnet")
    fixed = saved(tmp_path / "f", "vit_tiny_patch16_224", img_size=96)
    cfg = timm.get_pretrained_cfg("test_resnet")
    assert cfg is not None
    native = int(cfg.input_size[-1])
    assert shape_of(TeacherSection(model=small)) == (native, False)
    assert shape_of(TeacherSection(model=small, others=["resnet18"])) == (224, False)
    assert shape_of(TeacherSection(model=small, others=[fixed])) == (96, True)


def test_early_states_of_several_teachers_are_refused_before_anything_runs() -> None:
    section = TeacherSection(model="resnet18", others=["resnet34"], checkpoints=2)
    with pytest.raises(TeacherError, match=r"teacher.checkpoints is 2 and teacher.others names 1"):
        shape_of(section)
