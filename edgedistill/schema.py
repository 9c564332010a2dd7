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
    randaugment: float = _f(
        0.0, "Magnitude of RandAugment (2 of 14 changes; 0: none).", ge=0, le=10
    )
    erasing: float = _f(0.0, "Probability that a rectangle of a view is erased.", ge=0, le=1)
    mix: Literal["none", "mixup", "cutmix"] | Auto = _f("auto", "Views made of two images.")
    mix_alpha: float = _f(1.0, "Beta(a, a) of the share that the second image gets.", gt=0, le=10)
    max_train: int | None = _f(None, "Use at most this many training images.", ge=1)
    unlabelled: str | None = _f(
        None, "Further images without labels, that only the teacher speaks about."
    )
    max_unlabelled: int | None = _f(None, "Use at most this many unlabelled images.", ge=1)
    licence: str | None = _f(None, "Licence of the images, for the model card.")


class TeacherSection(Section):
    """Who teaches, and how it learns the task."""

    model: str = _f(
        "bundled:efficientnet_lite2", "bundled:, timm name, hf-hub:, hf:, local-dir: or onnx:."
    )
    others: list[str] = _f([], "More teachers beside `model`, named as it is.", max_length=8)
    combine: Literal["ensemble", "ladder", "select"] = _f(
        "ensemble", "Several teachers: averaged, one after the other, or the best for the student."
    )
    weights: str | None = _f(None, "Local checkpoint (.safetensors or .pth) for `model`.")
    revision: str | None = _f(None, "Hub revision (branch, tag or commit) to pin.")
    adapt: Literal["auto", "none", "zero_shot", "probe", "finetune"] = _f(
        "auto", "How it learns the task."
    )
    checkpoints: Annotated[int, Field(ge=0, le=20)] | Auto = _f(
        "auto", "Early states of fine-tuning that are kept, for a curriculum."
    )
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

    def each(self) -> list[TeacherSection]:
        """A section for each teacher: `model`, then `others`, without what is of the file of `model` alone."""
        alone = self.model_copy(update={"others": []})
        own = {"weights": None, "revision": None, "licence": None}
        return [alone, *(alone.model_copy(update={"model": name, **own}) for name in self.others)]


class StudentSection(Section):
    """Who is taught; `auto` is what planning chooses."""

    model: str = _f("auto", "A student of the table, or auto: the best that fits.")
    weights: Literal["auto", "pretrained", "random"] = _f("auto", "Where the student starts.")
    input_size: Annotated[int, Field(ge=32, le=512)] | Auto = _f("auto", "Square input in pixels.")
    prune_from: str | None = _f(
        None, "Wider sibling with pretrained weights that is pruned to the student while it learns."
    )
    prune_weights: str | None = _f(None, "Local checkpoint for `prune_from`; else its own weights.")


class PlanSection(Section):
    """How planning goes on when a candidate does not keep its promise."""

    max_attempts: int = _f(
        3, "Candidates that are built until one keeps its size, latency and memory.", ge=1, le=20
    )
    earlier: str | None = _f(None, "Folder with run folders whose results shift the ranking.")


Method = Literal[
    "align_uniform", "kd", "dkd", "dist", "crd", "info_nce", "cosine", "mse", "soft", "hard",
    "function_matching",
]  # fmt: skip
Weight = Annotated[float, Field(ge=0)] | Auto


class WeightsSection(Section):
    """Weight of each term of the loss; `auto` is what `distill.method` says."""

    ce: Weight = _f("auto", "Cross entropy on the labels.")
    kd: Weight = _f("auto", "KL divergence of softened logits (Hinton et al. 2015).")
    dkd: Weight = _f("auto", "Decoupled KD (Zhao et al. 2022).")
    dist: Weight = _f("auto", "Correlations between and within classes (Huang et al. 2022).")
    hard: Weight = _f("auto", "Cross entropy on the teacher's answer (Touvron et al. 2021).")
    soft: Weight = _f("auto", "Cross entropy on the teacher's probabilities.")
    logit_mse: Weight = _f("auto", "Squared difference of logits (Ba & Caruana 2014).")
    align_uniform: Weight = _f("auto", "Alignment and uniformity (Farhat & Chen 2024).")
    info_nce: Weight = _f("auto", "Contrast within the batch.")
    crd: Weight = _f("auto", "Contrast with a memory bank (Tian et al. 2020).")
    cosine: Weight = _f("auto", "Angle between features.")
    mse: Weight = _f("auto", "Squared difference of features.")


