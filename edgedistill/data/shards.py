"""WebDataset shards: tar files of samples, read in place by (shard, offset, size) and never unpacked."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ontarget.preprocess import DecodeError, decode

from edgedistill.data.dataset import Gathered, Item, Progress, printable
from edgedistill.data.fetch import Say, fetch_shards
from edgedistill.data.kinds import Source, short_name
from edgedistill.data.labelling import Entry, given_classes, name_items, skip, splits_of
from edgedistill.data.scan import (
    Facts,
    State,
    file_state,
    inspect_bytes,
    most_bytes,
    scan_keys,
    too_large,
    unusable,
)
from edgedistill.data.tarindex import Place, Wanted, read_index
from edgedistill.errors import DataError
from edgedistill.result import Skipped
from edgedistill.schema import DataSection

if TYPE_CHECKING:
    from PIL.Image import Image

NEED = "Give .tar shards whose samples have an image (.jpg, .png, ...) and a label (.cls or .json)."


@dataclass(frozen=True)
class ShardStore:
    """Images inside tar files: the shard (relative to `root`), offset and size of each key."""

    root: Path
    max_pixels: int
    places: Mapping[str, tuple[str, Place]]

    def bytes_of(self, key: str) -> bytes:
        """The encoded image. Raises OSError."""
        shard, (offset, size) = self.places[key]
        with (self.root / shard).open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def look(self, key: str) -> Facts:
        """Facts about one image. Never raises for what it may be."""
        size = self.places[key][1][1]
        if size > most_bytes(self.max_pixels):
            return too_large(size, self.max_pixels)
        try:
            return inspect_bytes(self.bytes_of(key), self.max_pixels)
        except OSError as error:
            return unusable(f"cannot be read: {error.strerror or error}")

    def read(self, item: Item) -> Image:
        """The image as RGB, upright. Raises DataError when the shard is not what was scanned."""
        reason = "its content is another one"
        try:
            data = self.bytes_of(item.key)
            if hashlib.sha256(data).hexdigest() == item.sha256:
                return decode(io.BytesIO(data), self.max_pixels)
        except OSError as error:
            reason = error.strerror or str(error)
        except DecodeError as error:
            reason = str(error)
        raise DataError(
            f"image {printable(item.key)} in {self.root} changed since the shards were read ({reason}). "
            "Leave the shards as they are during a build, then give the command again."
        )


def gather_shards(
    source: Source,
    section: DataSection,
    labelled: bool,
    folder: Path,
    cache: Path | None,
    progress: Progress | None,
    say: Say,
) -> Gathered:
    """Images and labels of shards; those at an address are fetched into `folder` first. Raises DataError."""
    if source.urls:
        source = _fetched(source, folder, say)
    splits = splits_of(source.files, source.shown) if labelled else dict.fromkeys(source.files)
    wanted = Wanted(labelled, section.image_column, section.label_column if labelled else None)
    entries: list[Entry] = []
    places: dict[str, tuple[str, Place]] = {}
    states: dict[str, State | None] = {}
    bad: list[Skipped] = []
    damaged: list[str] = []
    for shard in source.files:
        state = file_state(source.root / shard)
        try:
            index = read_index(source.root / shard, wanted)
        except OSError as error:
            raise DataError(
                f"shard {source.root / shard} cannot be read: {error.strerror}."
            ) from None
        bad += [skip(f"{shard}/{name}", reason) for name, reason in index.bad]
        if index.damage is not None:
            damaged.append(f"{printable(shard)} ({index.damage})")
            bad.append(skip(shard, f"{index.damage}; the samples before that are used"))
        for sample in index.samples:
            key = f"{shard}/{sample.image}"
            entries.append(Entry(key, splits[shard], sample.label))
            places[key], states[key] = (shard, sample.place), state
    _check_damage(source, damaged, section.max_bad_fraction)
    store = ShardStore(source.root, section.max_pixels, places)
    facts = scan_keys(list(places), store.look, states, section.max_pixels, cache, progress)
    given = _classes(source) if labelled else None
    named = name_items(entries, facts, given)
    split = any(splits.values())
    return Gathered(
        name=short_name(source.shown),
        source=printable(source.shown),
        classes=named.classes,
        licence=None,
        parts=named.parts,
        sides={key: min(fact.width, fact.height) for key, fact in facts.items()},
        store=store,
        bad=tuple(sorted([*bad, *named.bad], key=lambda skipped: skipped.path)),
        words="train, val and test by the names of the shards" if split else "",
        empty="its shards hold no samples",
        need=NEED,
    )


def _fetched(source: Source, folder: Path, say: Say) -> Source:
    """The same source with its shards on this disk."""
    paths = fetch_shards(source.urls, folder, say)
    names = tuple(path.relative_to(folder).as_posix() for path in paths)
    return replace(source, root=folder, files=names)


def _classes(source: Source) -> tuple[str, ...] | None:
    """Class names beside the shards: in the folder of the first, or in the one above its split's folder."""
    first = (source.root / source.files[0]).parent
    for place in (first, source.root, *([first.parent] if source.files[0].count("/") else [])):
        if (found := given_classes(place)) is not None:
            return found
    return None


def _check_damage(source: Source, damaged: list[str], allowed: float) -> None:
    """Raise DataError when more of the shards are damaged than files may be bad: who knows what they held."""
    share = len(damaged) / len(source.files)
    if share > allowed:
        raise DataError(
            f"{len(damaged):,} of {len(source.files):,} shards ({share:.0%}) of {printable(source.shown)} are no "
            f"whole archives, more than data.max_bad_fraction = {allowed:g} allows: {', '.join(damaged[:5])}. Fetch "
            f"or write them again, or allow more with --set data.max_bad_fraction={min(1.0, share + 0.01):.2f}"
        )
