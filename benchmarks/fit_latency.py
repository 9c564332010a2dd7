"""Fits the latency models that ship, and prints `docs/latency.md`: how far they can be trusted.

Every data set (device, runtime, precision) with at least 12 networks of known cost is predicted twice: over 20
shuffles of 10-fold cross-validation, and with each family left out. What is left out of a board is left out of all
its listings; the same network on other boards stays. Beside it, on the same rows, stands the plain three-term model
of that table alone. Tables are given as paths; about 20 minutes on one core:

    python -m benchmarks.fit_latency published_latency.csv model_costs.csv

`--shuffles 2` is enough to try something.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.bands import WIDENING, Held, half_bands
from benchmarks.blend import LEAST_ROWS, blend_weights, family_folds, folds, guesses
from benchmarks.derived import models
from benchmarks.pooled import Problem, problem
from benchmarks.published import LEAST_NETS, DataSet, families_of, read_costs, read_sets

Floats = npt.NDArray[np.float64]
ROOT = Path(__file__).resolve().parents[1]
DOC = ROOT / "docs" / "latency.md"
TABLE = ROOT / "edgedistill" / "target" / "latency.json"
INTRO = """\
# How far a predicted latency can be trusted

Before anything is trained or measured, `edgedistill plan` predicts how long one image takes on a device. A prediction
has a grade:

| tier | what it rests on |
|---|---|
| A | measured on this very device (`plan --measure`, `build`, the kit) |
| B | measurements of this device, runtime and precision; the family of the network is among them |
| C | the same, the family is not |
| D | the same processor with another runtime |
| E | another device, by its data sheet: an order of magnitude |

`edgedistill devices measure` makes it tier B on your own machine in a few minutes. Where nothing honest can be said,
nothing is: the compilers of NPUs, operators that a device lacks, networks more than twice as large as any measured one.

The models that ship were fitted on published tables (benchmarks/pooled.py and benchmarks/blend.py say how), and the
figures below are what they predict of networks they were not shown. What the tables themselves differ by is a floor
under every error: four listings of one processor (RK3588), one runtime and one network spread over a factor of 2.1
(median of 34 networks).

What is left out of a board is left out of all its listings; the same network on *other* boards of the same runtime
stays, since that is what is known when a board is planned for. `plain` is overhead * kernels + MACs / rate + bytes /
bandwidth, fitted by non-negative least squares on that one table.

