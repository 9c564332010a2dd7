"""The schema of a device profile: every key with its type and range, and what must agree."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from edgedistill.result import Limits, Precision

Positive = Annotated[float, Field(gt=0, lt=1e18, allow_inf_nan=False)]
PositiveInt = Annotated[int, Field(gt=0, lt=10**18)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
Version = Annotated[str, StringConstraints(pattern=r"^\d+(\.\d+){0,3}$")]

FIRST_TENSORRT_WITH_BYTES = (8, 5)


class Part(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class TermsPart(Part):
    """Latency terms of one precision: seconds a kernel, MACs and bytes a second, band, tier."""

    overhead_s: Annotated[float, Field(ge=0, lt=10, allow_inf_nan=False)]
    macs_per_s: Positive
    bytes_per_s: Positive | None = None
    band: tuple[
        Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)],
        Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)],
    ]
    tier: Literal["A", "B", "C", "D", "E"]


class Engine(Part):
    """A fixed-function engine beside the processor: a DLA, an NPU. Dense rates only."""

    name: Text
    count: PositiveInt = 1
    dense_int8_ops: Positive | None = None


class Accelerator(Part):
    """What the GPU is. Dense rates only: marketing figures count sparsity and other engines."""

    sm: Version | None = None
    cuda_cores: PositiveInt | None = None
    tensor_cores: Annotated[int, Field(ge=0, lt=10**6)] | None = None
    clock_hz: Positive | None = None
    dense_float32_flops: Positive | None = None
    dense_float16_flops: Positive | None = None
    dense_int8_ops: Positive | None = None


class Cpu(Part):
    """The processor: its cores as they are named, their clock, and the instructions that count."""

    name: Text
    clock_hz: Positive | None = None
    instructions: tuple[Text, ...] = ()


class PowerMode(Part):
    """One mode of a board. Its name is what the board's own tool prints, never a number."""

    name: Text
    watts: Positive | None = None
    gpu_clock_hz: Positive | None = None
    cpu_clock_hz: Positive | None = None
    cores: PositiveInt | None = None


class Weakness(Part):
    """What a device does badly: operators, or whole families of students, and what follows."""

    operators: tuple[Text, ...] = ()
    families: tuple[Name, ...] = ()
    effect: Literal["unsupported", "slow"]
    why: Text


class Profile(Part):
    """A profile file."""

    name: Name
    title: Text
    aliases: tuple[Name, ...] = ()
    kind: Literal["nvidia_gpu", "arm_cpu", "x86_cpu", "npu"]
    boards: Annotated[tuple[Text, ...], Field(max_length=20)] = ()
    runtime: Literal["tensorrt", "onnxruntime", "vendor"]
    precisions: Annotated[tuple[Precision, ...], Field(min_length=1, max_length=3)]
    natural_precision: Precision
    fast_precisions: Annotated[tuple[Precision, ...], Field(max_length=3)] = ()
    cores: PositiveInt | None = None
    cpu: Cpu | None = None
    memory_bytes: PositiveInt | None = None
    memory_bytes_per_s: Positive | None = None
    launch_overhead_s: Positive | None = None
    opset: Annotated[int, Field(ge=13, le=20)] = 17
    input_layout: Literal["uint8_nhwc", "float_nchw"] = "uint8_nhwc"
    int8_flavour: Literal["x86", "arm", "tensorrt"] | None = None
    tensorrt: Version | None = None
    jetpack: Version | None = None
    compiler: Text | None = None
    runtime_memory_bytes: PositiveInt | None = None
    accelerator: Accelerator | None = None
    engines: tuple[Engine, ...] = ()
    power_mode: Text | None = None
    power_modes: tuple[PowerMode, ...] = ()
    weak: tuple[Weakness, ...] = ()
    limits: Limits = Limits()
    latency: dict[Precision, TermsPart] = {}
    sources: dict[Text, Text] = {}
    notes: tuple[Text, ...] = ()


