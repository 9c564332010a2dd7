"""Rounds of making and judging: filled to the count, the same bytes however often it was broken off."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synth_parts import CLASSES, contents, job_in, plan_of

from edgedistill.errors import GeneratorError
from edgedistill.synth import curate
from edgedistill.synth.curate import Rules, Seen, unit_length
from edgedistill.synth.generators import FakeSource, Pixels, Wish
from edgedistill.synth.job import Job
from edgedistill.synth.ledger import read_lines
from edgedistill.synth.rounds import Asked, Outcome, Teaching, fill
from edgedistill.synth.score import blank, scored
from edgedistill.synth.units import Part

RULES = Rules(copy_quantile=None, twin_quantile=None, outlier_quantile=None)
ASKED = Asked((6, 6, 6), (40, 40, 40))


class Unsteady(FakeSource):
    """The fake, of which every third image shows the next class and every tenth nothing at all."""

    def __init__(self, until: int | None = None, never: int | None = None) -> None:
        super().__init__(8, len(CLASSES))
        self.until, self.never = until, never

    def again(self) -> Unsteady:
        """The same one, whenever it is asked for."""
        return self

    def make(self, wishes: Sequence[Wish]) -> list[Pixels]:
        if self.until is not None:
            if self.until == 0:
                raise KeyboardInterrupt
            self.until -= 1
        found = []
        for wish in wishes:
            wrong = wish.seed % 3 == 0 or wish.label == self.never
            shown = (wish.label + 1) % len(CLASSES) if wrong else wish.label
            image = super().make([Wish(wish.number, shown, "", wish.seed)])[0]
            found.append(np.zeros_like(image) if wish.seed % 10 == 0 else image)
        return found


def look(pixels: Pixels) -> tuple[Any, Any]:
    """A teacher that knows the classes of the fake by their grey."""
    grey = pixels.mean((1, 2, 3)) / 255
    centres = (np.arange(len(CLASSES)) + 0.5) / len(CLASSES)
    logits = -80 * (grey[:, None] - centres) ** 2
    features = np.stack([grey, 1 - grey, pixels.std((1, 2, 3)) / 255], axis=1)
    return features.astype(np.float32), logits.astype(np.float32)


def teaching(rules: Rules = RULES, key: str = "t") -> Teaching:
    """The teacher with what it says of real images."""
    fake = FakeSource(8, len(CLASSES))
    pixels = np.stack(fake.make([Wish(n, n % 3, "", 10**6 + n) for n in range(60)]))
    features, logits = look(pixels)
    real = unit_length(features)
    labels = np.arange(60, dtype=np.int64) % 3
    known = curate.measure(Seen(real, logits, labels, blank(list(pixels))), rules)
    return Teaching(key, look, {"train": real}, known, rules)


def _filled(folder: Path, **more: Any) -> Outcome | None:
    return fill(Job(folder, plan_of()), Unsteady, ASKED, teaching(), **more)


def test_a_job_is_filled_to_the_count_of_each_class(tmp_path: Path) -> None:
    outcome = _filled(tmp_path)
    assert outcome is not None
    kept = [line.label for line in outcome.kept]
    assert [kept.count(k) for k in range(3)] == [6, 6, 6]
    assert outcome.lacking == (0, 0, 0)
    assert outcome.dropped[curate.DISAGREES] > 0 and outcome.dropped[curate.BLANK] > 0
    assert len(outcome.lines) == sum(outcome.dropped.values()) + 18
    assert len(Job(tmp_path, plan_of()).rounds()) > 1
    assert tuple(read_lines(tmp_path / "ledger.jsonl")) == outcome.lines


def test_every_dropped_image_has_its_reason_and_every_one_its_scores(tmp_path: Path) -> None:
    outcome = _filled(tmp_path)
    assert outcome is not None
    for line in outcome.lines:
        assert line.scores is not None
        assert line.kept is (line.reason is None)
        if line.reason is None:
            assert line.scores.teacher_label == line.label


@pytest.mark.parametrize("until", [0, 1, 4, 6, 8])
def test_broken_off_anywhere_it_ends_with_the_same_bytes(tmp_path: Path, until: int) -> None:
    _filled(tmp_path / "whole")
    job = Job(tmp_path / "broken", plan_of())
    with contextlib.suppress(KeyboardInterrupt):
        fill(job, Unsteady(until).again, ASKED, teaching())
    _filled(tmp_path / "broken")
    whole, broken = contents(tmp_path / "whole"), contents(tmp_path / "broken")
    assert whole == broken


def test_one_part_waits_for_the_other_and_both_end_as_one_alone(tmp_path: Path) -> None:
    _filled(tmp_path / "alone")
    turns = 0
    outcomes: list[Outcome | None] = [None]
    while outcomes[-1] is None:
        outcomes.append(_filled(tmp_path / "shared", part=Part(turns % 2, 2)))
        turns += 1
        assert turns < 30
    assert contents(tmp_path / "alone") == contents(tmp_path / "shared")
    assert outcomes[1] is None


def test_a_class_without_an_accepted_image_is_named_after_all_tries(tmp_path: Path) -> None:
    asked = Asked((3, 3, 3), (12, 12, 12))
    job = Job(tmp_path, plan_of())
    words = r"none of 12 images of class bag was accepted \(.*sees another class: \d+.*What was made is kept"
    with pytest.raises(GeneratorError, match=words):
        fill(job, lambda: Unsteady(never=1), asked, teaching())
    assert sum(line.label == 1 for line in read_lines(tmp_path / "ledger.jsonl")) == 12


def test_a_limit_on_tries_is_kept_and_what_lacks_is_told(tmp_path: Path) -> None:
    asked = Asked((30, 4, 4), (10, 20, 20))
    outcome = fill(Job(tmp_path, plan_of()), Unsteady, asked, teaching())
    assert outcome is not None
    assert sum(line.label == 0 for line in outcome.lines) == 10
    assert outcome.lacking[0] == 30 - sum(line.label == 0 for line in outcome.kept)
    assert outcome.lacking[1:] == (0, 0)


def test_a_unit_is_looked_at_once_for_each_teacher(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    job.make(lambda: FakeSource(8, 3), Part())
    unit, calls = job.units(0)[0], []

    def counted(pixels: Pixels) -> tuple[Any, Any]:
        calls.append(len(pixels))
        return look(pixels)

    first = scored(job, unit, "one", counted)
    again = scored(job, unit, "one", counted)
    assert len(calls) == 1
    assert all(np.array_equal(getattr(first, k), getattr(again, k)) for k in vars(first))
    scored(job, unit, "two", counted)
    assert len(calls) == 2
    file = tmp_path / "scores" / f"{unit.name}.npz"
    file.write_bytes(file.read_bytes()[:100])
    scored(job, unit, "two", counted)
    assert len(calls) == 3


def test_answers_that_are_not_finite_are_named(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    job.make(lambda: FakeSource(8, 3), Part())

    def broken(pixels: Pixels) -> tuple[Any, Any]:
        features, logits = look(pixels)
        return features, logits * np.nan

    with pytest.raises(GeneratorError, match="answers for 0-00000 are not finite"):
        scored(job, job.units(0)[0], "x", broken)
