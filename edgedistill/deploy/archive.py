"""A bundle as one file that is the same bytes every time, and back into a folder, whoever made the file.

An archive is hostile until it is unpacked: it may hold plain files and folders below itself and nothing else, and
neither more nor larger ones than a bundle can.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ontarget.contract import MANIFEST, Bundle, ContractError, load_bundle, verify_hashes
from ontarget.views import clean

from edgedistill.deploy.bundle import KIT, SHIPPED_BESIDE
from edgedistill.errors import DocumentError, UsageError
from edgedistill.files import is_disk_full, write_atomic

TOP = "bundle"
SUFFIX = ".tar.gz"
EXECUTABLE = (KIT, "build_engine.sh")
MOST_FILES = 200
MOST_BYTES = 8_000_000_000
MOST_GROWTH, SMALL = 200, 20_000_000
"""Unpacked bytes for each byte of the archive, beyond the first of them: weights hardly compress at all."""
MOST_NAME = 400
MOST_HEADER_BYTES = 16_384
EXTENDED = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip
GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class Sizes:
    """Bytes of a bundle: models, what grows with classes and images (labels, golden images), and all else."""

    models: int
    images: int
    rest: int

    @property
    def whole(self) -> int:
        """All of it."""
        return self.models + self.images + self.rest


def read_bundle(folder: Path) -> Bundle:
    """The bundle in a folder, by the kit's own reader. Raises `DocumentError`."""
    try:
        return load_bundle(folder)
    except ContractError as error:
        raise DocumentError(str(error)) from None


def known_files(bundle: Bundle) -> list[str]:
    """Names, inside the folder, of all that a bundle consists of; sorted."""
    labels = bundle.labels_path.relative_to(bundle.folder.resolve()).as_posix()
    models = [model.file for model in bundle.models]
    return sorted({MANIFEST, KIT, *SHIPPED_BESIDE, labels, bundle.golden.file, *models})


def strangers(folder: Path) -> list[str]:
    """What lies in a bundle's folder and is not of it, and links; sorted. Raises `DocumentError`."""
    known = set(known_files(read_bundle(folder)))
    above = {parent.as_posix() for name in known for parent in PurePosixPath(name).parents}
    found = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        plain = not path.is_symlink() and (
            (name in known and path.is_file()) or (name in above and path.is_dir())
        )
        if not plain:
            found.append(name)
    return sorted(found)


