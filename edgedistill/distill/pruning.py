"""From a wider sibling to the student while it learns: channels fall away, the least important first.

HomoDistil (Liang et al. 2023, arXiv 2302.09632) for convolutional networks: importance is |w * dL/dw|, and the number
of channels falls on a cubic schedule, so that the gap to the teacher stays small at every step. Channels are set to
zero while the wide network trains; at the end the narrow one is cut out of it, and is the same function.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from timm.layers import SelectAdaptivePool2d
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgedistill.errors import UsageError, nearest

UNTIL = 0.6
"""The share of the run after which the student has its final width."""
MEMORY = 0.95
"""How much of the importance stays from step to step."""
JOINS = (operator.add, operator.mul, operator.iadd, operator.imul, torch.add, torch.mul)
KEEPS = ("mean", "flatten", "view", "contiguous")

Place = tuple[str, int]
"""A tensor's name, and the dimension that a group of channels runs along."""


@dataclass(frozen=True)
class Group:
    """Channels that live and die together: how many there are, how many stay, and where they are.

    `makers` are the weights and biases that give these channels; with them at zero the channels are zero.
    """

    wide: int
    narrow: int
    places: tuple[Place, ...]
    makers: tuple[str, ...]


@dataclass
class _Found:
    """Places and makers by channel group, while a graph is walked; `parent` joins groups, `steps` is the way."""

    parent: list[int] = field(default_factory=list)
    places: dict[int, list[Place]] = field(default_factory=lambda: defaultdict(list))
    makers: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    steps: list[str] = field(default_factory=list)

    def new(self) -> int:
        self.parent.append(len(self.parent))
        return len(self.parent) - 1

    def root(self, group: int) -> int:
        while self.parent[group] != group:
            group = self.parent[group]
        return group

    def join(self, groups: list[int]) -> int:
        roots = [self.root(group) for group in groups]
        for other in roots[1:]:
            self.parent[other] = roots[0]
        return roots[0]


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        leaf = isinstance(m, nn.Conv2d | _BatchNorm | nn.Linear | SelectAdaptivePool2d)
        return leaf or next(m.children(), None) is None


def groups_of(wide: nn.Module, narrow: nn.Module, name: str, student: str) -> list[Group]:
    """Every group of channels of `wide`, with its size in `narrow`.

    Raises `UsageError` where `wide` is no wider network of the same layers.
    """
    try:
        found, other = _walk(wide), _walk(narrow)
    except (
        Exception
    ) as error:  # tracing refuses in many ways; each means that this network cannot be pruned here
        raise UsageError(
            f"student.prune_from: {name} cannot be pruned ({' '.join(str(error).split())[:200]}). "
            "Take a wider MobileNet-like sibling of the student, or none."
        ) from None
    big, small = wide.state_dict(), narrow.state_dict()
    if big.keys() != small.keys() or found.steps != other.steps:
        raise UsageError(
            f"student.prune_from: {name} has other layers or connections than {student}, so it is no wider sibling. "
            "Take the same family with a larger width, such as mobilenetv2_140 for mobilenetv2_100, or none."
        )
    gathered: dict[int, tuple[list[Place], list[str]]] = {}
    for group in found.places:
        root = found.root(group)
        places, makers = gathered.setdefault(root, ([], []))
        places += found.places[group]
        makers += found.makers[group]
    result = []
    for places, makers in gathered.values():
        sizes = {(big[tensor].shape[dim], small[tensor].shape[dim]) for tensor, dim in places}
        (pair, *others) = sizes
        if others or pair[1] > pair[0]:
            raise UsageError(
                f"student.prune_from: {name} is not wider than {student} in {places[0][0]}; take a wider one, or none."
            )
        result.append(Group(*pair, tuple(places), tuple(makers)))
    return result


def check_sibling(name: str, student: str) -> None:
    """Raise `UsageError` unless timm has `name` and it is a wider sibling of `student`."""
    if not timm.is_model(name):
        hint = nearest(name, timm.list_models()) or "."
        raise UsageError(f'student.prune_from: unknown model "{name}"{hint} Give a timm name.')
    groups_of(timm.create_model(name), timm.create_model(student), name, student)


def _walk(model: nn.Module) -> _Found:
    """Follow channels through the graph of a network."""
    found = _Found()
    group_of: dict[fx.Node, int] = {}
    for node in _Tracer().trace(model).nodes:
        inputs = [group_of[n] for n in node.all_input_nodes]
        found.steps.append(f"{node.op} {node.target} {node.args}")
        if node.op == "placeholder":
            group_of[node] = found.new()
        elif node.op == "call_module":
            module = model.get_submodule(str(node.target))
            group_of[node] = _through(found, module, str(node.target), inputs[0])
        elif node.op == "call_function" and node.target in JOINS and len(inputs) > 1:
            group_of[node] = found.join(inputs)
        elif node.op == "call_method" and node.target in KEEPS:
            group_of[node] = inputs[0]
        elif node.op != "output":
            raise ValueError(f"{node.op} {node.target} is not understood")
    return found


