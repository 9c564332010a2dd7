"""What every test shares: few threads, no hub, and a clear skip where a machine lacks a program."""

from __future__ import annotations

import os
import shutil

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

PROGRAMS = {"browser": "chromium", "ssh": "sshd"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run; `.ci/run` fails when a test for a program is skipped."""
    cuda: bool | None = None
    for item in items:
        for mark, program in PROGRAMS.items():
            if item.get_closest_marker(mark) and shutil.which(program) is None:
                if os.environ.get("REQUIRE_PROGRAMS"):
                    pytest.exit(f"{item.nodeid} needs the program {program}", returncode=3)
                item.add_marker(pytest.mark.skip(reason=f"needs the program {program}"))
        if item.get_closest_marker("gpu"):
            if cuda is None:
                import torch

                cuda = torch.cuda.is_available()
            if not cuda:
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))
