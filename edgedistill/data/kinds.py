"""What a data source is, told from its name and from what lies there; nothing is read yet."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from edgedistill.data.dataset import printable
from edgedistill.data.folder import CLUTTER
from edgedistill.data.idx import has_idx
from edgedistill.data.labelling import SPLIT_NAMES
from edgedistill.errors import DataError, MissingExtraError, UsageError

BUILTIN = "builtin:"
HUB = "hf-dataset:"
EXTRA = "data"
MAX_SHARDS = 100_000
ALLOWED = (
    "Allowed: a folder with one folder of images for each class (also inside train, val and test), a folder of idx "
    "files, WebDataset shards (a .tar file, a folder of them, a pattern such as train-{000..012}.tar, or their "
    "addresses), .parquet files or a folder of them, a folder that datasets.save_to_disk wrote, "
    "hf-dataset:OWNER/NAME, a .csv or .tsv of paths and labels, or builtin:fashion-mnist."
)

Kind = Literal["builtin", "hub", "shards", "saved", "parquet", "table", "idx", "folder"]
_HUB_NAME = re.compile(
    r"(?P<id>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[^@:]+))?(?:@(?P<revision>[^@]+))?"
)
_RANGE = re.compile(r"\{(-?\d{1,9})\.\.(-?\d{1,9})(?:\.\.-?\d+)?\}")


@dataclass(frozen=True)
class Source:
    """A source that is there: what it is, the folder that names of its files count from, and those files.

    `files` are relative to `root`; of shards that lie elsewhere, `urls` are their addresses. `name` is that of a
    built-in set or of a data set on a hub.
    """

    kind: Kind
    shown: str
    name: str = ""
    root: Path = Path()
    files: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    config: str | None = None
    revision: str | None = None


def locate(source: str) -> Source:
    """What `source` is. Raises DataError for what is not there or is none of what can be read."""
    if source.startswith(BUILTIN):
        return Source("builtin", source, source.removeprefix(BUILTIN))
    if source.startswith(HUB):
        return _on_hub(source)
    if not source.strip() or "\0" in source:
        raise DataError(f"the data source {source!r} is no path. {ALLOWED}")
    if "://" in source:
        return _at_urls(source)
    path = Path(source).expanduser()
    try:
        if "{" in source and not path.exists():
            return _pattern(str(path))
        if path.is_file():
            return _file(path)
        if not path.exists():
            raise DataError(f"data source {path} does not exist. {ALLOWED}")
        root = path.resolve()
        next(root.iterdir(), None)
        return _folder(root)
    except OSError as error:
        raise DataError(f"data source {path} cannot be read: {error.strerror}. {ALLOWED}") from None


def short_name(source: str) -> str:
    """What to call a source: the last part of its path that says something."""
    if source.startswith(HUB):
        return re.split(r"[:@]", source.removeprefix(HUB))[0].rpartition("/")[2]
    path = shown_url(source) if "://" in source else source
    for part in reversed(re.sub(r"\{[^}]*\}", "", path).split("/")):
        stem = re.sub(r"\.(tar|parquet|csv|tsv)$", "", part).strip("-_. 0123456789")
        if stem and stem.lower() not in {*SPLIT_NAMES, *GENERIC}:
            return printable(stem)
    return "data"


GENERIC = (
    "data",
    "shards",
    "shard",
    "labels",
    "images",
    "default",
    "http:",
    "https:",
    "s3:",
    "gs:",
)
"""Names that say nothing of what is in a file or a folder."""


def shown_url(url: str) -> str:
    """An address without what may be secret: user, password and query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def need_extra(what: str, *modules: str) -> None:
    """Raise MissingExtraError unless the packages of the extra that `what` needs are installed."""
    if any(find_spec(module) is None for module in modules):
        raise MissingExtraError(what, EXTRA)


def expand(pattern: str) -> list[str]:
    """The names that a brace pattern stands for. Raises DataError for one that is broken or too large."""
    if "{" not in pattern:
        return [pattern]
    need_extra("a pattern of shards", "braceexpand")
    from braceexpand import braceexpand

    sizes = [abs(int(a) - int(b)) + 1 for a, b in _RANGE.findall(pattern)]
    if (
        math.prod(sizes) * 2 ** pattern.count(",") > MAX_SHARDS * 2**10
        or max(sizes, default=1) > MAX_SHARDS
    ):
        raise DataError(
            f"the pattern {printable(pattern)} stands for more than {MAX_SHARDS:,} files."
        )
    try:
        names = list(dict.fromkeys(braceexpand(pattern, escape=False)))
    except ValueError as error:
        raise DataError(
            f"the pattern {printable(pattern)} cannot be read: {error}. Write it as in train-{{000..012}}.tar"
        ) from None
    if len(names) > MAX_SHARDS:
        raise DataError(
            f"the pattern {printable(pattern)} stands for more than {MAX_SHARDS:,} files."
        )
    return names


