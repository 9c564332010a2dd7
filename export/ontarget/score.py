"""Accuracy of the files themselves: logits over an evaluation set, and the golden outputs they must
reproduce.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ontarget.contract import Bundle, ContractError, Model, load_golden, require_packed
from ontarget.machine import require_room
from ontarget.opening import open_session
from ontarget.preprocess import to_input
from ontarget.session import Session


class SessionFactory(Protocol):
    """Opens a session; `open_session` is the real one."""

    def __call__(self, model: Model, provider: str, threads: int, /) -> Session:
        """A session for a model on a provider with a count of threads, 0 for all cores."""
        ...


def logits_of(
    session: Session,
    model: Model,
    bundle: Bundle,
    pixels: np.ndarray,
    batch: int = 32,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Logits `(N, C)` float32 for pixels `(N, S, S, 3)` uint8, in batches.

    A graph with a fixed batch gets batches of that size, the last one filled up with repeats that
    are then dropped.
    """
    fixed = model.input.shape[0]
    size = fixed or min(batch, session.most_images or batch)
    most = fixed or min(size, len(pixels))
    require_room(most, bundle.preprocess.crop, np.dtype(model.input.dtype).itemsize)
    parts = [np.zeros((0, len(bundle.classes)), dtype=np.float32)]
    for start in range(0, len(pixels), size):
        block = np.array(pixels[start : start + size])
        count = len(block)
        if fixed is not None and count < fixed:
            block = block[np.arange(fixed) % count]
        parts.append(session.run(to_input(block, model, bundle.preprocess))[:count])
        if progress is not None:
            progress(start + count)
    return np.concatenate(parts)


def evaluate_bundle(
    bundle: Bundle,
    pixels: np.ndarray,
    models: Sequence[str] | None = None,
    provider: str = "cpu",
    threads: int = 0,
    batch: int = 32,
    session: SessionFactory = open_session,
    progress: Callable[[str], None] | None = None,
) -> dict[str, np.ndarray]:
    """Every model's logits `(N, C)` float32 over the pixels, by name; `models` None is all of them.

    Raises ContractError for an unknown model or a file that is not the packed one, SessionError
    when one cannot run.
    """
    out = {}
    for model in [bundle.model(name) for name in (models or [m.name for m in bundle.models])]:
        require_packed(model)
        tell = None if progress is None else _teller(progress, model.name, len(pixels))
        with session(model, provider, threads) as opened:
            out[model.name] = logits_of(opened, model, bundle, pixels, batch, tell)
    return out


def _teller(progress: Callable[[str], None], name: str, total: int) -> Callable[[int], None]:
    return lambda done: progress(f"eval {name}: {done} of {total} images")


def score(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """`{"n", "correct", "top1"}` of logits `(N, C)` against labels `(N,)`; logits that are not
    finite count as wrong.

    Raises ContractError when a label has no class.
    """
    if len(labels) != len(logits):
        raise ContractError(f"there are {len(labels)} labels for {len(logits)} images.")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
        raise ContractError(
            f"a label is outside 0 to {logits.shape[1] - 1}, the classes of the bundle."
        )
    right = (logits.argmax(axis=1) == labels) & np.isfinite(logits).all(axis=1)
    correct = int(right.sum())
    return {
        "n": len(labels),
        "correct": correct,
        "top1": correct / len(labels) if len(labels) else None,
    }


@dataclass(frozen=True)
class GoldenCheck:
    """One model against its golden outputs; `error` is relative to the largest logit, None when not
    comparable.
    """

    model: str
    ok: bool
    error: float | None
    tolerance: float
    agree: int
    n: int
    provider: str
    text: str


def tolerance(precision: str, provider: str) -> float:
    """The largest difference allowed, relative to the largest golden logit.

    float32: 1e-4, sums are ordered otherwise on another processor; 1e-2 on a GPU, where
    TensorFloat-32 keeps 10 bits. float16: 2e-2. int8: 0.1, see `check_model`.
    """
    if precision == "float32":
        return 1e-4 if provider == "cpu" else 1e-2
    return {"float16": 2e-2, "int8": 0.1}[precision]


INT8_WITH_SAME_CLASSES = 0.3


def check_model(
    session: Session, model: Model, bundle: Bundle, provider: str = "cpu"
) -> GoldenCheck:
    """Run the golden images and compare.

    INT8 passes within 0.1 of the largest logit, and within 0.3 when each image still gets the same
    class: rounding falls otherwise from processor to processor (without VNNI, x86 kernels saturate
    sums of two products at 16 bits), so a difference alone is no fault, while a changed class or a
    difference beyond that is one.
    """
    pixels, golden = load_golden(bundle)
    limit = tolerance(model.precision, provider)
    n = len(pixels)
    if model.name not in golden:
        return GoldenCheck(
            model.name, False, None, limit, 0, n, session.provider, "no golden outputs for it"
        )
    want = golden[model.name]
    got = logits_of(session, model, bundle, pixels)
    agree = int((got.argmax(axis=1) == want.argmax(axis=1)).sum())
    if not np.isfinite(got).all():
        return GoldenCheck(
            model.name, False, None, limit, agree, n, session.provider, "outputs are not finite"
        )
    error = float(np.abs(got - want).max()) / max(float(np.abs(want).max()), 1e-30)
    ok = error <= limit
    text = f"largest difference {error:.2g} of the largest logit, {limit:g} allowed"
    if model.precision == "int8" and agree == n and limit < error <= INT8_WITH_SAME_CLASSES:
        ok = True
        text += f", {INT8_WITH_SAME_CLASSES:g} as every class is the same"
    return GoldenCheck(model.name, ok, error, limit, agree, n, session.provider, text)


def check_golden(
    bundle: Bundle,
    models: Sequence[str] | None = None,
    provider: str = "cpu",
    session: SessionFactory = open_session,
) -> list[GoldenCheck]:
    """Each model against its golden outputs. Raises SessionError or ProviderError when one cannot
    run.
    """
    rows = []
    for model in [bundle.model(name) for name in (models or [m.name for m in bundle.models])]:
        with session(model, provider, 1) as opened:
            rows.append(check_model(opened, model, bundle, provider))
    return rows
