"""Scaling laws: the loss of a student from its size, its data and its teacher's loss. numpy only.

Two published forms (Busbridge et al. 2025, arXiv 2502.08606): the supervised law of equation 1 (that of Hoffmann et al.
2022 with an outer exponent), and the distillation law of equation 8, in which a teacher enters by its loss alone. And
forms for images, which a student sees again and again: the same laws, on data that is worth less each time. All are
written in logarithms, each with its gradient. No coefficient is given here: the published ones are of language models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
LogLoss = Callable[[Array, "Runs"], tuple[Array, Array]]
"""Parameters (..., P) and runs (R) to the logarithm of the loss (..., R) and its gradient (..., R, P)."""


@dataclass(frozen=True)
class Runs:
    """What a law sees of R runs, each an array (R,) of positive numbers.

    `size` is the student's (parameters or multiply-accumulates: the same for all runs of a law), `seen` the images that
    it was shown, repeats counted, `unique` the different ones among them, `teacher` the teacher's loss in nats, `alone`
    what the supervised law says of such a student without a teacher, and `taught` 1 with a teacher and 0 without. What
    a form does not read may be ones.
    """

    size: Array
    seen: Array
    unique: Array
    teacher: Array
    alone: Array
    taught: Array

    def __post_init__(self) -> None:
        lengths = {len(getattr(self, field.name)) for field in fields(self)}
        if len(lengths) != 1:
            raise ValueError(f"runs of different lengths: {sorted(lengths)}")
        for field in fields(self):
            values = getattr(self, field.name)
            least = -np.inf if field.name == "taught" else 0.0
            if not (np.isfinite(values).all() and (values > least).all()):
                raise ValueError(f"{field.name} must be finite and above 0")

    def __len__(self) -> int:
        return len(self.size)

    def __getitem__(self, which: npt.NDArray[np.int64] | npt.NDArray[np.bool_] | slice) -> Runs:
        return Runs(**{field.name: getattr(self, field.name)[which] for field in fields(self)})


def runs_of(
    size: object,
    seen: object,
    unique: object = None,
    teacher: object = None,
    alone: object = None,
) -> Runs:
    """Runs from numbers or sequences, which are broadcast; data seen once where `unique` is not given, taught where
    `teacher` is.
    """
    given = [size, seen, seen if unique is None else unique]
    given += [1.0 if value is None else value for value in (teacher, alone)]
    given.append(0.0 if teacher is None else 1.0)
    arrays = np.broadcast_arrays(*[np.atleast_1d(np.asarray(v, dtype=np.float64)) for v in given])
    return Runs(*(np.array(array) for array in arrays))


@dataclass(frozen=True)
class Parameter:
    """One parameter of a form, as it is fitted: its bounds, where fits of it start, and for a form with more parameters
    than a few runs determine, what is `likely`: a centre and a spread.
    """

    name: str
    low: float
    high: float
    starts: tuple[float, ...]
    likely: tuple[float, float] | None = None


@dataclass(frozen=True)
class Form:
    """A law without its coefficients. `source` is the paper and equation; `reads` the fields of `Runs` that matter."""

    name: str
    parameters: tuple[Parameter, ...]
    log_loss: LogLoss
    reads: tuple[str, ...]
    source: str

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters, in their order in every array."""
        return tuple(parameter.name for parameter in self.parameters)

    def array(self, values: Mapping[str, float]) -> Array:
        """Named values as an array (P,). Raises `ValueError` unless they are exactly the form's own."""
        if set(values) != set(self.names):
            raise ValueError(
                f"{self.name} has the parameters {', '.join(self.names)}, not {', '.join(values)}"
            )
        return np.array([float(values[name]) for name in self.names])

    def loss(self, values: Array, runs: Runs) -> Array:
        """Loss in nats (..., R) for parameters (..., P)."""
        return np.exp(self.log_loss(values, runs)[0])


