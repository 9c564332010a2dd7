"""`edgedistill build` from end to end: one small build of real pictures, and what must hold of it."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgedistill.recipe import autos, compose
from edgedistill.result import Result, load
from edgedistill.rundir import sha256_file
from edgedistill.stages import STAGES as EVERY_STAGE
from tests.build_parts import SMALL, Ran, add_odd_files, events, make_images, tool, worked

STAGES = tuple(name for name in EVERY_STAGE if name != "05-synth")
"""Those of a build without synthetic images."""

BY_HAND = Path(__file__).parents[1] / "benchmarks" / "accuracy_by_hand.py"


@dataclass(frozen=True)
class Built:
    """The small build: its images, its run folder, how it ended, and the files it had to leave out."""

    data: Path
    run: Path
    first: Ran
    left_out: dict[str, str]

    def again(self, run: Path, *more: object) -> Ran:
        """The same command with further options, in `run`."""
        return tool("build", *SMALL, "--data", self.data, "--out", run, *more)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    import torch

    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("build")
    data = make_images(place / "data")
    left_out = add_odd_files(data)
    found = Built(data, place / "run", Ran(0, "", ""), left_out)
    return Built(data, place / "run", found.again(place / "run"), left_out)


@pytest.fixture
def copy(built: Built, tmp_path: Path) -> Path:
    """The run folder again, for a test that changes it."""
    return Path(shutil.copytree(built.run, tmp_path / "run"))


@pytest.fixture
def result(built: Built) -> Result:
    return load(built.run)


def test_a_build_of_odd_files_ends_with_a_verdict_and_names_the_report(built: Built) -> None:
    assert built.first.code == 0, built.first.err
    assert "UNCONFIRMED" in built.first.out
    assert str(built.run / "report.html") in built.first.out.replace("\n", "")
    assert built.first.err.count("\n") == len(STAGES), "one line a stage when it is no terminal"


def test_the_run_folder_holds_what_the_design_says_and_no_litter(built: Built) -> None:
    names = {path.name for path in built.run.iterdir()}
    assert names == {
        "recipe.yaml", "events.jsonl", "stages", "bundle", "evalset", "cache", ".lock",
        "result.json", "report.html", "report.md", "model_card.md",
    }  # fmt: skip
    assert sorted(path.name for path in (built.run / "stages").iterdir()) == list(STAGES)
    for stage in STAGES:
        done = json.loads((built.run / "stages" / stage / "done.json").read_text("utf-8"))
        assert {"fingerprint", "inputs", "seconds", "versions"} <= done.keys()
    assert not [path for path in built.run.rglob("*") if path.name.endswith((".tmp", ".partial"))]
    assert {path.name for path in (built.run / "bundle").iterdir()} == {
        "manifest.json", "labels.txt", "golden.npz", "ontarget.pyz", "build_engine.sh", "README.md",
        "model.float32.onnx", "model.float16.onnx", "model.int8.onnx",
    }  # fmt: skip


def test_every_file_left_out_is_counted_and_named_with_its_reason(
    built: Built, result: Result
) -> None:
    rows = [
        line.split("\t")
        for line in (built.run / "stages/01-data/skipped.tsv").read_text("utf-8").splitlines()
    ]
    assert {path for path, _ in rows} == set(built.left_out)
    assert all(reason and built.left_out[path] in reason for path, reason in rows), rows
    assert result.data.skipped == len(rows) == 6
    assert [[s.path, s.reason] for s in result.data.skipped_files] == rows
    assert result.data.duplicates == 1
    page = (built.run / "report.html").read_text("utf-8")
    assert all(path in page for path in built.left_out)
    assert f"{len(rows)} left out" in built.first.err


def test_the_counts_of_the_data_are_those_of_the_split_file(built: Built, result: Result) -> None:
    rows = [
        line.split("\t")
        for line in (built.run / "stages/01-data/split.tsv").read_text("utf-8").splitlines()
    ]
    counts = Counter(split for split, *_ in rows)
    assert (counts["train"], counts["val"], counts["test"]) == (
        result.data.train,
        result.data.val,
        result.data.test,
    )
    usable = (
        60 + 4 + 1
    )  # CMYK, 16 bits, palette and turned by EXIF are pictures; and one exact copy
    assert len(rows) == usable
    train = Counter(int(label) for split, label, *_ in rows if split == "train")
    assert result.data.per_class_train == [train[label] for label in range(3)]
    assert result.data.classes == ["bag", "boot", "trouser"]
    sides: dict[str, set[str]] = {}
    for split, _, sha256, _ in rows:
        sides.setdefault(sha256, set()).add(split)
    assert all(len(splits) == 1 for splits in sides.values()), "the same bytes on two sides"


def test_both_arms_start_and_step_alike_and_their_numbers_agree(
    built: Built, result: Result
) -> None:
    plain, distilled = result.arms
    assert (plain.name, distilled.name) == ("plain", "distilled")
    assert plain.steps == distilled.steps > 0
    assert plain.epochs == distilled.epochs == len(plain.curve) == len(distilled.curve) == 1
    for arm in (plain, distilled):
        weights = built.run / "stages" / f"{'08' if arm is plain else '09'}-{arm.name}"
        assert arm.weights_sha256 == sha256_file(weights / f"{arm.name}.safetensors")
        assert arm.top1.n == result.data.test
        assert arm.top1.ci95 is not None
        assert arm.top1.ci95[0] <= arm.top1.value <= arm.top1.ci95[1]
        assert arm.seconds == pytest.approx(sum(arm.seconds_parts.values()))
        assert arm.val_top1 is not None
    assert plain.weights_sha256 != distilled.weights_sha256
    assert plain.gain is None and distilled.gain is not None
    assert distilled.gain.value == pytest.approx(distilled.top1.value - plain.top1.value)
    assert plain.val_top1 is not None and distilled.val_top1 is not None
    assert result.chosen_arm == ("distilled" if distilled.val_top1 >= plain.val_top1 else "plain")


def test_every_artifact_is_the_file_on_disk(built: Built, result: Result) -> None:
    assert [a.name for a in result.artifacts] == ["float32", "float16", "int8"]
    manifest = json.loads((built.run / "bundle/manifest.json").read_text("utf-8"))
    listed = {model["name"]: model for model in manifest["models"]}
    assert manifest["chosen"] == result.chosen
    for artifact in result.artifacts:
        path = built.run / artifact.path
        assert artifact.size_bytes == path.stat().st_size == listed[artifact.name]["size_bytes"]
        assert artifact.sha256 == sha256_file(path) == listed[artifact.name]["sha256"]
        assert artifact.input == listed[artifact.name]["input"]["layout"]
        assert artifact.opset == listed[artifact.name]["opset"]
    sizes = [path.stat().st_size for path in (built.run / "bundle").iterdir()]
    assert result.bundle_bytes == sum(sizes)


def test_accuracies_recalls_and_the_confusion_matrix_tell_the_same_story(result: Result) -> None:
    n = result.data.test
    matrix = np.array(result.confusion)
    assert matrix.sum() == n
    chosen = result.artifact(result.chosen)
    assert chosen.top1 is not None
    assert np.trace(matrix) == round(chosen.top1.value * n)
    recalls = np.diag(matrix) / matrix.sum(1)
    assert chosen.per_class_recall == pytest.approx(recalls.tolist())
    assert chosen.balanced_accuracy == pytest.approx(recalls.mean())
    base = result.artifact("float32").top1
    for artifact in result.artifacts:
        assert artifact.top1 is not None and base is not None and artifact.drop is not None
        assert artifact.top1.n == n
        assert artifact.drop.value == pytest.approx(artifact.top1.value - base.value)
    assert result.teacher.top1.n == n
    parity = result.artifact("float32").parity
    assert parity is not None and parity.max_abs <= 1e-4 and parity.top1_agreement == 1


def test_latencies_are_of_this_machine_with_every_sample_kept(built: Built, result: Result) -> None:
    for artifact in result.artifacts:
        measured = [row for row in artifact.latency if row.evidence != "predicted"]
        assert len(measured) == 2, "one thread, and all"
        for row in measured:
            assert row.evidence == "measured_on_proxy", "x86-cpu is a device, not this machine"
            assert row.provider == "CPUExecutionProvider" and row.batch == 1
            assert row.n >= 11 and row.p50_s is not None and row.p50_s > 0
            assert row.p99_s is None or row.n >= 662
            assert row.samples is not None
            kit = json.loads((built.run / row.samples).read_text("utf-8"))
            kept = [
                r for r in kit["rows"]
                if (r["model"], r["threads"]) == (artifact.name, row.threads)
            ]  # fmt: skip
            assert [len(r["samples_s"]) for r in kept] == [row.n]


def test_the_verdict_has_a_row_for_each_limit_of_the_profile(result: Result) -> None:
    given = {name for name, value in result.budget.model_dump().items() if value is not None}
    assert {row.limit for row in result.verdict.rows} == given
    assert "latency_s" in given and "size_bytes" in given
    worst = max(("pass", "unconfirmed", "fail").index(row.status) for row in result.verdict.rows)
    assert result.verdict.status == ("pass", "unconfirmed", "fail")[worst] == "unconfirmed"
    size = next(row for row in result.verdict.rows if row.limit == "size_bytes")
    assert size.observed == result.artifact(result.chosen).size_bytes
    assert any(remark.startswith(("The teacher", "Teacher")) for remark in result.verdict.remarks)


def test_tables_stages_and_examples_of_the_document_are_there(built: Built, result: Result) -> None:
    assert result.tables.keys() == {
        "latency_samples", "file_logits", "network_logits", "split", "skipped",
    }  # fmt: skip
    for table in result.tables.values():
        assert sha256_file(built.run / table.path) == table.sha256
    assert [stage.name for stage in result.stages] == list(STAGES[:-1])
    assert result.student.model == result.plan.chosen.model == "mobilenetv3_small_050"
    assert result.student.input_size == 64 and result.student.weights == "random"
    assert result.environment.packages["torch"]
    assert result.examples
    for example in result.examples:
        image = Image.open(io.BytesIO(base64.b64decode(example.png)))
        assert image.size == (64, 64)
        assert 0 <= example.label < 3 and 0 <= example.predicted < 3


def test_the_recipe_that_is_left_is_a_recipe_without_auto_and_gives_the_same_run(
    built: Built, copy: Path
) -> None:
    layered = compose(copy / "recipe.yaml", {}, {})
    assert autos(layered.recipe) == []
    text = (copy / "recipe.yaml").read_text("utf-8")
    assert all("  # " in line for line in text.splitlines()[3:] if not line.endswith(":"))
    before = load(copy)
    ran = tool("build", copy / "recipe.yaml", "--out", copy)
    assert ran.code == 0, ran.err
    assert worked(copy) == ["02-plan", "15-report"], "planning had less to decide, nothing else"
    assert load(copy).recipe_sha256 == before.recipe_sha256


def test_every_event_is_a_line_of_json_and_every_stage_starts_and_ends(built: Built) -> None:
    first = [e for e in events(built.run) if e["event"] != "build_started"]
    assert [e["stage"] for e in first if e["event"] == "stage_started"][:14] == list(STAGES)
    assert [e["stage"] for e in first if e["event"] == "stage_done"][:14] == list(STAGES)
    assert all(e["time_utc"] for e in first)


def test_report_and_model_card_tell_the_verdict_and_fetch_nothing(
    built: Built, result: Result
) -> None:
    page = (built.run / "report.html").read_text("utf-8")
    text = (built.run / "report.md").read_text("utf-8")
    assert "UNCONFIRMED" in page.upper() and "UNCONFIRMED" in text.upper()
    for word in ('src="http', "url(http", "<script src", '<link rel="stylesheet"'):
        assert word not in page
    card = (built.run / "model_card.md").read_text("utf-8")
    assert "efficientnet_lite0" in card and "mobilenetv3_small_050" in card


def test_thirty_lines_of_numpy_and_onnxruntime_get_exactly_the_top1_that_is_stated(
    built: Built, result: Result
) -> None:
    assert len(BY_HAND.read_text("utf-8").splitlines()) <= 32
    said = subprocess.run(
        [sys.executable, BY_HAND, built.run / "bundle"], capture_output=True, text=True, check=True
    ).stdout
    found = {name: float(value) for name, _, value in map(str.split, said.splitlines())}
    stated = {a.name: a.top1.value for a in result.artifacts if a.top1 is not None}
    assert len(found) == 3 and found == stated


def test_the_bundle_checks_itself_in_processes_of_its_own_without_torch(
    built: Built, tmp_path: Path
) -> None:
    bundle = shutil.copytree(built.run / "bundle", tmp_path / "bundle")
    for name in ("torch", "timm", "onnx", "PIL", "edgedistill"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} was imported')")
    done = subprocess.run(
        [sys.executable, "ontarget.pyz", "check", "."], cwd=bundle, capture_output=True, text=True,
        check=False, env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-500:]
    assert done.stdout.count("CPUExecutionProvider") == 3, done.stdout


WITHOUT_TORCH = """
import sys
for name in ("torch", "timm", "onnx", "onnxruntime", "safetensors", "skimage"):
    sys.modules[name] = None
