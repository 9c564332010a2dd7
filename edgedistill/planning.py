"""Before any training: what a build needs here, which student fits, and what every `auto` becomes."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from edgedistill.athand import at_hand
from edgedistill.data.dataset import Dataset
from edgedistill.derive import (
    TeacherShape,
    Values,
    effort_values,
    limits_from,
    resolve,
    student_values,
)
from edgedistill.errors import MissingExtraError, UsageError
from edgedistill.recipe import Layered, Recipe
from edgedistill.result import Attempt, Plan
from edgedistill.rundir import sha256_file
from edgedistill.schema import TeacherSection
from edgedistill.target.device import Device
from edgedistill.target.plan import plan as plan_students
from edgedistill.target.prior import NOTHING, read_earlier

PARTS = {
    "torch": "train",
    "timm": "train",
    "safetensors": "train",
    "scipy": "train",
    "onnxruntime": "cpu",
}

TEACHER_FILES = (".json", ".safetensors", ".bin", ".pth", ".pt")


def require_parts(provider: str = "cpu") -> None:
    """Raise the error of what a build needs and is not here; better now than after training.

    `MissingExtraError` for a package, `UsageError` for an execution provider that this onnxruntime does not have.
    """
    for module, extra in PARTS.items():
        if find_spec(module) is None:
            raise MissingExtraError(f"a build ({module})", extra)
    if provider != "cpu":
        import onnxruntime
        from ontarget.session import PROVIDERS

        available = onnxruntime.get_available_providers()
        if PROVIDERS[provider] not in available:
            raise UsageError(
                f"--provider {provider} cannot run here: this onnxruntime has {', '.join(available)}. "
                'Use --provider cpu, or on a machine with an NVIDIA GPU pip install "edgedistill[gpu]" '
                "in the place of the cpu extra."
            )


def choose_student(
    layered: Layered, device: Device, dataset: Dataset, tried: Sequence[Attempt] = ()
) -> Plan:
    """The chosen student, before any training. Raises `BudgetError` when nothing fits."""
    limited = resolve(layered, limits_from(layered, device)).recipe
    return plan_students(
        device,
        limited.budget.limits(),
        classes=len(dataset.classes),
        student=limited.student.model,
        weights=limited.student.weights,
        input_size=limited.student.input_size,
        image_side=dataset.image_side,
        at_hand=at_hand(),
        tried=tried,
        earlier=read_earlier(Path(limited.plan.earlier)) if limited.plan.earlier else NOTHING,
    )


def make_plan(
    layered: Layered, device: Device, dataset: Dataset, tried: Sequence[Attempt] = ()
) -> tuple[Plan, Values]:
    """The chosen student and every derived value; this looks at the teacher and the machine, and needs torch."""
    planned = choose_student(layered, device, dataset, tried)
    return planned, values_for(layered, device, dataset, planned)


def values_for(layered: Layered, device: Device, dataset: Dataset, planned: Plan) -> Values:
    """Every derived value for the student that a plan has chosen; this needs torch."""
    limited = resolve(layered, limits_from(layered, device)).recipe
    teacher, gpu = _machine_and_teacher(limited)
    if limited.student.prune_from is not None:
        from edgedistill.distill.pruning import check_sibling

        check_sibling(limited.student.prune_from, planned.chosen.model)
    values = student_values(limited, planned)
    values |= effort_values(
        limited, planned, device, len(dataset.train), dataset.image_side, len(dataset.classes),
        teacher, gpu, len(dataset.unlabelled),
    )  # fmt: skip
    return values


def _machine_and_teacher(recipe: Recipe) -> tuple[TeacherShape, bool]:
    """The teacher's native size and whether an accelerator is here; this imports torch."""
    from edgedistill.nets import pick_device
    from edgedistill.teacher.shape import shape_of

    size, fixed = shape_of(recipe.teacher)
    return TeacherShape(size, fixed), pick_device().type != "cpu"


def teacher_files(section: TeacherSection) -> dict[str, str]:
    """SHA-256 of each local file that a teacher is loaded from; empty for those that have a name only."""
    files = [Path(section.weights)] if section.weights else []
    for name in (section.model, *section.others):
        kind, _, place = name.partition(":")
        path = Path(place).expanduser()
        if kind == "onnx":
            files.append(path)
        elif kind in ("local-dir", "hf") and path.is_dir():
            files += [found for found in sorted(path.glob("*")) if found.suffix in TEACHER_FILES]
    return {str(path): sha256_file(path) for path in files if path.is_file()}
