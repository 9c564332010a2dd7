"""Teachers at work: what they say of any view of the training images, one lecturer for each step of a course."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgedistill.data.views import Views
from edgedistill.folding import quick
from edgedistill.nets import Ints, Pixels, inference
from edgedistill.rundir import Done
from edgedistill.teacher.restore import members_of, voice_of
from edgedistill.teacher.voice import Voice, check_finite, speak

STEPS = ("ladder", "checkpoints")
"""Ways to use several teachers in which they speak one after the other."""


class Lecturer:
    """The teacher, or the teachers together, that give the lessons of one step; `features` is the width of theirs.

    `first` is the row of `canvas` (N, K, K, 3) that it calls image 0.
    """

    def __init__(
        self,
        voices: Sequence[Voice],
        features: int,
        canvas: Pixels,
        views: Views,
        device: torch.device,
        first: int = 0,
    ) -> None:
        self.voices = [
            Voice(v.name, quick(v.network.to(device).eval(), v.look.size), v.look) for v in voices
        ]
        self.name = " + ".join(voice.name for voice in voices)
        self.features, self.canvas, self.views, self.device = features, canvas, views, device
        self.first = first

    def __call__(self, index: Ints, view: int) -> tuple[Tensor, Tensor]:
        """Features (B, D) and logits (B, C), float32, of view `view` of images `index`.

        Raises `TeacherError` where one of them is not finite.
        """

        def pixels(size: int) -> Tensor:
            return self.views.pixels(self.canvas, index + self.first, view, size, self.device)

        with inference(self.device, fast=True):
            features, logits = speak(self.voices, pixels)
        said = (
            features.float().clone(),
            logits.float().clone(),
        )  # a loss may keep them for its gradient
        check_finite(self.name, said, f"of view {view}")
        return said


def lecturers(
    done: Done, canvas: Pixels, views: Views, device: torch.device, first: int = 0
) -> list[Lecturer]:
    """Who speaks in a finished teacher stage: one for a single teacher or an ensemble, one a step for the others.

    `canvas` (N, K, K, 3) holds the training images that `views` are cut from; image 0 is its row `first`.
    """
    members = members_of(done.facts)
    voices = [voice_of(done, member) for member in members]
    widths = [int(member["features"]) for member in members]
    if done.facts.get("combine") in STEPS:
        return [
            Lecturer([voice], width, canvas, views, device, first)
            for voice, width in zip(voices, widths, strict=True)
        ]
    return [Lecturer(voices, sum(widths), canvas, views, device, first)]
