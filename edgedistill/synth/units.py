"""How the work of a job is cut: units by number, and the share of them that a process makes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from edgedistill.errors import UsageError


@dataclass(frozen=True)
class Part:
    """Which share of the units this process makes: units whose number leaves `index` when divided by `count`."""

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Part:
        """`2/5` is the second of five. Raises `UsageError`."""
        first, _, second = text.partition("/")
        if not (first.isdigit() and second.isdigit() and 1 <= int(first) <= int(second)):
            raise UsageError(f'--part is "2/5" for the second of five parts; got "{text}"')
        return cls(int(first) - 1, int(second))


@dataclass(frozen=True)
class Unit:
    """Consecutive images of a round: numbers from `start` up to `stop`."""

    round: int
    place: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """The name of its files."""
        return f"{self.round}-{self.place:05}"

    def batches(self, size: int) -> list[tuple[int, int]]:
        """Numbers of each batch: first, and one after the last."""
        return [(at, min(at + size, self.stop)) for at in range(self.start, self.stop, size)]


def cut(index: int, first: int, stop: int, step: int) -> list[Unit]:
    """The units of a round: numbers from `first` up to `stop`, `step` in each but the last."""
    starts = range(first, stop, step)
    return [Unit(index, place, at, min(at + step, stop)) for place, at in enumerate(starts)]


def stale(before: Sequence[Sequence[int]], counts: Sequence[int], step: int) -> set[str]:
    """Names of units that a first round `before` (none or one) may have left and one of `counts` has otherwise.

    Where all classes have as many images they come in turn: a smaller round is the beginning of a larger one, and what
    differs are units that are not whole.
    """
    if any(len(set(each)) > 1 for each in (*before, counts)):
        return {"0-"}
    old, new = (set(cut(0, 0, sum(map(sum, each)), step)) for each in (before, [counts]))
    return {unit.name for unit in old ^ new if unit.stop - unit.start < step}


def seed_of(seed: int, number: int) -> int:
    """Seed of an image: 63 bits of a hash of the job's seed and the image's number."""
    digest = hashlib.blake2b(f"{seed}/{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
