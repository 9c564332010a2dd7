"""Does the kit measure what it says? Its loop against a bare one, and its bounds against known distributions.

    python -m benchmarks.harness

First three students with random weights, in float32 and INT8, on one thread: turns of the kit's own measurement
and of a bare loop over onnxruntime's `InferenceSession.run`, on the same session and inputs. Then 20,000 simulated
runs of the whole summary, whose true percentiles are known: how often does each printed bound hold?
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from ontarget.contract import load_bundle
from ontarget.measure import Timing, measure, summarise
from ontarget.percentiles import PERCENTILES
from ontarget.session import OrtSession
from ontarget.worker import inputs_of

from edgedistill.deploy.untrained import untrained_bundle
from edgedistill.target.device import load_device

STUDENTS = (
    ("mobilenetv3_small_100", 96),
    ("mobilenetv4_conv_small", 160),
    ("tf_efficientnet_lite0", 224),
)
ROUNDS, TURN = 600, 20
"""Turns of either loop, and how many timed runs each has: short ones, so that a slow moment falls on both."""
RUNS = 20_000
COUNTS = (11, 64, 130, 300, 662, 1000, 2500, 6636)
HEAD = "| model | median ms | kit by bare loop, median of rounds | smallest and largest round |"
Draw = Callable[[np.random.Generator, int], np.ndarray]


def _two_modes(rng: np.random.Generator, n: int) -> np.ndarray:
    """A machine with two speeds."""
    fast = rng.random(n) < 0.7
    return np.where(fast, rng.normal(1.0, 0.02, n), rng.normal(1.6, 0.05, n))


def _stalls(rng: np.random.Generator, n: int) -> np.ndarray:
    """Narrow, but one run in fifty waits for something else."""
    return rng.normal(1.0, 0.01, n) + np.where(rng.random(n) < 0.02, rng.exponential(3.0, n), 0.0)


SOURCES: dict[str, Draw] = {
    "normal": lambda rng, n: rng.normal(1.0, 0.02, n),
    "skewed (log-normal)": lambda rng, n: rng.lognormal(0.0, 0.4, n),
    "heavy tail (Pareto, 2.5)": lambda rng, n: 1.0 + rng.pareto(2.5, n),
    "two speeds": _two_modes,
    "rare stalls": _stalls,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", choices=["loop", "bounds"])
    given = parser.parse_args(argv)
    if given.only != "bounds":
        _loops()
    if given.only != "loop":
        _bounds()


def _loops() -> None:
    print(HEAD)
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for student, size in STUDENTS:
            folder = Path(name) / student
            bundle = load_bundle(untrained_bundle(folder, student, size, 1000, load_device("host")))
            for model in bundle.models:
                inputs = inputs_of(bundle, model, 1)[0]
                with OrtSession(model) as session:
                    rounds = [_round(session, inputs, index) for index in range(ROUNDS)]
                ratios = [kit / bare for kit, bare in rounds]
                print(
                    f"| {student}, {size} px, {model.name} | {1e3 * np.median([b for _, b in rounds]):.3f} "
                    f"| {np.median(ratios):.4f} | {min(ratios):.2f}, {max(ratios):.2f} |",
                    flush=True,
                )


def _round(session: OrtSession, inputs: np.ndarray, index: int) -> tuple[float, float]:
    """Median seconds of the kit and of a bare loop; which one comes first changes from round to round."""
    found: dict[str, float] = {}
    for which in ("kit", "bare") if index % 2 else ("bare", "kit"):
        if which == "kit":
            timing = Timing(0.0, TURN, 0.0)
            found[which] = float(np.median(measure(session.bound(inputs), timing).samples_s))
        else:
            found[which] = _bare(session, inputs)
    return found["kit"], found["bare"]


def _bare(session: OrtSession, inputs: np.ndarray) -> float:
    run, feed = session._session.run, {session._model.input.name: inputs}
    names, samples = [session._model.output.name], []
    for _ in range(10):
        run(names, feed)
    for _ in range(TURN):
        before = time.perf_counter()
        run(names, feed)
        samples.append(time.perf_counter() - before)
    return float(np.median(samples))


def _bounds() -> None:
    print(
        f"\n{RUNS} simulated runs of {', '.join(map(str, COUNTS))} samples: printed bounds that hold\n"
    )
    names = [name for name, _ in PERCENTILES]
    print("| times | runs | " + " | ".join(f"{n} upper | {n} lower" for n in names) + " |")
    print("|---|---|" + "---|---|" * len(names))
    total = np.zeros((len(names), 2, 2), dtype=np.int64)
    for number, (source, draw) in enumerate(SOURCES.items()):
        own = _held(draw, RUNS // len(SOURCES), number)
        total += own
        print(_row(source, RUNS // len(SOURCES), own), flush=True)
    print(_row("all", RUNS, total))


def _held(draw: Draw, runs: int, seed: int) -> np.ndarray:
    """`(percentiles, upper or lower, printed or held)` counts."""
    truth_from = draw(np.random.default_rng(10_000 + seed), 20_000_000)
    truth = dict(
        zip(
            [n for n, _ in PERCENTILES],
            np.quantile(truth_from, [p for _, p in PERCENTILES]),
            strict=True,
        )
    )
    counts = np.zeros((len(PERCENTILES), 2, 2), dtype=np.int64)
    rng = np.random.default_rng(seed)
    for index in range(runs):
        found = summarise(draw(rng, COUNTS[index % len(COUNTS)]).tolist(), 0.0)
        for place, (name, _) in enumerate(PERCENTILES):
            if name in found.upper:
                counts[place, 0] += 1, found.upper[name] >= truth[name]
                counts[place, 1] += 1, found.lower[name] <= truth[name]
    return counts


def _row(source: str, runs: int, counts: np.ndarray) -> str:
    cells = [f"{held / printed:.2%} of {printed}" for sides in counts for printed, held in sides]
    return f"| {source} | {runs} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
