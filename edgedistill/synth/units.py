"""How the work of a job is cut: units by number, and the share of them that a process makes."""

from __future__ import annotations

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
