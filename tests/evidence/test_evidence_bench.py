"""Running the kit in a fresh process: what comes back when it is right, and its own words when it is not."""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ontarget.document import content_sha256, write_json
from ontarget.machine import machine
from ontarget.measure import MOST_SAMPLES, summarise
from ontarget.percentiles import centre
from small_bundle import LABELS, PIXELS, small_bundle

from edgedistill.errors import DocumentError, StoppedError, UsageError
from edgedistill.evidence import bench as room
from edgedistill.evidence.bench import (
    FakeTarget,
    bench,
    evaluate,
    grade,
    latency_rows,
    read_kit,
    run_kit,
    same_class,
)
from edgedistill.evidence.kitdocument import MAX_KIT_BYTES
from edgedistill.metrics import top1
from edgedistill.progress import silent
from edgedistill.recipe import BenchSection
from edgedistill.target.device import load_device


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of one real file with the real kit, and its evaluation set."""
    return small_bundle(tmp_path_factory.mktemp("bundle")).parent


def scripted(folder: Path, code: str) -> Path:
    """A bundle whose kit is a script of ours: what matters is how its end is told."""
    folder.mkdir(exist_ok=True)
    (folder / "ontarget.pyz").write_text(code)
    return folder


# The real kit


def test_the_kit_measures_every_thread_count_and_keeps_its_samples(
    shipped: Path, tmp_path: Path
) -> None:
    section = BenchSection(min_seconds=0.01, min_runs=60)
    document = bench(shipped / "bundle", tmp_path / "latency.json", section, silent())
    assert document == json.loads((tmp_path / "latency.json").read_text())
    assert len(document["rows"]) == 2
    rows = latency_rows(document, load_device("host"), "latency.json")["float32"]
    assert next(row.threads for row in rows) == 1
    for row, raw in zip(rows, document["rows"], strict=True):
        assert row.evidence == "measured_on_target" and row.batch == 1
        assert row.provider == "CPUExecutionProvider"
        assert row.n >= 60 and len(raw["samples_s"]) == row.n
        assert row.p50_s is not None and 0 < row.p50_s < 0.1
        assert (row.p99_s is None) == (row.n < 662)  # fewer samples cannot carry it
        assert row.samples == "latency.json" and row.runtime.startswith("onnxruntime ")


def test_the_kit_scores_every_file_and_hands_its_logits_over(shipped: Path, tmp_path: Path) -> None:
    document = evaluate(
        shipped / "bundle", shipped / "evalset", tmp_path / "eval.json", tmp_path / "logits.npz",
        silent(),
    )  # fmt: skip
    with np.load(tmp_path / "logits.npz") as found:
        logits = found["logits_float32"]
    assert np.allclose(logits, PIXELS.reshape(24, -1, 3).mean(1), atol=1e-3)
    (row,) = document["eval"]
    assert (row["model"], row["n"]) == ("float32", 24)
    assert row["top1"] == top1(logits, LABELS)


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_is_not_here_comes_back_in_the_kits_words(
    provider: Any, shipped: Path, tmp_path: Path
) -> None:
    import onnxruntime

    if len(onnxruntime.get_available_providers()) > 2:
        pytest.skip("this machine has an accelerator")
    section = BenchSection(provider=provider)
    with pytest.raises(UsageError) as caught:
        bench(shipped / "bundle", tmp_path / "out.json", section, silent())
    text = str(caught.value)
    assert text.startswith("the kit could not bench: ") and "onnxruntime-gpu" in text
    assert "Traceback" not in text and caught.value.exit_code == 2
    document = read_kit(tmp_path / "out.json")
    assert document["rows"] == [] and len(document["failures"]) == 2


def test_a_damaged_bundle_comes_back_in_the_kits_words(tmp_path: Path, shipped: Path) -> None:
    folder = scripted(tmp_path / "bundle", "")
    (folder / "ontarget.pyz").write_bytes((shipped / "bundle" / "ontarget.pyz").read_bytes())
    with pytest.raises(UsageError, match=r"manifest.json") as caught:
        run_kit(folder, ["check"], silent())
    assert "is not a bundle" in str(caught.value)


# How any end is told


@pytest.mark.parametrize(
    ("code", "kind", "exit_code"),
    [(2, UsageError, 2), (3, StoppedError, 3), (1, StoppedError, 3), (77, StoppedError, 3)],
)
def test_the_words_of_the_kit_come_back(
    code: int, kind: type[Exception], exit_code: int, tmp_path: Path
) -> None:
    folder = scripted(
        tmp_path / "b",
        f"import sys; print('aside'); print('ontarget: why', file=sys.stderr); sys.exit({code})",
    )
    with pytest.raises(kind) as caught:
        run_kit(folder, ["bench", "--quick"], silent())
    assert str(caught.value) == "the kit could not bench: ontarget: why"
    assert caught.value.exit_code == exit_code  # type: ignore[attr-defined]


def test_an_end_without_words_and_a_kill_still_say_something(tmp_path: Path) -> None:
    folder = scripted(tmp_path / "b", "import sys; sys.exit(3)")
    with pytest.raises(StoppedError, match="exit code 3"):
        run_kit(folder, ["eval"], silent())
    folder = scripted(tmp_path / "b", "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(StoppedError, match="exit code -9"):
        run_kit(folder, ["eval"], silent())


def test_only_the_end_of_a_long_story_is_told(tmp_path: Path) -> None:
    folder = scripted(
        tmp_path / "b", "import sys; print('x' * 9000 + 'the end', file=sys.stderr); sys.exit(2)"
    )
    with pytest.raises(UsageError, match=r"the end$") as caught:
        run_kit(folder, ["eval"], silent())
    assert len(str(caught.value)) < 1600


def test_a_kit_that_never_ends_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "KIT_TIMEOUT_S", 0.5)
    folder = scripted(tmp_path / "b", "import time; time.sleep(60)")
    with pytest.raises(StoppedError, match=r"did not end within 0.5 s \(bench\)"):
        run_kit(folder, ["bench"], silent())


def test_the_kit_sees_nothing_of_our_python_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a board: what it imports is what is installed and what is in the file itself."""
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("KEPT", "yes")
    folder = scripted(
        tmp_path / "b",
        "import os, sys\n"
        "assert 'PYTHONPATH' not in os.environ and os.environ['KEPT'] == 'yes'\n"
        f"assert sys.argv[1:] == ['info', '-x', {str(tmp_path / 'b')!r}], sys.argv\n",
    )
    run_kit(folder, ["info", "-x"], silent())


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "5", '"edgedistill.kit/1"', "{}", '{"schema": "edgedistill.kit/2"}',
        '{"schema": 1}', "\udcff\udcfe", "[" * 100_000,
    ],
)  # fmt: skip
def test_a_document_that_is_damaged_or_of_another_schema_is_refused_by_name(
    text: str, tmp_path: Path
) -> None:
    path = tmp_path / "kit.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DocumentError, match=r"kit\.json"):
        read_kit(path)


