"""The page, the Markdown, the model card and the terminal: all are views of one document."""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser
from io import StringIO
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from evidence_samples import HOSTILE, make_result, png
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from edgedistill.evidence import report
from edgedistill.evidence.view import figures
from edgedistill.result import Example, Result

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Outline(HTMLParser):
    """Tags, attributes and text of a page; `broken` names tags that do not close in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.broken: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        self.broken += self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.broken.append(tag)

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def many(classes: int = 1000) -> Result:
    return make_result("pass", [f"species of beetle number {i}" for i in range(classes)], each=50)


def in_terminal(result: Result, width: int = 120) -> str:
    stream = StringIO()
    Console(file=stream, width=width).print(report.console(result, Path("runs/x/report.html")))
    return stream.getvalue()


@pytest.mark.parametrize("name", ["plain", "distilled"])
def test_the_terminal_marks_the_arm_that_ships(name: str) -> None:
    shown = in_terminal(make_result("pass").model_copy(update={"chosen_arm": name}), 200)
    rows = [line.split() for line in shown.splitlines()]
    marked = [row[0] for row in rows if row and row[0] in ("plain", "distilled") and "ships" in row]
    assert marked == [name]


def key_numbers(result: Result) -> list[str]:
    """What a reader looks for, formatted from the document."""
    ships = result.artifact(result.chosen)
    found = [figures.accuracy(ships.top1), figures.megabytes(ships.size_bytes)]
    found += [figures.accuracy(arm.top1) for arm in result.arms]
    found += [figures.interval(arm.top1) for arm in result.arms]
    found += [figures.duration(arm.seconds) for arm in result.arms]
    for row in result.verdict.rows:
        found += figures.limit_numbers(row)
    for artifact in result.artifacts:
        found.append(figures.accuracy(artifact.top1))
        found.append(figures.megabytes(artifact.size_bytes))
        best = figures.best_latency(artifact.latency)
        assert best is not None
        found.append(figures.milliseconds(best.p50_s))
    return found


@pytest.mark.parametrize("status", ["pass", "fail", "unconfirmed"])
def test_each_view_shows_the_sentence_the_status_and_the_key_numbers(status: str) -> None:
    result = make_result(status)  # type: ignore[arg-type]
    markdown = report.markdown(result).replace("\\", "")
    views = {
        "html": Outline(report.html(result)).words,
        "markdown": markdown,
        "card": report.model_card(result).replace("\\", ""),
        "console": " ".join(in_terminal(result, 200).split()),
    }
    for name, text in views.items():
        assert figures.STATUS_WORD[result.verdict.status] in text, name
        assert result.verdict.sentence in text, name
        for number in key_numbers(result):
            assert number in text, (name, number)


def test_a_changed_number_in_the_document_changes_every_view() -> None:
    result = make_result()
    ships = result.artifact("float16").model_copy(update={"size_bytes": 3_330_000})
    artifacts = [ships if a.name == "float16" else a for a in result.artifacts]
    changed = result.model_copy(update={"artifacts": artifacts})
    for view in (report.html, report.markdown, report.model_card, in_terminal):
        assert "3.33 MB" in view(changed)
        assert "3.33 MB" not in view(result)


def test_no_number_of_the_page_is_without_a_source_in_the_document() -> None:
    result = make_result()
    page = Outline(report.html(result)).words
    rounded = set()
    for raw in re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", result.dumps()):
        value = float(raw)
        for scale in (1, 100, 1e3, 1e-3, 1e-6, 1e-9):
            rounded |= {f"{value * scale:.{d}f}".lstrip("-") for d in range(7)}
    for percent in re.findall(r"(\d+\.\d+) (?:%|ms|MB|GB|points)", page):
        assert percent in rounded or percent == "0.0", percent


def test_the_page_is_well_formed_html_with_headings_in_order() -> None:
    outline = Outline(report.html(make_result()))
    assert outline.broken == []
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = [attrs["id"] for _, attrs in outline.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [str(attrs["href"]) for attrs in outline.all("a")]
    assert links and {link.removeprefix("#") for link in links} <= set(ids)


def test_tables_have_captions_and_scopes_and_pictures_have_words() -> None:
    outline = Outline(report.html(make_result()))
    assert len(outline.all("caption")) == len(outline.all("table"))
    assert all(attrs.get("scope") in ("row", "col") for attrs in outline.all("th"))
    assert all(attrs.get("alt") for attrs in outline.all("img"))
    assert all(
        attrs.get("role") == "img" or attrs.get("aria-hidden") for attrs in outline.all("svg")
    )


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    page = report.html(make_result())
    outline = Outline(page)
    assert not outline.all("script") and not outline.all("iframe")
    assert "default-src 'none'" in page
    for tag, attrs in outline.tags:
        for key, value in attrs.items():
            assert not key.startswith("on"), (tag, key)
            if key in ("src", "href", "srcset", "action", "data"):
                assert str(value).startswith(("data:image/png;base64,", "data:,", "#")), (
                    tag,
                    value,
                )
    assert not re.search(r"url\(|@import|https?://", page)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_name_stays_text_in_the_page(text: str) -> None:
    result = make_result(
        "fail",
        [text, "b", "c"],
        run=text,
        command=text,
        chosen_reason=text,
        device={"name": text, text: text},
    )
    plain = make_result(
        "fail",
        ["a", "b", "c"],
        run="r",
        command="c",
        chosen_reason="x",
        device={"name": "d", "k": "v"},
    )
    outline, expected = Outline(report.html(result)), Outline(report.html(plain))
    assert [tag for tag, _ in outline.tags] == [tag for tag, _ in expected.tags]
    assert [set(attrs) for _, attrs in outline.tags] == [set(attrs) for _, attrs in expected.tags]
    assert " ".join(figures.visible(text).split()) in outline.words
    assert not set("\u202e\u2066\x1b\x07") & set(report.html(result))


def rows_of(html: str) -> list[int]:
    """Cells of each table row."""
    return [
        len(re.findall(r"<t[hd]", row)) for row in re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
    ]


@pytest.mark.parametrize("view", [report.markdown, report.model_card])
def test_markdown_tables_are_well_formed_also_with_hostile_names(view: object) -> None:
    render = MarkdownIt("commonmark").enable("table").render
    harmless = make_result("fail", [f"name {i}" for i in range(len(HOSTILE))])
    hostile = make_result(
        "fail", HOSTILE, run=HOSTILE[3], chosen_reason=HOSTILE[8], command=HOSTILE[3]
    )
    clean, bad = render(view(harmless)), render(view(hostile))  # type: ignore[operator]
    assert len(rows_of(clean)) > 12
    assert rows_of(clean) == rows_of(bad)
    for block in re.findall(r"<table>.*?</table>", bad, re.DOTALL):
        assert len(set(rows_of(block))) == 1
    assert "<img" not in bad and "<script" not in bad and "<a " not in bad


@settings(max_examples=150)
@given(st.text(max_size=60) | st.text(alphabet="`|\\<>[]()*_ @:/.wh", max_size=30))
def test_any_name_and_any_prose_stays_one_plain_cell(text: str) -> None:
    table = report_table(text)
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(table)
    assert rows_of(html) == [3, 3]
    assert set(re.findall(r"<(\w+)", html)) <= {"table", "thead", "tbody", "tr", "th", "td", "code"}


def report_table(text: str) -> str:
    from edgedistill.evidence.view import markdown

    return markdown.table(["a", "b", "c"], [[markdown.name(text), markdown.prose(text), "end"]])


@settings(max_examples=150)
@given(st.text(alphabet="ab`|\\< ", min_size=1, max_size=12).filter(str.strip))
def test_a_name_in_a_code_span_reads_as_it_is(text: str) -> None:
    from edgedistill.evidence.view import markdown

    html = MarkdownIt("commonmark").render("x" + markdown.name(text).replace("\\|", "|") + "x")
    shown = html.removeprefix("<p>x<code>").removesuffix("</code>x</p>\n")
    back = shown.replace("&lt;", "<").replace("\\u{7c}", "|").replace("&quot;", '"')
    assert back.strip() == figures.visible(text).strip().replace("\\|", "\\|")


def test_a_thousand_classes_fit_and_show_pairs_in_place_of_the_matrix() -> None:
    result = many()
    page = report.html(result)
    assert len(page.encode()) <= report.MAX_HTML_BYTES
    outline = Outline(page)
    assert "Most frequent mistakes of 1,000 classes" in outline.words
    assert not any("heat" in str(a.get("class")) for a in outline.all("table"))
    assert "species of beetle number 999" in outline.words


def test_pictures_that_do_not_fit_are_left_out_and_said() -> None:
    noise = png(0)[:-4] + "A" * 400_000
    big = Example(png=noise + "A" * (-len(noise) % 4), label=0, predicted=0, confidence=0.5)
    result = make_result(examples=[big] * 10)
    page = report.html(result)
    assert len(page.encode()) <= report.MAX_HTML_BYTES
    assert "3 of 10 fit into this page" in Outline(page).words


def test_a_picture_that_is_not_a_png_is_not_embedded() -> None:
    bad = [
        Example(png=text, label=0, predicted=99, confidence=0.5)
        for text in ("PHN2Zz4=", '"><script>', "")
    ]
    outline = Outline(report.html(make_result(examples=bad)))
    assert not outline.all("img")
    assert outline.words.count("The picture cannot be shown.") == 3
    assert "class 99" in outline.words


def test_what_is_unknown_is_said_and_nothing_breaks() -> None:
    full = make_result()
    bare = [
        a.model_copy(
            update={"top1": None, "latency": [], "parity": None, "drop": None,
                    "per_class_recall": [],
                    "balanced_accuracy": None}
        )
        for a in full.artifacts
    ]  # fmt: skip
    nothing = {"gain": None, "gains": [], "seed_gain": None, "seeds": [], "notes": [], "curve": []}
    arms = [
        a.model_copy(update={**nothing, "seconds_parts": {}, "flops_parts": {}, "what": ""})
        for a in full.arms
    ]
    teacher = full.teacher.model_copy(
        update={"members": [], "members_agreement": None, "entropy": None, "calibration": None}
    )
    rows = [r.model_copy(update={"observed": None, "evidence": None}) for r in full.verdict.rows]
    result = full.model_copy(
        update={
            "artifacts": bare, "arms": arms, "teacher": teacher, "confusion": [], "examples": [], "stages": [],
            "device": {},
            "verdict": full.verdict.model_copy(update={"rows": rows}), "chosen": "none of them",
        }
    )  # fmt: skip
    outline = Outline(report.html(result))
    assert outline.broken == []
    assert "No comparison between arms was made." in outline.words
    assert "The confusion matrix was not measured." in outline.words
    for view in (report.markdown(result), report.model_card(result), in_terminal(result)):
        assert "not measured" in view


def test_every_latency_has_its_evidence_grade_beside_it() -> None:
    result = make_result()
    page = report.html(result)
    table = page[page.index("<caption>Percentiles of each file") :].split("</table>")[0]
    grades = re.findall(r'class="grade (\w+)"', table)
    assert grades == [t.evidence for a in result.artifacts for t in a.latency]
    assert "needs 64 runs" in table and "needs 662 runs" in table


def test_the_model_card_has_the_front_matter_of_the_hub() -> None:
    result = make_result("pass")
    card = report.model_card(result)
    header = yaml.safe_load(card.split("---\n")[1])
    assert header["license"] == "apache-2.0"
    assert header["library_name"] == "onnx"
    assert header["pipeline_tag"] == "image-classification"
    assert "base_model" not in header
    metric = header["model-index"][0]["results"][0]["metrics"][0]
    assert metric["value"] == result.artifact("float16").top1.value  # type: ignore[union-attr]
    assert "2000 images" in metric["name"]
    for part in ("## Intended use", "## Limits", "## How it was trained", "## Licences"):
        assert part in card


def test_the_model_card_says_distilled_of_a_distilled_network_alone() -> None:
    card = report.model_card(make_result())
    assert ", distilled from " in card and "knowledge-distillation" in card
    plain = report.model_card(make_result().model_copy(update={"chosen_arm": "plain"}))
    assert ", distilled from " not in plain and "knowledge-distillation" not in plain
    assert "trained on labels alone: distillation from" in plain


def test_the_model_card_names_the_base_model_and_no_licence_that_the_hub_does_not_know() -> None:
    student = make_result().student.model_copy(
        update={
            "weights": "pretrained",
            "weights_source": "hf-hub:timm/mobilenetv4_conv_small.e2400_r224_in1k",
            "licence": "See the vendor: no\nredistribution",
        }
    )
    card = report.model_card(make_result(student=student))
    header = yaml.safe_load(card.split("---\n")[1])
    assert header["base_model"] == "timm/mobilenetv4_conv_small.e2400_r224_in1k"
    assert header["license"] == "other"
    assert header["license_name"] == "see-the-vendor-no-redistribution"


SOURCES = [
    ("hf-dataset:uoft-cs/cifar10:plain_text@main", ["uoft-cs/cifar10"], "uoft-cs/cifar10"),
    ("./flowers", None, "imagefolder"),
    ("hf-dataset:../../etc", None, "imagefolder"),
]


@pytest.mark.parametrize(("source", "ids", "kind"), SOURCES)
def test_the_hub_reads_the_card_and_no_id_in_it_is_made_up(
    source: str, ids: list[str] | None, kind: str
) -> None:
    """By the hub's own loader, which builds its objects anew from the metadata."""
    from huggingface_hub import ModelCard
    from huggingface_hub.utils import validate_repo_id

    result = make_result("pass", HOSTILE, run=HOSTILE[5])
    result = result.model_copy(
        update={"data": result.data.model_copy(update={"source": source, "name": HOSTILE[0]})}
    )
    card = ModelCard(report.model_card(result), ignore_metadata_errors=False)
    data = card.data.to_dict()
    assert data.get("datasets") == ids
    for name in ids or []:
        validate_repo_id(name)
    found = card.data.eval_results
    assert [e.metric_type for e in found] == ["accuracy", "balanced_accuracy"]
    assert {e.dataset_type for e in found} == {kind}
    assert found[0].metric_value == result.artifact("float16").top1.value  # type: ignore[union-attr]
    assert card.data.license == "apache-2.0"


