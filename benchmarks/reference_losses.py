"""Every loss against its authors' own code, on random batches in float64: the largest differences, as a table.

    python -m benchmarks.reference_losses --repos FOLDER [--batches 1000]

FOLDER holds a clone of each repository of `benchmarks/reference_code.py`, under the last part of its name (`git clone
https://github.com/ssnl/align_uniform FOLDER/align_uniform`; bare clones will do). Their files are read at the commits
named there, imported unchanged, and never stored. Ends with 1 when a difference is over 1e-6.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import platform
import sys
import tempfile
import types
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.reference_code import REPOSITORIES, Authors, authors, fetch
from edgedistill.distill import contrast, losses
from edgedistill.distill.crd import CRD

LARGEST = 1e-6
SOTA = "image_classification_sota: lib/models/losses"


@dataclass(frozen=True)
class Comparison:
    """One loss of ours and theirs: `pair` makes a random batch and gives what to differentiate and both values."""

    name: str
    source: str
    pair: Callable[[np.random.Generator], tuple[Tensor, Tensor, Tensor]]


Batch = tuple[Tensor, Tensor, Tensor, float]


def logits(rng: np.random.Generator, most_classes: int = 200) -> Batch:
    """Student (B, C), asking for a gradient, teacher (B, C), labels (B,) and a temperature, of random sizes."""
    rows, classes = int(rng.integers(1, 65)), int(rng.integers(2, most_classes + 1))
    scale = 10 ** rng.uniform(-1, 1.5)
    student, teacher = (
        torch.from_numpy(rng.standard_normal((rows, classes)) * scale) for _ in "st"
    )
    labels = torch.from_numpy(rng.integers(0, classes, rows))
    return student.requires_grad_(), teacher, labels, float(rng.uniform(0.5, 10))


def features(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Student (B, D_s), asking for a gradient, and teacher (B, D_t) features, of random sizes."""
    rows = int(rng.integers(2, 65))
    scale = 10 ** rng.uniform(-1, 1)
    student, teacher = (
        torch.from_numpy(rng.standard_normal((rows, int(rng.integers(2, 65)))) * scale)
        for _ in "st"
    )
    return student.requires_grad_(), teacher


