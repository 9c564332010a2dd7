"""What the commands of the kit share: progress, faults, and the document that is written."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ontarget.bench import Failure
from ontarget.contract import Bundle
from ontarget.document import document, write_json
from ontarget.machine import machine
from ontarget.opening import ENGINE
from ontarget.trt import located


def stop(text: str, code: int) -> int:
    """Say why a command ended."""
    progress("")
    print("ontarget: " + text, file=sys.stderr)
    return code


def progress(text: str) -> None:
    """A line on the terminal that the next one replaces; nothing when stderr is not a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K" + text)
        sys.stderr.flush()


def names_of(
    options: argparse.Namespace, bundle: Bundle, batch: int | None = None
) -> tuple[list[str] | None, dict[str, Path]]:
    """The models that are meant, None for all, and their engines where these are to run: without a
    name, the models that have one here.
    """
    names = [options.model] if options.model else None
    if options.provider != ENGINE:
        return names, {}
    engines = located([bundle.model(n) for n in names] if names else bundle.models, batch)
    return list(engines), engines


def write(options: argparse.Namespace, bundle: Bundle, **parts: Any) -> None:
    """Write the document of a command where `--json` asks for it."""
    progress("")
    if options.json is not None:
        write_json(options.json, document(bundle, machine(), **parts))


def failed(failures: Sequence[Failure]) -> int:
    """Say what failed; the exit code of that, 0 for nothing."""
    for failure in failures:
        print(
            f"ontarget: {failure.model}, threads {failure.threads}: {failure.text}", file=sys.stderr
        )
    return max([failure.exit_code for failure in failures], default=0)