def test_a_licence_that_nobody_stated_is_unknown_to_the_hub() -> None:
    student = make_result().student.model_copy(update={"licence": None})
    header = yaml.safe_load(report.model_card(make_result(student=student)).split("---\n")[1])
    assert header["license"] == "unknown" and "license_name" not in header


def test_the_text_for_a_pull_request_is_short_and_folds_the_rest() -> None:
    text = report.markdown(make_result("fail"))
    head, _, rest = text.partition("<details>")
    assert head.startswith("## ❌ FAIL: ") and "| Limit |" in head
    assert len(head) < 2000 and head.count("\n") < 20
    assert rest.count("<details>") + 1 == text.count("</details>") == text.count("<summary>")
    for title in ("Latency", "Files", "Did distillation help?", "Data, teacher, student, machine"):
        assert f"<summary>{title}</summary>" in text


def test_hostile_text_cannot_leave_the_front_matter() -> None:
    result = make_result(classes=HOSTILE, run="x\n---\nlicense: mit\n", command="`; rm`\n---\n")
    card = report.model_card(result)
    header, _, _ = card.removeprefix("---\n").partition("\n---\n")
    assert yaml.safe_load(header)["license"] == "apache-2.0"
    assert yaml.safe_load(header)["model-index"][0]["name"].startswith("x\\n---")


def test_the_terminal_shows_hostile_names_as_text() -> None:
    result = make_result("fail", run="[red]x", chosen_reason="\x1b[2J")
    remarks = ["\x1b]0;title\x07 [bold]not bold[/bold] \u202e"]
    text = in_terminal(
        result.model_copy(
            update={"verdict": result.verdict.model_copy(update={"remarks": remarks})}
        )
    )
    assert "\x1b" not in text and "\u202e" not in text and "\x07" not in text
    assert "[bold]not bold[/bold]" in text
    assert "runs/x/report.html" in text


def test_views_are_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = make_result()
    written = report.write_views(result, tmp_path)
    assert [p.name for p in written] == ["report.html", "report.md", "model_card.md"]
    before = {p: p.read_bytes() for p in written}

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space"):
        report.write_views(make_result("fail"), tmp_path)
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_the_same_document_gives_the_same_bytes(tmp_path: Path) -> None:
    result = make_result()
    again = Result.model_validate_json(result.dumps())
    for view in (report.html, report.markdown, report.model_card):
        assert view(result) == view(again)
