"""A build with synthetic images: made, judged, put beside the real ones, an arm of their own, and shown."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("diffusers")

import tiny_pipelines as tiny
from picture_source import NAMES, Pictures, use_pictures
from test_evidence_report import Outline

from edgedistill import synthesis
from edgedistill.data.stage import open_arrays
from edgedistill.result import load
from edgedistill.synth.generators import Pixels, Wish
from edgedistill.synth.pipelines import Making
from tests.build_parts import SMALL, Ran, make_images, tool, worked

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of diffusers' schedulers
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
ASKED = ("--synthetic", "24", "--set", "synth.batch=4")
PER_CLASS = 24


def built(data: Path, out: Path, *more: object) -> Ran:
    return tool(
        "build", *SMALL, *ASKED, "--generator", "pictures", "--data", data, "--out", out, *more
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, and a run with synthetic ones."""
    folder = tmp_path_factory.mktemp("synthetic")
    make_images(folder / "data", per_class=PER_CLASS)
    with pytest.MonkeyPatch.context() as patch:
        use_pictures(patch)
        ran = built(folder / "data", folder / "run", "--seeds", "2")
    assert ran.code in (0, 1), ran.text
    assert "[ 5/15] synth" in ran.out + ran.err and "24 images kept of" in ran.text
    assert "synthetic: validation top-1" in ran.text
    return folder


def test_the_arm_with_synthetic_images_stands_beside_distilled_at_equal_steps(home: Path) -> None:
    result = load(home / "run")
    arms = {arm.name: arm for arm in result.arms}
    assert list(arms) == ["plain", "distilled", "distilled+synthetic"]
    made = arms["distilled+synthetic"]
    assert made.steps == arms["distilled"].steps == arms["plain"].steps
    assert [gain.against for gain in made.gains] == ["plain", "distilled"]
    assert made.seed_gain is not None and made.seed_gain.against == "distilled"
    assert made.seconds_parts["synthetic images"] > 0
    assert made.weights_sha256 != arms["distilled"].weights_sha256
    best = max(arms.values(), key=lambda arm: arm.val_top1 or 0).val_top1
    assert arms[result.chosen_arm].val_top1 == best


def test_the_result_says_what_was_made_kept_and_dropped_of_each_class(home: Path) -> None:
    found = load(home / "run").synthetic
    assert found is not None and found.kept == 24 < found.made
    assert found.dropped["the teacher sees another class"] > 0
    assert [(c.name, c.kept, c.lacking) for c in found.classes] == [(n, 8, 0) for n in NAMES]
    assert all(c.real == found.classes[0].real for c in found.classes)
    assert 0.5 < found.agreement < 1 and found.sheet is not None
    run = home / "run" / "stages"
    stored = json.loads((run / "06-targets@synthetic" / "done.json").read_text())["facts"]
    assert stored["images"] == 24 and stored["passes"] == 24 * stored["views"]
    arrays = open_arrays(run / "05-synth")
    assert len(arrays.asked) == 24 and arrays.own == open_arrays(run / "03-pixels").own
    assert np.array_equal(arrays.train[: arrays.own], open_arrays(run / "03-pixels").train)


def test_every_view_tells_of_them(home: Path) -> None:
    run = home / "run"
    page = Outline((run / "report.html").read_text("utf-8"))
    assert "Synthetic images" in page.words and "24 of" in page.words
    found = load(run).synthetic
    assert found is not None and found.sheet is not None
    assert f'src="data:image/png;base64,{found.sheet}"' in (run / "report.html").read_text()
    assert "Recall without" in page.words and 'class="contact"' in (run / "report.html").read_text()
    for view in ("report.md", "model_card.md"):
        text = (run / view).read_text("utf-8")
        assert "Synthetic images: 24 of" in text and "Synthetic images, equal steps**" in text
    assert "Generator of synthetic images" in (run / "model_card.md").read_text("utf-8")


def test_the_job_of_a_build_can_be_looked_at_and_verified(home: Path) -> None:
    run = home / "run"
    checked = tool("synth", "verify", run)
    assert checked.code == 0 and "0 not as the ledger says" in checked.text
    shown = tool("synth", "preview", run)
    assert shown.code == 0 and Path(shown.out.strip()).is_file()
    lines = (run / "stages" / "05-synth" / "ledger.jsonl").read_text().splitlines()
    assert sum(json.loads(line)["kept"] for line in lines) == 24


