"""Curation: each rule finds what it is for, rounds fill up what is missing, and the measure is that of real images."""

from __future__ import annotations

import numpy as np
import pytest

from edgedistill.synth import curate
from edgedistill.synth.curate import Measure, Rules, Seen, Verdict

WIDTH, CLASSES = 16, 3


def _seen(n: int, seed: int, spread: float = 0.3) -> Seen:
    """Images around the middle of their class, which is one axis, with a teacher that has them right."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % CLASSES
    features = np.eye(WIDTH)[labels] + rng.normal(0, spread, (n, WIDTH))
    logits = 4.0 * np.eye(CLASSES)[labels]
    return Seen(
        curate.unit_length(features.astype(np.float32)),
        logits.astype(np.float32),
        labels.astype(np.int64),
        np.zeros(n, dtype=bool),
    )


TRAIN = _seen(300, 0)
REAL = {"train": TRAIN.features, "test": _seen(100, 1).features}


def _judged(
    made: Seen, rules: Rules = Rules(), wanted: tuple[int, ...] = (99, 99, 99)
) -> list[Verdict]:
    return curate.judge(made, REAL, curate.measure(TRAIN, rules), rules, wanted)


def _changed(made: Seen, **changes: np.ndarray) -> Seen:
    return Seen(**{**vars(made), **changes})


def _reasons(verdicts: list[Verdict]) -> list[str | None]:
    return [v.reason for v in verdicts]


def test_images_like_the_real_ones_are_kept() -> None:
    reasons = _reasons(_judged(_seen(150, 2)))
    assert reasons.count(None) >= 142


def test_each_rule_gives_its_reason() -> None:
    made = _seen(8, 3, spread=0.25)
    features, logits, blank = made.features.copy(), made.logits.copy(), made.blank.copy()
    blank[0] = True
    logits[1] = [4.0, 0.0, 0.0]
    logits[2] = [0.1, 0.0, 0.2]
    features[3] = curate.unit_length(-features[3:4])[0]
    features[4] = REAL["test"][7]
    features[5] = TRAIN.features[11]
    features[7] = features[6]
    labels = made.labels.copy()
    labels[7] = labels[6]
    logits[7] = logits[6]
    changed = _changed(made, features=features, logits=logits, blank=blank, labels=labels)
    found = _reasons(_judged(changed))
    assert found[0] == curate.BLANK
    assert found[1] == curate.DISAGREES
    assert found[2] == curate.UNSURE
    assert found[3] == curate.OUTLIER
    assert found[4] == "copy of a test image"
    assert found[5] == "copy of a train image"
    assert found[6] is None
    assert found[7] == curate.TWIN


def test_a_copy_of_a_test_image_is_found_and_named() -> None:
    made = _seen(30, 4, spread=0.05)
    features = made.features.copy()
    own = [int(np.flatnonzero(np.arange(100) % CLASSES == made.labels[i])[i]) for i in range(10)]
    features[:10] = REAL["test"][own]
    off = Rules(outlier_quantile=None)
    found = _reasons(_judged(_changed(made, features=features), off))
    assert found[:10] == ["copy of a test image"] * 10
    rules = Rules(outlier_quantile=None, copy_quantile=None, twin_quantile=None)
    assert set(_reasons(_judged(_changed(made, features=features), rules))) == {None}


def test_rules_that_are_off_drop_nothing() -> None:
    made = _seen(60, 5, spread=2.0)
    wrong = _changed(made, logits=np.roll(made.logits, 1, axis=1))
    off = Rules(False, None, None, None, None)
    assert set(_reasons(_judged(wrong, off))) == {None}
    assert set(_reasons(_judged(wrong))) == {curate.DISAGREES}


def test_no_more_are_kept_than_were_asked_for_and_the_first_stay() -> None:
    made = _seen(60, 6, spread=0.2)
    some = _judged(made, wanted=(5, 5, 5))
    assert _reasons(some).count(None) == 15
    first = [i for i, v in enumerate(_judged(made)) if v.reason is None][:3]
    assert all(some[i].reason is None for i in first)


def test_a_later_round_changes_no_verdict_of_an_earlier_one() -> None:
    made = _seen(90, 7)
    part = Seen(made.features[:40], made.logits[:40], made.labels[:40], made.blank[:40])
    assert _judged(made)[:40] == _judged(part)


def test_the_next_round_makes_what_lacks_by_the_share_that_was_kept() -> None:
    made = _seen(60, 8, spread=0.2)
    wrong = made.logits.copy()
    wrong[made.labels == 1] = [9.0, 0.0, 0.0]
    half = np.flatnonzero(made.labels == 2)[::2]
    wrong[half] = [9.0, 0.0, 0.0]
    verdicts = _judged(_changed(made, logits=wrong), wanted=(10, 10, 20))
    lack = curate.lacking(made.labels, verdicts, (10, 10, 20))
    assert lack[0] == 0 and lack[1] == 10 and 10 <= lack[2] <= 12
    counts = curate.next_round(made.labels, verdicts, lack, (500, 300, 500))
    assert counts[0] == 0
    assert counts[1] == 300, "nothing was kept: as many as are allowed"
    assert 2 * lack[2] <= counts[2] <= 3 * lack[2]


def test_the_measure_is_how_near_real_images_come_to_each_other() -> None:
    known = curate.measure(TRAIN, Rules())
    near, which = curate.nearest(TRAIN.features, TRAIN.features, itself=True)
    assert float(np.mean(near > known.copy)) <= 0.01
    assert (which != np.arange(300)).all()
    assert known.middles.shape == (CLASSES, WIDTH)
    assert np.allclose(np.linalg.norm(known.middles, axis=1), 1, atol=1e-5)


def test_nearest_is_the_plain_answer_over_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curate, "BLOCK", 7)
    a, b = _seen(40, 9).features, _seen(33, 10).features
    best, which = curate.nearest(a, b)
    full = a @ b.T
    assert np.allclose(best, full.max(axis=1)) and (which == full.argmax(axis=1)).all()
    assert curate.nearest(a, b[:0])[0].tolist() == [-1.0] * 40
    assert curate.nearest(a[:1], a[:1], itself=True)[1].tolist() == [-1]


def test_a_class_without_real_images_asks_for_nothing() -> None:
    two = TRAIN.labels < 2
    train = Seen(TRAIN.features[two], TRAIN.logits[two], TRAIN.labels[two], TRAIN.blank[two])
    known: Measure = curate.measure(train, Rules())
    assert known.least[2] == -1.0
    made = _seen(9, 11)
    found = curate.judge(made, {"train": train.features}, known, Rules(), (9, 9, 9))
    assert all(
        v.reason != curate.OUTLIER for v, k in zip(found, made.labels, strict=True) if k == 2
    )


def test_reasons_are_counted() -> None:
    made = _seen(12, 12, spread=0.2)
    found = curate.tally(_judged(made, wanted=(1, 1, 1)))
    assert found[curate.SURPLUS] >= 8