def tidy(text: str) -> str:
    """One line of printable text, at most 300 characters."""
    line = " ".join(text.split())
    return line.encode("utf-8", "backslashreplace").decode("utf-8")[:300]


def cross_checks(tree: dict[Any, Any]) -> list[str]:
    """What must agree between keys; a rule is silent where one of its keys is missing or wrong."""
    return [
        *_precision_checks(tree),
        *_runtime_checks(tree),
        *_power_checks(tree),
        *_limit_checks(tree),
    ]


def _precision_checks(tree: dict[Any, Any]) -> list[str]:
    problems = []
    precisions = tree.get("precisions")
    if not isinstance(precisions, list) or not all(isinstance(p, str) for p in precisions):
        return []
    allowed = ", ".join(precisions)
    if len(set(precisions)) < len(precisions):
        problems.append(f"precisions  must not repeat; got {allowed}")
    natural = tree.get("natural_precision")
    if isinstance(natural, str) and natural not in precisions:
        problems.append(
            f'natural_precision  must be one of precisions ({allowed}); got "{natural}"'
        )
    fast = tree.get("fast_precisions")
    if isinstance(fast, list):
        strange = [p for p in fast if isinstance(p, str) and p not in precisions]
        problems += [
            f'fast_precisions  "{p}" is not one of precisions ({allowed})' for p in strange
        ]
    latency = tree.get("latency")
    if isinstance(latency, dict):
        strange = [p for p in latency if isinstance(p, str) and p not in precisions]
        problems += [f"latency.{p}  is not one of precisions ({allowed})" for p in strange]
    if "int8" in precisions and tree.get("int8_flavour") is None:
        problems.append("int8_flavour  must be x86, arm or tensorrt where precisions has int8")
    return problems


def _runtime_checks(tree: dict[Any, Any]) -> list[str]:
    problems = []
    runtime, version = tree.get("runtime"), tree.get("tensorrt")
    flavour = tree.get("int8_flavour")
    if runtime == "tensorrt" and flavour in ("x86", "arm"):
        problems.append(f'int8_flavour  must be tensorrt for this runtime; got "{flavour}"')
    if runtime == "vendor" and not tree.get("compiler"):
        problems.append("compiler  must name the vendor's compiler where runtime is vendor")
    if runtime == "onnxruntime" and flavour == "tensorrt":
        problems.append('int8_flavour  must be x86 or arm for onnxruntime; got "tensorrt"')
    if isinstance(version, str) and re.fullmatch(r"\d{1,4}(\.\d{1,4}){0,3}", version):
        parts = tuple(int(part) for part in version.split("."))
        old = runtime == "tensorrt" and parts < FIRST_TENSORRT_WITH_BYTES
        if old and tree.get("input_layout", "uint8_nhwc") != "float_nchw":
            problems.append(
                f"input_layout  must be float_nchw: TensorRT {version} takes no uint8 images"
            )
    return problems


def _power_checks(tree: dict[Any, Any]) -> list[str]:
    """The mode that the figures hold for must be one of the modes."""
    modes, mode = tree.get("power_modes"), tree.get("power_mode")
    if mode is None or not isinstance(modes, list):
        return []
    names = [str(m.get("name")) for m in modes if isinstance(m, dict)]
    if mode in names:
        return []
    return [f'power_mode  must be one of power_modes ({", ".join(names)}); got "{mode}"']


def _limit_checks(tree: dict[Any, Any]) -> list[str]:
    """A limit of zero admits nothing, so it is a mistake."""
    limits = tree.get("limits")
    if not isinstance(limits, dict):
        return []
    keys = ("latency_s", "size_bytes", "memory_bytes")
    zero = [k for k in keys if isinstance(limits.get(k), int | float) and _is_zero(limits[k])]
    return [f"limits.{key}  must be more than 0, or left out for no limit" for key in zero]


def _is_zero(value: float) -> bool:
    return not isinstance(value, bool) and math.isclose(value, 0.0, abs_tol=0.0)
