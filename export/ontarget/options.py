"""The command line of the kit: commands, options and their help, with examples."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ontarget import __version__
from ontarget.opening import ENGINE
from ontarget.session import PROVIDERS

EXAMPLES = """\
examples:
  python3 ontarget.pyz info .                        what is in this bundle
  python3 ontarget.pyz check .                       are the files whole, are the outputs right here
  python3 ontarget.pyz bench . --json result.json    how fast, with the samples
  python3 ontarget.pyz bench . --quick --threads 1   a first look in seconds
  python3 ontarget.pyz bench . --fps 30 --end-to-end   as a camera would ask, from picture to class
  python3 ontarget.pyz compare . --other ../old      how much slower than another bundle, in turns
  python3 ontarget.pyz eval . --evalset ../evalset   how often right, for every model
  python3 ontarget.pyz predict cat.jpg .             what is in this picture
  python3 ontarget.pyz build-engine .                TensorRT engines for this very GPU
  python3 ontarget.pyz bench . --provider engine     how fast they are
"""


HELP = {
    "info": "what is in the bundle, and what this machine is",
    "check": "hashes, golden outputs and provider; exit code 1 on a mismatch",
    "bench": "latency and memory, each model in a fresh process",
    "compare": "one model against that of another bundle, in turns, with an interval",
    "eval": "top-1 of every model over an evaluation set",
    "predict": "classes of one picture (needs Pillow)",
    "build-engine": "TensorRT engines for this GPU, checked and timed; the faster accurate one is named",
}


def parser() -> argparse.ArgumentParser:
    """The parser of every command; `command` says which one was given."""
    top = argparse.ArgumentParser(
        prog="ontarget.pyz",
        description="Runs, checks and measures an edgedistill bundle on this machine.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"ontarget {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    commands.required = True
    for name in HELP:
        command = _command(commands, name)
        if name == "predict":
            command.add_argument("image", metavar="IMAGE", help="a picture file")
        text = "the bundle folder (default: here)"
        command.add_argument("bundle", nargs="?", default=".", metavar="BUNDLE", help=text)
        text = "also write the result to FILE"
        command.add_argument("--json", metavar="FILE", type=Path, help=text)
        if name == "build-engine":
            _building(command)
        elif name != "info":
            _running(command, name)
        if name in ("bench", "eval", "compare"):
            _batches(command, name)
        if name in ("bench", "compare"):
            _tiers(command, name)
        if name == "bench":
            _timing(command)
        if name == "compare":
            _other(command)
        if name == "eval":
            text = "default: evalset beside the bundle"
            command.add_argument("--evalset", metavar="FOLDER", type=Path, help=text)
            text = "write arrays logits_<model> (N, C)"
            command.add_argument("--logits", metavar="FILE.npz", type=Path, help=text)
    return top


def _command(commands: Any, name: str) -> argparse.ArgumentParser:
    lines = [line for line in EXAMPLES.splitlines() if f" {name} " in line]
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=HELP[name],
        description=HELP[name][0].upper() + HELP[name][1:] + ".",
        epilog="\n".join(["examples:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return command


def _running(command: argparse.ArgumentParser, name: str) -> None:
    which = "the chosen one" if name in ("predict", "compare") else "all"
    text = f"one model of the bundle (default: {which})"
    command.add_argument("--model", metavar="NAME", help=text)
    text = "default: cpu; engine: what build-engine made here"
    choices = [*PROVIDERS, ENGINE]
    command.add_argument("--provider", choices=choices, default="cpu", help=text)
    if name == "bench":
        text = "counts of threads with commas, 0 = all cores (default: 1,0)"
        command.add_argument("--threads", type=_threads, default="1,0", metavar="N,N", help=text)
    elif name != "check":
        usual = "1" if name == "compare" else "0"
        text = f"threads, 0 = all cores (default: {usual})"
        command.add_argument("--threads", type=_count, default=usual, metavar="N", help=text)


def _building(command: argparse.ArgumentParser) -> None:
    text = "one model of the bundle (default: float16, and INT8 made for TensorRT)"
    command.add_argument("--model", metavar="NAME", help=text)
    text = "images of a batch (default: 1)"
    command.add_argument("--batch", type=_positive, default=1, metavar="N", help=text)
    text = "build for this DLA core; what it cannot run goes to the GPU"
    command.add_argument("--dla", type=_core, metavar="CORE", help=text)
    text = "memory while building (default: a quarter of the free memory, at most 2048)"
    command.add_argument("--workspace-mib", type=_positive, metavar="MIB", help=text)
    text = "points of top-1 that the faster engine may lose (default: 1)"
    command.add_argument("--max-drop", type=_points, default=1.0, metavar="POINTS", help=text)
    text = "build again where an engine is there already"
    command.add_argument("--again", action="store_true", help=text)


def _batches(command: argparse.ArgumentParser, name: str) -> None:
    batch = 32 if name == "eval" else 1
    text = f"images a run (default: {batch})"
    command.add_argument("--batch", type=_positive, default=batch, metavar="N", help=text)
    if name != "compare":
        text = "pixels uint8 (N, S, S, 3) in place of the bundle's"
        command.add_argument("--images", metavar="FILE.npy", type=Path, help=text)


def _tiers(command: argparse.ArgumentParser, name: str) -> None:
    group = command.add_mutually_exclusive_group()
    about = {
        "bench": ("0.5 s and 64 runs: enough for a p90", "60 s and 6,636 runs: enough for a p99.9"),
        "compare": ("10 pairs of processes in place of 20", "40 pairs, longer ones"),
    }[name]
    for tier, text in zip(("quick", "thorough"), about):
        group.add_argument(f"--{tier}", dest="tier", action="store_const", const=tier, help=text)
    command.set_defaults(tier="default")


def _timing(command: argparse.ArgumentParser) -> None:
    text = "measure at least so long (default: 3)"
    command.add_argument("--min-seconds", type=_seconds, metavar="S", help=text)
    text = "measure at least so many runs (default: 662, for a p99)"
    command.add_argument("--min-runs", type=_positive, metavar="N", help=text)
    text = "a run begins when its frame is due, so many a second (default: back to back)"
    command.add_argument("--fps", type=_rate, metavar="N", help=text)
    text = "from the bytes of a picture to its class, with the time of each part (needs Pillow)"
    command.add_argument("--end-to-end", action="store_true", help=text)
    text = "pictures for --end-to-end (default: the golden images as JPEG)"
    command.add_argument("--pictures", metavar="FOLDER", type=Path, help=text)
    text = "seconds of every operator as well, in the file of --json"
    command.add_argument("--operators", action="store_true", help=text)


def _other(command: argparse.ArgumentParser) -> None:
    text = "the other bundle, the older of the two"
    command.add_argument("--other", metavar="BUNDLE", type=Path, required=True, help=text)
    text = "one model of the other bundle (default: the chosen one)"
    command.add_argument("--other-model", metavar="NAME", help=text)


def _count(text: str) -> int:
    value = int(text) if text.isdigit() and len(text) < 6 else -1
    if not 0 <= value <= 1024:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a count of threads from 0 (all cores) to 1024"
        )
    return value


def _threads(text: str) -> list[int]:
    return [_count(part.strip()) for part in text.split(",")]


def _positive(text: str) -> int:
    value = int(text) if text.isdigit() and len(text) < 10 else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return value


def _core(text: str) -> int:
    if text not in ("0", "1"):
        raise argparse.ArgumentTypeError(f"{text!r} is no DLA core: 0 or 1")
    return int(text)


def _points(text: str) -> float:
    return _number(text, "points", 100)


def _rate(text: str) -> float:
    value = _number(text, "frames a second", 10_000)
    if value < 0.1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of frames a second from 0.1 to 10000"
        )
    return value


def _seconds(text: str) -> float:
    return _number(text, "seconds", 3600)


def _number(text: str, unit: str, most: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of {unit} from 0 to {most}")
    return value