def test_what_the_teacher_said_of_synthetic_images_is_verified_too(
    home: Path, tmp_path: Path
) -> None:
    checked = tool("teacher", "verify", home / "run")
    assert checked.code == 0, checked.text
    assert "synthetic images: " in checked.text
    assert checked.text.count("are what the teacher says") == 2
    copy = tmp_path / "run"
    shutil.copytree(home / "run", copy)
    shard = next((copy / "stages" / "06-targets@synthetic").glob("*.safetensors"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    found = tool("teacher", "verify", copy)
    assert found.code == 1 and f"{shard.name} is damaged" in found.text
    assert "Remove stages/06-targets@synthetic" in found.text


def test_the_same_command_again_finds_everything_done_and_other_learning_keeps_the_images(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(making: Making, classes: Sequence[str]) -> Any:
        raise AssertionError("the generator was loaded again")

    monkeypatch.setattr(synthesis, "open_source", never)
    run, more = home / "run", ("--seeds", "2")
    assert built(home / "data", run, *more).code in (0, 1) and worked(run) == []
    other = built(
        home / "data", run, *more, "--set", "synth.label_weight=0.5", "--until", "distilled"
    )
    assert other.code == 0, other.text
    assert worked(run) == ["09-distilled@synthetic", "09-distilled@synthetic-seed1"]


def again_and_anew(
    home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, *more: str
) -> tuple[set[int], set[int], str]:
    """A build up to its images in a copy of the run and in a new folder: the numbers made in each, and their ledger,
    which is the same.
    """
    use_pictures(monkeypatch)
    made: list[int] = []
    real = Pictures.make

    def counting(self: Pictures, wishes: Sequence[Wish]) -> list[Pixels]:
        made.extend(wish.number for wish in wishes)
        return real(self, wishes)

    monkeypatch.setattr(Pictures, "make", counting)
    shutil.copytree(home / "run", folder / "used")
    numbers, ledgers = [], []
    for name in ("used", "fresh"):
        made.clear()
        assert built(home / "data", folder / name, *more, "--until", "synth").code == 0
        numbers.append(set(made))
        ledgers.append((folder / name / "stages" / "05-synth" / "ledger.jsonl").read_text())
    assert ledgers[0] == ledgers[1]
    return numbers[0], numbers[1], ledgers[0]


def test_another_judge_makes_no_image_of_the_first_round_again(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Judged anew in a folder that has seen another judge, or in a new one: the same images and verdicts."""
    more = ("--set", "synth.filter=false")
    again, anew, ledger = again_and_anew(home, tmp_path, monkeypatch, *more)
    assert not again and anew and "another class" not in ledger


def test_more_images_go_on_with_those_that_are_there(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as in a new folder, and the same; of the first round only what is more is made."""
    again, anew, ledger = again_and_anew(home, tmp_path, monkeypatch, "--synthetic", "60")
    assert '"kept":true' in ledger
    assert anew - again == set(range(16)), "the first unit of 4 batches of 4 is there"


def test_without_synthetic_images_no_stage_and_no_number_tells_of_them(
    home: Path, tmp_path: Path
) -> None:
    ran = tool(
        "build", *SMALL, "--data", home / "data", "--out", tmp_path / "run", "--until", "teacher"
    )
    assert ran.code == 0 and "[ 4/14] teacher" in ran.out + ran.err
    assert not (tmp_path / "run" / "stages" / "05-synth").exists()


def test_a_class_without_an_accepted_image_ends_in_one_paragraph_with_nothing_lost(
    home: Path, tmp_path: Path
) -> None:
    generator = tiny.class_conditional(tmp_path / "noise", NAMES)
    ran = tool(
        "build", *SMALL, "--data", home / "data", "--out", tmp_path / "run", "--synthetic", "3",
        "--generator", generator, "--set", "synth.steps=1", "--set", "synth.tries=1",
    )  # fmt: skip
    assert ran.code == 2 and "was accepted" in ran.err and "Traceback" not in ran.text
    assert (tmp_path / "run" / "stages" / "04-teacher" / "done.json").is_file()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--synthetic", "many"), '--synthetic is a number of images, or auto; got "many"'),
        (("--synthetic", "10"), "no generator is named for synthetic images"),
        (("--synthetic", "10", "--generator", "./nowhere"), "is no folder that exists"),
        (("--synthetic", "10", "--generator", "."), "it has no model_index.json"),
        (
            ("--synthetic", "10", "--generator", "sd", "--set", "synth.prompts=none.yaml"),
            "none.yaml does not exist",
        ),
        (("--set", "synth.images=-1"), "synth.images"),
        (("--set", "synth.domain=fotos"), "synth.domain"),
        (("--set", "synth.generatr=x"), 'did you mean "synth.generator"?'),
    ],
)
def test_what_is_wrong_is_told(
    home: Path, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    ran = tool("build", *SMALL, "--data", home / "data", "--out", tmp_path / "run", *options)
    assert ran.code == 2 and words in ran.text and "Traceback" not in ran.text
    assert not (tmp_path / "run" / "stages" / "04-teacher").exists(), "told before it is trained"
