"""What is known of a teacher before its weights are loaded: its native input size. Planning asks this."""

from __future__ import annotations

import json
from pathlib import Path

import timm

from edgedistill.errors import TeacherError
from edgedistill.recipe import TeacherSection
from edgedistill.teacher.bundled import BUNDLED
from edgedistill.teacher.hub import load_pretrained


def shape_of(section: TeacherSection) -> tuple[int, bool]:
    """Native square size in pixels, and whether the teacher takes no other. Raises `TeacherError`."""
    name = section.model
    if name.startswith("bundled:"):
        entry = BUNDLED.get(name.removeprefix("bundled:"))
        if entry is None or section.weights is None:
            found = load_pretrained(section)
            return found.size, found.fixed_size
        name = entry.architecture
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
