"""What synthetic images turned out to be worth, for the result document."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from edgedistill import metrics
from edgedistill.arms import DISTILLED, SYNTH
from edgedistill.findings import Outcome
from edgedistill.result import Synthetic, SyntheticClass
from edgedistill.synthstage import PREVIEW

if TYPE_CHECKING:
    from edgedistill.learning import Build

MOST_SHEET_BYTES = 500_000
"""A larger picture stays beside the document."""


def synthetic_of(learn: Build, outcome: Outcome) -> Synthetic | None:
    """Where the images come from, what was kept and why not, and recall of each class without and with them."""
    done = learn.synthetic
    if done is None:
        return None
    facts, maker, section = done.facts, done.facts["maker"], learn.recipe.synth
    recalls = [_recalls(learn, outcome, name) for name in (DISTILLED, SYNTH)]
    names = learn.dataset.classes
    return Synthetic(
        generator=maker["model"], kind=maker["kind"], generator_sha256=maker["sha256"],
        revision=maker["revision"], licence=maker["licence"], steps=maker["steps"],
        guidance=maker["guidance"], made=facts["made"], kept=facts["kept"],
        agreement=facts["agreement"], dropped=facts["dropped"], seconds=facts["making_seconds"],
        share=float(section.share), schedule=section.schedule, sheet=_sheet(learn),
        classes=[
            SyntheticClass(
                name=name,
                real=learn.data.facts["per_class_train"][k],
                kept=facts["kept_per_class"][name],
                lacking=facts["lacking_per_class"][name],
                recall_without=recalls[0][k],
                recall_with=recalls[1][k],
            )
            for k, name in enumerate(names)
        ],
    )  # fmt: skip


def _recalls(learn: Build, outcome: Outcome, name: str) -> list[float | None]:
    predictions = metrics.predictions(outcome.networks[name])
    return metrics.per_class_recall(predictions, outcome.labels, learn.spec.classes)


def _sheet(learn: Build) -> str | None:
    assert learn.synthetic is not None
    path = learn.synthetic.folder / PREVIEW
    if not path.is_file() or path.stat().st_size > MOST_SHEET_BYTES:
        return None
    return base64.b64encode(path.read_bytes()).decode()