def test_a_document_that_is_missing_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"none\.json does not exist"):
        read_kit(tmp_path / "none.json")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(DocumentError, match=r"folder\.json cannot be read"):
        read_kit(tmp_path / "folder.json")


RATIOS = [1.1, 1.08, 1.12, 1.09, 1.11, 1.1, 1.07, 1.13, 1.1, 1.1, 1.09]


def compared(path: Path, **changes: Any) -> Path:
    """A document of two files in turns, as a kit seals it."""
    ratio, low, high = (math.exp(v) for v in centre([math.log(r) for r in RATIOS], 0.998))
    side = {"name": "m", "file": "m.onnx", "sha256": "0" * 64, "p50_s": 0.001, "n": 640}
    found = {
        "old": side, "new": side, "ratio": ratio, "low": low, "high": high, "confidence": 0.998,
        "ratios": RATIOS, "runtime": "onnxruntime", "provider": "CPUExecutionProvider",
        "threads": 1, "batch": 1, "warnings": [], **changes,
    }  # fmt: skip
    document = {
        "schema": "edgedistill.kit/1", "kit_version": "0.1.0", "machine": {"cpu": "A76"},
        "bundle": {"manifest_sha256": "1" * 64}, "rows": [], "eval": [], "failures": [],
        "compare": found,
    }  # fmt: skip
    path.write_text(json.dumps({**document, "content_sha256": content_sha256(document)}))
    return path


