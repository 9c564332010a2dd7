"""The views of a study: every number is of the document, names are foreign, and no label covers another."""

from __future__ import annotations

import io
import itertools
import re
from pathlib import Path

import pytest
from evidence_samples import HOSTILE
from markdown_it import MarkdownIt
from rich.console import Console
from study_samples import CROWD, make_arm, make_study, teacher, unrun

from edgedistill.errors import DocumentError
from edgedistill.evidence import study as views
from edgedistill.evidence.view import studychart as chart
from edgedistill.evidence.view.factorchart import LEFT, factor_chart
from edgedistill.studyresult import StudyResult, load


def shown(study: StudyResult, width: int = 90) -> str:
    file = io.StringIO()
    Console(file=file, width=width, highlight=False).print(views.console(study))
    return file.getvalue()


def test_the_document_survives_being_written_and_read(tmp_path: Path) -> None:
    study = make_study()
    (tmp_path / "study.json").write_text(study.dumps())
    assert load(tmp_path) == study
    (tmp_path / "study.json").write_text(study.dumps().replace('"study":', '"studio":', 1))
    with pytest.raises(DocumentError, match="studio"):
        load(tmp_path)


def test_the_table_has_an_arm_a_line_in_the_order_of_the_study() -> None:
    study = make_study()
    lines = shown(study).splitlines()
    rows = [line for line in lines if any(line.startswith(f"{a.name} ") for a in study.arms)][1:]
    assert [row.split()[0] for row in rows] == [arm.name for arm in study.arms]
    for row, arm in zip(rows, study.arms, strict=True):
        assert arm.top1 is not None
        assert f"{100 * arm.top1.value:.2f}" in row
        if arm.seed_gain is not None:
            assert views.gain(arm.seed_gain, 1) in row
    assert max(map(len, rows)) <= 90


def test_the_table_of_one_seed_shows_gains_by_image() -> None:
    study = make_study(seeds=1)
    assert study.arms[1].image_gain is not None
    text = shown(study)
    assert views.gain(study.arms[1].image_gain, 1) in text
    assert "paired by image" in text
    assert "one seed tells nothing of others" in " ".join(text.split())


def test_the_markdown_is_tables_with_every_arm_and_every_run() -> None:
    study = make_study()
    page = MarkdownIt("commonmark").enable("table").render(views.markdown(study))
    assert page.count("<table>") == 4
    assert page.count("<tr>") == 4 + 8 + 24 + 8 + 2
    for arm in study.arms:
        assert f"<code>{arm.name}</code>" in page
        assert views.top1(arm) in page


def test_levels_stand_under_their_factor_in_every_view() -> None:
    study = make_study()
    factors = [None, "loss", "loss", *["<b>"] * (len(study.arms) - 3)]
    arms = [a.model_copy(update={"factor": f}) for a, f in zip(study.arms, factors, strict=True)]
    grouped, first = study.model_copy(update={"arms": arms}), arms[1].name
    page = views.html(grouped)
    assert page.count('<tr class="factor">') == 2 and "&lt;b&gt;" in page and "<b>" not in page
    rows = page[page.index("Arms, in the order of the study") :]
    assert rows.index(">loss</") < rows.index(f">{first}</")
    every = study.model_copy(update={"arms": [a.model_copy(update={"factor": "f"}) for a in arms]})
    assert views.html(every).count('<tr class="factor">') == 1
    lines = [line.split() for line in shown(grouped).splitlines() if line.strip()]
    assert lines.index(["loss"]) + 1 == next(k for k, line in enumerate(lines) if line[0] == first)
    told = [line for line in views.markdown(grouped).splitlines() if line.startswith("|")]
    assert told[0].startswith("| Factor | Arm |")
    assert told[3].startswith(f"| `loss` | `{first}` |")
    assert "Factor" not in views.markdown(study)


