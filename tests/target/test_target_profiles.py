"""The shipped profiles: complete, from named sources, and with no figure that counts sparsity."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgedistill.target import device as device_module
from edgedistill.target.device import device_names, load_device
from edgedistill.target.students import load_students

PROFILES = Path(device_module.__file__).parent / "profiles"
SELF_EVIDENT = {"name", "title", "aliases", "sources", "notes"}
NVIDIA = [name for name in device_names() if load_device(name).kind == "nvidia_gpu"]
JETSON = [name for name in NVIDIA if name.startswith("jetson")]
NPU = [name for name in device_names() if load_device(name).kind == "npu"]
PROCESSORS = [name for name in device_names() if load_device(name).kind.endswith("_cpu")]
INT8_MACS_PER_TENSOR_CORE = {"7.2": 128, "7.5": 128, "8.7": 512, "8.9": 256}
"""A clock, dense, by compute capability: Volta (Xavier), Turing (T4), Ampere (Orin), Ada (L4)."""
WITHOUT_TENSOR_CORES = {"5.3", "6.2"}
RATES_UNKNOWN = {"11.0"}
MARKETING_TOPS = {"jetson-agx-orin-64gb": 275, "jetson-orin-nx-16gb-super": 157}
"""Sparse INT8 of the whole module, where the DLAs have a figure of their own."""


def _tree(name: str) -> dict[str, Any]:
    tree = yaml.safe_load((PROFILES / f"{name}.yaml").read_text("utf-8"))
    assert isinstance(tree, dict)
    return tree


def test_the_devices_that_people_ask_for_are_there() -> None:
    wanted = {
        *("jetson-nano", "jetson-tx2", "jetson-xavier-nx", "jetson-agx-xavier"),
        *(f"jetson-orin-nano-{size}gb{mode}" for size in (4, 8) for mode in ("", "-super")),
        *("jetson-orin-nx-8gb", "jetson-orin-nx-16gb", "jetson-orin-nx-16gb-super"),
        *("jetson-agx-orin-32gb", "jetson-agx-orin-64gb", "jetson-thor-t5000", "t4", "l4"),
        *("raspberry-pi-3", "raspberry-pi-4", "raspberry-pi-5", "raspberry-pi-zero-2w"),
        *("rk3566", "rk3588", "coral-edge-tpu"),
        *("raspberry-pi-5-hailo-8", "raspberry-pi-5-hailo-8l", "pixel-4", "pixel-6", "pixel-8"),
        *("intel-n100", "intel-n5105", "laptop-x86", "graviton3", "x86-cpu", "host"),
    }
    assert set(device_names()) >= wanted
    assert len(device_names()) >= 26


def test_a_name_or_an_alias_means_one_device() -> None:
    given = Counter(alias for name in device_names() for alias in load_device(name).aliases)
    assert [alias for alias, times in given.items() if times > 1] == []
    assert set(given) & set(device_names()) == set()
    for name in device_names():
        assert all(load_device(alias).name == name for alias in load_device(name).aliases)


def test_jetson_means_the_orin_nano() -> None:
    assert load_device("jetson").name == "jetson-orin-nano-8gb"


@pytest.mark.parametrize("name", device_names())
def test_a_file_is_short_and_opens_with_what_it_is(name: str) -> None:
    lines = (PROFILES / f"{name}.yaml").read_text("utf-8").splitlines()
    assert lines[0].startswith("# ") and lines[1] == f"name: {name}"
    assert len(lines) <= 80


@pytest.mark.parametrize("name", device_names())
def test_every_stated_field_names_its_source(name: str) -> None:
    tree = _tree(name)
    stated = {key for key, value in tree.items() if value is not None} - SELF_EVIDENT
    assert stated <= set(tree["sources"]) <= set(tree) - SELF_EVIDENT
    for source in tree["sources"].values():
        assert source.strip() == source != ""
        assert "devices.md" not in source and "/work" not in source
        assert "[M]" not in source or "[M] unverified" in source


@pytest.mark.parametrize("name", device_names())
def test_no_profile_carries_latency_terms(name: str) -> None:
    assert "latency" not in _tree(name)


@pytest.mark.parametrize("name", device_names())
def test_the_natural_precision_is_fast_and_comes_first(name: str) -> None:
    device = load_device(name)
    assert device.natural_precision == device.precisions[0]
    assert device.natural_precision in device.fast_precisions
    assert set(device.fast_precisions) <= set(device.precisions)


@pytest.mark.parametrize("name", device_names())
def test_the_default_limits_are_a_budget(name: str) -> None:
    device = load_device(name)
    assert device.limits.latency_s is not None and 0.001 <= device.limits.latency_s <= 1
    assert device.limits.size_bytes is not None
    needed = {"float32": 14e6, "float16": 7e6, "int8": 5.5e6}[device.natural_precision]
    assert needed <= device.limits.size_bytes <= 30e6, "tf_efficientnet_lite0 must fit"
    assert device.limits.max_top1_drop == 0.02
    if device.limits.memory_bytes is not None and device.memory_bytes is not None:
        assert device.limits.memory_bytes < device.memory_bytes / 2


@pytest.mark.parametrize("name", device_names())
def test_memory_is_that_of_a_device(name: str) -> None:
    device = load_device(name)
    assert device.memory_bytes is None or 5e8 <= device.memory_bytes < 200e9 or name == "host"
    assert device.memory_bytes_per_s is None or 1e9 < device.memory_bytes_per_s < 1e12


@pytest.mark.parametrize("name", NVIDIA)
def test_the_rates_of_a_gpu_follow_its_cores_and_its_clock(name: str) -> None:
    gpu = load_device(name).accelerator
    assert gpu is not None and gpu.sm and gpu.clock_hz and gpu.cuda_cores
    float32 = 2 * gpu.cuda_cores * gpu.clock_hz
    assert gpu.dense_float32_flops == pytest.approx(float32, rel=0.01)
    if gpu.sm in RATES_UNKNOWN:
        assert gpu.dense_float16_flops is None and gpu.dense_int8_ops is None
    elif gpu.sm in WITHOUT_TENSOR_CORES:
        assert gpu.tensor_cores == 0 and gpu.dense_int8_ops is None
        assert gpu.dense_float16_flops == pytest.approx(2 * float32, rel=0.01)
    else:
        assert gpu.tensor_cores
        int8 = gpu.tensor_cores * INT8_MACS_PER_TENSOR_CORE[gpu.sm] * 2 * gpu.clock_hz
        assert gpu.dense_int8_ops == pytest.approx(int8, rel=0.01)
        assert gpu.dense_float16_flops == pytest.approx(int8 / 2, rel=0.01)


@pytest.mark.parametrize("name", NVIDIA)
def test_only_a_gpu_with_tensor_cores_takes_int8(name: str) -> None:
    device = load_device(name)
    assert device.accelerator is not None
    has_int8 = bool(device.accelerator.tensor_cores)
    assert ("int8" in device.precisions) == has_int8
    assert device.int8_flavour == ("tensorrt" if has_int8 else None)


@pytest.mark.parametrize(("name", "marketing"), MARKETING_TOPS.items())
def test_half_the_marketing_figure_is_the_gpu_with_its_dlas(name: str, marketing: int) -> None:
    device = load_device(name)
    assert device.accelerator is not None and device.accelerator.dense_int8_ops
    dlas = sum(engine.count * (engine.dense_int8_ops or 0) for engine in device.engines)
    assert device.accelerator.dense_int8_ops + dlas == pytest.approx(marketing * 5e11, rel=0.01)


@pytest.mark.parametrize("name", JETSON)
def test_the_figures_of_a_jetson_hold_for_one_of_its_power_modes(name: str) -> None:
    device = load_device(name)
    modes = {mode.name: mode for mode in device.power_modes}
    assert len(modes) == len(device.power_modes) > 1
    assert device.power_mode in modes and device.accelerator is not None
    assert device.power_mode in device.sources["power_mode"]
    clock, cores = device.accelerator.clock_hz, device.cores
    assert clock is not None and cores is not None
    assert modes[device.power_mode].gpu_clock_hz == pytest.approx(clock, rel=0.01)
    for mode in device.power_modes:
        assert mode.gpu_clock_hz is None or mode.gpu_clock_hz <= 1.01 * clock
        assert mode.cores is None or mode.cores <= cores
        watts = [part for part in mode.name.split("_") if part[:-1].isdigit() and part[-1] == "W"]
        assert not watts or mode.watts == float(watts[0][:-1])


@pytest.mark.parametrize("name", JETSON)
def test_a_jetsons_software_is_the_last_that_it_gets(name: str) -> None:
    device = load_device(name)
    assert device.accelerator is not None
    last = {"8.2.1": "4.6.2", "8.5.2": "5.1.2", "10.3": "6.2", "10.13": "7.1"}
    by_sm = {"5.3": "8.2.1", "6.2": "8.2.1", "7.2": "8.5.2", "8.7": "10.3", "11.0": "10.13"}
    assert device.tensorrt == by_sm[str(device.accelerator.sm)]
    assert device.jetpack == last[str(device.tensorrt)]
    assert device.input_layout == ("float_nchw" if device.tensorrt == "8.2.1" else "uint8_nhwc")


@pytest.mark.parametrize("name", NPU)
def test_an_npu_names_its_compiler_and_says_that_latency_is_not_predicted(name: str) -> None:
    device = load_device(name)
    assert device.runtime == "vendor" and device.compiler
    assert device.precisions == ("int8",)
    assert any(engine.dense_int8_ops for engine in device.engines)
    assert "only checks the accuracy" in device.sources["int8_flavour"]
    assert any("not predicted" in note for note in device.notes)


@pytest.mark.parametrize("name", PROCESSORS)
def test_a_processor_runs_float32_and_int8_with_onnxruntime(name: str) -> None:
    device = load_device(name)
    assert device.runtime == "onnxruntime" and device.accelerator is None
    assert device.precisions == ("float32", "int8")
    if name != "host":
        assert device.int8_flavour == ("arm" if device.kind == "arm_cpu" else "x86")
        assert (device.cpu is None) == (name == "x86-cpu")


@pytest.mark.parametrize("name", device_names())
def test_a_weakness_is_about_students_that_exist(name: str) -> None:
    students = load_students()
    families = {student.family for student in students}
    operators = {operator for student in students for operator in student.operators}
    for weakness in load_device(name).weak:
        assert weakness.families or weakness.operators
        assert set(weakness.families) <= families
        assert set(weakness.operators) <= operators


def test_the_edge_tpu_takes_the_plain_networks() -> None:
    out = {
        operator
        for weakness in load_device("coral-edge-tpu").weak
        for operator in weakness.operators
    }
    fine = {student.family for student in load_students() if not out & set(student.operators)}
    assert fine >= {"mobilenetv1", "mobilenetv2", "efficientnet_lite", "efficientnet_edgetpu"}
    assert "lcnet" not in fine and "fastvit" not in fine
