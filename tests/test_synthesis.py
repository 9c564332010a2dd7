"""`edgedistill synth`: from a run with a teacher to images that it learns from, with real pipelines and real kills."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers")

import tiny_pipelines as tiny
from picture_source import NAMES, use_pictures
from synth_parts import contents

from edgedistill import synthesis
from edgedistill.errors import StoppedError
from edgedistill.synth.generators import FakeSource, Pixels, Wish
from edgedistill.synth.ledger import read_lines
from tests.build_parts import SMALL, Ran, make_images, tool

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of diffusers' schedulers
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run up to its teacher, and generators."""
    folder = tmp_path_factory.mktemp("synthesis")
    ran = tool(
        "build", *SMALL, "--data", make_images(folder / "data"), "--out", folder / "run",
        "--until", "teacher",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    tiny.stable_diffusion(folder / "sd")
    tiny.class_conditional(folder / "classes", NAMES)
    return folder


def _synth(home: Path, out: Path, *more: object, generator: str = "sd") -> Ran:
    return tool("synth", "run", home / "run", "--generator", home / generator, "--out", out, *more)


def test_good_images_are_kept_and_a_build_learns_from_them(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_pictures(monkeypatch)
    out = tmp_path / "synth"
    ran = _synth(home, out, "--images", "24", "--batch", "4")
    assert ran.code == 0, ran.text
    summary = json.loads((out / "summary.json").read_text())
    assert summary["kept"] == 24 and set(summary["kept_per_class"].values()) == {8}
    assert summary["dropped"]["the teacher sees another class"] > 0
    assert f"24 of {summary['made']} images kept" in ran.text
    built = tool(
        "build", *SMALL, "--data", home / "data", "--out", tmp_path / "with", "--until", "distilled",
        "--set", f"data.unlabelled={out / 'kept'}",
    )  # fmt: skip
    assert built.code == 0, built.text
    assert "24 more without labels" in built.text
    shown = tool("synth", "preview", out)
    assert shown.code == 0 and (out / "preview.png").stat().st_size > 5_000
    again = _synth(home, out, "--images", "24", "--batch", "4")
    assert again.code == 0 and f"24 of {summary['made']} images kept" in again.text


def test_an_image_that_was_changed_is_named(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_pictures(monkeypatch)
    out = tmp_path / "synth"
    assert _synth(home, out, "--images", "9", "--batch", "4").code == 0
    assert tool("synth", "verify", out).code == 0
    ledger = out / "ledger.jsonl"
    lines = ledger.read_text().splitlines()
    changed = json.loads(lines[3]) | {"sha256": "0" * 64}
    ledger.write_text("\n".join([*lines[:3], json.dumps(changed), *lines[4:]]) + "\n")
    ran = tool("synth", "verify", out)
    assert ran.code == 1 and "image 3 is not as the ledger says" in ran.text


@pytest.mark.slow
def test_a_real_pipeline_killed_and_resumed_leaves_the_same_bytes_and_can_be_made_again(
    home: Path, tmp_path: Path
) -> None:
    options = ("--images", "24", "--batch", "2", "--steps", "2", "--size", "32", "--keep-all")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert _synth(home, whole, *options).code == 0
    command = [
        sys.executable, "-m", "edgedistill", "synth", "run", home / "run", "--generator", home / "sd",
        "--out", broken, *options,
    ]  # fmt: skip
    for sign in ("units/.0-00000/2.npy", "units/0-00001.tar"):
        process = subprocess.Popen([str(word) for word in command], stderr=subprocess.DEVNULL)
        end = time.monotonic() + 120
        while not (broken / sign).exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it ended before the kill"
    assert _synth(home, broken, *options).code == 0
    first, second = (
        {k: v for k, v in contents(f).items() if "lock" not in k} for f in (whole, broken)
    )
    assert first == second
    lines = list(read_lines(broken / "ledger.jsonl"))
    assert sum(bool(line.kept) for line in lines) == 24
    assert len({line.prompt for line in lines}) > 8 and len({line.sha256 for line in lines}) == len(
        lines
    )
    ran = tool("synth", "verify", broken, "--generator", home / "sd", "--sample", "6")
    assert ran.code == 0 and "6 made again: 6 the same to the last bit" in ran.text
    other = tool(
        "synth", "verify", broken, "--generator", tiny.stable_diffusion(tmp_path / "other", seed=1)
    )
    assert other.code == 2 and "is another generator" in other.text


def test_images_that_the_teacher_does_not_know_end_in_one_paragraph_with_nothing_lost(
    home: Path, tmp_path: Path
) -> None:
    out = tmp_path / "synth"
    ran = _synth(home, out, "--images", "3", "--steps", "1", "--tries", "1", "--size", "32")
    assert ran.code == 2
    assert "was accepted" in ran.err and "What was made is kept" in ran.err
    assert "Traceback" not in ran.text
    assert len(list(read_lines(out / "ledger.jsonl"))) == 3


def test_a_dry_run_shows_prompts_time_and_disk_and_keeps_nothing(
    home: Path, tmp_path: Path
) -> None:
    out = tmp_path / "synth"
    ran = _synth(home, out, "--images", "300", "--steps", "1", "--size", "32", "--dry-run")
    assert ran.code == 0, ran.text
    assert "boot" in ran.out and "photo of a bag" in ran.out
    assert "300 images to keep, at most 900 to make; on cpu about" in ran.out and "MB" in ran.out
    assert not out.exists()


@pytest.mark.parametrize(("device", "batch"), [("cuda:0", 4), ("cpu", 16)])
def test_a_batch_is_halved_until_it_fits_on_a_gpu(device: str, batch: int) -> None:
    class Small(FakeSource):
        def make(self, wishes: Sequence[Wish]) -> list[Pixels]:
            if len(wishes) > 5:
                raise StoppedError("too large")
            return super().make(wishes)

    source = Small()
    source.facts = replace(source.facts, device=device)
    assert synthesis.fitting_batch(source, [Wish(n, 0, "", n) for n in range(16)]) == batch


def test_variations_begin_with_training_images_of_the_class(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "synth"
    ran = _synth(
        home, out, "--kind", "image_to_image", "--images", "6", "--steps", "4", "--size", "32",
        "--strength", "0.3", "--keep-all", "--batch", "3",
    )  # fmt: skip
    assert ran.code == 0, ran.text
    lines = list(read_lines(out / "ledger.jsonl"))
    assert all(line.start is not None and line.maker.strength == 0.3 for line in lines)
    again = ("synth", "verify", out, "--generator", home / "sd", "--sample", "3")
    found = tool(*again, "--run", home / "run")
    assert found.code == 0 and "3 made again: 3 the same to the last bit" in found.text
    lost = tool(*again)
    assert lost.code == 2 and "Give the one that they were made for: --run" in lost.text


def test_a_class_conditional_generator_needs_no_prompt(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "synth"
    ran = _synth(
        home, out, "--kind", "class_conditional", "--images", "6", "--steps", "3", "--keep-all",
        generator="classes",
    )  # fmt: skip
    assert ran.code == 0, ran.text
    assert {line.maker.pipeline for line in read_lines(out / "ledger.jsonl")} == {
        "ClassConditionalPipeline"
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--domain", "fotos"), 'unknown domain of prompts "fotos"; did you mean "photo"'),
        (("--part", "3/2"), '--part is "2/5" for the second of five parts'),
        (("--prompts", "nowhere.yaml"), "prompts file nowhere.yaml does not exist"),
        (
            ("--kind", "class_conditional"),
            "is a StableDiffusionPipeline, so its kind is text_to_image",
        ),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_made(
    home: Path, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    ran = _synth(home, tmp_path / "synth", *options)
    assert ran.code == 2 and words in ran.text
    assert not (tmp_path / "synth" / "units").exists()


def test_a_run_without_a_teacher_is_told_how_to_make_one(home: Path, tmp_path: Path) -> None:
    ran = tool("synth", "run", tmp_path, "--generator", home / "sd")
    assert ran.code == 2 and "--until teacher" in ran.text


def test_a_full_disk_is_an_exit_3_with_the_command_to_go_on(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_pictures(monkeypatch)
    from edgedistill.synth import job

    real, writes = job.write_atomic, []

    def full(path: Path, data: Any) -> None:
        writes.append(path)
        if len(writes) > 6:
            raise OSError(28, "No space left on device", str(path))
        real(path, data)

    monkeypatch.setattr(job, "write_atomic", full)
    out = tmp_path / "synth"
    ran = _synth(home, out, "--images", "24", "--batch", "4")
    assert ran.code == 3 and "is full" in ran.text and "Go on with:" in ran.text
    monkeypatch.setattr(job, "write_atomic", real)
    assert _synth(home, out, "--images", "24", "--batch", "4").code == 0


def test_a_generator_is_trained_from_the_command_line_and_goes_on(
    home: Path, tmp_path: Path
) -> None:
    out = tmp_path / "generator"
    options = (
        "synth",
        "train",
        "--data",
        home / "data",
        "--out",
        out,
        "--side",
        "12",
        "--steps",
        "3",
        "--batch",
        "4",
    )
    ran = tool(*options)
    assert ran.code == 0, ran.text
    facts = json.loads((out / "training.json").read_text())
    assert facts["steps"] == 3 and facts["passes"] == 12
    used = tool(
        "synth", "run", home / "run", "--generator", out, "--kind", "class_conditional", "--images", "3",
        "--steps", "2", "--keep-all", "--out", tmp_path / "synth",
    )  # fmt: skip
    assert used.code == 0, used.text
    again = tool(*options)
    assert again.code == 2 and "give a new folder for the generator" in again.text
