"""What every room does with a torch network: where it runs, its features and logits, its weights on disk."""

from __future__ import annotations

import contextlib
import ctypes
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from ontarget.preprocess import scale_and_shift
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from edgedistill.errors import TeacherError
from edgedistill.folding import quick

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Cut = Callable[[Ints, int], Tensor]
"""Network input (B, 3, S, S) of (image indices, view)."""


@dataclass(frozen=True)
class Look:
    """How a network sees an image: square `size` in pixels, then `(pixel / 255 - mean) / std` a channel."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def normalise(self, pixels: Tensor) -> Tensor:
        """Float pixels (B, 3, H, W) in 0..255 as the network takes them."""
        scale, shift = self.scale_and_shift(pixels.device)
        return pixels * scale + shift

    def scale_and_shift(self, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        """The kit's numbers (1, 3, 1, 1) for `pixel * scale + shift`."""
        scale, shift = scale_and_shift(self.mean, self.std)
        return (
            torch.from_numpy(scale).to(device).view(1, 3, 1, 1),
            torch.from_numpy(shift).to(device).view(1, 3, 1, 1),
        )

    def tensor(self, pixels: Pixels, device: torch.device) -> Tensor:
        """Pixels (B, S, S, 3) as a network's input (B, 3, S, S), channels last in memory."""
        batch = torch.from_numpy(np.ascontiguousarray(pixels)).to(device)
        return self.normalise(batch.permute(0, 3, 1, 2).float())


def pick_device() -> torch.device:
    """The accelerator that is here: CUDA, then Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


@cache
def hold_memory() -> None:
    """Let glibc keep large blocks: the next batch takes them again, without page faults."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def fast_arithmetic(device: torch.device) -> Literal["bfloat16", "float32"]:
    """In what fast inference computes: bfloat16 where the device does it natively."""
    native = device.type == "cuda" or (
        device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
    return "bfloat16" if native else "float32"


@contextlib.contextmanager
def inference(device: torch.device, *, fast: bool) -> Iterator[None]:
    """No gradients; with `fast`, bfloat16 where the device computes it natively."""
    half = fast and fast_arithmetic(device) == "bfloat16"
    if device.type == "cpu":
        hold_memory()
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
        yield


def forward(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Pooled penultimate features (B, D) and logits (B, C) of a timm classifier in one pass."""
    net: Any = model
    features = net.forward_head(net.forward_features(x), pre_logits=True).flatten(1)
    head = net.get_classifier()
    if isinstance(head, nn.Conv2d):  # a 1 x 1 convolution is the linear classifier of some nets
        return features, head(features[:, :, None, None]).flatten(1)
    return features, head(features)


def outputs(
    model: nn.Module,
    pixels: Pixels,
    look: Look,
    device: torch.device,
    *,
    fast: bool = False,
    batch: int = 128,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[Floats, Floats]:
    """Features (N, D) and logits (N, C) of a network in evaluation mode over stored pixels (N, S, S, 3).

    `fast` allows what changes the last digits: bfloat16, folded BatchNorm.
    """
    model.eval()
    net = quick(model, look.size) if fast else model
    dtype = next((p.dtype for p in model.parameters()), torch.float32)
    parts: list[tuple[Floats, Floats]] = []
    with inference(device, fast=fast):
        for start in range(0, len(pixels), batch):
            chunk = np.asarray(pixels[start : start + batch])
            features, logits = forward(net, look.tensor(chunk, device).to(dtype))
            parts.append((features.float().cpu().numpy(), logits.float().cpu().numpy()))
            advance(len(chunk))
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def logits_of(model: nn.Module, pixels: Pixels, look: Look, device: torch.device) -> Floats:
    """Logits (N, C) in float32 of any classifier, by its own forward pass over pixels (N, S, S, 3)."""
    net, parts = model.to(device).eval(), []
    with inference(device, fast=False):
        for start in range(0, len(pixels), 128):
            x = look.tensor(np.asarray(pixels[start : start + 128]), device)
            parts.append(net(x).float().cpu().numpy())
    return np.concatenate(parts)


def count_params(model: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in model.parameters())


def state_bytes(model: nn.Module) -> bytes:
    """All weights and statistics as safetensors: the same network always gives the same bytes."""
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    return save_tensors(state)


def load_state(model: nn.Module, path: Path, what: str) -> None:
    """Fill `model` from a safetensors file; a file that does not fit raises `TeacherError`."""
    try:
        state = load_tensors(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise TeacherError(f"{what} {path} cannot be read: {error}") from None
    check_fit(model, state, f"{what} {path}")
    model.load_state_dict(state)


def check_fit(model: nn.Module, state: dict[str, Tensor], what: str) -> None:
    """Raise `TeacherError` with the first differences when a checkpoint is of another architecture."""
    own = model.state_dict()
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    extra = [k for k in state if k not in own]
    shapes = [
        f"{k} is {tuple(state[k].shape)}, must be {tuple(own[k].shape)}"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]
    if not (missing or extra or shapes):
        return
    parts = [
        _few("tensors missing", missing),
        _few("tensors unknown", extra),
        _few("shapes differ", shapes),
    ]
    raise TeacherError(
        f"{what} is of another architecture than {type(model).__name__} as asked for: "
        + "; ".join(p for p in parts if p)
        + ". Give the model name that the checkpoint was saved from."
    )


def _few(title: str, items: Sequence[str]) -> str:
    if not items:
        return ""
    more = f" and {len(items) - 3} more" if len(items) > 3 else ""
    return f"{len(items)} {title} ({', '.join(items[:3])}{more})"


def torch_bytes(value: object) -> bytes:
    """`torch.save` into memory, so that a full disk is an `OSError` of ours and never half a file."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def bn_layers(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Every batch normalisation layer, timm's fused norm-and-activation ones too."""
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def is_out_of_memory(error: Exception) -> bool:
    """Whether torch ran out of memory, on a GPU or on the CPU."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or (
        "memory" in text and ("out of" in text or "not enough" in text or "alloc" in text)
    )
