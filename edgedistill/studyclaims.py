"""Claims of a study: that one arm is better than another by some points, and whether the runs bear it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from edgedistill.errors import unknown
from edgedistill.schema import Section
from edgedistill.seednoise import SeedNoise, known_of
from edgedistill.seeds import image_gain, seed_gain
from edgedistill.studyresult import StudyClaim, Verdict

Bools = npt.NDArray[np.bool_]
Text = Annotated[str, Field(min_length=1, max_length=300)]


class Claim(Section):
    """What a study file claims: arm `better` has more of the test images right than arm `than`, by more than `by`
    points. Less than 0 makes it a claim that nothing is lost: `by: -0.5` says half a point at most.
    """

    says: Text
    source: Text | None = None
    better: str
    than: str
    by: float = Field(default=0.0, ge=-100, le=100)


def claims_faults(claims: Sequence[Claim], arms: Sequence[str]) -> list[str]:
    """What is wrong with claims about these arms, each with its path."""
    faults = []
    for place, claim in enumerate(claims):
        for side in ("better", "than"):
            name = getattr(claim, side)
            if name not in arms:
                faults.append(f"claims.{place}.{side}  {unknown('arm', name[:40], arms)}")
        if claim.better == claim.than:
            faults.append(f"claims.{place}  compares arm {claim.than[:40]} with itself")
    return faults


def judged(
    claims: Sequence[Claim],
    right: Mapping[str, Mapping[int, Bools]],
    seeds: int,
    noise: Sequence[SeedNoise] = (),
) -> list[StudyClaim]:
    """Each claim with its verdict. `right` has by arm and seed which test images (N,) the network has right; `seeds`
    are how many each arm shall have, `noise` is what all arms tell of the seed.
    """
    return [
        _judged(claim, right[claim.better], right[claim.than], seeds, noise) for claim in claims
    ]


def _judged(
    claim: Claim,
    better: Mapping[int, Bools],
    than: Mapping[int, Bools],
    seeds: int,
    noise: Sequence[SeedNoise],
) -> StudyClaim:
    told: dict[str, Any] = {**claim.model_dump(exclude={"by"}), "by": claim.by / 100}
    both = [seed for seed in better if seed in than]
    if not both:
        return StudyClaim(**told, verdict="not run yet")
    new, old = (np.stack([side[seed] for seed in both]) for side in (better, than))
    known = known_of(noise, claim.better, claim.than, len(both))
    by_seed = seed_gain(new.mean(axis=1).tolist(), old.mean(axis=1).tolist(), claim.than, known)
    by_image = image_gain(new, old, claim.than)
    ends = [by_image.ci95, by_seed.ci95]
    told |= {"seed_gain": by_seed, "image_gain": by_image}
    if len(both) < seeds:
        return StudyClaim(**told, verdict="not all run yet")
    return StudyClaim(**told, verdict=verdict([end for end in ends if end], claim.by / 100))


def verdict(intervals: Sequence[tuple[float, float]], by: float) -> Verdict:
    """Whether every interval of a gain lies above `by`, every one below it, or neither."""
    if intervals and all(low > by for low, _ in intervals):
        return "holds here"
    if intervals and all(high < by for _, high in intervals):
        return "does not hold here"
    return "cannot be told"
