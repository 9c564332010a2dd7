"""Devices: what is declared about a board, its default limits, and the terms of its latency model.

A profile is a YAML file: the shipped ones lie in `profiles/`, a user's own is given by its path. A
file is hostile until it has been parsed here, and all its problems are named at once.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ValidationError

from edgedistill.errors import DeviceError, unknown
from edgedistill.plainyaml import read_plain
from edgedistill.result import Limits, Precision, describe
from edgedistill.target.latency import LatencyModel, three_terms
from edgedistill.target.measured import HOST, fingerprint, models_of, recall, user_place
from edgedistill.target.profile import (
    Accelerator,
    Cpu,
    Engine,
    PowerMode,
    Profile,
    Weakness,
    cross_checks,
    tidy,
)
from edgedistill.target.published import shipped_models

MAX_PROFILE_BYTES = 64_000
MAX_PROBLEMS = 40
SUFFIXES = (".yaml", ".yml")
FILE_SAYS_TYPES = 10
"""The TensorRT release from which on the file itself says in what each tensor is computed."""
_QUICK: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml where PyYAML was built with it, ten times as fast: for the files of this package alone."""


@dataclass(frozen=True)
class Device:
    """Declared facts of one device. SI units; what is not known is `None`.

    `boards` are names that its device tree may give, `*` for any ending. `precisions` are in the order of
    preference, `natural_precision` is what the device is for, and `fast_precisions` are those that are really fast on
    mobile networks; `int8_flavour` is the kind of INT8 file its runtime takes (`None`: no fast INT8). `latency` has
    terms for some precisions, and `sources` says where each field comes from: "unverified" and "[M]" (from memory)
    stay marked.
    """

    name: str
    title: str
    aliases: tuple[str, ...]
    kind: Literal["nvidia_gpu", "arm_cpu", "x86_cpu", "npu"]
    boards: tuple[str, ...]
    runtime: Literal["tensorrt", "onnxruntime", "vendor"]
    precisions: tuple[Precision, ...]
    natural_precision: Precision
    fast_precisions: tuple[Precision, ...]
    cores: int | None
    cpu: Cpu | None
    memory_bytes: int | None
    memory_bytes_per_s: float | None
    launch_overhead_s: float | None
    opset: int
    input_layout: Literal["uint8_nhwc", "float_nchw"]
    int8_flavour: Literal["x86", "arm", "tensorrt"] | None
    tensorrt: str | None
    jetpack: str | None
    compiler: str | None
    runtime_memory_bytes: int | None
    accelerator: Accelerator | None
    engines: tuple[Engine, ...]
    power_mode: str | None
    power_modes: tuple[PowerMode, ...]
    weak: tuple[Weakness, ...]
    limits: Limits
    latency: Mapping[Precision, LatencyModel]
    sources: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def takes_integers(self) -> bool:
        """Whether the pixels of an INT8 file may be its quantized tensor.

        onnxruntime takes them; of TensorRT this is asked from 10 on, where a file alone says its types.
        """
        if self.int8_flavour == "tensorrt":
            return self.tensorrt is not None and int(self.tensorrt.split(".")[0]) >= FILE_SAYS_TYPES
        return True


def load_device(name_or_path: str) -> Device:
    """The device of a name, an alias, or a profile file (a path that ends in .yaml).

    Raises `DeviceError`: an unknown name with the nearest one, or every problem of a file at once.
    """
    if name_or_path.lower().endswith(SUFFIXES):
        return _with_measured(_from_file(Path(name_or_path)))
    names = _names()
    if name_or_path not in names:
        hint = " A profile of your own is given by its path, which ends in .yaml."
        raise DeviceError(unknown("device", name_or_path, names) + hint)
    return _with_measured(_shipped(names[name_or_path]))


def load_profile(path: Path) -> Device:
    """The device of a profile file, whatever its name ends in. Raises `DeviceError`."""
    return _from_file(path)


def load_profile_facts(name: str) -> Device:
    """What a shipped profile declares, without any latency model: what such models are derived from."""
    entry = resources.files("edgedistill.target").joinpath("profiles", f"{name}.yaml")
    return _parse(yaml.load(entry.read_text("utf-8"), Loader=_QUICK), name)


def device_names() -> tuple[str, ...]:
    """Names of the shipped profiles, sorted; aliases are left out."""
    return tuple(sorted(set(_names().values())))


