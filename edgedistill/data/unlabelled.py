"""Images without labels, as further material to learn from: never one that validation or test will see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.data.dataset import (
    SPLITS,
    UNLABELLED,
    Dataset,
    Gathered,
    Item,
    Progress,
    Store,
    content_hash,
    printable,
)
from edgedistill.data.folder import FolderStore, walk
from edgedistill.data.kinds import Source
from edgedistill.data.labelling import skip
from edgedistill.data.scan import scan
from edgedistill.data.split import extra_copies, rank
from edgedistill.errors import DataError
from edgedistill.result import Skipped
from edgedistill.schema import DataSection

if TYPE_CHECKING:
    from PIL.Image import Image

NOT_AN_IMAGE = "not an image of a known format"
"""The kit's words for a file of another kind; such files may lie beside images without labels."""


@dataclass(frozen=True)
class Both:
    """Labelled images in one store, unlabelled ones in another."""

    labelled: Store
    unlabelled: Store

    def read(self, item: Item) -> Image:
        """The image as RGB. Raises DataError when it is no longer what was scanned."""
        return (self.unlabelled if item.label == UNLABELLED else self.labelled).read(item)


def gather_unlabelled(
    source: Source, section: DataSection, cache: Path | None, progress: Progress | None
) -> Gathered:
    """Every image below a folder, whatever the names of its folders. Raises DataError for what is no folder."""
    if source.kind != "folder":
        raise DataError(
            f"data.unlabelled {printable(source.shown)} cannot be used: give a folder with images anywhere below it, "
            "shards, or a data set of rows (.parquet, datasets.save_to_disk, hf-dataset:OWNER/NAME)."
        )
    tree = walk(source.root)
    facts = scan(source.root, tree.files, section.max_pixels, cache, progress)
    items = [
        Item(file, UNLABELLED, fact.sha256)
        for file in tree.files
        if (fact := facts[file]).sha256 is not None
    ]
    amiss = [skip(file, reason) for file in tree.files if (reason := facts[file].reason)]
    return Gathered(
        name=printable(source.root.name),
        source=printable(source.shown),
        classes=(),
        licence=None,
        parts={"train": items},
        sides={file: min(fact.width, fact.height) for file, fact in facts.items()},
        store=FolderStore(source.root, section.max_pixels),
        bad=tuple([s for s in amiss if s.reason != NOT_AN_IMAGE] + tree.odd),
        outside=tuple(s for s in amiss if s.reason == NOT_AN_IMAGE),
        empty="there is no image below it",
        need="Give a folder with images (JPEG, PNG, WebP, ...) anywhere below it.",
    )


def with_unlabelled(
    dataset: Dataset, gathered: Gathered, section: DataSection, seed: int
) -> Dataset:
    """The data set with the unlabelled images whose content it does not hold yet, once each. Raises DataError.

    What stands in validation or test is a leak, left out and named; a copy of a training image teaches nothing new. Of
    more than `data.max_unlabelled` the first in the order of the seed are kept.
    """
    items = [item for part in gathered.parts.values() for item in part]
    _check_bad(gathered, len(items), section.max_bad_fraction)
    twins = {
        item.sha256: f"{split}: {item.key}" for split in SPLITS for item in dataset.items(split)
    }
    copies = [item for item in items if item.sha256 in twins]
    own = {item.sha256: item for item in reversed(items) if item.sha256 not in twins}
    kept = sorted(own.values(), key=lambda item: (rank(seed, item.sha256), item.key))
    kept = sorted(kept[: section.max_unlabelled], key=lambda item: item.key)
    if not kept:
        raise DataError(
            f"every one of the {len(items):,} images of data.unlabelled {gathered.source} stands in the data set "
            "already. Give others, or leave data.unlabelled out."
        )
    parts = {split: dataset.items(split) for split in SPLITS}
    left_out = [
        *_renamed(gathered.bad),
        *_renamed(gathered.outside),
        *_renamed([skip(item.key, f"the same bytes as {twins[item.sha256]}") for item in copies]),
    ]
    return replace(
        dataset,
        unlabelled=tuple(kept),
        skipped=tuple(sorted([*dataset.skipped, *left_out], key=lambda skipped: skipped.path)),
        duplicates=dataset.duplicates
        + len(copies)
        + extra_copies([item for item in items if item.sha256 not in twins]),
        sha256=content_hash(dataset.classes, parts, kept),
        store=Both(dataset.store, gathered.store),
    )


def _renamed(skipped: Sequence[Skipped]) -> list[Skipped]:
    """The same files, said to be of the unlabelled images."""
    return [Skipped(path=f"unlabelled: {one.path}", reason=one.reason) for one in skipped]


def _check_bad(gathered: Gathered, usable: int, allowed: float) -> None:
    """Raise DataError when there is no image, or more bad ones than are allowed."""
    first = ", ".join(f"{one.path} ({one.reason})" for one in gathered.bad[:5])
    if not usable:
        held = f"all {len(gathered.bad):,} fail: {first}" if gathered.bad else gathered.empty
        raise DataError(
            f"data.unlabelled {gathered.source} has no image that can be used: {held}. {gathered.need}"
        )
    share = len(gathered.bad) / (len(gathered.bad) + usable)
    if share > allowed:
        raise DataError(
            f"{len(gathered.bad):,} of {len(gathered.bad) + usable:,} images ({share:.0%}) of data.unlabelled "
            f"{gathered.source} cannot be used, more than data.max_bad_fraction = {allowed:g} allows: {first}."
        )
