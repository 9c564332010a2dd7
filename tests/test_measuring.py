"""Measuring a machine: rounds through the kit, a fit, and what is kept of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ontarget.machine import machine

from edgedistill import measuring
from edgedistill.errors import UsageError
from edgedistill.evidence.bench import FakeTarget, Here
from edgedistill.measuring import Timed, measure_device, time_candidates
from edgedistill.progress import silent
from edgedistill.result import Limits
from edgedistill.target.device import load_device
from edgedistill.target.plan import plan
from edgedistill.target.students import find_student

SMALL = (("mobilenetv3_small_050", 64), ("lcnet_050", 64), ("tinynet_e", 64), ("resnet10t", 64))


@pytest.fixture(autouse=True)
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEDISTILL_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(measuring, "ANCHORS", SMALL)
    monkeypatch.setattr(measuring, "ROUNDS", 1)
    monkeypatch.setattr(measuring, "MIN_SECONDS", 0.02)


def test_a_latency_is_neither_moved_by_a_hiccup_nor_torn_between_two_speeds() -> None:
    assert Timed((1.0,) * 19 + (50.0,), ()).latency_s == 1.0
    assert Timed((1.0,) * 11 + (2.0,) * 9, ()).latency_s == pytest.approx(1.4375)
    assert Timed((3.0,), ()).latency_s == 3.0


def test_this_machine_is_measured_and_predicted_from_then_on() -> None:
    assert load_device("host").latency["float32"].tier == "E"
    measured, path = measure_device(load_device("host"), Here(), 1, silent())
    assert path.is_file() and set(measured.models) == {"float32", "int8"}
    assert {(row.model, row.input_size) for row in measured.anchors} == set(SMALL)
    assert all(row.latency_s > 0 for row in measured.anchors)
    host = load_device("host")
    assert {model.tier for model in host.latency.values()} == {"B"}
    assert all(model.n == len(SMALL) for model in host.latency.values())


def _answer(seconds: float) -> Any:
    def answer(bundle: Path, arguments: Sequence[str]) -> dict[str, Any]:
        rows = [
            {"model": name, "samples_s": [seconds] * 3, "operators": []}
            for name in ("float32", "int8")
        ]
        return {"machine": machine(), "rows": rows}

    return answer


def _plan(limits: Limits) -> Any:
    return plan(
        load_device("host"),
        limits,
        classes=10,
        image_side=32,
        at_hand=lambda _: False,
        student="auto",
    )


def test_the_best_candidates_are_timed_before_anything_is_trained() -> None:
    limits = Limits(latency_s=0.02, size_bytes=5_000_000)
    before = _plan(limits)
    target = FakeTarget(_answer(0.001))
    after = time_candidates(before, load_device("host"), limits, 2, 10, target, silent())
    assert after.chosen.model == before.chosen.model
    assert (after.chosen.measured_s, after.chosen.tier) == (0.001, "A")
    assert "measured here: 1.00 ms, 20 ms allowed" in after.chosen.reason
    assert after.runners_up[0].measured_s == 0.001 and after.runners_up[1].measured_s is None
    assert len(target.calls) == 2


def test_a_candidate_that_is_too_slow_here_gives_way_to_the_next() -> None:
    limits = Limits(latency_s=0.02, size_bytes=5_000_000)
    before = _plan(limits)
    slow = FakeTarget(_answer(0.03))
    after = time_candidates(before, load_device("host"), limits, 1, 10, slow, silent())
    assert after.chosen.model == before.runners_up[0].model
    assert after.rejected[0].model == before.chosen.model and after.rejected[0].fits == "no"


def test_on_another_device_a_time_from_here_is_shown_and_decides_nothing() -> None:
    limits = Limits(latency_s=0.02, size_bytes=8_000_000)
    jetson = load_device("jetson")
    before = plan(jetson, limits, classes=10, image_side=32, at_hand=lambda _: False)
    after = time_candidates(before, jetson, limits, 1, 10, FakeTarget(_answer(9.0)), silent())
    assert after.chosen.model == before.chosen.model
    assert after.chosen.measured_s == 9.0 and after.chosen.tier == before.chosen.tier


def test_a_device_with_another_runtime_is_not_measured_here() -> None:
    with pytest.raises(UsageError, match="tensorrt"):
        measure_device(load_device("jetson"), FakeTarget(_answer(1.0)), 1, silent())


def test_a_board_is_not_measured_on_another_kind_of_machine() -> None:
    other = "raspberry-pi-4" if machine()["arch"] in ("x86_64", "AMD64") else "x86-cpu"
    with pytest.raises(UsageError, match="measure on the board"):
        measure_device(load_device(other), FakeTarget(_answer(1.0)), 1, silent())


def test_the_shipped_anchors_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    names = [name for name, _ in measuring.ANCHORS]
    assert len(set(names)) == len(names) == 26
    assert len({find_student(name).family for name in names}) >= 20
    assert all(size in find_student(name).sizes for name, size in measuring.ANCHORS)
