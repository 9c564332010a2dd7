"""What is known of one model: a result, a bundle, an ONNX file, or a baseline that was kept of one.

Whatever is there is held against what is said of it (hashes, counts, tables), so that a damaged file is an error and
never a smaller or better model.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from edgedistill.checkresult import BASELINE, Snapshot
from edgedistill.document import parse
from edgedistill.errors import DocumentError, UsageError
from edgedistill.evidence.checks.predictions import Scored, packed, scored, unpacked
from edgedistill.files import sha256_file
from edgedistill.result import SCHEMA, Artifact, Latency, Layer, Result, load
from edgedistill.target.device import device_names, load_profile_facts
from edgedistill.target.fingerprint import UNKNOWN, Declared, declared, declared_in
from edgedistill.target.measured import HOST

MOST_BASELINE_BYTES = 2_000_000
MOST_LAYERS, LEAST_LAYER_BYTES = 100, 256
"""Layers that a baseline names: the largest, and none that is next to nothing."""
OWN = (None, HOST, UNKNOWN)
"""Devices of a file that are this machine: what is measured here is measured on the target."""
TAKES = "a result.json or a run folder, a bundle folder, or an ONNX file"


@dataclass(frozen=True)
class Subject:
    """One side of a check. `file` is the ONNX file where it is here, `latency` what a result says of it, and
    `baseline` whether it is only what was kept of a model.

    Of a bundle or a run, `bundle` is the folder with the file and `model` its name there: a file that was named as such
    is the file alone, whatever lies beside it. `wanted` is the device that they are for, where it is another than this
    machine.
    """

    facts: Snapshot
    file: Path | None = None
    device: str | None = None
    wanted: Declared | None = None
    bundle: Path | None = None
    model: str | None = None
    latency: tuple[Latency, ...] = ()
    scored: Scored | None = None
    baseline: bool = False
    lacks: str = ""


def read_subject(path: Path, option: str, *, baseline: bool) -> Subject:
    """Whatever `path` is; `baseline` says whether it may be a baseline file. Raises `DocumentError` for damage and
    `UsageError` for anything else, which names the `option` that gave it.
    """
    takes = f"{TAKES}, or a baseline file" if baseline else TAKES
    if path.name == "manifest.json":
        path = path.parent
    if path.is_dir():
        if (path / "result.json").is_file():
            return _of_run(path)
        if (path / "manifest.json").is_file():
            return _of_bundle(path)
        raise UsageError(
            f"{option}: the folder {path} holds neither result.json nor manifest.json; give {takes}"
        )
    if not path.exists():
        raise UsageError(f"{option}: {path} does not exist; give {takes}")
    if path.suffix.lower() != ".json":
        return _of_file(path)
    schema = schema_of(path)
    if schema == SCHEMA:
        return _of_run(path)
    if schema == BASELINE and baseline:
        return _of_baseline(path)
    if schema == BASELINE:
        raise UsageError(
            f"{option}: {path} is a baseline, which stands for the old model; give {takes}"
        )
    said = f"is of schema {schema[:80]!r}" if isinstance(schema, str) else "names no schema"
    raise DocumentError(f"{option}: {path} {said}; give {takes}")


def schema_of(path: Path) -> Any:
    """The schema that a JSON file names; `None` where it names none. Raises `DocumentError` for no JSON."""
    try:
        found = json.loads(path.read_bytes()[: MOST_BASELINE_BYTES * 40])
    except (OSError, ValueError, RecursionError) as error:
        raise DocumentError(f"{path} cannot be read: {str(error)[:200]}") from None
    return found.get("schema") if isinstance(found, dict) else None


def _of_file(path: Path) -> Subject:
    return Subject(
        _measured(path, path.name, None), file=path, lacks="an ONNX file alone does not tell it"
    )


def _measured(path: Path, name: str, precision: str | None) -> Snapshot:
    """The facts of an ONNX file that is here."""
    from edgedistill.deploy.graphs import facts_and_files

    found, outside = facts_and_files(path)
    files = {path.name: path.stat().st_size}
    root = path.resolve().parent
    files |= {place.relative_to(root).as_posix(): place.stat().st_size for place in outside}
    return Snapshot(
        name=name,
        precision=precision,
        sha256=_sha256([path, *outside]),
        size_bytes=found.size_bytes,
        files=files,
        opset=found.opset,
        params=found.params,
        operators=found.operators,
        layers=_by_name(found.layers),
    )


def _sha256(files: list[Path]) -> str:
    """Hash of the one file, as its bundle says it; of several, of their hashes."""
    hashes = [sha256_file(path) for path in files]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def _by_name(layers: list[Layer]) -> dict[str, int]:
    """Bytes by short name; layers whose short names are the same are added up."""
    found: dict[str, int] = {}
    for layer in layers:
        name = short_name(layer.name, layer.operator)
        found[name] = found.get(name, 0) + layer.size_bytes
    return found


def short_name(name: str, operator: str) -> str:
    """A node's name without what it says twice: `/model/blocks/blocks.1/blocks.1.0/conv/Conv` is `blocks.1.0/conv`."""
    parts = [part for part in name.split("/") if part]
    kept = [
        part
        for part, after in zip_longest(parts, parts[1:], fillvalue="")
        if not after.startswith(f"{part}.")
    ]
    if len(kept) > 1 and kept[-1] == operator:
        kept = kept[:-1]
    if len(kept) > 1 and kept[0] == "model":
        kept = kept[1:]
    return "/".join(kept) or operator


