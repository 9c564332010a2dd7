"""Adapted teachers out of a finished stage: their networks, their weights, and how each sees an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
from torch import nn

from edgedistill.nets import Look, load_state
from edgedistill.rundir import Done
from edgedistill.teacher.huggingface import rebuild_hf
from edgedistill.teacher.onnxfile import rebuild_onnx
from edgedistill.teacher.voice import Chorus, Voice

WEIGHTS, GRAPH = "teacher.safetensors", "teacher.onnx"


def look_of(facts: Any) -> Look:
    """The `Look` that a stage wrote into its facts."""
    size, mean, std = facts["look"]["size"], facts["look"]["mean"], facts["look"]["std"]
    return Look(int(size), (mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))


def members_of(facts: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What is known of each teacher; a stage of one may say it at the top alone."""
    return list(facts.get("members") or [facts])


def restore(done: Done, member: int | None = None) -> nn.Module:
    """The adapted teacher of a finished stage, or one member of several.

    Without `member`, an ensemble comes as one network, and of a ladder or of early states the last one: what speaks for
    the teacher as a whole, for images as `look_of(done.facts)` sees them.
    """
    members, look = members_of(done.facts), None
    if member is not None:
        return network_of(done, members[member])
    if done.facts.get("combine") != "ensemble":
        members = members[-1:]
    if len(members) > 1 or members[0]["look"] != done.facts["look"]:
        look = look_of(done.facts)
        voices = [voice_of(done, one) for one in members]
        return Chorus(voices, look, int(done.facts["classes"]))
    return network_of(done, members[0])


def voice_of(done: Done, member: Mapping[str, Any]) -> Voice:
    """One member, with its weights."""
    name = str(member.get("name", member.get("model", "teacher")))
    return Voice(name, network_of(done, member), look_of(member))


def network_of(done: Done, member: Mapping[str, Any]) -> nn.Module:
    """The network of one member, with its weights. Raises `TeacherError` for a damaged file."""
    model = empty_network(member, done)
    load_state(model, done.folder / str(member.get("file", WEIGHTS)), "the stored teacher")
    return model


def empty_network(member: Mapping[str, Any], done: Done) -> nn.Module:
    """The network of one member as it is built, before its weights."""
    kind = member.get("kind", "timm")
    if kind == "hf":
        return rebuild_hf(member)
    if kind == "onnx":
        return rebuild_onnx(member, (done.folder / str(member["graph"])).read_bytes())
    model: nn.Module = timm.create_model(
        str(member["architecture"]),
        pretrained=False,
        num_classes=int(member["classes"]),
        **member.get("rebuild", {}),
    )
    return model
