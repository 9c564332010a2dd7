"""Teachers that are ONNX files: outputs only, run by onnxruntime, so that they are never fine-tuned.

One input takes images, one output (B, K) is both features and logits. Files that edgedistill shipped say themselves
what they take; any other float input gets RGB with ImageNet's mean and std, and `note` says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ontarget.modelfile import fault_of
from torch import Tensor, nn

from edgedistill.errors import MissingExtraError, TeacherError
from edgedistill.nets import count_params
from edgedistill.recipe import TeacherSection
from edgedistill.teacher.pretrained import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Origin,
    Pretrained,
    names_of,
    one_line,
    triple,
)

if TYPE_CHECKING:
    import onnx

PREFIX = "onnx:"
MAX_ONNX_BYTES = 2_000_000_000
"""What one protocol buffer can hold; larger graphs keep their weights in files beside them."""
NATIVE_SIZE = 224
LARGEST = 4096
PIXEL_STD = (1 / 255, 1 / 255, 1 / 255)
"""A graph that takes pixels 0..255 as they are."""
SHARES = "its outputs are probabilities, and their logarithms are taken as logits"
SMALLEST = 1e-7
"""A probability under this counts as this."""


@dataclass(frozen=True)
class Entry:
    """What a graph takes: its input's name, layout and type of numbers, and its size and batch where they are fixed."""

    name: str
    channels_last: bool
    dtype: str
    size: int | None
    batch: int | None


