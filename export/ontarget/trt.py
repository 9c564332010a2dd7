"""Engines by TensorRT's Python API: built on the board for its own GPU, and run there.

Works with TensorRT 8.5 and newer (named tensors); older boards have `build_engine.sh` alone. Not run on a board yet:
the calls are held to the signatures of TensorRT-RTX's module, which has the same API.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ontarget.contract import Model
from ontarget.cuda import Cuda, CudaError
from ontarget.engine import SCHEMA, Place, engine_name, find_engine, misfit, read_about, whole
from ontarget.fields import shown
from ontarget.machine import available_bytes, gpu_clock_hz, l4t_release, power_mode
from ontarget.session import SessionError

MODULE = "tensorrt"
CACHE = "timing.cache"
LEAST_WORKSPACE, MOST_WORKSPACE = 64 << 20, 2 << 30


@dataclass(frozen=True)
class Wanted:
    """How an engine is built: images of a batch, the DLA core if any, and bytes of workspace (0: a quarter of the free
    memory, at most 2 GiB).
    """

    batch: int = 1
    dla: int | None = None
    workspace_bytes: int = 0


def import_tensorrt() -> Any:
    """The tensorrt module. Raises SessionError with what to do when it is missing, broken or too old."""
    try:
        trt = importlib.import_module(MODULE)
    except ImportError as error:
        raise SessionError(
            f"the Python package tensorrt does not load ({shown(str(error), 120)}). On a Jetson it is "
            "in python3-libnvinfer (sudo apt install python3-libnvinfer), for the system's own Python; "
            "build_engine.sh needs no Python at all."
        ) from None
    if not hasattr(getattr(trt, "ICudaEngine", object), "num_io_tensors"):
        raise SessionError(
            f"TensorRT {getattr(trt, '__version__', '?')} is too old for the kit, which needs 8.5: use "
            "build_engine.sh."
        )
    return trt


def release(trt: Any) -> str:
    """The version as "10.3.0"."""
    return ".".join(re.findall(r"\d+", str(trt.__version__))[:3])


def place_of(trt: Any, cuda: Cuda) -> Place:
    """Where this is."""
    return Place(release(trt), cuda.sm, l4t_release())


def build_engine(
    model: Model, folder: Path, wanted: Wanted = Wanted(), again: bool = False
) -> Path:
    """Build the engine of a model for this machine into `folder`, or find it there; the timing cache lies beside it.

    Raises SessionError when TensorRT refuses the file, with its own words.
    """
    trt, cuda = import_tensorrt(), _cuda()
    place = place_of(trt, cuda)
    path = folder / engine_name(model, place, wanted.batch, wanted.dla)
    about = read_about(path)
    if not again and path.is_file() and about is not None and misfit(about, model, place) is None:
        return path
    workspace = wanted.workspace_bytes or min(
        MOST_WORKSPACE, max(LEAST_WORKSPACE, (available_bytes() or 4 << 30) // 4)
    )
    began = time.monotonic()
    data = _built(trt, model, wanted, workspace, folder / CACHE)
    _write(path, data)
    document = {
        "schema": SCHEMA, "model": model.name, "onnx_sha256": model.sha256,
        "engine_sha256": _sha256(data), "precision": model.precision,
        "input": "{}:{}".format(model.input.name, "x".join(map(str, _shape(model, wanted.batch)))),
        "tensorrt": place.tensorrt, "sm": place.sm, "l4t": place.l4t, "dla_core": wanted.dla,
        "power_mode": power_mode(), "gpu_clock_hz": gpu_clock_hz(),
        "workspace_mib": workspace >> 20, "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip
    _write(path.with_name(path.name + ".json"), (json.dumps(document, indent=1) + "\n").encode())
    return path


def _sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(data)
        os.replace(str(part), str(path))
    except BaseException:
        if part.exists():
            part.unlink()
        raise


def _shape(model: Model, batch: int) -> tuple[int, ...]:
    first, *image = model.input.shape
    return (first or batch, *(int(side or 0) for side in image))


def _built(trt: Any, model: Model, wanted: Wanted, workspace: int, cache: Path) -> bytes:
    """The bytes of an engine: strongly typed from TensorRT 10 on, by flags before."""
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    major = int(release(trt).split(".")[0])
    flags = trt.NetworkDefinitionCreationFlag
    kind = flags.EXPLICIT_BATCH if major < 10 else flags.STRONGLY_TYPED
    network = builder.create_network(1 << int(kind))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.path.read_bytes()):
        errors = [str(parser.get_error(i)) for i in range(min(3, parser.num_errors))]
        raise SessionError(
            f"TensorRT {trt.__version__} refuses {model.file}: {shown('; '.join(errors), 600)}. Use "
            "another model of the bundle."
        )
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    if major < 10 and model.precision in ("float16", "int8"):
        config.set_flag(trt.BuilderFlag.FP16)
        if model.precision == "int8":
            config.set_flag(trt.BuilderFlag.INT8)
    if wanted.dla is not None:
        if wanted.dla >= builder.num_DLA_cores:
            raise SessionError(
                f"there is no DLA core {wanted.dla} here: this machine has {builder.num_DLA_cores}."
            )
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = wanted.dla
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    timing = config.create_timing_cache(cache.read_bytes() if cache.is_file() else b"")
    config.set_timing_cache(timing, ignore_mismatch=False)
    if model.input.shape[0] is None:
        profile, shape = builder.create_optimization_profile(), _shape(model, wanted.batch)
        profile.set_shape(model.input.name, shape, shape, shape)
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise SessionError(
            f"TensorRT {trt.__version__} made no engine of {model.file}; it says why above. When memory "
            "ran out: close other programs, or give a smaller workspace."
        )
    _write(cache, bytes(config.get_timing_cache().serialize()))
    return bytes(engine)


def _cuda() -> Cuda:
    try:
        return Cuda()
    except CudaError as error:
        raise SessionError(str(error)) from None


class TrtSession:
    """One engine on the GPU. A context manager.

    The engine is the one that lies in the folder of the bundle or in the working folder and is of this model, TensorRT
    and GPU; raises SessionError, with why the others are not, where there is none. `most_images` is the batch it was
    built for.
    """

    runtime = "tensorrt"
    threads = 1
    version: str | None

    def __init__(self, model: Model, engine: Path | None = None) -> None:
        trt = import_tensorrt()
        self._model, self._cuda = model, _cuda()
        place = place_of(trt, self._cuda)
        self.version = place.tensorrt
        self.path = engine or _found(model, place)
        about = read_about(self.path)
        why = "nothing beside it says what it is" if about is None else misfit(about, model, place)
        if about is not None and why is None and not whole(self.path, about):
            why = "its bytes are not those that were built"
        if why is not None:
            raise SessionError(
                f"{self.path.name} is not used: {why}. Build it here:  ontarget.pyz build-engine"
            )
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(self.path.read_bytes())
        if self._engine is None:
            raise SessionError(
                f"TensorRT {trt.__version__} cannot read {self.path.name}: build it again."
            )
        self._context = self._engine.create_execution_context()
        self._stream = self._cuda.stream()
        first = int(self._engine.get_tensor_shape(model.input.name)[0])
        if first < 0:
            most = self._engine.get_tensor_profile_shape(model.input.name, 0)[2]
            first = int(most[0])
        self.most_images: int | None = first
        self._in = _Buffer(self._cuda, (first, *_shape(model, 1)[1:]), model.input.dtype)
        classes = int(model.output.shape[1] or 0)
        self._out = _Buffer(self._cuda, (first, classes), model.output.dtype)
        self._context.set_tensor_address(model.input.name, self._in.device)
        self._context.set_tensor_address(model.output.name, self._out.device)

    @property
    def provider(self) -> str:
        """What runs it, as a person says it."""
        return "TensorRT engine"

    def run(self, inputs: np.ndarray) -> np.ndarray:
        """Logits `(N, C)` float32 for at most `most_images` inputs: copied there, computed, copied back."""
        count, most = len(inputs), len(self._in.array)
        if count > most:
            raise SessionError(
                f"{self.path.name} takes {most} images at once, not {count}: build it with "
                f"--batch {count}."
            )
        shape = (most, *inputs.shape[1:])
        self._in.array[:count] = inputs
        if not self._context.set_input_shape(self._model.input.name, shape):
            raise SessionError(f"{self.path.name} does not take inputs of the shape {shape}.")
        try:
            cuda, stream = self._cuda, self._stream
            cuda.to_device(self._in.device, self._in.host, self._in.count, stream)
            if not self._context.execute_async_v3(stream_handle=stream):
                raise SessionError(f"{self.path.name} failed to run; TensorRT says why above.")
            cuda.to_host(self._out.host, self._out.device, self._out.count, stream)
            cuda.wait(stream)
        except CudaError as error:
            raise SessionError(f"{self.path.name} failed to run: {error}") from None
        return np.array(self._out.array[:count], dtype=np.float32)

    def __enter__(self) -> TrtSession:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._context = self._engine = self._runtime = None
        self._in.free()
        self._out.free()
        self._cuda.end_stream(self._stream)


class _Buffer:
    """Memory of the device and of the host for one tensor."""

    def __init__(self, cuda: Cuda, shape: tuple[int, ...], dtype: str) -> None:
        self._cuda = cuda
        self.count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.device = cuda.alloc(self.count)
        self.host, block = cuda.pinned(self.count)
        self.array = block.view(dtype).reshape(shape)
        self.array[...] = 0

    def free(self) -> None:
        del self.array
        self._cuda.free(self.device)
        self._cuda.free_pinned(self.host)


def _found(model: Model, place: Place) -> Path:
    folders = [model.path.parent]
    if Path.cwd().resolve() != folders[0].resolve():
        folders.append(Path.cwd())
    path, reasons = find_engine(model, place, folders)
    if path is None:
        why = "; ".join(reasons[:3])
        raise SessionError(
            f"no engine of {model.name} is here for TensorRT {place.tensorrt} and SM {place.sm}"
            + (f" ({why})" if why else "")
            + ". Build it:  python3 ontarget.pyz build-engine"
        )
    return path
