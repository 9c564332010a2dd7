"""Device profiles: the shipped ones hold together, and a user's file fails in one paragraph."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgedistill.errors import DeviceError
from edgedistill.target import device as device_module
from edgedistill.target.device import Device, device_names, device_to_dict, load_device
from edgedistill.target.latency import Abstention, Prediction, predict
from edgedistill.target.plan import plan
from edgedistill.target.students import find_student

PROFILES = Path(device_module.__file__).parent / "profiles"
WIDE = ("raspberry-pi-3",)
"""Boards so slow, and known so roughly, that only the point fits at a useful input size."""
MINE = {
    "name": "my-board",
    "title": "My board",
    "kind": "arm_cpu",
    "runtime": "onnxruntime",
    "precisions": ["float32", "int8"],
    "natural_precision": "float32",
    "int8_flavour": "arm",
    "latency": {"float32": {"overhead_s": 1e-5, "macs_per_s": 1e10, "band": [0.5, 2], "tier": "E"}},
}


def _write(folder: Path, tree: object) -> str:
    path = folder / "board.yaml"
    path.write_text(yaml.safe_dump(tree), "utf-8")
    return str(path)


def test_the_promised_devices_are_there() -> None:
    assert set(device_names()) >= {
        *("jetson-orin-nano-8gb", "jetson-agx-orin-64gb", "jetson-xavier-nx", "jetson-nano"),
        *("raspberry-pi-4", "raspberry-pi-5", "x86-cpu", "host"),
    }


@pytest.mark.parametrize("name", device_names())
def test_every_profile_loads_and_every_field_has_a_source(name: str) -> None:
    device = load_device(name)
    assert device.name == name
    tree = yaml.safe_load((PROFILES / f"{name}.yaml").read_text("utf-8"))
    self_evident = {"name", "title", "aliases", "sources", "notes"}
    stated = {key for key, value in tree.items() if value is not None}
    assert stated - self_evident <= set(device.sources) <= set(tree)
    assert all(device.sources.values())
    assert device.natural_precision == device.precisions[0]
    assert json.loads(json.dumps(device_to_dict(device)))["name"] == name


@pytest.mark.parametrize("name", device_names())
def test_every_profiles_default_limits_admit_a_pretrained_student(name: str) -> None:
    device = load_device(name)
    for side in (28, 500):
        found = plan(
            device,
            device.limits,
            classes=10,
            image_side=side,
            weights="pretrained",
            at_hand=lambda student: student == "tf_efficientnet_lite0",
        )
        assert found.chosen.model == "tf_efficientnet_lite0"
        known = found.chosen.latency_s is not None
        assert found.chosen.fits == ("safe" if known and name not in WIDE else "possible")


def test_aliases_name_the_same_device() -> None:
    assert load_device("jetson") is load_device("orin-nano") is load_device("jetson-orin-nano-8gb")
    assert load_device("pi4").name == load_device("rpi4").name == "raspberry-pi-4"


def test_the_nano_takes_no_bytes_and_no_int8() -> None:
    nano = load_device("jetson-nano")
    assert nano.input_layout == "float_nchw"
    assert nano.int8_flavour is None and "int8" not in nano.precisions
    assert "8.5" in nano.sources["input_layout"]


def test_the_host_is_read_from_this_machine() -> None:
    host = load_device("host")
    assert host.cores is not None and host.cores >= 1
    assert host.memory_bytes is None or host.memory_bytes > 10**8
    assert host.latency["float32"].tier == "E"


def test_an_unknown_architecture_has_no_host_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    device_module._shipped.cache_clear()
    with pytest.raises(DeviceError, match="riscv64"):
        load_device("host")


def test_an_arm_machine_gets_the_arm_flavour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    device_module._shipped.cache_clear()
    host = load_device("host")
    device_module._shipped.cache_clear()
    assert (host.kind, host.int8_flavour) == ("arm_cpu", "arm")


def test_an_unknown_device_names_the_nearest() -> None:
    with pytest.raises(DeviceError, match='did you mean "jetson-nano"') as caught:
        load_device("jetson-nanoo")
    assert "raspberry-pi-5" in str(caught.value)


def test_a_users_profile_is_a_device_like_any_other(tmp_path: Path) -> None:
    device = load_device(_write(tmp_path, MINE))
    assert isinstance(device, Device)
    network = find_student("mobilenetv2_100").network(96, 10)
    prediction = predict(device, "float32", network)
    assert isinstance(prediction, Prediction) and prediction.latency_s > 0
    assert isinstance(predict(device, "int8", network), Abstention)


def test_five_mistakes_in_a_profile_give_one_message_with_all_five(tmp_path: Path) -> None:
    wrong = MINE | {
        "cores": -4,
        "kind": "toaster",
        "natural_precision": "float16",
        "colour": "green",
        "latency": {
            "float32": {"overhead_s": 1e-5, "macs_per_s": 0, "band": [0.5, 2], "tier": "E"}
        },
    }
    with pytest.raises(DeviceError) as caught:
        load_device(_write(tmp_path, wrong))
    text = str(caught.value)
    assert "5 problems" in text
    for path in ("cores", "kind", "natural_precision", "colour", "latency.float32.macs_per_s"):
        assert f"\n  {path}  " in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"int8_flavour": None}, "int8_flavour"),
        ({"int8_flavour": "tensorrt"}, "must be x86 or arm"),
        ({"runtime": "tensorrt", "int8_flavour": "arm"}, "must be tensorrt"),
        (
            {"runtime": "tensorrt", "int8_flavour": "tensorrt", "tensorrt": "8.2.1"},
            "takes no uint8",
        ),
        ({"limits": {"latency_s": 0}}, "limits.latency_s"),
        ({"limits": {"size_bytes": -1}}, "limits.size_bytes"),
        ({"precisions": ["float32", "float32"], "int8_flavour": None}, "must not repeat"),
        ({"latency": {"float32": {"overhead_s": float("nan")}}}, "overhead_s"),
    ],
)
def test_keys_that_contradict_each_other_are_named(
    tmp_path: Path, change: dict[str, object], words: str
) -> None:
    with pytest.raises(DeviceError, match=words):
        load_device(_write(tmp_path, MINE | change))


@pytest.mark.parametrize(
    "text",
    [
        *("", "[1, 2]", "a: b: c", "\x00", "a: &x [1]\nb: *x", "!!python/object:os.system {}"),
        *("? [1]\n: 2", "1: 2", "cores: 0x", "[" * 5000, "a: 2001-99-99", 'name: "\\uD800"'),
    ],
)
def test_a_file_that_is_no_profile_is_a_device_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(DeviceError) as caught:
        load_device(str(path))
    assert len(str(caught.value)) < 20_000
    str(caught.value).encode("utf-8")


def test_a_path_that_is_no_file_or_too_large_is_a_device_error(tmp_path: Path) -> None:
    (tmp_path / "dir.yaml").mkdir()
    (tmp_path / "big.yaml").write_text("a" * 70_000)
    (tmp_path / "raw.yaml").write_bytes(b"\xff\xfe\xff")
    names = ("dir.yaml", "big.yaml", "raw.yaml", "none.yaml", "nul\0.yaml", "a" * 5000 + ".yaml")
    for name in names:
        with pytest.raises(DeviceError):
            load_device(str(tmp_path / name))


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
_VALUES = st.recursive(
    _SCALARS | st.sampled_from(["float32", "int8", "tensorrt", "8.2", "arm"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["float32", "band", "latency_s", "tier"]) | st.integers(),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(changes=st.dictionaries(st.sampled_from([*MINE, "limits", "cores"]), _VALUES, min_size=1))
def test_no_profile_ends_in_anything_but_a_device_or_a_device_error(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, object]
) -> None:
    path = tmp_path_factory.getbasetemp() / "hostile.yaml"
    path.write_text(yaml.safe_dump(MINE | changes, allow_unicode=True), "utf-8")
    try:
        device = load_device(str(path))
    except DeviceError as error:
        str(error).encode("utf-8")
    else:
        json.dumps(device_to_dict(device))


@settings(max_examples=120)
@given(text=st.text(st.characters(codec="utf-8"), max_size=60))
def test_no_text_ends_in_anything_but_a_device_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "text.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(DeviceError):
        load_device(str(path))