def embeddings(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A leaf (B, D) that asks for a gradient, it at unit length, and other unit vectors (B, D)."""
    rows, width = int(rng.integers(2, 65)), int(rng.integers(2, 129))
    leaf, other = (torch.from_numpy(rng.standard_normal((rows, width))) for _ in "xy")
    leaf.requires_grad_()
    return leaf, F.normalize(leaf, dim=1), F.normalize(other, dim=1)


def of_logits(theirs: Authors) -> list[Comparison]:
    """The losses between logits."""

    def kd(reference: Callable[[Tensor, Tensor, float], Tensor]) -> Callable[..., Any]:
        def pair(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
            s, t, _, temperature = logits(rng)
            return s, losses.kd(s, t, temperature), reference(s, t, temperature)

        return pair

    def deit(kind: str, s: Tensor, t: Tensor, tau: float) -> Any:
        wrapped = theirs.deit.DistillationLoss(
            lambda o, y: o.sum() * 0, lambda x: t, kind, 1.0, tau
        )
        return wrapped(None, (s, s), None)

    def dkd(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        s, t, labels, temperature = logits(rng)
        alpha, beta = rng.uniform(0, 8, 2)
        ours = losses.dkd(s, t, labels, temperature, alpha, beta)
        return s, ours, theirs.mdistiller_dkd.dkd_loss(s, t, labels, alpha, beta, temperature)

    def dist(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        s, t, _, temperature = logits(rng)
        beta, gamma = rng.uniform(0, 3, 2)
        ours = losses.dist(s, t, temperature, beta, gamma)
        return s, ours, theirs.dist.DIST(beta, gamma, temperature)(s, t)

    def soft(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        s, t, _, _ = logits(rng)
        return (
            s,
            losses.soft_cross_entropy(s, t),
            theirs.entropy.SoftTargetCrossEntropy()(s, t.softmax(1)),
        )

    def hard(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        s, t, _, _ = logits(rng)
        return s, losses.hard(s, t), deit("hard", s, t, 1.0)

    kds: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
        "RepDistiller: distiller_zoo/KD.py": lambda s, t, c: theirs.kd.DistillKL(c)(s, t),
        "dapt: kd_losses/kd.py": lambda s, t, c: theirs.dapt_kd.DistillKL(c)(s, t),
        "mdistiller: mdistiller/distillers/KD.py": theirs.mdistiller_kd.kd_loss,
        "deit: losses.py (soft, times C)": lambda s, t, c: deit("soft", s, t, c) * s.shape[1],
    }
    return [
        *(Comparison("kd", source, kd(reference)) for source, reference in kds.items()),
        Comparison("dkd", "mdistiller: mdistiller/distillers/DKD.py", dkd),
        Comparison("dist", f"{SOTA}/dist_kd.py", dist),
        Comparison("soft_cross_entropy", f"{SOTA}/cross_entropy.py", soft),
        Comparison("hard", "deit: losses.py (hard)", hard),
    ]


def of_labels(theirs: Authors) -> list[Comparison]:
    """The cross entropy of labels."""

    def smoothed(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        s, _, labels, _ = logits(rng)
        epsilon = float(rng.uniform(0, 0.5))
        reference = theirs.entropy.CrossEntropyLabelSmooth(s.shape[1], epsilon)(s, labels)
        return s, losses.cross_entropy(s, labels, epsilon), reference

    def soft_targets(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        s, t, _, _ = logits(rng)
        target = t.softmax(1)
        return (
            s,
            losses.cross_entropy(s, target),
            theirs.entropy.SoftTargetCrossEntropy()(s, target),
        )

    file = f"{SOTA}/cross_entropy.py"
    return [
        Comparison("cross_entropy, smoothed", file, smoothed),
        Comparison("cross_entropy, soft targets", file, soft_targets),
    ]


def copied(ours: nn.Module, theirs: nn.Module) -> None:
    """Give our module the weights of theirs, which stand in the same order."""
    values = list(theirs.state_dict().values())
    ours.load_state_dict(dict(zip(ours.state_dict(), values, strict=True)))


def of_embeddings(theirs: Authors) -> list[Comparison]:
    """The losses between embeddings, and those with projectors."""

    def align(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        leaf, x, y = embeddings(rng)
        alpha = float(rng.choice([1, 2, 3, 4]))
        return leaf, contrast.alignment(x, y, alpha), theirs.align_uniform.align_loss(x, y, alpha)

    def uniform(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        leaf, x, _ = embeddings(rng)
        t = float(rng.uniform(0.5, 4))
        return leaf, contrast.uniformity(x, t), theirs.align_uniform.uniform_loss(x, t)

    def whole(kind: contrast.ProjectorKind) -> Callable[..., Any]:
        def pair(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
            s, t = features(rng)
            width, alpha, tee = (
                int(rng.integers(2, 65)),
                float(rng.choice([1, 2, 3])),
                rng.uniform(1, 3),
            )
            sides = [theirs.projector.Embed(d, d, width, kind) for d in (s.shape[1], t.shape[1])]
            reference = theirs.dapt.AlignUniform(*sides, alpha, tee, 1, 1, logging=False)
            module = contrast.AlignUniform(s.shape[1], t.shape[1], width, alpha, tee, kind)
            copied(module.projectors.student, sides[0])
            copied(module.projectors.teachers[0], sides[1])
            return s, module(s, t), reference(s, t)

        return pair

    def nce(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        leaf, x, y = embeddings(rng)
        temperature = float(rng.uniform(0.03, 1))
        return (
            leaf,
            contrast.info_nce(x, y, temperature),
            theirs.clip.ClipLoss()(x, y, 1 / temperature),
        )

    def mse(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        s, t = features(rng)
        module = contrast.FeatureMatch(s.shape[1], t.shape[1], "mse")
        return s, module(s, t), theirs.fitnet.HintLoss()(module.maps[0](s), t)

    kinds: Sequence[contrast.ProjectorKind] = ("mocov2", "linear", "simclr", "simclrv2")
    source = "dapt: kd_losses/align_uniform.py, models/projector.py"
    return [
        Comparison("alignment", "align_uniform: align_uniform/__init__.py", align),
        Comparison("uniformity", "align_uniform: align_uniform/__init__.py", uniform),
        *(Comparison(f"AlignUniform, {kind}", source, whole(kind)) for kind in kinds),
        Comparison("InfoNCE", "open_clip: src/open_clip/loss.py", nce),
        Comparison("CRD, third step", "RepDistiller: crd/criterion.py, crd/memory.py", crd(theirs)),
        Comparison("FeatureMatch, mse", "RepDistiller: distiller_zoo/FitNet.py", mse),
    ]


def crd(theirs: Authors) -> Callable[[np.random.Generator], tuple[Tensor, Tensor, Tensor]]:
    """Three steps of both: the first sets the constants, and each moves the memory that the next is scored against."""

    def pair(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        s, t = features(rng)
        images = int(rng.integers(len(s), 300))
        labels = rng.integers(0, int(rng.integers(2, 12)), images)
        labels[:2] = 0, 1
        k, width = int(rng.integers(1, 100)), int(rng.integers(2, 65))
        tau, momentum = float(rng.uniform(0.05, 1)), float(rng.uniform(0, 1))
        option = types.SimpleNamespace(
            s_dim=s.shape[1], t_dim=t.shape[1], feat_dim=width,
            n_data=images, nce_k=k, nce_t=tau, nce_m=momentum,
        )  # fmt: skip
        reference = theirs.crd.CRDLoss(option)
        ours = CRD(s.shape[1], t.shape[1], labels, width, k, tau, momentum)
        copied(ours.projectors.student, reference.embed_s)
        copied(ours.projectors.teachers[0], reference.embed_t)
        ours.memory_s.copy_(reference.contrast.memory_v1)
        ours.memory_t[0].copy_(reference.contrast.memory_v2)
        for step in range(3):
            index = torch.from_numpy(rng.permutation(images)[: len(s)])
            drawn = torch.from_numpy(ours.negatives.draw(index.numpy(), step))
            values = ours(s, t, index, step), reference(s, t, index, drawn)[0]
        return s, *values

    return pair


def compare(comparison: Comparison, batches: int) -> tuple[float, float]:
    """Largest absolute difference of the value, and of the gradient in the student's input."""
    rng = np.random.default_rng(0)
    worst = [0.0, 0.0]
    for _ in range(batches):
        torch.manual_seed(int(rng.integers(2**31)))
        leaf, ours, theirs = comparison.pair(rng)
        grads = [torch.autograd.grad(value, leaf, retain_graph=True)[0] for value in (ours, theirs)]
        found = float((ours - theirs).detach().abs()), float((grads[0] - grads[1]).abs().max())
        if not np.isfinite(found).all():
            raise SystemExit(f"{comparison.name}: not finite; ours {ours}, theirs {theirs}")
        worst = [max(a, b) for a, b in zip(worst, found, strict=True)]
    return worst[0], worst[1]


def main() -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repos", type=Path, required=True)
    parser.add_argument("--batches", type=int, default=1000)
    options = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)  # small batches: more threads would wait for each other
    warnings.simplefilter("ignore")  # the authors' spelling of old arguments
    with tempfile.TemporaryDirectory() as folder:
        fetch(options.repos, Path(folder))
        theirs = authors(Path(folder))
        print(
            f"{date.today()}, torch {torch.__version__}, Python {platform.python_version()}, float64\n"
        )
        print("| loss | authors' code | commit | batches | largest difference | of the gradient |")
        print("|---|---|---|---|---|---|")
        failed = False
        for comparison in [*of_logits(theirs), *of_labels(theirs), *of_embeddings(theirs)]:
            with contextlib.redirect_stdout(io.StringIO()):
                value, gradient = compare(comparison, options.batches)
            name = comparison.source.split(":")[0]
            commit = next(c for r, (c, _) in REPOSITORIES.items() if r.split("/")[1] == name)
            print(
                f"| {comparison.name} | {comparison.source} | {commit[:7]} | {options.batches} "
                f"| {value:.1e} | {gradient:.1e} |",
                flush=True,
            )
            failed |= max(value, gradient) > LARGEST
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
