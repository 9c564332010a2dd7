"""docs/design-space.md from the study of that name: what is printed stands between two marks, the rest is by hand.

    edgedistill study design-space
    python -m benchmarks.design_space runs/design-space

The study's document is kept beside this file, so that the page can be made again without it; the chart is a file of its
own.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgedistill.evidence import study as views
from edgedistill.evidence.view import figures
from edgedistill.evidence.view.markdown import name, prose, table
from edgedistill.studyresult import StudyArm, StudyResult, Verdict, load

HOME = Path(__file__).resolve().parent
KEPT = HOME / "studies" / "design_space.json"
PAGE = HOME.parent / "docs" / "design-space.md"
COMMAND = "edgedistill study design-space"
"""However the study was started: by several processes, from another folder."""
BEGIN, END = "<!-- printed by benchmarks.design_space -->\n", "<!-- end -->\n"

SAID: Mapping[Verdict, str] = {
    "holds here": "hold here", "does not hold here": "do not", "cannot be told": "cannot be told",
    "not all run yet": "not all run yet", "not run yet": "not run yet",
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Keep the document, and write the page and the chart."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("study", type=Path, nargs="?", default=KEPT)
    study = load(parser.parse_args(argv).study)
    study = study.model_copy(update={"command": COMMAND})
    KEPT.parent.mkdir(exist_ok=True)
    KEPT.write_text(study.dumps(), "utf-8")
    before, begin, rest = PAGE.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{PAGE} has no marks between which the study is printed: {BEGIN}{END}")
    PAGE.write_text(before + BEGIN + printed(study) + END + after, "utf-8")
    picture = views.picture(study)
    if picture is not None:
        PAGE.with_suffix(".svg").write_text(picture, "utf-8")


def printed(study: StudyResult) -> str:
    """What the page says of the study."""
    data, base = study.data, next(arm for arm in study.arms if arm.name == study.baseline)
    done, wanted = sum(len(arm.runs) for arm in study.arms), len(study.arms) * len(study.seeds)
    blocks = [
        f"{done}{'' if done == wanted else f' of {wanted}'} trainings: {len(study.arms)} arms, seeds "
        f"{', '.join(map(str, study.seeds))}; {data.test:,} test images of {name(data.name)}. The default has "
        f"{views.top1(base)} of them right ({views.interval(base)}).",
        "![What each level gains over the default](design-space.svg)",
        _levels(study),
        *[f"{prose(words)}." for words in views.teachers(study)],
        "### The papers' findings",
        _verdicts(study),
        views.claims_table(study),
        f"Made by `{study.command}` with edgedistill {study.version} on {study.environment.cpu}, "
        f"{study.environment.cores} cores, {study.environment.gpu or 'no GPU'}, {study.created_utc[:10]}; "
        f"{figures.duration(study.seconds_spent)} of work.",
    ]  # fmt: skip
    return "\n" + "\n\n".join(blocks) + "\n\n"


def _levels(study: StudyResult) -> str:
    rows = [
        [
            name(arm.factor) if arm.factor else "", name(arm.name), views.top1(arm), *_gains(study, arm),
            figures.duration(arm.seconds),
        ]
        for arm in study.arms
    ]  # fmt: skip
    heads = ["Factor", "Level", "Test top-1", "Gain by seed, points", "Gain by image, points", "Training"]  # fmt: skip
    return table(heads, rows, (2, 5))


def _gains(study: StudyResult, arm: StudyArm) -> tuple[str, str]:
    if arm.name == study.baseline:
        return "the default", ""
    return views.gain(arm.seed_gain), views.gain(arm.image_gain)


def _verdicts(study: StudyResult) -> str:
    """How many claims hold, in a sentence."""
    found = Counter(claim.verdict for claim in study.claims)
    counts = [f"{found[verdict]} {words}" for verdict, words in SAID.items() if found[verdict]]
    return f"Of {len(study.claims)} claims, each judged by itself at 95 %: {', '.join(counts)}."


if __name__ == "__main__":
    main()
