"""What is known of teachers before their weights are loaded: their native input size. Planning asks this."""

from __future__ import annotations

import json
from pathlib import Path

import timm

from edgedistill.errors import TeacherError
from edgedistill.recipe import TeacherSection
from edgedistill.teacher.bundled import BUNDLED
from edgedistill.teacher.hub import load_pretrained
from edgedistill.teacher.huggingface import PREFIX as HF
from edgedistill.teacher.huggingface import hf_shape


def shape_of(section: TeacherSection) -> tuple[int, bool]:
    """Native square size in pixels, and whether the teacher takes no other. Raises `TeacherError`.

    Of several teachers: the largest size of those that take one only, else the largest native size.
    """
    several = bool(section.others) and section.combine != "select"
    if several and section.checkpoints not in (0, "auto"):
        raise TeacherError(
            f"teacher.checkpoints is {section.checkpoints} and teacher.others names {len(section.others)} more: "
            "early states are kept of one teacher alone. Give --set teacher.checkpoints=0, or no others."
        )
    found = [_one(single) for single in section.each()]
    fixed = [size for size, only in found if only]
    return max(fixed or [size for size, _ in found]), bool(fixed)


def _one(section: TeacherSection) -> tuple[int, bool]:
    name = section.model
    if name.startswith("bundled:"):
        entry = BUNDLED.get(name.removeprefix("bundled:"))
        if entry is None or section.weights is None:
            found = load_pretrained(section)
            return found.size, found.fixed_size
        name = entry.architecture
    if name.startswith(HF) and section.weights is None:
        return hf_shape(section)
    if name.startswith("local-dir:"):
        return _of_folder(Path(name.removeprefix("local-dir:")), section)
    if name.startswith("hf-hub:") or section.weights is not None or not timm.is_model(name):
        found = load_pretrained(section)
        return found.size, found.fixed_size
    cfg = timm.get_pretrained_cfg(name)
    if cfg is None:
        raise TeacherError(f"timm knows no pretrained weights for {name}; give teacher.weights")
    return int(cfg.input_size[-1]), bool(cfg.fixed_input_size)


def _of_folder(folder: Path, section: TeacherSection) -> tuple[int, bool]:
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        cfg = config.get("pretrained_cfg", config)
        return int(cfg["input_size"][-1]), bool(cfg.get("fixed_input_size", False))
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        found = load_pretrained(section)
        return found.size, found.fixed_size
