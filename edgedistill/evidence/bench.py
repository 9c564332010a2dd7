"""Runs the kit on a bundle in a fresh process, just as a board does, and reads what it wrote.

The kit measures and scores; nothing here touches a clock. What comes back is a kit document (`edgedistill.kit/1`).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ontarget.contract import MANIFEST, ContractError, load_bundle

from edgedistill.deploy.bundle import KIT, SHIPPED_BESIDE, beside_bytes, kit_bytes
from edgedistill.errors import DocumentError, EdgedistillError, StoppedError, UsageError
from edgedistill.evidence.kitdocument import read_document
from edgedistill.latencyresult import Comparison, Tier
from edgedistill.progress import Face
from edgedistill.recipe import BenchSection
from edgedistill.result import Evidence, Latency
from edgedistill.target.device import Device
from edgedistill.target.fingerprint import CPU, UNKNOWN, Declared, declared, match
from edgedistill.target.measured import HOST

KIT_TIMEOUT_S = 3600
OTHER = "other"
"""The folder, in a bundle that travels, of the one that it is compared with."""
OWN = {"device", "machine", "runtime", "evidence", "evidence_words", "same_class", "samples"}
"""Fields of a row that are said here, and never taken from a kit document."""
X86 = ("x86_64", "amd64", "x86", "i386", "i686")


def run_kit(bundle: Path, arguments: list[str], face: Face) -> None:
    """Run one command of a bundle's own `ontarget.pyz`, with the bundle as the current folder.

    Raises `UsageError` (the kit's own words) for a provider that is not here, and `StoppedError` for a measurement
    that is not valid.
    """
    folder = bundle.resolve()
    command = [sys.executable, str(folder / "ontarget.pyz"), *arguments, str(folder)]
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    face.detail(" ".join(command))
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=KIT_TIMEOUT_S,
            env=environment, cwd=folder, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise StoppedError(
            f"the kit did not end within {KIT_TIMEOUT_S} s ({arguments[0]}). Give the same command again."
        ) from None
    if done.returncode == 0:
        return
    text = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}")[-1500:]
    kinds: dict[int, type[EdgedistillError]] = {2: UsageError, 3: StoppedError}
    raise kinds.get(done.returncode, StoppedError)(f"the kit could not {arguments[0]}: {text}")


def read_kit(path: Path) -> dict[str, Any]:
    """A kit document that holds, as `read_document` has it. Raises `DocumentError`."""
    return read_document(path)[1]


class Target(Protocol):
    """Where a bundle runs: on this machine, or on a board that answers."""

    def run(self, bundle: Path, arguments: Sequence[str], out: Path, face: Face) -> dict[str, Any]:
        """Run one command of the bundle's kit there, with the bundle as the current folder; `out` is a file here for
        the kit document that comes back.
        """
        ...


class Here:
    """This machine."""

    def run(self, bundle: Path, arguments: Sequence[str], out: Path, face: Face) -> dict[str, Any]:
        """Run the kit in a fresh process. Raises as `run_kit`; but where some models were measured and others could not
        be, the document has both, with the reason in its `failures`.
        """
        out.unlink(missing_ok=True)
        try:
            run_kit(bundle, [*arguments, "--json", str(out.resolve())], face)
        except EdgedistillError:
            if not out.is_file():
                raise
            document = read_kit(out)
            if not document["rows"]:
                raise
            return document
        return read_kit(out)


class FakeTarget:
    """A target with fixed answers, for tests: `answer(bundle, arguments)` is the kit document."""

    def __init__(self, answer: Callable[[Path, Sequence[str]], dict[str, Any]]) -> None:
        self._answer = answer
        self.calls: list[tuple[Path, tuple[str, ...]]] = []

    def run(self, bundle: Path, arguments: Sequence[str], out: Path, face: Face) -> dict[str, Any]:
        """The fixed answer."""
        self.calls.append((bundle, tuple(arguments)))
        return self._answer(bundle, arguments)


def bench(
    bundle: Path, out: Path, section: BenchSection, face: Face, batch: int | None = None
) -> dict[str, Any]:
    """Latency of every model of a bundle, one thread and all threads; the kit document, raw samples in it."""
    arguments = ["bench", "--provider", section.provider, "--threads", "1,0"]
    arguments += ["--json", str(out.resolve())]
    arguments += ["--batch", str(batch or 1)]
    arguments += ["--min-seconds", str(section.min_seconds), "--min-runs", str(section.min_runs)]
    run_kit(bundle, arguments, face)
    return read_kit(out)


def evaluate(bundle: Path, evalset: Path, out: Path, logits: Path, face: Face) -> dict[str, Any]:
    """Every model of a bundle over an evaluation set; logits go to the .npz file `logits`."""
    arguments = ["eval", "--evalset", str(evalset.resolve())]
    arguments += ["--json", str(out.resolve()), "--logits", str(logits.resolve())]
    run_kit(bundle, arguments, face)
    return read_kit(out)


def grade(
    device: Device | Declared, machine: Mapping[str, Any], provider: str | None = None
) -> Evidence:
    """How a measurement of a machine counts for a device: on the target only where it is known to be it."""
    fits = match(declared(device), machine, provider).fits
    return "measured_on_target" if fits else "measured_on_proxy"


def same_class(device: Device | Declared, machine: Mapping[str, Any]) -> bool:
    """Whether this machine's processor is of the device's class, so that a proxy says something about a limit."""
    arch = str(machine.get("arch") or "").lower()
    if arch.startswith(("arm", "aarch64")):
        return device.kind == "arm_cpu"
    return device.kind == "x86_cpu" and arch in X86


def other_kind(device: Device | Declared, machine: Mapping[str, Any], provider: str) -> str:
    """Why a ratio that a machine measured on `provider` is none of the device, in words; empty where it is one of the
    same kind of processor, which is all that a ratio needs. A device that has no name is the machine itself.
    """
    wanted = declared(device)
    if wanted.name in (HOST, UNKNOWN):
        return ""
    if wanted.kind == "nvidia_gpu":
        return "a ratio of the processor, not of the GPU" if provider == CPU else ""
    if wanted.kind == "npu":
        return "a ratio of the processor, not of the NPU"
    if wanted.kind == UNKNOWN:
        return f"a ratio of this machine, and what {wanted.title} is is not known: say it with --device"
    if provider == CPU and same_class(wanted, machine):
        return ""
    arch = str(machine.get("arch") or "an unknown kind")
    ran = f"a processor of another kind ({arch})" if provider == CPU else f"a GPU ({provider})"
    return f"a ratio of {ran}, not of the processor of {wanted.title}"


def latency_rows(
    document: Mapping[str, Any],
    device: Device | Declared,
    samples: str,
    here: Mapping[str, Any] | None = None,
) -> dict[str, list[Latency]]:
    """Measured rows of a kit document by model name; each names what it was measured on. `here`: as in `match`.

    Raises `DocumentError` for what no row can be made of; `samples` is its name.
    """
    try:
        return _latency_rows(document, declared(device), samples, here)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DocumentError(
            f"the kit document {samples} does not hold: {str(error)[:300]}"
        ) from None


def _latency_rows(
    document: Mapping[str, Any], wanted: Declared, samples: str, here: Mapping[str, Any] | None
) -> dict[str, list[Latency]]:
    machine = document["machine"]
    cpu = str(machine.get("cpu") or "unknown processor")
    known = set(Latency.model_fields) - OWN
    rows: dict[str, list[Latency]] = {}
    for row in document["rows"]:
        found = match(wanted, machine, row["provider"], here)
        own = {key: value for key, value in row.items() if key in known and value is not None}
        rows.setdefault(row["model"], []).append(
            Latency(
                **own,
                device=wanted.name if found.fits else cpu,
                machine=cpu,
                runtime=f"{row['runtime']} {row['runtime_version']}",
                evidence="measured_on_target" if found.fits else "measured_on_proxy",
                evidence_words=found.words,
                same_class=same_class(wanted, machine),
                samples=samples,
            )
        )
    return rows


def compare(
    old: Path,
    new: Path,
    target: Target,
    face: Face,
    *,
    tier: Tier = "default",
    provider: str = "cpu",
    threads: int = 1,
    device: Device | Declared | None = None,
    models: tuple[str | None, str | None] = (None, None),
) -> Comparison:
    """How much slower the model of the bundle `new` is than that of `old`, timed in turns on the target; `models` are
    their names, None for the chosen one. Without a device the machine that measures is the one that counts.

    The kit of this installation runs both, so that a bundle of an older one can be compared. Raises as `Target.run`.
    """
    with tempfile.TemporaryDirectory(prefix="edgedistill-compare-") as name:
        folder = Path(name) / "new"
        for source, model, place in zip((old, new), models, (folder / OTHER, folder), strict=True):
            _alone(source, model, place)
        arguments = ["compare", "--other", OTHER, "--provider", provider, "--threads", str(threads)]
        arguments += [] if tier == "default" else [f"--{tier}"]
        document = target.run(folder, arguments, Path(name) / "compare.json", face)
    machine, found = document["machine"], document.get("compare")
    if found is None:
        raise DocumentError(
            f"the kit timed {new} against {old} and wrote no comparison. Give the command again."
        )
    evidence: Evidence = "measured_on_target"
    words = ""
    if device is not None:
        evidence = grade(device, machine, found["provider"])
        if evidence != "measured_on_target":
            words = other_kind(device, machine, found["provider"])
    known = set(Comparison.model_fields) - OWN | {"runtime"}
    return Comparison(
        **{key: value for key, value in found.items() if key in known},
        machine=str(machine.get("cpu") or "unknown processor"), evidence=evidence,
        evidence_words=words, same_class=not words,
    )  # fmt: skip


def _alone(source: Path, model: str | None, place: Path) -> None:
    """A bundle of one model of another one, the chosen one for None, with the kit of this installation; files are
    linked where that can be.

    Raises `DocumentError` for a damaged bundle, or one without that model.
    """
    source = source.resolve()
    try:
        bundle = load_bundle(source)
        wanted = bundle.model(model)
    except ContractError as error:
        raise DocumentError(str(error)) from None
    tree = json.loads((source / MANIFEST).read_text("utf-8"))
    tree.update(
        models=[one for one in tree["models"] if one["name"] == wanted.name], chosen=wanted.name
    )
    place.mkdir(parents=True, exist_ok=True)
    (place / MANIFEST).write_text(json.dumps(tree), "utf-8")
    (place / KIT).write_bytes(kit_bytes())
    for name in SHIPPED_BESIDE:
        (place / name).write_bytes(beside_bytes(name))
    for path in (wanted.path, bundle.golden.path, bundle.labels_path):
        target = place / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, target)
        except OSError:
            shutil.copyfile(path, target)
