"""From a name to a data set: the built-in sample, folders, shards, tables, Parquet files, or a hub.

Whatever the source, the same rules hold: content under two labels is left out, the same bytes never
stand on two sides of a split, missing splits are drawn by content, and each class has an image to
learn from.
"""

from __future__ import annotations

import atexit
import functools
import statistics
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgedistill.data.dataset import (
    SPLITS,
    Dataset,
    Gathered,
    Item,
    Progress,
    Split,
    content_hash,
    printable,
)
from edgedistill.data.fetch import Say
from edgedistill.data.folder import gather_folder
from edgedistill.data.hfdata import gather_rows
from edgedistill.data.idx import (
    FASHION_CLASSES,
    FASHION_LICENCE,
    ArrayStore,
    array_items,
    gather_idx,
)
from edgedistill.data.kinds import BUILTIN, BUILTINS, Source, locate, need_extra
from edgedistill.data.shards import gather_shards
from edgedistill.data.split import (
    by_label,
    cap,
    contents,
    contradictions,
    divide,
    extra_copies,
    leaks,
)
from edgedistill.data.table import gather_table
from edgedistill.data.unlabelled import gather_unlabelled, with_unlabelled
from edgedistill.errors import DataError, UsageError, unknown
from edgedistill.recipe import DataSection
from edgedistill.result import Skipped

SAMPLE_FILE = Path(__file__).parent / "sample" / "fashion_mnist.npz"
_NAMED = 5


@dataclass(frozen=True)
class _Run:
    """What reading a source may use: a folder for what is fetched (`None`: for now only), and how to tell a person."""

    kept: Path | None
    progress: Progress | None
    say: Say

    def folder(self, name: str) -> Path:
        """Where what is fetched or made goes."""
        return (self.kept or _for_now()) / name


def open_source(
    section: DataSection,
    seed: int,
    cache: Path | None = None,
    progress: Progress | None = None,
    say: Say = lambda _: None,
) -> Dataset:
    """The data set that `section` names, split by `seed`.

    `cache` is a file where facts about the images of a large source are kept between two starts; what is fetched lies
    beside it, or without one in a folder that goes with this process. `say` tells a person one line.
    Raises DataError for images or labels that cannot be used, UsageError for a name that does not
    exist.
    """
    run = _Run(cache.parent if cache else None, progress, say)
    dataset = assemble(_gather(locate(section.source), section, True, run, cache), section, seed)
    if section.unlabelled is None:
        return dataset
    beside = cache.with_name(f"unlabelled-{cache.name}") if cache else None
    more = _gather(locate(section.unlabelled), section, False, run, beside)
    return with_unlabelled(dataset, more, section, seed)


def check_source(section: DataSection) -> None:
    """Raise DataError or UsageError, as `open_source` does, for a source that is not there at all."""
    source = locate(section.source)
    if source.kind == "builtin" and source.name not in BUILTINS:
        _builtin(source.name)
    if source.kind in ("hub", "saved", "parquet"):
        need_extra(f"the data source {source.shown}", "datasets")
    if section.unlabelled is not None:
        check_source(section.model_copy(update={"source": section.unlabelled, "unlabelled": None}))


@functools.cache
def _for_now() -> Path:
    """A folder that is removed when this process ends."""
    folder = tempfile.TemporaryDirectory(prefix="edgedistill-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def _gather(
    source: Source, section: DataSection, labelled: bool, run: _Run, cache: Path | None
) -> Gathered:
    """What a source holds; without labels, all of it is `train` and of label -1."""
    if source.kind == "shards":
        folder = run.folder("shards") if source.urls else source.root
        return gather_shards(source, section, labelled, folder, cache, run.progress, run.say)
    if source.kind in ("hub", "saved", "parquet"):
        return gather_rows(
            source, section, labelled, run.folder("rows"), cache, run.progress, run.say
        )
    if not labelled:
        return gather_unlabelled(source, section, cache, run.progress)
    if source.kind == "table":
        return gather_table(source, section, cache, run.progress)
    if source.kind == "builtin":
        return _builtin(source.name)
    if source.kind == "idx":
        return gather_idx(source.root, section.max_pixels)
    return gather_folder(source.root, section.max_pixels, cache, run.progress)


def _builtin(name: str) -> Gathered:
    if name not in BUILTINS:
        raise UsageError(unknown("built-in data set", name, BUILTINS))
    parts: dict[Split, Sequence[Item]] = {}
    arrays, rows = {}, {}
    with np.load(SAMPLE_FILE, allow_pickle=False) as sample:
        for split in SPLITS:
            arrays[str(split)] = images = sample[f"{split}_images"]
            file = "t10k" if split == "test" else "train"
            keys = [f"{file}/{index:06d}" for index in sample[f"{split}_source_index"]]
            parts[split] = array_items(keys, images, sample[f"{split}_labels"])
            rows.update({key: (str(split), row) for row, key in enumerate(keys)})
    return Gathered(
        name=f"{name}-sample",
        source=f"{BUILTIN}{name}",
        classes=FASHION_CLASSES,
        licence=FASHION_LICENCE,
        parts=parts,
        sides={key: min(arrays[split].shape[1:]) for key, (split, _) in rows.items()},
        store=ArrayStore(arrays, rows),
        words="drawn once for the built-in set: train and val from the 60,000 training images of "
        "Fashion-MNIST, test from its 10,000 test images",
    )


