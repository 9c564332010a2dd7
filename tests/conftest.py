"""What every test shares: few threads, no hub, and a clear skip where a machine lacks a program."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest

hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")  # a busy machine is no fault of the code
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
os.environ["OMP_NUM_THREADS"] = "1"  # sums of two threads differ from those of one
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["EDGEDISTILL_HOME"] = tempfile.mkdtemp(prefix="edgedistill-tests-")

PROGRAMS = {"browser": "chromium", "ssh": "sshd"}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """torch on one thread, so that sums have one order and two test processes do not fight for the cores."""
    torch: Any = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run."""
    cuda: bool | None = None
    for item in items:
        for mark, program in PROGRAMS.items():
            if item.get_closest_marker(mark) and shutil.which(program) is None:
                item.add_marker(pytest.mark.skip(reason=f"needs the program {program}"))
        if item.get_closest_marker("gpu"):
            if cuda is None:
                import torch

                cuda = torch.cuda.is_available()
            if not cuda:
                item.add_marker(pytest.mark.skip(reason="this machine has no GPU"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where `REQUIRE_PROGRAMS` is set (`.ci/run`), only hardware ("this machine ...") may have skipped a test."""
    reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    if not os.environ.get("REQUIRE_PROGRAMS") or reporter is None:
        return
    skipped = [(r.nodeid, str(r.longrepr[2])) for r in reporter.stats.get("skipped", [])]
    amiss = [f"{test}: {why}" for test, why in skipped if "Skipped: this machine" not in why]
    if amiss:
        reporter.ensure_newline()
        reporter.write_line("skipped, though what it needs can be installed:", red=True)
        for line in amiss:
            reporter.write_line(f"  {line}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
