"""Image folders as users have them: what is in them, which file is which class, and which cannot be
used.

Two layouts: one folder for each class, or those inside `train`, `val` (`valid`, `validation`) and
`test`. Class folders are read with all their subfolders. Hidden names and what operating systems
leave behind are ignored; links that leave the folder are not followed. Suffixes mean nothing: each
file is tried by content.
"""

from __future__ import annotations

import hashlib
import io
import os
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ontarget.preprocess import DecodeError, decode

from edgedistill.data.dataset import (
    SPLITS,
    Gathered,
    Item,
    Progress,
    Split,
    printable,
)
from edgedistill.data.labelling import SPLIT_NAMES, skip
from edgedistill.data.scan import scan
from edgedistill.errors import DataError
from edgedistill.result import Skipped

if TYPE_CHECKING:
    from PIL.Image import Image

CLUTTER = frozenset(
    (
        "__macosx",
        "@eadir",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "thumbs.db",
        "desktop.ini",
    )
)


@dataclass(frozen=True)
class Tree:
    """What lies under a folder, as sorted relative paths with forward slashes."""

    files: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    linked_folders: list[str] = field(default_factory=list)
    odd: list[Skipped] = field(default_factory=list)


@dataclass(frozen=True)
class Layout:
    """Which file is of which class: `parts[split][class]` is a list of relative paths.

    A folder that is not split yet has all its files in `train`, and `split` is False.
    """

    parts: Mapping[Split, Mapping[str, list[str]]]
    split: bool
    outside: list[Skipped]


@dataclass(frozen=True)
class FolderStore:
    """Image files under `root`."""

    root: Path
    max_pixels: int

    def read(self, item: Item) -> Image:
        """The image as RGB, upright. Raises DataError when the file is not what was scanned."""
        reason = "its content is another one"
        try:
            data = (self.root / item.key).read_bytes()
            if hashlib.sha256(data).hexdigest() == item.sha256:
                return decode(io.BytesIO(data), self.max_pixels)
        except OSError as error:
            reason = error.strerror or str(error)
        except DecodeError as error:
            reason = str(error)
        raise DataError(
            f"image {printable(item.key)} in {self.root} changed since the folder was read "
            f"({reason}). Leave the folder as it is during a build, then give the command again."
        )


