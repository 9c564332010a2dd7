"""What a person types becomes a layered recipe: units, bounds, `--quick`, and a safe folder."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedistill.errors import RecipeError, UsageError
from edgedistill.options import MAX_NAME, QUICK, UNITS, check_limit, layered_from, out_folder
from edgedistill.recipe import Layered, Recipe, known_paths, validate


def _limits(**limits: float) -> Layered:
    return layered_from(None, {}, limits, [], quick=False)


def test_milliseconds_megabytes_and_percent_become_si() -> None:
    layered = _limits(latency_ms=5, size_mb=8, memory_mb=64.5, min_top1=87, max_drop=0.5)
    budget = layered.recipe.budget
    assert budget.latency_s == pytest.approx(0.005)
    assert (budget.size_bytes, budget.memory_bytes) == (8_000_000, 64_500_000)
    assert budget.min_top1 == pytest.approx(0.87)
    assert budget.max_top1_drop == pytest.approx(0.005)
    assert set(layered.reasons.values()) == {"from the command line"}


def test_a_limit_that_was_not_given_leaves_no_trace() -> None:
    layered = layered_from(None, {"seed": None}, {"latency_ms": None}, [], quick=False)
    assert layered == Layered(Recipe(), {})


def test_every_limit_option_names_a_key_of_the_budget() -> None:
    assert {path for path, _, _ in UNITS.values()} == {
        path for path in known_paths() if path.startswith("budget.")
    }


@pytest.mark.parametrize("name", list(UNITS))
@pytest.mark.parametrize("value", [-1.0, -1e-9, 0.0, math.nan, math.inf, -math.inf, 1e300])
def test_a_budget_that_is_not_above_zero_or_no_number_is_refused(name: str, value: float) -> None:
    option = UNITS[name][1]
    if value == 0 and option == "--max-drop":
        assert _limits(max_drop=0).recipe.budget.max_top1_drop == 0
        return
    with pytest.raises(UsageError, match=option) as caught:
        _limits(**{name: value})
    assert f"got {value:g}" in str(caught.value)
    assert not isinstance(caught.value, RecipeError)


def test_the_tiniest_size_is_one_byte_and_never_no_limit() -> None:
    assert _limits(size_mb=1e-12).recipe.budget.size_bytes == 1


@given(st.sampled_from(list(UNITS)), st.floats())
@settings(max_examples=100)
def test_any_number_is_a_limit_or_a_usage_error(name: str, value: float) -> None:
    try:
        budget = _limits(**{name: value}).recipe.budget.model_dump()
    except UsageError:
        return
    stored = budget[UNITS[name][0].removeprefix("budget.")]
    assert stored is not None
    assert stored >= 0


@pytest.mark.parametrize("option", ["--min-top1", "--max-drop"])
def test_more_than_a_hundred_percent_is_refused(option: str) -> None:
    with pytest.raises(UsageError, match="at most 100; got 101"):
        check_limit(option, 101)
    check_limit(option, 100)


def test_an_accuracy_given_as_a_fraction_is_asked_back_in_percent() -> None:
    with pytest.raises(UsageError, match=r"0\.87 means 0\.87 %; for 87 % give --min-top1 87"):
        check_limit("--min-top1", 0.87)


def test_a_drop_below_one_point_is_allowed() -> None:
    check_limit("--max-drop", 0.5)


# -- --quick -------------------------------------------------------------------------------------


def test_quick_sets_a_small_run_with_its_reason() -> None:
    layered = layered_from(None, {}, {}, [], quick=True)
    dumped = layered.recipe.model_dump()
    for path, value in QUICK.items():
        section, _, name = path.partition(".")
        assert dumped[section][name] == value
        assert layered.reasons[path] == "--quick"


def test_whatever_else_was_said_wins_over_quick(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("teacher: {epochs: 7}\n")
    layered = layered_from(
        file, {"data.max_train": 50}, {}, ["distill={epochs: 4}", "bench.min_runs=99"], quick=True
    )
    recipe, reasons = layered.recipe, layered.reasons
    assert (recipe.teacher.epochs, reasons["teacher.epochs"]) == (7, "from r.yaml")
    assert (recipe.data.max_train, reasons["data.max_train"]) == (50, "from the command line")
    assert (recipe.distill.epochs, reasons["distill.epochs"]) == (4, "from --set")
    assert (recipe.bench.min_runs, reasons["bench.min_runs"]) == (99, "from --set")
    assert recipe.quantize.calibration_images == QUICK["quantize.calibration_images"]


def test_set_wins_over_an_option_of_the_same_key() -> None:
    layered = layered_from(None, {"seed": 1}, {"latency_ms": 5}, ["seed=2", "budget.latency_s=null"],
                           quick=False)  # fmt: skip
    assert layered.recipe.seed == 2
    assert layered.recipe.budget.latency_s is None
    assert layered.reasons["budget.latency_s"] == "from --set"


# -- the run folder ------------------------------------------------------------------------------


def _recipe(**values: object) -> Recipe:
    return validate(values, "x")


def test_out_is_taken_as_it_is() -> None:
    assert out_folder(Recipe(name="x"), Path("/some/where")) == Path("/some/where")


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        (_recipe(name="my run"), "my-run"),
        (_recipe(name="../../etc/passwd"), "etc-passwd"),
        (_recipe(name=".."), "run"),
        (_recipe(name=""), "run"),
        (_recipe(device="jetson"), "fashion-mnist-jetson"),
        (_recipe(device="boards/mine.yaml", data={"source": "/a/flowers/"}), "flowers-mine"),
        (_recipe(data={"source": "."}), "data-host"),
        (_recipe(data={"source": "/"}), "data-host"),
        (_recipe(data={"source": "x" * 300}), "x" * MAX_NAME),
    ],
)
def test_the_folder_is_named_after_the_run_or_its_data_and_device(
    recipe: Recipe, name: str
) -> None:
    assert out_folder(recipe, None) == Path("runs") / name


@given(st.text(max_size=100))
@settings(max_examples=80)
def test_no_name_leads_out_of_the_runs_folder(name: str) -> None:
    folder = out_folder(Recipe(name=name), None)
    assert len(folder.parts) == 2
    assert folder.parts[0] == "runs"
    assert folder.name not in ("", ".", "..")
    assert not set(folder.name) & set('/\\\0:*?"<>|\n')