class _Session:
    """An onnxruntime session with its bytes; a copy of a network shares it."""

    def __init__(self, data: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4
        here = onnxruntime.get_available_providers()
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        self.data = data
        self.run = onnxruntime.InferenceSession(
            data, options, providers=[p for p in wanted if p in here]
        ).run

    def __deepcopy__(self, memo: object) -> _Session:
        return self


class Graph(nn.Module):
    """An ONNX graph with timm's interface: its output (B, K) is features, and logits under no head of ours."""

    def __init__(
        self, data: bytes, entry: Entry, output: str, width: int, shares: bool = False
    ) -> None:
        super().__init__()
        self.session, self.entry, self.output, self.shares = _Session(data), entry, output, shares
        self.num_features = self.num_classes = width
        self.here = nn.Parameter(torch.empty(0), requires_grad=False)
        self.head: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.forward_features(x))
        return logits

    def forward_features(self, x: Tensor) -> Tensor:
        """The graph's output (B, K) of images (B, 3, S, S), without a gradient."""
        images = x.detach().float()
        if self.entry.channels_last:
            images = images.permute(0, 2, 3, 1)
        fed = images.cpu().numpy()
        if self.entry.dtype == "uint8":
            fed = np.clip(np.rint(fed), 0, 255)
        fed = np.ascontiguousarray(fed, dtype=self.entry.dtype)
        step = self.entry.batch or max(1, len(fed))
        parts = [self._part(fed[i : i + step], step) for i in range(0, len(fed), step)]
        found = torch.from_numpy(np.concatenate(parts).astype(np.float32)).to(x.device)
        return found.clamp_min(SMALLEST).log() if self.shares else found

    def _part(self, fed: Any, step: int) -> Any:
        """Outputs of one run; where the graph's batch is fixed, the last one is filled up with zeros."""
        short = step - len(fed) if self.entry.batch else 0
        whole = (
            np.concatenate([fed, np.zeros((short, *fed.shape[1:]), fed.dtype)]) if short else fed
        )
        found = self.session.run([self.output], {self.entry.name: whole})[0]
        return np.asarray(found).reshape(len(whole), -1)[: len(fed)]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits (B, C) of features, or the features themselves."""
        return x if pre_logits else self.head(x)

    def get_classifier(self) -> nn.Module:
        """Our linear head; `nn.Identity` where the graph's outputs are taken as they are."""
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """A linear head on the graph's outputs."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes)


def load_onnx(section: TeacherSection) -> Pretrained:
    """The graph that `onnx:FILE` names. Raises `TeacherError`, or `MissingExtraError`."""
    if find_spec("onnxruntime") is None:
        raise MissingExtraError("a teacher that is an ONNX file (onnxruntime)", "cpu")
    name = section.model
    data, proto = _read(name)
    entry = _entry(name, proto)
    about = {prop.key: prop.value for prop in proto.metadata_props}
    try:
        mean, std, note = _colours(entry, about)
        size = entry.size or _stated_size(about) or NATIVE_SIZE
        width, shares = _outputs(data, entry, proto.graph.output[0].name, size)
        model = Graph(data, entry, proto.graph.output[0].name, width, shares)
        labels = names_of(json.loads(about.get("edgedistill.classes", "null")), width)
        licence = json.loads(about.get("edgedistill.licences", "{}")).get("student")
    except TeacherError:
        raise
    except Exception as error:  # onnxruntime refuses in many ways, none of them ours
        raise TeacherError(
            f"{name} cannot be run by onnxruntime ({one_line(error)}). A teacher takes RGB images "
            "(B, 3, S, S) or (B, S, S, 3) and gives (B, classes)."
        ) from None
    return Pretrained(
        model=model,
        architecture="onnx",
        origin=Origin(name, None, section.licence or licence),
        mean=mean,
        std=std,
        size=size,
        fixed_size=entry.size is not None,
        features=width,
        classes=width,
        params=_params(proto) + count_params(model),
        rebuild={"entry": vars(entry), "output": model.output, "width": width, "shares": shares},
        kind="onnx",
        labels=labels,
        note="; ".join(filter(None, (note, SHARES if shares else ""))),
    )


def rebuild_onnx(facts: Mapping[str, Any], data: bytes) -> nn.Module:
    """The network of a finished stage from the copy of its file; a head of ours is empty still."""
    about = facts["rebuild"]
    entry = Entry(**about["entry"])
    model = Graph(data, entry, str(about["output"]), int(about["width"]), bool(about["shares"]))
    if facts["headed"]:
        model.reset_classifier(int(facts["classes"]))
    return model


def _read(name: str) -> tuple[bytes, onnx.ModelProto]:
    """The bytes and the checked model of a file that may be hostile; nothing outside it is read."""
    import onnx

    path = Path(name.removeprefix(PREFIX)).expanduser()
    if not path.is_file():
        raise TeacherError(f"{name}: there is no file {path}; give an .onnx file as onnx:FILE.onnx")
    if path.stat().st_size > MAX_ONNX_BYTES:
        raise TeacherError(
            f"{name} is larger than {MAX_ONNX_BYTES:,} bytes, the most an ONNX file has"
        )
    fault = fault_of(path)
    if fault is not None:
        raise TeacherError(
            f"{name} cannot be opened: {fault}; a teacher is one ONNX file with all its weights (onnx.save with "
            "save_as_external_data=False)"
        )
    data = path.read_bytes()
    try:
        proto = onnx.load_model_from_string(data)
        onnx.checker.check_model(proto)
    except Exception as error:  # a damaged file makes the reader raise almost anything
        raise TeacherError(f"{name} is no ONNX model that holds ({one_line(error, 200)})") from None
    return data, proto


def _entry(name: str, proto: onnx.ModelProto) -> Entry:
    """The image input of a graph. Raises `TeacherError` for any other kind of input."""
    from onnx import TensorProto

    types = {
        TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.UINT8: "uint8",
    }  # fmt: skip
    stored = {t.name for t in proto.graph.initializer}
    inputs = [v for v in proto.graph.input if v.name not in stored]
    if len(inputs) != 1 or not proto.graph.output:
        raise TeacherError(f"{name} takes {len(inputs)} inputs; a teacher takes one, the images")
    kind = inputs[0].type.tensor_type
    dims = [int(d.dim_value) if d.dim_value > 0 else None for d in kind.shape.dim]
    last = len(dims) == 4 and dims[3] == 3 and dims[1] != 3
    first = len(dims) == 4 and dims[1] == 3
    sides = {d for d in (dims[1:3] if last else dims[2:4]) if d is not None}
    dtype = types.get(kind.elem_type)
    if not (last or first) or dtype is None or len(sides) > 1 or max(sides, default=1) > LARGEST:
        shown = ", ".join(str(d or "any") for d in dims)
        raise TeacherError(
            f'{name} takes "{inputs[0].name[:60]}" of shape ({shown}), type {kind.elem_type}; a teacher takes '
            "square RGB images (B, 3, S, S) or (B, S, S, 3) as float32, float16 or uint8"
        )
    return Entry(inputs[0].name, last, dtype, next(iter(sides), None), dims[0])


def _colours(
    entry: Entry, about: Mapping[str, str]
) -> tuple[tuple[float, float, float], tuple[float, float, float], str]:
    """Mean and std of 0..1 pixels that the graph wants from us, and what was assumed."""
    if entry.dtype == "uint8":
        return (0.0, 0.0, 0.0), PIXEL_STD, ""
    stated = json.loads(about.get("edgedistill.preprocess", "null"))
    if isinstance(stated, dict):
        return triple(stated["mean"]), triple(stated["std"], above=0), ""
    note = "the file does not say how it takes colours: RGB with ImageNet's mean and std is assumed"
    return IMAGENET_MEAN, IMAGENET_STD, note


def _stated_size(about: Mapping[str, str]) -> int | None:
    stated = json.loads(about.get("edgedistill.preprocess", "null"))
    return int(stated["crop"]) if isinstance(stated, dict) else None


def _outputs(data: bytes, entry: Entry, output: str, size: int) -> tuple[int, bool]:
    """Number of outputs of an image, and whether they are probabilities.

    Raises `TeacherError` for outputs that are no row of numbers an image.
    """
    shape = (3, size, size) if not entry.channels_last else (size, size, 3)
    noise = np.random.default_rng(0).integers(0, 256, (entry.batch or 2, *shape))
    images = noise if entry.dtype == "uint8" else noise / 128 - 1
    found = np.asarray(_Session(data).run([output], {entry.name: images.astype(entry.dtype)})[0])
    rest = [d for d in found.shape[1:] if d != 1]
    if found.dtype.kind != "f" or len(found) != len(noise) or len(rest) != 1:
        raise TeacherError(
            f'onnx: its output "{output[:60]}" is {found.dtype} {found.shape} for {len(noise)} image(s); a '
            "teacher gives one row of logits an image"
        )
    rows = found.reshape(len(noise), -1).astype(np.float64)
    return rows.shape[1], bool((rows >= 0).all() and np.allclose(rows.sum(1), 1, atol=1e-3))


def _params(proto: onnx.ModelProto) -> int:
    """Numbers that the graph stores, indices and switches left out."""
    counted = (1, 2, 3, 10, 11)  # float, uint8, int8, float16, double
    kept = [t for t in proto.graph.initializer if t.data_type in counted and len(t.dims)]
    return sum(int(np.prod(t.dims)) for t in kept)
