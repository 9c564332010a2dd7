"""A stand-in for TensorRT's Python module: an engine is its ONNX file, which onnxruntime computes on the addresses that
it is given. Only what the kit calls; test_ontarget_trt holds each name to TensorRT-RTX's real module.
"""

from __future__ import annotations

import ctypes
import json
import os
from enum import IntEnum
from typing import Any

import numpy as np
import onnx
import onnxruntime

__version__ = os.environ.get("FAKE_TENSORRT", "10.3.0")
MARK = b"ENGINE"


class NetworkDefinitionCreationFlag(IntEnum):
    EXPLICIT_BATCH = 0
    STRONGLY_TYPED = 1


class BuilderFlag(IntEnum):
    FP16 = 0
    INT8 = 2
    GPU_FALLBACK = 4


class DeviceType(IntEnum):
    GPU = 0
    DLA = 1


class MemoryPoolType(IntEnum):
    WORKSPACE = 0


class Logger:
    ERROR = 1

    def __init__(self, min_severity: int = 2) -> None:
        self.min_severity = min_severity


class IOptimizationProfile:
    shapes: Any = None

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self.shapes = (input, tuple(min), tuple(opt), tuple(max))


class ITimingCache:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def serialize(self) -> bytes:
        return self.data + b"timed;"


class IBuilderConfig:
    DLA_core = -1
    default_device_type = DeviceType.GPU

    def __init__(self) -> None:
        self.flags: list[str] = []
        self.pools: dict[str, int] = {}
        self.profile: Any = None

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        self.pools[pool.name] = pool_size

    def set_flag(self, flag: BuilderFlag) -> None:
        self.flags.append(flag.name)

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        self.cache = cache
        return not ignore_mismatch

    def get_timing_cache(self) -> ITimingCache:
        return self.cache

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self.profile = profile.shapes
        return 0


class INetworkDefinition:
    data = b""


class Builder:
    num_DLA_cores = 2

    def __init__(self, logger: Logger) -> None:
        self.kind = -1

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        self.kind = flags
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> Any:
        if os.environ.get("FAKE_TENSORRT_NO_ENGINE"):
            return None
        about = {
            "kind": self.kind, "flags": config.flags, "pools": config.pools, "profile": config.profile,
            "dla": [config.default_device_type.name, config.DLA_core],
        }  # fmt: skip
        return MARK + json.dumps(about).encode() + b"\n" + network.data


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: Logger) -> None:
        self.network = network
        self.num_errors = 0

    def parse(self, model: bytes) -> bool:
        try:
            onnx.load_model_from_string(model)
        except Exception:
            self.num_errors = 1
            return False
        self.network.data = model
        return True

    def get_error(self, index: int) -> str:
        return "In node -1 (parse): INVALID_GRAPH: Failed to parse the ONNX model"


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self.engine = engine
        self.addresses: dict[str, int] = {}
        self.shape: tuple[int, ...] = ()

    def set_input_shape(self, name: str, shape: Any) -> bool:
        self.shape = tuple(shape)
        low, _, high = self.engine.about["profile"][1:]
        return all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True))

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        asked = os.environ.get("FAKE_CUDA_FAIL") == "address"
        return not (asked and len(self.addresses) == int(os.environ["FAKE_CUDA_FAIL_AT"]))

    def execute_async_v3(self, stream_handle: int) -> bool:
        source = self.engine.session.get_inputs()[0]
        kinds = {
            "tensor(uint8)": np.uint8,
            "tensor(float)": np.float32,
            "tensor(float16)": np.float16,
        }
        inputs = _array(self.addresses[source.name], self.shape, kinds[source.type])
        (logits,) = self.engine.session.run(None, {source.name: inputs})
        _array(self.addresses["logits"], logits.shape, np.float32)[...] = logits
        return True


def _array(address: int, shape: Any, dtype: Any) -> np.ndarray:
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    block: Any = (ctypes.c_uint8 * count).from_address(address)
    return np.frombuffer(block, np.uint8).view(dtype).reshape(shape)


class ICudaEngine:
    num_io_tensors = 2

    def __init__(self, data: bytes) -> None:
        head, _, model = data[len(MARK) :].partition(b"\n")
        self.about = json.loads(head)
        self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    def create_execution_context(self) -> Any:
        return None if os.environ.get("FAKE_CUDA_FAIL") == "context" else IExecutionContext(self)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, *self.about["profile"][1][1:])

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        return [tuple(shape) for shape in self.about["profile"][1:]]


class Runtime:
    DLA_core = -1

    def __init__(self, logger: Logger) -> None:
        self.logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        return ICudaEngine(serialized_engine) if serialized_engine.startswith(MARK) else None
