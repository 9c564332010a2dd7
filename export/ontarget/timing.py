"""The commands that time: bench, and compare."""

from __future__ import annotations

import argparse

from ontarget.bench import What, bench_bundle
from ontarget.contract import Bundle, Model, load_bundle, require_packed
from ontarget.duel import DUELS, Side, compare
from ontarget.machine import temperature_c
from ontarget.measure import TIERS, Timing
from ontarget.opening import ENGINE
from ontarget.saying import failed, names_of, progress, write
from ontarget.session import SessionError
from ontarget.trt import located
from ontarget.views import bench_table, clean, compare_text


def bench(options: argparse.Namespace, bundle: Bundle) -> int:
    """Latency and memory of the models of a bundle."""
    if options.operators and options.provider == ENGINE:
        raise SessionError("--operators is for onnxruntime: an engine's layers are its own.")
    if options.end_to_end and options.batch != 1:
        raise SessionError(
            "--end-to-end takes one picture a run, as a camera does: leave --batch out."
        )
    names, engines = names_of(options, bundle, options.batch)
    what = What(
        batch=options.batch,
        images=options.images,
        end_to_end=options.end_to_end,
        pictures=options.pictures,
        energy=options.tier != "quick",
        operators=options.operators,
    )
    rows, failures = bench_bundle(
        bundle,
        names,
        options.provider,
        options.threads,
        what,
        timing_of(options),
        progress,
        engines,
    )
    progress("")
    if rows:
        scope = "from picture to class" if options.end_to_end else "model only"
        pace = "back to back" if options.fps is None else f"paced at {options.fps:g} a second"
        print(
            f"{clean(bundle.name)}: {rows[0]['provider']}, batch {options.batch}, {scope}, {pace}"
        )
        print(bench_table(rows))
    code = failed(failures)
    write(options, bundle, rows=rows, failures=failures, temperature_end_c=temperature_c())
    return code


def timing_of(options: argparse.Namespace) -> Timing:
    """How long to measure: a tier, or what was asked for in its place."""
    base = TIERS[options.tier]
    if options.min_seconds is None and options.min_runs is None and options.fps is None:
        return base
    seconds = base.min_seconds if options.min_seconds is None else options.min_seconds
    runs = base.min_runs if options.min_runs is None else options.min_runs
    paced = 0.0 if options.fps is None else 1.5 * runs / options.fps
    same = (seconds, runs) == (base.min_seconds, base.min_runs)
    return Timing(
        min_seconds=seconds,
        min_runs=runs,
        warmup_seconds=base.warmup_seconds,
        max_seconds=max(base.max_seconds, 4 * seconds, paced),
        fps=options.fps,
        tier=base.tier if same else None,
    )


def against(options: argparse.Namespace, bundle: Bundle) -> int:
    """The bundle's model against one of another bundle, in turns."""
    other = load_bundle(options.other)
    new, old = bundle.model(options.model), other.model(options.other_model)
    for model in (old, new):
        require_packed(model)
    found = compare(
        _side(other, old, options),
        _side(bundle, new, options),
        options.provider,
        options.threads,
        options.batch,
        DUELS[options.tier],
        progress,
    )
    progress("")
    print(compare_text(found))
    write(options, bundle, compare=found)
    return 0


def _side(bundle: Bundle, model: Model, options: argparse.Namespace) -> Side:
    if options.provider != ENGINE:
        return Side(bundle, model)
    return Side(bundle, model, located([model], options.batch)[model.name])
