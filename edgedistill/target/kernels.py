"""Kernels as a table of integers: what planning adds up for thousands of candidates at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgedistill.target.cost import KERNEL_KINDS, KernelCost

COLUMNS = tuple(field.name for field in dataclasses.fields(KernelCost))
"""Columns of the table; `kind` is a place in `KERNEL_KINDS`."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class KernelTable:
    """Rows of kernels, shape (N, len(COLUMNS))."""

    rows: Ints

    def column(self, name: str) -> Ints:
        """One column, shape (N,)."""
        return self.rows[:, COLUMNS.index(name)]

    def __len__(self) -> int:
        return len(self.rows)


def row_of(kernel: KernelCost) -> tuple[int, ...]:
    """A kernel as a row of the table."""
    return (KERNEL_KINDS.index(kernel.kind), *dataclasses.astuple(kernel)[1:])


def kernel_of(row: tuple[int, ...]) -> KernelCost:
    """The kernel of a row."""
    return KernelCost(KERNEL_KINDS[row[0]], *(int(value) for value in row[1:]))


def table_of(kernels: Sequence[KernelCost]) -> KernelTable:
    """Kernels as rows, in their order."""
    rows = [row_of(kernel) for kernel in kernels]
    return KernelTable(np.array(rows, np.int64).reshape(len(rows), len(COLUMNS)))
