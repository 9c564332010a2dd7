"""What a check writes for machines: JUnit XML, charts, annotations, Markdown; every foreign name stays text."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Any

import pytest
from evidence_samples import HOSTILE, make_result
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from edgedistill.checkresult import Allowed, Change, Changes, Check, CheckRow, Ending, Snapshot
from edgedistill.evidence.view import checkwords as words
from edgedistill.evidence.view.annotations import workflow_commands
from edgedistill.evidence.view.benchjson import bench_json
from edgedistill.evidence.view.checkview import console, markdown
from edgedistill.evidence.view.junit import junit
from edgedistill.metrics import proportion
from edgedistill.result import Result

ENDINGS: tuple[Ending, ...] = ("regress", "inconclusive", "pass", "unconfirmed", "fail")


def facts(name: str, size: int, **more: Any) -> Snapshot:
    return Snapshot(name=name, sha256="0" * 64, size_bytes=size, files={name: size}, **more)


def limit(value: float, unit: Any, origin: str = "default") -> Allowed:
    return Allowed(value=value, unit=unit, origin=origin)


def make_check(name: str = "m.onnx", *, strict: bool = False, note: str = "why") -> Check:
    """A check with every outcome in it; `name` stands wherever a foreign name can."""
    rows = [
        CheckRow(limit="max-size-growth", allowed=limit(0.01, "fraction", name), old=10_000_000,
                 new=10_000_001, observed=1e-7, status="regress", note=note, advice="look"),
        CheckRow(limit="max-latency-growth", allowed=limit(0.05, "fraction"), old=0.0041, new=0.0042,
                 observed=0.024, low=-0.01, high=0.06, status="inconclusive", note=note),
        CheckRow(limit="max-drop", allowed=limit(0.005, "fraction"), old=0.9195, new=0.9185,
                 observed=0.001, low=-0.002, high=0.004, status="pass", note=note),
        CheckRow(limit="max-latency-ms", allowed=limit(0.005, "seconds"), new=0.004, observed=0.004,
                 status="unconfirmed", note=note),
        CheckRow(limit="min-top1", allowed=limit(0.95, "fraction"), new=0.9185, observed=0.9185,
                 status="fail"),
    ]  # fmt: skip
    changes = Changes(
        layers=[Change(name=name, old=5, new=9), Change(name=f"{name}2", old=None, new=3)],
        operators=[Change(name=name, old=None, new=2), Change(name="Conv", old=3, new=1)],
        rest=Change(name="the rest of the file", old=7, new=6),
    )
    new = facts(name, 10_000_001, params=12, opset=17, top1=proportion([True] * 3 + [False]))
    return Check(
        status="fail", strict=strict, exit_code=1, sentence=f"{name} misses two.", new=new,
        old=facts(f"old {name}", 10_000_000, params=10, opset=13), rows=rows, changes=changes,
        remarks=[f"About {name}."],
    )  # fmt: skip


def shown(check: Check, width: int = 200) -> str:
    terminal = Console(width=width, record=True, file=open("/dev/null", "w"), highlight=False)  # noqa: SIM115
    terminal.print(console(check))
    terminal.file.close()
    return terminal.export_text()


# The words


def test_two_values_that_differ_are_told_apart_to_the_byte() -> None:
    row = make_check().rows[0]
    assert words.sides(row) == ("10.000000 MB", "10.000001 MB")
    assert words.observed(row) == "+1 B (+0.0000100 %)"


@pytest.mark.parametrize(
    ("row", "allowed", "observed"),
    [
        (0, "1 %", "+1 B (+0.0000100 %)"), (1, "5 %", "+2.4 % (−1.0 to +6.0)"),
        (2, "0.5 points", "+0.10 points (−0.20 to +0.40)"), (3, "5.00 ms", "4.00 ms"),
        (4, "95 % or more", "91.85 %"),
    ],
)  # fmt: skip
def test_each_limit_is_written_in_its_unit(row: int, allowed: str, observed: str) -> None:
    found = make_check().rows[row]
    assert (words.allowed(found), words.observed(found)) == (allowed, observed)


def test_the_terminal_has_the_verdict_on_top_and_fits_eighty_columns() -> None:
    text = shown(make_check(), 80)
    lines = text.splitlines()
    assert lines[0] == "FAIL  m.onnx misses two."
    assert max(map(len, lines)) <= 80
    for word in (
        "REGRESS",
        "INCONCLUSIVE",
        "UNCONFIRMED",
        "PASS",
        "12",
        "Opset: 13 to 17",
        "+ m.onnx (2)",
    ):
        assert word in text


# JUnit: the grammar of Jenkins' xUnit plug-in, junit-10.xsd, as far as names and nesting go

GRAMMAR: dict[str, tuple[set[str], set[str], set[str]]] = {
    "testsuites": ({"testsuite"}, set(), {"name", "time", "tests", "failures", "errors"}),
    "testsuite": (
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
        {"name", "tests", "failures", "errors"},
        {"group", "time", "skipped", "timestamp", "hostname", "id", "package", "file", "log", "url"},
    ),
    "testcase": (
        {"skipped", "error", "failure", "system-out", "system-err"}, {"name"},
        {"time", "classname", "group"},
    ),
    "failure": (set(), set(), {"type", "message"}),
    "skipped": (set(), set(), {"type", "message"}),
    "system-out": (set(), set(), set()),
}  # fmt: skip
"""By element: which it may hold, which attributes it must have, and which it may."""


def valid(text: str) -> ET.Element:
    root = ET.fromstring(text)
    assert root.tag == "testsuites"
    for element in root.iter():
        children, required, optional = GRAMMAR[element.tag]
        assert {child.tag for child in element} <= children
        assert required <= set(element.attrib) <= required | optional
    for suite in root.iter("testsuite"):
        cases = suite.findall("testcase")
        counted = [suite.attrib["tests"], suite.attrib["failures"], suite.attrib["skipped"]]
        found = [
            len(cases),
            *(sum(c.find(t) is not None for c in cases) for t in ("failure", "skipped")),
        ]
        assert counted == [str(n) for n in found]
    return root


def ended(root: ET.Element) -> list[str]:
    return [
        next((child.tag for child in case if child.tag in ("failure", "skipped")), "passed")
        for case in root.iter("testcase")
    ]


def test_junit_has_a_test_a_limit_and_skips_what_is_not_decided() -> None:
    root = valid(junit(make_check()))
    assert ended(root) == ["failure", "skipped", "passed", "skipped", "failure"]
    first = next(root.iter("testcase"))
    assert first.attrib == {"name": "Size growth", "classname": "edgedistill.m.onnx"}
    failure = first.find("failure")
    assert failure is not None and failure.attrib["message"].startswith("REGRESS: +1 B")


def test_junit_fails_what_is_not_decided_when_strict() -> None:
    assert (
        ended(valid(junit(make_check(strict=True))))
        == ["failure"] * 2 + ["passed"] + ["failure"] * 2
    )


@pytest.mark.parametrize("status", ["pass", "fail", "unconfirmed"])
def test_junit_of_a_result_has_the_rows_of_its_verdict(status: Any) -> None:
    result = make_result(status)
    root = valid(junit(result))
    by_status = {"pass": "passed", "fail": "failure", "unconfirmed": "skipped"}
    assert ended(root) == [by_status[row.status] for row in result.verdict.rows]


NAMES = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=30), st.just("\x00\ud800\ufffe]]>"))


@given(name=NAMES)
def test_any_name_is_text_in_junit(name: str) -> None:
    text = junit(make_check(name, note=name))
    text.encode("utf-8")
    assert "<!" not in text.replace("<!--", "<!") and len(list(valid(text).iter("testcase"))) == 5


# Charts


def entries(subject: Result | Check) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(bench_json(subject))
    for entry in found:
        assert set(entry) <= {"name", "unit", "value", "range", "extra"}
        assert {"name", "unit", "value"} <= set(entry)
        assert isinstance(entry["value"], int | float) and isinstance(entry["unit"], str)
        assert all(isinstance(entry.get(key, ""), str) for key in ("range", "extra"))
    assert len({entry["name"] for entry in found}) == len(found)
    return found


def test_the_chart_of_a_check_has_what_is_smaller_when_better() -> None:
    values = {entry["name"]: entry["value"] for entry in entries(make_check())}
    assert values == {
        "m.onnx: size": 10_000_001,
        "m.onnx: parameters": 12,
        "m.onnx: top-1 errors": 25.0,
    }


def test_the_chart_of_a_result_has_nothing_that_is_predicted() -> None:
    result = make_result("unconfirmed")
    found = entries(result)
    assert {e["unit"] for e in found} == {"bytes", "%", "ms"}
    measured = [
        row for a in result.artifacts for row in a.latency
        if row.evidence != "predicted" and row.p50_s is not None
    ]  # fmt: skip
    assert sum(e["unit"] == "ms" for e in found) == len(measured)
    assert all("predicted" not in e.get("extra", "") for e in found)


def test_each_way_of_measuring_is_a_line_of_its_own() -> None:
    result = make_result()
    artifact = result.artifacts[0]
    row = next(r for r in artifact.latency if r.evidence != "predicted")
    ways: list[dict[str, Any]] = [
        {}, {"threads": 2}, {"fps": 30.0, "arrival": "paced"}, {"scope": "end_to_end"}, {"device": "x"}, {}
    ]  # fmt: skip
    rows = [row.model_copy(update=way) for way in ways]
    only = artifact.model_copy(update={"latency": rows})
    found = entries(result.model_copy(update={"artifacts": [only]}))
    assert sum(e["unit"] == "ms" for e in found) == len(ways)


@given(name=NAMES)
def test_any_name_is_text_in_a_chart(name: str) -> None:
    entries(make_check(name))


# Annotations: read as the runner of GitHub Actions reads them


def parsed(line: str) -> tuple[str, dict[str, str], str]:
    """Command, properties and message of a line, by the rules of the runner (ActionCommand.TryParseV2)."""
    assert line.startswith("::")
    head, _, data = line[2:].partition("::")
    name, _, rest = head.partition(" ")
    properties = dict(part.split("=", 1) for part in rest.split(",") if "=" in part)

    def undone(text: str, pairs: Sequence[str]) -> str:
        for char, code in zip(pairs[::2], pairs[1::2], strict=True):
            text = text.replace(code, char)
        return text

    data_codes = ["\r", "%0D", "\n", "%0A", "%", "%25"]
    codes = ["\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C", "%", "%25"]
    return name, {k: undone(v, codes) for k, v in properties.items()}, undone(data, data_codes)


def test_what_is_not_kept_is_an_error_or_a_warning_at_the_file() -> None:
    found = [parsed(line) for line in workflow_commands(make_check(), "in/m.onnx")]
    assert [name for name, _, _ in found] == ["error", "warning", "warning", "error"]
    assert found[0][1] == {"file": "in/m.onnx", "title": "edgedistill: Size growth"}
    assert found[0][2].startswith("REGRESS: m.onnx: +1 B (+0.0000100 %), allowed 1 % (why; look)")
    strict = [parsed(line)[0] for line in workflow_commands(make_check(strict=True), None)]
    assert strict == ["error"] * 4


@given(name=NAMES)
def test_any_name_is_text_in_an_annotation(name: str) -> None:
    lines = workflow_commands(make_check(name, note=name), name or None)
    assert len(lines) == 4 and not any(re.search(r"[\r\n]", line) for line in lines)
    for line, row in zip(lines, (r for r in make_check().rows if r.status != "pass"), strict=True):
        command, properties, message = parsed(line)
        assert command in ("error", "warning")
        assert set(properties) <= {"file", "title"}
        assert properties["title"] == f"edgedistill: {words.title(row)}"
        assert message.startswith(words.STATUS_WORD[row.status])


# Markdown


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_text_in_markdown(name: str) -> None:
    page = (
        MarkdownIt("commonmark", {"html": True})
        .enable("table")
        .render(markdown(make_check(name, note=name)))
    )
    assert (
        "<img" not in page and "<script" not in page and "<a " not in page and "<strong" not in page
    )
    assert page.count("<table>") == 2
    limits, layers = re.findall(r"<tbody>(.*?)</tbody>", page, re.DOTALL)
    assert (limits.count("<tr>"), layers.count("<tr>")) == (5, 3)
    assert all(row.count("<td") == 6 for row in limits.split("</tr>")[:-1])


def test_markdown_folds_what_grew_and_says_who_set_a_limit() -> None:
    text = markdown(make_check())
    assert text.startswith("## ❌ FAIL: m.onnx misses two.")
    assert "<details><summary>What changed in size (3)</summary>" in text
    assert (
        "Limits: size growth by m.onnx; latency growth, top-1 drop, latency, top-1 by default."
        in text
    )
