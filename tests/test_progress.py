"""What a person sees while a build runs: nothing, lines, or bars, on the error stream alone."""

from __future__ import annotations

import io
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from edgedistill.progress import SPARKS, Face, silent, sparkline
from edgedistill.result import CurvePoint


def _face(verbosity: int, terminal: bool = False, width: int = 100) -> tuple[Face, io.StringIO]:
    out = io.StringIO()
    console = Console(
        file=out, force_terminal=terminal, width=width, highlight=False, soft_wrap=not terminal
    )
    return Face(verbosity, console), out


@pytest.mark.parametrize(
    ("verbosity", "shown"),
    [
        (0, ["warning: w"]),
        (1, ["said", "warning: w"]),
        (2, ["said", "    detail", "warning: w"]),
    ],
)
def test_each_level_shows_what_it_should(verbosity: int, shown: list[str]) -> None:
    face, out = _face(verbosity)
    face.say("said")
    face.detail("detail")
    face.warn("w")
    assert out.getvalue().splitlines() == shown


def test_square_brackets_are_words_and_a_long_line_stays_one_line() -> None:
    face, out = _face(2)
    text = "[red]a[/red] [/x] " + "long " * 60
    face.say(text)
    face.detail(text)
    face.warn(text)
    lines = out.getvalue().splitlines()
    assert [line.strip() for line in lines] == [text.strip()] * 2 + [f"warning: {text.strip()}"]


def test_no_bar_and_no_counter_where_the_output_is_no_terminal() -> None:
    face, out = _face(2)
    assert not face.live
    with face.bar("training", 10) as advance:
        advance(3)
    face.counter("images")(1, 2)
    assert out.getvalue() == ""


@pytest.mark.parametrize(("verbosity", "told"), [(0, False), (1, True)])
def test_without_a_terminal_long_work_says_every_minute_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, verbosity: int, told: bool
) -> None:
    now = [0.0]
    monkeypatch.setattr("edgedistill.progress.time.monotonic", lambda: now[0])
    face, out = _face(verbosity)
    with face.bar("training", 1000) as advance:
        for _ in range(10):  # 1.5 steps a second
            now[0] += 20
            advance(30)
        now[0] += 200
        advance(100)
        now[0] += 200
        advance(600)
    found = [
        "    training: 90 of 1,000, about 10 min to go",
        "    training: 180 of 1,000, about 9 min to go",
        "    training: 270 of 1,000, about 8 min to go",
        "    training: 400 of 1,000, about 17 min to go",
    ]
    assert out.getvalue().splitlines() == (found if told else [])


def test_what_was_done_before_does_not_count_as_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("edgedistill.progress.time.monotonic", lambda: now[0])
    face, out = _face(1)
    with face.bar("training", 1000) as advance:
        advance(500)
        now[0] += 60
        advance(100)
    assert out.getvalue() == "    training: 600 of 1,000, about 4 min to go\n"


@pytest.mark.parametrize("total", [0, -1])
def test_no_bar_for_no_work(total: int) -> None:
    face, out = _face(1, terminal=True)
    with face.bar("training", total) as advance:
        advance(1)
    assert out.getvalue() == ""


def test_a_bar_on_a_terminal_says_what_how_much_and_how_long() -> None:
    face, out = _face(1, terminal=True)
    assert face.live
    with face.bar("train[ing]", 10) as advance:
        advance(4)
    text = out.getvalue()
    for words in ("train[ing]", "4/10", "ETA"):
        assert words in text


def test_a_bar_ends_when_the_work_breaks() -> None:
    face, _ = _face(1, terminal=True)
    with pytest.raises(ZeroDivisionError), face.bar("a", 2):
        raise ZeroDivisionError
    with face.bar("b", 2) as advance:
        advance(2)


def test_quiet_has_no_bar_even_on_a_terminal() -> None:
    face, out = _face(0, terminal=True)
    with face.bar("a", 10) as advance:
        advance(10)
    assert out.getvalue() == ""


def test_a_counter_speaks_every_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("edgedistill.progress.time.monotonic", lambda: now[0])
    face, out = _face(1, terminal=True)
    tell = face.counter("images")
    tell(1, 5000)
    now[0] += 2.5
    tell(2000, 5000)
    now[0] += 1
    tell(3000, 5000)
    assert out.getvalue().count("images") == 1
    assert "2,000 of 5,000" in out.getvalue()


def test_everything_goes_to_the_error_stream(capsys: pytest.CaptureFixture[str]) -> None:
    Face().say("hello")
    silent().say("nothing")
    silent().warn("careful")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "hello\nwarning: careful\n"


