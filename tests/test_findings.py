"""What is said of the teacher beside what its student gained."""

from __future__ import annotations

import numpy as np
import pytest

from edgedistill.findings import Bools, teacher_words
from edgedistill.metrics import paired_gain


def right(share: float, n: int = 1000) -> Bools:
    """The first share of `n` images right."""
    return np.arange(n) < share * n


GAINED = paired_gain(right(0.85), right(0.80), "plain")
NONE = paired_gain(right(0.80), right(0.80), "plain")
LOST = paired_gain(right(0.75), right(0.80), "plain")


@pytest.mark.parametrize(
    ("teacher", "gain", "begins", "ends"),
    [
        (0.90, GAINED, "The teacher is better than the plain student: a gain of 10.0", "n = 1000)"),
        (0.90, LOST, "The teacher is better", "n = 1000)"),
        (0.80, GAINED, "The teacher is not measurably better", "gained from it all the same"),
        (0.70, GAINED, "The teacher is worse than the plain student (a loss", "all the same"),
        (0.80, NONE, "The teacher is not measurably better", "a stronger teacher may help"),
        (0.70, LOST, "The teacher is worse", "a stronger teacher may help"),
    ],
)
def test_words_of_the_teacher_never_speak_against_the_gain(
    teacher: float, gain: object, begins: str, ends: str
) -> None:
    words = teacher_words(right(teacher), right(0.80), gain)  # type: ignore[arg-type]
    assert words.startswith(begins) and words.endswith(ends)
    if gain is GAINED:
        assert "little" not in words and "no gain" not in words and "stronger" not in words


def test_two_that_are_always_right_have_nothing_to_learn() -> None:
    assert "nothing is left to learn" in teacher_words(right(1.0), right(1.0), NONE)
