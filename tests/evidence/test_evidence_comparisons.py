"""Distillation against every other arm, in words and in every view; what was not compared says how to."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import StringIO

import pytest
from evidence_samples import HOSTILE, make_result, saying
from markdown_it import MarkdownIt
from rich.console import Console
from test_evidence_report import Outline, rows_of

from edgedistill.evidence import report
from edgedistill.evidence.view import arms, comparisons, figures
from edgedistill.result import Arm, Result


def in_terminal(result: Result) -> str:
    stream = StringIO()
    Console(file=stream, width=300).print(report.console(result))
    return stream.getvalue()


def in_page(result: Result) -> str:
    return Outline(report.html(result)).words


def unescaped(view: Callable[[Result], str]) -> Callable[[Result], str]:
    return lambda result: view(result).replace("\\", "").replace("**", "")


VIEWS = {
    "page": in_page,
    "markdown": unescaped(report.markdown),
    "card": unescaped(report.model_card),
    "terminal": lambda result: " ".join(in_terminal(result).split()),
}
EACH_VIEW = pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)


def without(result: Result, *names: str) -> Result:
    """The result as if the arms of these names had not been trained."""
    kept = [
        arm.model_copy(update={"gains": [g for g in arm.gains if g.against not in names]})
        for arm in result.arms
        if arm.name not in names
    ]
    return result.model_copy(update={"arms": kept})


@EACH_VIEW
def test_every_view_names_both_comparisons_and_every_other_arm(
    view: Callable[[Result], str],
) -> None:
    text = view(make_result())
    assert "Equal steps: a gain of 1.9 points" in text
    assert "Equal seconds (teacher and storing counted): no measurable gain: +0.4 points" in text
    assert "plain training took 3 min 46 s, distillation 3 min 42 s in all" in text
    assert "Over 3 seeds, equal steps: a gain of 1.9 points (95 % interval +0.8 to +3.0" in text
    assert re.search(r"Against .?linear_probe.?: a gain of 8.1 points", text)
    assert re.search(r"Against .?finetune.?: a loss of 1.2 points", text)
    assert "and 1 min 15 s not counted, as they serve many students" in text


@EACH_VIEW
def test_arms_that_an_early_stop_ended_at_different_steps_are_not_called_equal(
    view: Callable[[Result], str],
) -> None:
    result = make_result()
    arms_ = [
        arm.model_copy(update={"steps": 700 if arm.name == "plain" else 900}) for arm in result.arms
    ]
    text = view(result.model_copy(update={"arms": arms_}))
    assert "Same schedule (early stop: 900 steps, plain 700): a gain of 1.9 points" in text
    assert "Over 3 seeds, same schedule: a gain of 1.9 points" in text
    assert "qual steps" not in text


@EACH_VIEW
def test_a_comparison_that_was_not_made_says_so_and_how_to_make_it(
    view: Callable[[Result], str],
) -> None:
    text = view(without(make_result(), "plain_longer"))
    assert "Equal seconds (teacher and storing counted): not compared." in text
    assert "took 3 min 42 s in all, 1 min 15 s of them without the teacher" in text
    assert "--set proof.equal_seconds=true" in text


@EACH_VIEW
def test_seeds_notes_and_gains_stand_in_every_view(view: Callable[[Result], str]) -> None:
    text = view(make_result())
    for arm in make_result().arms:
        for seed in arm.seeds:
            assert figures.percent(seed.top1, 2) in text
        for note in arm.notes:
            assert f"{arm.name}: {note}" in text
        for gain in arm.gains:
            assert figures.signed_points(gain.value).removesuffix(" points") in text


@pytest.mark.parametrize("view", [in_page, VIEWS["markdown"], VIEWS["card"]])
def test_costs_of_every_part_stand_in_seconds_and_operations(view: Callable[[Result], str]) -> None:
    text = view(make_result())
    for arm in make_result().arms:
        assert arm.what in text
        for seconds in arm.seconds_parts.values():
            assert figures.duration(seconds) in text
        for flops in arm.flops_parts.values():
            assert figures.operations(flops) in text


@pytest.mark.parametrize("view", [in_page, VIEWS["markdown"], VIEWS["card"]])
def test_how_soft_the_teachers_are_stands_beside_each(view: Callable[[Result], str]) -> None:
    text, teacher = view(make_result()), make_result().teacher
    for one in (teacher, *teacher.members):
        assert one.calibration is not None
        assert figures.percent(one.calibration.ece) in text
        assert figures.nats(one.entropy) in text
    assert "93.1 %" in text and "ensemble" in text


@EACH_VIEW
def test_what_stands_beside_the_arms_is_not_said_a_second_time(
    view: Callable[[Result], str],
) -> None:
    result = make_result()
    own = ["Few images.", *comparisons.arm_remarks(result.arms)]
    told = result.verdict.model_copy(update={"remarks": own})
    text = view(result.model_copy(update={"verdict": told}))
    assert "Few images." in text
    assert "Distillation, equal" not in text
    for note in comparisons.notes(result.arms):
        assert text.count(note) == 1


def test_remarks_stay_where_no_arm_says_them() -> None:
    result = make_result()
    bare = [a.model_copy(update={"gain": None, "gains": [], "notes": []}) for a in result.arms]
    told = result.verdict.model_copy(update={"remarks": ["Distillation, equal steps: unknown"]})
    found = result.model_copy(update={"arms": bare, "verdict": told})
    assert comparisons.other_remarks(found) == ["Distillation, equal steps: unknown"]


def test_without_any_comparison_there_is_nothing_to_say() -> None:
    assert comparisons.comparisons([]) == []
    assert comparisons.costs([]) == "" and comparisons.seed_rows([]) == []
    assert comparisons.taught_arm([]) is None and comparisons.gains_over([]) == {}
    assert "not compared" in comparisons.not_at_equal_seconds([])


def test_an_older_document_with_one_gain_is_shown_like_any_other() -> None:
    result = make_result()
    old = [a.model_copy(update={"gains": [], "seed_gain": None, "seeds": []}) for a in result.arms]
    found = comparisons.comparisons(old)
    assert [c.title for c in found] == ["Equal steps", "Equal seconds"]
    assert "Equal steps: a gain of 1.9 points" in in_page(result.model_copy(update={"arms": old}))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_arms_and_teachers_stay_text_in_the_page(text: str) -> None:
    hostile, plain = (Outline(report.html(saying(make_result(), t))) for t in (text, "harmless"))
    assert hostile.broken == []
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    assert [set(attrs) for _, attrs in hostile.tags] == [set(attrs) for _, attrs in plain.tags]
    assert not set("\u202e\u2066\x1b\x07") & set(report.html(saying(make_result(), text)))


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("view", [report.markdown, report.model_card])
def test_hostile_arms_and_teachers_stay_in_their_cells(
    view: Callable[[Result], str], text: str
) -> None:
    render = MarkdownIt("commonmark", {"html": True}).enable("table").render
    hostile, plain = (render(view(saying(make_result(), t))) for t in (text, "harmless"))
    assert rows_of(hostile) == rows_of(plain)
    assert set(re.findall(r"<(\w+)", hostile)) == set(re.findall(r"<(\w+)", plain))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_arms_reach_no_terminal(text: str) -> None:
    shown = in_terminal(saying(make_result(), text))
    assert not set("\u202e\u2066\x1b\x07\r\t") & set(shown)


def _long(arm: Arm, epochs: int) -> Arm:
    point = arm.curve[0]
    curve = [
        point.model_copy(
            update={"epoch": e, "seconds": 7.31 * e, "loss": 1 + 1 / e, "val_top1": 1 - 1 / (e + 1)}
        )
        for e in range(1, epochs + 1)
    ]
    return arm.model_copy(update={"curve": curve})


def test_long_curves_stay_small() -> None:
    result = make_result()
    long = [_long(arm, 300) if arm.curve else arm for arm in result.arms]
    more = len(report.html(result.model_copy(update={"arms": long}))) - len(report.html(result))
    assert 0 < more < 40_000


def test_the_chart_by_time_counts_what_came_before_and_shows_it_without_too() -> None:
    taught = comparisons.taught_arm(make_result().arms)
    assert taught is not None
    lines = {line.label: line.points for line in arms.timed(make_result().arms)}
    assert lines["distilled"][-1][0] == pytest.approx(taught.seconds)
    assert lines["distilled, teacher not counted"][-1][0] == pytest.approx(75.0)
    assert lines["plain"][-1][0] == pytest.approx(71.4)
    assert lines["linear_probe"] == [(6.2, 0.803)]


def test_without_seconds_there_is_no_chart_by_time() -> None:
    result = make_result()
    blind = [
        arm.model_copy(
            update={"curve": [p.model_copy(update={"seconds": None}) for p in arm.curve]}
        )
        for arm in result.arms
    ]
    titles = [title for title, _ in arms.curve_charts(result.model_copy(update={"arms": blind}))]
    assert titles == ["Validation top-1 by epoch", "Training loss by epoch, in nats"]
    assert len(arms.curve_charts(result)) == 3


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0 FLOP"), (1.54e13, "15.4 TFLOP"), (2.0e9, "2.00 GFLOP"), (3.21e18, "3.21 EFLOP"), (9.5e20, "950 EFLOP")],
)  # fmt: skip
def test_operations_are_written_with_their_prefix(value: float, text: str) -> None:
    assert figures.operations(value) == text


def test_an_axis_of_time_is_in_seconds_minutes_or_hours() -> None:
    assert [figures.time_unit(s)[1] for s in (0, 179, 180, 10_799, 10_800)] == [
        "s", "s", "min", "min", "h",
    ]  # fmt: skip
