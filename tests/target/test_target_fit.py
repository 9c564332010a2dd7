"""Fitting a machine: exact where the machine is what the model says, and honest where a family is left out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgedistill.target.attribute import TimedKernels
from edgedistill.target.features import CLASSES, COLUMNS, NAMES, by_class, columns_of, features_of
from edgedistill.target.fit import Anchor, Fit, fit
from edgedistill.target.kernels import KernelTable
from edgedistill.target.latency import LatencyModel, Network, evaluate
from edgedistill.target.students import find_student

NETS = (
    *(("mobilenetv2_100", 96), ("mobilenetv3_large_100", 128), ("resnet18", 96)),
    *(("repvit_m0_9", 64), ("regnety_004", 96), ("mobilevit_xxs", 128), ("lcnet_100", 160)),
    *(("tf_efficientnet_lite0", 64), ("rexnet_100", 64), ("mobilenetv2_050", 224)),
)
FAMILIES = ("mobilenetv2", "mobilenetv3", "resnet", "repvit")


def _machine(seed: int = 0) -> np.ndarray:
    """Seconds a unit that a made-up machine takes, (classes, columns): overhead, MACs and traffic."""
    rng = np.random.default_rng(seed)
    terms = np.zeros((len(CLASSES), len(COLUMNS)))
    for column, size in (("count", 5e-6), ("macs", 2e-11), ("read", 2e-10), ("written", 3e-10)):
        terms[:, COLUMNS.index(column)] = size * rng.uniform(0.5, 2, len(CLASSES))
    return terms


def _anchor(name: str, size: int, terms: np.ndarray, noise: float = 0.0) -> Anchor:
    student = find_student(name)
    table = KernelTable(student.rows(size, 1000))
    rows = features_of(table)
    seconds = np.array([(by_class(row) * terms).sum() for row in rows])
    rng = np.random.default_rng(size)
    whole = float(seconds.sum() * (1 + noise * rng.normal()))
    features = student.features(size, 1000)
    nothing = {"hard": 0.0, "smooth": 0.0, "other": 0.0}
    kernels = TimedKernels(table, seconds, np.ones(len(table)), 0.0, nothing, 0)
    return Anchor(name, student.family, features, kernels, whole)


def _predict(found: object, name: str, size: int) -> float:
    model = LatencyModel((found,), {"B": (0.9, 1.1)}, "B", "B")  # type: ignore[arg-type]
    student = find_student(name)
    return evaluate(model, Network(name, student.family, frozenset(), student.features(size, 1000)))


def test_a_machine_that_is_what_the_model_says_is_found_again() -> None:
    terms = _machine()
    found = fit([_anchor(name, size, terms) for name, size in NETS])
    for name, size in (("mobilenetv2_140", 128), ("tf_efficientnet_lite2", 96)):
        truth = _anchor(name, size, terms).latency_s
        assert _predict(found.component, name, size) == pytest.approx(truth, rel=0.05)
    assert set(found.component.seconds) <= set(NAMES)
    assert min(found.component.seconds.values()) > 0


def test_errors_are_those_of_families_left_out_and_widen_the_band() -> None:
    terms = _machine()
    still = fit([_anchor(name, size, terms) for name, size in NETS])
    noisy = fit([_anchor(name, size, terms, noise=0.3) for name, size in NETS])
    assert len(still.errors) == len(NETS)
    assert np.median(np.abs(still.errors)) < np.median(np.abs(noisy.errors))
    assert noisy.band[1] > still.band[1] >= 1.08
    assert noisy.band[0] * noisy.band[1] == pytest.approx(1)


def test_an_anchor_that_no_other_is_like_does_not_widen_the_band_of_all() -> None:
    """Left out it errs by half, kept it is fitted: students between the others are predicted all the same."""
    terms = _machine()
    errors = np.full(10, 0.02)
    errors[0] = 0.5
    odd = Fit(fit([_anchor(n, s, terms) for n, s in NETS]).component, errors, np.full(10, 0.01))
    assert odd.band == pytest.approx((math.exp(-0.08), math.exp(0.08)))


def test_whole_networks_correct_what_operator_times_overstate() -> None:
    terms = _machine()
    anchors = [_anchor(name, size, terms) for name, size in NETS]
    halved = [Anchor(a.name, a.family, a.features, a.kernels, a.latency_s / 2) for a in anchors]
    truth = _anchor("mobilenetv2_140", 128, terms).latency_s / 2
    assert _predict(fit(halved).component, "mobilenetv2_140", 128) == pytest.approx(truth, rel=0.2)


def test_a_class_that_was_not_timed_gets_the_terms_of_its_like() -> None:
    terms = _machine()
    plain = [n for n in NETS if n[0] != "rexnet_100"]  # the only one with odd channels everywhere
    found = fit([_anchor(name, size, terms) for name, size in plain])
    assert _predict(found.component, "rexnet_100", 64) > 0


def test_three_families_are_too_few() -> None:
    terms = _machine()
    nets = [n for n in NETS if find_student(n[0]).family in FAMILIES[:3]]
    with pytest.raises(ValueError, match="four families"):
        fit([_anchor(name, size, terms) for name, size in nets])


def test_columns_add_up_to_the_networks_totals() -> None:
    table = KernelTable(find_student("ghostnet_100").rows(96, 10))
    sums = dict(zip(COLUMNS, columns_of(table).sum(0), strict=True))
    assert sums["count"] == len(table)
    assert sums["macs"] == table.column("macs").sum()
    assert sums["padded_macs"] >= sums["macs"]
