"""How a pretrained network learns the user's classes, from cheap to dear: its own head, a linear probe, fine-tuning.

Each is never worse than the one before it: what validation shows to be better stays.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgedistill.errors import TeacherError
from edgedistill.nets import forward
from edgedistill.teacher.probe import Probe as Probe
from edgedistill.teacher.probe import for_a_head as for_a_head
from edgedistill.teacher.probe import probe_network as probe_network

ZERO_SHOT, LINEAR_PROBE, TUNED = "zero-shot head", "linear probe", "fine-tuned"


@dataclass(frozen=True)
class Adapted:
    """An adapted teacher: what was done, why, and validation top-1."""

    model: nn.Module
    adaptation: str
    reason: str
    val_top1: float


def check_head(model: nn.Module, size: int, classes: int, name: str) -> None:
    """Raise `TeacherError` unless a network at `size` px gives pooled features and one linear layer's logits."""
    head = model.get_classifier()  # type: ignore[operator]
    shape: tuple[int, ...] = ()
    if isinstance(head, nn.Linear | nn.Conv2d) and head.bias is not None:
        device = head.weight.device
        try:
            with torch.inference_mode():
                zeros = torch.zeros(1, 3, size, size, device=device)
                features, logits = forward(model.eval(), zeros)
        except Exception as error:  # each architecture refuses a size in its own way
            text = " ".join(str(error).split())[:200]
            raise TeacherError(
                f"{name} does not take RGB images of {size} px ({type(error).__name__}: {text}); "
                "give another teacher.input_size, or another teacher"
            ) from None
        shape = (features.ndim, head.weight.numel() // features.shape[-1], *logits.shape)
    if shape != (2, classes, 1, classes):
        raise TeacherError(
            f"{name} cannot teach here: its classifier is not one linear layer on pooled features. "
            "Take a plain version of it, or another architecture."
        )


def set_head(model: nn.Module, probe: Probe) -> None:
    """Put the probe's weights into a classifier whose head is linear."""
    head = model.get_classifier()  # type: ignore[operator]
    with torch.no_grad():
        head.weight.copy_(probe.weight.view_as(head.weight))
        head.bias.copy_(probe.bias)


def own_head(model: nn.Module, rows: Sequence[int], width: int) -> tuple[Tensor, Tensor] | None:
    """Weight (C, D) and bias (C,) of some rows of a network's own head; `None` where it is not linear.

    A network whose logits are its features has the unit matrix for a head.
    """
    head = model.get_classifier()  # type: ignore[operator]
    index = torch.tensor(list(rows))
    if isinstance(head, nn.Identity):
        return torch.eye(width)[index], torch.zeros(len(index))
    if not isinstance(head, nn.Linear | nn.Conv2d) or head.bias is None:
        return None
    weight = head.weight.detach().cpu().reshape(head.weight.shape[0], -1)
    return weight[index].clone(), head.bias.detach().cpu()[index].clone()


def adapt(
    fresh: Callable[[], nn.Module],
    heads: Mapping[str, Probe],
    finetune: Callable[[nn.Module], float] | None,
    why_not: str,
    from_head: bool,
    asked: bool = False,
) -> Adapted:
    """The best on validation of the heads on frozen features and of fine-tuning; the cheaper one at a tie.

    `fresh` gives the pretrained network with a new head; `heads` go from cheap to dear; `finetune` trains it in place
    and returns validation top-1, and is `None` when fine-tuning is not to be tried, for the reason `why_not`. With
    `from_head` it starts from the best head, so that the first steps do not distort good features (Kumar et al. 2022,
    LP-FT). Where it is `asked` for, its outcome is taken whatever the heads reach.
    """
    name = max(heads, key=lambda head: heads[head].val_top1) if heads else ""
    best = heads.get(name)
    headed: nn.Module | None = None
    if best is not None:
        headed = fresh()
        set_head(headed, best)
        others = [f"{heads[h].val_top1:.3f} of the {h}" for h in heads if h != name]
        compared = f"; validation top-1 {best.val_top1:.3f}, against {others[0]}" if others else ""
    if finetune is None:
        assert best is not None and headed is not None
        return Adapted(headed, name, why_not + compared, best.val_top1)
    if not asked and best is not None and headed is not None and best.val_top1 == 1.0:
        reason = f"the {name} is right on every validation image: nothing can show that more pays"
        return Adapted(headed, name, reason, best.val_top1)
    tuned = fresh()
    if best is not None and from_head:
        set_head(tuned, best)
    score = finetune(tuned)
    if asked or best is None or headed is None:
        return Adapted(tuned, TUNED, "asked for", score)
    if score > best.val_top1:
        reason = f"validation top-1 {score:.3f}, against {best.val_top1:.3f} of the {name}"
        return Adapted(tuned, TUNED, reason, score)
    reason = f"fine-tuning did not pay: validation top-1 {score:.3f}, against {best.val_top1:.3f} of the {name}"
    return Adapted(copy.deepcopy(headed), name, reason, best.val_top1)
