"""`edgedistill teacher verify`: agrees with a true cache, and says what is wrong with any other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from edgedistill import verifying
from edgedistill.progress import silent
from edgedistill.teacher import records
from edgedistill.teacher.cache import read_index
from edgedistill.teacher.records import Shard, digest_of, shard_bytes
from edgedistill.verifying import EXACT, ROUGH, Verified, verified_view, verify
from tests.build_parts import SMALL, make_images, tool
from tests.teacher.cache_parts import forge

STORED = "stages/06-targets"
ROWS = 16


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run up to its stored targets: three views of 39 images in three shards each."""
    folder = tmp_path_factory.mktemp("verify")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "SHARD_IMAGES", ROWS)
        ran = tool(
            "build", *SMALL, "--data", make_images(folder / "data"), "--out", folder / "run",
            "--set", "distill.epochs=5", "--set", "distill.views=3", "--until", "targets", "-v",
        )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "storing 3 views of" in ran.text
    return folder / "run"


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A run that a test may damage."""
    return Path(shutil.copytree(run, tmp_path / "run"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def rewrite(folder: Path, name: str, change: Callable[[dict], None]) -> None:
    """A shard with other numbers and with every hash as it must be."""
    index = read_index(folder)
    place = [entry.name for entry in index.shards].index(name)
    entry, header = index.shards[place], safe_open(folder / name, framework="pt")
    with header as file:
        tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    change(tensors)
    shard = Shard(entry.lesson, int(name[-16:-12]), entry.first, entry.rows)
    assert shard.name == name
    data = shard_bytes(index.content(), shard, tensors, 1.0, "float32")
    assert digest_of(tensors).encode() in data
    forge(folder, name, data)


# -- a true cache ----------------------------------------------------------------------------------


def test_what_a_run_stored_is_what_its_teacher_says(run: Path) -> None:
    before = contents(run)
    ran = tool("teacher", "verify", run, "--sample", "40")
    assert ran.code == 0, ran.text
    assert "9 shards" in ran.out and "0 damaged" in ran.out
    assert "42 records of 3 views" in ran.out
    assert "100.00% agree" in ran.out and "The stored outputs are what the teacher says." in ran.out
    assert contents(run) == before


def test_a_teacher_whose_adaptation_was_left_to_the_run_is_verified_too(copy: Path) -> None:
    recipe = copy / "recipe.yaml"
    text = recipe.read_text("utf-8")
    assert 'adapt: "probe"' in text
    recipe.write_text(text.replace('adapt: "probe"', 'adapt: "auto"'), "utf-8")
    ran = tool("teacher", "verify", copy, "--sample", "6")
    assert ran.code == 0, ran.text


def test_the_sample_has_its_share_of_every_view_and_is_drawn_by_seed(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    real = verifying._differences

    def told(targets: object, lecturer: object, lesson: object, index: np.ndarray) -> object:
        asked.extend((lesson.view, int(image)) for image in index)
        return real(targets, lecturer, lesson, index)

    monkeypatch.setattr(verifying, "_differences", told)
    drawn = []
    for seed in (0, 0, 1):
        asked.clear()
        assert verify(run, 10, seed, silent()).records == 12
        assert sorted({view for view, _ in asked}) == [0, 1, 2] and len(set(asked)) == 12
        drawn.append(list(asked))
    assert drawn[0] == drawn[1] != drawn[2]
    every = verify(run, 10**6, 0, silent())
    assert every.records == 3 * read_index(run / STORED).images
    assert every.faults == []


# -- false ones ------------------------------------------------------------------------------------


def test_records_in_another_order_are_found_though_every_hash_fits(copy: Path) -> None:
    def turned(tensors: dict) -> None:
        for key in tensors:
            tensors[key] = tensors[key].flip(0)

    for number in range(3):
        rewrite(copy / STORED, f"t0-v0001-s{number:04d}.safetensors", turned)
    ran = tool("teacher", "verify", copy, "--sample", "60")
    assert ran.code == 1
    assert "0 damaged" in ran.out and "probabilities differ by more than" in ran.text
    assert "the mean cosine of features is less than" in ran.text
    assert "Remove stages/06-targets" in ran.text and "Traceback" not in ran.text


def test_a_few_logits_that_were_changed_are_found_when_they_are_sampled(copy: Path) -> None:
    def changed(tensors: dict) -> None:
        tensors["logits"][0] = tensors["logits"][0].flip(0)

    rewrite(copy / STORED, "t0-v0002-s0000.safetensors", changed)
    found = verify(copy, 10**6, 0, silent())
    assert any("a record's probabilities differ" in fault for fault in found.faults)
    assert not any("features" in fault for fault in found.faults)


def test_every_damaged_shard_is_named_and_the_others_are_compared(copy: Path) -> None:
    names = ["t0-v0000-s0001.safetensors", "t0-v0002-s0002.safetensors"]
    raw = bytearray((copy / STORED / names[0]).read_bytes())
    raw[-5] ^= 4
    (copy / STORED / names[0]).write_bytes(raw)
    (copy / STORED / names[1]).unlink()
    ran = tool("teacher", "verify", copy)
    assert ran.code == 1
    assert "2 damaged" in ran.out and "100.00% agree" in ran.out
    for name in names:
        assert f"- {name} is damaged or missing" in ran.out


def test_with_every_shard_gone_nothing_is_compared(copy: Path) -> None:
    for path in (copy / STORED).glob("*.safetensors"):
        path.unlink()
    found = verify(copy, 20, 0, silent())
    assert found.records == 0 and found.max_dp is None
    assert len(found.faults) == len(found.damaged) == 9
    assert "agree" not in verified_view(found).plain


def test_outputs_of_another_teacher_or_of_other_views_are_refused_with_what_differs(
    copy: Path,
) -> None:
    recipe = copy / "recipe.yaml"
    text = recipe.read_text("utf-8")
    for old, new, words in (
        ("seed: 0", "seed: 1", "views.seed was 0, expected 1"),
        ("min_crop: 0.8", "min_crop: 0.5", "views.min_crop was 0.8, expected 0.5"),
        ("views: 3", "views: 4", "lack 1 of the 4 views"),
        ("top_k: null", "top_k: 2", "top_k was None, expected 2"),
    ):
        assert old in text
        recipe.write_text(text.replace(old, new), "utf-8")
        ran = tool("teacher", "verify", copy)
        assert ran.code == 2 and words in ran.text, ran.text
    recipe.write_text(text, "utf-8")
    for stage, word in (("03-pixels", "pixels was"), ("04-teacher", "teacher was")):
        done = copy / "stages" / stage / "done.json"
        kept = done.read_text("utf-8")
        doc = json.loads(kept)
        done.write_text(json.dumps({**doc, "fingerprint": "0" * 64}), "utf-8")
        ran = tool("teacher", "verify", copy)
        assert ran.code == 2 and word in ran.text
        done.write_text(kept, "utf-8")
    assert tool("teacher", "verify", copy, "--sample", "3").code == 0


# -- what is no cache ------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["03-pixels", "04-teacher", "06-targets"])
def test_a_missing_stage_is_named_and_not_made(stage: str, copy: Path) -> None:
    shutil.rmtree(copy / "stages" / stage)
    before = contents(copy)
    ran = tool("teacher", "verify", copy)
    assert ran.code == 2 and f"has no finished stage {stage}" in ran.text
    assert "trains nothing" in ran.text and "--until targets" in ran.text
    assert contents(copy) == before


def test_a_teacher_whose_weights_were_exchanged_is_not_asked(copy: Path) -> None:
    path = copy / "stages" / "04-teacher" / "teacher.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    ran = tool("teacher", "verify", copy)
    assert ran.code == 2 and "04-teacher, or its files are damaged" in ran.text


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    for folder in (tmp_path, tmp_path / "nothing"):
        ran = tool("teacher", "verify", folder)
        assert ran.code == 2 and "is no run folder" in ran.text
    assert not (tmp_path / "nothing").exists()


def test_a_recipe_that_is_not_resolved_or_asks_a_live_teacher_has_nothing_to_verify(
    copy: Path,
) -> None:
    recipe = copy / "recipe.yaml"
    text = recipe.read_text("utf-8")
    recipe.write_text("seed: 0\n", "utf-8")
    assert "say auto" in tool("teacher", "verify", copy).text
    recipe.write_text(text.replace('targets: "stored"', 'targets: "live"'), "utf-8")
    ran = tool("teacher", "verify", copy)
    assert ran.code == 2 and "nothing to verify" in ran.text
    recipe.write_text("- no\n", "utf-8")
    assert tool("teacher", "verify", copy).code == 2


# -- what is allowed -------------------------------------------------------------------------------

GOOD = Verified(3, 10, (), 1, 256, 0.0, 0.0, 1.0, (1.0, 1.0), EXACT)


@pytest.mark.parametrize(
    ("change", "exact", "rough"),
    [
        ({}, 0, 0),
        ({"max_dp": 0.13, "mean_dp": 0.015, "agreement": 0.988, "cosine": (0.996, 0.96)}, 4, 0),
        ({"max_dp": 0.65, "mean_dp": 0.13, "agreement": 0.90, "cosine": (0.87, 0.58)}, 4, 4),
        ({"max_dp": 1e-4, "mean_dp": 1.2e-6, "cosine": (0.9999999, 0.9999999)}, 0, 0),
        ({"damaged": ("x", "y")}, 2, 2),
    ],
)
def test_bfloat16_is_explained_where_it_was_used_and_another_seed_never(
    change: dict, exact: int, rough: int
) -> None:
    """The figures that the bounds were set by."""
    assert len(replace(GOOD, **change).faults) == exact
    assert len(replace(GOOD, **change, bounds=ROUGH).faults) == rough


def test_bounds_are_those_of_the_arithmetic_then_and_now(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgedistill import nets

    targets = verifying.stored_targets(*verifying.opened(run))
    here = nets.fast_arithmetic(nets.pick_device())
    assert {entry.arithmetic for entry in targets.index.shards} == {here}
    assert verifying._bounds(targets) is (EXACT if here == "float32" else ROUGH)
    monkeypatch.setattr(nets, "fast_arithmetic", lambda _: "bfloat16")
    assert verifying._bounds(targets) is ROUGH
