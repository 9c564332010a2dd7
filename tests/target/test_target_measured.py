"""What a user measured is kept, found again on the same machine, and refused when it is damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from target_parts import make_measured

from edgedistill.errors import DocumentError
from edgedistill.target.device import load_device
from edgedistill.target.latency import Prediction, predict
from edgedistill.target.measured import (
    Place,
    keep,
    recall,
    user_place,
)
from edgedistill.target.students import find_student


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEDISTILL_HOME", str(tmp_path))


def test_predictions_for_a_measured_machine_come_from_its_own_times() -> None:
    keep(make_measured("host", 1e-5), user_place())
    host = load_device("host")
    network = find_student("mobilenetv2_100").network(96, 10)
    found = predict(host, "float32", network)
    assert isinstance(found, Prediction)
    assert found.tier == "B" and found.latency_s == pytest.approx(54e-5)
    assert found.words == "tier B, estimate from 26 networks timed on this machine, 1 thread"
    other = predict(host, "int8", network)
    assert isinstance(other, Prediction) and other.tier == "E"


def test_a_measurement_of_another_machine_says_nothing_about_this_one() -> None:
    keep(make_measured("host", 1e-5, cpu="another"), user_place())
    assert load_device("host").latency["float32"].tier == "E"


def test_a_named_board_is_what_the_user_said_it_is() -> None:
    keep(make_measured("raspberry-pi-4", 1e-5, cpu="Cortex-A72"), user_place())
    assert load_device("pi4").latency["float32"].tier == "B"


def test_a_damaged_measurement_is_one_paragraph(tmp_path: Path) -> None:
    path = keep(make_measured("host", 1e-5), user_place())
    path.write_text("{")
    with pytest.raises(DocumentError):
        load_device("host")


def test_a_measurement_with_features_of_another_version_asks_for_a_new_one(tmp_path: Path) -> None:
    path = keep(make_measured("host", 1e-5), Place(tmp_path))
    tree = json.loads(path.read_text())
    tree["models"]["float32"]["seconds"] = {"toasts": 1.0}
    path.write_text(json.dumps(tree))
    with pytest.raises(DocumentError, match=r"toasts.*devices measure host"):
        recall("host", Place(tmp_path))


def test_without_a_measurement_there_is_none(tmp_path: Path) -> None:
    assert recall("host", Place(tmp_path / "none")) is None
