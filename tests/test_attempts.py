"""A candidate that misses a limit after all gives way to the next, and a broken run remembers it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from target_parts import make_candidate

from edgedistill import attempts
from edgedistill.result import Limits
from edgedistill.rundir import RunDir
from edgedistill.target.device import load_device
from edgedistill.target.plan import plan

ROW = {"p50_s": 0.008, "p90_s": 0.009, "peak_rss_bytes": 70_000_000}
KEY = {"device": "x"}


@pytest.mark.parametrize(
    ("limits", "on_target", "words"),
    [
        (Limits(size_bytes=9_000_000), False, []),
        (Limits(size_bytes=7_000_000), False, ["8.00 MB, 7 MB allowed"]),
        (Limits(latency_s=0.005), False, []),
        (Limits(latency_s=0.005), True, ["9.00 ms measured, 5 ms allowed"]),
        (Limits(latency_s=0.010), True, []),
        (Limits(memory_bytes=60_000_000), True, ["70 MB of memory, 60 allowed"]),
        (Limits(), True, []),
    ],
)
def test_only_what_is_certain_is_a_miss(limits: Limits, on_target: bool, words: list[str]) -> None:
    assert attempts.missed(limits, 8_000_000, [ROW], on_target) == words


def test_the_faster_count_of_threads_decides() -> None:
    rows = [ROW, ROW | {"p90_s": 0.004}]
    assert attempts.missed(Limits(latency_s=0.005), 1, rows, True) == []


def test_a_broken_run_remembers_what_it_tried(tmp_path: Path) -> None:
    found = attempts.attempt(make_candidate(), ["9.00 ms measured, 5 ms allowed"], "int8")
    assert found.candidate.precision == "int8"
    with RunDir(tmp_path / "run") as run:
        assert attempts.recall(run, KEY) == []
        attempts.keep(run, KEY, [found])
        assert attempts.recall(run, KEY) == [found]
        assert attempts.recall(run, {"device": "y"}) == []
        (run.path / attempts.FILE).write_text("{")
        assert attempts.recall(run, KEY) == []
        (run.path / attempts.FILE).write_text("[]")
        assert attempts.recall(run, KEY) == []


def test_the_next_candidate_is_another_one_or_a_smaller_input() -> None:
    board = load_device("jetson")
    asked: dict[str, Any] = {"classes": 10, "image_side": 500, "at_hand": lambda _: False}
    first = plan(board, board.limits, **asked).chosen
    found = attempts.attempt(first, ["too slow"], first.precision)
    after = plan(board, board.limits, **asked, tried=[found])
    second = after.chosen
    assert after.attempts == [found]
    same = (second.model, second.precision) == (first.model, first.precision)
    assert not same or second.input_size < first.input_size
