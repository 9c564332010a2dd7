"""Limits from options, files and defaults: units, where each comes from, and every slip told with the nearest name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgedistill.checklimits import KEYS, LIMITS, Asked, allowed, asked_from, defaults
from edgedistill.errors import EdgedistillError, RecipeError, UsageError


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in" / "side").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "in" / "side")


def ask(config: Path | None = None, **options: Any) -> Asked:
    named = {name.replace("_", "-"): value for name, value in options.items()}
    return asked_from(named, None, False, config)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value", "si", "unit"),
    [
        ("max-size-growth", "1%", 0.01, "fraction"), ("max-size-growth", "0", 0, "fraction"),
        ("max-size-growth", 0, 0, "fraction"), ("max-size-growth", "1B", 1, "bytes"),
        ("max-size-growth", "1.5 kB", 1500, "bytes"), ("max-size-growth", " 2MB ", 2e6, "bytes"),
        ("max-size-growth", ".5%", 0.005, "fraction"), ("max-latency-growth", "5%", 0.05, "fraction"),
        ("max-size-mb", 8, 8e6, "bytes"), ("max-size-mb", 1e-9, 1, "bytes"),
        ("max-latency-ms", 5.0, 0.005, "seconds"), ("max-memory-mb", 64, 64e6, "bytes"),
        ("max-drop", 0.5, 0.005, "fraction"), ("max-drop", 0, 0, "fraction"),
        ("min-top1", 90, 0.9, "fraction"),
    ],
)  # fmt: skip
def test_a_limit_becomes_si(name: Any, value: Any, si: float, unit: str) -> None:
    found = allowed(name, value, "x")
    assert (found.value, found.unit) == (pytest.approx(si), unit)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("max-size-growth", "5", "such as 5% or 10KB, or 0; got '5' (5%?)"),
        ("max-size-growth", "5 cats", "such as 5% or 10KB"), ("max-size-growth", "-1%", "such as"),
        ("max-size-growth", "", "such as"), ("max-size-growth", "nan%", "such as"),
        ("max-size-growth", True, "such as"), ("max-size-growth", 0.01, "such as"),
        ("max-latency-growth", "5KB", "in percent, such as 5%"),
        ("max-size-mb", "8", "must be a number; got '8'"), ("max-size-mb", True, "must be a number"),
        ("max-size-mb", float("nan"), "must be a number"), ("max-size-mb", 0, "above 0"),
        ("max-size-mb", 1e10, "at most 1e+09"), ("max-drop", -1, "of 0 or more"),
        ("max-drop", 101, "at most 100"), ("min-top1", 0.9, "for 90 % give 90"),
    ],
)  # fmt: skip
def test_a_limit_that_makes_no_sense_is_told(name: Any, value: Any, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        allowed(name, value, "x")
    assert words in str(caught.value)


def test_options_override_a_file_found_upwards_and_each_says_where_it_is_from(
    tmp_path: Path,
) -> None:
    (tmp_path / "edgedistill.toml").write_text(
        '[check]\nmax-size-growth = "2%"\nmax-drop = 1\nbaseline = "base/b.json"\nstrict = true\n'
    )
    asked = ask(max_drop=0.5)
    assert (
        asked.limits["max-drop"].value == 0.005 and asked.limits["max-drop"].origin == "--max-drop"
    )
    assert asked.limits["max-size-growth"].origin == "edgedistill.toml"
    assert asked.baseline == tmp_path / "base/b.json" and asked.strict
    given_ = asked_from({}, Path("other.json"), False, None)
    assert given_.baseline == Path("other.json")


def test_the_nearest_file_that_speaks_of_a_check_is_taken(tmp_path: Path) -> None:
    (tmp_path / "edgedistill.toml").write_text("[check]\nmax-size-mb = 1\n")
    (tmp_path / "in/pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert ask().limits["max-size-mb"].value == 1e6
    (tmp_path / "in/side/pyproject.toml").write_text("[tool.edgedistill.check]\nmax-size-mb = 2\n")
    asked = ask()
    assert (asked.limits["max-size-mb"].value, asked.limits["max-size-mb"].origin) == (
        2e6,
        "pyproject.toml",
    )
    (tmp_path / "in/side/edgedistill.toml").write_text("[check]\nmax-size-mb = 3\n")
    assert ask().limits["max-size-mb"].value == 3e6
    assert ask(tmp_path / "edgedistill.toml").limits["max-size-mb"].value == 1e6


def test_where_nothing_is_said_there_are_no_limits_and_the_defaults_say_so() -> None:
    assert ask() == Asked({}, None, False, None)
    assert {limit.origin for limit in defaults().values()} == {"default"}


def test_every_problem_of_a_file_is_told_at_once_with_the_nearest_name(tmp_path: Path) -> None:
    file = tmp_path / "edgedistill.toml"
    file.write_text(
        '[check]\nmax_drop = 1\nmax-size-mb = "8"\nbaseline = 3\nstrict = "yes"\nmax-latency-growth = "1KB"\n'
    )
    with pytest.raises(RecipeError) as caught:
        ask()
    text = str(caught.value)
    assert str(file) in text and "5 problems" in text
    assert 'check.max_drop  unknown key; did you mean "max-drop"? Known: max-size-growth' in text


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("edgedistill.toml", "[chek]\n", 'chek  unknown table; did you mean "check"?'),
        ("edgedistill.toml", "check = 3\n", "must be a table"),
        (
            "pyproject.toml",
            "[tool.edgedistill]\nmax-drop = 1\n",
            "tool.edgedistill.max-drop  unknown table",
        ),
        ("pyproject.toml", "[tool]\nedgedistill = 1\n", "must be a table"),
        ("edgedistill.toml", "[check\n", "is no TOML"),
        ("pyproject.toml", "[tool.edgedistill\n", "is no TOML"),
        ("edgedistill.toml", "[check]\nmax-drop = nan\n", "must be a number"),
    ],
)
def test_a_file_that_is_wrong_is_told(name: str, text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError) as caught:
        ask()
    assert words in str(caught.value) and name in str(caught.value)


def test_another_tools_broken_pyproject_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project\n")
    (tmp_path / "in/pyproject.toml").write_text("tool = 3\n")
    assert ask().limits == {}


def test_a_file_that_is_named_must_speak_of_a_check(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        ask(tmp_path / "none.toml")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    with pytest.raises(UsageError, match=r"no table \[tool\.edgedistill\.check\]"):
        ask(tmp_path / "pyproject.toml")


def test_an_option_that_is_wrong_names_itself() -> None:
    with pytest.raises(UsageError, match="--max-latency-growth is a growth in percent"):
        ask(max_latency_growth="5MB")


TOML = st.text(st.characters(codec="utf-8"), max_size=60) | st.builds(
    "[check]\n{} = {}\n".format,
    st.sampled_from([*KEYS, "x"]),
    st.sampled_from(
        ["1", "-1", '"1%"', "nan", "inf", "[]", "{}", "true", '""', "1e400", "2020-01-01"]
    ),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TOML)
def test_any_file_is_read_or_refused_in_words(text: str, tmp_path: Path) -> None:
    (tmp_path / "edgedistill.toml").write_text(text, "utf-8")
    try:
        asked = ask()
    except EdgedistillError as error:
        assert error.exit_code == 2 and "edgedistill.toml" in str(error)
    else:
        assert set(asked.limits) <= set(LIMITS)
