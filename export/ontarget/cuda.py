"""Device memory and streams through the CUDA driver alone (libcuda, by ctypes): no toolkit and no package is needed
where an engine runs.

Signatures: CUDA Driver API, functions of version 2 where there are two.
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any

import numpy as np

from ontarget.session import SessionError

LIBRARIES = ("libcuda.so.1", "libcuda.so", "nvcuda.dll")
MAJOR, MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""


class CudaError(SessionError):
    """The driver is not there, has no GPU, or refused a call; one paragraph."""


class Cuda:
    """The first GPU, with its primary context current in this thread."""

    def __init__(self) -> None:
        self._lib = _library()
        self._call("cuInit", 0)
        device = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(device), 0)
        self._device = device.value
        context = ctypes.c_void_p()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device)
        self._call("cuCtxSetCurrent", context)

    def _call(self, name: str, *arguments: Any) -> None:
        try:
            code = getattr(self._lib, name)(*arguments)
        except AttributeError:
            raise CudaError(f"the CUDA driver has no {name}; it is too old or damaged.") from None
        if code != 0:
            raise CudaError(f"{name}: {self._words(code)}.")

    def _words(self, code: int) -> str:
        text = ctypes.c_char_p()
        with contextlib.suppress(AttributeError):
            self._lib.cuGetErrorString(code, ctypes.byref(text))
        words = (text.value or b"").decode("utf-8", "replace")
        hint = "; close other programs, or build with a smaller batch" if code == 2 else ""
        return f"error {code} of the CUDA driver" + (f" ({words})" if words else "") + hint

    @property
    def sm(self) -> str:
        """The compute capability, "8.7" on an Orin."""
        parts = []
        for attribute in (MAJOR, MINOR):
            value = ctypes.c_int()
            self._call("cuDeviceGetAttribute", ctypes.byref(value), attribute, self._device)
            parts.append(str(value.value))
        return ".".join(parts)

    @property
    def name(self) -> str:
        """The name of the GPU."""
        text = ctypes.create_string_buffer(256)
        self._call("cuDeviceGetName", text, 256, self._device)
        return text.value.decode("utf-8", "replace")

    def alloc(self, count: int) -> int:
        """The address of `count` bytes on the device."""
        address = ctypes.c_void_p()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(count))
        return int(address.value or 0)

    def free(self, address: int) -> None:
        """Give memory on the device back."""
        self._call("cuMemFree_v2", ctypes.c_void_p(address))

    def pinned(self, count: int) -> tuple[int, np.ndarray]:
        """The address of `count` bytes of the host that the device copies from without a detour, and
        an array uint8 (count,) over them.
        """
        address = ctypes.c_void_p()
        self._call("cuMemAllocHost_v2", ctypes.byref(address), ctypes.c_size_t(count))
        block: Any = (ctypes.c_uint8 * count).from_address(int(address.value or 0))
        return int(address.value or 0), np.frombuffer(block, dtype=np.uint8)

    def free_pinned(self, address: int) -> None:
        """Give memory of `pinned` back; its array must not be used any more."""
        self._call("cuMemFreeHost", ctypes.c_void_p(address))

    def stream(self) -> int:
        """A stream of its own."""
        handle = ctypes.c_void_p()
        self._call("cuStreamCreate", ctypes.byref(handle), 0)
        return int(handle.value or 0)

    def end_stream(self, stream: int) -> None:
        """Give a stream back."""
        self._call("cuStreamDestroy_v2", ctypes.c_void_p(stream))

    def to_device(self, device: int, host: int, count: int, stream: int) -> None:
        """Begin to copy `count` bytes to the device."""
        self._call(
            "cuMemcpyHtoDAsync_v2", ctypes.c_void_p(device), ctypes.c_void_p(host),
            ctypes.c_size_t(count), ctypes.c_void_p(stream),
        )  # fmt: skip

    def to_host(self, host: int, device: int, count: int, stream: int) -> None:
        """Begin to copy `count` bytes from the device."""
        self._call(
            "cuMemcpyDtoHAsync_v2", ctypes.c_void_p(host), ctypes.c_void_p(device),
            ctypes.c_size_t(count), ctypes.c_void_p(stream),
        )  # fmt: skip

    def wait(self, stream: int) -> None:
        """Wait until all that was begun on a stream is done."""
        self._call("cuStreamSynchronize", ctypes.c_void_p(stream))


def _library() -> Any:
    for name in LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise CudaError(
        "an engine needs an NVIDIA GPU with its driver, and libcuda is not here. Use --provider cpu."
    )
