"""The ledger keeps every run once, and loses none whatever stands in its file."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedistill.compute.ledger import MOST_LINE_BYTES, Ledger, Row, row, user_ledger
from edgedistill.errors import DocumentError


def made(seed: int = 0, **changes: Any) -> Row:
    """The row of a run."""
    facts: dict[str, Any] = {
        "created_utc": "2026-11-28T10:00:00Z", "version": "0.1.0",
        "machine": {"cpu": "a processor", "cores": "2"},
        "data": {"name": "flowers", "judged_sha256": "a" * 64, "classes": 5, "train": 800},
        "student": {
            "model": "mobilenetv3_small_100", "input_size": 64, "params": 1_500_000,
            "macs": 5_000_000, "start": "random",
        },
        "kind": "plain", "method": None, "targets": None, "views": None,
        "settings_sha256": "b" * 64, "weights_sha256": "c" * 64, "seed": seed, "epochs": 10,
        "steps": 130, "seen": 8000, "teacher": None,
        "val": {"loss": 0.7, "top1": 0.8, "n": 100}, "test": None,
        "flops": {"training": 2.4e11}, "seconds": {"training": 12.5},
    }  # fmt: skip
    return row(**{**facts, **changes})


def test_rows_come_back_as_they_were_and_each_run_is_kept_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "deep" / "ledger.jsonl")
    assert ledger.read().rows == ()
    assert ledger.add([made(0), made(1), made(0)]) == 2
    assert ledger.add([made(1), made(2)]) == 1
    assert [found.seed for found in ledger.read().rows] == [0, 1, 2]
    assert ledger.read().rows[0] == made(0)


def test_the_same_run_at_another_time_and_speed_is_the_same_run() -> None:
    again = made(0, created_utc="2026-12-01T00:00:00Z", version="0.2.0", seconds={"training": 99.0})
    assert again.id == made(0).id
    assert made(0, seen=8001).id != made(0).id


def test_ledgers_of_two_machines_are_merged_without_a_loss(tmp_path: Path) -> None:
    one, two = Ledger(tmp_path / "one.jsonl"), Ledger(tmp_path / "two.jsonl")
    one.add([made(0), made(1)])
    two.add([made(1), made(2), made(3)])
    before = one.path.read_bytes()
    assert one.add(two.read().rows) == 2
    assert one.path.read_bytes().startswith(before)
    assert {found.seed for found in one.read().rows} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"not json", "it is no JSON"),
        (b"[1, 2]", "of another kind or version"),
        (b'{"schema": "edgedistill.ledger/9"}', "edgedistill.ledger/9"),
        (b'{"schema": "edgedistill.ledger/1"}', "field required"),
        (b"\xff\xfe\x00", "it is no JSON"),
        (b"[" * 100_000, "more than 64,000 bytes"),
        (b"[" * 50_000, "it is no JSON"),
    ],
)
def test_a_damaged_or_foreign_line_is_left_out_and_named_and_stays_in_the_file(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.add([made(0)])
    ledger.path.write_bytes(ledger.path.read_bytes() + line + b"\n")
    ledger.add([made(1)])
    found = ledger.read()
    assert [known.seed for known in found.rows] == [0, 1]
    assert [fault.line for fault in found.faults] == [2]
    assert reason in found.faults[0].reason
    assert found.words is not None and "line 2" in found.words
    assert line in ledger.path.read_bytes()


def test_a_changed_number_is_found(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.add([made(0)])
    data = json.loads(ledger.path.read_text())
    data["val"]["loss"] = 0.1
    ledger.path.write_text(json.dumps(data))
    found = ledger.read()
    assert not found.rows and "changed after it was written" in found.faults[0].reason


def test_a_line_that_broke_off_does_not_take_the_next_one_with_it(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.add([made(0), made(1)])
    ledger.path.write_bytes(ledger.path.read_bytes()[:-40])
    ledger.add([made(2)])
    found = ledger.read()
    assert [known.seed for known in found.rows] == [0, 2]
    assert [fault.line for fault in found.faults] == [2]


@given(
    st.binary(max_size=300),
    st.integers(0, 2000),
    st.sampled_from(["insert", "replace", "cut"]),
)
def test_no_damage_ends_in_a_crash_or_an_invented_row(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int, how: str
) -> None:
    ledger = Ledger(tmp_path_factory.mktemp("ledger") / "ledger.jsonl")
    ledger.add([made(0), made(1)])
    data = ledger.path.read_bytes()
    at %= len(data)
    rest = {"insert": data[at:], "replace": data[at + len(noise) :], "cut": b""}[how]
    ledger.path.write_bytes(data[:at] + noise + rest)
    assert {found.id for found in ledger.read().rows} <= {made(0).id, made(1).id}
    ledger.add([made(2)])
    assert made(2) in ledger.read().rows


def test_a_line_longer_than_any_row_is_one_fault_and_the_rest_is_read(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.add([made(0)])
    long = b'{"x": "' + b"y" * (3 * MOST_LINE_BYTES) + b'"}\n'
    ledger.path.write_bytes(long + ledger.path.read_bytes())
    found = ledger.read()
    assert [fault.line for fault in found.faults] == [1]
    assert found.rows == (made(0),)


def _add(path: str, first: int) -> None:
    for seed in range(first, first + 20):
        Ledger(Path(path)).add([made(seed)])


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_add, args=(str(path), 10 * k)) for k in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    found = Ledger(path).read()
    assert not found.faults
    assert sorted(known.seed for known in found.rows) == list(range(40))


def test_a_folder_in_the_place_of_the_file_is_one_paragraph(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="cannot be read"):
        Ledger(tmp_path).read()


def test_the_user_says_where_the_ledger_is_and_whether_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEDISTILL_HOME", str(tmp_path))
    monkeypatch.delenv("EDGEDISTILL_LEDGER", raising=False)
    assert user_ledger() == Ledger(tmp_path / "ledger.jsonl")
    monkeypatch.setenv("EDGEDISTILL_LEDGER", str(tmp_path / "mine.jsonl"))
    assert user_ledger() == Ledger(tmp_path / "mine.jsonl")
    monkeypatch.setenv("EDGEDISTILL_LEDGER", "off")
    assert user_ledger() is None


def test_a_full_disk_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.add([made(0)])
    before = ledger.path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        ledger.add([made(1)])
    monkeypatch.undo()
    assert ledger.path.read_bytes() == before
