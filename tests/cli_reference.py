"""Writes docs/cli.md from the commands themselves: `make docs`. A test holds the file to it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer

from edgedistill.cli import app

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
HEAD = """# The command line

Every command with its options, written from the program by `make docs`. `edgedistill COMMAND --help` says the same.
Times are in milliseconds, sizes in megabytes (1 MB = 1,000,000 bytes), accuracies in per cent, drops in points.

| exit code | meaning |
|---|---|
| 0 | done; every limit is kept, or (with a warning) not yet confirmed |
| 1 | a limit is missed, a regression is found, or nothing fits; with `--strict` also what is not confirmed |
| 2 | wrong usage, recipe or input |
| 3 | stopped before the end; the same command goes on |
"""


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every command under `command` with its full name, groups before what is in them."""
    inner = getattr(command, "commands", None)
    if inner is None or name != "edgedistill":
        yield name, command
    for word, found in (inner or {}).items():
        if not found.hidden:
            yield from commands(found, f"{name} {word}")


def cell(text: str) -> str:
    """Text in a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


NAMES = {"str": "TEXT", "int": "NUMBER", "float": "NUMBER", "Path": "PATH"}


def value_of(option: Any, kind: Any) -> str:
    """What an option takes: the words that are allowed, a word in capitals, or nothing for a flag."""
    if option.is_flag or kind is bool:
        return ""
    kinds = [part for part in get_args(kind) if part is not NoneType] if kind is not None else []
    if isinstance(kind, type) and issubclass(kind, Enum):
        kinds = [member.value for member in kind]
    if kinds and (get_origin(kind) is Literal or isinstance(kind, type)):
        return " or ".join(f"`{choice}`" for choice in kinds)
    if get_origin(kind) in (Union, UnionType) and len(kinds) == 1:
        return value_of(option, kinds[0])
    if get_origin(kind) is tuple:
        return " ".join(value_of(option, part) for part in kinds)
    if get_origin(kind) is list:
        return f"{value_of(option, kinds[0])}, again for more"
    name = (option.metavar or NAMES[kind.__name__]).upper()
    ends = (option.min, option.max)
    if ends == (None, None):
        return name
    return (
        f"{name} from {ends[0]} on" if option.max is None else f"{name} from {ends[0]} to {ends[1]}"
    )


def kinds_of(command: Any) -> dict[str, Any]:
    """The type of each parameter of a command by name."""
    if command.callback is None:
        return {}
    hints = get_type_hints(inspect.unwrap(command.callback), include_extras=True)
    return {
        name: get_args(kind)[0] if get_origin(kind) is Annotated else kind
        for name, kind in hints.items()
    }


def default_of(option: Any) -> str:
    """The default, empty where there is none that would say something."""
    value = option.default
    if (
        value is None
        or value is False
        or value == ()
        or value == []
        or "Sentinel" in type(value).__name__
    ):
        return ""
    return "on" if value is True else f"`{value}`"


def option_row(option: Any, kind: Any) -> str:
    """An option as a row of the table."""
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    cells = (value_of(option, kind), default_of(option), option.help or "")
    return f"| {names} | {' | '.join(map(cell, cells))} |"


def section(name: str, command: Any) -> list[str]:
    """One command: what it does, how it is written, its arguments and options, an example."""
    found = [p for p in command.params if not getattr(p, "hidden", False) and p.name != "help"]
    arguments = [p for p in found if p.param_type_name == "argument"]
    options = [p for p in found if p.param_type_name == "option"]
    usage, kinds = [name], kinds_of(command)
    for argument in arguments:
        word = (argument.metavar or argument.name).upper().strip("[]")
        word += "..." if argument.nargs == -1 and not word.endswith("...") else ""
        usage.append(word if argument.required else f"[{word}]")
    usage += ["COMMAND"] if getattr(command, "commands", None) else []
    usage += ["[OPTIONS]"] if options else []
    blocks = [f"## {name}", command.help or "", f"`{' '.join(usage)}`"]
    if arguments:
        rows = [
            f"| `{(a.metavar or a.name).upper().strip('[]')}` | {cell(a.help or '')} |"
            for a in arguments
        ]
        blocks.append("\n".join(["| argument | |", "|---|---|", *rows]))
    if options:
        rows = [option_row(option, kinds[option.name]) for option in options]
        blocks.append("\n".join(["| option | value | default | |", "|---|---|---|---|", *rows]))
    if command.epilog:
        blocks.append(
            f"```\n{command.epilog.partition('Example:')[2].strip() or command.epilog}\n```"
        )
    return [block for block in blocks if block]


def reference() -> str:
    """The whole page; ends with a newline."""
    blocks = [HEAD.strip()]
    for name, command in commands(typer.main.get_command(app), "edgedistill"):
        blocks += section(name, command)
    return "\n\n".join(blocks) + "\n"


if __name__ == "__main__":
    PAGE.write_text(reference(), "utf-8")
    print(PAGE)