class DistillSection(Section):
    """How both arms are trained; constants as in the papers."""

    method: Method = _f("align_uniform", "Which loss; sets the weights that are left open.")
    weights: WeightsSection = WeightsSection()
    weight_schedule: Literal["auto", "constant", "linear", "cosine", "wsd", "warmup"] = _f(
        "auto", "How the weights of the teacher's terms move over the run."
    )
    temperature: Annotated[float, Field(gt=0, le=100)] | Auto = _f(
        "auto", "Softening of logits in kd, dkd, dist and soft."
    )
    believe_top_k: Annotated[int, Field(ge=1)] | None = _f(
        None, "Learn from the teacher's K likeliest classes alone (kd, dkd, dist, soft)."
    )
    believe_top_p: Annotated[float, Field(gt=0, le=1)] | None = _f(
        None, "Learn from its likeliest classes alone that together have this probability."
    )
    projector: Literal["mocov2", "linear", "simclr", "simclrv2"] = _f(
        "linear", "Map from features to the shared embedding of align_uniform and info_nce."
    )
    projection_dim: int = _f(128, "Width of the shared embedding.", ge=2, le=4096)
    align_alpha: float = _f(2.0, "Power of the alignment distance.", gt=0, le=8)
    uniform_t: float = _f(2.0, "Scale of the uniformity kernel.", gt=0, le=20)
    contrast_temperature: float = _f(0.07, "Temperature of info_nce and crd.", gt=0, le=10)
    crd_negatives: int = _f(4096, "Negatives of each image in crd.", ge=1, le=65_536)
    dkd_alpha: float = _f(1.0, "Weight of the target class in dkd.", ge=0, le=100)
    dkd_beta: float = _f(8.0, "Weight of the other classes in dkd.", ge=0, le=100)
    epochs: Annotated[int, Field(ge=1, le=10_000)] | Auto = _f("auto", "Epochs of each arm.")
    batch_size: Annotated[int, Field(ge=2, le=65_536)] | Auto = _f(
        "auto", "Images a step, over all processes."
    )
    optimizer: Literal["adamw", "sgd"] = _f("adamw", "AdamW, or SGD with momentum 0.9.")
    lr: Annotated[float, Field(gt=0, le=10)] | Auto = _f("auto", "Peak learning rate.")
    lr_schedule: Literal["cosine", "wsd", "constant"] = _f(
        "cosine", "After the warm-up: a cosine to 0, a plateau and a short decay, or no change."
    )
    warmup: float = _f(0.15, "Share of the steps that warm up.", ge=0, lt=1)
    weight_decay: float = _f(0.01, "Decay of matrices.", ge=0, le=1)
    clip: Annotated[float, Field(gt=0)] | Auto | None = _f("auto", "Largest norm of the gradient.")
    ema: float = _f(0.0, "Decay a step of averaged weights (0: the last weights ship).", ge=0, lt=1)
    layer_decay: float = _f(1.0, "Rate of each group of layers as a share of the next.", gt=0, le=1)
    frozen_norm: bool | Auto = _f("auto", "Keep BatchNorm statistics as they were pretrained.")
    frozen_share: Annotated[float, Field(ge=0, lt=1)] | Auto = _f(
        "auto", "Share of the layers, from the input on, that keep their weights."
    )
    precision: Literal["auto", "float32", "bfloat16"] = _f("auto", "Arithmetic of training.")
    compile: bool = _f(False, "Compile the student (pays on GPUs and in long runs).")
    first_size: float = _f(
        1.0, "Side of the first epochs' views as a share; it grows to 1.", ge=0.25, le=1
    )
    patience: Annotated[int, Field(ge=1)] | None = _f(
        None, "Stop after this many epochs without a better validation top-1; the best one ships."
    )
    targets: Literal["auto", "stored", "live"] = _f(
        "auto", "Teacher outputs: stored once for each view, or computed at each step."
    )
    views: Annotated[int, Field(ge=1, le=10_000)] | Auto = _f(
        "auto", "Different views of each training image."
    )
    top_k: Annotated[int, Field(ge=1, le=65535)] | Auto | None = _f(
        "auto", "Stored logits of each view: the K largest, or all (null)."
    )
    curriculum: Literal["none", "teacher_checkpoints"] = _f(
        "none", "Learn from early states of the teacher first."
    )
    warmup_align: bool = _f(False, "First weigh up images on which student and teacher disagree.")
    hard_samples: bool = _f(False, "End on images that the teacher has right and the student not.")
    influence: bool = _f(False, "Weigh images by how their gradient agrees with that of others.")


