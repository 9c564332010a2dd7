"""Short trainings write every checkpoint that a long one would."""

from __future__ import annotations

import pytest

from edgedistill.distill import trainer


@pytest.fixture(autouse=True)
def every_epoch_has_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """The epochs of these tests have three steps; kills are to find checkpoints between them."""
    monkeypatch.setattr(trainer, "EPOCH_STEPS", 0)
