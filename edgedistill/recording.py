"""Keeps what a board measured with the run that it is of, in `records/`, and writes the run's result anew.

The documents are the truth: a result is made from what the build left and every document that is of its bundle, so that
recording twice changes nothing, and a later build of the same run folds them in again.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from ontarget.contract import MANIFEST

from edgedistill.errors import BusyError, DocumentError, UsageError
from edgedistill.evidence.kitdocument import KitDocument, read_document
from edgedistill.files import sha256_file, write_atomic
from edgedistill.recorded import RECORDS, Record, fold, require_models, rows_of
from edgedistill.result import Result, load
from edgedistill.rundir import RunDir

MOST_RECORDS = 500
"""That a result is made of: the newest."""
_NAME = re.compile(r"(\d{4,9})-([0-9a-f]{12})\.json")


def record(file: Path, run: Path | None, say: Callable[[str], None]) -> tuple[Result, Path]:
    """Keep the kit document `file` with the run that it is of, and write that run's result and views anew.

    Returns the result and the run's folder. Raises `DocumentError` for a document that is damaged, of another bundle,
    or has nothing to fold in, `UsageError` where no run is found, `BusyError` while a build is at work there.
    """
    raw, tree, document = read_document(file)
    folder = _of_bundle(run, document, file) if run is not None else find_run(document, file)
    _require_content(document, tree, file)
    with held(folder):
        return _recorded(raw, tree, document, folder, file, say), folder


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a run folder, so that no build and no other measurement is at work there; who holds it may call `record`.
    Raises `BusyError`.
    """
    lock = FileLock(str(folder / ".lock"), is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BusyError(
            f"another edgedistill is at work in {folder}. Wait until it ends, and give the same command again."
        ) from None
    try:
        yield
    finally:
        lock.release()


def _recorded(
    raw: bytes,
    tree: dict[str, Any],
    document: KitDocument,
    folder: Path,
    file: Path,
    say: Callable[[str], None],
) -> Result:
    """The same, where nobody else is at work."""
    base, digest = load(folder), hashlib.sha256(raw).hexdigest()
    kept = records_of(folder, base, say)
    if any(sha256_file(p) == digest for p in _files(folder) if _parts(p)[1] == digest[:12]):
        result = fold(base, kept)
    else:
        last = max((_parts(p)[0] for p in _files(folder)), default=0)
        new = Record(f"{last + 1:04}-{digest[:12]}.json", digest, tree, document)
        require_models(base, new, file)
        result = fold(base, [*kept, new][-MOST_RECORDS:])
        write_atomic(folder / new.place, raw)
        RunDir(folder).event("recorded", document=new.place, sha256=digest)
    write_result(result, folder)
    return result


def write_result(result: Result, folder: Path) -> None:
    """Write `result.json` and its views, where they are not as they should be already."""
    from edgedistill.evidence.report import write_views

    path, text = folder / "result.json", result.dumps()
    if not path.is_file() or path.read_text("utf-8") != text:
        write_atomic(path, text)
        write_views(result, folder)


def find_run(document: KitDocument, file: Path, root: Path = Path("runs")) -> Path:
    """The run below `root` whose bundle a document is of. Raises `UsageError`."""
    wanted = document.bundle.manifest_sha256
    found = [
        p.parent.parent
        for p in sorted(root.glob(f"*/bundle/{MANIFEST}"))
        if p.is_file() and sha256_file(p) == wanted and (p.parent.parent / "result.json").is_file()
    ]
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(
            f"no run in {root}/ has the bundle that {file} was measured with (manifest {wanted[:12]}). Give its "
            f"run folder: "
            f"edgedistill record {file} --run FOLDER"
        )
    names = ", ".join(str(p) for p in found[:5])
    raise UsageError(
        f"{len(found)} runs have the bundle of {file}: {names}. Say which one: --run {found[0]}"
    )


def _of_bundle(run: Path, document: KitDocument, file: Path) -> Path:
    """The run, if a document is of its bundle."""
    if not (run / "result.json").is_file():
        raise UsageError(
            f"--run {run} is no run folder: it has no result.json. Give the folder that edgedistill build wrote."
        )
    manifest = run / "bundle" / MANIFEST
    if not manifest.is_file():
        raise UsageError(
            f"--run {run} has no bundle, so it cannot be told what {file} was measured with"
        )
    if sha256_file(manifest) != document.bundle.manifest_sha256:
        raise DocumentError(
            f"{file} was measured with another bundle than that of {run} (manifest "
            f"{document.bundle.manifest_sha256[:12]}, "
            f"not {sha256_file(manifest)[:12]}). Measure this bundle on the board, or record it in the run that it "
            f"is of."
        )
    return run


def _require_content(document: KitDocument, tree: Mapping[str, Any], file: Path) -> None:
    if document.rows or any(s.correct is not None for s in document.scores):
        return
    failures = tree.get("failures")
    told = (
        [str(f.get("text"))[:300] for f in failures if isinstance(f, dict)]
        if isinstance(failures, list)
        else []
    )
    why = f" What the kit said: {'; '.join(told[:3])}" if told else ""
    raise DocumentError(
        f"{file} holds neither times nor accuracies: record what  ontarget.pyz bench  or  eval  wrote.{why}"
    )


def _parts(path: Path) -> tuple[int, str]:
    """Number and start of the hash of a record, from its name."""
    number, start = path.stem.split("-")
    return int(number), start


def _files(folder: Path) -> list[Path]:
    """Every record that is kept, the oldest first."""
    found = (folder / RECORDS).glob("*.json")
    return sorted((p for p in found if _NAME.fullmatch(p.name) and p.is_file()), key=_parts)


def records_of(folder: Path, result: Result, say: Callable[[str], None]) -> list[Record]:
    """The newest documents that are kept in a run folder and hold for its bundle, the oldest first; what does not, and
    what is older, is told and left out.
    """
    manifest = folder / "bundle" / MANIFEST
    wanted = sha256_file(manifest) if manifest.is_file() else None
    found: list[Record] = []
    files = _files(folder)
    if len(files) > MOST_RECORDS:
        left = len(files) - MOST_RECORDS
        say(
            f"{folder / RECORDS} holds {len(files)} measurements, and the newest {MOST_RECORDS} count: the oldest "
            f"{left}, up to {files[left - 1].name}, are left out. Remove what is no longer needed there."
        )
    for path in files[-MOST_RECORDS:]:
        try:
            raw, tree, document = read_document(path)
            if document.bundle.manifest_sha256 != wanted:
                say(f"{path} was measured with another bundle, and is left out")
                continue
            new = Record(path.name, hashlib.sha256(raw).hexdigest(), tree, document)
            require_models(result, new, path)
            rows_of(new, result)
            found.append(new)
        except DocumentError as error:
            say(f"a record is left out: {error}")
    return found
