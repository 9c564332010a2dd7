"""Makes `edgedistill/target/students.json`, the table of students that planning chooses from.

Every student is exported in the form that ships (branches merged, batch norms folded, padding fixed) with random
weights at every input size, and its ONNX graph is counted by `edgedistill.target.cost`. Each count is held to torch's
own FLOP counter within 1 % while the table is made. The ImageNet top-1 of the default weights comes from timm's own
results table, given as a path. One thread, about half an hour:

    python -m benchmarks.make_students results-imagenet.csv \
        --cite "huggingface/pytorch-image-models@aa4b585 results/results-imagenet.csv"
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import onnx
import timm
import torch
from timm.layers import set_fused_attn
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgedistill.folding import folded
from edgedistill.target.cost import Cost, cost_of_graph
from edgedistill.target.kernels import COLUMNS, row_of

OUT = Path(__file__).resolve().parents[1] / "edgedistill" / "target" / "students.json"
SIZES = (48, 64, 96, 128, 160, 192, 224, 256, 288)
CLASSES = 1000
OPSET = 17
TOLERANCE = 0.01
CONSTANT_PARTS = {"edgenext": 0.015}
"""EdgeNeXt projects a position encoding that depends on the input size alone: torch counts that convolution, runtimes
fold it when they load the file. Up to 1.4 % of the count at 48 px, less above."""
STUDENTS = {
    "mobilenetv1": ("mobilenetv1_100", "mobilenetv1_100h", "mobilenetv1_125"),
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
        *("mobilenetv4_conv_blur_medium", "mobilenetv4_hybrid_medium"),
    ),
    "mobilenet_edgetpu": ("mobilenet_edgetpu_v2_m",),
    "efficientnet": ("efficientnet_b0", "efficientnet_b1", "efficientnet_b2"),
    "efficientnet_lite": tuple(f"tf_efficientnet_lite{i}" for i in range(4)),
    "efficientnet_edgetpu": ("tf_efficientnet_es", "tf_efficientnet_em", "tf_efficientnet_el"),
    "mnasnet": ("mnasnet_small", "mnasnet_100", "semnasnet_075", "semnasnet_100"),
    "mixnet": ("mixnet_s", "mixnet_m", "mixnet_l", "mixnet_xl"),
    "fbnet": ("fbnetc_100", "spnasnet_100", "fbnetv3_b", "fbnetv3_d"),
    "hardcorenas": tuple(f"hardcorenas_{letter}" for letter in "abcdef"),
    "lcnet": ("lcnet_050", "lcnet_075", "lcnet_100"),
    "tinynet": ("tinynet_a", "tinynet_b", "tinynet_c", "tinynet_d", "tinynet_e"),
    "ghostnet": ("ghostnet_100", "ghostnetv2_100", "ghostnetv2_130", "ghostnetv3_100"),
    "repghostnet": tuple(
        f"repghostnet_{width}" for width in ("050", "058", "080", "100", "111", "130", "150", "200")
    ),
    "mobileone": tuple(f"mobileone_s{i}" for i in range(4)),
    "repvit": ("repvit_m0_9", "repvit_m1_0", "repvit_m1_1", "repvit_m3"),
    "repvgg": ("repvgg_a0",),
    "rexnet": ("rexnet_100", "rexnet_130", "rexnet_150"),
    "regnet": (
        *("regnetx_002", "regnetx_004", "regnetx_006", "regnetx_008"),
        *("regnety_002", "regnety_004", "regnety_006", "regnety_008"),
    ),
    "resnet": ("resnet10t", "resnet14t", "resnet18"),
    "hgnetv2": ("hgnetv2_b0", "hgnetv2_b1", "hgnetv2_b2"),
    "starnet": ("starnet_s1", "starnet_s2", "starnet_s3", "starnet_s4"),
    "convnext": ("convnext_atto", "convnext_femto", "mambaout_femto"),
    "fastvit": ("fastvit_t8", "fastvit_t12", "fastvit_s12", "fastvit_sa12"),
    "efficientvit": ("efficientvit_b0", "efficientvit_b1"),
    "edgenext": ("edgenext_xx_small", "edgenext_x_small", "edgenext_small", "edgenext_small_rw"),
    "mobilevit": (
        *("mobilevit_xxs", "mobilevit_xs", "mobilevit_s"),
        *(f"mobilevitv2_{width}" for width in ("050", "075", "100", "125", "150")),
    ),
    "shvit": ("shvit_s1", "shvit_s2"),
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


def export(model: nn.Module, size: int, tolerance: float) -> bytes:
    """The ONNX file of a network in the form that ships, for float images of `size`; its count is checked."""
    net = folded(model, size)
    image = torch.zeros(1, 3, size, size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(image)
    file = io.BytesIO()
    with torch.no_grad():
        torch.onnx.export(net, (image,), file, dynamo=False, opset_version=OPSET)  # type: ignore[arg-type]
    counted = cost_of_graph(onnx.load_model_from_string(file.getvalue())).macs
    truth = counter.get_total_flops() / 2
    if abs(counted / truth - 1) > tolerance:
        raise AssertionError(f"{counted:,} MACs counted at {size} px, torch counts {truth:,.0f}")
    return file.getvalue()


def published_top1(path: Path) -> dict[tuple[str, int], float]:
    """(model.tag, input size) -> top-1 as a fraction."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {(row["model"], int(row["img_size"])): float(row["top1"]) / 100 for row in rows}


