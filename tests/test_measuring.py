"""Measuring a machine: rounds through the kit, a fit, and what is kept of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from ontarget.machine import machine

from edgedistill import measuring
from edgedistill.deploy.bundle import Packed
from edgedistill.deploy.files import float_files
from edgedistill.deploy.quantize import quantize
from edgedistill.deploy.stage import Pixels, Shape, model_inputs, packed, preprocess_of
from edgedistill.errors import StoppedError, UsageError
from edgedistill.evidence.bench import FakeTarget, Here
from edgedistill.measuring import Timed, measure_device, time_candidates, time_files
from edgedistill.progress import Face, silent
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


def _files() -> tuple[list[Packed], Shape, Pixels]:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    preprocess = preprocess_of(32, (0.5, 0.4, 0.3), (0.5, 0.25, 0.2))
    shape = Shape("uint8_nhwc", ("bag", "boot"), preprocess, 17, "onnxruntime", "x86")
    torch.manual_seed(0)
    items = float_files(timm.create_model("test_resnet", num_classes=2).eval(), shape, {})
    int8 = quantize(items[0].data, model_inputs(items[0], pixels, shape), "x86", "minmax", {})
    return [*items, packed("int8", int8, shape)], shape, pixels


def test_the_files_that_this_machine_computes_are_timed_here() -> None:
    items, shape, pixels = _files()
    timed = time_files(items, shape, pixels, load_device("host"), Here(), silent())
    assert set(timed) == {"float32", "int8"}
    assert all(0 < seconds < 1 for seconds in timed.values())


def test_files_for_another_device_are_not_timed_here() -> None:
    items, shape, pixels = _files()
    target = FakeTarget(_answer(0.001))
    for name in ("x86-cpu", "raspberry-pi-5"):
        assert time_files(items, shape, pixels, load_device(name), target, silent()) == {}
    assert time_files(items[:2], shape, pixels, load_device("host"), target, silent()) == {}
    assert target.calls == []


def test_files_that_cannot_be_timed_lose_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    items, shape, pixels = _files()

    def full(bundle: Path, arguments: Sequence[str]) -> dict[str, Any]:
        raise OSError(28, "No space left on device")

    def ended(bundle: Path, arguments: Sequence[str]) -> dict[str, Any]:
        raise StoppedError("the kit could not bench: killed")

    for answer in (full, ended):
        target = FakeTarget(answer)
        assert time_files(items, shape, pixels, load_device("host"), target, Face(1)) == {}
    said = capsys.readouterr().err
    assert said.count("the files cannot be timed here") == 2
    assert "No space left on device" in said and "what is predicted decides" in said
