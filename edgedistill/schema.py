"""What a recipe may say: every section and key with its default, its bounds and one sentence. Frozen and closed."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from edgedistill.document import Fraction
from edgedistill.result import Limits

BUILTIN_DATA = "builtin:fashion-mnist"
Auto = Literal["auto"]
MAX_BYTES = 10**15
"""No file and no memory has more; beyond this a limit is a slip of the keyboard."""


class Section(BaseModel):
    """Part of a recipe: frozen; an unknown key, infinity and a yes for a number are errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML reads `yes` as true, and Python takes true for 1."""
        annotation = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and bool not in (annotation, *get_args(annotation)):
            raise PydanticCustomError("no_truth", "true and false are no values here")
        return value


def _f(default: Any, text: str, **limits: Any) -> Any:
    return Field(default=default, description=text, **limits)


class DataSection(Section):
    """What the student sees, and how it is split."""

    source: str = _f(
        BUILTIN_DATA, "Folder, .tar shards, .parquet, .csv, hf-dataset:OWNER/NAME, built-in set."
    )
    image_column: str | None = _f(None, "Column of the images (shards: suffix); else found.")
    label_column: str | None = _f(None, "Column of the labels (shards: key in .json); else found.")
    val_fraction: float = _f(0.15, "Share for validation where the data has none.", gt=0, lt=0.5)
    test_fraction: float = _f(0.2, "Share for testing where the data has none.", gt=0, lt=0.5)
    max_bad_fraction: float = _f(0.1, "More undecodable files than this is an error.", ge=0, le=1)
    max_pixels: int = _f(100_000_000, "Images with more pixels are left out.", ge=1)
    flip: bool = _f(True, "Mirror training views left to right.")
    min_crop: float = _f(0.8, "Smallest area of a training crop, as a share.", gt=0, le=1)
    max_train: int | None = _f(None, "Use at most this many training images.", ge=1)
    unlabelled: str | None = _f(
        None, "Further images without labels, that only the teacher speaks about."
    )
    max_unlabelled: int | None = _f(None, "Use at most this many unlabelled images.", ge=1)
    licence: str | None = _f(None, "Licence of the images, for the model card.")


class TeacherSection(Section):
    """Who teaches, and how it learns the task."""

    model: str = _f("bundled:efficientnet_lite2", "bundled:, timm name, hf-hub: or local-dir:.")
    weights: str | None = _f(None, "Local checkpoint (.safetensors or .pth) for `model`.")
    revision: str | None = _f(None, "Hub revision (branch, tag or commit) to pin.")
    adapt: Literal["auto", "none", "probe", "finetune"] = _f("auto", "How it learns the task.")
    input_size: Annotated[int, Field(ge=32, le=1024)] | Auto = _f("auto", "Square input in pixels.")
    epochs: Annotated[int, Field(ge=0, le=1000)] | Auto = _f("auto", "Epochs of fine-tuning.")
    batch_size: int = _f(32, "Images a step of fine-tuning.", ge=2, le=4096)
    lr: float = _f(3e-4, "Peak rate of fine-tuning (AdamW, warm-up, cosine).", gt=0, le=1)
    label_smoothing: float = _f(0.1, "Share of each label spread over all classes.", ge=0, lt=1)
    frozen_norm: bool = _f(True, "Keep BatchNorm statistics as they were pretrained.")
    frozen_share: Annotated[float, Field(ge=0, lt=1)] | Auto = _f(
        "auto", "Share of the layers, from the input on, that keep their weights."
    )
    body_lr_ratio: float = _f(1.0, "Body's learning rate as a share of the head's.", ge=0, le=1)
    licence: str | None = _f(None, "Licence of the weights where the hub does not say.")


class StudentSection(Section):
    """Who is taught; `auto` is what planning chooses."""

    model: str = _f("auto", "A student of the table, or auto: the best that fits.")
    weights: Literal["auto", "pretrained", "random"] = _f("auto", "Where the student starts.")
    input_size: Annotated[int, Field(ge=32, le=512)] | Auto = _f("auto", "Square input in pixels.")


class PlanSection(Section):
    """How planning goes on when a candidate does not keep its promise."""

    max_attempts: int = _f(
        3, "Candidates that are built until one keeps its size, latency and memory.", ge=1, le=20
    )
    earlier: str | None = _f(None, "Folder with run folders whose results shift the ranking.")


class DistillSection(Section):
    """How both arms are trained; constants as in the method's paper."""

    epochs: Annotated[int, Field(ge=1, le=10_000)] | Auto = _f("auto", "Epochs of each arm.")
    batch_size: int = _f(32, "Images a step.", ge=2, le=4096)
    lr: Annotated[float, Field(gt=0, le=1)] | Auto = _f(
        "auto", "Peak learning rate (AdamW, warm-up then cosine)."
    )
    frozen_norm: bool | Auto = _f("auto", "Keep BatchNorm statistics as they were pretrained.")
    frozen_share: Annotated[float, Field(ge=0, lt=1)] | Auto = _f(
        "auto", "Share of the layers, from the input on, that keep their weights."
    )
    weight_decay: float = _f(0.01, "AdamW weight decay.", ge=0, le=1)
    warmup: float = _f(0.15, "Share of the steps that warm up.", ge=0, lt=1)
    ce: float = _f(1.0, "Weight of cross entropy on the labels.", ge=0)
    kd: float = _f(1.0, "Weight of the KL term on softened logits.", ge=0)
    align_uniform: float = _f(1.0, "Weight of the Alignment/Uniformity term.", ge=0)
    temperature: float = _f(4.0, "Softening of both logits in the KL term.", gt=0, le=100)
    align_alpha: float = _f(2.0, "Power of the alignment distance.", gt=0, le=8)
    uniform_t: float = _f(2.0, "Scale of the uniformity kernel.", gt=0, le=20)
    projection_dim: int = _f(128, "Width of the shared embedding.", ge=2, le=4096)
    views: Annotated[int, Field(ge=1, le=1000)] | Auto = _f(
        "auto", "Stored views of each training image."
    )


