"""The commands that time, for real: scenarios and tiers of bench, and two bundles in turns."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from ontarget import cli, duel, operators, worker
from ontarget.contract import ContractError, load_bundle
from ontarget.duel import CONFIDENCE, DUELS, Duel, Side, compare
from ontarget.fake import FakeClock, FakeSession
from ontarget.measure import TIERS
from ontarget.operators import placement
from ontarget.percentiles import centre
from ontarget.session import ProviderError, SessionError
from ontarget.timing import timing_of
from ontarget.whole import PARTS, EndToEnd, pictures
from ontarget.worker import inputs_of
from PIL import Image

Capture = pytest.CaptureFixture[str]
SHORT = ["--min-seconds", "0", "--min-runs", "70", "--threads", "1"]


def bench(folder: Path, out: Path, *options: str) -> dict[str, Any]:
    """The one row of a bench of the model "bytes"."""
    arguments = ["bench", str(folder), "--model", "bytes", "--json", str(out), *options]
    assert cli.main(arguments) == 0
    (row,) = json.loads(out.read_text())["rows"]
    assert isinstance(row, dict)
    return row


def test_a_row_tells_how_it_came_about(shared: Any, tmp_path: Path) -> None:
    row = bench(shared.folder, tmp_path / "b.json", *SHORT)
    assert (row["arrival"], row["fps"], row["late"], row["scope"]) == (
        "back_to_back",
        None,
        None,
        "model",
    )
    assert row["tier"] is None and row["parts_s"] == {}
    assert set(row["low"]) == {"p50", "p90"}
    assert row["low"]["p50"] <= row["p50_s"] <= row["p90_s"] <= row["max_s"]
    assert len(row["quantiles_s"]) == 101 and row["quantiles_s"] == sorted(row["quantiles_s"])
    assert row["quantiles_s"][0] == min(row["samples_s"])
    assert row["quantiles_s"][-1] == max(row["samples_s"]) == pytest.approx(row["max_s"], abs=1e-9)
    assert row["warmup_runs"] >= 10 and row["warmup_s"] > 0
    assert row["placement"] == {"CPUExecutionProvider": sum(row["placement"].values())}
    assert row["affinity"] and row["before"]["busy"] is None
    assert 0 <= row["after"]["busy"] <= 1


def test_a_camera_s_pace_and_the_way_from_picture_to_class(
    shared: Any, tmp_path: Path, capsys: Capture
) -> None:
    options = [
        "--fps",
        "200",
        "--end-to-end",
        "--min-runs",
        "64",
        "--min-seconds",
        "0",
        "--threads",
        "1",
    ]
    row = bench(shared.folder, tmp_path / "b.json", *options)
    assert (row["arrival"], row["fps"], row["scope"]) == ("paced", 200.0, "end_to_end")
    assert row["inputs"] == "golden images as JPEG of 8 px"
    assert tuple(row["parts_s"]) == PARTS and min(row["parts_s"].values()) > 0
    assert sum(row["parts_s"].values()) < 2 * row["quantiles_s"][50]
    said = capsys.readouterr().out
    assert "from picture to class, paced at 200 a second" in said
    assert "of that, in ms: decode" in said


def test_given_pictures_are_decoded_as_they_are(shared: Any, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (300, 200), (250, 10, 10)).save(folder / "b.png")
    (folder / "a.txt").write_text("no picture")
    row = bench(
        shared.folder, tmp_path / "b.json", "--end-to-end", "--pictures", str(folder), *SHORT
    )
    assert row["inputs"] == "1 given pictures"
    bundle = load_bundle(shared.folder)
    with pytest.raises(ContractError, match="holds no picture that can be read"):
        pictures(bundle, tmp_path)
    with pytest.raises(ContractError, match="cannot be read"):
        pictures(bundle, tmp_path / "none")


def test_the_parts_of_a_run_are_those_of_the_timed_runs(shared: Any) -> None:
    bundle, clock = load_bundle(shared.folder), FakeClock()
    session = FakeSession([0.0, 2.0, 1.0, 0.0], [5.0, 0.25, 0.5, 0.75], clock)
    encoded = io.BytesIO()
    Image.new("RGB", (20, 30)).save(encoded, "PNG")
    whole = EndToEnd(session, bundle.model(), bundle, [encoded.getvalue()], clock)
    for _ in range(4):
        whole()
    assert whole.answer == 1
    assert session.shapes == [(1, 8, 8, 3)] * 4
    assert whole.medians(3) == {"decode": 0, "resize": 0, "input": 0, "run": 0.5, "argmax": 0}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--fps", "0"], "frames a second from 0.1"),
        (["--fps", "inf"], "frames a second"),
        (["--quick", "--thorough"], "not allowed with"),
        (["--end-to-end", "--batch", "2"], "takes one picture a run"),
        (["--pictures", "nowhere", "--end-to-end"], "cannot be read"),
    ],
)
def test_what_makes_no_sense_is_refused(
    shared: Any, options: list[str], words: str, capsys: Capture
) -> None:
    try:
        code = cli.main(["bench", str(shared.folder), "--model", "bytes", *options])
    except SystemExit as end:
        code = end.code  # type: ignore[assignment]
    assert code == 2
    assert words in capsys.readouterr().err


def test_a_tier_keeps_its_name_until_its_times_are_changed() -> None:
    from ontarget.options import parser

    def asked(*options: str) -> Any:
        return timing_of(parser().parse_args(["bench", ".", *options]))

    assert asked() == TIERS["default"] and asked("--thorough") == TIERS["thorough"]
    assert asked("--quick", "--fps", "30").tier == "quick"
    assert asked("--min-runs", "5").tier is None
    slow = asked("--thorough", "--fps", "1")
    assert slow.max_seconds > slow.min_runs / slow.fps


def test_nodes_are_counted_by_where_they_ran(shared: Any) -> None:
    bundle = load_bundle(shared.folder)
    model = bundle.model("floats")
    found = placement(model, inputs_of(bundle, model, 1)[0], "cpu", 1)
    assert set(found) == {"CPUExecutionProvider"} and 2 <= sum(found.values()) <= 4


def test_a_part_that_ran_on_the_cpu_makes_the_measurement_invalid(
    shared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = load_bundle(shared.folder)
    model = bundle.model()
    request = {"provider": "cuda", "threads": 1, "timing": {"tier": None}}
    both = {"CUDAExecutionProvider": 61, "CPUExecutionProvider": 2}
    monkeypatch.setattr(worker, "placement", lambda *given: both)
    with pytest.raises(ProviderError, match="2 of 63 nodes of") as caught:
        worker._placed(model, np.zeros(1), request)
    assert caught.value.fell_back
    monkeypatch.setattr(worker, "placement", lambda *given: {"CUDAExecutionProvider": 63})
    assert worker._placed(model, np.zeros(1), request) == {"CUDAExecutionProvider": 63}
    assert operators.RUNS > 1


# -- two files in turns -----------------------------------------------------------------------------


def _layers(count: int) -> bytes:
    """Floats (N, 3, 8, 8) through `count` convolutions of 16 channels, to 4 logits."""
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.normal(0, 0.1, (16, 3, 3, 3)).astype(np.float32), "w0")]
    nodes = [helper.make_node("Conv", ["images", "w0"], ["x0"], pads=[1] * 4)]
    for k in range(1, count):
        kernel = rng.normal(0, 0.1, (16, 16, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"w{k}"))
        nodes.append(helper.make_node("Conv", [f"x{k - 1}", f"w{k}"], [f"x{k}"], pads=[1] * 4))
    weights.append(numpy_helper.from_array(np.ones((16, 4), dtype=np.float32), "head"))
    nodes += [
        helper.make_node("GlobalAveragePool", [f"x{count - 1}"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes, "layers",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4])], weights,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def put(made: Any, data: bytes) -> None:
    """Let the model "floats" of a bundle be another file, and its chosen one."""
    import hashlib

    (made.folder / "model.floats.onnx").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()

    def edit(document: dict[str, Any]) -> None:
        document["models"][1].update(sha256=digest, size_bytes=len(data))
        document["chosen"] = "floats"

    made.rewrite(edit)


SMALL = Duel(pairs=10, sessions=1, turns=3, seconds=0.002, warmup_seconds=0.002)


def test_every_tier_has_the_pairs_that_its_confidence_asks_for() -> None:
    for plan in DUELS.values():
        _, low, high = centre(list(range(plan.pairs)), CONFIDENCE)
        assert np.isfinite([low, high]).all()


def test_a_file_of_twenty_times_the_work_is_told_apart_from_the_other(
    made: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from tests.ontarget.conftest import build

    other = build(tmp_path_factory.mktemp("other"))
    put(made, _layers(100))
    put(other, _layers(5))
    new, old = (load_bundle(one.folder) for one in (made, other))
    told: list[str] = []
    found = compare(
        Side(old, old.model()), Side(new, new.model()), plan=SMALL, progress=told.append
    )
    assert 1 < found["low"] <= found["ratio"] <= found["high"]
    assert len(found["ratios"]) == len(told) == 10
    assert found["old"]["sha256"] == old.model().sha256 != found["new"]["sha256"]
    assert found["new"]["p50_s"] > found["old"]["p50_s"] > 0
    assert found["old"]["n"] >= 10 * 3
    assert (found["provider"], found["threads"], found["batch"]) == ("CPUExecutionProvider", 1, 1)
    json.dumps(found, allow_nan=False)


def test_the_command_compares_two_bundles_and_writes_it_down(
    shared: Any, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DUELS, "quick", SMALL)
    arguments = ["compare", str(shared.folder), "--other", str(shared.folder), "--quick"]
    arguments += ["--model", "bytes", "--other-model", "floats", "--json", str(tmp_path / "c.json")]
    assert cli.main(arguments) == 0
    said = capsys.readouterr().out
    assert "model.bytes.onnx takes" in said and "new by old:" in said
    written = json.loads((tmp_path / "c.json").read_text())
    assert written["compare"]["confidence"] == CONFIDENCE
    assert written["compare"]["old"]["name"] == "floats"
    assert written["rows"] == []


def test_a_file_that_does_not_open_ends_a_comparison_with_its_own_words(
    made: Any, shared: Any, capsys: Capture
) -> None:
    put(made, b"nonsense")
    assert cli.main(["compare", str(made.folder), "--other", str(shared.folder), "--quick"]) == 2
    assert "model.floats.onnx cannot be opened" in capsys.readouterr().err
    assert cli.main(["compare", str(shared.folder), "--other", str(made.folder / "none")]) == 2
    assert "is not a bundle" in capsys.readouterr().err
    broken = load_bundle(made.folder)
    with pytest.raises(SessionError, match="cannot be opened"):
        compare(Side(broken, broken.model()), Side(broken, broken.model()), plan=SMALL)


def test_a_slow_model_has_fewer_turns_and_pairs_and_never_too_few(
    shared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duel, "MOST_SECONDS", 0.0)
    bundle = load_bundle(shared.folder)
    side = Side(bundle, bundle.model())
    found = compare(
        side, side, plan=Duel(pairs=14, sessions=1, turns=9, seconds=0.0, warmup_seconds=0.0)
    )
    assert len(found["ratios"]) == duel.FEWEST_PAIRS
    assert found["old"]["n"] == duel.FEWEST_PAIRS * duel.FEWEST_TURNS
    with pytest.raises(SessionError, match="builds an engine whenever"):
        compare(side, side, "tensorrt")


def test_the_energy_pass_is_no_part_of_the_parts(
    shared: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A board with a sensor runs the model again after the timing; those runs are not in the parts."""
    runs: list[int] = []

    def energy(run: Callable[[], object]) -> dict[str, Any]:
        for _ in range(500):
            run()
            runs.append(len(whole.parts_s))
        return {"source": "x", "joules": 1.0, "watts": 1.0, "idle_watts": 1.0}

    made: list[EndToEnd] = []

    class Kept(EndToEnd):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            made.append(self)

        def medians(self, last: int) -> dict[str, float]:
            runs.append(-1)
            return super().medians(last)

    monkeypatch.setattr(worker, "EndToEnd", Kept)
    monkeypatch.setattr(worker, "_energy", lambda run: energy(run))
    request = {
        "bundle": str(shared.folder), "model": "bytes", "provider": "cpu", "threads": 1, "batch": 1,
        "images": None, "pictures": None, "end_to_end": True, "energy": True, "engine": None,
        "timing": {"min_seconds": 0.0, "min_runs": 5, "warmup_seconds": 0.0, "tier": "quick"},
    }  # fmt: skip
    whole: Any = type("Late", (), {"parts_s": property(lambda self: made[0].parts_s)})()
    row = worker.bench_one(request)
    assert runs[0] == -1 and len(runs) == 501
    assert row["energy"]["joules"] == 1.0
