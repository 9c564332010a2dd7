"""Honest timing: warm up until it is steady, run until both a time and a count are reached, print only what the samples
carry.

No sample is clipped. One run follows the other (MLPerf single stream), or each begins when its frame is due.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ontarget.percentiles import PERCENTILES, lower_percentile, upper_percentile

MAX_CV = 0.025
TICK_S = 1e-9
"""Of the clock: what is shorter was not measured, and nothing is compared with it."""
MAX_DRIFT = 0.05
WARMUP_RUNS = 10
WARMUP_SECONDS = 0.2
WINDOWS = 4
"""The warm-up ends when so many windows in a row, each an equal part of `WARMUP_SECONDS`, agree..."""
STEADY = 0.02
"""...in their medians to this, or when it took `LONGEST_WARMUPS` times as long."""
LONGEST_WARMUPS = 10
MOST_SAMPLES = 200_000
"""Runs that are kept. Of more, every second one is dropped, and from then on every second one is kept."""


@dataclass(frozen=True)
class Timing:
    """How long to measure: until both `min_seconds` and `min_runs`, never longer than `max_seconds`; with `fps` a run
    begins when its frame is due. `tier` names one of `TIERS`, None for another choice.
    """

    min_seconds: float = 3.0
    min_runs: int = 662
    warmup_seconds: float = WARMUP_SECONDS
    max_seconds: float = 120.0
    fps: float | None = None
    tier: str | None = "default"


TIERS = {
    "quick": Timing(min_seconds=0.5, min_runs=64, max_seconds=20.0, tier="quick"),
    "default": Timing(),
    "thorough": Timing(
        min_seconds=60.0, min_runs=6636, warmup_seconds=2.0, max_seconds=900.0, tier="thorough"
    ),
}
"""Enough for a p90; for a p99; for a p99.9 and a minute of heat."""


@dataclass(frozen=True)
class Measurement:
    """Times of single runs in seconds, in the order in which they ran, and what they allow to say.

    `upper` and `lower` have the bounds of each of `PERCENTILES` that the samples carry. `cv` (deviation by mean) and
    `drift` (median of the last third by that of the first, less 1) are None below 2 and 6 samples; `stable` is None
    when either is. `late` counts the frames of a paced measurement that were over before their run could begin.
    """

    samples_s: tuple[float, ...]
    first_run_s: float
    warmup_runs: int
    warmup_s: float
    upper: dict[str, float]
    lower: dict[str, float]
    mean_s: float
    max_s: float
    cv: float | None
    drift: float | None
    stable: bool | None
    late: int | None
    warnings: tuple[str, ...]

    @property
    def n(self) -> int:
        """How many runs were timed."""
        return len(self.samples_s)


def summarise(
    samples_s: Sequence[float],
    first_run_s: float,
    warmup: tuple[int, float] = (0, 0.0),
    late: int | None = None,
    warnings: Sequence[str] = (),
) -> Measurement:
    """The measurement that these samples carry; `warmup`: its runs and seconds. Raises ValueError without a sample."""
    values = np.asarray(samples_s, dtype=np.float64)
    n = len(values)
    if not n:
        raise ValueError("a measurement needs at least one sample")
    mean = float(values.mean())
    cv = float(values.std(ddof=1) / mean) if n >= 2 and mean >= TICK_S else None
    third = n // 3
    first = float(np.median(values[:third])) if third >= 2 else 0.0
    drift = float(np.median(values[-third:])) / first - 1 if first >= TICK_S else None
    notes = list(warnings)
    if cv is not None and cv > MAX_CV:
        notes.append(
            f"times vary by {cv:.1%} of their mean (over {MAX_CV:.1%}): the machine was not quiet"
        )
    if drift is not None and abs(drift) > MAX_DRIFT:
        word = "slower" if drift > 0 else "faster"
        notes.append(
            f"the last third ran {abs(drift):.1%} {word} than the first: clocks or heat moved"
        )
    stable = None
    if cv is not None and drift is not None:
        stable = cv <= MAX_CV and abs(drift) <= MAX_DRIFT
    upper = {name: upper_percentile(values, p) for name, p in PERCENTILES}
    lower = {
        name: lower_percentile(values, p) for name, p in PERCENTILES if upper[name] is not None
    }
    return Measurement(
        samples_s=tuple(float(v) for v in values),
        first_run_s=first_run_s,
        warmup_runs=warmup[0],
        warmup_s=warmup[1],
        upper={name: value for name, value in upper.items() if value is not None},
        lower={name: value for name, value in lower.items() if value is not None},
        mean_s=mean,
        max_s=float(values.max()),
        cv=cv,
        drift=drift,
        stable=stable,
        late=late,
        warnings=tuple(notes),
    )


def measure(
    run: Callable[[], object],
    timing: Timing = Timing(),
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Measurement:
    """Time `run`: the first call alone, the warm-up, then timed calls, one after the other or at the pace of `fps`.

    Warm-up and timing together end after `max_seconds`, with a warning when that cuts them short; at least one call is
    timed.
    """
    started = clock()
    run()
    begun = clock()
    first_run_s = begun - started
    warmups, notes = _warm_up(run, timing, clock)
    warmup = (warmups, clock() - begun)
    samples: list[float] = []
    timed_from, late, frame, runs, step = clock(), 0, 0, 0, 1
    while True:
        if timing.fps is not None:
            due = timed_from + frame / timing.fps
            wait = due - clock()
            if wait > 0:
                sleep(wait)
            frame += 1
        before = clock()
        run()
        after = clock()
        if runs % step == 0:
            samples.append(after - before)
        runs += 1
        if len(samples) == MOST_SAMPLES:
            del samples[1::2]
            step *= 2
        if timing.fps is not None:
            # a camera does not wait: of the frames that came meanwhile all but the last are lost
            missed = int((after - timed_from) * timing.fps) - frame
            if missed > 0:
                late, frame = late + missed, frame + missed
        if after - timed_from >= timing.min_seconds and len(samples) >= timing.min_runs:
            break
        if after - begun >= timing.max_seconds:
            notes.append(
                f"stopped by the limit of {timing.max_seconds:g} s after {len(samples)} of "
                f"{timing.min_runs} runs"
            )
            break
    if late:
        notes.append(
            f"{late} of {frame} frames were lost: the model does not keep up with "
            f"{timing.fps:g} frames a second"
        )
    return summarise(samples, first_run_s, warmup, None if timing.fps is None else late, notes)


def _warm_up(
    run: Callable[[], object],
    timing: Timing,
    clock: Callable[[], float],
) -> tuple[int, list[str]]:
    """Run until the medians of `WINDOWS` windows agree: how many runs it took, and what went wrong."""
    begun = now = clock()
    runs, medians = 0, [0.0]
    most = min(timing.max_seconds, LONGEST_WARMUPS * timing.warmup_seconds)
    length = timing.warmup_seconds / WINDOWS
    while True:
        opened = now
        times: list[float] = []
        while (now - opened < length or len(times) * WINDOWS < WARMUP_RUNS) and (
            now - begun < timing.max_seconds
        ):
            before = now
            run()
            now = clock()
            times.append(now - before)
        runs += len(times)
        medians = [*medians, float(np.median(times)) if times else 0.0][-WINDOWS:]
        steady = len(medians) == WINDOWS and max(medians) <= (1 + STEADY) * min(medians)
        if runs >= WARMUP_RUNS and steady:
            return runs, []
        if now - begun >= most and (runs >= WARMUP_RUNS or now - begun >= timing.max_seconds):
            break
    if runs < WARMUP_RUNS:
        return runs, [
            f"the warm-up ended after {runs} of {WARMUP_RUNS} runs: the limit of "
            f"{timing.max_seconds:g} s"
        ]
    return runs, [
        f"times were not steady after a warm-up of {now - begun:.1f} s (windows differ by more than {STEADY:.0%})"
    ]