class Kernels:
    """The distinct kernels of all students, each with its place."""

    def __init__(self) -> None:
        self.places: dict[tuple[int, ...], int] = {}

    def places_of(self, cost: Cost) -> list[int]:
        """Place of each kernel of a network, in order."""
        rows = [row_of(kernel) for kernel in cost.kernels]
        return [self.places.setdefault(row, len(self.places)) for row in rows]


def student(
    name: str, family: str, top1: dict[tuple[str, int], float], kernels: Kernels
) -> dict[str, Any]:
    """One student of the table."""
    config = timm.models.get_pretrained_cfg(name)
    assert config is not None and config.tag, name
    native = config.input_size[-1]
    model = timm.create_model(name, num_classes=CLASSES, exportable=True).eval()
    distinct_weights(model)
    sizes: dict[str, Any] = {}
    for size in SIZES:
        try:
            file = export(model, size, CONSTANT_PARTS.get(family, TOLERANCE))
        except (RuntimeError, ValueError) as error:  # too small a map for its windows
            print(f"{name} at {size} px: left out, {str(error).splitlines()[0]}", file=sys.stderr)
            continue
        cost = cost_of_graph(onnx.load_model_from_string(file))
        sizes[str(size)] = {
            "peak_act_elements": cost.peak_act_elements,
            "kernels": kernels.places_of(cost),
        }
    params = sum(p.numel() for p in model.parameters())
    small = timm.create_model(name, num_classes=CLASSES // 2, exportable=True)
    fewer = params - sum(p.numel() for p in small.parameters())
    return {
        "name": name,
        "family": family,
        "pretrained_tag": config.tag,
        "licence": config.license,
        "imagenet_top1": round(top1[f"{name}.{config.tag}", native], 5),
        "native_size": native,
        "params": params,
        "head_params_per_class": fewer // (CLASSES - CLASSES // 2),
        "stored_elements": cost.params,
        "feature_dim": cost.kernels[-1].channels_in,
        "graph_bytes": len(file) - 4 * cost.params,
        "operators": sorted(cost.operators),
        "sizes": sizes,
    }


def dumps(document: dict[str, Any]) -> str:
    """JSON with one student and one kernel a line."""
    lists = {"kernels", "students"}
    head = json.dumps({k: v for k, v in document.items() if k not in lists}, indent=1)[:-2]
    parts = [
        f' "{key}": [\n' + ",\n".join(json.dumps(row, separators=(",", ":")) for row in document[key])
        + "\n ]"
        for key in ("kernels", "students")
    ]  # fmt: skip
    return head + ",\n" + ",\n".join(parts) + "\n}\n"


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("results", type=Path, help="timm's results-imagenet.csv")
    parser.add_argument("--cite", required=True, help="where that table comes from")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--only", nargs="*", help="only these students, to try something")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    set_fused_attn(False)
    top1 = published_top1(args.results)
    kernels = Kernels()
    students = []
    for family, names in STUDENTS.items():
        for name in names:
            if args.only and name not in args.only:
                continue
            students.append(student(name, family, top1, kernels))
            print(f"{name}  {students[-1]['stored_elements']:,} elements", file=sys.stderr)
    document = {
        "schema": "edgedistill.students/2",
        "classes": CLASSES,
        "opset": OPSET,
        "made_with": {"timm": timm.__version__, "torch": str(torch.__version__).split("+")[0]},
        "top1_source": args.cite,
        "licence_source": "timm's pretrained configuration of the tag",
        "columns": list(COLUMNS),
        "kernels": [list(row) for row in kernels.places],
        "students": students,
    }
    args.out.write_text(dumps(document), "utf-8")


if __name__ == "__main__":
    main()
