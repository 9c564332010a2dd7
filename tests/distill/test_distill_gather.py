"""Two real processes have the gradients of one with the whole batch: every loss, over gloo, in float64."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from edgedistill.distill import losses
from edgedistill.distill.contrast import AlignUniform, FeatureMatch, InfoNCE
from edgedistill.distill.crd import CRD
from edgedistill.distill.gather import gather, several

ROWS, STEPS = 8, 3
Loss = Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]


class Student(nn.Module):
    """A linear student under one loss, which may have projectors of its own."""

    def __init__(self, loss: nn.Module | None, of_logits: Loss | None = None) -> None:
        super().__init__()
        self.layer = nn.Linear(7, 5)
        self.loss, self.of_logits = loss, of_logits

    def forward(
        self, x: Tensor, teacher: Tensor, labels: Tensor, index: Tensor, step: int
    ) -> Tensor:
        out = self.layer(x)
        if self.loss is not None:
            embedded: Tensor = self.loss(out, teacher, index, step)
            return embedded
        assert self.of_logits is not None
        weights = gather(0.5 + index.double())
        return self.of_logits(gather(out), gather(teacher), gather(labels), weights, step)


def students() -> dict[str, Student]:
    """One student a loss, made anew from the same seed; the teacher has as many features as classes."""
    labels = torch.arange(20).numpy() % 4
    features: dict[str, Callable[[], nn.Module]] = {
        "mocov2": lambda: AlignUniform(5, 5, width=4),
        "linear": lambda: AlignUniform(5, 5, width=4, alpha=3.0, projector="linear"),
        "info_nce": lambda: InfoNCE(5, 5, width=4),
        "crd": lambda: CRD(5, 5, labels, width=4, negatives=6, temperature=0.3),
        "cosine": lambda: FeatureMatch(5, 5),
        "mse": lambda: FeatureMatch(5, 5, "mse"),
    }
    logits: dict[str, Loss] = {
        "kd": lambda s, t, y, w, _: losses.kd(s, t, 4.0, w),
        "dkd": lambda s, t, y, w, _: losses.dkd(s, t, y, 4.0, weights=w),
        "dist": lambda s, t, y, w, _: losses.dist(s, t, 2.0),
        "labels": lambda s, t, y, w, _: losses.cross_entropy(s, y, 0.1, w),
    }
    made = {}
    for name in (*features, *logits):
        torch.manual_seed(3)
        made[name] = Student(
            features[name]() if name in features else None, logits.get(name)
        ).double()
    return made


def trained(module: nn.Module, rows: slice) -> list[Tensor]:
    """Gradients of three steps of plain descent, and what the module holds at the end."""
    found: list[Tensor] = []
    for step in range(STEPS):
        g = torch.Generator().manual_seed(step)
        x, teacher = (torch.randn(ROWS, d, generator=g, dtype=torch.float64) for d in (7, 5))
        labels = torch.tensor([0, 4, -1, -1, 2, -1, 3, 1])
        index = torch.randperm(20, generator=g)[:ROWS]
        module.zero_grad()
        module(x[rows], teacher[rows], labels[rows], index[rows], step).backward()
        with torch.no_grad():
            for parameter in module.parameters():
                assert parameter.grad is not None
                found.append(parameter.grad.clone())
                parameter -= 0.5 * parameter.grad
    return [*found, *(value.clone() for value in module.state_dict().values())]


def work(rank: int, folder: Path) -> None:
    """What one of the two processes does."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=2
    )
    half = slice(rank * ROWS // 2, (rank + 1) * ROWS // 2)
    out = {name: trained(DistributedDataParallel(s), half) for name, s in students().items()}
    ints = gather(torch.arange(3) + 10 * rank)
    rows = torch.full((2, 2), rank + 1.0, requires_grad=True)
    everyone = gather(rows)
    (everyone * torch.arange(8.0).reshape(4, 2)).sum().backward()
    torch.save(
        {"out": out, "ints": ints, "rows": everyone, "grad": rows.grad}, folder / f"{rank}.pt"
    )
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    """What both processes found."""
    folder = tmp_path_factory.mktemp("two")
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    running = [
        subprocess.Popen([sys.executable, __file__, str(rank), str(folder)], env=env)
        for rank in (0, 1)
    ]
    try:
        assert [process.wait(timeout=120) for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
            process.wait()
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("name", list(students()))
def test_two_processes_have_the_gradients_of_one(
    name: str, two: list[dict[str, dict[str, list[Tensor]]]]
) -> None:
    want = trained(students()[name], slice(0, ROWS))
    assert max(float(value.abs().max()) for value in want) > 1e-3
    for process in two:
        got = process["out"][name]
        assert len(got) == len(want)
        for a, b in zip(got, want, strict=True):
            assert torch.allclose(a, b, rtol=0, atol=1e-10)


def test_rows_come_in_the_order_of_the_ranks(two: list[dict[str, Tensor]]) -> None:
    for process in two:
        assert process["ints"].tolist() == [0, 1, 2, 10, 11, 12]
        assert process["rows"].tolist() == [[1, 1], [1, 1], [2, 2], [2, 2]]


def test_each_process_has_the_gradient_of_its_own_rows_for_an_average_over_two(
    two: list[dict[str, Tensor]],
) -> None:
    assert two[0]["grad"].tolist() == [[0, 2], [4, 6]]
    assert two[1]["grad"].tolist() == [[8, 10], [12, 14]]


def test_one_process_is_left_alone() -> None:
    x = torch.randn(3, 2)
    assert not several()
    assert gather(x) is x


if __name__ == "__main__":
    work(int(sys.argv[1]), Path(sys.argv[2]))
