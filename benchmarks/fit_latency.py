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
import math
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.derived import models
from benchmarks.pooled import (
    LEAST_ROWS,
    Problem,
    blend_weights,
    blended,
    family_folds,
    folds,
    predict_both,
    problem,
)
from benchmarks.published import LEAST_NETS, DataSet, families_of, read_costs, read_sets

Floats = npt.NDArray[np.float64]
ROOT = Path(__file__).resolve().parents[1]
DOC = ROOT / "docs" / "latency.md"
TABLE = ROOT / "edgedistill" / "target" / "latency.json"
COVERAGE = 0.9
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

The models that ship were fitted on published tables (benchmarks/pooled.py says how), and the figures below are what
they predict of networks they were not shown. What the tables themselves differ by is a floor under every error: four
listings of one processor (RK3588), one runtime and one network spread over a factor of 2.1 (median of 34 networks).

What is left out of a board is left out of all its listings; the same network on *other* boards of the same runtime
stays, since that is what is known when a board is planned for. `plain` is overhead * kernels + MACs / rate + bytes /
bandwidth, fitted by non-negative least squares on that one table.
"""
POOL_WEIGHT = 10
"""Networks that a pool's spread counts for, beside those of the data set itself, in its band."""


@dataclass
class Held:
    """What was predicted without being seen, of one data set: network, and logarithm of predicted by measured."""

    nets: list[int] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)

    def errors(self, which: str) -> Floats:
        """Absolute relative errors."""
        logs = np.array(getattr(self, which))
        result: Floats = np.abs(np.expm1(np.clip(logs, -5, 5)))
        return result


def evaluate(data: Problem, shuffles: int, families: bool) -> list[Held]:
    """Predictions of rows that were left out, by data set; the blend is chosen without them too."""
    held = [Held() for _ in data.sets]
    for shuffle in range(1 if families else shuffles):
        rng = np.random.default_rng([shuffle, int(families)])
        fold = family_folds(data, rng) if families else folds(data, data.there, 10, rng)
        for number in range(int(fold.max()) + 1):
            out = fold == number
            known = data.there & ~out
            plain, typed = predict_both(data, known)
            weight = blend_weights(data, known, shuffle * 100 + number)
            ours = blended(plain, typed, weight)
            for i, one in enumerate(held):
                at = np.flatnonzero(out[i])
                if not len(at) or known[i].sum() < LEAST_ROWS:
                    continue
                one.nets += data.net[i, at].tolist()
                one.plain += (plain - data.logs)[i, at].tolist()
                one.ours += (ours - data.logs)[i, at].tolist()
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


def half_bands(data: Problem, held: Sequence[Held]) -> tuple[Floats, list[Floats]]:
    """Half the width of each set's band in logarithms, (S,), and that of each held row without its own network."""
    logs = [np.abs(np.array(h.ours)) for h in held]
    pools = data.pool
    spread = {}
    for pool in np.unique(pools):
        parts = [logs[i] for i in np.flatnonzero(pools == pool) if len(logs[i])]
        spread[int(pool)] = (
            float(np.quantile(np.concatenate(parts), COVERAGE)) if parts else math.nan
        )
    whole = np.full(len(held), math.nan)
    without: list[Floats] = []
    for i, one in enumerate(held):
        nets = np.array(one.nets)
        each = np.full(len(nets), math.nan)
        if len(nets):
            whole[i] = _shrunk(logs[i], len(set(nets)), spread[int(pools[i])])
            for net in set(one.nets):
                rest = logs[i][nets != net]
                if len(rest):
                    each[nets == net] = _shrunk(rest, len(set(nets)) - 1, spread[int(pools[i])])
        without.append(each)
    return whole, without


def _shrunk(logs: Floats, nets: int, pool: float) -> float:
    own = float(np.quantile(logs, COVERAGE))
    return math.sqrt((nets * own**2 + POOL_WEIGHT * pool**2) / (nets + POOL_WEIGHT))


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
        half = np.concatenate([without[i] for i in sets])
        rows.append(
            Row(
                (float(np.median(plain)), float(np.quantile(plain, 0.9))),
                (float(np.median(ours)), float(np.quantile(ours, 0.9))),
                float(np.mean([math.sinh(whole[i]) for i in sets])),
                int((logs <= half).sum()),
                len(logs),
            )
        )
    return rows


def summary(name: str, tier: str, rows: Sequence[Row | None], groups: Sequence[Group]) -> list[str]:
    """What the table comes to, one way of leaving out."""
    kept = [(g, r) for g, r in zip(groups, rows, strict=True) if r is not None]
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
    args.table.write_text(json.dumps(models(data, bands, when), indent=1) + "\n", "utf-8")
    for line in (*summary("10-fold", "B", cv, groups), *summary("families", "C", lfo, groups)):
        print(line)


if __name__ == "__main__":
    main()
