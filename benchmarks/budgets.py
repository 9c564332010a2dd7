"""Whether `plan --compute` chooses well: its configuration is trained beside eight sensible others that get the same
seconds, with three seeds, for three budgets on this machine.

    python -m benchmarks.budgets --out DIR [--budget 30s]... [--ledger FILE]...

Five students of 48 px from random weights on 5,000 images of Fashion-MNIST (Debian package dataset-fashion-mnist), the
teachers of the ledger. The others: each student with labels alone, and each with the teacher that the laws say suits it
best. Everyone gets as many epochs as the budget pays for by the same timings. All budgets are planned before any study
begins; a plan that was made is kept in DIR, and its study goes on where it was, shared by as many processes as have the
same command (they wait for the one that plans).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from benchmarks.law_runs import FOLDER, LEDGER, SIDE, TEACHERS
from edgedistill.arms import PLAIN
from edgedistill.compute.allocate import Choice
from edgedistill.compute.effort import parse_effort
from edgedistill.compute.ledger import Ledger
from edgedistill.data.sources import open_source
from edgedistill.effortplan import answer
from edgedistill.files import write_atomic
from edgedistill.planning import choose_student
from edgedistill.progress import Face, silent
from edgedistill.recipe import Layered, replace, validate
from edgedistill.studyfile import load_study
from edgedistill.studying import run_study
from edgedistill.studyresult import StudyArm, StudyResult
from edgedistill.studyrun import StudyRequest
from edgedistill.target.device import load_device

STUDENTS = (
    "lcnet_050", "mobilenetv3_small_050", "mobilenetv4_conv_small_050", "mobilenetv2_050", "mobilenetv4_conv_small",
)  # fmt: skip
IMAGES, SEEDS, OTHERS = 5000, 3, 8
BUDGETS = ("30s", "75s", "150s")
LEDGERS = (LEDGER, LEDGER.with_name("fashion_mnist_budgets.jsonl"))
RECIPE: dict[str, Any] = {
    "data": {"source": FOLDER, "val_fraction": 0.1, "max_train": IMAGES},
    "student": {"weights": "random", "input_size": SIDE},
}


def main(argv: Sequence[str] | None = None) -> None:
    """Plan, train and print, budget by budget."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budget", action="append")
    parser.add_argument("--ledger", type=Path, action="append")
    given = parser.parse_args(argv)
    given.out.mkdir(parents=True, exist_ok=True)
    budgets = given.budget or BUDGETS
    with FileLock(given.out / "planning.lock"):
        for budget in budgets:
            file = given.out / f"{budget}.yaml"
            if not file.is_file():
                chosen = compared(plans(budget, given.ledger or LEDGERS))
                said = json.dumps([_said(choice) for choice in chosen])
                write_atomic(given.out / f"{budget}.json", said)
                write_atomic(file, yaml.safe_dump(_study(budget, chosen), sort_keys=False))
    for budget in budgets:
        file = given.out / f"{budget}.yaml"
        done = run_study(
            StudyRequest(load_study(file), given.out / budget, "benchmarks.budgets"), Face()
        )
        _print(budget, done, json.loads((given.out / f"{budget}.json").read_text()))


def plans(budget: str, ledgers: Sequence[Path]) -> list[Choice]:
    """Everything that the five students can do within the budget, the best first."""
    layered = Layered(validate(RECIPE, "benchmark"), {})
    device = load_device(layered.recipe.device)
    dataset = open_source(layered.recipe.data, 0)
    found = [
        choose_student(
            replace(layered, {"student.model": (name, "of the five")}), device, dataset
        ).chosen
        for name in STUDENTS
    ]
    planned = choose_student(layered, device, dataset)
    rows = {row.id: row for ledger in ledgers for row in Ledger(ledger).read().rows}
    known, effort = list(rows.values()), parse_effort(budget)
    told = answer(layered, device, dataset, planned, known, effort, silent(), found)
    if told.advice is None or told.lacking:
        raise SystemExit(f"too few trainings in the ledgers: {'; '.join(told.lacking)}")
    return list(told.advice.choices)


