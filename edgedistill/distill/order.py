"""In which order a training sees its images: a function of the random numbers that it is given. numpy only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def in_turns(rng: np.random.Generator, rows: Ints, count: int) -> Ints:
    """`count` rows: all of them in one order, then in another, as often as it takes."""
    times = max(1, -(-count // len(rows)))
    return np.concatenate([rng.permutation(rows) for _ in range(times)])[:count]


def order_of(
    rng: np.random.Generator, rows: Ints, own: int, size: int, steps: int, among: int
) -> Ints:
    """An epoch's order (size * steps,) of `rows`: all in turns, with `among` synthetic images, which are the rows from
    `own` on, in each batch of `size`.
    """
    real, made = rows[rows < own], rows[rows >= own]
    if among == 0 or not len(made):
        return in_turns(rng, real, size * steps)
    parts = [
        in_turns(rng, part, count * steps).reshape(steps, count)
        for part, count in ((real, size - among), (made, among))
        if count
    ]
    order: Ints = rng.permuted(np.concatenate(parts, axis=1), axis=1).ravel()
    return order
