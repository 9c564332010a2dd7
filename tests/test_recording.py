"""What a board measured, folded into a run: the verdict follows it, and no damaged document changes it."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evidence_samples import make_result
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ontarget.contract import load_bundle
from ontarget.document import content_sha256
from ontarget.measure import summarise
from ontarget.percentiles import PERCENTILES
from small_bundle import PIXELS, small_bundle

from edgedistill import recording
from edgedistill.errors import BusyError, DocumentError, EdgedistillError, UsageError
from edgedistill.evidence.bench import Here
from edgedistill.progress import silent
from edgedistill.recording import record
from edgedistill.result import Limits, Result, load
from edgedistill.rundir import sha256_file
from edgedistill.target.device import device_to_dict, load_device
from tests.build_parts import tool

PI = {"board": "Raspberry Pi 5 Model B Rev 1.0", "arch": "aarch64", "cpu": "Cortex-A76", "cores": 4,
      "memory_bytes": 8_241_000_000}  # fmt: skip
ORIN = {"board": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", "arch": "aarch64",
        "cpu": "Cortex-A78AE", "cores": 6, "memory_bytes": 7_976_886_272, "power_mode": "15W"}  # fmt: skip
Kit = dict[str, Any]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Kit]:
    """A bundle and what the real kit measured of it, in fractions of a millisecond."""
    folder = tmp_path_factory.mktemp("measured")
    bundle = small_bundle(folder)
    arguments = ["bench", "--threads", "1", "--min-seconds", "0.01", "--min-runs", "100"]
    return bundle, Here().run(bundle, arguments, folder / "kit.json", silent())


@pytest.fixture(scope="module")
def scored(measured: tuple[Path, Kit], tmp_path_factory: pytest.TempPathFactory) -> Kit:
    """What the real kit scored, on the evaluation set beside the bundle."""
    out = tmp_path_factory.mktemp("scored") / "eval.json"
    return Here().run(measured[0], ["eval"], out, silent())


def make_run(folder: Path, bundle: Path, device: str = "raspberry-pi-5", **budget: Any) -> Path:
    """A run folder with that bundle, as a build leaves it."""
    folder.mkdir(parents=True)
    (folder / "bundle").symlink_to(bundle, target_is_directory=True)
    sample = make_result("unconfirmed")
    artifact = sample.artifact("float32").model_copy(
        update={
            "sha256": load_bundle(bundle).models[0].sha256,
            "latency": [r for r in sample.artifact("float32").latency if r.evidence == "predicted"],
        }
    )
    result = sample.model_copy(
        update={
            "artifacts": [artifact],
            "chosen": "float32",
            "budget": Limits(**(budget or {"latency_s": 0.005})),
            "device": device_to_dict(load_device(device)),
            "environment": sample.environment.model_copy(update={"cpu": "a processor of nobody's"}),
        }
    )
    (folder / "result.json").write_text(result.dumps())
    return folder


@pytest.fixture
def run(measured: tuple[Path, Kit], tmp_path: Path) -> Path:
    return make_run(tmp_path / "runs" / "flowers", measured[0])


@pytest.fixture
def write(measured: tuple[Path, Kit], tmp_path: Path) -> Callable[..., Path]:
    """A kit document as a board would have made it, with changes."""

    def make(machine: Kit = PI, name: str = "result.json", **changes: Any) -> Path:
        document = copy.deepcopy(measured[1])
        document["machine"] = {"python": "3.11.2", **machine}
        document.update({k: v for k, v in changes.items() if k != "row"})
        for row in document["rows"]:
            row.update(changes.get("row", {}))
        return sealed(tmp_path / name, document)

    return make


def sealed(path: Path, document: Kit) -> Path:
    """The document in a file, as the kit of such a board would have sealed it."""
    path.write_text(json.dumps({**document, "content_sha256": content_sha256(document)}))
    return path


def told(samples: list[float]) -> Kit:
    """What a kit says of samples."""
    found = summarise(samples, 0.0)
    return {
        **{f"{name}_s": found.upper.get(name) for name, _ in PERCENTILES},
        "low": found.lower, "mean_s": found.mean_s, "max_s": found.max_s, "n": found.n,
        "quantiles_s": [float(v) for v in np.quantile(samples, np.linspace(0, 1, 101))],
        "samples_s": samples, "cv": found.cv, "drift": found.drift, "stable": found.stable,
    }  # fmt: skip


def latency_of(result: Result) -> tuple[str, str | None, float | None]:
    row = next(r for r in result.verdict.rows if r.limit == "latency_s")
    return row.status, row.evidence, row.observed


def quiet(text: str) -> None:
    raise AssertionError(text)


# What is folded in


def test_a_measurement_on_the_target_confirms_the_limit(
    run: Path, write: Callable[..., Path]
) -> None:
    file = write()
    ran = tool("record", file, "--run", run)
    assert ran.code == 0 and "PASS" in ran.out, ran.text
    result = load(run)
    (row,) = json.loads(file.read_text())["rows"]
    assert latency_of(result) == ("pass", "measured_on_target", row["p90_s"])
    new = result.artifacts[0].latency[-1]
    assert new.device == "raspberry-pi-5" and "Raspberry Pi 5 Model B Rev 1.0" in new.evidence_words
    table = result.tables["record_0001"]
    assert new.samples == table.path and sha256_file(
        run / table.path
    ) == table.sha256 == sha256_file(file)
    assert (
        "Raspberry Pi 5 Model B" in (run / "report.html").read_text()
        or (run / "report.md").is_file()
    )
    assert [
        e["event"] for e in map(json.loads, (run / "events.jsonl").read_text().splitlines())
    ] == ["recorded"]


def test_the_same_document_twice_changes_nothing(run: Path, write: Callable[..., Path]) -> None:
    record(write(), run, quiet)
    before = {
        p: (p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(run.rglob("*.*")) if p.is_file()
    }
    record(write(name="again.json"), run, quiet)
    after = {
        p: (p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(run.rglob("*.*")) if p.is_file()
    }
    assert before == after and len(list((run / "records").iterdir())) == 1


def test_of_two_measurements_of_one_setting_the_later_counts_and_both_are_shown(
    run: Path, write: Callable[..., Path], measured: tuple[Path, Kit]
) -> None:
    slow = copy.deepcopy(measured[1]["rows"])
    for row in slow:
        row.update(told([round(100 * s, 9) for s in row["samples_s"]]))
    record(write(), run, quiet)
    result, _ = record(write(name="slow.json", rows=slow), run, quiet)
    assert latency_of(result)[2] == slow[0]["p90_s"], "not the best of all tries"
    assert len([r for r in result.artifacts[0].latency if r.evidence == "measured_on_target"]) == 2


def test_a_limit_that_is_missed_on_the_board_ends_with_exit_code_1(
    measured: tuple[Path, Kit], tmp_path: Path, write: Callable[..., Path]
) -> None:
    run = make_run(tmp_path / "tight", measured[0], latency_s=1e-9)
    ran = tool("record", write(), "--run", run)
    assert ran.code == 1 and "FAIL" in ran.out
    assert latency_of(load(run))[:2] == ("fail", "measured_on_target")


@pytest.mark.parametrize(
    ("device", "machine", "row", "words"),
    [
        ("raspberry-pi-5", {**PI, "board": "Raspberry Pi 4 Model B Rev 1.5", "cpu": "Cortex-A72"}, {}, "not a Rasp"),
        ("raspberry-pi-5", {**PI, "board": None}, {}, "no board name"),
        ("raspberry-pi-5", {**PI, "arch": "armv7l"}, {}, "64-bit"),
        ("raspberry-pi-5", {"arch": "x86_64", "cpu": "AMD EPYC", "cores": 4}, {}, "no board name"),
        ("jetson", ORIN, {}, "not on its GPU"),
        ("jetson", {**ORIN, "power_mode": "MAXN_SUPER"}, {"provider": "TensorRT engine"}, "power mode MAXN_SUPER"),
        ("jetson", {**ORIN, "power_mode": None}, {"provider": "TensorRT engine"}, "could not be read"),
        ("jetson", {**ORIN, "memory_bytes": 4_000_000_000}, {"provider": "TensorRT engine"}, "4.0 GB"),
        ("jetson", {**ORIN, "cores": 4}, {"provider": "TensorRT engine"}, "4 cores are on"),
        ("x86-cpu", {"arch": "x86_64", "cpu": "AMD EPYC", "cores": 2}, {}, "does not say what its board"),
    ],
)  # fmt: skip
def test_another_machine_or_mode_confirms_nothing_and_says_why(
    device: str,
    machine: Kit,
    row: Kit,
    words: str,
    measured: tuple[Path, Kit],
    tmp_path: Path,
    write: Callable[..., Path],
) -> None:
    run = make_run(tmp_path / "run", measured[0], device)
    result, _ = record(write(machine, row=row), run, quiet)
    new = result.artifacts[0].latency[-1]
    assert new.evidence == "measured_on_proxy" and words in new.evidence_words
    assert latency_of(result)[0] == "unconfirmed"
    if device == "jetson" or (machine.get("arch") == "x86_64" and device != "x86-cpu"):
        assert latency_of(result)[1] == "predicted", (
            "another class of processor never enters a limit row"
        )


def test_an_engine_on_the_very_jetson_in_the_very_mode_confirms(
    measured: tuple[Path, Kit], tmp_path: Path, write: Callable[..., Path]
) -> None:
    run = make_run(tmp_path / "run", measured[0], "jetson")
    result, _ = record(
        write(ORIN, row={"provider": "TensorRT engine", "runtime": "tensorrt"}), run, quiet
    )
    assert latency_of(result)[:2] == ("pass", "measured_on_target")


def test_an_accuracy_from_the_board_stands_beside_the_one_from_here(
    run: Path, scored: Kit, tmp_path: Path
) -> None:
    file = sealed(tmp_path / "eval.json", {**scored, "machine": PI})
    before = load(run)
    result, _ = record(file, run, quiet)
    (board,) = result.artifacts[0].boards
    assert (board.top1.n, board.evidence) == (len(PIXELS), "measured_on_target")
    assert any(
        r.startswith("On the board (Raspberry Pi 5") and "24 images" in r
        for r in result.verdict.remarks
    )
    assert result.artifacts[0].top1 == before.artifacts[0].top1
    assert set(before.verdict.remarks) < set(result.verdict.remarks)
    again, _ = record(file, run, quiet)
    assert again == result


def test_a_board_that_computes_something_else_is_remarked(
    run: Path, scored: Kit, tmp_path: Path
) -> None:
    here = load(run).artifacts[0].top1
    assert here is not None
    wrong = round(here.value * here.n) - here.n // 10
    rows = [{"model": "float32", "n": here.n, "correct": wrong, "top1": wrong / here.n}]
    file = sealed(tmp_path / "eval.json", {**scored, "machine": PI, "eval": rows})
    result, _ = record(file, run, quiet)
    assert any("does not compute what this file does here" in r for r in result.verdict.remarks)


def test_a_record_that_is_taken_away_or_damaged_is_no_longer_counted(
    run: Path, write: Callable[..., Path]
) -> None:
    record(write(), run, quiet)
    (kept,) = (run / "records").iterdir()
    kept.write_text(kept.read_text()[:-40])
    said: list[str] = []
    other = write({**PI, "board": "Raspberry Pi 4 Model B Rev 1.5"}, name="other.json")
    result, _ = record(other, run, said.append)
    assert latency_of(result)[0] == "unconfirmed"
    assert any("a record is left out" in text for text in said)


def test_of_very_many_records_the_newest_count_and_the_older_ones_are_told(
    run: Path, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "MOST_RECORDS", 3)
    said: list[str] = []
    for i in range(5):
        samples = [0.001 * (i + 1)] * 100
        result, _ = record(write(row=told(samples)), run, said.append)
        assert latency_of(result)[2] == samples[0], "the one that came last"
    names = sorted(p.name[:4] for p in (run / "records").iterdir())
    assert names == ["0001", "0002", "0003", "0004", "0005"]
    assert sorted(k for k in result.tables if k.startswith("record_")) == [
        "record_0003", "record_0004", "record_0005",
    ]  # fmt: skip
    assert "holds 4 measurements, and the newest 3 count: the oldest 1, up to 0001-" in said[-1]
    again, _ = record(write(row=told([0.001] * 100)), run, said.append)
    assert again == result, "an old one that comes again is no new one"


# Where it belongs


def test_the_run_is_found_by_the_bundle(
    run: Path,
    measured: tuple[Path, Kit],
    write: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(run.parents[1])
    assert record(write(), None, quiet)[1] == Path("runs/flowers")
    make_run(run.parent / "twin", measured[0])
    with pytest.raises(UsageError, match=r"2 runs have the bundle.*--run runs/flowers"):
        record(write(), None, quiet)
    monkeypatch.chdir(run)
    with pytest.raises(UsageError, match=r"no run in runs/ has the bundle.*--run FOLDER"):
        record(write(), None, quiet)


def test_a_document_of_another_bundle_or_file_is_refused(
    run: Path, tmp_path: Path, write: Callable[..., Path]
) -> None:
    before = (run / "result.json").read_bytes()
    faults = {
        "another bundle": write(bundle={"name": "b", "manifest_sha256": "0" * 64}),
        "none of quickstart": write(name="m.json", row={"sha256": "1" * 64}),
        "neither times nor accuracies": write(
            name="f.json",
            rows=[],
            failures=[{"model": "float32", "threads": 1, "text": "no GPU", "exit_code": 2}],
        ),
        "edgedistill.kit/2": write(name="k.json", schema="edgedistill.kit/2"),
        "does not exist": tmp_path / "none.json",
    }
    for words, file in faults.items():
        with pytest.raises(DocumentError, match=words) as caught:
            record(file, run, quiet)
        assert "Traceback" not in str(caught.value)
    with pytest.raises(UsageError, match="is no run folder"):
        record(write(), run.parent, quiet)
    assert (run / "result.json").read_bytes() == before and not (run / "records").exists()


def test_nothing_is_recorded_while_a_build_is_at_work(
    run: Path, write: Callable[..., Path]
) -> None:
    with FileLock(run / ".lock"), pytest.raises(BusyError, match="another edgedistill is at work"):
        record(write(), run, quiet)


# Hostile documents


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "5", "{}", "\udcff\udcfe", "[" * 100_000, '{"schema": NaN}', '{"a": 1, "a": 2}',
     '{"schema": "edgedistill.kit/1", "n": 1e999}', '{"n": ' + "9" * 5000 + "}"],
)  # fmt: skip
def test_what_is_no_kit_document_is_refused_by_name(text: str, run: Path, tmp_path: Path) -> None:
    file = tmp_path / "hostile.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DocumentError, match=r"hostile\.json"):
        record(file, run, quiet)


@pytest.mark.parametrize("value", [1e-9, 0.5, None])
@pytest.mark.parametrize(
    "key", ["p50_s", "p90_s", "p95_s", "p99_s", "p999_s", "mean_s", "max_s", "cv", "drift"]
)
def test_a_figure_that_does_not_follow_from_its_samples_is_refused(
    key: str, value: float | None, run: Path, write: Callable[..., Path]
) -> None:
    whole = told([1e-3 + 1e-6 * (i % 7) + 1e-7 * i for i in range(7000)])
    assert None not in whole.values()
    with pytest.raises(DocumentError, match=rf"rows\.0\.{key}  .* does not follow from "):
        record(write(row={**whole, key: value}), run, quiet)


def test_bounds_and_quantiles_are_held_to_the_samples_and_lists_to_their_length(
    run: Path, write: Callable[..., Path], measured: tuple[Path, Kit]
) -> None:
    row = measured[1]["rows"][0]
    quantiles = row["quantiles_s"]
    faults = {
        r"low\.p90  1e-09 s does not": {"low": {**row["low"], "p90": 1e-9}},
        r"low\.p90  unknown does not": {"low": {"p50": row["low"]["p50"]}},
        r"low  'p75' is no percentile": {"low": {**row["low"], "p75": 0.1}},
        r"quantiles_s\.100  .* does not": {"quantiles_s": [*quantiles[:-1], 2 * quantiles[-1]]},
        r"quantiles_s  has 100 values": {"quantiles_s": quantiles[1:]},
        r"stable  None does not": {"stable": None},
        r"n  is 7, and there are": {"n": 7},
        r"warnings  list should have at most": {"warnings": ["hot"] * 101},
        r"affinity  list should have at most": {"affinity": [0] * 4097},
        r"placement  dict": {"placement": {str(i): 1 for i in range(21)}},
        r"samples_s  list should have at most 200000": {"samples_s": [1e-5] * 200_001},
        r"fps  ": {"fps": 0},
    }
    for words, changes in faults.items():
        with pytest.raises(DocumentError, match=words):
            record(write(row=changes), run, quiet)
    record(write(row={"quantiles_s": []}), run, quiet)


def test_runs_that_vary_are_never_called_stable(run: Path, write: Callable[..., Path]) -> None:
    wild = told([0.001 + 0.001 * (i % 3) for i in range(200)])
    assert wild["stable"] is False
    with pytest.raises(DocumentError, match="stable  True does not follow from a spread of"):
        record(write(row={**wild, "stable": True}), run, quiet)
    record(write(row=wild), run, quiet)


def test_a_document_without_its_hash_is_refused(run: Path, write: Callable[..., Path]) -> None:
    file = write()
    document = json.loads(file.read_text())
    del document["content_sha256"]
    file.write_text(json.dumps(document))
    with pytest.raises(DocumentError, match="does not carry the hash of its content"):
        record(file, run, quiet)


def test_one_byte_that_changed_on_the_way_is_seen(run: Path, write: Callable[..., Path]) -> None:
    file = write()
    text = file.read_text()
    file.write_text(text.replace('"peak_rss_bytes": ', '"peak_rss_bytes": 1', 1))
    with pytest.raises(DocumentError, match="is not as the kit wrote it"):
        record(file, run, quiet)


@pytest.fixture(scope="module")
def fuzzed(
    measured: tuple[Path, Kit], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, bytes, Any]:
    """A run, a document of its board, and the verdict with it."""
    folder = tmp_path_factory.mktemp("fuzz")
    document = copy.deepcopy(measured[1])
    document["machine"] = dict(PI)
    row = document["rows"][0]
    row.update(told(row["samples_s"][:64]))
    whole = sealed(folder / "whole.json", document).read_bytes()
    run = make_run(folder / "whole", measured[0])
    wanted = latency_of(record(folder / "whole.json", run, quiet)[0])
    assert wanted[:2] == ("pass", "measured_on_target")
    return folder, whole, wanted


def resealed(raw: bytes) -> bytes:
    """With a hash that fits, where there is anything to hash."""
    try:
        tree = json.loads(raw)
        return json.dumps({**tree, "content_sha256": content_sha256(tree)}).encode()
    except (ValueError, TypeError):
        return raw


def damaged(raw: bytes, seed: int) -> bytes:
    """Cut, flipped, or with a value in another one's place."""
    rng = random.Random(seed)
    kind = rng.randrange(4)
    if kind == 0:
        return raw[: rng.randrange(len(raw))]
    if kind == 1:
        out = bytearray(raw)
        for _ in range(rng.randrange(1, 4)):
            out[rng.randrange(len(out))] = rng.randrange(256)
        return bytes(out)
    tree = json.loads(raw)
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        items = (
            node.items()
            if isinstance(node, dict)
            else enumerate(node)
            if isinstance(node, list)
            else ()
        )
        for key, value in items:
            places.append((node, key))
            walk(value)

    walk(tree)
    node, key = rng.choice(places)
    hostile = [
        None,
        -1,
        0,
        1e-12,
        1e300,
        "",
        "x" * 5000,
        [],
        {},
        True,
        "\x1b[31m",
        [[]],
        2**70,
        "../../x",
    ]
    if kind == 2:
        node[key] = rng.choice(hostile)
    else:
        del node[key]
    return json.dumps(tree).encode()


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), reseal=st.booleans())
def test_a_damaged_document_is_refused_or_says_no_more_than_the_whole_one(
    seed: int, reseal: bool, fuzzed: tuple[Path, bytes, Any], measured: tuple[Path, Kit]
) -> None:
    folder, raw, wanted = fuzzed
    run, file = folder / "run", folder / "damaged.json"
    if not run.exists():
        make_run(run, measured[0])
    before = (run / "result.json").read_bytes()
    harmed = damaged(raw, seed)
    file.write_bytes(resealed(harmed) if reseal else harmed)
    try:
        result, _ = record(file, run, quiet)
    except EdgedistillError as error:
        assert "Traceback" not in str(error)
        assert (run / "result.json").read_bytes() == before
        return
    status, evidence, observed = latency_of(result)
    assert (status, evidence, observed) == wanted or (
        status != "pass" and evidence != "measured_on_target"
    )
    shutil.rmtree(run)
