"""Training curves as TensorBoard event files, one folder a training: `<run>/logs/<stage>/`.

A step is an epoch, and the time of an event is such that TensorBoard's relative time is seconds of training; what is
compared at equal seconds stands under `by_seconds` too, with whole seconds as steps. What a resumed or repeated
training says of an epoch takes the place of what was said before. No result depends on any of this.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgedistill.errors import MissingExtraError
from edgedistill.progress import Sink
from edgedistill.result import CurvePoint

PREFIX = "events.out.tfevents."
KEPT_S = 600
"""An emptied file stays so long: a viewer that reads it would not find the next one without it."""


def require_log(log: str) -> None:
    """Raise `MissingExtraError` when curves are asked for and tensorboard is not installed."""
    if log == "tensorboard" and importlib.util.find_spec("tensorboard") is None:
        raise MissingExtraError("--log tensorboard", "log")


class Logs:
    """The curves of a run; with `None` as the folder nothing is written."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def sink(self, stage: str) -> Sink | None:
        """What takes the curve of a stage while it trains."""
        return None if self.folder is None else EventFile(self.folder / stage)

    def fill(self, stage: str, facts: Mapping[str, Any], told: bool = False) -> None:
        """Write the curve of a finished stage unless it was `told` while it trained; several teachers have one each."""
        if self.folder is None:
            return
        curves = {} if told else {stage: facts.get("curve", ())}
        members = facts.get("members", ())
        if len(members) > 1:
            curves |= {f"{stage}@{i + 1}": member["curve"] for i, member in enumerate(members)}
        for name, curve in curves.items():
            if curve:
                EventFile(self.folder / name)([CurvePoint.model_validate(p) for p in curve])


class EventFile:
    """The curve of one training, written while it grows; a curve that does not go on from the last is written anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path: Path | None = None
        self._written: list[CurvePoint] = []
        self._began = 0.0

    def __call__(self, points: Sequence[CurvePoint]) -> None:
        """Write what is new of a curve; a viewer sees it at once."""
        from tensorboard.summary.writer.record_writer import RecordWriter

        known = len(self._written)
        events: list[Any] = []
        if self._path is None or list(points[:known]) != self._written:
            known, events = 0, self._begin(points[-1])
        for point in points[known:]:
            events += self._events(point)
        assert self._path is not None
        with self._path.open("ab") as file:
            writer = RecordWriter(file)
            for event in events:
                writer.write(event.SerializeToString())
        self._written = list(points)

    def _begin(self, last: CurvePoint) -> list[Any]:
        """A new file; its second event tells a viewer that looks on to forget every epoch that it has seen."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        self.folder.mkdir(parents=True, exist_ok=True)
        now = time.time()
        for old in self.folder.glob(f"{PREFIX}*"):
            if old.stat().st_size:
                old.write_bytes(b"")
            elif now - old.stat().st_mtime > KEPT_S:
                old.unlink()
        self._path, self._began = self.folder / f"{PREFIX}{now:.6f}", now - (last.seconds or 0.0)
        return [
            Event(wall_time=self._began, file_version="brain.Event:2"),
            Event(wall_time=self._began, session_log=SessionLog(status=SessionLog.START)),
        ]

    def _events(self, point: CurvePoint) -> list[Any]:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        at = time.time() if point.seconds is None else self._began + point.seconds
        return [
            Event(
                wall_time=at,
                step=step,
                summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]),
            )
            for step, tag, value in _scalars(point)
        ]


def _scalars(point: CurvePoint) -> Iterator[tuple[int, str, float]]:
    """Step, tag and value of all that is known of an epoch."""
    yield point.epoch, "loss/total", point.loss
    for part, value in point.parts.items():
        yield point.epoch, f"loss/{part}", value
    if point.lr is not None:
        yield point.epoch, "learning_rate", point.lr
    if point.val_top1 is not None:
        yield point.epoch, "validation/top1", point.val_top1
    if point.seconds is not None:
        yield round(point.seconds), "by_seconds/loss", point.loss
        if point.val_top1 is not None:
            yield round(point.seconds), "by_seconds/validation_top1", point.val_top1