def test_a_comparison_is_held_to_the_ratios_of_its_pairs(tmp_path: Path) -> None:
    path = tmp_path / "kit.json"
    whole = read_kit(compared(path))["compare"]
    assert whole["low"] < whole["ratio"] < whole["high"]
    for words, changes in {
        "compare.ratio  1.0 does not follow from its 11 ratios": {"ratio": 1.0},
        "compare.high  1.0 does not": {"high": 1.0},
        "compare.low  1.5 does not": {"low": 1.5},
        "compare.ratios  3 pairs carry no interval": {"ratios": RATIOS[:3]},
        "compare.ratios  list should have at most 500": {"ratios": [1.0] * 501},
        "compare.ratios.0  input should be greater": {"ratios": [-1.0, *RATIOS]},
        "compare.confidence  ": {"confidence": 0.1},
        "compare.new.n  ": {"new": {**whole["new"], "n": 0}},
        "compare.old.p50_s  ": {"old": {**whole["old"], "p50_s": 0.0}},
    }.items():
        with pytest.raises(DocumentError, match=words):
            read_kit(compared(path, **changes))


def test_a_kit_that_compares_nothing_is_told(shipped: Path) -> None:
    target = FakeTarget(lambda _, __: {"machine": {}})
    with pytest.raises(DocumentError, match="wrote no comparison"):
        room.compare(shipped / "bundle", shipped / "bundle", target, silent())


def test_a_thorough_measurement_of_a_fast_model_can_be_read(tmp_path: Path) -> None:
    """As many samples as a kit keeps of one measurement: a document has room for 32 of these."""
    rng = np.random.default_rng(0)
    samples = [round(float(s), 9) for s in rng.normal(1e-3, 1e-5, MOST_SAMPLES)]
    m = summarise(samples, 0.0)
    row = {
        "model": "m", "sha256": "0" * 64, "runtime": "onnxruntime", "provider": "CPUExecutionProvider",
        "threads": 1, "batch": 1, **{f"{k}_s": v for k, v in m.upper.items()}, "low": m.lower, "n": m.n,
        "mean_s": m.mean_s, "max_s": m.max_s, "cv": m.cv, "drift": m.drift, "stable": m.stable,
        "samples_s": samples,
    }  # fmt: skip
    document = json.loads(compared(tmp_path / "kit.json").read_text())
    document["rows"] = [row]
    document["content_sha256"] = content_sha256(document)
    path = tmp_path / "thorough.json"
    write_json(path, document)
    assert len(read_kit(path)["rows"]) == 1
    assert path.stat().st_size * 32 < MAX_KIT_BYTES


# What a measurement is worth


@pytest.mark.parametrize(
    ("device", "arch", "counts"),
    [
        ("x86-cpu", "x86_64", True),
        ("x86-cpu", "AMD64", True),
        ("x86-cpu", "aarch64", False),
        ("x86-cpu", "riscv64", False),
        ("x86-cpu", None, False),
        ("raspberry-pi-5", "x86_64", False),
        ("raspberry-pi-5", "aarch64", True),
        ("raspberry-pi-4", "armv7l", True),
        ("raspberry-pi-5", "arm64", True),
        ("jetson", "x86_64", False),
        ("jetson", "aarch64", False),
    ],
)
def test_only_a_processor_of_the_same_class_is_a_proxy(
    device: str, arch: str | None, counts: bool
) -> None:
    assert same_class(load_device(device), {"arch": arch}) is counts


def test_only_this_machine_itself_is_the_target() -> None:
    assert grade(load_device("host"), machine()) == "measured_on_target"
    for other in ({}, {**machine(), "cpu": "another"}, {**machine(), "cores": 4096}):
        assert grade(load_device("host"), other) == "measured_on_proxy"
    for name in ("jetson", "x86-cpu", "raspberry-pi-5"):
        assert grade(load_device(name), {"arch": "x86_64"}) == "measured_on_proxy"


