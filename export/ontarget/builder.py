"""Engines by TensorRT's Python API: built on the board for its own GPU, with a timing cache beside them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ontarget.contract import Model
from ontarget.cuda import Cuda
from ontarget.engine import SCHEMA, Place, batch_of, engine_name, misfit, read_about, whole
from ontarget.fields import shown
from ontarget.machine import available_bytes, gpu_clock_hz, power_mode
from ontarget.session import SessionError
from ontarget.trt import import_tensorrt, place_of, release, shape_of

LEAST_WORKSPACE, MOST_WORKSPACE = 64 << 20, 2 << 30


@dataclass(frozen=True)
class Wanted:
    """How an engine is built: images of a batch, the DLA core if any, and bytes of workspace (0: a quarter of the free
    memory, at most 2 GiB).
    """

    batch: int = 1
    dla: int | None = None
    workspace_bytes: int = 0


def build_engine(
    model: Model, folder: Path, wanted: Wanted = Wanted(), again: bool = False
) -> Path:
    """Build the engine of a model for this machine into `folder`, or find it there; the timing cache lies beside it.

    Raises SessionError when TensorRT refuses the file, with its own words; see `require_packed` first.
    """
    trt = import_tensorrt()
    place = place_of(trt, Cuda())
    path = folder / engine_name(model, place, wanted.batch, wanted.dla)
    if not again and _is_there(path, model, place, wanted):
        return path
    workspace = wanted.workspace_bytes or min(
        MOST_WORKSPACE, max(LEAST_WORKSPACE, (available_bytes() or 4 << 30) // 4)
    )
    began = time.monotonic()
    sm = (place.sm or "").replace(".", "")
    cache = folder / f"timing-trt{place.tensorrt}-sm{sm}.cache"
    data, timing = _built(trt, model, wanted, workspace, cache)
    _write(path, data)
    with contextlib.suppress(OSError):  # it only makes the next build quicker
        _write(cache, timing)
    document = {
        "schema": SCHEMA, "model": model.name, "onnx_sha256": model.sha256,
        "engine_sha256": _sha256(data), "precision": model.precision,
        "input": "{}:{}".format(model.input.name, "x".join(map(str, shape_of(model, wanted.batch)))),
        "tensorrt": place.tensorrt, "sm": place.sm, "l4t": place.l4t, "gpu": place.gpu,
        "dla_core": wanted.dla, "power_mode": power_mode(), "gpu_clock_hz": gpu_clock_hz(),
        "workspace_mib": workspace >> 20, "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip
    _write(path.with_name(path.name + ".json"), (json.dumps(document, indent=1) + "\n").encode())
    return path


def _is_there(path: Path, model: Model, place: Place, wanted: Wanted) -> bool:
    about = read_about(path)
    if about is None or not path.is_file() or misfit(about, model, place) is not None:
        return False
    asked = (model.input.shape[0] or wanted.batch, wanted.dla)
    return (batch_of(about), about.get("dla_core")) == asked and whole(path, about)


def _sha256(data: bytes) -> str:
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


def _built(
    trt: Any, model: Model, wanted: Wanted, workspace: int, cache: Path
) -> tuple[bytes, bytes]:
    """The bytes of an engine and of the timing cache: strongly typed from TensorRT 10 on, by flags before and for a DLA
    core, which takes no strong types.
    """
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    major = int(release(trt).split(".")[0])
    flags, by_flags = 0, major < 10 or (wanted.dla is not None and major == 10)
    if major < 10:
        flags = 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
    elif not by_flags:
        flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.path.read_bytes()):
        errors = [str(parser.get_error(i)) for i in range(min(3, parser.num_errors))]
        raise SessionError(
            f"TensorRT {trt.__version__} refuses {model.file}: {shown('; '.join(errors), 600)}. Use "
            "another model of the bundle."
        )
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    if by_flags and model.precision in ("float16", "int8"):
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
    if timing is None or not config.set_timing_cache(timing, ignore_mismatch=False):
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    if model.input.shape[0] is None:
        profile, shape = builder.create_optimization_profile(), shape_of(model, wanted.batch)
        profile.set_shape(model.input.name, shape, shape, shape)
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise SessionError(
            f"TensorRT {trt.__version__} made no engine of {model.file}; it says why above. When memory "
            "ran out: close other programs, or give a smaller workspace."
        )
    timing = config.get_timing_cache()
    return bytes(engine), b"" if timing is None else bytes(timing.serialize())