def walk(root: Path) -> Tree:
    """Everything under `root` that counts. Links inside it that lead to its files are followed."""
    tree = Tree()
    todo = [""]
    while todo:
        folder = todo.pop()
        try:
            with os.scandir(root / folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if not folder:
                raise DataError(f"data folder {root} cannot be listed: {error.strerror}.") from None
            tree.odd.append(skip(folder, f"cannot be listed: {error.strerror}"))
            continue
        for entry in found:
            if entry.name.startswith(".") or entry.name.lower() in CLUTTER:
                continue
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_symlink():
                _follow(root, path, tree)
            elif entry.is_dir(follow_symlinks=False):
                tree.folders.append(path)
                todo.append(path)
            elif entry.is_file(follow_symlinks=False):
                tree.files.append(path)
            else:
                tree.odd.append(skip(path, "not a regular file"))
    for names in (tree.files, tree.folders, tree.linked_folders):
        names.sort()
    tree.odd.sort(key=lambda skipped: skipped.path)
    return tree


def _follow(root: Path, path: str, tree: Tree) -> None:
    try:
        target = (root / path).resolve(strict=True)
    except (OSError, RuntimeError):
        tree.odd.append(skip(path, "a link that leads nowhere"))
        return
    if target.is_dir():
        tree.linked_folders.append(path)
        tree.odd.append(skip(path, "a link to a folder; such links are not followed"))
    elif not target.is_relative_to(root.resolve()):
        tree.odd.append(skip(path, "a link that leaves the data folder; it is not followed"))
    elif target.is_file():
        tree.files.append(path)
    else:
        tree.odd.append(skip(path, "not a regular file"))


def layout(root: Path, tree: Tree) -> Layout:
    """Classes and splits from the names of the folders. Raises DataError when there are none."""
    top = [name for name in tree.folders if "/" not in name]
    if not top:
        held = f"{len(tree.files):,} files, but no folder" if tree.files else "nothing"
        raise DataError(
            f"data folder {root} holds {held}. It must have one folder for each class with that "
            "class's images in it, or such folders inside train, val and test."
        )
    roles = {name: SPLIT_NAMES[name.lower()] for name in top if name.lower() in SPLIT_NAMES}
    inner = {name: [f for f in tree.folders if f.startswith(f"{name}/")] for name in roles}
    trains = [name for name, split in roles.items() if split == "train"]
    split = len(roles) == len(top) or any(inner[name] for name in trains)
    deepest = 2 if split else 1
    linked = [path for path in tree.linked_folders if path.count("/") < deepest]
    if linked:
        raise DataError(
            f"{printable(linked[0])} in {root}, a link to a folder, is not followed. "
            "Put the real folder there, or remove the link."
        )
    if not split:
        classes = {name: _under(tree.files, name) for name in top}
        return Layout({"train": classes}, False, _outside(tree.files, deepest, {}))
    _check_roles(root, roles, inner)
    parts: dict[Split, Mapping[str, list[str]]] = {}
    for name, role in roles.items():
        names = [path.rpartition("/")[2] for path in inner[name] if path.count("/") == 1]
        parts[role] = {label: _under(tree.files, f"{name}/{label}") for label in names}
    return Layout(parts, True, _outside(tree.files, deepest, roles))


def _check_roles(root: Path, roles: Mapping[str, Split], inner: Mapping[str, list[str]]) -> None:
    for split in SPLITS:
        names = sorted(name for name, role in roles.items() if role == split)
        if len(names) > 1:
            raise DataError(
                f"data folder {root} has {' and '.join(map(printable, names))}, which mean the "
                "same: keep one of them."
            )
        if split == "train" and not names:
            raise DataError(
                f"data folder {root} has {', '.join(sorted(roles))}, but no train folder. Add one, "
                "or put the class folders directly into the data folder to have them split."
            )
        if names and not inner[names[0]]:
            raise DataError(
                f"folder {root / names[0]} has no class folders. It must have one folder for each "
                "class, with that class's images in it."
            )


def _under(files: Sequence[str], folder: str) -> list[str]:
    start, end = f"{folder}/", f"{folder}0"  # "0" comes right after "/"
    return list(files[bisect_left(files, start) : bisect_left(files, end)])


def _outside(files: Sequence[str], depth: int, roles: Mapping[str, Split]) -> list[Skipped]:
    reason = "outside the class folders"
    return [
        skip(file, reason)
        for file in files
        if file.count("/") < depth or (roles and file.partition("/")[0] not in roles)
    ]


def gather_folder(
    root: Path, max_pixels: int, cache: Path | None, progress: Progress | None
) -> Gathered:
    """Images and labels of an image folder. Raises DataError."""
    tree = walk(root)
    found = layout(root, tree)
    names = sorted({label for classes in found.parts.values() for label in classes})
    index = {name: label for label, name in enumerate(names)}
    files = sorted(f for classes in found.parts.values() for fs in classes.values() for f in fs)
    facts = scan(root, files, max_pixels, cache, progress)
    parts: dict[Split, list[Item]] = {}
    for split, classes in found.parts.items():
        parts[split] = sorted(
            (
                Item(file, index[name], sha256)
                for name, paths in classes.items()
                for file in paths
                if (sha256 := facts[file].sha256) is not None
            ),
            key=lambda item: item.key,
        )
    bad = [skip(file, reason) for file in files if (reason := facts[file].reason) is not None]
    return Gathered(
        name=printable(root.name) or "data",
        source=printable(str(root)),
        classes=tuple(printable(name) for name in names),
        licence=None,
        parts=parts,
        sides={file: min(facts[file].width, facts[file].height) for file in files},
        store=FolderStore(root, max_pixels),
        bad=tuple(sorted([*bad, *tree.odd], key=lambda skipped: skipped.path)),
        outside=tuple(found.outside),
        words="train, val and test folders as given" if found.split else "",
    )
