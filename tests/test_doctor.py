"""The doctor: what is installed, what is wrong, and the command that mends it."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from edgedistill import doctor
from edgedistill.doctor import Check, doctor_view


def _installed(patch: pytest.MonkeyPatch, **versions: str | None) -> None:
    known = {name.replace("_", "-"): version for name, version in versions.items()}
    patch.setattr(doctor, "_version", known.get)


def _shown(found: list[Check]) -> str:
    out = io.StringIO()
    Console(file=out, width=200).print(doctor_view(found))
    return out.getvalue()


def test_both_packages_of_onnxruntime_at_once_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    _installed(monkeypatch, onnxruntime="1.31.0", onnxruntime_gpu="1.30.0")
    check = doctor.onnxruntime_check()
    assert check.status == "wrong"
    assert "1.31.0" in check.found
    assert "1.30.0" in check.found
    assert "pip uninstall onnxruntime onnxruntime-gpu" in check.advice


@pytest.mark.parametrize("package", ["onnxruntime", "onnxruntime_gpu"])
def test_one_package_of_onnxruntime_is_well_and_its_providers_are_named(
    monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    _installed(monkeypatch, **{package: "1.31.0"})
    fake = SimpleNamespace(
        get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    check = doctor.onnxruntime_check()
    assert (check.status, check.found) == ("ok", "1.31.0, runs on CUDA, CPU")


def test_an_onnxruntime_that_cannot_be_imported_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    _installed(monkeypatch, onnxruntime="1.31.0")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    check = doctor.onnxruntime_check()
    assert check.status == "wrong"
    assert "cannot be imported" in check.found


def test_what_is_missing_comes_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _installed(monkeypatch)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    found = {check.name: check for check in doctor.checks()}
    extras = {"torch": "train", "timm": "train", "onnxruntime": "cpu", "diffusers": "synth",
              "tensorrt": "tensorrt", "datasets": "data", "bundled weights": "sample"}  # fmt: skip
    for name, extra in extras.items():
        assert found[name].status == "missing"
        assert f'pip install "edgedistill[{extra}]"' in found[name].advice
    assert found["NVIDIA driver"].status == "missing"
    text = _shown(list(found.values()))
    assert "can plan, report and check; to build, install what is missing" in text
    assert 'pip install "edgedistill[train]"' in text


def test_every_extra_that_is_advised_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    _installed(monkeypatch)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8"))
    extras = set(project["project"]["optional-dependencies"])
    advised = {e for c in doctor.checks() for e in re.findall(r"edgedistill\[(\w+)\]", c.advice)}
    assert advised
    assert advised <= extras


def _answer(**values: Any) -> Any:
    done = {"returncode": 0, "stdout": "", "stderr": "", **values}
    return lambda *_, **__: SimpleNamespace(**done)


@pytest.mark.parametrize(
    ("stdout", "status", "words"),
    [
        ('["2.15.0", null, null, 2]', "ok", "2.15.0, no GPU seen, 2 CPU threads"),
        ('["2.15.0", "Orin", "12.6", 2]', "ok", "2.15.0, Orin, CUDA 12.6"),
        ("", "wrong", "cannot be imported"),
        ("Segmentation fault", "wrong", "cannot be imported"),
    ],
)
def test_torch_is_asked_in_a_process_of_its_own(
    monkeypatch: pytest.MonkeyPatch, stdout: str, status: str, words: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    monkeypatch.setattr(subprocess, "run", _answer(stdout=stdout))
    check = doctor.torch_check()
    assert (check.status, check.found) == (status, words)


def test_a_torch_that_hangs_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("python", 180)

    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    monkeypatch.setattr(subprocess, "run", hang)
    assert doctor.torch_check().status == "wrong"


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({"stdout": "Orin, 540.4\n"}, "ok"),
        ({"returncode": 9}, "wrong"),
    ],
)
def test_the_driver_is_asked_by_its_own_program(
    monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], status: str
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(subprocess, "run", _answer(**answer))
    assert doctor.driver_check().status == status


def test_a_full_disk_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**8))
    check = doctor.disk_check()
    assert (check.status, check.found) == ("wrong", "0.1 GB free here")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            [Check("torch", "ok", "2"), Check("onnxruntime", "ok", "1")],
            "can run  edgedistill build",
        ),
        (
            [Check("torch", "ok", "2"), Check("onnxruntime", "wrong", "x")],
            "Something is wrong here",
        ),
        (
            [Check("torch", "missing", "no"), Check("onnxruntime", "ok", "1")],
            "install what is miss",
        ),
    ],
)
def test_the_view_ends_with_what_this_machine_can_do(found: list[Check], words: str) -> None:
    assert words in _shown(found)


def test_square_brackets_in_what_was_found_are_words() -> None:
    assert "[bold]x[/]" in _shown([Check("torch", "wrong", "[bold]x[/]", "[do] it")])
    assert "[do] it" in _shown([Check("torch", "wrong", "[bold]x[/]", "[do] it")])


def test_this_machine_is_checked_for_real(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        doctor, "CHECKS", tuple(c for c in doctor.CHECKS if c != doctor.torch_check)
    )
    found = {check.name: check for check in doctor.checks()}
    assert found["python"].status == "ok"
    assert found["onnxruntime"].status in ("ok", "missing")
    assert len(found) == len(doctor.CHECKS)
