"""What a data source is, told from its name and from what lies there; nothing is read yet."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Literal

from edgedistill.data.dataset import printable
from edgedistill.data.folder import CLUTTER
from edgedistill.data.idx import has_idx
from edgedistill.data.labelling import SPLIT_NAMES
from edgedistill.data.tarindex import IMAGE_SUFFIXES
from edgedistill.errors import DataError, MissingExtraError, UsageError

BUILTIN = "builtin:"
BUILTINS = ("fashion-mnist",)
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
_LOOKED = 1_000
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.-?\d+)?")
_GROUP = re.compile(r"\{([^{}]*)\}")
_DIGITS = 9


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
    path = Path(os.path.expanduser(source))
    try:
        if "{" in source and not path.exists():
            return _pattern(str(path))
        if path.is_file():
            return _file(path)
        if not path.exists():
            hint = f' The built-in set is called "{BUILTIN}{source}".' if source in BUILTINS else ""
            raise DataError(f"data source {printable(str(path))} does not exist.{hint} {ALLOWED}")
        root = path.resolve()
        next(root.iterdir(), None)
        return _folder(root)
    except OSError as error:
        raise DataError(
            f"data source {printable(str(path))} cannot be read: {error.strerror}. {ALLOWED}"
        ) from None


def short_name(source: str) -> str:
    """What to call a source: the last part of its path that says something."""
    if source.startswith(HUB):
        return printable(re.split(r"[:@]", source.removeprefix(HUB))[0].rpartition("/")[2])
    path = shown_url(source) if "://" in source else source
    for part in reversed(re.sub(r"\{[^}]*\}", "", path).split("/")):
        stem = re.sub(r"\.(csv|tsv)$", "", part)
        if part.endswith((".tar", ".parquet")):
            stem = re.sub(r"[-_.]?(\d+(-of-\d+)?)?\.(tar|parquet)$", "", part)
        if stem.strip(".") and stem.lower() not in {*SPLIT_NAMES, *GENERIC}:
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
    scheme, _, rest = url.partition("://")
    host, slash, path = re.split(r"[?#]", rest)[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


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

    if _most(pattern) > MAX_SHARDS:
        raise DataError(
            f"the pattern {printable(pattern)} stands for more than {MAX_SHARDS:,} files."
        )
    try:
        names = list(dict.fromkeys(braceexpand(pattern, escape=False)))
    except ValueError as error:
        raise DataError(
            f"the pattern {printable(pattern)} cannot be read: {printable(str(error))}. "
            "Write it as in train-{000..012}.tar"
        ) from None
    return names


def _most(pattern: str) -> int:
    """At least as many names as a pattern can stand for, without making them."""
    most = 1
    while groups := _GROUP.findall(pattern):
        for group in groups:
            ends = _RANGE.fullmatch(group)
            if ends and max(map(len, ends.groups())) > _DIGITS:
                return MAX_SHARDS + 1
            most *= abs(int(ends[1]) - int(ends[2])) + 1 if ends else group.count(",") + 1
        pattern = _GROUP.sub("", pattern)
        if most > MAX_SHARDS:
            break
    return most


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
    strange = [url for url in urls if not shown_url(url).lower().endswith(".tar")]
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
            f"data source {printable(str(path))} is a file that cannot be read as data. Unpack archives; shards "
            f"must be plain .tar, as an image of a compressed one cannot be found again. {ALLOWED}"
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
            f"data folder {printable(str(root))} holds both shards ({printable(shards[0])}) and Parquet files "
            f"({printable(tables[0])}). Give a folder for each, or name the files that count."
        )
    if shards:
        return Source("shards", str(root), root=root, files=shards)
    if tables:
        return Source("parquet", str(root), root=root, files=tables)
    return Source("folder", str(root), root=root)


def _packed(root: Path) -> Iterator[str]:
    """Files that may be shards or tables: those in a folder, and in its folders `train`, `val`, `test` and `data`.

    None where its folders hold images: then it is an image folder, and an archive beside them is just that.
    """
    entries = list(_shown(root))
    for folder in [entry for entry in entries if entry.is_dir()]:
        if folder.name.lower() in {*SPLIT_NAMES, "data"}:
            below = list(_shown(folder))
            if any(entry.is_dir() for entry in below):
                return
            entries += below
        elif _has_image(folder):
            return
    for entry in entries:
        if entry.is_file() and entry.resolve().is_relative_to(root):
            yield entry.relative_to(root).as_posix()


def _shown(folder: Path) -> Iterator[Path]:
    """What lies in a folder and is neither hidden nor left there by an operating system."""
    for entry in folder.iterdir():
        if not entry.name.startswith(".") and entry.name.lower() not in CLUTTER:
            yield entry


def _has_image(folder: Path) -> bool:
    """Whether one of the first files below a folder is called an image."""
    names = (name for _, _, files in os.walk(folder) for name in files)
    return any(Path(name).suffix.lower()[1:] in IMAGE_SUFFIXES for name in islice(names, _LOOKED))