def _on_hub(source: str) -> Source:
    found = _HUB_NAME.fullmatch(source.removeprefix(HUB))
    if not found:
        raise UsageError(
            f'"{printable(source)}" names no data set of a hub. Write hf-dataset:OWNER/NAME, and where it is needed '
            "hf-dataset:OWNER/NAME:CONFIG@REVISION."
        )
    return Source(
        "hub", source, found["id"], config=found["config"], revision=found["revision"]
    )  # fmt: skip


def _at_urls(source: str) -> Source:
    urls = expand(source)
    strange = [url for url in urls if not urlsplit(url).path.lower().endswith(".tar")]
    if strange:
        raise DataError(
            f"data source {printable(shown_url(strange[0]))} is an address, and of addresses only WebDataset shards "
            f"(.tar) can be read. Fetch it first. {ALLOWED}"
        )
    need_extra("data from an address", "fsspec")
    return Source("shards", printable(shown_url(source)), urls=tuple(urls))


def _pattern(source: str) -> Source:
    paths = [Path(name) for name in expand(source)]
    if missing := [path for path in paths if not path.is_file()]:
        raise DataError(
            f"{len(missing):,} of the {len(paths):,} files that {printable(source)} stands for do not exist: "
            f"{', '.join(printable(str(path)) for path in missing[:5])}."
        )
    kinds = {path.suffix.lower() for path in paths}
    if kinds not in ({".tar"}, {".parquet"}):
        raise DataError(
            f"a pattern may stand for .tar or .parquet files; got {printable(source)}. {ALLOWED}"
        )
    paths = [path.resolve() for path in paths]
    root = Path(os.path.commonpath([path.parent for path in paths]))
    files = tuple(path.relative_to(root).as_posix() for path in paths)
    return Source("shards" if kinds == {".tar"} else "parquet", source, root=root, files=files)


def _file(path: Path) -> Source:
    path = path.resolve()
    kinds: dict[str, Kind] = {
        ".tar": "shards",
        ".parquet": "parquet",
        ".csv": "table",
        ".tsv": "table",
    }
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        raise DataError(
            f"data source {path} is a file that cannot be read as data. Unpack archives; shards must be plain .tar, "
            f"as an image of a compressed one cannot be found again. {ALLOWED}"
        )
    return Source(kind, str(path), root=path.parent, files=(path.name,))


def _folder(root: Path) -> Source:
    if has_idx(root):
        return Source("idx", str(root), root=root)
    if (root / "dataset_dict.json").is_file() or (
        (root / "state.json").is_file() and (root / "dataset_info.json").is_file()
    ):
        return Source("saved", str(root), root=root)
    found = list(_packed(root))
    shards = tuple(sorted(name for name in found if name.lower().endswith(".tar")))
    tables = tuple(sorted(name for name in found if name.lower().endswith(".parquet")))
    if shards and tables:
        raise DataError(
            f"data folder {root} holds both shards ({printable(shards[0])}) and Parquet files "
            f"({printable(tables[0])}). Give a folder for each, or name the files that count."
        )
    if shards:
        return Source("shards", str(root), root=root, files=shards)
    if tables:
        return Source("parquet", str(root), root=root, files=tables)
    return Source("folder", str(root), root=root)


def _packed(root: Path) -> Iterator[str]:
    """Files of a folder without class folders: those in it, and in its folders `train`, `val`, `test` and `data`."""
    entries = [
        e for e in root.iterdir() if not e.name.startswith(".") and e.name.lower() not in CLUTTER
    ]
    inner = [entry for entry in entries if entry.is_dir()]
    if any(entry.name.lower() not in {*SPLIT_NAMES, "data"} for entry in inner):
        return
    for folder in inner:
        below = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
        if any(entry.is_dir() for entry in below):
            return
        entries += below
    for entry in entries:
        if entry.is_file() and entry.resolve().is_relative_to(root):
            yield entry.relative_to(root).as_posix()
