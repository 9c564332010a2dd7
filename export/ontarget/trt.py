"""Engines by TensorRT's Python API, run on the board that they were built on.

Works with TensorRT 8.5 and newer (named tensors); older boards have `build_engine.sh` alone. Not run on a board yet:
the calls are held to the signatures of TensorRT-RTX's module, which has the same API.
"""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ontarget.contract import Model
from ontarget.cuda import Cuda, CudaError
from ontarget.engine import (
    Place,
    find_engine,
    misfit,
    plain,
    read_about,
    whole,
)  # fmt: skip
from ontarget.fields import shown
from ontarget.machine import board, l4t_release
from ontarget.session import SessionError

MODULE = "tensorrt"


def import_tensorrt() -> Any:
    """The tensorrt module. Raises SessionError with what to do when it is missing, broken or too old."""
    try:
        trt = importlib.import_module(MODULE)
    except (ImportError, OSError) as error:
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
    return Place(release(trt), cuda.sm, l4t_release(), plain(board() or cuda.name))


def shape_of(model: Model, batch: int) -> tuple[int, ...]:
    """The shape of a batch of inputs; a model of one batch size has its own."""
    first, *image = model.input.shape
    return (first or batch, *(int(side or 0) for side in image))


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
        self._model, self._cuda = model, Cuda()
        place = place_of(trt, self._cuda)
        self.version = place.tensorrt
        self.path = engine or locate(model, place)
        about = read_about(self.path)
        why = "nothing beside it says what it is" if about is None else misfit(about, model, place)
        if about is not None and why is None and not whole(self.path, about):
            why = "its bytes are not those that were built"
        if about is None or why is not None:
            raise SessionError(
                f"{self.path.name} is not used: {why}. Build it here:  ontarget.pyz build-engine"
            )
        self._held = contextlib.ExitStack()
        try:
            self._open(trt, about)
        except BaseException:
            self._held.close()
            raise

    def _open(self, trt: Any, about: dict[str, Any]) -> None:
        """Read the engine and take memory for one batch; what was taken is given back by `_held`."""
        model, cuda = self._model, self._cuda
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        if about.get("dla_core") is not None:
            self._runtime.DLA_core = int(about["dla_core"])
        self._engine = self._runtime.deserialize_cuda_engine(self.path.read_bytes())
        if self._engine is None:
            raise SessionError(
                f"TensorRT {trt.__version__} cannot read {self.path.name}: build it again."
            )
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise SessionError(f"{self.path.name} does not fit into memory; close other programs.")
        self._stream = cuda.stream()
        self._held.callback(cuda.end_stream, self._stream)
        first = int(self._engine.get_tensor_shape(model.input.name)[0])
        if first < 0:
            most = self._engine.get_tensor_profile_shape(model.input.name, 0)[2]
            first = int(most[0])
        self.most_images: int | None = first
        self._in = _Buffer(cuda, (first, *shape_of(model, 1)[1:]), model.input.dtype, self._held)
        classes = int(model.output.shape[1] or 0)
        self._out = _Buffer(cuda, (first, classes), model.output.dtype, self._held)
        for name, buffer in ((model.input.name, self._in), (model.output.name, self._out)):
            if not self._context.set_tensor_address(name, buffer.device):
                raise SessionError(f"{self.path.name} has no tensor {shown(name)}: build it again.")

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

    def bound(self, inputs: np.ndarray) -> Callable[[], np.ndarray]:
        """`run` on these inputs: what it does beside the engine are the copies, which are a part of the time."""
        return partial(self.run, inputs)

    def __enter__(self) -> TrtSession:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._context = self._engine = self._runtime = None
        with contextlib.suppress(CudaError):  # after a fault the driver gives nothing back
            self._held.close()


class _Buffer:
    """Memory of the device and of the host for one tensor, given back by `held`."""

    def __init__(
        self, cuda: Cuda, shape: tuple[int, ...], dtype: str, held: contextlib.ExitStack
    ) -> None:
        self.count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.device = cuda.alloc(self.count)
        held.callback(cuda.free, self.device)
        self.host, block = cuda.pinned(self.count)
        held.callback(cuda.free_pinned, self.host)
        self.array = block.view(dtype).reshape(shape)
        self.array[...] = 0


def locate(model: Model, place: Place | None = None, batch: int | None = None) -> Path:
    """The engine of a model for this machine, in the folder of the bundle or in the working folder; of `batch` images
    where that is given. Raises SessionError with why the others are none.
    """
    if place is None:
        place = place_of(import_tensorrt(), Cuda())
    folders = [model.path.parent]
    if Path.cwd().resolve() != folders[0].resolve():
        folders.append(Path.cwd())
    path, reasons = find_engine(model, place, folders, batch)
    if path is None:
        why = "; ".join(reasons[:3])
        raise SessionError(
            f"no engine of {model.name} is here for TensorRT {place.tensorrt} and SM {place.sm}"
            + (f" ({why})" if why else "")
            + ". Build it:  python3 ontarget.pyz build-engine"
        )
    return path.resolve()


def located(models: Sequence[Model], batch: int | None = None) -> dict[str, Path]:
    """The engines that are here, by the names of their models. Raises SessionError where none is: the one that says
    most.
    """
    place, found, errors = place_of(import_tensorrt(), Cuda()), {}, []
    for model in models:
        try:
            found[model.name] = locate(model, place, batch)
        except SessionError as error:
            errors.append(error)
    if not found:
        raise max(errors, key=lambda error: len(str(error)))
    return found
