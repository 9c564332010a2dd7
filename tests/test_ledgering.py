"""Every finished training becomes a row, and no ledger that cannot be written stops one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from edgedistill import metrics
from edgedistill.compute.flops import training_flops
from edgedistill.compute.ledger import Ledger, Rows
from tests.build_parts import SMALL, make_images, tool

ARMS = {"plain": {"arm": "plain"}, "kd": {"distill": {"method": "kd"}}, "probe": {"arm": "linear_probe"}}  # fmt: skip
RECIPE = {
    "device": "x86-cpu",
    "teacher": {"model": "bundled:efficientnet_lite0", "adapt": "probe"},
    "student": {"model": "mobilenetv3_small_050", "weights": "random", "input_size": 64},
    "distill": {"epochs": 2, "views": 2},
}


def study(folder: Path, images: Path, **changes: object) -> Path:
    """A study of plain and kd."""
    recipe = {**RECIPE, "data": {"source": str(images)}, **changes}
    arms = {name: ARMS[name] for name in ("plain", "kd")}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({"recipe": recipe, "seeds": 1, "arms": arms}))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images") / "data")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Iterator[tuple[Path, Path]]:
    """The folder of a study, and the ledger that it wrote."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEDISTILL_LEDGER", str(folder / "ledger.jsonl"))
        ran = tool("study", study(folder, data), "--out", folder / "out")
        assert ran.code == 0, ran.err
        yield folder / "out", folder / "ledger.jsonl"


def rows_of(path: Path) -> Rows:
    found = Ledger(path).read()
    assert not found.faults
    return found


def test_a_study_adds_a_row_for_each_run_with_what_it_cost_and_gave(
    kept: tuple[Path, Path],
) -> None:
    rows = {row.kind: row for row in rows_of(kept[1]).rows}
    assert set(rows) == {"plain", "distilled"}
    plain, taught = rows["plain"], rows["distilled"]
    assert (plain.teacher, plain.method, plain.targets, plain.views) == (None, None, None, None)
    assert (taught.method, taught.targets, taught.views) == ("kd", "stored", 2)
    assert plain.student == taught.student and plain.student.start == "random"
    assert plain.seen == plain.steps * 16 and plain.epochs == 2
    assert plain.flops == {"training": training_flops(plain.student.macs, plain.seen)}
    assert set(taught.seconds) == {"training", "teacher preparation", "storing teacher outputs"}
    assert taught.teacher is not None and taught.teacher.val is not None
    assert 0 < taught.teacher.val.loss < 2 and taught.teacher.val.n == plain.val.n
    assert plain.settings_sha256 != taught.settings_sha256


def test_the_losses_of_a_row_are_those_of_the_stored_answers(kept: tuple[Path, Path]) -> None:
    plain = next(row for row in rows_of(kept[1]).rows if row.kind == "plain")
    shared = kept[0] / "shared"
    logits = np.load(next(shared.glob("10-test@plain-*")) / "logits.npz")["logits"]
    lines = (next(shared.glob("01-data-*")) / "split.tsv").read_text("utf-8").splitlines()
    truth = np.array([int(line.split("\t")[1]) for line in lines if line.startswith("test\t")])
    assert plain.test is not None
    assert plain.test.loss == pytest.approx(metrics.cross_entropy(logits, truth))
    assert (plain.test.top1, plain.test.n) == (metrics.top1(logits, truth), len(truth))
    facts = json.loads((next(shared.glob("08-plain-*")) / "done.json").read_text("utf-8"))["facts"]
    assert plain.val.loss == facts["val_loss"] == facts["curve"][-1]["val_loss"]


def test_more_epochs_and_fewer_images_are_the_same_way_of_learning_on_the_same_judges(
    kept: tuple[Path, Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {row.kind: row for row in rows_of(kept[1]).rows}
    monkeypatch.setenv("EDGEDISTILL_LEDGER", str(tmp_path / "ledger.jsonl"))
    file = study(
        tmp_path,
        data,
        distill={"epochs": 3, "views": 3},
        data={"source": str(data), "max_train": 24},
    )
    assert tool("study", file, "--out", tmp_path / "out").code == 0
    after = {row.kind: row for row in rows_of(tmp_path / "ledger.jsonl").rows}
    for kind in ("plain", "distilled"):
        assert after[kind].settings_sha256 == before[kind].settings_sha256
        assert after[kind].data.judged_sha256 == before[kind].data.judged_sha256
        assert after[kind].data.train == 24 < before[kind].data.train
        assert after[kind].id != before[kind].id


def test_a_build_adds_its_arms_once_and_a_second_look_adds_none(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = tmp_path / "ledger.jsonl"
    monkeypatch.setenv("EDGEDISTILL_LEDGER", str(ledger))
    arguments = ("build", "--data", data, *SMALL, "--out", tmp_path / "run")
    assert tool(*arguments).code in (0, 1)
    rows = rows_of(ledger).rows
    assert sorted(row.kind for row in rows) == ["distilled", "plain"]
    assert all(row.test is not None for row in rows)
    before = ledger.read_bytes()
    assert tool(*arguments).code in (0, 1)
    assert ledger.read_bytes() == before


def test_a_ledger_that_cannot_be_written_is_said_and_the_study_ends_well(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("EDGEDISTILL_LEDGER", str(tmp_path / "file" / "ledger.jsonl"))
    ran = tool("study", study(tmp_path, data), "--out", tmp_path / "out")
    assert ran.code == 0
    assert "the ledger of runs was not written" in ran.text
    assert (tmp_path / "out" / "study.json").is_file()


def test_whoever_wants_no_ledger_gets_none(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEDISTILL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EDGEDISTILL_LEDGER", "off")
    assert tool("study", study(tmp_path, data), "--out", tmp_path / "out").code == 0
    assert not (tmp_path / "home").exists()
    ran = tool("ledger", "show")
    assert ran.code == 2 and "EDGEDISTILL_LEDGER is off" in ran.text


def test_ledgers_are_shown_and_merged(
    kept: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own.jsonl"
    monkeypatch.setenv("EDGEDISTILL_LEDGER", str(own))
    empty = tool("ledger", "show")
    assert empty.code == 0 and "0 runs" in empty.text and "fills by itself" in empty.text
    merged = tool("ledger", "merge", kept[1], kept[1])
    assert merged.code == 0
    assert "2 of 2 runs are new" in merged.text and "0 of 2 runs are new" in merged.text
    own.write_bytes(own.read_bytes() + b"damage\n")
    shown = tool("ledger", "show")
    assert shown.code == 0
    for words in ("data, 3 classes: 2 of them", "mobilenetv3_small_050 64 px kd 1", "plain 1"):
        assert words in shown.text
    assert "1 line is left out (line 3: it is no JSON)" in shown.text
    lines = tool("ledger", "show", "--json").out.splitlines()
    assert [json.loads(line)["schema"] for line in lines] == ["edgedistill.ledger/1"] * 2
    missing = tool("ledger", "merge", tmp_path / "none.jsonl")
    assert missing.code == 2 and "there is no ledger" in missing.text
