"""What a measurement of time says, as parts of the result document: a file's latency, the machine around it, and two
files against each other.

Times in seconds, energy in joules, temperatures in degrees Celsius, clocks in hertz. Unknown is `None`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgedistill.document import Bytes, Count, Document, Finite, Fraction, Seconds, Sha256

Evidence = Literal["measured_on_target", "measured_on_proxy", "predicted"]
"""Where a number comes from. A file's size and its accuracy under the kit are properties of the file."""

Tier = Literal["quick", "default", "thorough"]
Outcome = Literal["pass", "regress", "inconclusive"]


class Conditions(Document):
    """The machine at one moment, as far as it tells. `busy` is the share of all cores that others took just then."""

    temperature_c: Finite | None = None
    cpu_clock_hz: Count | None = None
    gpu_clock_hz: Count | None = None
    governor: str | None = None
    power_mode: str | None = None
    throttled: list[str] = []
    busy: Fraction | None = None


class Energy(Document):
    """Energy of one run from the board's own sensors; `watts` is above the `idle_watts` before it."""

    source: str
    joules: Finite
    watts: Finite
    idle_watts: Finite


class Latency(Document):
    """One measurement. A percentile that its samples cannot carry is `None`; what is printed is an upper bound that
    holds with 99 % confidence, and `low` has the lower bound of the same.

    `evidence_words` say why the evidence is what it is; `same_class`: the machine's processor is of the device's class,
    so that a proxy says something about a limit (`None` in a result from before this was kept). `arrival` is back to
    back, or paced at `fps`, of which `late` frames were lost: never run, as newer ones had come meanwhile. `scope` is
    the model alone, or from the bytes of a picture to the class, with the median of each part in `parts_s`.
    `quantiles_s` are the 0th to 100th percentiles of the samples themselves. `placement` counts nodes by provider.
    """

    device: str
    machine: str
    runtime: str
    provider: str
    threads: Count
    batch: Count
    evidence: Evidence
    evidence_words: str = ""
    same_class: bool | None = None
    p50_s: Seconds | None = None
    p90_s: Seconds | None = None
    p95_s: Seconds | None = None
    p99_s: Seconds | None = None
    p999_s: Seconds | None = None
    low: dict[str, Seconds] = {}
    band_s: tuple[Seconds, Seconds] | None = None
    n: Count = 0
    mean_s: Seconds | None = None
    max_s: Seconds | None = None
    quantiles_s: list[Seconds] = []
    tier: Tier | None = None
    arrival: Literal["back_to_back", "paced"] = "back_to_back"
    fps: Finite | None = None
    late: Count | None = None
    scope: Literal["model", "end_to_end"] = "model"
    parts_s: dict[str, Seconds] = {}
    inputs: str | None = None
    load_s: Seconds | None = None
    first_run_s: Seconds | None = None
    warmup_runs: Count | None = None
    warmup_s: Seconds | None = None
    affinity: list[Count] = []
    placement: dict[str, Count] = {}
    peak_rss_bytes: Bytes | None = None
    energy: Energy | None = None
    before: Conditions | None = None
    after: Conditions | None = None
    cv: Finite | None = None
    drift: Finite | None = None
    stable: bool | None = None
    warnings: list[str] = []
    samples: str | None = None


class Compared(Document):
    """One of two files that were timed against each other."""

    name: str
    file: str
    sha256: Sha256
    p50_s: Seconds
    n: Count


class Comparison(Document):
    """How much slower `new` is than `old`: the centre of `ratios`, one for each pair of fresh processes that ran in
    turns, with an interval that holds with `confidence` (`ontarget.percentiles.centre`).

    `same_class`: what ran is of the device's kind, its GPU for a device with one; where not, `evidence_words` say so.
    """

    old: Compared
    new: Compared
    ratio: Finite
    low: Finite
    high: Finite
    confidence: Fraction
    ratios: list[Finite]
    machine: str
    runtime: str
    provider: str
    threads: Count
    batch: Count
    evidence: Evidence
    evidence_words: str = ""
    same_class: bool | None = None
    warnings: list[str] = []

    def outcome(self, growth: float) -> Outcome:
        """Against a limit: `growth` 0.05 allows 5 % more. The whole interval must stand on one side."""
        if self.low > 1 + growth:
            return "regress"
        return "pass" if self.high <= 1 + growth else "inconclusive"


class Layer(Document):
    """A part of a file's graph: the operator that holds weights, their bytes as they are stored, and how many."""

    name: str
    operator: str
    size_bytes: Bytes
    params: Count


class GraphFacts(Document):
    """What an ONNX file holds. `size_bytes` counts the file and every external data file that it names; `layers` have
    the largest first; bytes that belong to no layer (the graph itself) are the rest.
    """

    size_bytes: Bytes
    opset: Count
    params: Count
    operators: dict[str, Count] = Field(default={})
    layers: list[Layer] = []