sys.argv = ["edgedistill", *sys.argv[1:]]
from edgedistill.cli import main
main()
"""


def test_a_second_run_finds_everything_done_at_once_and_loads_no_torch(built: Built) -> None:
    before = (built.run / "result.json").read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, "build", *SMALL, "--data", built.data, "--out", built.run],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "all 14 stages were done before" in done.stderr
    assert "UNCONFIRMED" in done.stdout
    assert worked(built.run) == []
    assert (built.run / "result.json").read_bytes() == before


def test_another_temperature_runs_the_distilled_arm_and_what_follows_from_it_alone(
    built: Built, copy: Path
) -> None:
    more = ("--set", "distill.temperature=2", "--until", "12-bundle")
    ran = built.again(copy, *more)
    assert ran.code == 0, ran.err
    follows = ["10-export", "11-quantize", "12-bundle"]
    distilled = load(copy).chosen_arm == "distilled"
    assert worked(copy) == ["09-distilled", *(follows if distilled else [])]


def test_another_budget_plans_anew_and_leaves_the_teacher_and_the_measurements_alone(
    built: Built, copy: Path
) -> None:
    ran = built.again(copy, "--latency-ms", 31)
    assert ran.code == 0, ran.err
    assert worked(copy) == ["02-plan", "15-report"]
    assert load(copy).budget.latency_s == pytest.approx(0.031)


def test_another_picture_runs_everything_that_looks_at_pictures(
    built: Built, copy: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(built.data, tmp_path / "data"))
    Image.new("RGB", (40, 30), "red").save(data / "bag" / "red.png")
    ran = tool("build", *SMALL, "--data", data, "--out", copy, "--until", "teacher")
    assert ran.code == 0, ran.err
    assert worked(copy) == ["01-data", "02-plan", "03-pixels", "04-teacher"]


def test_a_bad_file_more_is_named_and_changes_no_weight(
    built: Built, copy: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(built.data, tmp_path / "data"))
    (data / "bag" / "late.png").write_bytes(b"not a picture")
    before = load(copy)
    ran = tool("build", *SMALL, "--data", data, "--out", copy)
    assert ran.code == 0, ran.err
    assert worked(copy) == ["01-data", "15-report"]
    after = load(copy)
    assert after.data.skipped == before.data.skipped + 1
    assert "bag/late.png" in (copy / "report.html").read_text("utf-8")
    assert [arm.weights_sha256 for arm in after.arms] == [a.weights_sha256 for a in before.arms]


def test_an_accuracy_that_is_worth_little_is_said_so(result: Result) -> None:
    assert any("12 images only" in remark for remark in result.verdict.remarks)
    chosen = result.artifact(result.chosen).top1
    assert chosen is not None and chosen.ci95 is not None
    constant = max(map(sum, result.confusion)) / result.data.test
    told = any("most frequent class" in remark for remark in result.verdict.remarks)
    assert told == (chosen.ci95[0] <= constant)


def test_a_missed_accuracy_ends_with_exit_code_1_and_says_which(built: Built, copy: Path) -> None:
    ran = built.again(copy, "--min-top1", 99.9)
    assert ran.code == 1
    assert "FAIL" in ran.out
    row = next(row for row in load(copy).verdict.rows if row.limit == "min_top1")
    chosen = load(copy).artifact(load(copy).chosen).top1
    assert chosen is not None and row.status == "fail" and row.observed == chosen.value
    assert "14-score" not in worked(copy), "the test split is read once"


def test_what_was_recorded_is_kept_by_the_next_build_of_the_same_run(
    built: Built, copy: Path
) -> None:
    ran = tool("record", copy / "stages/13-bench/latency.json", "--run", copy)
    assert ran.code == 0, ran.err
    recorded = (copy / "result.json").read_bytes()
    assert (
        "record_0001" in load(copy).tables and recorded != (built.run / "result.json").read_bytes()
    )
    assert built.again(copy).code == 0 and worked(copy) == []
    assert (copy / "result.json").read_bytes() == recorded
    (copy / "result.json").unlink()
    assert built.again(copy).code == 0
    assert (copy / "result.json").read_bytes() == recorded


def test_under_strict_an_unconfirmed_limit_is_exit_code_1(built: Built, copy: Path) -> None:
    ran = built.again(copy, "--strict")
    assert ran.code == 1
    assert "UNCONFIRMED" in ran.out
    assert worked(copy) == []


def test_until_stops_after_the_stage_that_it_names_and_says_how_to_go_on(
    built: Built, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    ran = built.again(out, "--until", "pixels")
    assert ran.code == 0
    assert sorted(p.name for p in (out / "stages").iterdir()) == list(STAGES[:3])
    assert not (out / "result.json").exists()
    assert "without --until goes on" in ran.text


def test_fresh_forgets_what_was_done(built: Built, copy: Path) -> None:
    ran = built.again(copy, "--fresh", "--until", "data")
    assert ran.code == 0
    assert worked(copy) == ["01-data"]
    assert [path.name for path in (copy / "stages").iterdir()] == ["01-data"]
    assert not (copy / "bundle").exists() and not (copy / "result.json").exists()


def test_a_dry_run_shows_the_plan_and_writes_nothing(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = tool("build", *SMALL, "--data", built.data, "--dry-run")
    assert ran.code == 0, ran.err
    assert "mobilenetv3_small_050" in ran.out
    assert list(tmp_path.iterdir()) == []


def test_quiet_says_nothing_but_the_verdict_and_verbose_names_every_stage(
    built: Built, copy: Path
) -> None:
    quiet = built.again(copy, "-q")
    assert quiet.err == "" and "UNCONFIRMED" in quiet.out
    verbose = built.again(copy, "-v")
    assert all(f"{stage}: done before" in verbose.err for stage in STAGES)


def test_a_stage_folder_with_a_damaged_file_is_named_and_built_again(
    built: Built, copy: Path
) -> None:
    weights = copy / "stages/07-start/start.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 0xFF
    weights.write_bytes(bytes(data))
    before = sha256_file(built.run / "stages/07-start/start.safetensors")
    ran = built.again(copy, "--until", "start")
    assert ran.code == 0, ran.err
    assert "07-start: start.safetensors is no longer as it was written" in ran.text
    assert worked(copy) == ["07-start"]
    assert sha256_file(weights) == before