class SynthSection(Section):
    """Synthetic images to learn from beside the real ones; they have an arm of their own."""

    images: Annotated[int, Field(ge=0, le=10_000_000)] | Auto = _f(
        0, "Synthetic images to keep (0: none; auto: some where images are short)."
    )
    generator: str | None = _f(
        None,
        "A diffusers folder, or the id of a diffusers model on a hub [the built-in images have one].",
    )
    kind: Literal["auto", "text_to_image", "image_to_image", "class_conditional"] = _f(
        "auto", "What the generator is asked by."
    )
    revision: str | None = _f(None, "Hub revision (branch, tag or commit) to pin.")
    steps: int | None = _f(None, "Steps of an image [the pipeline's own].", ge=1, le=1000)
    guidance: float | None = _f(None, "Classifier-free guidance [the pipeline's].", ge=0, le=50)
    strength: float = _f(0.6, "How far a variation goes from its image.", gt=0, le=1)
    size: int | None = _f(None, "Side of an image in pixels [the pipeline's].", ge=8, le=4096)
    domain: Literal["photo", "scene", "texture", "product"] = _f("photo", "Templates of prompts.")
    prompts: str | None = _f(None, "File with your own templates and names (YAML).")
    batch: int | None = _f(None, "Images made at once [what fits].", ge=1, le=4096)
    tries: float = _f(3.0, "Images made for each one to keep, at most.", ge=1, le=100)
    filter: bool = _f(True, "Drop what the teacher does not surely see as its class.")
    distinct: bool = _f(True, "Drop copies of real images, and near-duplicates.")
    share: Annotated[float, Field(gt=0, lt=1)] | Auto = _f(
        "auto", "Share of each batch that is synthetic."
    )
    schedule: Literal["mixed", "first"] = _f(
        "mixed", "The same share all along, or synthetic images first and real ones last."
    )
    label_weight: float = _f(1.0, "Weight of a prompt's class beside a label's 1.", ge=0, le=1)
    soft_targets: bool = _f(
        True, "What the teacher sees is taught; else the prompt's class in its place."
    )
    licence: str | None = _f(None, "Licence of the generator where its card does not say.")


class ProofSection(Section):
    """What shows that the teaching helped."""

    seeds: int = _f(1, "Runs of each arm, with seeds one after the other.", ge=1, le=20)
    equal_seconds: bool = _f(
        False, "A plain arm that trains as long as the distilled one took in all."
    )
    arms: list[Literal["linear_probe", "finetune"]] = _f(
        [], "More arms: other ways to use the student's pretrained weights.", max_length=2
    )


class ExportSection(Section):
    """What the ONNX files take, and how they are checked."""

    input: Literal["auto", "uint8_nhwc", "float_nchw"] = _f("auto", "What the graph takes.")
    opset: Annotated[int, Field(ge=13, le=20)] | Auto = _f("auto", "ONNX opset.")
    batch: Annotated[int, Field(ge=1, le=1024)] | None = _f(
        None, "Images of a batch, the same for each run [any number]."
    )
    parity_images: int = _f(256, "Real images for the comparison with torch.", ge=1, le=10_000)
    eval_images: int = _f(2000, "Test images packed for the board (0: none).", ge=0)


class QuantizeSection(Section):
    """How INT8 is made, and what it may lose."""

    calibration_images: int = _f(256, "Training images that set the INT8 ranges.", ge=8, le=10_000)
    method: Literal["auto", "minmax", "percentile", "entropy", "mse"] = _f(
        "auto", "How ranges are found; auto tries all, equalises and corrects biases."
    )
    max_drop: Fraction = _f(0.01, "Validation top-1 that INT8 may lose (budget's drop if less).")
    tune_steps: int = _f(
        300, "Steps of training in INT8 where nothing else is enough (0: none).", ge=0, le=100_000
    )


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
    synth: SynthSection = SynthSection()
    distill: DistillSection = DistillSection()
    proof: ProofSection = ProofSection()
    export: ExportSection = ExportSection()
    quantize: QuantizeSection = QuantizeSection()
    bench: BenchSection = BenchSection()

    def int8_drop(self) -> float:
        """The validation top-1 that INT8 may lose: the quantizer's, or the budget's where that is less."""
        drops = (self.quantize.max_drop, self.budget.max_top1_drop)
        return min(drop for drop in drops if drop is not None)
