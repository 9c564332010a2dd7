"""`edgedistill bench`: a bundle, a bare ONNX file or a run, timed here or on a board, alone or against another file.

The kit that measures is the one of this edgedistill, also in an older bundle, so that it knows what is asked of it; the
files are those of the bundle, by their hashes. What a board or this machine measured of a run is recorded in it: the
run is held from before the measurement, and the document is written where it is wanted before anything is made of it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ontarget.contract import MANIFEST, Bundle

from edgedistill.errors import UsageError
from edgedistill.evidence.bench import Here, Target, compare, latency_rows
from edgedistill.evidence.board.address import Address, parse_address
from edgedistill.evidence.view import figures
from edgedistill.files import write_atomic
from edgedistill.latencyresult import Comparison, Latency, Tier
from edgedistill.progress import Face
from edgedistill.result import Result
from edgedistill.target.device import device_names, load_device
from edgedistill.target.fingerprint import UNKNOWN, Declared, declared, identify, namesakes
from edgedistill.target.measured import HOST

if TYPE_CHECKING:
    from edgedistill.evidence.board.remote import SshTarget

ENGINE = "engine"
NO_DEVICE = Declared(UNKNOWN, "unknown device", UNKNOWN)


@dataclass(frozen=True)
class BenchRequest:
    """What a person asked for. `subject` and `compare` are a bundle, an ONNX file or a run; `None` is the default.

    `wanted` is what the numbers are for where no `device` is named and the caller knows it; `compare_model` is the
    model of `compare`, else the one of the same name, else the chosen one.
    `json` is where the kit document goes as soon as there is one, or the comparison.
    """

    subject: Path
    target: str | None = None
    device: str | None = None
    compare: Path | None = None
    model: str | None = None
    provider: str | None = None
    threads: str | None = None
    fps: float | None = None
    end_to_end: bool = False
    tier: Tier = "default"
    wanted: Declared | None = None
    compare_model: str | None = None
    json: Path | None = None


@dataclass(frozen=True)
class Benched:
    """What was measured: the kit document, its rows by model, or a comparison; of a run also its result."""

    name: str
    device: str
    document: dict[str, Any]
    rows: dict[str, list[Latency]]
    remote: bool = False
    comparison: Comparison | None = None
    result: Result | None = None
    run: Path | None = None


def bench(request: BenchRequest, face: Face) -> Benched:
    """Measure. Raises `UsageError`, `DocumentError`, or `StoppedError` for a measurement that is not valid."""
    address = parse_address(request.target) if request.target is not None else None
    if request.compare is not None and (request.fps is not None or request.end_to_end):
        raise UsageError(
            "--compare times the models alone, back to back: leave --fps and --end-to-end out"
        )
    with contextlib.ExitStack() as stack:
        if request.compare is None and _is_run(request.subject):
            from edgedistill.recording import held

            stack.enter_context(held(request.subject))
        aside = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgedistill-bench-")))
        folder = stack.enter_context(_bundle_of(request.subject, aside / "subject"))
        bundle = _read(folder)
        _require_model(bundle, request.model)
        board = stack.enter_context(_board(address, face)) if address is not None else None
        wanted = _device(request, bundle, board)
        if request.compare is not None:
            other = stack.enter_context(_bundle_of(request.compare, aside / "other"))
            return _compared(request, folder, other, board, wanted, face)
        provider = request.provider or _provider(wanted, board, face)
        place = (
            _staged(folder, aside / "bundle") if _needs_staging(folder, board, provider) else folder
        )
        target: Target = board or Here()
        if board is not None and provider == ENGINE:
            face.say("building engines on the board, which takes minutes")
            build = ["build-engine", *_model(request)]
            board.run(place, build, aside / "engines.json", face)
        out = aside / "kit.json"
        try:
            document = target.run(place, _arguments(request, provider), out, face)
        finally:  # what was measured is there, whatever comes of it
            _keep(out, request.json)
        return _measured(request, bundle, document, wanted, out, face)


def _keep(document: Path, place: Path | None) -> None:
    """A copy of what the kit wrote, to the byte, where one is wanted and something was written."""
    if place is not None and document.is_file():
        write_atomic(place, document.read_bytes())


def _measured(
    request: BenchRequest,
    bundle: Bundle,
    document: dict[str, Any],
    wanted: Declared,
    out: Path,
    face: Face,
) -> Benched:
    """The rows; of a run, recorded in it."""
    run = request.subject if _is_run(request.subject) else None
    rows, remote = latency_rows(document, wanted, ""), request.target is not None
    for words in failures(document):
        face.warn(words)
    if run is None:
        return Benched(bundle.name, wanted.name, document, rows, remote)
    from edgedistill.recording import record

    result, _ = record(out, run, face.warn)
    return Benched(bundle.name, wanted.name, document, rows, remote, result=result, run=run)


def failures(document: Mapping[str, Any]) -> list[str]:
    """What of a bundle the kit could not measure, a line each."""
    found = document.get("failures")
    parts = [f for f in found if isinstance(f, dict)] if isinstance(found, list) else []
    return [
        figures.short(
            f"not measured: {f.get('model')}, threads {f.get('threads')}: {f.get('text')}", 400
        )
        for f in parts[:20]
    ]


def _compared(
    request: BenchRequest,
    new: Path,
    old: Path,
    board: SshTarget | None,
    wanted: Declared,
    face: Face,
) -> Benched:
    """Both files in turns, on one count of threads."""
    threads = request.threads or "1"
    if not threads.isdigit():
        raise UsageError(
            f"--compare runs with one count of threads, got {threads}: give --threads 1"
        )
    if board is not None and request.provider == ENGINE:
        raise UsageError(
            "engines are compared on the board itself, where they lie: build-engine in both bundles, then  "
            "python3 ontarget.pyz compare . --other ../old --provider engine"
        )
    names = {m.name for m in _read(old).models}
    other = request.compare_model or (request.model if request.model in names else None)
    found = compare(
        old, new, board or Here(), face, tier=request.tier, provider=request.provider or "cpu",
        threads=int(threads), device=wanted,
        models=(other, request.model),
    )  # fmt: skip
    if request.json is not None:
        write_atomic(request.json, found.model_dump_json(indent=1) + "\n")
    return Benched(_read(new).name, wanted.name, {}, {}, board is not None, comparison=found)


def _arguments(request: BenchRequest, provider: str) -> list[str]:
    """The command of the kit."""
    arguments = [
        "bench",
        "--provider",
        provider,
        "--threads",
        request.threads or "1,0",
        *_model(request),
    ]
    arguments += [f"--{request.tier}"] if request.tier != "default" else []
    arguments += ["--fps", f"{request.fps:g}"] if request.fps is not None else []
    return [*arguments, *(["--end-to-end"] if request.end_to_end else [])]


def _model(request: BenchRequest) -> list[str]:
    return ["--model", request.model] if request.model is not None else []


def _is_run(path: Path) -> bool:
    return (
        path.is_dir() and not (path / MANIFEST).is_file() and (path / "bundle" / MANIFEST).is_file()
    )


@contextlib.contextmanager
def _bundle_of(subject: Path, aside: Path) -> Iterator[Path]:
    """The folder of a bundle for what a person named."""
    from edgedistill.deploy.archive import opened
    from edgedistill.deploy.bare import bare_bundle

    if _is_run(subject):
        yield subject / "bundle"
    elif subject.is_file() and subject.suffix.lower() == ".onnx":
        aside.mkdir(parents=True)
        yield bare_bundle(subject, aside)
    else:
        with opened(subject) as folder:
            yield folder


def _read(folder: Path) -> Bundle:
    from edgedistill.deploy.archive import read_bundle

    return read_bundle(folder)


def _require_model(bundle: Bundle, name: str | None) -> None:
    names = [m.name for m in bundle.models]
    if name is not None and name not in names:
        raise UsageError(f"--model {name}: the bundle has {', '.join(names)}")


@contextlib.contextmanager
def _board(address: Address, face: Face) -> Iterator[SshTarget]:
    from edgedistill.evidence.board.remote import SshTarget

    with SshTarget(address, face) as board:
        yield board


def _device(request: BenchRequest, bundle: Bundle, board: SshTarget | None) -> Declared:
    """What the numbers are for: the device that was asked for, else the bundle's, else what the board is."""
    if request.device is not None:
        return declared(load_device(request.device))
    if request.wanted is not None:
        return request.wanted
    if _is_run(request.subject):
        from edgedistill.result import load
        from edgedistill.target.fingerprint import declared_in

        return declared_in(load(request.subject).device)
    if bundle.device in device_names() and not (bundle.device == HOST and board is not None):
        return declared(load_device(bundle.device))
    if board is None:
        return declared(load_device(HOST))
    found = identify(board.machine())
    return found[0] if len(found) == 1 else NO_DEVICE