_EXPONENT = (0.0, 0.5, 1.0, 1.5)
_LOG_SCALE = (0.0, 5.0, 10.0, 15.0, 20.0)
_LOG_FLOOR = (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5)
LOWEST_EXPONENT = 1e-3
"""Exponents stay above this: at 0 a term no longer depends on what it is of, and 1 / f1 has no value."""


def _exponent(name: str, starts: tuple[float, ...] = _EXPONENT, high: float = 5.0) -> Parameter:
    return Parameter(name, LOWEST_EXPONENT, high, starts)


@dataclass(frozen=True)
class Data:
    """What counts as data: the logarithm of its amount (..., R), with the gradient (..., R, T), from the images."""

    parameters: tuple[Parameter, ...]
    log_amount: LogLoss
    reads: tuple[str, ...]


def _seen(values: Array, runs: Runs) -> tuple[Array, Array]:
    found = np.broadcast_to(np.log(runs.seen), (*values.shape[:-1], len(runs)))
    return found, np.zeros((*found.shape, 0))


def _repeated(values: Array, runs: Runs) -> tuple[Array, Array]:
    rate = np.exp(values[..., :1])
    repeats = np.maximum(runs.seen / runs.unique - 1.0, 0.0)
    left = np.exp(-repeats / rate)
    worth = 1.0 + rate * -np.expm1(-repeats / rate)
    slope = rate * (1.0 - left - repeats / rate * left) / worth
    return np.log(np.minimum(runs.unique, runs.seen)) + np.log(worth), slope[..., None]


SEEN = Data((), _seen, ("seen",))
"""Each image that is shown counts as new."""
REPEATED = Data(
    (Parameter("log_repeats", -2.0, 12.0, (0.0, 3.0, 6.0)),), _repeated, ("seen", "unique")
)
"""An image that is shown again is worth less each time: U + U r (1 - exp(-(S / U - 1) / r)) for S images shown of U
(Muennighoff et al. 2023, arXiv 2305.16264, equation 5), with log r as `log_repeats`."""


def supervised(data: Data = SEEN) -> Form:
    """L = E + (A / N^alpha + B / D^beta)^gamma: Busbridge et al. 2025, equation 1."""

    def log_loss(values: Array, runs: Runs) -> tuple[Array, Array]:
        log_e, gamma = values[..., 0:1], values[..., 5:6]
        d, slope = data.log_amount(values[..., 6:], runs)
        inner, inner_by = _sum(values[..., 1:5], np.log(runs.size), d)
        rest = gamma * inner
        total = np.logaddexp(log_e, rest)
        by_rest = np.exp(rest - total)
        parts = [np.exp(log_e - total)[..., None], (by_rest * gamma)[..., None] * inner_by[..., :4]]
        parts += [
            (by_rest * inner)[..., None],
            (by_rest * gamma * inner_by[..., 4])[..., None] * slope,
        ]
        return total, np.concatenate(parts, axis=-1)

    floor = Parameter("log_e", -20.0, 5.0, _LOG_FLOOR)
    return Form(
        "supervised",
        (floor, *_terms(), _exponent("gamma"), *data.parameters),
        log_loss,
        ("size", *data.reads),
        "Busbridge et al. 2025, equation 1",
    )