def _of_bundle(folder: Path) -> Subject:
    from ontarget.contract import ContractError, verify_hashes

    from edgedistill.deploy.archive import read_bundle

    bundle = read_bundle(folder)
    try:
        faults = verify_hashes(bundle)
    except ContractError as error:
        raise DocumentError(str(error)) from None
    if faults:
        raise DocumentError(f"the bundle {folder} is damaged: {'; '.join(faults)}")
    model = next(m for m in bundle.models if m.name == bundle.chosen)
    facts = _measured(model.path, f"{bundle.name} {model.name}", model.precision)
    lacks = "a bundle does not tell it (the run folder that it was built in does)"
    return Subject(
        facts, file=model.path, device=bundle.device, wanted=_wanted({"name": bundle.device}),
        bundle=folder, model=model.name, lacks=lacks,
    )  # fmt: skip


def _wanted(device: Mapping[str, Any]) -> Declared | None:
    """What the device of a bundle (its name) or of a result (all that it says) declares; `None` for this machine."""
    name = device.get("name")
    if name in OWN:
        return None
    if "kind" not in device and name in device_names():
        return declared(load_profile_facts(str(name)))
    return declared_in(device)


def _in_bundle(file: Path) -> tuple[Path | None, str | None]:
    """The bundle that a file of a run lies in and its name there, where there is one that names it."""
    from edgedistill.deploy.archive import read_bundle

    folder = file.parent
    if not (folder / "manifest.json").is_file():
        return None, None
    place = file.resolve()
    found = next((m for m in read_bundle(folder).models if m.path.resolve() == place), None)
    return (folder, found.name) if found is not None else (None, None)


