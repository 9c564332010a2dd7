"""`plan --compute`: what a budget will bring, from the runs of the ledger that can be compared, or what is missing."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from compute_parts import rows
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from edgedistill import effortplan
from edgedistill.arms import DISTILLED, PLAIN
from edgedistill.compute.effort import Effort
from edgedistill.compute.ledger import Ledger, Row, row
from edgedistill.data.sources import open_source
from edgedistill.effortplan import Probe
from edgedistill.effortview import answer_json, answer_view
from edgedistill.ledgering import judged_by, settings_for
from edgedistill.planning import choose_student
from edgedistill.progress import silent
from edgedistill.recipe import Layered, compose
from edgedistill.spending import probe_name, spend
from edgedistill.studyfile import NAME
from edgedistill.target.device import load_device
from tests.build_parts import Ran, make_images, tool

OPTIONS = {
    "device": "x86-cpu", "student.model": "mobilenetv3_small_050", "student.weights": "random",
    "student.input_size": 64, "teacher.model": "bundled:efficientnet_lite0", "teacher.adapt": "probe",
    "distill.method": "kd",
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images") / "data", per_class=100)


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    path = tmp_path / "ledger.jsonl"
    monkeypatch.setenv("EDGEDISTILL_LEDGER", str(path))
    monkeypatch.chdir(tmp_path)
    yield Ledger(path)


def ask(data: Path, *more: object) -> Ran:
    settings = [text for path, value in OPTIONS.items() for text in ("--set", f"{path}={value}")]
    return tool("plan", "--data", data, *settings, *more)


def comparable(data: Path, found: list[Row]) -> list[Row]:
    """Rows as trainings on these images would have left them."""
    layered: Layered = compose(None, {**OPTIONS, "data.source": str(data)}, {})
    judged = judged_by(open_source(layered.recipe.data, 0))
    out = []
    for one in found:
        arm = PLAIN if one.method is None else DISTILLED
        facts: dict[str, Any] = one.model_dump(mode="json", by_alias=True)
        facts["data"]["judged_sha256"] = judged
        facts["settings_sha256"] = settings_for(layered.recipe, arm, "random")
        facts.pop("id")
        out.append(row(**facts))
    return out


def test_a_budget_gets_the_best_training_with_a_band_and_what_would_change_it(
    data: Path, ledger: Ledger
) -> None:
    ledger.add(comparable(data, rows(24, taught=False) + rows(24, taught=True, seed=1)))
    layered = compose(None, {**OPTIONS, "data.source": str(data)}, {})
    answer = spend(layered, Effort(flops=1e14), False, "edgedistill plan", silent())
    found = json.loads(answer_json(answer))
    assert found["effort"] == {"seconds": None, "flops": 1e14}
    assert [law["about"] for law in found["laws"]] == ["error", "loss"] * 2
    assert all(law["held_out"] < 0.1 and law["runs"] == 48 for law in found["laws"])
    assert found["lacking"] == [] and found["probes"] == []
    best = found["choices"][0]
    assert best["student"] == "mobilenetv3_small_050"
    assert {c["teacher"] for c in found["choices"]} >= {None, "good, fine-tuned"}
    assert sum(best["flops"].values()) <= 1e14
    assert best["error"]["low"] <= best["error"]["value"] <= best["error"]["high"]
    file = io.StringIO()
    Console(file=file, width=100).print(answer_view(answer))
    text = " ".join(file.getvalue().split())
    assert "With 100 TFLOP: mobilenetv3_small_050" in text
    assert "Expected validation top-1" in text and "where 90 % of such trainings end" in text
    assert f"{100 * (1 - best['error']['value']):.1f} %" in text and "from 48 trainings" in text


def seen_of(data: Path, known: list[Row], effort: Effort) -> tuple[Any, str]:
    """The answer as a tree and as a terminal shows it."""
    Ledger(Path(os.environ["EDGEDISTILL_LEDGER"])).add(comparable(data, known))
    layered = compose(None, {**OPTIONS, "data.source": str(data)}, {})
    answer = spend(layered, effort, False, "edgedistill plan", silent())
    file = io.StringIO()
    Console(file=file, width=100).print(answer_view(answer))
    return json.loads(answer_json(answer)), " ".join(file.getvalue().split())


def test_of_more_than_the_runs_tell_the_longest_training_is_said_and_the_rest_is_left(
    data: Path, ledger: Ledger
) -> None:
    short = [one for one in rows(80, taught=False) if one.seen <= 12_000]
    found, text = seen_of(data, short, Effort(flops=1e17))
    assert found["choices"][0]["why_shorter"] is not None
    assert "The rest of the budget is left: " in text


def test_where_no_run_is_like_it_nothing_is_said_but_why(data: Path, ledger: Ledger) -> None:
    many = [one for one in rows(80, taught=False) if one.data.train == 8000]
    found, text = seen_of(data, many, Effort(flops=1e14))
    assert found["choices"] == [] and found["beyond"] and found["laws"]
    assert "Nothing can be said of 100 TFLOP: the trainings tell of none like it." in text
    assert "different images" in text and "Expected validation" not in text


def test_without_comparable_runs_it_says_so_and_what_would_do(data: Path, ledger: Ledger) -> None:
    ledger.add(rows(40, taught=False))  # of other images
    ledger.path.write_bytes(ledger.path.read_bytes() + b"damage\n")
    ran = ask(data, "--compute", "10min")
    assert ran.code == 0, ran.err
    assert "There are too few trainings" in ran.text
    assert "0 trainings of the 12 that a law takes at least" in ran.text
    assert "with --probe makes them" in ran.text
    assert "1 line is left out (line 41: it is no JSON)" in ran.text
    found = json.loads(ask(data, "--compute", "10min", "--json").out)
    assert found["choices"] == [] and len(found["probes"]) >= 24
    assert {probe["taught"] for probe in found["probes"]} == {True, False}
    assert all(probe["seconds"] > 0 and probe["flops"] > 0 for probe in found["probes"])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--compute", "0h"), '--compute "0h" is not allowed'),
        (("--compute=-1",), '--compute "-1" is no amount of computing'),
        (("--compute", "1e999FLOP"), '--compute "1e999FLOP" is not allowed'),
        (("--probe",), "--probe makes the trainings that --compute misses"),
    ],
)
def test_an_impossible_amount_is_one_paragraph(
    data: Path, ledger: Ledger, more: tuple[str, ...], words: str
) -> None:
    ran = ask(data, *more)
    assert ran.code == 2 and words in ran.text
    assert not ledger.path.exists()


def test_without_a_ledger_nothing_can_be_said(
    data: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEDISTILL_LEDGER", "off")
    ran = ask(data, "--compute", "10min")
    assert ran.code == 2 and "EDGEDISTILL_LEDGER is off" in ran.text


def test_probes_fill_the_ledger_and_are_made_once(
    data: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(effortplan, "PROBES", 2)
    more = ("--compute", "4s", "--probe")
    ran = ask(data, *more)
    assert ran.code == 0, ran.err
    found = ledger.read()
    assert not found.faults
    assert sorted(one.kind for one in found.rows) == ["distilled", "distilled", "plain", "plain"]
    assert "2 trainings of the 12 that a law takes at least" in ran.text
    before = ledger.path.read_bytes()
    again = ask(
        data, "--compute", "40s", "--probe"
    )  # would be longer ones if they were chosen anew
    assert again.code == 0 and ledger.path.read_bytes() == before
    assert "all 4 runs were done before" in again.text


def test_probes_of_students_with_long_like_names_are_all_made() -> None:
    names = ("tf_efficientnet_lite0", "tf_efficientnet_lite2", "tf_mobilenetv3_small_minimal_100")
    probes = [Probe(n, 1_000_000, 300, taught, 1.0, 1.0) for n in names for taught in (True, False)]
    arms = effortplan.probe_study(compose(None, {}, {}), probes, "probe-x")["arms"]
    assert [arm["student"]["model"] for arm in arms.values()] == [n for n in names for _ in "12"]
    assert all(NAME.fullmatch(name) for name in arms)


def test_students_that_are_weighed_begin_alike_and_are_those_that_the_ledger_tells_of(
    data: Path,
) -> None:
    options = {
        "device": "x86-cpu", "student.weights": "random", "student.input_size": 64, "data.source": str(data),
    }  # fmt: skip
    layered = compose(None, options, {})
    device, dataset = load_device("x86-cpu"), open_source(layered.recipe.data, 0)
    planned = choose_student(layered, device, dataset)
    known = ["mobilenetv3_small_050", "lcnet_050", "no_such_student", "mobilenetv2_050"]
    told = [
        one.model_copy(update={"student": one.student.model_copy(update={"model": model})})
        for one, model in zip(rows(4, taught=False), known, strict=True)
    ]
    found = effortplan.pupils_of(layered, device, dataset, planned, told)
    names = [pupil.model for pupil in found]
    assert names[0] == planned.chosen.model and len(names) == len(set(names)) == 6
    assert set(known) - {"no_such_student"} <= set(names)
    assert {(p.input_size, p.pretrained, p.fits != "no") for p in found} == {(64, False, True)}
    assert min(p.macs for p in found) < 0.1 * max(p.macs for p in found)
    asked = compose(None, {**options, "student.model": "mobilenetv2_050"}, {})
    alone = effortplan.pupils_of(
        asked, device, dataset, choose_student(asked, device, dataset), told
    )
    assert [pupil.model for pupil in alone] == ["mobilenetv2_050"]


@given(st.text(max_size=60))
@example("bl\u00fcmchen")
def test_probes_on_images_of_any_name_are_a_study(data: str) -> None:
    assert NAME.fullmatch(probe_name(data))
