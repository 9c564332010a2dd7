"""The work of `plan --compute`: the answer, and with `--probe` the trainings that it lacked, and the answer again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from edgedistill.compute.effort import Effort
from edgedistill.compute.ledger import required_ledger
from edgedistill.data.dataset import Dataset
from edgedistill.data.sources import open_source
from edgedistill.derive import known_student
from edgedistill.effortplan import Answer, answer, probe_study
from edgedistill.errors import EdgedistillError
from edgedistill.files import write_atomic
from edgedistill.planning import choose_student, require_parts
from edgedistill.progress import Face
from edgedistill.recipe import Layered, read_yaml
from edgedistill.studyfile import load_study
from edgedistill.studying import run_study
from edgedistill.studyrun import StudyRequest
from edgedistill.target.device import load_device


def spend(layered: Layered, effort: Effort, probe: bool, command: str, face: Face) -> Answer:
    """What `effort` should go to; with `probe`, after the trainings that the answer lacked were made.

    Those are a study in `runs/`, which the same `command` goes on with.
    """
    require_parts()
    device = load_device(layered.recipe.device)
    known_student(layered.recipe.student.model)
    dataset = open_source(
        layered.recipe.data, layered.recipe.seed, None, face.counter("images"), face.say
    )
    planned, ledger = choose_student(layered, device, dataset), required_ledger()
    read = ledger.read()
    if read.words is not None:
        face.warn(f"{ledger.path}: {read.words}")
    found = answer(layered, device, dataset, planned, read.rows, effort, face)
    if not (probe and found.probes):
        return found
    _probe(layered, found, dataset, command, face)
    return answer(layered, device, dataset, planned, ledger.read().rows, effort, face)


def probe_name(data: str) -> str:
    """What the study of probes on such images is called: within the letters that a study may be called by."""
    return f"probe-{re.sub('[^A-Za-z0-9_-]', '-', data)[:30] or 'data'}"


def _probe(layered: Layered, found: Answer, dataset: Dataset, command: str, face: Face) -> None:
    """Make the trainings that are missing, each a row of the ledger; those that an earlier call began are gone on with,
    though the students, timed again, would get others.
    """
    folder = Path("runs") / probe_name(dataset.name)
    tree = probe_study(layered, found.probes, folder.name)
    file = folder.with_suffix(".yaml")
    if not _begun(file, tree):
        write_atomic(file, yaml.safe_dump(tree, sort_keys=False))
    run_study(StudyRequest(load_study(file), folder, command), face)


def _begun(file: Path, tree: Mapping[str, Any]) -> bool:
    """Whether `file` has trainings of the same recipe, of every kind that `tree` has."""
    try:
        old = read_yaml(file)
        kinds = [{arm.get("arm") for arm in one["arms"].values()} for one in (tree, old)]
    except (EdgedistillError, KeyError, AttributeError):
        return False
    return bool(old.get("recipe") == tree["recipe"] and kinds[0] <= kinds[1])
