"""The views of plans and devices: what they must say, and words that are never taken for markup."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import yaml
from rich.console import Console, RenderableType

from edgedistill.planview import candidates_view, device_view, devices_view
from edgedistill.result import Candidate, Limits, Plan
from edgedistill.target.device import device_names, load_device
from edgedistill.target.plan import plan

PROFILES = Path(__file__).parent.parent / "edgedistill" / "target" / "profiles"


def _shown(view: RenderableType, width: int = 400) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(view)
    return out.getvalue()


def _plan() -> Plan:
    device = load_device("jetson")
    limits = Limits(latency_s=0.003, size_bytes=4_000_000)
    return plan(device, limits, classes=10, image_side=28, at_hand=lambda name: "lite0" in name)


def test_the_chosen_those_behind_and_the_rejected_are_shown_with_their_reasons() -> None:
    made = _plan()
    text = _shown(candidates_view(made))
    assert f"{made.considered:,} candidates were weighed." in text
    assert made.chosen.model in text
    assert made.chosen.reason in text
    assert "ms predicted" in text
    for candidate in [*made.runners_up[:5], *made.rejected[:5]]:
        assert candidate.model in text
        assert candidate.reason in text
    more = len(made.rejected) - 5
    assert more > 0
    assert f"and {more} more" in text


def test_an_unknown_latency_is_no_prediction_and_brackets_stay_words() -> None:
    odd = Candidate(
        model="lcnet_050", input_size=64, precision="int8", pretrained=False, params=1, macs=1,
        size_bytes=1, fits="possible", reason="[red]not[/red] [/] measured",
    )  # fmt: skip
    text = _shown(candidates_view(Plan(considered=1, chosen=odd)))
    assert "no prediction" in text
    assert "[red]not[/red] [/] measured" in text


def test_every_device_is_listed_with_its_limits() -> None:
    text = _shown(devices_view())
    for name in device_names():
        assert name in text
        for alias in load_device(name).aliases:
            assert alias in text


@pytest.mark.parametrize("name", device_names())
def test_a_device_is_shown_with_the_source_of_its_facts(name: str) -> None:
    device = load_device(name)
    text = _shown(device_view(device), 3000)
    assert device.title in text
    for key in ("kind", "runtime", "precisions", "opset"):
        assert device.sources[key] in text
    for precision in device.latency:
        assert f"latency, {precision}" in text
    for note in device.notes:
        assert note in text
    marked = [s for key, s in device.sources.items() if "[M]" in s and key in ("cores", "opset")]
    assert all(source in text for source in marked)


def test_a_profile_of_ones_own_is_shown_as_it_is_written(tmp_path: Path) -> None:
    tree = yaml.safe_load((PROFILES / "raspberry-pi-5.yaml").read_text("utf-8"))
    tree.update(name="mine", aliases=[], title="A [bold]board[/] of mine", notes=["see [/link] 3"])
    tree["sources"]["kind"] = "[/] my own [red]word"
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(tree))
    text = _shown(device_view(load_device(str(path))), 3000)
    assert "A [bold]board[/] of mine" in text
    assert "see [/link] 3" in text
    assert "[/] my own [red]word" in text