def of_factors(study: StudyResult, *names: str) -> StudyResult:
    """The same study, its arms but the first as levels of factors."""
    levels = [study.arms[0]]
    for k, arm in enumerate(study.arms[1:]):
        levels.append(arm.model_copy(update={"factor": names[k * len(names) // len(study.arms)]}))
    return study.model_copy(update={"arms": levels})


def test_the_chart_of_factors_has_a_line_for_each_level_with_both_intervals_and_its_number() -> (
    None
):
    study = of_factors(make_study(), "loss", "<b>")
    drawn = str(factor_chart(study))
    assert drawn.count('class="factor"') == 2 and "&lt;b&gt;" in drawn
    assert drawn.count("<circle") == drawn.count('class="interval"') == len(study.arms) - 1
    assert drawn.count('class="whisker"') == len(study.arms) - 1
    for arm in study.arms[1:]:
        assert arm.seed_gain is not None
        assert views.gain(arm.seed_gain).partition(" ")[0] in drawn
    assert views.picture(study) != views.picture(make_study())
    assert factor_chart(make_study()) is None
    assert factor_chart(unrun(study, *(arm.name for arm in study.arms))) is None


def test_a_level_far_outside_is_hollow_at_the_edge_and_leaves_the_scale_to_the_rest() -> None:
    near = [(f"a{k}", "distilled", 0.87 + k / 1000, 60.0, 100.0) for k in range(12)]
    study = of_factors(make_study([*CROWD[:1], *near, ("far", "plain", 0.2, 60.0, 0.0)]), "f")
    drawn = str(factor_chart(study))
    assert drawn.count('class="dot"') == 1 and "far, not to scale" in drawn
    places = [float(x) for x in re.findall(r'<circle[^>]* cx="([\d.]+)"', drawn)]
    assert len(set(places)) > 6 and places[-1] == LEFT and min(places[:-1]) > LEFT


def test_claims_stand_in_every_view_with_what_is_compared_and_the_verdict() -> None:
    study = make_study()
    first, second = study.claims
    assert views.sides(first) == "kd over plain"
    assert views.sides(second) == "align_uniform over plain, by more than \u22120.5 points"
    lines = shown(study).splitlines()
    row = next(line for line in lines if line.startswith(second.says))
    assert views.gain(second.seed_gain, 1) in row and row.rstrip().endswith("holds here")
    page, text = views.html(study), views.markdown(study)
    for words in (first.says, second.says, "Hinton et al. 2015", views.sides(second)):
        assert words in page
        assert words.replace("_", "\\_") in text or words in text
    assert page.count(">holds here</span>") == page.count(">cannot be told</span>") == 1
    waiting = second.model_copy(update={"verdict": "not run yet", "says": "Wait for me"})
    begun = study.model_copy(update={"claims": [first, waiting]})
    assert "1 more claim is about arms that have not run." in shown(begun)
    assert "Wait for me" not in shown(begun) and "Wait for me" in views.html(begun)
    early = study.model_copy(update={"claims": [waiting, waiting]})
    assert "2 claims are about arms that have not run." in shown(early)
    bare = study.model_copy(update={"claims": []})
    assert "claims" not in views.html(bare).lower() and "Claims" not in views.markdown(bare)
    assert "Claim" not in shown(bare)


def test_arms_that_have_not_run_say_so_everywhere() -> None:
    study = unrun(make_study(), "dkd", "finetune")
    for text in (shown(study), views.markdown(study), views.html(study)):
        assert views.NOT_RUN in text
    assert views.html(study).count(views.NOT_RUN) >= 4
    nothing = unrun(make_study(CROWD[:2]), "plain", "kd")
    assert chart.study_chart(nothing) is None
    assert "No run is finished yet." in views.html(nothing)


def test_a_hostile_name_is_text_and_nothing_else() -> None:
    evil = "<script>alert(1)</script>"
    told = [c.model_copy(update={"says": evil, "source": evil}) for c in make_study().claims]
    study = make_study(
        study=HOSTILE[0], command=evil, headline=f"{evil} is best", remarks=[evil], claims=told
    )
    page = views.html(study)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    rendered = MarkdownIt("commonmark").enable("table").render(views.markdown(study))
    assert "<script" not in rendered
    shown(study)


def test_the_page_is_one_file_without_scripts_or_requests() -> None:
    page = views.html(make_study())
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!#|data:,)", page)
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert len(page) < 200_000


def _boxes(study: StudyResult) -> list[chart.Box]:
    """Boxes of the labels as they are drawn, by the width that the chart reckons with."""
    found = []
    for x, y, anchor, text in re.findall(
        r'<text class="(?:label|teacher-text)" x="([\d.-]+)" y="([\d.-]+)" text-anchor="(\w+)">([^<]*)<',
        str(chart.study_chart(study)),
    ):
        width = 7.0 * len(text)
        left = float(x) - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
        found.append(chart.Box(left, float(y) - chart.FONT + 2, width, chart.FONT))
    return found


def test_the_labels_of_a_crowd_do_not_cover_each_other_and_stay_inside() -> None:
    boxes = _boxes(make_study())
    assert len(boxes) == 9, "eight arms and the teacher"
    for i, box in enumerate(boxes):
        assert box.x >= 0
        assert box.x + box.width <= chart.WIDTH
        assert 0 <= box.y <= chart.BOTTOM
        assert not [other for other in boxes[i + 1 :] if box.overlap(other) > 0]


def test_points_that_would_cover_each_other_stand_side_by_side() -> None:
    same = [(f"arm{i}", "distilled", 0.87, 60.0, 150.0) for i in range(5)]
    text = str(chart.study_chart(make_study([("plain", "plain", 0.86, 30.0, 0.0), *same])))
    places = sorted(float(x) for x in re.findall(r'<circle[^>]* cx="([\d.]+)"', text))
    assert len(places) == 6
    gaps = [b - a for a, b in itertools.pairwise(places[1:])]
    assert gaps == pytest.approx([chart.APART] * 4, abs=0.02)


def test_points_that_have_room_stand_at_their_seconds() -> None:
    study = make_study([("plain", "plain", 0.86, 10.0, 0.0), ("long", "plain", 0.87, 1000.0, 0.0)])
    text = str(chart.study_chart(study))
    left, right = (float(x) for x in re.findall(r'<circle[^>]* cx="([\d.]+)"', text))
    scales = chart._scales(study.arms)
    assert (left, right) == pytest.approx((scales.x(10.2), scales.x(1000.2)), abs=0.01)
    middle = scales.x((10.2 * 1000.2) ** 0.5)
    assert middle == pytest.approx((left + right) / 2, abs=1.0), "the axis is logarithmic"


def test_several_teachers_have_a_line_each_with_their_arms() -> None:
    arms = [
        make_arm("plain", "plain", 0.86, 60.0, 0.0),
        make_arm("kd", "distilled", 0.87, 60.0, 150.0, index=1, by=teacher()),
        make_arm("ladder", "distilled", 0.87, 60.0, 250.0, index=2, by=teacher(0.91, "b" * 12)),
    ]
    text = str(chart.study_chart(make_study().model_copy(update={"arms": arms})))
    assert text.count('class="teacher-line"') == 2
    assert "teacher of kd 89.4 %" in text
    assert "teacher of ladder 91.0 %" in text
    assert len(views.teachers(make_study().model_copy(update={"arms": arms}))) == 2


def test_a_teacher_of_many_arms_is_said_in_a_line() -> None:
    many = [(f"arm{k}", "distilled", 0.87, 60.0, 100.0) for k in range(12)]
    study = make_study([*CROWD[:1], *many])
    last = study.arms[-1].model_copy(update={"teacher": teacher(0.91, "b" * 12)})
    words = views.teachers(study.model_copy(update={"arms": [*study.arms[:-1], last]}))
    assert words[0].startswith("Teacher of arm0 and 10 more arms: ")
    assert words[1].startswith("Teacher of arm11: ")


def test_a_teacher_far_above_the_arms_does_not_press_them_together() -> None:
    low = [("plain", "plain", 0.30, 60.0, 0.0), ("kd", "distilled", 0.33, 60.0, 150.0)]
    text = str(chart.study_chart(make_study(low)))
    assert "teacher 89.4 % (not to scale)" in text
    heights = [float(y) for y in re.findall(r'<circle[^>]* cy="([\d.]+)"', text)]
    assert max(heights) - min(heights) > 60
    assert "not to scale" not in str(chart.study_chart(make_study()))


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("seconds", [0.011, 9.0, 59.7, 3000.0, 90_000.0, 4e6])
def test_the_chart_holds_whatever_the_durations_are(seconds: float, seeds: int) -> None:
    arms = [("a", "plain", 0.0, seconds, 0.0), ("b", "distilled", 1.0, seconds, 31.0 + seconds)]
    text = str(chart.study_chart(make_study(arms, seeds=seeds)))
    for number in re.findall(r' (?:c?[xy][12]?)="([^"]*)"', text):
        assert -20 <= float(number) <= chart.WIDTH + 20
    assert "nan" not in text


def test_the_ticks_of_time_are_round() -> None:
    ticks = chart.time_ticks(8.0, 4000.0)
    assert 4 <= len(ticks) <= 8
    assert set(ticks) <= set(chart.MARKS)
    assert [chart.written(t) for t in (0.5, 20, 300, 7200, 172_800)] == [
        "0.5 s", "20 s", "5 min", "2 h", "2 d",
    ]  # fmt: skip
    assert chart.time_ticks(41.0, 43.0) == [41.0, 43.0]


def test_values_stand_as_in_a_recipe() -> None:
    arm = make_arm("kd", "distilled", 0.87, 60.0, 150.0)
    arm = arm.model_copy(update={"changes": {"a.b": None, "c": True, "d": ["x", 1], "e": "kd"}})
    assert views.changes(arm) == ["a.b: null", "c: true", 'd: ["x", 1]', "e: kd"]
