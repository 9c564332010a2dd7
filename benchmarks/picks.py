"""Which published tables stand for which device profile, and what is known where none does."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.published import DataSet

FAMILY_NAMES = {
    "mobilenet_v1": "mobilenetv1", "mobilenet_v2": "mobilenetv2", "mobilenet_v3": "mobilenetv3",
    "efficientnet_b": "efficientnet", "regnety": "regnet",
}  # fmt: skip
STUDENTS = {
    "mobilenet_v1_1.0_224": "mobilenetv1_100", "mobilenet_v2_0.5_224": "mobilenetv2_050",
    "mobilenet_v2_1.0_224": "mobilenetv2_100", "mobilenet_v2_1.4_224": "mobilenetv2_140",
    "tv:mobilenet_v2": "mobilenetv2_100", "tv:mnasnet1_0": "mnasnet_100", "tv:resnet18": "resnet18",
    "mobilenet_v3_large_1.0_224": "mobilenetv3_large_100", "mobilenet_v3_large_0.75_224": "tf_mobilenetv3_large_075",
    "mobilenet_v3_large_min_1.0_224": "tf_mobilenetv3_large_minimal_100",
    "mobilenet_v3_small_1.0_224": "mobilenetv3_small_100", "mobilenet_v3_small_0.75_224": "mobilenetv3_small_075",
    "mobilenet_v3_small_min_1.0_224": "tf_mobilenetv3_small_minimal_100",
    "efficientnet_lite0": "tf_efficientnet_lite0", "efficientnet_lite1": "tf_efficientnet_lite1",
    "efficientnet_lite2": "tf_efficientnet_lite2", "efficientnet_lite3": "tf_efficientnet_lite3",
    "timm:efficientnet_b0": "efficientnet_b0", "timm:regnety_002": "regnety_002", "timm:regnety_004": "regnety_004",
    "timm:regnety_006": "regnety_006", "timm:mobilenetv4_conv_small_224": "mobilenetv4_conv_small",
}  # fmt: skip


@dataclass(frozen=True)
class Pick:
    """Data sets by device, start of the runtime, precision, and threads where several were published."""

    device: str
    runtime: str
    precision: str
    threads: str | None = None

    def takes(self, one: DataSet) -> bool:
        """Whether a data set is meant."""
        return (
            one.device.startswith(self.device)
            and one.runtime.startswith(self.runtime)
            and one.precision.startswith(self.precision)
            and self.threads in (None, one.threads)
        )


@dataclass(frozen=True)
class Carried:
    """A profile's precision from data sets of its own board, or (`other`) of a related one."""

    device: str
    precision: str
    picks: tuple[Pick, ...]
    factor: float = 1.0
    other: str = ""


def _tflite(
    profile: str, board: str, *runtimes: str, other: str = "", factor: float = 1.0
) -> list[Carried]:
    pairs = (("float32", "fp32"), ("int8", "int8"))
    return [
        Carried(profile, ours, tuple(Pick(board, r, theirs) for r in runtimes), factor, other)
        for ours, theirs in pairs
    ]


