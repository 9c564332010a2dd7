"""Each limit against each outcome: growth, drop with its interval, latency as a ratio, and what nobody knows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgedistill.checkresult import Allowed, CheckRow, Ending, LimitName, Snapshot
from edgedistill.evidence.checks.changes import changes
from edgedistill.evidence.checks.predictions import Scored
from edgedistill.evidence.checks.regression import Timed, compared, rows_of, sentence, verdict
from edgedistill.evidence.checks.snapshot import LEAST_LAYER_BYTES, MOST_LAYERS, Subject, kept
from edgedistill.latencyresult import Compared, Comparison
from edgedistill.metrics import proportion
from edgedistill.result import Latency

SHA = ("0" * 64, "1" * 64)
TEST = "a" * 64


def snapshot(size: int = 1000, which: int = 0, **more: Any) -> Snapshot:
    return Snapshot(
        name="m.onnx", sha256=SHA[which], size_bytes=size, files={"m.onnx": size}, **more
    )


def subject(
    right: np.ndarray | None = None, test: str = TEST, which: int = 0, **more: Any
) -> Subject:
    """A model that gets `right` of its test images, known one by one unless `test` is empty."""
    top1 = proportion(right) if right is not None else None
    known = Scored(right, (), test) if right is not None and test else None
    facts = snapshot(which=which, top1=top1, **more)
    return Subject(facts, scored=known, device="host", lacks="nobody scored it")


def limit(value: float, unit: Any = "fraction") -> Allowed:
    return Allowed(value=value, unit=unit, origin="--x")


def row(
    name: LimitName, allowed: Allowed, new: Subject, old: Subject | None = None, **timed: Any
) -> CheckRow:
    (found,) = rows_of({name: allowed}, compared(new, old, Timed(**timed)))
    return found


def sized(old: int, new: int, allowed: Allowed) -> Ending:
    sides = [Subject(snapshot(size, i)) for i, size in enumerate((new, old))]
    return row("max-size-growth", allowed, *sides).status


@pytest.mark.parametrize(
    ("old", "new", "allowed", "status"),
    [
        (1000, 1000, limit(0), "pass"), (1000, 1001, limit(0), "regress"),
        (1000, 1001, limit(1, "bytes"), "pass"), (1000, 1002, limit(1, "bytes"), "regress"),
        (1000, 1010, limit(0.01), "pass"), (1000, 1011, limit(0.01), "regress"),
        (10**9, 10**9 + 1, limit(0), "regress"), (10**15, 10**15 + 1, limit(0, "bytes"), "regress"),
        (1000, 10, limit(0), "pass"),
    ],
)  # fmt: skip
def test_a_growth_in_size_is_found_to_the_byte(
    old: int, new: int, allowed: Allowed, status: Ending
) -> None:
    assert sized(old, new, allowed) == status


def test_a_size_by_itself_is_held_against_its_limit() -> None:
    new = Subject(snapshot(1000))
    assert row("max-size-mb", limit(1000, "bytes"), new).status == "pass"
    assert row("max-size-mb", limit(999, "bytes"), new).status == "fail"


# Accuracy


def pair_of(n: int, both: int, new_only: int, old_only: int) -> tuple[Subject, Subject]:
    new, old = np.zeros(n, bool), np.zeros(n, bool)
    new[: both + new_only] = True
    old[:both] = True
    old[both + new_only : both + new_only + old_only] = True
    return subject(new), subject(old, which=1)


@pytest.mark.parametrize(
    ("counts", "points", "status"),
    [
        ((10_000, 9000, 50, 50), 0.5, "pass"),  # no difference, and enough images to say so
        ((10_000, 9000, 50, 90), 1.0, "pass"),  # 0.4 points lost, at most 0.65
        ((2_000, 1800, 30, 30), 0.5, "inconclusive"),  # no difference seen, yet too few images
        ((10_000, 9000, 50, 250), 0.5, "regress"),  # 2 points lost
        ((2_000, 1800, 10, 34), 0.5, "regress"),  # 1.2 points, certainly a loss
        ((2_000, 1800, 30, 42), 0.5, "inconclusive"),  # 0.6 points, may be chance
        ((10_000, 9000, 300, 100), 0.5, "pass"),  # better
    ],
)
def test_a_drop_is_judged_with_its_interval_on_the_same_images(
    counts: tuple[int, int, int, int], points: float, status: Ending
) -> None:
    found = row("max-drop", limit(points / 100), *pair_of(*counts))
    assert found.status == status
    assert found.observed == pytest.approx((counts[3] - counts[2]) / counts[0])
    assert found.low is not None and found.high is not None
    assert found.low < found.observed < found.high  # type: ignore[operator]
    if status == "pass":
        assert found.high <= points / 100


def test_where_nothing_changed_a_drop_is_seldom_called_one_and_a_large_one_never_passed() -> None:
    """2,000 images, 3 % of them decided by chance, a limit of half a point: 400 draws."""
    rng, seen = np.random.default_rng(0), {"none": [], "two": []}  # type: ignore[var-annotated]
    for _ in range(400):
        flips = rng.random(60) < 0.5
        for name, more in (("none", 0), ("two", 40)):
            won, lost = int(flips.sum()), int((~flips).sum()) + more
            seen[name].append(row("max-drop", limit(0.005), *pair_of(2000, 1700, won, lost)).status)
    assert seen["none"].count("regress") <= 10
    assert seen["two"].count("pass") == 0 and seen["two"].count("regress") >= 390


def test_an_inconclusive_drop_says_how_many_images_would_decide() -> None:
    found = row("max-drop", limit(0.005), *pair_of(2000, 1800, 30, 30))
    assert "test images would show it" in found.advice
    images = int(found.advice.replace(",", "").split()[1])
    assert 2000 < images < 20_000
    times = images // 2000 + 1
    more = row(
        "max-drop", limit(0.005), *pair_of(2000 * times, 1800 * times, 30 * times, 30 * times)
    )
    assert more.status == "pass"


def test_without_the_same_images_the_interval_is_wider_and_said_to_be_of_different_ones() -> None:
    new, old = pair_of(2000, 1800, 10, 34)
    other = Subject(old.facts, scored=Scored(old.scored.right, (), "b" * 64))  # type: ignore[union-attr]
    paired, apart = (
        row("max-drop", limit(0.005), new, old),
        row("max-drop", limit(0.005), new, other),
    )
    assert (paired.status, apart.status) == ("regress", "inconclusive")
    assert apart.high - apart.low > paired.high - paired.low  # type: ignore[operator]
    assert "not known to be the same" in apart.note and "the same images" in apart.advice
    far = subject(np.arange(2000) < 1500)
    assert row("max-drop", limit(0.005), far, other).status == "regress"


def test_an_accuracy_that_nobody_knows_is_never_a_pass() -> None:
    known = subject(np.ones(100, bool), which=1)
    for new, old in ((subject(), known), (known, subject())):
        found = row("max-drop", limit(0.005), new, old)
        assert found.status == "inconclusive" and "nobody scored it" in found.note
    assert row("min-top1", limit(0.5), subject()).status == "inconclusive"


def test_a_few_images_in_common_are_no_paired_test() -> None:
    new, old = pair_of(29, 20, 0, 9)
    assert "not known to be the same" in row("max-drop", limit(0.005), new, old).note


def test_the_same_file_has_lost_nothing_and_is_no_slower() -> None:
    new = subject(which=0)
    assert row("max-drop", limit(0), new, new).status == "pass"
    assert row("max-latency-growth", limit(0), new, new).status == "pass"


def test_a_least_top1_is_held_against_the_value_and_tells_of_its_interval() -> None:
    new = subject(np.arange(1000) < 900)
    assert row("min-top1", limit(0.9), new).status == "pass"
    assert "inside the 95 % interval" in row("min-top1", limit(0.9), new).note
    assert "interval" not in row("min-top1", limit(0.8), new).note
    assert row("min-top1", limit(0.901), new).status == "fail"


# Latency and memory


def timed(low: float, ratio: float, high: float, **more: Any) -> Comparison:
    sides = [
        Compared(name=n, file="f", sha256=SHA[i], p50_s=s, n=100)
        for i, (n, s) in enumerate((("old", 0.01), ("new", 0.01 * ratio)))
    ]
    return Comparison(
        old=sides[0], new=sides[1], ratio=ratio, low=low, high=high, confidence=0.998,
        ratios=[low, ratio, high], machine="a processor", runtime="onnxruntime 1",
        provider="CPUExecutionProvider", threads=1, batch=1, evidence="measured_on_proxy", **more,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("interval", "status"),
    [
        ((0.99, 1.0, 1.05), "pass"),
        ((1.051, 1.1, 1.2), "regress"),
        ((1.0, 1.1, 1.2), "inconclusive"),
    ],
)
def test_a_growth_in_latency_has_three_outcomes(
    interval: tuple[float, float, float], status: Ending
) -> None:
    new, old = subject(), subject(which=1)
    found = row("max-latency-growth", limit(0.05), new, old, comparison=timed(*interval))
    assert found.status == status
    assert found.observed == pytest.approx(interval[1] - 1)
    assert "3 pairs" in found.note and "a processor" in found.note


@pytest.mark.parametrize(
    ("interval", "status"),
    [
        ((0.99, 1.0, 1.05), "unconfirmed"),
        ((1.051, 1.1, 1.2), "unconfirmed"),
        ((1.0, 1.1, 1.2), "inconclusive"),
    ],
)
def test_a_ratio_of_another_kind_of_processor_decides_nothing(
    interval: tuple[float, float, float], status: Ending
) -> None:
    found = timed(
        *interval, same_class=False, evidence_words="a ratio of the processor, not of the GPU"
    )
    told = row("max-latency-growth", limit(0.05), subject(), subject(which=1), comparison=found)
    assert told.status == status and "not of the GPU" in told.note and told.advice


def test_a_growth_that_was_not_measured_is_inconclusive_with_the_reason() -> None:
    found = row(
        "max-latency-growth", limit(0.05), subject(), subject(which=1), why="no runtime", advice="do so"
    )  # fmt: skip
    assert (found.status, found.observed) == ("inconclusive", None)
    assert "no runtime" in found.note and found.advice == "do so"


def latency(evidence: Any, p90_s: float, **more: Any) -> Latency:
    return Latency(
        device="d", machine="m", runtime="r", provider="CPUExecutionProvider", threads=1, batch=1,
        evidence=evidence, p50_s=p90_s / 2, p90_s=p90_s, n=100, **more,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("evidence", "p90", "status"),
    [
        ("measured_on_target", 0.004, "pass"), ("measured_on_target", 0.006, "fail"),
        ("predicted", 0.004, "unconfirmed"), ("predicted", 0.006, "fail"),
        ("measured_on_proxy", 0.004, "unconfirmed"), ("measured_on_proxy", 0.006, "unconfirmed"),
    ],
)  # fmt: skip
def test_a_time_counts_by_what_it_was_measured_on(
    evidence: Any, p90: float, status: Ending
) -> None:
    new = Subject(snapshot(), device="jetson", latency=(latency(evidence, p90),))
    found = row("max-latency-ms", limit(0.005, "seconds"), new)
    assert found.status == status
    assert (found.observed is None) == (evidence == "measured_on_proxy")


@pytest.mark.parametrize(
    ("p90", "median", "status"), [(0.004, 0.003, "pass"), (0.006, 0.004, "inconclusive"), (0.009, 0.0051, "fail")]
)  # fmt: skip
def test_an_unstable_time_fails_only_where_even_its_median_is_too_long(
    p90: float, median: float, status: Ending
) -> None:
    row_ = latency("measured_on_target", p90, stable=False, low={"p50": median})
    found = row("max-latency-ms", limit(0.005, "seconds"), Subject(snapshot(), latency=(row_,)))
    assert found.status == status and "unstable" in found.note


def test_memory_counts_where_it_was_measured_on_the_target() -> None:
    def peak(evidence: Any) -> Subject:
        return Subject(snapshot(), latency=(latency(evidence, 1, peak_rss_bytes=50),))

    assert row("max-memory-mb", limit(50, "bytes"), peak("measured_on_target")).status == "pass"
    assert row("max-memory-mb", limit(49, "bytes"), peak("measured_on_target")).status == "fail"
    assert (
        row("max-memory-mb", limit(99, "bytes"), peak("measured_on_proxy")).status == "unconfirmed"
    )


# The verdict, and what changed


def test_the_worst_row_decides_and_the_sentence_names_it() -> None:
    def rows(*endings: Ending) -> list[CheckRow]:
        names: tuple[LimitName, ...] = ("max-size-growth", "max-drop", "min-top1")
        return [
            CheckRow(limit=name, allowed=limit(1), status=status)
            for name, status in zip(names, endings, strict=False)
        ]

    assert verdict([]) == "pass"
    assert verdict(rows("pass", "unconfirmed", "inconclusive")) == "inconclusive"
    assert verdict(rows("inconclusive", "regress")) == verdict(rows("pass", "fail")) == "fail"
    told = [
        sentence(rows(*e), "m")
        for e in (
            ("pass",),
            ("pass", "pass"),
            ("regress", "pass", "fail"),
            ("pass", "inconclusive"),
        )
    ]
    assert told == [
        "m keeps its one limit.", "m keeps all 2 limits.",
        "m misses 2 of 3 limits: size growth and top-1.",
        "m is not known to miss one of 2 limits; top-1 drop could not be decided.",
    ]  # fmt: skip


def test_what_grew_most_comes_first_and_operators_come_and_go() -> None:
    old = snapshot(
        1000, layers={"a": 100, "b": 200, "gone": 50, "same": 9}, operators={"Clip": 3, "Conv": 5}
    )
    new = snapshot(
        1800, layers={"a": 600, "b": 190, "new": 300, "same": 9}, operators={"Conv": 5, "Relu": 1}
    )
    found = changes(new, old)
    assert [(c.name, c.old, c.new) for c in found.layers] == [
        ("a", 100, 600), ("new", None, 300), ("b", 200, 190), ("gone", 50, None)
    ]  # fmt: skip
    assert [(c.name, c.old, c.new) for c in found.operators] == [
        ("Relu", None, 1),
        ("Clip", 3, None),
    ]
    assert found.rest is not None and (found.rest.old, found.rest.new) == (641, 701)
    moved = sum((c.new or 0) - (c.old or 0) for c in [*found.layers, found.rest])
    assert moved == new.size_bytes - old.size_bytes


def test_small_layers_of_a_baseline_are_compared_as_a_sum() -> None:
    layers = {f"l{i}": 1000 + i for i in range(MOST_LAYERS + 20)} | {"tiny": LEAST_LAYER_BYTES - 1}
    whole = Subject(snapshot(200_000, layers=layers))
    base = kept(whole)
    assert changes(whole.facts, base) == changes(whole.facts, whole.facts)
    grown = snapshot(200_007, layers={**layers, "tiny": LEAST_LAYER_BYTES + 6, "l119": 2000})
    found = changes(grown, base)
    assert [c.name for c in found.layers] == ["l119"]
    assert found.other_layers is not None
    assert (found.other_layers.new or 0) - (found.other_layers.old or 0) == 7
    big = changes(snapshot(300_000, layers={**layers, "big": 90_000}), base)
    assert [(c.name, c.old) for c in big.layers] == [("big", None)]