def distillation(data: Data = SEEN) -> Form:
    """L = L_T + L_T^-c0 (1 + (L_T / (L~ d1))^(1 / f1))^(-c1 f1) (A / N^alpha + B / D^beta)^gamma: equation 8 there.

    L~ is `alone`, the loss without a teacher.
    """

    def log_loss(values: Array, runs: Runs) -> tuple[Array, Array]:
        gamma, c0, c1, f1, log_d1 = (values[..., k : k + 1] for k in range(4, 9))
        teacher = np.log(runs.teacher)
        d, slope = data.log_amount(values[..., 9:], runs)
        inner, inner_by = _sum(values[..., 0:4], np.log(runs.size), d)
        ahead = (teacher - np.log(runs.alone) - log_d1) / f1
        soft = np.logaddexp(0.0, ahead)
        share = np.exp(ahead - soft)
        rest = -c0 * teacher - c1 * f1 * soft + gamma * inner
        total = np.logaddexp(teacher, rest)
        by_rest = np.exp(rest - total)
        slopes = [gamma[..., None] * inner_by[..., :4], inner[..., None]]
        slopes += [np.broadcast_to(-teacher, inner.shape)[..., None], (-f1 * soft)[..., None]]
        slopes += [(-c1 * soft + c1 * ahead * share)[..., None], (c1 * share)[..., None]]
        slopes += [(gamma * inner_by[..., 4])[..., None] * slope]
        return total, by_rest[..., None] * np.concatenate(slopes, axis=-1)

    narrow = (0.0, 0.5, 1.0)
    return Form(
        "distillation",
        (
            *_terms(narrow),
            _exponent("gamma", narrow),
            Parameter("c0", 0.0, 20.0, _EXPONENT),
            Parameter("c1", 0.0, 2000.0, _EXPONENT),
            Parameter("f1", 0.01, 10.0, _EXPONENT),
            Parameter("log_d1", -3.0, 3.0, (-1.0, -0.5, 0.0, 0.5, 1.0)),
            *data.parameters,
        ),
        log_loss,
        ("size", *data.reads, "teacher", "alone"),
        "Busbridge et al. 2025, equation 8",
    )


def between() -> Form:
    """log L = k0 + (1 - k1) log L~ + k1 log L_T: the student ends between itself without a teacher and the teacher.

    For few runs, and for students that learn from labels too and may end below their teacher's loss, which equation 8
    forbids. No paper's: a straight line in logarithms.
    """

    def log_loss(values: Array, runs: Runs) -> tuple[Array, Array]:
        alone, ahead = np.log(runs.alone), np.log(runs.teacher / runs.alone)
        total = values[..., 0:1] + alone + values[..., 1:2] * ahead
        ones = np.ones(total.shape)
        return total, np.stack([ones, ones * ahead], axis=-1)

    shift = Parameter("k0", -3.0, 3.0, (0.0,))
    return Form(
        "between",
        (shift, Parameter("k1", -1.0, 2.0, (0.0, 0.5))),
        log_loss,
        ("teacher", "alone"),
        "own",
    )


def fixed(form: Form, **values: float) -> Form:
    """The form with some parameters held at a value: fewer to fit, for fewer runs."""
    held = [form.names.index(name) for name in values]
    free = [k for k in range(len(form.names)) if k not in held]

    def log_loss(given: Array, runs: Runs) -> tuple[Array, Array]:
        every = np.empty((*given.shape[:-1], len(form.names)))
        every[..., free] = given
        every[..., held] = list(values.values())
        total, slopes = form.log_loss(every, runs)
        return total, slopes[..., free]

    words = ", ".join(f"{name} = {value:g}" for name, value in values.items())
    return Form(
        f"{form.name} with {words}",
        tuple(form.parameters[k] for k in free),
        log_loss,
        form.reads,
        form.source,
    )


def _terms(starts: tuple[float, ...] = _EXPONENT) -> tuple[Parameter, ...]:
    scales = [Parameter(name, -20.0, 60.0, _LOG_SCALE) for name in ("log_a", "log_b")]
    return (*scales, _exponent("alpha", starts), _exponent("beta", starts))


def _sum(values: Array, n: Array, d: Array) -> tuple[Array, Array]:
    """log(A / N^alpha + B / D^beta) (..., R), and its gradient (..., R, 5) by log A, log B, alpha, beta and log D."""
    log_a, log_b, alpha, beta = (values[..., k : k + 1] for k in range(4))
    a, b = log_a - alpha * n, log_b - beta * d
    total = np.logaddexp(a, b)
    by_a, by_b = np.exp(a - total), np.exp(b - total)
    return total, np.stack([by_a, by_b, -by_a * n, -by_b * d, -by_b * beta], axis=-1)
