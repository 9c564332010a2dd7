"""Arms of every kind and several teachers for the sample result, and the same with any text in every foreign place."""

from __future__ import annotations

import math
from typing import Any

from evidence_parts import SHA, gain, wilson

from edgedistill.result import Proportion, Result

SEEDS = (0, 1, 2)
MACS, IMAGES = 35_600_000, 6000


def curve(end: float, seed: float, seconds: float, epochs: int = 12) -> list[dict[str, Any]]:
    """A training that ends at `end` of validation after `seconds`."""
    points = []
    for epoch in range(1, epochs + 1):
        share = 1 - math.exp(-3.75 * epoch / epochs)
        wobble = 0.004 * math.sin(epoch * 2.1 + seed)
        points.append(
            {
                "epoch": epoch,
                "loss": 2.1 - 1.62 * share + wobble * 4,
                "val_top1": 0.52 + (end - 0.52) * share + wobble,
                "seconds": seconds * epoch / epochs,
                "lr": 0.002 * (1 + math.cos(math.pi * epoch / epochs)) / 2,
            }
        )
    return points


def _arm(
    name: str, what: str, top1: Proportion, val: float, seconds: dict[str, float]
) -> dict[str, Any]:
    return {
        "name": name,
        "what": what,
        "top1": top1,
        "val_top1": val,
        "balanced_accuracy": top1.value,
        "steps": 1128,
        "epochs": 12,
        "seconds": sum(seconds.values()),
        "seconds_parts": seconds,
        "flops_parts": {"training": 6.0 * MACS * IMAGES * 12},
        "weights_sha256": SHA,
        "seeds": [
            {"seed": s, "top1": min(1.0, max(0.0, top1.value + d)), "val_top1": val + d}
            for s, d in zip(SEEDS, (0.0, 0.0035, -0.0055), strict=True)
        ],
        "curve": curve(val, top1.value * 10, seconds["training"]),
    }


def arms(n: int, chosen_top1: Proportion) -> list[dict[str, Any]]:
    """Plain, distilled, plain for as many seconds, a linear probe and fine-tuning, with three seeds each."""

    def lower(by: float) -> Proportion:
        return wilson(min(n, round(chosen_top1.value * n) - round(by * n)), n)

    plain = _arm("plain", "labels alone, the same start, images and number of steps", lower(0.019), 0.868,
                 {"training": 71.4})  # fmt: skip
    taught = _arm("distilled", "labels and the teacher", chosen_top1, 0.889,
                  {"training": 75.0, "teacher preparation": 128.0, "storing teacher outputs": 18.5})  # fmt: skip
    longer = _arm("plain_longer", "labels alone, for as many seconds as distillation took in all", lower(0.004), 0.887,
                  {"training": 226.1})  # fmt: skip
    probe = _arm("linear_probe", "a linear classifier on the pretrained student's frozen features", lower(0.081),
                 0.803, {"training": 6.2})  # fmt: skip
    tuned = _arm(
        "finetune", "the pretrained student, labels alone", lower(-0.012), 0.904, {"training": 73.9}
    )
    taught["flops_parts"]["storing teacher outputs"] = 2.0 * 170e6 * IMAGES * 12
    longer |= {"steps": 3572, "epochs": 38, "curve": curve(0.887, 0.7, 226.1, 38)}
    longer["flops_parts"] = {"training": 6.0 * MACS * IMAGES * 38}
    for arm in (plain, taught, longer, tuned):
        arm["flops"] = sum(arm["flops_parts"].values())
    longer["notes"] = [
        "a step did not fit in memory: 32 images at once from step 1 on, gradients accumulated"
    ]
    taught["notes"] = [
        "the loss was not finite at step 812: back to step 800, with 50 % of the rate"
    ]
    probe |= {"steps": 0, "epochs": 0, "curve": [], "flops_parts": {}}
    gains = [
        gain(
            "plain",
            0.019,
            0.0128,
            0.004,
            "a gain of 1.9 points (95 % interval +0.6 to +3.2, p = 0.004, n = 2000)",
        ),
        gain(
            "plain_longer",
            0.004,
            0.011,
            0.48,
            "no measurable gain: +0.4 points (95 % interval -0.7 to +1.5)",
        ),
        gain(
            "linear_probe",
            0.081,
            0.014,
            1e-9,
            "a gain of 8.1 points (95 % interval +6.7 to +9.5, p < 0.001)",
        ),
        gain(
            "finetune",
            -0.012,
            0.0113,
            0.041,
            "a loss of 1.2 points (95 % interval -2.3 to -0.1, p = 0.041)",
        ),
    ]
    taught |= {
        "gain": gains[0],
        "gains": gains,
        "seed_gain": {
            "against": "plain",
            "value": 0.019,
            "ci95": (0.008, 0.03),
            "seeds": 3,
            "words": "a gain of 1.9 points (95 % interval +0.8 to +3.0, 3 seeds)",
        },
    }
    return [plain, taught, longer, probe, tuned]


def members() -> dict[str, Any]:
    """Two teachers that taught together, as fields of the teacher."""

    def member(model: str, params: int, top1: float, ece: float) -> dict[str, Any]:
        return {
            "model": model,
            "adaptation": "linear probe, then fine-tuned",
            "adaptation_reason": "Fine-tuning raised validation top-1 by 6 points.",
            "params": params,
            "flops": params * 61,
            "input_size": 96,
            "val_top1": top1,
            "calibration": {"ece": ece, "confidence": 0.93},
            "entropy": 0.21,
            "licence": "Apache-2.0",
        }

    small, large = "bundled:efficientnet_lite0", "bundled:efficientnet_lite2"
    return {
        "entropy_unknowing": math.log(10),
        "model": f"{small} + {large}",
        "combine": "ensemble",
        "entropy": 0.264,
        "members_agreement": 0.931,
        "members": [member(small, 3_380_000, 0.908, 0.038), member(large, 4_880_000, 0.913, 0.033)],
    }


def saying(result: Result, text: str) -> Result:
    """The result with `text` in every place of arms and teachers that a stranger may have written."""
    arms = []
    for arm in result.arms:
        gains = [g.model_copy(update={"words": text}) for g in arm.gains]
        arms.append(
            arm.model_copy(
                update={
                    "name": f"{arm.name} {text}",
                    "what": text,
                    "notes": [text for _ in arm.notes],
                    "gain": arm.gain and arm.gain.model_copy(update={"words": text}),
                    "gains": [
                        g.model_copy(update={"against": f"{g.against} {text}"}) for g in gains
                    ],
                    "seconds_parts": {f"{k} {text}": v for k, v in arm.seconds_parts.items()},
                    "flops_parts": {f"{k} {text}": v for k, v in arm.flops_parts.items()},
                }
            )
        )
    said = {"model": text, "adaptation": text, "adaptation_reason": text, "licence": text}
    members = [member.model_copy(update=said) for member in result.teacher.members]
    teacher = result.teacher.model_copy(update={**said, "words": text, "members": members})
    return result.model_copy(update={"arms": arms, "teacher": teacher})