def compared(choices: Sequence[Choice]) -> list[Choice]:
    """The planned configuration, and the eight others that are said to come next: of each student the best with labels
    alone, and with the teacher that suits it best.
    """
    best: dict[tuple[str, bool], Choice] = {}
    for choice in choices:
        best.setdefault((choice.pupil.model, choice.master is None), choice)
    return list(best.values())[: 1 + OTHERS]


def name_of(choice: Choice) -> str:
    """The name of its arm."""
    short = choice.pupil.model.replace("mobilenet", "").replace("conv_small", "cs")
    return short if choice.master is None else f"{short}+{_teacher(choice)}-{choice.targets}"


def _teacher(choice: Choice) -> str:
    assert choice.master is not None
    for name, told in TEACHERS.items():
        tuned = "fine-tuned" if told["adapt"] == "finetune" else "linear probe"
        if choice.master.name == f"{told['model']}, {tuned}":
            return name
    raise SystemExit(f"{choice.master.name} is no teacher of this benchmark")


def _arm(choice: Choice) -> dict[str, Any]:
    arm: dict[str, Any] = {
        "student": {"model": choice.pupil.model},
        "distill": {"epochs": choice.epochs},
    }
    if choice.master is None:
        return {"arm": PLAIN, **arm}
    arm["distill"]["targets"] = choice.targets
    return {**arm, "teacher": dict(TEACHERS[_teacher(choice)])}


def _study(budget: str, chosen: Sequence[Choice]) -> dict[str, Any]:
    return {
        "name": f"budget-{budget}",
        "recipe": RECIPE,
        "seeds": SEEDS,
        "baseline": name_of(chosen[0]),
        "arms": {name_of(choice): _arm(choice) for choice in chosen},
    }


def _said(choice: Choice) -> dict[str, Any]:
    error = choice.error
    return {
        "arm": name_of(choice), "epochs": choice.epochs, "seconds": sum(choice.seconds.values()),
        "top1": 1 - error.value, "low": 1 - error.high, "high": 1 - error.low, "outside": list(choice.outside),
    }  # fmt: skip


def _print(budget: str, done: StudyResult, said: Sequence[dict[str, Any]]) -> None:
    arms = {arm.name: arm for arm in done.arms}
    print(f"\n{budget}, {IMAGES:,} images, {SEEDS} seeds, {done.data.test:,} test images\n")
    print(
        "| configuration | epochs | seconds planned | spent | validation top-1 said | seen | test top-1 "
        "| over the planned one, by seed | by image |"
    )
    print("|---" * 9 + "|")
    for one in said:
        arm = arms[one["arm"]]
        assert arm.top1 is not None and arm.val_top1 is not None
        inside = "" if one["low"] <= arm.val_top1.value <= one["high"] else ", outside"
        print(
            f"| {one['arm']} | {one['epochs']} | {one['seconds']:.0f} | {arm.seconds_total:.0f} | "
            f"{100 * one['top1']:.1f} ({100 * one['low']:.1f} to {100 * one['high']:.1f}{inside}) | "
            f"{100 * arm.val_top1.value:.1f} | {100 * arm.top1.value:.2f} "
            f"| {_gain(arm, 'seed')} | {_gain(arm, 'image')} |"
        )
    others = [arm for arm in done.arms if arm.seed_gain is not None]
    best = max(others, key=lambda arm: arm.seed_gain.value if arm.seed_gain else 0.0)
    assert best.seed_gain is not None
    print(
        f"\nbest of the others: {best.name}, over the planned one {_gain(best, 'seed')} points by seed"
    )


def _gain(arm: StudyArm, by: str) -> str:
    found = arm.seed_gain if by == "seed" else arm.image_gain
    if found is None:
        return "planned"
    if found.ci95 is None:
        return f"{100 * found.value:+.2f}"
    return f"{100 * found.value:+.2f} ({100 * found.ci95[0]:+.2f} to {100 * found.ci95[1]:+.2f})"


if __name__ == "__main__":
    main()