A band is what networks that were left out were off by, of that table and of others of its runtime, and it is wider
for a network that the two models behind a prediction disagree on (benchmarks/bands.py). A network's own error is left
out of the band that it is held against.
"""
HOPELESS = 0.4
"""Median error on rows left out from which on nothing is predicted."""


def evaluate(data: Problem, shuffles: int, families: bool) -> list[Held]:
    """Predictions of rows that were left out, by data set; the blend is chosen without them too."""
    held = [Held() for _ in data.sets]
    for shuffle in range(1 if families else shuffles):
        rng = np.random.default_rng([shuffle, int(families)])
        fold = family_folds(data, rng) if families else folds(data, data.there, 10, rng)
        for number in range(int(fold.max()) + 1):
            out = fold == number
            known = data.there & ~out
            found = guesses(data, known)
            ours = found.blended(blend_weights(data, known, shuffle * 100 + number))
            for i, one in enumerate(held):
                at = np.flatnonzero(out[i])
                if not len(at) or known[i].sum() < LEAST_ROWS:
                    continue
                one.nets += data.net[i, at].tolist()
                one.plain += (found.plain - data.logs)[i, at].tolist()
                one.ours += (ours - data.logs)[i, at].tolist()
                one.apart += found.apart[i, at].tolist()
        print(f"{'families' if families else 'shuffle'} {shuffle + 1} done", file=sys.stderr)
    return held


@dataclass(frozen=True)
class Group:
    """One (device, runtime, precision): its data sets, which differ in threads."""

    label: str
    sets: tuple[int, ...]
    nets: int
    families: int


def groups_of(data: Problem) -> list[Group]:
    """Groups with enough networks, in the order of their names."""
    keys: dict[tuple[str, str, str], list[int]] = {}
    for i, one in enumerate(data.sets):
        if len(one.nets) >= LEAST_NETS:
            keys.setdefault(one.key, []).append(i)
    groups = [
        Group(
            data.sets[m[0]].label, tuple(m), max(len(data.sets[i].nets) for i in m),
            len(families_of(data.sets[m[0]].nets)),
        )
        for m in keys.values()
    ]  # fmt: skip
    return sorted(groups, key=lambda g: g.label)


@dataclass(frozen=True)
class Row:
    """One line of the table, for one way of leaving out; fractions."""

    plain: tuple[float, float]
    ours: tuple[float, float]
    half_width: float
    inside: int
    points: int


def rows_of(data: Problem, groups: Sequence[Group], held: Sequence[Held]) -> list[Row | None]:
    """A line for each group, `None` where nothing could be left out (all networks of one family)."""
    whole, without = half_bands(data, held)
    rows: list[Row | None] = []
    for group in groups:
        sets = [i for i in group.sets if held[i].nets]
        if not sets:
            rows.append(None)
            continue
        plain = np.concatenate([held[i].errors("plain") for i in sets])
        ours = np.concatenate([held[i].errors("ours") for i in sets])
        logs = np.concatenate([np.abs(held[i].ours) for i in sets])
        half = np.concatenate([without[i] * held[i].widths() for i in sets])
        rows.append(
            Row(
                (float(np.median(plain)), float(np.quantile(plain, 0.9))),
                (float(np.median(ours)), float(np.quantile(ours, 0.9))),
                float(np.mean([np.sinh(whole[i] * held[i].widths()).mean() for i in sets])),
                int((logs <= half).sum()),
                len(logs),
            )
        )
    return rows


def summary(name: str, tier: str, rows: Sequence[Row | None], groups: Sequence[Group]) -> list[str]:
    """What the table comes to, one way of leaving out."""
    found = [(g, r) for g, r in zip(groups, rows, strict=True) if r is not None]
    kept = [(g, r) for g, r in found if r.ours[0] <= HOPELESS]
    hopeless = "; ".join(
        f"{g.label} ({100 * r.ours[0]:.0f} %)" for g, r in found if (g, r) not in kept
    )
    plain = np.array([r.plain[0] for _, r in kept])
    ours = np.array([r.ours[0] for _, r in kept])
    worse = [(g, r) for g, r in kept if r.ours[0] > r.plain[0] + 0.02]
    inside, points = sum(r.inside for _, r in kept), sum(r.points for _, r in kept)
    half = np.median([r.half_width for _, r in kept])
    lines = [
        f"**{name}** ({len(kept)} data sets). Median error, mean over data sets: {100 * ours.mean():.1f} % against "
        f"{100 * plain.mean():.1f} % of the plain model, {100 * (1 - ours.mean() / plain.mean()):.0f} % lower (mean of "
        f"the ratios: {100 * (1 - (ours / plain).mean()):.0f} % lower). Inside the band of tier {tier}: "
        f"{100 * inside / points:.1f} % of {points:,} held-out points; median half-width {100 * half:.0f} %.",
        "",
    ]
    if hopeless:
        lines[0] += (
            f" Not among them, since a median error of over {100 * HOPELESS:.0f} % is no honest prediction and none is "
            f"given: {hopeless}."
        )
    if worse:
        names = "; ".join(
            f"{g.label} ({100 * r.ours[0]:.1f} against {100 * r.plain[0]:.1f} %)" for g, r in worse
        )
        lines += [
            f"Worse than the plain model by more than 2 points: {len(worse)} of {len(kept)}: {names}.",
            "",
        ]
    else:
        lines += ["On none worse than the plain model by more than 2 points.", ""]
    return lines


def document(
    groups: Sequence[Group],
    cv: Sequence[Row | None],
    lfo: Sequence[Row | None],
    about: str,
    command: str,
) -> str:
    """The text of `docs/latency.md`."""

    def cells(row: Row | None) -> str:
        if row is None:
            return "- | - | -"
        both = [f"{100 * m:.1f} / {100 * p:.0f}" for m, p in (row.plain, row.ours)]
        return f"{both[0]} | {both[1]} | {100 * row.half_width:.0f}"

    table = [
        f"| {g.label} | {g.nets} | {cells(a)} | {cells(b)} |"
        for g, a, b in zip(groups, cv, lfo, strict=True)
    ]
    return "\n".join([
        INTRO.rstrip(), "",
        f"Printed by `{command}`, {about}.", "",
        *summary("20 shuffles of 10-fold", "B", cv, groups),
        *summary("Each family left out", "C", lfo, groups),
        "## Every data set", "",
        "Errors are median / p90 of the absolute relative error in percent; the band is half its width in percent. The",
        "first three columns of figures are 10-fold, the last three with each family left out.", "",
        "| device, runtime, precision | networks | plain | ours | band | plain | ours | band |",
        "|---|---|---|---|---|---|---|---|",
        *table, "",
    ])  # fmt: skip


def main() -> None:
    """Fit, evaluate, write the document and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("latencies", type=Path, help="published latencies (CSV)")
    parser.add_argument("costs", type=Path, help="costs of the published networks (CSV)")
    parser.add_argument("--shuffles", type=int, default=20)
    parser.add_argument("--doc", type=Path, default=DOC)
    parser.add_argument("--table", type=Path, default=TABLE)
    args = parser.parse_args()
    costs = read_costs(args.costs)
    sets: list[DataSet] = read_sets(args.latencies, costs)
    data = problem(sets, costs)
    groups = groups_of(data)
    held_cv = evaluate(data, args.shuffles, families=False)
    held_lfo = evaluate(data, args.shuffles, families=True)
    cv, lfo = rows_of(data, groups, held_cv), rows_of(data, groups, held_lfo)
    when = datetime.now(UTC).strftime("%Y-%m-%d")
    about = f"{when}, Python {platform.python_version()}, {len(sets)} tables, {len(groups)} data sets judged"
    command = "python -m benchmarks.fit_latency published_latency.csv model_costs.csv"
    args.doc.write_text(document(groups, cv, lfo, about, command), "utf-8")
    bands = {"B": half_bands(data, held_cv)[0], "C": half_bands(data, held_lfo)[0]}
    args.table.write_text(json.dumps(models(data, bands, WIDENING, when), indent=1) + "\n", "utf-8")
    for line in (*summary("10-fold", "B", cv, groups), *summary("families", "C", lfo, groups)):
        print(line)


if __name__ == "__main__":
    main()
