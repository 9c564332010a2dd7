"""`model_card.md`: what the student is, how made, how far to trust it; in the hub's format."""

from __future__ import annotations

import re
from typing import Any

import yaml

from edgedistill.evidence.view import figures
from edgedistill.evidence.view.comparisons import DISTILLED, SYNTHETIC, other_remarks
from edgedistill.evidence.view.markdown import (
    arms_table,
    artifacts_table,
    comparison_lines,
    costs_table,
    latency_lines,
    limits_table,
    name,
    prose,
    seeds_table,
    synthetic_lines,
    table,
    teacher_lines,
)
from edgedistill.evidence.view.sections import chosen, licence_parts
from edgedistill.result import Result

_KNOWN_LICENCES = {
    "apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0",
    "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "gpl-3.0", "lgpl-3.0", "mpl-2.0",
}  # fmt: skip
_HUB = re.compile(r"^hf-hub:([A-Za-z0-9][\w.-]*/[\w.-]+)", re.ASCII)
_DATA = re.compile(r"^hf-dataset:([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)", re.ASCII)
LOCAL = "imagefolder"
"""The hub's own word for images that are no data set of it."""


def _licence(result: Result) -> dict[str, Any]:
    """The licence keys: one of the hub's list, `unknown` where none is stated, else `other` with a name for it."""
    stated = (result.student.licence or "").strip()
    if not stated:
        return {"license": "unknown"}
    if stated.lower() in _KNOWN_LICENCES:
        return {"license": stated.lower()}
    slug = re.sub(r"[^a-z0-9.]+", "-", stated.lower()).strip("-.")[:60].strip("-.")
    return {"license": "other", "license_name": slug or "see-below"}


def _metrics(result: Result) -> list[dict[str, Any]]:
    artifact = chosen(result)
    if artifact is None or artifact.top1 is None:
        return []
    note = f"top-1, {artifact.top1.n} images, 95 % interval {figures.interval(artifact.top1)}"
    found = [{"type": "accuracy", "value": artifact.top1.value, "name": note}]
    if artifact.balanced_accuracy is not None:
        value = artifact.balanced_accuracy
        found.append({"type": "balanced_accuracy", "value": value, "name": "balanced accuracy"})
    return found


def front_matter(result: Result) -> dict[str, Any]:
    """The YAML header as data."""
    taught = ["knowledge-distillation"] if result.chosen_arm in (DISTILLED, SYNTHETIC) else []
    header: dict[str, Any] = {
        **_licence(result),
        "library_name": "onnx",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", *taught, "onnx", "edge", "edgedistill"],
    }
    hub = _HUB.match(result.student.weights_source)
    if result.student.weights == "pretrained" and hub:
        header["base_model"] = hub[1]
    data = _DATA.match(result.data.source)
    if data:
        header["datasets"] = [data[1]]
    metrics = _metrics(result)
    header["metrics"] = [metric["type"] for metric in metrics]
    if metrics:
        of = {"name": figures.short(result.data.name), "type": data[1] if data else LOCAL}
        header["model-index"] = [
            {
                "name": figures.short(result.run),
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {**of, "split": "test"},
                        "metrics": metrics,
                    }
                ],
            }
        ]
    return header


def _classes(result: Result) -> str:
    shown = [name(c) for c in result.data.classes[:50]]
    rest = len(result.data.classes) - len(shown)
    return ", ".join(shown) + (f" and {rest:,} more (labels.txt)" if rest > 0 else "")


def _use(result: Result) -> list[str]:
    device = name(str(result.device.get("name", "unknown")))
    return [
        "## Intended use",
        f"Classify one image into one of {len(result.data.classes):,} classes on {device}. "
        f"Classes: {_classes(result)}.",
        "## Limits",
        "- It knows these classes only and gives one of them for any image, also for one that "
        "shows none of them.\n"
        f"- The numbers hold for images like those of {name(result.data.name)}; other cameras, "
        "light or backgrounds need their own test.\n"
        "- A latency holds for the machine, runtime and threads beside it; one that is marked "
        "predicted has not been measured on the device.\n"
        "- The confidence of the model is not calibrated for decisions about safety.",
    ]


def _training(result: Result) -> list[str]:
    student, teacher, data = result.student, result.teacher, result.data
    start = f"{student.weights} weights ({name(student.weights_source)})"
    lines = [
        f"- Student: {name(student.model)} at {student.input_size} px, "
        f"{figures.magnitude(student.params)} parameters, {figures.magnitude(student.macs)} "
        f"multiply-accumulates, from {start}. {prose(student.weights_reason)}",
        f"- Teacher: {name(teacher.model)}, {prose(teacher.adaptation)}, top-1 "
        f"{figures.accuracy(teacher.top1)} ({figures.interval(teacher.top1)}, "
        f"{teacher.top1.n:,} images). {prose(teacher.words)}",
        *[f"  - {line}" for line in teacher_lines(result)],
        *synthetic_lines(result),
        f"- Data: {name(data.name)}: {data.train:,} training, {data.val:,} validation and "
        f"{data.test:,} test images; {figures.beside(data)}. {prose(data.split)}",
        f"- The weights are those of the arm {name(result.chosen_arm)}; seed {result.seed}.",
    ]
    tables = [arms_table(result), seeds_table(result), costs_table(result)]
    return ["## How it was trained", "\n".join(lines), *comparison_lines(result), *tables]


def _licences(result: Result) -> str:
    cells = [
        [part, name(which), prose(held or "not stated")]
        for part, which, held in licence_parts(result)
    ]
    return table(["Part", "Which", "Licence"], cells)


def _origin(result: Result) -> str:
    student, teacher = name(result.student.model), name(result.teacher.model)
    if result.chosen_arm in (DISTILLED, SYNTHETIC):
        more = " with synthetic images beside the real ones"
        more = more if result.chosen_arm == SYNTHETIC else ""
        return f"distilled from {teacher} into {student}{more}"
    return f"{student} trained on labels alone: distillation from {teacher} was not better on validation images"


def model_card(result: Result) -> str:
    """The model card: YAML front matter, then Markdown; ends with a newline."""
    header = yaml.safe_dump(front_matter(result), sort_keys=False, allow_unicode=True, width=100)
    verdict = result.verdict
    status = figures.STATUS_WORD[verdict.status]
    blocks = [
        f"---\n{header}---",
        f"# {name(result.run)}",
        f"An image classifier for {name(str(result.device.get('name', 'unknown')))}, {_origin(result)}.",
        f"**{status}**: {prose(verdict.sentence)}",
        limits_table(result),
        *[f"> {prose(remark)}" for remark in other_remarks(result)],
        *_use(result),
        "## Files",
        artifacts_table(result),
        f"{name(result.chosen)} ships: {prose(result.chosen_reason)}",
        "## Latency",
        *latency_lines(result),
        *_training(result),
        "## Licences",
        _licences(result),
        "## Reproduce",
        f"{name(result.command, 1000)} with edgedistill {name(result.version)}.",
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"
