"""What the terminal shows of an answer of `plan --compute`. Nothing is computed here but units."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from rich.console import Group
from rich.text import Text

from edgedistill.compute.allocate import Choice, Master
from edgedistill.compute.effort import Effort
from edgedistill.compute.flops import SCENARIOS
from edgedistill.compute.predict import Law, Said
from edgedistill.effortplan import Answer, Probe, words_of
from edgedistill.evidence.view import figures
from edgedistill.evidence.view.terminal import grid, words

MOST_SHOWN = 6


def answer_json(found: Answer) -> str:
    """The answer for tools: seconds, operations, fractions."""
    tree = {
        "effort": dataclasses.asdict(found.effort),
        "rows": dict(found.rows),
        "lacking": list(found.lacking),
        "notes": list(found.notes),
        "laws": [_law(law) for law in found.laws],
        "choices": [_tree(choice) for choice in (found.advice.choices if found.advice else ())],
        "beyond": [_tree(choice) for choice in (found.advice.beyond if found.advice else ())],
        "others": {
            str(share): _tree(choice)
            for share, choice in (found.advice.others if found.advice else {}).items()
        },
        "scenarios": {
            name: _tree(choice)
            for name, choice in (found.advice.scenarios if found.advice else {}).items()
        },
        "probes": [dataclasses.asdict(probe) for probe in found.probes],
    }
    return json.dumps(tree, indent=1)


def _law(law: Law) -> dict[str, Any]:
    return {
        "way": words_of(law.way), "about": law.what, "form": law.fitted.form.name, "source": law.fitted.form.source,
        "size": law.size, "runs": len(law.fitted.runs), "held_out": law.held_out,
        "coefficients": dict(law.fitted.coefficients),
        "students": {model: own._asdict() for model, own in law.own.items()},
    }  # fmt: skip


def _tree(choice: Choice) -> dict[str, Any]:
    said: dict[str, Any] = {"error": dataclasses.asdict(choice.error)}
    said["loss"] = dataclasses.asdict(choice.loss) if choice.loss else None
    return {
        "student": choice.pupil.model, "way": words_of(choice.way),
        "teacher": choice.master.name if choice.master else None, "targets": choice.targets,
        "views": choice.views, "epochs": choice.epochs, "seconds": dict(choice.seconds),
        "flops": dict(choice.flops), "outside": list(choice.outside), "why_shorter": choice.why_shorter,
        **said,
    }  # fmt: skip


def amount(effort: Effort) -> str:
    """A budget as a person says it."""
    if effort.seconds is not None:
        return figures.duration(effort.seconds)
    assert effort.flops is not None
    return f"{figures.operations(effort.flops)}"


def answer_view(found: Answer) -> Any:
    """The advice with its runners-up, what it rests on, what would change it, and what is missing."""
    parts: list[Any] = []
    choices = found.advice.choices if found.advice else ()
    if choices:
        parts += _best(choices[0], found.effort)
        parts += [Text(), _table(_different(choices))]
        if found.advice is not None and found.advice.others:
            parts += [Text(), words("What would change the advice", "bold")]
            parts += [
                words(f"  {amount(_share(found.effort, share))}: {_short(choice)}")
                for share, choice in sorted(found.advice.others.items())
            ]
        if found.advice is not None and found.advice.scenarios:
            parts += [Text(), words("If somebody else pays for the teacher", "bold")]
            parts += [
                words(f"  {SCENARIOS[name].words}: {_short(choice)}, top-1 {_top1(choice.error)}")
                for name, choice in found.advice.scenarios.items()
            ]
    elif found.advice and found.advice.beyond:
        parts += _abstained(found.advice.beyond, found.effort)
    elif found.laws:
        parts.append(
            words(
                f"{amount(found.effort)} does not pay for one epoch of any student that fits the device.",
                "bold",
            )
        )
    else:
        parts.append(
            words("There are too few trainings to say what this budget will give.", "bold")
        )
    parts += _grounds(found)
    if found.probes:
        parts += _missing(found.probes)
    return Group(*parts)


def _best(choice: Choice, effort: Effort) -> list[Any]:
    head = f"With {amount(effort)}: {_short(choice)}"
    top1 = f"Expected validation top-1 {_top1(choice.error)}"
    loss = "" if choice.loss is None else f", loss {_value(choice.loss)}"
    spent = ", ".join(
        f"{part} {figures.duration(seconds)}" for part, seconds in choice.seconds.items() if seconds
    )
    lines = [words(head, "bold"), words(f"{top1}{loss}: where 90 % of such trainings end.")]
    lines.append(words(f"It takes {spent}."))
    if choice.why_shorter:
        lines.append(words(f"The rest of the budget is left: {choice.why_shorter}.", "yellow"))
    return lines


def _abstained(beyond: Sequence[Choice], effort: Effort) -> list[Any]:
    """That nothing is said, and why: no law holds so far from the trainings it was fitted to."""
    return [
        words(
            f"Nothing can be said of {amount(effort)}: the trainings tell of none like it.", "bold"
        ),
        *[
            words(f"  {choice.pupil.model}: {'; '.join(choice.outside)}")
            for choice in beyond[:MOST_SHOWN]
        ],
    ]


def _short(choice: Choice) -> str:
    """A configuration in one line."""
    epochs = f"{choice.epochs} epoch{'' if choice.epochs == 1 else 's'}"
    how = "labels alone"
    if choice.master is not None:
        views = f"{choice.views} stored view{'' if choice.views == 1 else 's'}"
        outputs = "live outputs" if choice.targets == "live" else views
        how = f"taught by {_name(choice.master)} ({outputs})"
    start = "" if choice.pupil.start == "random" else f" from {choice.pupil.start} weights"
    return f"{choice.pupil.model}{start}, {how}, {epochs}"


def _different(choices: Sequence[Choice]) -> list[Choice]:
    """The best of each student with and without a teacher, the best first."""
    found: dict[tuple[str, bool], Choice] = {}
    for choice in choices:
        found.setdefault((choice.pupil.model, choice.master is None), choice)
    return list(found.values())[:MOST_SHOWN]


def _name(master: Master) -> str:
    """A teacher in fewer letters."""
    return master.name.removeprefix("bundled:")


def _table(choices: Sequence[Choice]) -> Any:
    table = grid(
        "",
        "student",
        "teacher",
        "epochs",
        "takes",
        "top-1, 90 % band",
        right=("", "epochs", "takes"),
    )
    for place, choice in enumerate(choices, start=1):
        live = ", live" if choice.targets == "live" else ""
        teacher = "none" if choice.master is None else f"{_name(choice.master)}{live}"
        table.add_row(
            str(place), words(choice.pupil.model), words(teacher), str(choice.epochs),
            figures.duration(sum(choice.seconds.values())), _top1(choice.error),
        )  # fmt: skip
    return table


def _top1(error: Said) -> str:
    low, high = 1 - error.high, 1 - error.low
    return f"{100 * (1 - error.value):.1f} % ({100 * max(0.0, low):.1f} to {100 * high:.1f})"


def _value(said: Said) -> str:
    return f"{said.value:.3f} ({said.low:.3f} to {said.high:.3f})"


def _grounds(found: Answer) -> list[Any]:
    """What the answer rests on."""
    lines: list[Any] = [Text()]
    for fitted in dict.fromkeys(id(law.fitted) for law in found.laws):
        same = [law for law in found.laws if id(law.fitted) == fitted]
        ways = " and ".join(words_of(law.way).partition(", from ")[0] for law in same)
        off = ", ".join(f"{100 * law.held_out:.1f} %" for law in same)
        lines.append(
            words(
                f"Law of {same[0].what}, {ways}: {same[0].fitted.form.name}, from "
                f"{len(same[0].fitted.runs)} trainings; off by {off} (median) on dearer trainings than it was "
                "fitted to.", "dim",
            )
        )  # fmt: skip
    lines += [words(f"Too few to say: {text}.", "yellow") for text in found.lacking]
    lines += [words(note, "dim") for note in found.notes]
    return lines


def _missing(probes: Sequence[Probe]) -> list[Any]:
    seconds = sum(probe.seconds for probe in probes)
    students = list(dict.fromkeys(probe.model for probe in probes))
    cost = f"{figures.duration(seconds)} here, {figures.operations(sum(p.flops for p in probes))}"
    return [
        words(
            f"{len(probes)} trainings of {', '.join(students)} would do: about {cost}, beside the teacher. The same "
            "command with --probe makes them."
        )
    ]


def _share(effort: Effort, share: float) -> Effort:
    return Effort(
        None if effort.seconds is None else share * effort.seconds,
        None if effort.flops is None else share * effort.flops,
    )