def require_place(out: Path) -> None:
    """Raise `UsageError` unless a bundle may be written to `out`: nothing is there, or an older bundle alone."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UsageError(f"--out {out} is no folder; give a new one, or an older bundle to replace")
    if not out.is_dir() or not any(out.iterdir()):
        return
    try:
        more = strangers(out)
    except DocumentError:
        raise UsageError(
            f"--out {out} holds files and is no bundle that is whole; give a new folder, so that nothing of yours is "
            "overwritten"
        ) from None
    if more:
        raise UsageError(
            f"--out {out} is a bundle with more in it than was packed ({clean(', '.join(more), 200)}); move that away, "
            "or give another folder"
        )


def sizes_of(bundle: Bundle) -> Sizes:
    """Where the bytes of a bundle are."""
    models = sum(model.path.stat().st_size for model in bundle.models)
    images = bundle.labels_path.stat().st_size + bundle.golden.path.stat().st_size
    whole = sum((bundle.folder / name).stat().st_size for name in known_files(bundle))
    return Sizes(models, images, whole - models - images)


def pack_archive(folder: Path, out: Path) -> Bundle:
    """Write a bundle as a `.tar.gz`: sorted names below `bundle/`, no time, no owner, fixed modes.

    The same bundle gives the same bytes with the same zlib. Raises `DocumentError` for one that is not whole.
    """
    bundle = read_bundle(folder)
    problems = verify_hashes(bundle)
    problems += [
        f"{name} is missing or a link"
        for name in known_files(bundle)
        if (folder / name).is_symlink() or not (folder / name).is_file()
    ]
    if problems:
        raise DocumentError(
            f"{folder} is not as it was packed: {'; '.join(clean(p, 200) for p in problems[:5])}. Make it again, or "
            "copy it from where it was made."
        )
    _require_outside(out, folder)
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=buffer, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name in known_files(bundle):
            data = (folder / name).read_bytes()
            info = tarfile.TarInfo(f"{TOP}/{name}")
            info.size, info.mode = len(data), 0o755 if name in EXECUTABLE else 0o644
            archive.addfile(info, io.BytesIO(data))
    write_atomic(out, buffer.getvalue())
    return bundle


def _require_outside(out: Path, folder: Path) -> None:
    if out.is_dir() or (out.is_file() and not _is_gzip(out)):
        raise UsageError(f"--out {out} is there and is no {SUFFIX}; give another name")
    if out.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"--out {out} lies in the bundle itself; give a place outside it")


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == GZIP_MAGIC


@contextmanager
def opened(path: Path) -> Iterator[Path]:
    """The folder of a bundle: itself, or for the time being what a `.tar.gz` holds. Raises `DocumentError`."""
    if path.is_dir():
        yield path
        return
    if not path.is_file():
        raise DocumentError(f"{path} does not exist. Give the folder of a bundle, or its {SUFFIX}.")
    if not _is_gzip(path):
        raise DocumentError(f"{path} is neither a folder nor a {SUFFIX}. Give a bundle.")
    with tempfile.TemporaryDirectory(prefix="edgedistill-bundle-") as name:
        folder = Path(name)
        _unpack(path, folder)
        inner = sorted(folder.iterdir())
        alone = len(inner) == 1 and inner[0].is_dir()
        yield inner[0] if alone else folder


class _Header(tarfile.TarInfo):
    """A header whose extensions (long names) are bounded before they are read into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        """A header out of its 512 bytes. Raises `DocumentError` for an extension that is too long."""
        found = super().frombuf(buf, encoding, errors)
        if found.type in EXTENDED and found.size > MOST_HEADER_BYTES:
            raise DocumentError(f"a header of {found.size:,} bytes")
        return found


def _unpack(path: Path, folder: Path) -> None:
    """Everything in an archive, into an empty folder; nothing outside it is written. Raises `DocumentError`."""
    left = min(MOST_BYTES, SMALL + MOST_GROWTH * path.stat().st_size)
    names: set[str] = set()
    try:
        with tarfile.open(path, "r|gz", tarinfo=_Header) as archive:
            for member in archive:
                reason = _refused(member, names, left)
                if reason:
                    raise DocumentError(f"{clean(member.name, 100)!r}: {reason}")
                names.add(member.name)
                left -= member.size
                archive.extract(member, folder, set_attrs=False, filter="data")
    except DocumentError as error:
        raise DocumentError(
            f"{path} is refused as an archive of a bundle: {error}. Nothing of it is kept; get it again from "
            "where it was made."
        ) from None
    except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError, zlib.error) as error:
        if isinstance(error, OSError) and is_disk_full(error):
            raise
        text = clean(" ".join(str(error).split()), 200)
        raise DocumentError(
            f"{path} is damaged, or no {SUFFIX} ({type(error).__name__}: {text}). Copy it again."
        ) from None


def _refused(member: tarfile.TarInfo, names: set[str], left: int) -> str | None:
    """Why a member cannot be part of a bundle, or `None`."""
    parts = member.name.split("/")
    if len(member.name) > MOST_NAME or not member.name.isprintable():
        return "a name that no file of a bundle has"
    if member.name.startswith("/") or ".." in parts or "\\" in member.name or ":" in member.name:
        return "a place outside the archive"
    if not (member.isreg() or member.isdir()) or member.issparse():
        return "neither a plain file nor a folder"
    if member.name in names:
        return "it is there twice"
    if len(names) >= MOST_FILES:
        return f"more than {MOST_FILES} files"
    if member.size > left:
        return f"it unpacks to more than a bundle of {SUFFIX} can hold"
    return None
