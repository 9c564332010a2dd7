"""JUnit XML of a result or a check: a test case a limit, as GitLab, Jenkins and others show them.

A limit that is not decided is skipped, with the reason, unless --strict makes it a failure. Only what the schema of
Jenkins' xUnit plug-in (junit-10.xsd) knows is written.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass

from edgedistill.checkresult import Check
from edgedistill.evidence.view import checkwords as words
from edgedistill.evidence.view import figures
from edgedistill.result import Result


@dataclass(frozen=True)
class Case:
    """One limit: its name, how it ended ("" is passed) and why."""

    name: str
    ended: str
    message: str
    detail: str = ""


def junit(subject: Result | Check) -> str:
    """The document as XML text, ends with a newline."""
    cases = list(_of_check(subject) if isinstance(subject, Check) else _of_result(subject))
    name = subject.new.name if isinstance(subject, Check) else subject.run
    failures = sum(case.ended == "failure" for case in cases)
    counts = {"tests": str(len(cases)), "failures": str(failures), "errors": "0"}
    root = ET.Element("testsuites", {"name": "edgedistill", **counts})
    skipped = str(sum(case.ended == "skipped" for case in cases))
    suite = ET.SubElement(
        root,
        "testsuite",
        {"name": figures.short(name, 200) or "model", **counts, "skipped": skipped},
    )
    for case in cases:
        about = {"name": case.name, "classname": f"edgedistill.{figures.short(name, 200)}"}
        item = ET.SubElement(suite, "testcase", about)
        if case.ended:
            ET.SubElement(item, case.ended, {"message": figures.short(case.message, 1000)})
        if case.detail:
            ET.SubElement(item, "system-out").text = figures.short(case.detail, 4000)
    ET.indent(root, " ")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, "unicode")}\n'


def _of_check(check: Check) -> Iterator[Case]:
    for row in check.rows:
        ended = {"pass": "", "fail": "failure", "regress": "failure"}.get(
            row.status, "failure" if check.strict else "skipped"
        )
        seen = f"{words.observed(row)}, allowed {words.allowed(row)}"
        message = f"{words.STATUS_WORD[row.status]}: {seen}"
        yield Case(
            words.title(row), ended, message, "; ".join(filter(None, (seen, words.note(row))))
        )


def _of_result(result: Result) -> Iterator[Case]:
    for row in result.verdict.rows:
        ended = {"pass": "", "fail": "failure"}.get(row.status, "skipped")
        limit, seen = figures.limit_numbers(row)
        told = f"{seen} ({figures.limit_evidence(row)}), allowed {limit}"
        detail = "; ".join(filter(None, (told, row.note, row.advice)))
        yield Case(
            figures.limit_name(row), ended, f"{figures.STATUS_WORD[row.status]}: {told}", detail
        )
