"""The documents: every command in them parses, and every file that they name is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
from cli_reference import PAGE, reference

from benchmarks import design_space
from edgedistill.cli import app
from edgedistill.studyresult import load

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])


def commands() -> list[str]:
    found = []
    for page in PAGES:
        for block in re.findall(r"```\w*\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
            lines = [line for line in block.splitlines() if line.startswith("edgedistill ")]
            found += [line.partition("  #")[0].strip() for line in lines]
    return found


@pytest.mark.parametrize("line", commands())
def test_every_command_in_the_documents_parses(line: str) -> None:
    words = shlex.split(line)[1:]
    group = typer.main.get_command(app)
    context = group.make_context("edgedistill", words, resilient_parsing=False)
    name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
    while hasattr(command, "commands"):
        inner = command.make_context(name, rest, parent=context)
        name, command, rest = command.resolve_command(inner, [*inner._protected_args, *inner.args])
    command.make_context(name, rest, parent=context)


def test_the_documents_hold_commands() -> None:
    assert len(commands()) >= 5


def test_a_wrong_option_in_a_document_would_be_found() -> None:
    group = typer.main.get_command(app)
    command = group.commands["build"]
    with pytest.raises(Exception, match="No such option"):
        command.make_context("build", ["--latency", "3"])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_files_that_a_document_names_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    named = re.findall(r"`((?:edgedistill|benchmarks|tests|docs|export|recipes)/[\w./-]+)`", text)
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing


def test_the_reference_of_the_command_line_is_that_of_the_program() -> None:
    assert PAGE.read_text("utf-8") == reference(), "write it anew: make docs"


def test_the_reference_names_every_command_and_option() -> None:
    text = reference()
    for words in (
        "## edgedistill build\n", "## edgedistill devices measure\n", "`--latency-ms` | NUMBER",
        "`cpu` or `cuda` or `tensorrt`", "| `256` | Stored records", "`edgedistill report RUN... [OPTIONS]`",
    ):  # fmt: skip
        assert words in text
    group = typer.main.get_command(app)
    assert all(f"## edgedistill {name}\n" in text for name in group.commands)


def test_the_design_space_is_that_of_the_study_that_is_kept() -> None:
    printed = design_space.printed(load(design_space.KEPT))
    page = design_space.PAGE.read_text("utf-8")
    assert design_space.BEGIN + printed + design_space.END in page
    study = load(design_space.KEPT)
    assert len(study.arms) == 46 and all(len(arm.runs) == 3 for arm in study.arms)
    assert study.data.test >= 5000


def test_no_document_carries_a_placeholder() -> None:
    for page in PAGES:
        assert "@@" not in page.read_text("utf-8"), page


def test_make_targets_in_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"^make (\w+)", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
