"""Local checkpoints: tensors out of a user's file, which is hostile until it is parsed. Nothing in a file is run."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from edgedistill.errors import TeacherError

MAX_CHECKPOINT_BYTES = 8_000_000_000


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Tensors of a `.safetensors` or a torch file; a pickle that wants to run code is refused, not run."""
    if not path.is_file():
        raise TeacherError(f"checkpoint {path} does not exist; give a .safetensors or .pth file")
    if path.stat().st_size > MAX_CHECKPOINT_BYTES:
        raise TeacherError(f"checkpoint {path} is larger than {MAX_CHECKPOINT_BYTES:,} bytes")
    try:
        if path.suffix == ".safetensors":
            return _state_dict(load_file(path), path)
        harmless = torch.serialization.safe_globals([argparse.Namespace])  # a script's options
        with warnings.catch_warnings(), harmless:
            warnings.simplefilter("ignore")
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except TeacherError:
        raise
    except pickle.UnpicklingError as error:
        wants = re.search(r"GLOBAL ([\w.]+)|Unsupported operand", str(error), re.IGNORECASE)
        if wants is None:
            raise TeacherError(f"checkpoint {path} cannot be read: it holds no tensors") from None
        raise TeacherError(
            f"checkpoint {path} is refused: it is a pickle with more than tensors in it "
            f"({wants[1] or 'an instruction that tensors do not need'}), which could run code. "
            "Save the state_dict alone, or as .safetensors."
        ) from None
    except Exception as error:  # a damaged file makes the readers raise almost anything
        text = " ".join(str(error).split())[:200]
        raise TeacherError(
            f"checkpoint {path} cannot be read ({type(error).__name__}: {text})"
        ) from None
    return _state_dict(loaded, path)


def _state_dict(loaded: object, path: Path) -> dict[str, Tensor]:
    """The tensors of a loaded file, also when they lie under `state_dict`, `model` or `state_dict_ema`."""
    if isinstance(loaded, dict):
        for key in ("state_dict_ema", "model_ema", "state_dict", "model"):
            if isinstance(loaded.get(key), dict):
                loaded = loaded[key]
                break
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise TeacherError(
            f"checkpoint {path} holds no state_dict of tensors; save model.state_dict()"
        )
    state = {str(k).removeprefix("module."): v for k, v in loaded.items()}
    if not state:
        raise TeacherError(f"checkpoint {path} is empty")
    return state


def _is_real(value: object) -> bool:
    """Whether a value is a plain tensor of numbers that are not complex."""
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_complex()