def assemble(gathered: Gathered, section: DataSection, seed: int) -> Dataset:
    """Check, split and cap what was gathered. Raises DataError; UsageError for a low cap."""
    given = [item for part in gathered.parts.values() for item in part]
    wrong = contradictions(given)
    bad = [
        *gathered.bad,
        *(
            _named(item, "the same bytes stand under another class")
            for item in given
            if item.sha256 in wrong
        ),
    ]
    parts = {
        split: [item for item in part if item.sha256 not in wrong]
        for split, part in gathered.parts.items()
    }
    usable = sum(map(len, parts.values()))
    _check_bad(gathered, bad, usable, section.max_bad_fraction)
    copies = leaks(parts)
    gone = {item.key for item, _ in copies}
    parts = {split: [i for i in part if i.key not in gone] for split, part in parts.items()}
    duplicates = len(copies) + sum(map(extra_copies, parts.values()))
    drawn: dict[Split, float] = {"test": section.test_fraction, "val": section.val_fraction}
    shares = {split: share for split, share in drawn.items() if not parts.get(split)}
    _check_classes(gathered, parts, 1 + len(shares))
    parts |= divide(parts["train"], shares, seed)
    words = _words(gathered, parts, shares, seed)
    if section.max_train is not None and section.max_train < len(parts["train"]):
        words += f"; train capped at {section.max_train:,} of {len(parts['train']):,}"
        parts["train"] = _capped(parts["train"], section.max_train, seed)
    twins = [_named(item, f"the same bytes as {twin.key}") for item, twin in copies]
    return Dataset(
        name=gathered.name,
        source=gathered.source,
        classes=gathered.classes,
        licence=section.licence or gathered.licence,
        train=tuple(parts["train"]),
        val=tuple(sorted(parts["val"], key=lambda item: item.key)),
        test=tuple(sorted(parts["test"], key=lambda item: item.key)),
        skipped=tuple(sorted([*bad, *gathered.outside, *twins], key=lambda skipped: skipped.path)),
        duplicates=duplicates,
        split=words,
        image_side=int(statistics.median(gathered.sides[item.key] for item in parts["train"])),
        sha256=content_hash(gathered.classes, parts),
        store=gathered.store,
    )


def _named(item: Item, reason: str) -> Skipped:
    return Skipped(path=printable(item.key), reason=printable(reason))


def _some(names: Sequence[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest:,} more" if rest > 0 else "")


def _check_bad(gathered: Gathered, bad: Sequence[Skipped], usable: int, allowed: float) -> None:
    first = _some([f"{skipped.path} ({skipped.reason})" for skipped in bad])
    if not usable:
        held = f"all {len(bad):,} files in it fail: {first}" if bad else gathered.empty
        raise DataError(
            f"data source {gathered.source} has no image that can be used: {held}. {gathered.need}"
        )
    share = len(bad) / (len(bad) + usable)
    if share > allowed:
        enough = min(1.0, share + 0.01)
        raise DataError(
            f"{len(bad):,} of {len(bad) + usable:,} files ({share:.0%}) in {gathered.source} "
            f"cannot be used, more than data.max_bad_fraction = {allowed:g} allows: {first}. Mend "
            f"or remove them, or allow more with --set data.max_bad_fraction={enough:.2f}"
        )


def _check_classes(gathered: Gathered, parts: Mapping[Split, Sequence[Item]], least: int) -> None:
    if len(gathered.classes) < 2:
        only = gathered.classes[0] if gathered.classes else "none"
        count = sum(map(len, parts.values()))
        raise DataError(
            f"{gathered.source} has one class only ({only}, {count:,} images). A classifier "
            f"needs two or more. {gathered.need}"
        )
    train = by_label(parts["train"])
    held = {name: contents(train.get(k, [])) for k, name in enumerate(gathered.classes)}
    if lacking := [name for name, count in held.items() if not count]:
        raise DataError(
            f"no usable training image in {gathered.source} for class {_some(lacking)}. Add "
            "images to train, or remove the class from every split."
        )
    if few := [f"{name} ({count})" for name, count in held.items() if count < least]:
        total = sum(map(len, parts.values()))
        raise DataError(
            f"too few images in {gathered.source}: {total:,} in all, and each class needs at least "
            f"{least} different ones (one for each split that is drawn). Too small: {_some(few)}. "
            "Add images, or remove the class."
        )


def _capped(items: Sequence[Item], most: int, seed: int) -> list[Item]:
    classes = len(Counter(item.label for item in items))
    if most < classes:
        raise UsageError(
            f"data.max_train is {most}, and there are {classes} classes. Allow at least {classes}: "
            "one image of each."
        )
    return cap(items, most, seed)


def _words(
    gathered: Gathered,
    parts: Mapping[Split, Sequence[Item]],
    shares: Mapping[Split, float],
    seed: int,
) -> str:
    """How the splits came about, in a sentence."""
    if not shares:
        return gathered.words or "train, val and test as given"
    percent = " and ".join(f"{100 * shares[s]:g} % for {s}" for s in SPLITS if s in shares)
    given = [split for split in ("val", "test") if split not in shares]
    head = f"{' and '.join(given)} as given; " if given else ""
    return f"{head}{percent} drawn from train by content, class by class (seed {seed})"