def test_rows_are_kept_as_measured_and_sorted_by_model() -> None:
    raw = {
        "runtime": "onnxruntime", "runtime_version": "1.31", "provider": "CPUExecutionProvider",
        "threads": 2, "batch": 1, "p50_s": 0.001, "p90_s": None, "p99_s": None, "n": 12,
        "load_s": 0.1, "first_run_s": 0.01, "peak_rss_bytes": None, "stable": False,
        "warnings": ["hot"],
    }  # fmt: skip
    document = {
        "machine": {"cpu": None}, "rows": [{**raw, "model": m} for m in ("a", "b", "a")],
    }  # fmt: skip
    found = latency_rows(document, load_device("jetson"), "s.json")
    assert {name: len(rows) for name, rows in found.items()} == {"a": 2, "b": 1}
    row = found["b"][0]
    assert row.machine == "unknown processor" and row.p90_s is None and row.peak_rss_bytes is None
    assert row.warnings == ["hot"] and row.stable is False
    assert row.evidence == "measured_on_proxy" and not math.isnan(row.p50_s or 0)
    assert row.device == row.machine  # not the device that it stands in for


def test_the_packed_kit_can_be_started_by_itself(shipped: Path) -> None:
    assert (shipped / "bundle" / "ontarget.pyz").stat().st_mode & stat.S_IXUSR


def test_a_comparison_takes_one_model_of_each_bundle_and_follows_no_link(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What travels is a bundle of one model, with that of the other in it; whatever else lies there stays."""
    import shutil

    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("k")
    for name in ("old", "new"):
        shutil.copytree(shipped / "bundle", tmp_path / name)
    (tmp_path / "old" / "link").symlink_to(secret)
    (tmp_path / "new" / "other").mkdir()
    seen: list[tuple[str, ...]] = []

    def answer(bundle: Path, arguments: Sequence[str]) -> dict[str, Any]:
        seen.append(tuple(sorted(str(p.relative_to(bundle)) for p in bundle.rglob("*"))))
        sides = {
            side: {"name": "float32", "file": "model.float32.onnx", "sha256": "0" * 64, "p50_s": 1.0, "n": 9}
            for side in ("old", "new")
        }  # fmt: skip
        found = {
            **sides, "ratio": 1.0, "low": 0.9, "high": 1.1, "confidence": 0.998, "ratios": [1.0] * 10,
            "runtime": "onnxruntime 1", "provider": "CPUExecutionProvider", "threads": 1, "batch": 1,
            "warnings": [],
        }  # fmt: skip
        return {
            "schema": "edgedistill.kit/1", "machine": {"cpu": "some"}, "bundle": {}, "rows": [],
            "compare": found,
        }  # fmt: skip

    monkeypatch.chdir(tmp_path)
    found = room.compare(Path("old"), Path("new"), room.FakeTarget(answer), silent(), tier="quick")
    assert found.outcome(0.2) == "pass" and found.outcome(0.05) == "inconclusive"
    own = (
        "README.md", "build_engine.sh", "golden.npz", "labels.txt", "manifest.json", "model.float32.onnx",
        "ontarget.pyz",
    )  # fmt: skip
    assert seen == [tuple(sorted([*own, "other", *(f"other/{n}" for n in own)]))]
    with pytest.raises(DocumentError, match="has no model"):
        room.compare(
            Path("old"), Path("new"), room.FakeTarget(answer), silent(), models=("int8", None)
        )


@pytest.mark.slow
def test_two_files_are_compared_for_real(shipped: Path) -> None:
    bundle = shipped / "bundle"
    found = room.compare(bundle, bundle, room.Here(), silent(), tier="quick")
    assert found.low < found.ratio < found.high and len(found.ratios) == 10
    assert found.old.sha256 == found.new.sha256
    assert (found.provider, found.evidence) == ("CPUExecutionProvider", "measured_on_target")


def test_a_row_with_what_no_result_knows_is_a_document_that_does_not_hold() -> None:
    row = {
        "model": "int8", "runtime": "onnxruntime", "runtime_version": "1", "threads": 1, "batch": 1,
        "provider": "CPUExecutionProvider", "before": {"humidity": 0.4},
    }  # fmt: skip
    with pytest.raises(DocumentError, match="the kit document r/1 does not hold"):
        latency_rows({"machine": {}, "rows": [row]}, load_device("host"), "r/1")