class ExportSection(Section):
    """What the ONNX files take, and how they are checked."""

    input: Literal["auto", "uint8_nhwc", "float_nchw"] = _f("auto", "What the graph takes.")
    opset: Annotated[int, Field(ge=13, le=20)] | Auto = _f("auto", "ONNX opset.")
    parity_images: int = _f(256, "Real images for the comparison with torch.", ge=1, le=10_000)
    eval_images: int = _f(2000, "Test images packed for the board (0: none).", ge=0)


class QuantizeSection(Section):
    """How INT8 is made, and what it may lose."""

    calibration_images: int = _f(256, "Training images that set the INT8 ranges.", ge=8, le=10_000)
    method: Literal["minmax", "entropy", "percentile"] = _f("minmax", "How ranges are found.")
    max_drop: Fraction = _f(0.01, "Validation top-1 that INT8 may lose (budget's drop if less).")


class BenchSection(Section):
    """How latency is measured on this machine."""

    provider: Literal["cpu", "cuda", "tensorrt"] = _f("cpu", "Execution provider measured here.")
    min_seconds: float = _f(1.0, "Least seconds of each timed run.", gt=0, le=3600)
    min_runs: int = _f(130, "Least number of timed runs.", ge=11, le=1_000_000)


class BudgetSection(Section):
    """The limits; what is not given comes from the device's profile, `null` there is no limit."""

    latency_s: float | None = _f(None, "Seconds for one image at batch 1.", gt=0, le=3600)
    size_bytes: int | None = _f(None, "Bytes of the chosen model file.", gt=0, le=MAX_BYTES)
    memory_bytes: int | None = _f(
        None, "Peak bytes of the process that runs it.", gt=0, le=MAX_BYTES
    )
    min_top1: float | None = _f(None, "Least top-1 on test, as a fraction.", gt=0, le=1)
    max_top1_drop: float | None = _f(None, "Most top-1 lost by conversion.", ge=0, le=1)

    def limits(self) -> Limits:
        """The same limits for the result document."""
        return Limits(**self.model_dump())


class Recipe(Section):
    """What to build. Every field has a default; `auto` is derived, with a reason."""

    name: str | None = _f(None, "Name of the run.", max_length=100)
    seed: int = _f(0, "Seed of all randomness.", ge=0, le=2**31 - 1)
    device: str = _f("host", "Profile name, alias or a path to a profile.")
    budget: BudgetSection = BudgetSection()
    data: DataSection = DataSection()
    teacher: TeacherSection = TeacherSection()
    student: StudentSection = StudentSection()
    plan: PlanSection = PlanSection()
    distill: DistillSection = DistillSection()
    export: ExportSection = ExportSection()
    quantize: QuantizeSection = QuantizeSection()
    bench: BenchSection = BenchSection()
