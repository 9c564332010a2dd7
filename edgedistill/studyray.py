"""The runs of a study on a Ray cluster: the same runs in the same folder, each a task of Ray's, which begins it again
where its worker is lost. Ray is imported inside.

The folder must be one that every node sees, as for several processes without Ray. What a lost worker had in hand goes
on from its last checkpoint.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedistill.errors import EdgedistillError, MissingExtraError, UsageError
from edgedistill.ledgering import keep
from edgedistill.progress import silent
from edgedistill.rundir import RunDir
from edgedistill.studybuild import StudyBuild, naming
from edgedistill.studyfile import Study
from edgedistill.studyrun import Engine, Progress, Unit

TRIES = 20
"""How often a run is begun again whose worker was lost."""
STORE_BYTES = 100_000_000
REACH_S = 5.0
PASSED_ON = ("EDGEDISTILL_", "HF_", "GOMP_", "OMP_WAIT")
"""Beginnings of the variables that a worker has from the driver."""


@dataclass(frozen=True)
class Cluster:
    """Where the runs go: the address of a Ray cluster, or `None` for one on this machine with so many `workers`."""

    address: str | None = None
    workers: int | None = None


def on_ray(cluster: Cluster) -> Engine:
    """An engine that has the runs done by a cluster."""
    return lambda progress: _run(progress, cluster)


def _run(progress: Progress, cluster: Cluster) -> None:
    """Raises `MissingExtraError` without Ray, `UsageError` where there is no such cluster, and what a run raises."""
    try:
        import ray
    except ImportError:
        raise MissingExtraError("--engine ray", "ray") from None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    _reach(cluster.address)
    try:
        ray.init(
            address=cluster.address, include_dashboard=False, log_to_driver=False,
            configure_logging=False, **_local(cluster),
        )  # fmt: skip
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _unusable(cluster.address, str(error).splitlines()[0]) from None
    try:
        _all(ray, progress)
    finally:
        ray.shutdown()


def _reach(address: str | None) -> None:
    """Raise `UsageError` at once where nobody listens; Ray itself tries for minutes."""
    host, colon, port = (address or "").rpartition("://")[2].rpartition(":")
    if not colon:
        return
    if not (host and port.isdecimal() and 0 < int(port[:6]) < 65536):
        raise _unusable(address, "an address is auto, HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()
    except OSError as error:
        raise _unusable(address, str(error.strerror or error)) from None


def _unusable(address: str | None, why: str) -> UsageError:
    return UsageError(
        f"the Ray cluster {address or 'on this machine'} cannot be used: {why[:300]}. Without --engine ray this "
        "process does the runs, and the same command in other terminals takes its share."
    )


def _local(cluster: Cluster) -> dict[str, Any]:
    """What a cluster on this machine is made with."""
    if cluster.address is not None:
        return {}
    return {"num_cpus": cluster.workers, "object_store_memory": STORE_BYTES}


def _all(ray: Any, progress: Progress) -> None:
    has, request = ray.cluster_resources(), progress.request
    gpus, cpus = has.get("GPU", 0), has.get("CPU", 0)
    task = ray.remote(do_one).options(
        num_cpus=1,
        num_gpus=1 if gpus else 0,
        max_retries=TRIES,
        runtime_env={"env_vars": {k: v for k, v in os.environ.items() if k.startswith(PASSED_ON)}},
    )
    todo, out = progress.left(), str(request.out.resolve())
    progress.face.say(f"{len(todo)} runs on a Ray cluster of {cpus:.0f} CPUs and {gpus:.0f} GPUs")
    waiting = {task.remote(request.study, out, request.command, unit): unit for unit in todo}
    while waiting:
        (done, *_), _ = ray.wait(list(waiting), num_returns=1)
        unit = waiting.pop(done)
        fault = ray.get(done)
        if fault is not None:
            raise _Failed(*fault)
        progress.tell(unit)


class _Failed(EdgedistillError):
    """A user's fault in a run on another node."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def do_one(study: Study, out: str, command: str, unit: Unit) -> tuple[str, int] | None:
    """One run, on a worker; gives a user's fault with its exit code, `None` where it went well."""
    entry = next(arm for arm in study.arms if arm.name == unit.name)
    try:
        with RunDir(Path(out), shared=True) as run, naming(unit.words):
            build = StudyBuild(entry, Path(out), command, run, silent())
            with run.holding(f"runs/{unit.name}@{unit.seed}"):
                keep([build.finish(unit.seed).row], silent())
    except EdgedistillError as error:
        return str(error), error.exit_code
    return None
