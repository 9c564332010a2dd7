"""Who sees which image: the seeded, stratified split that looks at content alone.

The place of an image is decided by `sha256(seed, sha256 of its content)`: within a class, images in
that order go to test, then to validation, the rest to training. So names and dates do not matter,
identical bytes stay together, and a new image moves at most the ones at the two borders.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from edgedistill.data.dataset import Item, Split


def rank(seed: int, sha256: str) -> str:
    """The place of a content in the order of `seed`, as hexadecimal text."""
    return hashlib.sha256(f"{seed}:{sha256}".encode()).hexdigest()


def by_label(items: Sequence[Item]) -> dict[int, list[Item]]:
    """Items of each label, labels ascending."""
    groups: defaultdict[int, list[Item]] = defaultdict(list)
    for item in items:
        groups[item.label].append(item)
    return dict(sorted(groups.items()))


def contents(items: Sequence[Item]) -> int:
    """Number of different contents."""
    return len({item.sha256 for item in items})


def extra_copies(items: Sequence[Item]) -> int:
    """Number of items whose bytes another item has already."""
    return len(items) - contents(items)


def contradictions(items: Sequence[Item]) -> set[str]:
    """Contents that stand under more than one label."""
    seen: dict[str, int] = {}
    return {item.sha256 for item in items if seen.setdefault(item.sha256, item.label) != item.label}


def counts(n: int, shares: Mapping[Split, float]) -> dict[Split, int]:
    """How many of `n` contents each drawn split takes: at least one each, and one is left for
    training.

    Raises ValueError when `n` is too small for that.
    """
    if n < 1 + len(shares):
        raise ValueError(f"{n} contents cannot be split into {1 + len(shares)} parts")
    drawn = {split: max(1, int(n * share + 0.5)) for split, share in shares.items()}
    while sum(drawn.values()) >= n:
        drawn[max(drawn, key=lambda split: drawn[split])] -= 1
    return drawn


def divide(
    items: Sequence[Item], shares: Mapping[Split, float], seed: int
) -> dict[Split, list[Item]]:
    """Draw the splits named in `shares` out of `items`; the rest is `train`. Each part is sorted by
    key.
    """
    parts: dict[Split, list[Item]] = {"train": [], **{split: [] for split in shares}}
    for members in by_label(items).values():
        order = sorted({item.sha256 for item in members}, key=lambda sha: rank(seed, sha))
        place: dict[str, Split] = {}
        start = 0
        for split, count in counts(len(order), shares).items():
            place.update(dict.fromkeys(order[start : start + count], split))
            start += count
        for item in members:
            parts[place.get(item.sha256, "train")].append(item)
    return {split: sorted(part, key=lambda item: item.key) for split, part in parts.items()}


def leaks(parts: Mapping[Split, Sequence[Item]]) -> list[tuple[Item, Item]]:
    """Items whose bytes are in a split that counts for more (test, then val), each with its twin
    there.
    """
    found: list[tuple[Item, Item]] = []
    kept: dict[str, Item] = {}
    for split in ("test", "val", "train"):
        part = parts.get(split, ())
        found += [(item, kept[item.sha256]) for item in part if item.sha256 in kept]
        for item in part:
            kept.setdefault(item.sha256, item)
    return found


def cap(items: Sequence[Item], n: int, seed: int) -> list[Item]:
    """At most `n` of `items`, each class in proportion and with at least one, sorted by key.

    Within a class the first in the order of the seed are kept. Raises ValueError when `n` is
    smaller than the number of classes.
    """
    if n >= len(items):
        return sorted(items, key=lambda item: item.key)
    groups = by_label(items)
    if n < len(groups):
        raise ValueError(f"{n} images cannot hold one of each of {len(groups)} classes")
    quota = _quota({label: len(group) for label, group in groups.items()}, n)
    kept = [
        item
        for label, group in groups.items()
        for item in sorted(group, key=lambda item: (rank(seed, item.sha256), item.key))[
            : quota[label]
        ]
    ]
    return sorted(kept, key=lambda item: item.key)


def spread(items: Sequence[Item], n: int, seed: int) -> list[Item]:
    """`cap`, also for fewer than one of each class: then one each of classes at even distances."""
    classes = len(by_label(items))
    if n >= classes:
        return cap(items, n, seed)
    firsts = sorted(cap(items, classes, seed), key=lambda item: item.label)
    return [firsts[place * classes // n] for place in range(n)]


def _quota(sizes: Mapping[int, int], n: int) -> dict[int, int]:
    """`n` shared out in proportion to `sizes`, at least one each, then by largest claim left."""
    total = sum(sizes.values())
    quota = Counter({label: max(1, n * size // total) for label, size in sizes.items()})
    claim = {label: n * size / total for label, size in sizes.items()}
    while quota.total() > n:
        label = max((x for x in sizes if quota[x] > 1), key=lambda x: (quota[x] - claim[x], x))
        quota[label] -= 1
    while quota.total() < n:
        label = max(
            (x for x in sizes if quota[x] < sizes[x]), key=lambda x: (claim[x] - quota[x], -x)
        )
        quota[label] += 1
    return dict(quota)
