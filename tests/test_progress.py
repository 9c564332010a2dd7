"""What a person sees while a build runs: nothing, lines, or bars, on the error stream alone."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from edgedistill.progress import Face, silent


def _face(verbosity: int, terminal: bool = False) -> tuple[Face, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100, highlight=False, soft_wrap=True)
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
