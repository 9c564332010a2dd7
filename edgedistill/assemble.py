"""Puts the result document together from what the stages left. Counting and comparing only; nothing runs a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgedistill import __version__, metrics
from edgedistill.deploy.graphs import graph_facts
from edgedistill.evidence import bench as kit
from edgedistill.evidence.gate import Facts, judge
from edgedistill.evidence.view.comparisons import arm_remarks
from edgedistill.examples import examples_of, mistakes_of
from edgedistill.findings import (
    Outcome,
    data_of,
    environment,
    remarks_of,
    student_of,
    teacher_of,
    warnings_of,
)
from edgedistill.proof import arms_of
from edgedistill.result import (
    Artifact,
    Example,
    Gain,
    Latency,
    Parity,
    Precision,
    Result,
    StageTime,
    Table,
)
from edgedistill.rundir import now_utc, sha256_file
from edgedistill.synthfacts import synthetic_of
from edgedistill.target.device import device_to_dict
from edgedistill.target.students import find_student

if TYPE_CHECKING:
    from edgedistill.learning import Build
    from edgedistill.shipping import Shipping

PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "int8")


@dataclass(frozen=True)
class Inputs:
    """Both halves of a build, every stage done."""

    learn: Build
    ship: Shipping


def assemble(inputs: Inputs) -> Result:
    """The whole document."""
    learn, ship = inputs.learn, inputs.ship
    outcome = _outcome(ship)
    artifacts = [_artifact(name, inputs, outcome) for name in PRECISIONS]
    chosen = str(ship.quantize.facts["chosen"])
    arms = arms_of(learn, outcome)
    gain = next(a.gain for a in arms if a.gain is not None)
    teacher = teacher_of(learn, outcome, gain)
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
    counts = metrics.confusion(predictions, outcome.labels, learn.spec.classes)
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
        data=data_of(learn, outcome.labels),
        plan=learn.plan,
        teacher=teacher,
        student=student_of(learn),
        arms=arms,
        chosen_arm=learn.chosen_arm,
        synthetic=synthetic_of(learn, outcome),
        artifacts=artifacts,
        chosen=chosen,
        chosen_reason=str(ship.quantize.facts["reasons"][chosen]),
        bundle_bytes=int(ship.bundle.facts["bundle_bytes"]),
        confusion=counts.tolist(),
        mistakes=mistakes_of(counts),
        examples=_examples(learn, outcome, chosen),
        tables=_tables(ship),
        stages=_stages(inputs),
        verdict=judge(
            limits,
            facts,
            [
                *warnings_of(facts.chosen, outcome.labels),
                *arm_remarks(arms),
                *remarks_of(learn, teacher, artifacts),
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
    how = {"layout": learn.shape.layout, "made": ""}
    if name == "int8":
        how = ship.quantize.facts["int8"]
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
        input=how["layout"],
        top1=metrics.proportion(outcome.right(name)),
        val_top1=ship.quantize.facts["val_top1"][name],
        balanced_accuracy=metrics.balanced_accuracy(predictions, outcome.labels, classes),
        per_class_recall=metrics.per_class_recall(predictions, outcome.labels, classes),
        drop=drop if drop is not None else _no_drop(outcome),
        parity=parity,
        latency=_latency(name, inputs),
        layers=graph_facts(path).layers,
        builder=ship.quantize.facts["builder"].get(name),
        made=how["made"],
        eligible=name in learn.device.precisions,
        reason=str(ship.quantize.facts["reasons"].get(name, "")),
    )


def _examples(learn: Build, outcome: Outcome, chosen: str) -> list[Example]:
    logits = outcome.files[chosen]
    return examples_of(logits, outcome.labels, learn.arrays.test, learn.dataset.test)


def _no_drop(outcome: Outcome) -> Gain:
    """float32 against itself, so that the drop limit has a row whichever file ships."""
    right = outcome.right("float32")
    return metrics.paired_gain(right, right, "float32")


def _latency(name: Precision, inputs: Inputs) -> list[Latency]:
    learn, ship = inputs.learn, inputs.ship
    document = ship.bench.facts["document"]
    samples = "stages/13-bench/latency.json"
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
        learn.data, learn.planned, learn.pixels, *learn.teacher_stages,
        *([learn.synthetic] if learn.synthetic else []), learn.targets,
        *([learn.synthetic_targets] if learn.synthetic_targets else []), learn.start,
        *learn.trained.values(), ship.export, ship.quantize, ship.bundle, ship.bench,
        ship.score,
    ]  # fmt: skip
    return [StageTime(name=done.name, seconds=done.seconds) for done in every]
