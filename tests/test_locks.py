"""Processes in one folder know of each other, do nothing twice, and never wait for one that is gone."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgedistill import locks as module
from edgedistill.errors import BusyError
from edgedistill.locks import Locks

HOLD = (
    "import sys, time; from pathlib import Path; from edgedistill.locks import Locks\n"
    "locks = Locks(Path(sys.argv[1]))\n"
    "with locks.joined() as alone, locks.claimed('runs/one') as mine, locks.holding('stage'):\n"
    "    print(alone, mine, flush=True); time.sleep(float(sys.argv[2]))\n"
)


@contextlib.contextmanager
def holder(folder: Path, seconds: float = 60) -> Iterator[subprocess.Popen[str]]:
    """A process that is in the folder, with a claim and a lock, until it is killed at the end of the block."""
    call = [sys.executable, "-c", HOLD, str(folder), str(seconds)]
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().split() == ["True", "True"]
        yield process
        process.kill()


def test_a_process_knows_whether_it_is_alone_and_the_dead_do_not_count(tmp_path: Path) -> None:
    with holder(tmp_path), Locks(tmp_path).joined() as alone:
        assert not alone
    with Locks(tmp_path).joined() as alone, Locks(tmp_path).joined() as second:
        assert alone and not second
    assert list((tmp_path / ".locks" / "members").iterdir()) == []


def test_a_claim_is_of_one_process_and_ends_with_it(tmp_path: Path) -> None:
    locks = Locks(tmp_path)
    with holder(tmp_path), locks.claimed("runs/one") as mine, locks.claimed("runs/two") as another:
        assert not mine and another
        with locks.claimed("runs/two") as again:
            assert not again
    with locks.claimed("runs/one") as mine:
        assert mine


def test_who_needs_what_another_makes_says_so_once_and_waits(tmp_path: Path) -> None:
    told: list[str] = []
    with holder(tmp_path, 1.0):
        begun = time.monotonic()
        with Locks(tmp_path).holding("stage", lambda: told.append("waits")):
            assert time.monotonic() - begun > 0.3
    assert told == ["waits"]
    with Locks(tmp_path).holding("stage", lambda: told.append("waits")):
        assert told == ["waits"]


def test_a_fault_inside_lets_go_of_everything(tmp_path: Path) -> None:
    locks = Locks(tmp_path)
    with pytest.raises(ZeroDivisionError), locks.joined(), locks.holding("a"), locks.claimed("b"):
        raise ZeroDivisionError
    with locks.joined() as alone, locks.holding("a"), locks.claimed("b") as mine:
        assert alone and mine


def test_a_door_that_stays_shut_is_said_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DOOR_S", 0.1)
    locks = Locks(tmp_path)
    with locks.holding("door"), pytest.raises(BusyError, match="lets nobody in"), locks.joined():
        pass