def _course(epochs: int) -> list[CurvePoint]:
    return [
        CurvePoint(epoch=e, loss=2 / e, val_top1=1 - 0.8 / e, seconds=1.0 * e)
        for e in range(1, epochs + 1)
    ]


def _lines(written: str) -> list[str]:
    """Lines of the terminal without the codes for colour and cursor."""
    plain = Text.from_ansi(written.replace("\r", "\n")).plain
    return [line.rstrip() for line in plain.splitlines() if line.strip()]


@pytest.mark.parametrize("width", [60, 80, 100, 200])
@pytest.mark.parametrize("epochs", [1, 12, 300])
def test_the_course_stands_under_the_bar_and_the_eta_stays_in_sight(
    width: int, epochs: int
) -> None:
    face, out = _face(1, terminal=True, width=width)
    with face.bar("plain_longer: training", 90_000) as advance:
        advance(45_000)
        face.curve("plain_longer", _course(epochs), epochs)
    lines = _lines(out.getvalue())
    assert max(cell_len(line) for line in lines) <= width
    bars, courses = [x for x in lines if "ETA" in x], [x for x in lines if "loss" in x]
    assert all("plain_longer: training" in line for line in bars)
    last = courses[-1]
    assert f"epoch {epochs}/{epochs}" in last and f"validation {1 - 0.8 / epochs:.3f}" in last
    assert sum(last.count(spark) for spark in SPARKS) >= min(2 * epochs, 10)


def test_the_bar_of_long_work_is_cut_and_never_its_eta() -> None:
    face, out = _face(1, terminal=True, width=80)
    with face.bar("teacher: storing outputs", 1_200_000) as advance:
        advance(600_000)
    bars = [line for line in _lines(out.getvalue()) if "ETA" in line]
    assert "600000/1200000" in bars[-1]
    assert len(bars[-1].split("ETA")[1].strip()) >= 7


def test_a_bar_begins_without_the_course_of_the_last_training() -> None:
    face, out = _face(1, terminal=True)
    with face.bar("plain: training", 3):
        face.curve("plain", _course(3), 3)
    out.truncate(0)
    with face.bar("distilled: training", 3) as advance:
        advance(1)
    assert "loss" not in out.getvalue()


def test_a_course_without_validation_shows_the_loss_alone() -> None:
    face, out = _face(1, terminal=True)
    with face.bar("a", 3):
        face.curve("a", [CurvePoint(epoch=1, loss=0.25)], 3)
    assert "loss 0.250" in out.getvalue() and "validation" not in out.getvalue()


def test_off_a_terminal_the_course_is_a_line_that_only_details_show() -> None:
    for verbosity, lines in (
        (1, []),
        (2, ["plain: epoch 2 of 9, loss 1.000, validation top-1 0.600"]),
    ):
        face, out = _face(verbosity)
        with face.bar("plain: training", 9):
            face.curve("plain", _course(2), 9)
        assert [line.strip() for line in out.getvalue().splitlines()] == lines


def test_whoever_follows_gets_every_curve_and_only_inside() -> None:
    face, seen = silent(), []
    with face.following(lambda points: seen.append(len(points))):
        face.curve("a", _course(1), 2)
        with face.following(None):
            face.curve("a", _course(2), 2)
        face.curve("a", _course(2), 2)
    face.curve("a", _course(2), 2)
    assert seen == [1, 2]


def test_a_sparkline_goes_from_the_lowest_to_the_highest_value() -> None:
    assert sparkline([0.0, 1.0, 2.0, 7.0]) == "▁▂▃█"
    assert sparkline([3.0, 3.0]) == "▁▁"
    assert sparkline([]) == ""


def test_a_long_sparkline_shows_the_whole_course() -> None:
    falling = sparkline([1 / (1 + epoch) for epoch in range(300)], 10)
    assert len(falling) == 10
    assert falling[0] == "█" and falling[-1] == "▁"
    assert sparkline([0.0] * 10 + [8.0] * 10, 4) == "▁▁██"


@given(st.lists(st.floats(-1e12, 1e12), max_size=400), st.integers(1, 30))
@example([0.0, 2.225073858507e-311], 2)
def test_a_sparkline_of_any_numbers_has_its_width(values: list[float], width: int) -> None:
    line = sparkline(values, width)
    assert len(line) == min(len(values), width)
    assert set(line) <= set(SPARKS)
    if len(set(values)) > 1 and len(values) <= width and math.isfinite(max(values) - min(values)):
        assert "▁" in line and "█" in line