def _provider(wanted: Declared, board: SshTarget | None, face: Face) -> str:
    """What runs the models where nobody said: on a board, what the device is for, and why is said."""
    if board is None:
        return "cpu"
    if wanted.name != UNKNOWN:
        provider = ENGINE if _builds(wanted) else "cpu"
        face.say(f"running with --provider {provider}, as the numbers are for {wanted.title}")
        return provider
    machine = board.machine()
    alike = namesakes(machine)
    provider = ENGINE if alike and all(_builds(d) for d in alike) else "cpu"
    name = " ".join("".join(c for c in str(machine.get("board") or "") if c.isprintable()).split())
    why = f'the board is "{name[:80]}"' if name else "the board gives no name"
    mode = machine.get("power_mode")
    if alike:
        why += f" in power mode {str(mode)[:40]!a}" if mode else ", its power mode cannot be read"
        why += f", and it fits not exactly one of {', '.join(d.name for d in alike)}"
    else:
        why += ", which no profile knows" if name else ""
    face.say(f"running with --provider {provider}: {why}. To say it yourself, give --device")
    return provider


def _builds(wanted: Declared) -> bool:
    return wanted.kind == "nvidia_gpu"


def _needs_staging(folder: Path, board: SshTarget | None, provider: str) -> bool:
    """Whether the kit must not run in the bundle's own folder: it is another kit. Engines of this machine lie there."""
    from edgedistill.deploy.bundle import KIT, kit_bytes

    kit = folder / KIT
    same = kit.is_file() and kit.read_bytes() == kit_bytes()
    return not same and (board is not None or provider != ENGINE)


def _staged(folder: Path, place: Path) -> Path:
    """The bundle in another folder, with the kit of this edgedistill; nothing is copied where a link does."""
    from edgedistill.deploy.archive import known_files
    from edgedistill.deploy.bundle import KIT, SHIPPED_BESIDE, beside_bytes, kit_bytes

    own: dict[str, Callable[[], bytes]] = {
        KIT: kit_bytes,
        **{n: partial(beside_bytes, n) for n in SHIPPED_BESIDE},
    }
    for name in known_files(_read(folder)):
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name in own:
            path.write_bytes(own[name]())
            continue
        try:
            os.link(folder / name, path)
        except OSError:
            shutil.copyfile(folder / name, path)
    return place