def _through(found: _Found, module: nn.Module, name: str, group: int) -> int:
    """The channel group after a module, whose tensors are noted."""
    out = group
    if isinstance(module, nn.Conv2d | nn.Linear):
        depthwise = isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1
        if depthwise and module.out_channels != module.in_channels:
            raise ValueError(f"{name} makes several channels of one")
        if not depthwise:
            if isinstance(module, nn.Conv2d) and module.groups > 1:
                raise ValueError(f"{name} is a grouped convolution")
            found.places[group].append((f"{name}.weight", 1))
            out = found.new()
        _note(found, out, name, ["weight", "bias"] if module.bias is not None else ["weight"])
    elif isinstance(module, _BatchNorm):
        _note(found, out, name, ["weight", "bias"])
        found.places[out] += [(f"{name}.{part}", 0) for part in ("running_mean", "running_var")]
    elif next(module.parameters(), None) is not None:
        raise ValueError(f"{name} ({type(module).__name__}) is not understood")
    return out


def _note(found: _Found, group: int, name: str, parts: list[str]) -> None:
    found.places[group] += [(f"{name}.{part}", 0) for part in parts]
    found.makers[group] += [f"{name}.{part}" for part in parts]


class Pruner(nn.Module):
    """Importance and masks of every group of a wide network; both are state of the training."""

    def __init__(self, groups: list[Group]) -> None:
        super().__init__()
        self.groups = [group for group in groups if group.narrow < group.wide]
        for at, group in enumerate(self.groups):
            self.register_buffer(f"importance{at}", torch.zeros(group.wide))
            self.register_buffer(f"kept{at}", torch.ones(group.wide, dtype=torch.bool))

    def _buffer(self, name: str) -> Tensor:
        buffer: Tensor = getattr(self, name)
        return buffer

    @property
    def ended(self) -> bool:
        """Whether every group has its final width."""
        return all(
            int(self._buffer(f"kept{at}").sum()) == group.narrow
            for at, group in enumerate(self.groups)
        )

    @torch.no_grad()
    def observe(self, model: nn.Module) -> None:
        """Take the gradients of a step into the importance of each channel."""
        named = dict(model.named_parameters())
        for at, group in enumerate(self.groups):
            seen = torch.zeros_like(self._buffer(f"importance{at}"))
            for name, dim in group.places:
                p = named.get(name)
                if p is not None and p.grad is not None:
                    others = [d for d in range(p.ndim) if d != dim]
                    product = (p * p.grad).abs()
                    seen += product.sum(others) if others else product
            self._buffer(f"importance{at}").lerp_(seen, 1 - MEMORY)

    @torch.no_grad()
    def prune(self, model: nn.Module, progress: float) -> None:
        """Leave as many channels as the schedule says at `progress` in (0, 1], and hold the others at zero."""
        left = max(0.0, 1 - progress / UNTIL) ** 3
        named = dict(model.named_parameters())
        for at, group in enumerate(self.groups):
            count = group.narrow + round((group.wide - group.narrow) * left)
            kept, importance = self._buffer(f"kept{at}"), self._buffer(f"importance{at}")
            if int(kept.sum()) > count:
                ranked = torch.where(kept, importance, torch.full_like(importance, -1.0))
                order = torch.argsort(ranked, descending=True, stable=True)
                kept.zero_()
                kept[order[:count]] = True
            if count < group.wide:
                for name in group.makers:
                    named[name][~kept] = 0

    def narrow(self, wide: nn.Module, narrow: nn.Module) -> None:
        """Cut the narrow network out of the wide one, which has its final width."""
        rows: dict[Place, Tensor] = {}
        for at, group in enumerate(self.groups):
            kept = self._buffer(f"kept{at}").cpu().nonzero()[:, 0]
            assert len(kept) == group.narrow, "pruning has not ended"
            rows |= dict.fromkeys(group.places, kept)
        state: dict[str, Any] = {}
        for name, value in wide.state_dict().items():
            cut = value.cpu()
            for dim in range(cut.ndim):
                if (name, dim) in rows:
                    cut = cut.index_select(dim, rows[name, dim])
            state[name] = cut
        narrow.load_state_dict(state)
