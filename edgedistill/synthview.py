"""What the commands under `edgedistill synth` say. They compute nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from edgedistill.evidence.view.figures import duration
from edgedistill.synth.kept import KEPT, summary_of
from edgedistill.synth.rounds import Outcome
from edgedistill.synthchecks import Checked
from edgedistill.synthesis import Preview


def outcome_view(outcome: Outcome | None, classes: Sequence[str], folder: Path) -> Text:
    """How a job ended, for a person."""
    if outcome is None:
        return Text(
            "This part is made. Units of other parts are missing: give the same command again when they are there."
        )
    found = summary_of(outcome, classes)
    lines = [f"{found['kept']:,} of {found['made']:,} images kept, in {folder / KEPT}"]
    lines += [f"  {count:6,}  {reason}" for reason, count in found["dropped"].items()]
    short = {name: count for name, count in found["lacking_per_class"].items() if count}
    if short:
        words = ", ".join(f"{name} {count:,}" for name, count in short.items())
        lines.append(f"still lacking after all tries: {words}  (more: --tries)")
    lines += [
        f"To see them:  edgedistill synth preview {folder}",
        f"To learn from them:  edgedistill build ... --set data.unlabelled={folder / KEPT}",
    ]
    return Text("\n".join(lines))


def preview_view(found: Preview) -> Text:
    """What a job would do, for a person."""
    lines = []
    for name, prompts in found.prompts.items():
        lines += [f"{name}", *(f"    {prompt}" for prompt in prompts)]
    lines.append(
        f"{found.images:,} images to keep, at most {found.most:,} to make; on {found.device} about "
        f"{duration(found.seconds)} where all are kept, and {found.bytes / 1e6:,.1f} MB"
    )
    return Text("\n".join(lines))


def checked_view(found: Checked) -> Text:
    """What was found, for a person."""
    lines = [f"{found.images:,} images, {len(found.changed):,} not as the ledger says"]
    if found.again:
        lines.append(
            f"{found.again:,} made again: {found.same:,} the same to the last bit, the others within "
            f"{found.most_levels} grey levels"
        )
    lines += [f"- {fault}" for fault in found.faults[:20]]
    return Text("\n".join(lines))
