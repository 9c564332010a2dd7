"""The arms of a proof: what each one trains, and the stage that holds it. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgedistill.recipe import Recipe

PLAIN, DISTILLED, SYNTH, LONGER, PROBE, FINETUNE = (
    "plain", "distilled", "distilled+synthetic", "plain_longer", "linear_probe", "finetune",
)  # fmt: skip
TAUGHT = (DISTILLED, SYNTH)
"""Arms that learn from the teacher."""
WORDS = {
    PLAIN: "labels alone, the same start, images and number of steps",
    DISTILLED: "labels and the teacher",
    SYNTH: "labels and the teacher, who speaks about synthetic images too; as many steps",
    LONGER: "labels alone, for as many seconds as distillation took in all",
    PROBE: "a linear classifier on the pretrained student's frozen features",
    FINETUNE: "the pretrained student, labels alone",
}
SHIPS = (DISTILLED, SYNTH, PLAIN, LONGER)
"""Arms from the student's own start, of which one ships; at a tie the first."""
TAUGHT_ONLY = frozenset(
    (
        "method", "weights", "weight_schedule", "temperature", "believe_top_k",
        "believe_top_p", "projector", "projection_dim", "align_alpha",
        "uniform_t", "contrast_temperature", "crd_negatives", "dkd_alpha", "dkd_beta", "targets", "top_k",
        "curriculum", "warmup_align", "hard_samples", "influence",
    )
)  # fmt: skip
"""What a recipe says of the teacher's terms alone: arms without a teacher do not depend on it."""


@dataclass(frozen=True)
class Arm:
    """One training: its name, its seed, and how it differs from the first of its kind."""

    name: str
    seed: int
    first: bool = True

    @property
    def stage(self) -> str:
        """The stage that it belongs to."""
        return "09-distilled" if self.name in TAUGHT else "08-plain"

    @property
    def variant(self) -> str:
        """What tells it from the arm that the stage is named after; empty for that one."""
        kind = {PLAIN: "", DISTILLED: "", SYNTH: "synthetic"}.get(self.name, self.name)
        seed = "" if self.first else f"seed{self.seed}"
        return "-".join(part for part in (kind, seed) if part)

    @property
    def place(self) -> str:
        """The name of its finished stage."""
        return f"{self.stage}@{self.variant}" if self.variant else self.stage

    @property
    def key(self) -> str:
        """Its name in tables of outputs."""
        return self.name if self.first else f"{self.name}@seed{self.seed}"


def seeds_of(recipe: Recipe) -> list[int]:
    """The seeds of starts and orders; views and teacher stay those of the first."""
    return [recipe.seed + k for k in range(recipe.proof.seeds)]


def arms_of(recipe: Recipe, pretrained: bool) -> list[Arm]:
    """Every arm of a recipe, in the order of training. Where the student starts `pretrained`, plain is fine-tuning."""
    names = [PLAIN, DISTILLED]
    if recipe.synth.images:
        names.append(SYNTH)
    if recipe.proof.equal_seconds:
        names.append(LONGER)
    names += [n for n in (PROBE, FINETUNE) if n in recipe.proof.arms]
    if pretrained and FINETUNE in names:
        names.remove(FINETUNE)
    return [Arm(name, seed, seed == recipe.seed) for seed in seeds_of(recipe) for name in names]


def best_arm(top1: Mapping[str, float]) -> str:
    """The arm whose weights ship, by validation top-1; at a tie the distilled one, then the shorter."""
    return max((name for name in SHIPS if name in top1), key=top1.__getitem__)
