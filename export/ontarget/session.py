"""What runs a model: the `Session` seam, and ONNX Runtime behind it.

A session runs on the provider that was asked for or it raises: a silent fall back to the CPU is
never measured.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from ontarget.contract import Model
from ontarget.fields import shown
from ontarget.modelfile import lacking, said

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_REST = {"tensorrt": ["CUDAExecutionProvider"]}
_HOW = {
    "cuda": "install onnxruntime-gpu in place of onnxruntime (never both), with the CUDA that it "
    "was built for",
    "tensorrt": "install onnxruntime-gpu with TensorRT's libraries, or build an engine with "
    "build_engine.sh",
}


class SessionError(RuntimeError):
    """A model that cannot be opened or run; one paragraph."""


class ProviderError(SessionError):
    """The provider that was asked for does not run the model; `fell_back` when another one would
    have.
    """

    def __init__(self, text: str, fell_back: bool = False) -> None:
        super().__init__(text)
        self.fell_back = fell_back


class Session(Protocol):
    """Runs one model. A context manager; `provider` is the one that really runs, by `runtime` of a
    `version`. `most_images` is the largest batch, None for any.
    """

    runtime: str
    version: str | None
    threads: int
    most_images: int | None

    @property
    def provider(self) -> str:
        """The execution provider's full name."""
        ...

    def run(self, inputs: np.ndarray) -> np.ndarray:
        """Logits `(N, C)` float32 for inputs as the graph takes them."""
        ...

    def bound(self, inputs: np.ndarray) -> Callable[[], object]:
        """The call that a measurement times: `run` for these inputs, with as little around the runtime as
        can be. It does not check what comes out; a `run` before or after it does.
        """
        ...

    def __enter__(self) -> Session: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def cores() -> int:
    """Logical cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def import_onnxruntime() -> Any:
    """The onnxruntime module. Raises SessionError with the pip command when it is missing or does
    not load.
    """
    try:
        onnxruntime = importlib.import_module("onnxruntime")
    except ModuleNotFoundError as error:
        if error.name == "onnxruntime":
            raise SessionError(
                "running a model needs onnxruntime, which is not installed: run  "
                "pip install onnxruntime  (on a Jetson see requirements/jetson.txt)"
            ) from None
        raise SessionError(f"onnxruntime does not load: {error}") from None
    except ImportError as error:
        raise SessionError(f"onnxruntime does not load: {shown(str(error), 300)}") from None
    if not hasattr(onnxruntime, "InferenceSession"):
        raise SessionError(
            "onnxruntime is installed but broken (two of its packages in one folder?): run  "
            "pip uninstall -y onnxruntime onnxruntime-gpu  and install one of them again"
        )
    return onnxruntime


class OrtSession:
    """ONNX Runtime on one provider.

    `threads` is the size of the intra-op pool, 0 for all cores; the inter-op pool is 1. Threads of
    the pool do not spin while they wait: on a board that does other work spinning workers take its
    cores, and beside one busy process on two cores they made a small net 2 to 4 times slower. With
    one thread there is no pool. Raises SessionError when the file cannot be opened or is not what
    the manifest says, ProviderError when the provider is not installed, does not start, or leaves a
    part of the graph to the CPU. With `trace`, the start of a file name, every run is traced. With
    `exact`, INT8 is computed as it is written, in float32 and slowly.
    """

    runtime = "onnxruntime"
    most_images: int | None = None

    def __init__(
        self,
        model: Model,
        provider: str = "cpu",
        threads: int = 1,
        trace: str | None = None,
        exact: bool = False,
    ) -> None:
        if provider not in PROVIDERS:
            raise ProviderError(
                f"unknown provider {shown(provider)}. Known: {', '.join(PROVIDERS)}."
            )
        self._model = model
        self.threads = threads or cores()
        self._session = _open(model, provider, self.threads, trace, exact)
        self.version: str | None = str(import_onnxruntime().__version__)
        self._check_inputs()
        self._names = [model.output.name]

    def _check_inputs(self) -> None:
        spec = self._model.input
        types = {
            "uint8": "tensor(uint8)",
            "int8": "tensor(int8)",
            "float32": "tensor(float)",
            "float16": "tensor(float16)",
        }
        try:
            inputs = [(i.name, i.type) for i in self._session.get_inputs()]
            outputs = [(o.name, o.type) for o in self._session.get_outputs()]
        except UnicodeDecodeError:
            raise SessionError(
                f"{self._model.file} has an input or output whose name is no text: export it again."
            ) from None
        given = dict(outputs).get(self._model.output.name)
        if inputs != [(spec.name, types[spec.dtype])] or given not in (
            "tensor(float)",
            "tensor(float16)",
        ):
            raise SessionError(
                f"{self._model.file} takes {shown(inputs, 200)} and gives {shown(outputs, 200)}, "
                f"the manifest says {spec.name} ({spec.dtype}) and {self._model.output.name} of floats: "
                "the file and the manifest do not belong together."
            )

    @property
    def provider(self) -> str:
        """The execution provider's full name."""
        return str(self._session.get_providers()[0])

    def end_trace(self) -> str:
        """Write the trace and give its path."""
        return str(self._session.end_profiling())

    def run(self, inputs: np.ndarray) -> np.ndarray:
        """Logits `(N, C)` float32. Raises SessionError for a failed run or another shape."""
        logits = self.bound(inputs)()[0]
        if (
            logits.ndim != 2
            or logits.shape[0] != inputs.shape[0]
            or logits.shape[1] != self._model.output.shape[1]
        ):
            raise SessionError(
                f"{self._model.file} gave an output of shape {logits.shape} for {len(inputs)} "
                f"images, the manifest says {self._model.output.shape[1]} classes."
            )
        return np.asarray(logits, dtype=np.float32)

    def bound(self, inputs: np.ndarray) -> Callable[[], Any]:
        """onnxruntime's own call on these inputs, which gives a list of the logits. Raises as `run`."""
        call, names, feed = self._session.run, self._names, {self._model.input.name: inputs}

        def run() -> Any:
            try:
                return call(names, feed)
            except Exception as error:  # onnxruntime's own kinds have no common base
                raise SessionError(
                    f"{self._model.file} failed to run: {said(str(error))}. Export the model again, or give it "
                    "a smaller --batch."
                ) from None

        return run

    def __enter__(self) -> OrtSession:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._session = None


