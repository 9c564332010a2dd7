"""Makes `edgedistill/target/students.json`, the table of students that planning chooses from.

Every student is exported with random weights at every input size, and its ONNX graph is counted by
`edgedistill.target.cost`. The ImageNet top-1 of its default weights comes from timm's own results
table, given as a path. One thread, about ten minutes:

    python benchmarks/make_students.py results-imagenet.csv \
        --cite "huggingface/pytorch-image-models@aa4b585 results/results-imagenet.csv"
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import onnx
import timm
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from edgedistill.target.cost import KINDS, cost_of_graph

OUT = Path(__file__).resolve().parents[1] / "edgedistill" / "target" / "students.json"
SIZES = (48, 64, 96, 128, 160, 192, 224, 256)
CLASSES = 1000
OPSET = 17
STUDENTS = {
    "mobilenetv1": ("mobilenetv1_100", "mobilenetv1_125"),
    "mobilenetv2": (
        *("mobilenetv2_050", "mobilenetv2_100", "mobilenetv2_110d", "mobilenetv2_120d"),
        "mobilenetv2_140",
    ),
    "mobilenetv3": (
        *("mobilenetv3_small_050", "mobilenetv3_small_075", "mobilenetv3_small_100"),
        *("mobilenetv3_large_100", "tf_mobilenetv3_large_075"),
        *("tf_mobilenetv3_small_minimal_100", "tf_mobilenetv3_large_minimal_100"),
    ),
    "mobilenetv4": (
        *("mobilenetv4_conv_small_050", "mobilenetv4_conv_small", "mobilenetv4_conv_medium"),
    ),
    "efficientnet_lite": tuple(f"tf_efficientnet_lite{i}" for i in range(5)),
    "mnasnet": ("mnasnet_small", "mnasnet_100", "semnasnet_075", "semnasnet_100"),
    "fbnet": ("fbnetc_100", "spnasnet_100"),
    "lcnet": ("lcnet_050", "lcnet_075", "lcnet_100"),
    "tinynet": ("tinynet_a", "tinynet_b", "tinynet_c", "tinynet_d", "tinynet_e"),
}


def distinct_weights(model: nn.Module) -> None:
    """Random values everywhere: equal tensors are stored once, which would be miscounted."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.02)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]


def fix_same_padding(model: nn.Module, size: int) -> None:
    """Give each convolution with dynamic "same" padding a fixed one of the same output at `size`.

    TensorFlow pads max((ceil(n / s) - 1) * s + (k - 1) * d + 1 - n, 0) in all, one more behind
    than before when that is odd. Half of it, rounded up, on both sides gives the same shape, so
    the counts are the same.
    """
    shapes: dict[str, tuple[int, int]] = {}
    handles = [
        module.register_forward_pre_hook(
            lambda _m, args, name=name: shapes.__setitem__(name, tuple(args[0].shape[-2:]))
        )
        for name, module in model.named_modules()
        if isinstance(module, Conv2dSame)
    ]
    with torch.inference_mode():
        model(torch.zeros(1, 3, size, size))
    for handle in handles:
        handle.remove()
    for name, shape in shapes.items():
        conv = model.get_submodule(name)
        assert isinstance(conv, Conv2dSame)
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, _plain(conv, _padding(conv, shape)))


def _padding(conv: nn.Conv2d, shape: tuple[int, int]) -> tuple[int, int]:
    sides = []
    for n, k, s, d in zip(shape, conv.kernel_size, conv.stride, conv.dilation, strict=True):
        sides.append((max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0) + 1) // 2)
    return sides[0], sides[1]


def _plain(conv: nn.Conv2d, padding: tuple[int, int]) -> nn.Conv2d:
    plain = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        padding,
        dilation=conv.dilation,  # type: ignore[arg-type]
        groups=conv.groups,
        bias=conv.bias is not None,
    )
    plain.load_state_dict(conv.state_dict())
    return plain


def export(name: str, size: int) -> tuple[nn.Module, bytes]:
    """The student as timm makes it, and its ONNX file at `size`."""
    model = timm.create_model(name, num_classes=CLASSES, exportable=True).eval()
    distinct_weights(model)
    fix_same_padding(model, size)
    image = torch.zeros(1, 3, size, size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "student.onnx"
        torch.onnx.export(model, (image,), path, dynamo=False, opset_version=OPSET)
        return model, path.read_bytes()


def published_top1(path: Path) -> dict[tuple[str, int], float]:
    """(model.tag, input size) -> top-1 as a fraction."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {(row["model"], int(row["img_size"])): float(row["top1"]) / 100 for row in rows}


def row(name: str, family: str, top1: dict[tuple[str, int], float]) -> dict[str, Any]:
    """One student of the table."""
    config = timm.models.get_pretrained_cfg(name)
    assert config is not None and config.tag, name
    native = config.input_size[-1]
    sizes: dict[str, Any] = {}
    for size in SIZES:
        model, file = export(name, size)
        cost = cost_of_graph(onnx.load_model_from_string(file))
        sizes[str(size)] = {
            "macs": cost.macs,
            **{kind: cost.macs_by_kind.get(kind, 0) for kind in KINDS if kind != "attention"},
            "act_elements": cost.act_elements,
            "peak_act_elements": cost.peak_act_elements,
        }
        assert not cost.macs_by_kind.get("attention"), name
    head = model.get_classifier()  # type: ignore[operator]
    return {
        "name": name,
        "family": family,
        "pretrained_tag": config.tag,
        "licence": config.license,
        "imagenet_top1": round(top1[f"{name}.{config.tag}", native], 5),
        "native_size": native,
        "params": sum(p.numel() for p in model.parameters()),
        "stored_elements": cost.params,
        "weight_elements": cost.weight_elements,
        "feature_dim": head.in_features,
        "layers": cost.layers,
        "graph_bytes": len(file) - 4 * cost.params,
        "sizes": sizes,
    }


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("results", type=Path, help="timm's results-imagenet.csv")
    parser.add_argument("--cite", required=True, help="where that table comes from")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    top1 = published_top1(args.results)
    students = []
    for family, names in STUDENTS.items():
        for name in names:
            students.append(row(name, family, top1))
            print(f"{name}  {students[-1]['stored_elements']:,} elements", file=sys.stderr)
    document = {
        "schema": "edgedistill.students/1",
        "classes": CLASSES,
        "opset": OPSET,
        "made_with": {"timm": timm.__version__, "torch": str(torch.__version__).split("+")[0]},
        "top1_source": args.cite,
        "licence_source": "timm's pretrained configuration of the tag",
        "students": students,
    }
    args.out.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
