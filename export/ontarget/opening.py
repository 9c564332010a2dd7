"""Opens a session on the provider that was asked for: onnxruntime's, or a TensorRT engine."""

from __future__ import annotations

import platform
from pathlib import Path

from ontarget.contract import Model
from ontarget.session import OrtSession, Session, import_onnxruntime
from ontarget.trt import TrtSession, import_tensorrt

X86 = ("x86_64", "amd64", "i686", "x86")
ENGINE = "engine"
"""The provider that is no onnxruntime's: a TensorRT engine that lies beside the models."""


def prepare(provider: str) -> None:
    """Load the runtime of a provider, so that a model's memory is not charged for it. Raises
    SessionError.
    """
    if provider == ENGINE:
        import_tensorrt()
    else:
        import_onnxruntime()


def open_session(
    model: Model,
    provider: str = "cpu",
    threads: int = 1,
    timed: bool = False,
    engine: str | None = None,
) -> Session:
    """A session of a model on a provider, "engine" for a TensorRT engine; raises as that does.

    Where outputs count and not the time, an INT8 file that is for another kind of processor is
    computed exactly: the fast kernels of x86 without VNNI saturate sums at 16 bits, which neither
    TensorRT nor Arm does.
    """
    if provider == ENGINE:
        return TrtSession(model, Path(engine) if engine is not None else None)
    foreign = model.flavour in ("arm", "tensorrt") and platform.machine().lower() in X86
    return OrtSession(model, provider, threads, exact=foreign and provider == "cpu" and not timed)