DIRECT = (
    ("jetson-nano", "float16", Pick("jetson-nano", "torch2trt", "fp16")),
    ("jetson-agx-xavier", "float16", Pick("jetson-agx-xavier", "torch2trt", "fp16")),
    ("jetson-xavier-nx", "float16", Pick("jetson-xavier-nx", "TensorRT hw", "fp16")),
    ("t4", "float16", Pick("t4", "TensorRT hw", "fp16")),
)
CARRIED = (
    *_tflite("raspberry-pi-3", "rpi3", "TFLite 2.7.1"),
    *_tflite("raspberry-pi-4", "rpi4b", "TFLite 2.7.1", "ArmNN"),
    *_tflite("rk3588", "rk3588s (Firefly)", "TFLite 2.11"),
    *_tflite(
        "raspberry-pi-5",
        "rk3588s (Firefly)",
        "TFLite 2.11",
        other="RK3588S, four of the same cores",
    ),
    *_tflite("graviton3", "aws-m7g", "TFLite xnnpack"),
    *_tflite("laptop-x86", "ryzen5-5625u", "TFLite xnnpack"),
    *_tflite(
        "x86-cpu", "aws-c5.4xlarge", "TFLite xnnpack", other="a server processor with AVX-512"
    ),
    Carried("raspberry-pi-zero-2w", "float32", (Pick("rpi-zero2w", "ncnn-cpu", "fp32", "4"),)),
    Carried(
        "raspberry-pi-zero-2w",
        "int8",
        (Pick("rpi3", "TFLite 2.7.1", "int8"),),
        1.2,
        "Raspberry Pi 3 by clock",
    ),
    Carried("intel-n5105", "float32", (Pick("intel-n5105", "ncnn-cpu", "fp32", "4"),)),
    Carried("intel-n5105", "int8", (Pick("intel-n5105", "ncnn-cpu", "int8", "4"),)),
    Carried(
        "intel-n100",
        "float32",
        (Pick("intel-n5105", "ncnn-cpu", "fp32", "4"),),
        0.85,
        "N5105 by clock",
    ),
    Carried(
        "intel-n100",
        "int8",
        (Pick("intel-n5105", "ncnn-cpu", "int8", "4"),),
        0.85,
        "N5105 by clock",
    ),
    Carried(
        "rk3566",
        "float32",
        (Pick("rk3566 (OrangePi CM4)", "ncnn-cpu", "fp16", "4"),),
        1.6,
        "its float16",
    ),
    Carried("rk3566", "int8", (Pick("rk3566 (OrangePi CM4)", "ncnn-cpu", "int8", "4"),)),
    Carried("pixel-4", "float32", (Pick("sd855+", "ncnn-cpu", "fp16", "1"),), 1.6, "its float16"),
    Carried("pixel-4", "int8", (Pick("sd855+", "ncnn-cpu", "int8", "1"),)),
    Carried("pixel-6", "float32", (Pick("pixel6", "TFLite XNNPACK CPU", "int8"),), 2.3, "its INT8"),
    Carried("pixel-6", "int8", (Pick("pixel6", "TFLite XNNPACK CPU", "int8"),)),
    Carried(
        "pixel-8",
        "float32",
        (Pick("pixel6", "TFLite XNNPACK CPU", "int8"),),
        1.9,
        "INT8 of Pixel 6",
    ),
    Carried("pixel-8", "int8", (Pick("pixel6", "TFLite XNNPACK CPU", "int8"),), 0.85, "Pixel 6"),
)
ORIN_OVERHEAD_S = 30e-6
"""Overhead a kernel of Orin Nano and NX: as on Xavier NX and AGX Xavier, since it follows no data sheet."""
AGX_ORIN_OVERHEAD_S = 17e-6
"""Left of EfficientViT-B2 on AGX Orin (mit-han-lab/efficientvit@33e23b0) with scaled rates; MobileViT-S leaves 10."""
SERVER_OVERHEAD_S = 8.8e-6
"""As fitted on a T4 host (super-gradients model_zoo.md@e0ccacf)."""
SCALED = {
    "jetson-orin-nano-4gb": ORIN_OVERHEAD_S, "jetson-orin-nano-8gb": ORIN_OVERHEAD_S,
    "jetson-orin-nano-4gb-super": ORIN_OVERHEAD_S, "jetson-orin-nano-8gb-super": ORIN_OVERHEAD_S,
    "jetson-orin-nx-8gb": ORIN_OVERHEAD_S, "jetson-orin-nx-16gb": ORIN_OVERHEAD_S,
    "jetson-orin-nx-16gb-super": ORIN_OVERHEAD_S, "jetson-agx-orin-32gb": AGX_ORIN_OVERHEAD_S,
    "jetson-agx-orin-64gb": AGX_ORIN_OVERHEAD_S, "l4": SERVER_OVERHEAD_S, "jetson-tx2": 73e-6,
}  # fmt: skip