def _open(model: Model, provider: str, threads: int, trace: str | None, exact: bool) -> Any:
    ort = import_onnxruntime()
    name = PROVIDERS[provider]
    available = list(ort.get_available_providers())
    if name not in available:
        raise ProviderError(
            f"the provider {provider} is not in this onnxruntime {ort.__version__}, which has "
            f"{', '.join(available)}. Use --provider cpu, or "
            f"{_HOW.get(provider, 'install onnxruntime')}."
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.load_model_format", "ONNX")
    if exact:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if trace is not None:
        options.enable_profiling = True
        options.profile_file_prefix = trace
    if threads > 1:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if provider != "cpu":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    providers = [name, *_REST.get(provider, [])]
    try:
        session = ort.InferenceSession(
            str(model.path), options, providers=providers, enable_fallback=0
        )
    except Exception as error:  # onnxruntime raises its own kinds, which have no common base
        if "fallback to CPU EP has been explicitly disabled" in str(error):
            raise ProviderError(
                f"{provider} did not start or cannot run all of {model.file}: the rest would go "
                "to the CPU and the time would mean nothing. Use --provider cpu, or another model "
                "of the bundle.",
                fell_back=True,
            ) from None
        lacks = lacking(str(error))
        if lacks is not None:
            raise SessionError(
                f"{model.file} needs what onnxruntime {ort.__version__} does not have: {lacks}. Install a "
                "newer onnxruntime, or export the model again without it (older operators: --set "
                "export.opset=13)."
            ) from None
        raise SessionError(
            f"{model.file} cannot be opened by onnxruntime {ort.__version__}: {said(str(error))}. Export the "
            "model again."
        ) from None
    session.disable_fallback()
    ran = session.get_providers()[0]
    if ran != name:
        raise ProviderError(
            f"{provider} was asked for, but onnxruntime {ort.__version__} runs {model.file} on "
            f"{ran}: {provider} did not start. To mend it, "
            f"{_HOW.get(provider, 'install onnxruntime again')}; or use --provider cpu.",
            fell_back=True,
        )
    return session