def _of_run(path: Path) -> Subject:
    result = load(path)
    where = path if path.is_dir() else path.parent
    artifact = _chosen(result, path)
    known = scored(result, artifact.name, where)
    if known is not None and artifact.top1 is not None:
        same = math.isclose(float(known.right.mean()), artifact.top1.value, abs_tol=1e-9)
        if not same or len(known.right) != artifact.top1.n:
            raise DocumentError(
                f"{path} says a top-1 of {artifact.top1.value:.6g}, and its tables {known.right.mean():.6g}: one of "
                "them was changed; build the run anew"
            )
    name = f"{result.student.model} {artifact.name}"
    file = _file_of(artifact, where)
    if file is not None:
        facts = _measured(file, name, artifact.precision)
    else:
        facts = Snapshot(
            name=name, precision=artifact.precision, sha256=artifact.sha256,
            size_bytes=artifact.size_bytes, files={Path(artifact.path).name: artifact.size_bytes},
            opset=artifact.opset, layers=_by_name(artifact.layers),
        )  # fmt: skip
    facts = facts.model_copy(update={"top1": artifact.top1, "predictions": packed(known)})
    device = result.device.get("name")
    bundle, model = _in_bundle(file) if file is not None else (None, None)
    return Subject(
        facts,
        file=file,
        device=device if isinstance(device, str) else None,
        wanted=_wanted(result.device),
        bundle=bundle,
        model=model,
        latency=tuple(artifact.latency),
        scored=known,
        lacks=""
        if known
        else "the tables beside result.json are not here (copy the whole run folder)",
    )


def _chosen(result: Result, path: Path) -> Artifact:
    """The file that ships. Raises `DocumentError` where the result contradicts itself."""
    found = next((a for a in result.artifacts if a.name == result.chosen), None)
    if found is None:
        raise DocumentError(
            f"result {path} ships {result.chosen[:80]!r}, which is none of its files"
        )
    if found.top1 is not None and result.confusion:
        rows = [row for row in result.confusion if len(row) == len(result.confusion)]
        images = sum(map(sum, rows))
        right = (
            sum(row[i] for i, row in enumerate(rows)) if len(rows) == len(result.confusion) else -1
        )
        if images != found.top1.n or abs(right - found.top1.value * images) > 0.01:
            raise DocumentError(
                f"result {path} says a top-1 of {found.top1.value:.6g} of {found.top1.n:,} images, which its own "
                "confusion table contradicts: it was changed, or is damaged"
            )
    return found


def _file_of(artifact: Artifact, folder: Path) -> Path | None:
    """The artifact's file where it is here. Raises `DocumentError` for another in its place."""
    root = folder.resolve()
    try:
        place = (root / artifact.path).resolve()
        there = place.is_relative_to(root) and place.is_file()
    except (OSError, ValueError):
        there = False
    if not there:
        return None
    if (place.stat().st_size, sha256_file(place)) != (artifact.size_bytes, artifact.sha256):
        raise DocumentError(
            f"{folder / artifact.path} is not the file that result.json speaks of (its size or hash differs): build "
            "the run anew, or check the file alone"
        )
    return folder / artifact.path


def _of_baseline(path: Path) -> Subject:
    kept = parse("baseline", Snapshot, path, MOST_BASELINE_BYTES, must_seal=True)
    known = unpacked(kept.predictions, str(path)) if kept.predictions is not None else None
    faults = []
    if sum(kept.files.values()) != kept.size_bytes:
        faults.append("size_bytes is not the sum of its files")
    if known is not None:
        right = (len(known.right), int(np.count_nonzero(known.right)))
        top1 = kept.top1
        if top1 is None or (top1.n, round(top1.value * top1.n)) != right:
            faults.append("top1 and predictions say different things")
    if faults:
        raise DocumentError(
            f"baseline {path} does not hold together ({'; '.join(faults)}): take it back from the repository, or "
            "write it anew with --update"
        )
    return Subject(kept, scored=known, baseline=True, lacks="the baseline does not tell it")


def kept(subject: Subject) -> Snapshot:
    """What a baseline file says of a subject: small layers only as a sum, no interval that follows from the rest."""
    facts = subject.facts
    large = [item for item in facts.layers.items() if item[1] >= LEAST_LAYER_BYTES]
    named = dict(sorted(large, key=lambda item: (-item[1], item[0]))[:MOST_LAYERS])
    rest = sum(facts.layers.values()) - sum(named.values()) + facts.other_layers_bytes
    top1 = facts.top1.model_copy(update={"ci95": None}) if facts.top1 is not None else None
    return facts.model_copy(update={"layers": named, "other_layers_bytes": rest, "top1": top1})
