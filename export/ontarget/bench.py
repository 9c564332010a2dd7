"""Measures models of a bundle, each in a fresh process, so that neither time nor memory is that of
a neighbour.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ontarget.contract import Bundle, ContractError
from ontarget.measure import Timing
from ontarget.opening import ENGINE
from ontarget.session import ProviderError, SessionError, cores

CRASHES = ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE")


@dataclass(frozen=True)
class What:
    """What is measured: the model alone on batches of the golden images, or of those of the `.npy` file `images`; or,
    `end_to_end`, from the bytes of a picture to its class, with the pictures of a folder.

    `energy` reads the board's power sensors after the timing; `operators` times every operator, too.
    """

    batch: int = 1
    images: Path | None = None
    end_to_end: bool = False
    pictures: Path | None = None
    energy: bool = True
    operators: bool = False


@dataclass(frozen=True)
class Failure:
    """A measurement that did not come about; `exit_code` 2 is a fault of the input, 3 of the
    measurement.
    """

    model: str
    threads: int
    text: str
    exit_code: int


def each(
    bundle: Bundle, names: Sequence[str] | None, run: Callable[[str], None], threads: int = 1
) -> list[Failure]:
    """Call `run` with the name of each model, None for all; one that cannot run is a failure and does not end the
    others. Raises ProviderError, which is no fault of a file.
    """
    failures = []
    for model in [bundle.model(name) for name in (names or [m.name for m in bundle.models])]:
        try:
            run(model.name)
        except ProviderError:
            raise
        except (ContractError, SessionError) as error:
            failures.append(Failure(model.name, threads, str(error), 2))
    return failures


def worker_command(what: str = "_worker") -> tuple[list[str], str]:
    """The command that runs a worker ("_session" is that of `apart.py`), and the folder to run it
    in: from a zipapp, or from the package's folder.
    """
    package = Path(__file__).resolve().parent
    for parent in package.parents:
        if parent.is_file():
            return [sys.executable, str(parent), what], str(parent.parent)
    return [sys.executable, "-m", "ontarget", what], str(package.parent)


def worker_environment(threads: int) -> dict[str, str]:
    """The environment of a worker: libraries keep to `threads`, and waiting threads sleep instead
    of spinning.
    """
    env = dict(os.environ)
    env.update(
        OMP_WAIT_POLICY="PASSIVE",
        GOMP_SPINCOUNT="0",
        OMP_NUM_THREADS=str(threads),
        OPENBLAS_NUM_THREADS="1",
        MKL_NUM_THREADS="1",
        PYTHONIOENCODING="utf-8",
    )
    if env.get("PYTHONPATH"):
        paths = env["PYTHONPATH"].split(os.pathsep)
        env["PYTHONPATH"] = os.pathsep.join(os.path.abspath(p) for p in paths if p)
    return env


def bench_bundle(
    bundle: Bundle,
    models: Sequence[str] | None = None,
    provider: str = "cpu",
    threads: Sequence[int] = (1, 0),
    what: What = What(),
    timing: Timing = Timing(),
    progress: Callable[[str], None] | None = None,
    engines: Mapping[str, Path] = {},
) -> tuple[list[dict[str, Any]], list[Failure]]:
    """Measure each model with each count of threads (0 is all cores; equal counts run once).

    `models` None is all of them. Returns the rows of the kit document and what failed; one failure
    does not end the others. `engines` are those to run, by the names of their models, where the
    provider is "engine". Raises ContractError for an unknown model.
    """
    chosen = [bundle.model(name) for name in (models or [m.name for m in bundle.models])]
    counts: list[int] = []
    for count in (1,) if provider == ENGINE else threads:
        if (count or cores()) not in counts:
            counts.append(count or cores())
    rows: list[dict[str, Any]] = []
    failures: list[Failure] = []
    jobs = [(model, count) for model in chosen for count in counts]
    for index, (model, count) in enumerate(jobs):
        if progress is not None:
            progress(f"bench {index + 1} of {len(jobs)}: {model.name}, {provider}, threads {count}")
        request = {
            "bundle": str(bundle.folder.resolve()),
            "model": model.name,
            "provider": provider,
            "threads": count,
            "engine": str(engines[model.name]) if model.name in engines else None,
            "timing": asdict(timing),
            **asdict(what),
            "images": _whole_path(what.images),
            "pictures": _whole_path(what.pictures),
        }
        reply = run_worker(request, count, timing.max_seconds * 2 + 900)
        if reply["ok"]:
            rows.append(reply["row"])
        else:
            failures.append(Failure(model.name, count, reply["text"], reply["exit_code"]))
    return rows, failures


def _whole_path(path: Path | None) -> str | None:
    return None if path is None else str(Path(path).resolve())


def run_worker(request: dict[str, Any], threads: int, timeout_s: float) -> dict[str, Any]:
    """One request in a fresh process: its reply, or one that says how the process ended."""
    command, folder = worker_command()
    try:
        done = subprocess.run(
            command,
            input=json.dumps(request).encode("utf-8"),
            capture_output=True,
            cwd=folder,
            env=worker_environment(threads),
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _failed(
            f"the process that measured did not end within {timeout_s:g} s and was stopped"
        )
    except OSError as error:
        return _failed(f"a process to measure in could not be started: {error.strerror}")
    lines = done.stdout.decode("utf-8", "replace").strip().splitlines()
    try:
        reply = json.loads(lines[-1])
        if done.returncode == 0 and isinstance(reply, dict) and "ok" in reply:
            return reply
    except (IndexError, ValueError):
        pass
    tail = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
    return _failed(
        "the process that measured "
        + ended(done.returncode)
        + "".join(f": {t[:300]}" for t in tail)
    )


def ended(code: int) -> str:
    """How a process ended, from its return code."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    if name in CRASHES:
        hint = " (the file is damaged, or made to crash the runtime)"
    return f"was ended by {name}{hint}"


def _failed(text: str) -> dict[str, Any]:
    return {"ok": False, "text": text, "exit_code": 3}