def device_to_dict(device: Device) -> dict[str, Any]:
    """The declared facts for `result.json`: plain dicts, lists, strings and numbers."""
    return {f.name: _plain(getattr(device, f.name)) for f in dataclasses.fields(device)}


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


@cache
def _names() -> dict[str, str]:
    """Every name and alias of the shipped profiles with the name that it stands for."""
    names: dict[str, str] = {}
    for entry in resources.files("edgedistill.target").joinpath("profiles").iterdir():
        if entry.name.endswith(SUFFIXES):
            name = entry.name.removesuffix(".yaml")
            names[name] = name
            head = yaml.load(entry.read_text("utf-8").partition("\nkind:")[0], Loader=_QUICK)
            names.update(dict.fromkeys(head["aliases"], name))
    return names


@cache
def _shipped(name: str) -> Device:
    device = load_profile_facts(name)
    known = shipped_models().get(name)
    if known:
        device = dataclasses.replace(device, latency=known)
    return _this_machine(device) if name == HOST else device


def _with_measured(device: Device) -> Device:
    """The device with what the user measured of it; of `host`, only on the machine measured."""
    measured = recall(device.name, user_place())
    if measured is None:
        return device
    if device.name == HOST:
        from ontarget.machine import machine

        if measured.fingerprint != fingerprint(machine()):
            return device
    return dataclasses.replace(device, latency={**device.latency, **models_of(measured)})


def _from_file(path: Path) -> Device:
    where = tidy(str(path))
    try:
        if path.stat().st_size > MAX_PROFILE_BYTES:
            raise DeviceError(f"profile {where} is larger than {MAX_PROFILE_BYTES:,} bytes")
        text = path.read_text("utf-8")
    except FileNotFoundError:
        known = ", ".join(device_names())
        raise DeviceError(
            f"profile {where} does not exist. Give the path of a YAML file, or one of: {known}."
        ) from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise DeviceError(f"profile {where} cannot be read: {tidy(str(error))}") from None
    return _parse(_tree(text, where), where)


def _parse(tree: dict[Any, Any], where: str) -> Device:
    try:
        profile = Profile.model_validate(tree)
        problems = cross_checks(tree)
    except ValidationError as error:
        problems = [*describe(error), *cross_checks(tree)]
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        pairs = [line.partition("  ") for line in problems[:MAX_PROBLEMS]]
        shown = [f"  {tidy(key)}  {tidy(words)}" for key, _, words in pairs]
        raise DeviceError("\n".join([f"profile {where} has {count}", *shown]))
    return _device(profile)


def _tree(text: str, where: str) -> dict[Any, Any]:
    """The mapping of a YAML text."""
    try:
        tree = read_plain(text)
    except ValueError as error:
        raise DeviceError(f"profile {where} cannot be read as YAML: {tidy(str(error))}") from None
    if not isinstance(tree, dict):
        raise DeviceError(f"profile {where} must be a mapping, is a {type(tree).__name__}")
    return tree


def _device(profile: Profile) -> Device:
    values = {field.name: getattr(profile, field.name) for field in dataclasses.fields(Device)}
    values["latency"] = {
        precision: three_terms(precision, **terms.model_dump())
        for precision, terms in profile.latency.items()
    }
    return Device(**values)


def _this_machine(device: Device) -> Device:
    """The `host` profile with what this machine says of itself."""
    from ontarget import machine

    arch = platform.machine().lower()
    arm = arch in ("aarch64", "arm64") or arch.startswith("armv")
    if not arm and arch not in ("x86_64", "amd64", "x64", "i686", "i386"):
        raise DeviceError(
            f'this machine is a "{arch}", which no host profile describes. Give --device a profile '
            f"({', '.join(n for n in device_names() if n != HOST)}) or the path of your own."
        )
    like = _shipped("raspberry-pi-5" if arm else "x86-cpu")
    terms = {
        precision: dataclasses.replace(t, tier="E", unseen_tier="E", bands={"E": (1 / 3, 3.0)})
        for precision, t in like.latency.items()
    }
    return dataclasses.replace(
        device,
        kind=like.kind,
        int8_flavour=like.int8_flavour,
        cores=_usable_cores(),
        memory_bytes=machine.memory_bytes(),
        latency=terms,
    )


def _usable_cores() -> int | None:
    """Cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count()
