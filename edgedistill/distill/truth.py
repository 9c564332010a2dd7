"""What labels say of a view: of one image, or of two that were mixed. numpy only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgedistill.data.views import Mixture
from edgedistill.nets import Ints

Floats32 = npt.NDArray[np.float32]


def class_shares(
    labels: Ints,
    index: Ints,
    mixture: Mixture | None,
    classes: int,
    weights: Floats32 | None = None,
) -> Floats32:
    """Shares of classes (B, C) of views of images `index`; what is unlabelled is missing from a row.

    A label counts with the weight (N,) of its image, 1 where there are none.
    """
    shares = np.zeros((len(index), classes), np.float32)
    for rows, share in _parts(index, mixture):
        at = np.flatnonzero(labels[rows] >= 0)
        worth = share if weights is None else share * weights[rows]
        shares[at, labels[rows][at]] += worth[at].astype(np.float32)
    return shares


def labelled_share(
    labels: Ints, index: Ints, mixture: Mixture | None, weights: Floats32 | None = None
) -> float:
    """Which part of the views of images `index` is labelled, in [0, 1], with the weights (N,) of the labels."""
    known = (labels >= 0).astype(np.float64)
    known = known if weights is None else known * weights
    return float(sum((known[rows] * share).mean() for rows, share in _parts(index, mixture)))


def _parts(index: Ints, mixture: Mixture | None) -> list[tuple[Ints, npt.NDArray[np.float64]]]:
    """The images that views are made of, with the share of each."""
    if mixture is None:
        return [(index, np.ones(len(index)))]
    return [(index, mixture.share), (mixture.partner, 1 - mixture.share)]
