"""What labels say of a view: of one image, or of two that were mixed. numpy only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgedistill.data.views import Mixture
from edgedistill.nets import Ints

Floats32 = npt.NDArray[np.float32]


def class_shares(labels: Ints, index: Ints, mixture: Mixture, classes: int) -> Floats32:
    """Shares of classes (B, C) of mixed views of images `index`; what is unlabelled is missing from a row."""
    shares = np.zeros((len(index), classes), np.float32)
    for rows, share in ((index, mixture.share), (mixture.partner, 1 - mixture.share)):
        at = np.flatnonzero(labels[rows] >= 0)
        shares[at, labels[rows][at]] += share[at].astype(np.float32)
    return shares


def labelled_share(labels: Ints, index: Ints, mixture: Mixture | None) -> float:
    """Which part of the views of images `index` is labelled, in [0, 1]."""
    known = (labels >= 0).astype(np.float64)
    if mixture is None:
        return float(known[index].mean())
    both = known[index] * mixture.share + known[mixture.partner] * (1 - mixture.share)
    return float(both.mean())
