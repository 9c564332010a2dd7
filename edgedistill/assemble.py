"""Puts the result document together from what the stages left. Counting and comparing only; nothing runs a model."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from ontarget.machine import machine

from edgedistill import __version__, metrics
from edgedistill.evidence import bench as kit
from edgedistill.evidence.gate import Facts, judge
from edgedistill.result import (
    Arm,
    Artifact,
    Calibration,
    CurvePoint,
    Data,
    Environment,
    Example,
    Gain,
    Latency,
    Parity,
    Precision,
    Result,
    StageTime,
    Student,
    Table,
    Teacher,
)
from edgedistill.rundir import git_commit, now_utc, python_version, sha256_file, versions
from edgedistill.target.device import device_to_dict
from edgedistill.target.students import find_student

if TYPE_CHECKING:
    from edgedistill.learning import Build
    from edgedistill.shipping import Shipping

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
EXAMPLES = 12
FEW_TEST_IMAGES = 100
"""Under this many, the 95 % interval of an accuracy is wider than 10 points on each side at worst."""
PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "int8")


@dataclass(frozen=True)
class Inputs:
    """Both halves of a build, every stage done."""

    learn: Build
    ship: Shipping


@dataclass(frozen=True)
class Outcome:
    """Logits on the test images (N, C) of each network and each file, with labels (N,)."""

    networks: Mapping[str, Floats]
    files: Mapping[str, Floats]
    labels: Ints

    def right(self, name: str) -> npt.NDArray[np.bool_]:
        """Which images a network or file gets right (N,)."""
        logits = self.networks[name] if name in self.networks else self.files[name]
        return metrics.correct(logits, self.labels)


def assemble(inputs: Inputs) -> Result:
    """The whole document."""
    learn, ship = inputs.learn, inputs.ship
    outcome = _outcome(ship)
    artifacts = [_artifact(name, inputs, outcome) for name in PRECISIONS]
    chosen = str(ship.quantize.facts["chosen"])
    arms = _arms(learn, outcome)
    teacher = _teacher(learn, outcome)
    memory = find_student(learn.spec.model).memory_bytes(
        next(p for p in PRECISIONS if p == chosen), learn.spec.size, learn.spec.classes,
        learn.device.runtime_memory_bytes,
    )  # fmt: skip
    facts = Facts(
        device=learn.device.name,
        student=learn.spec.model,
        chosen=next(a for a in artifacts if a.name == chosen),
        proxy_counts=kit.same_class(learn.device, ship.bench.facts["document"]["machine"]),
        predicted_memory_bytes=memory,
    )
    limits = learn.recipe.budget.limits()
    predictions = metrics.predictions(outcome.files[chosen])
    return Result(
        run=str(learn.recipe.name),
        created_utc=now_utc(),
        version=__version__,
        command=learn.request.command,
        seed=learn.recipe.seed,
        recipe_sha256=learn.resolved.sha256(),
        environment=environment(),
        device=device_to_dict(learn.device),
        budget=limits,
        data=_data(learn),
        plan=learn.plan,
        teacher=teacher,
        student=_student(learn),
        arms=arms,
        chosen_arm=learn.chosen_arm,
        artifacts=artifacts,
        chosen=chosen,
        chosen_reason=str(ship.quantize.facts["reasons"][chosen]),
        bundle_bytes=int(ship.bundle.facts["bundle_bytes"]),
        confusion=metrics.confusion(predictions, outcome.labels, learn.spec.classes).tolist(),
        examples=_examples(learn, outcome.files[chosen], outcome.labels),
        tables=_tables(ship),
        stages=_stages(inputs),
        verdict=judge(
            limits,
            facts,
            [
                *_warnings(facts.chosen, outcome.labels),
                *_remarks(learn, teacher, arms, artifacts),
            ],
        ),
    )


def _outcome(ship: Shipping) -> Outcome:
    folder = ship.score.folder
    with np.load(folder / "networks.npz", allow_pickle=False) as found:
        networks = {name: found[name] for name in found.files}
    with np.load(folder / "files.npz", allow_pickle=False) as found:
        files = {name.removeprefix("logits_"): found[name] for name in found.files}
    return Outcome(networks, files, ship.test_labels())


def _artifact(name: Precision, inputs: Inputs, outcome: Outcome) -> Artifact:
    learn, ship = inputs.learn, inputs.ship
    path = ship.bundle.folder / "bundle" / f"model.{name}.onnx"
    logits, classes = outcome.files[name], learn.spec.classes
    predictions = metrics.predictions(logits)
    if name == "int8":
        found = dict(metrics.parity(outcome.files["float32"], logits))
        parity = Parity(**found, against="the float32 file")
    else:
        parity = Parity(**ship.export.facts[name]["parity"])
    drop: Gain | None = None
    if name != "float32":
        drop = metrics.paired_gain(outcome.right(name), outcome.right("float32"), "float32")
    return Artifact(
        name=name,
        path=f"bundle/{path.name}",
        sha256=sha256_file(path),
        size_bytes=path.stat().st_size,
        precision=name,
        runtime=learn.shape.runtime,
        opset=learn.shape.opset,
        input=learn.shape.layout,
        top1=metrics.proportion(outcome.right(name)),
        val_top1=ship.quantize.facts["val_top1"][name],
        balanced_accuracy=metrics.balanced_accuracy(predictions, outcome.labels, classes),
        per_class_recall=metrics.per_class_recall(predictions, outcome.labels, classes),
        drop=drop if drop is not None else _no_drop(outcome),
        parity=parity,
        latency=_latency(name, inputs),
        eligible=name in learn.device.precisions,
        reason=str(ship.quantize.facts["reasons"].get(name, "")),
    )


def _no_drop(outcome: Outcome) -> Gain:
    """float32 against itself, so that the drop limit has a row whichever file ships."""
    right = outcome.right("float32")
    return metrics.paired_gain(right, right, "float32")


def _latency(name: Precision, inputs: Inputs) -> list[Latency]:
    learn, ship = inputs.learn, inputs.ship
    document = ship.bench.facts["document"]
    samples = "stages/12-bench/latency.json"
    rows = kit.latency_rows(document, learn.device, samples).get(name, [])
    prediction = ship.prediction(name)
    if prediction is not None and learn.device.name != "host":
        rows = [
            Latency(
                device=learn.device.name, machine=learn.device.title,
                runtime=learn.device.runtime, provider="predicted", threads=0, batch=1,
                evidence="predicted", p50_s=prediction.latency_s, band_s=prediction.band_s,
                warnings=[prediction.words],
            ),
            *rows,
        ]  # fmt: skip
    return rows


def _arms(learn: Build, outcome: Outcome) -> list[Arm]:
    arms = []
    for name, done in (("plain", learn.plain), ("distilled", learn.distilled)):
        facts = done.facts
        parts = {"training": facts["training_seconds"]}
        gain = None
        if name == "distilled":
            parts["teacher preparation"] = learn.teacher.seconds
            parts["storing teacher outputs"] = learn.targets.seconds
            gain = metrics.paired_gain(outcome.right(name), outcome.right("plain"), "plain")
        predictions = metrics.predictions(outcome.networks[name])
        arms.append(
            Arm(
                name=name,
                top1=metrics.proportion(outcome.right(name)),
                val_top1=facts["val_top1"],
                balanced_accuracy=metrics.balanced_accuracy(
                    predictions, outcome.labels, learn.spec.classes
                ),
                steps=facts["steps"],
                epochs=facts["epochs"],
                seconds=sum(parts.values()),
                seconds_parts=parts,
                weights_sha256=facts["weights_sha256"],
                gain=gain,
                curve=[CurvePoint.model_validate(p) for p in facts["curve"]],
            )
        )
    return arms


def _teacher(learn: Build, outcome: Outcome) -> Teacher:
    facts = learn.teacher.facts
    against = metrics.paired_gain(outcome.right("teacher"), outcome.right("plain"), "plain")
    better = against.ci95[0] > 0
    student = metrics.predictions(outcome.networks[learn.chosen_arm])
    agreement = float(np.mean(student == metrics.predictions(outcome.networks["teacher"])))
    if better:
        words = f"the teacher is better than the plain student: {against.words}"
    else:
        words = (
            "the teacher is not measurably better than the plain student "
            f"({against.words}), so there is little to learn from it: take a stronger one"
        )
    return Teacher(
        model=facts["model"],
        source=facts["source"],
        revision=facts["revision"],
        adaptation=facts["adaptation"],
        adaptation_reason=facts["reason"],
        params=facts["params"],
        input_size=facts["look"]["size"],
        top1=metrics.proportion(outcome.right("teacher")),
        val_top1=facts["val_top1"],
        calibration=Calibration.model_validate(
            metrics.calibration(outcome.networks["teacher"], outcome.labels).model_dump()
        ),
        student_agreement=agreement,
        seconds=learn.teacher.seconds,
        licence=facts["licence"],
        words=words,
    )


def _student(learn: Build) -> Student:
    spec, facts = learn.spec, learn.start.facts
    return Student(
        model=spec.model,
        input_size=spec.size,
        params=facts["params"],
        macs=find_student(spec.model).cost(spec.size, spec.classes).macs,
        weights="pretrained" if spec.pretrained else "random",
        weights_source=facts["source"],
        weights_reason=learn.resolved.reasons.get("student.weights", "asked for"),
        licence=facts["licence"],
        reason=learn.plan.chosen.reason,
    )


def _data(learn: Build) -> Data:
    facts = {k: v for k, v in learn.data.facts.items() if k != "image_side"}
    return Data.model_validate({**facts, "licence": learn.licences["data"]})


def _examples(learn: Build, logits: Floats, labels: Ints) -> list[Example]:
    """Test images with the prediction of the shipped file: the surest mistakes, then as many that are right."""
    from PIL import Image

    share = metrics.softmax(logits).max(1)
    right = metrics.correct(logits, labels)
    wrong_rows = sorted(np.flatnonzero(~right), key=lambda i: (-share[i], i))[: EXAMPLES // 2]
    even = np.flatnonzero(right)
    rest = EXAMPLES - len(wrong_rows)
    right_rows = even[np.linspace(0, len(even) - 1, min(rest, len(even))).round().astype(int)]
    examples = []
    for row in [*wrong_rows, *right_rows]:
        buffer = io.BytesIO()
        Image.fromarray(np.asarray(learn.arrays.test[row])).save(buffer, "PNG", optimize=True)
        examples.append(
            Example(
                png=base64.b64encode(buffer.getvalue()).decode(),
                label=int(labels[row]),
                predicted=int(metrics.predictions(logits)[row]),
                confidence=float(share[row]),
            )
        )
    return examples


def _tables(ship: Shipping) -> dict[str, Table]:
    run = ship.run.path
    named = {
        "latency_samples": (ship.bench.folder / "latency.json", "every timed run, in seconds"),
        "file_logits": (ship.score.folder / "files.npz", "logits of each file on the test images"),
        "network_logits": (ship.score.folder / "networks.npz", "logits of teacher and arms"),
        "split": (
            ship.learn.data.folder / "split.tsv",
            "split, label, hash and name of each image",
        ),
        "skipped": (ship.learn.data.folder / "skipped.tsv", "each file left out, with the reason"),
    }
    return {
        name: Table(
            path=Path(path).relative_to(run).as_posix(), sha256=sha256_file(path), what=what
        )
        for name, (path, what) in named.items()
    }


def _stages(inputs: Inputs) -> list[StageTime]:
    learn, ship = inputs.learn, inputs.ship
    every = [
        learn.data, learn.planned, learn.pixels, learn.teacher, learn.targets, learn.start,
        learn.plain, learn.distilled, ship.export, ship.quantize, ship.bundle, ship.bench,
        ship.score,
    ]  # fmt: skip
    return [StageTime(name=done.name, seconds=done.seconds) for done in every]


def _remarks(
    learn: Build, teacher: Teacher, arms: list[Arm], artifacts: list[Artifact]
) -> list[str]:
    gain = next(a.gain for a in arms if a.gain is not None)
    remarks = [f"Distillation, equal steps: {gain.words}", f"Teacher: {teacher.words}"]
    recipe = learn.recipe
    views, epochs = int(str(recipe.distill.views)), int(str(recipe.distill.epochs))
    if views == 1 and epochs > 2:
        remarks.append(
            f"One stored view was shown in all {epochs} epochs, which overfits: "
            "give more with --set distill.views=..."
        )
    unstable = [a.name for a in artifacts if any(row.stable is False for row in a.latency)]
    if unstable:
        remarks.append(f"Latency measured here was unstable for {', '.join(unstable)}.")
    return remarks


def _warnings(chosen: Artifact, labels: Ints) -> list[str]:
    """What makes the accuracy worth little: a file no better than a constant answer, or few test images."""
    top1 = chosen.top1
    assert top1 is not None and top1.ci95 is not None
    low, high = (100 * edge for edge in top1.ci95)
    remarks = []
    constant = float(np.bincount(labels).max()) / len(labels)
    if top1.ci95[0] <= constant:
        remarks.append(
            f"The file that ships ({100 * top1.value:.1f} %) is not measurably better than always "
            f"answering the most frequent class ({100 * constant:.1f} %): it has learned too little. "
            "Give more images or more epochs (--set distill.epochs=...)."
        )
    if top1.n < FEW_TEST_IMAGES:
        remarks.append(
            f"The test split has {top1.n} images only: the true top-1 lies between {low:.0f} and "
            f"{high:.0f} %. Give more images for a number to rely on."
        )
    return remarks


def environment() -> Environment:
    """This machine and what is installed on it."""
    here = machine()
    gpu = None
    try:
        import torch

        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    except ImportError:
        gpu = None
    return Environment(
        cpu=str(here.get("cpu") or "unknown processor"),
        cores=int(here.get("cores") or 0),
        memory_bytes=here.get("memory_bytes"),
        gpu=gpu,
        os=str(here.get("os") or "unknown"),
        python=python_version(),
        packages=versions(),
        git=git_commit(),
    )
