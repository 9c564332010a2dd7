"""What a board that answers lacks, and how a run on it ended badly: one paragraph and one command each."""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping, Sequence
from typing import Any

from edgedistill.errors import EdgedistillError, StoppedError, UsageError
from edgedistill.evidence.board.address import Address
from edgedistill.evidence.board.sshwords import too_old

FIRST_PYTHON = (3, 8)
OWN = "~/.ontarget"
"""The environment of packages on the board that is looked for first."""
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_PACKAGES = {"onnxruntime": "numpy onnxruntime", "numpy": "numpy onnxruntime"}


def plain(text: str) -> str:
    """Words of the board for a terminal here: lines, and nothing that steers it."""
    return _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def lacking(
    tried: Sequence[Mapping[str, Any]], needs: Sequence[str], address: Address
) -> EdgedistillError:
    """No Python of the board has all that the kit needs: the nearest one decides what is said."""
    young = [t for t in tried if tuple(t.get("version") or ()) >= FIRST_PYTHON]
    if not young:
        known = [".".join(map(str, t["version"])) for t in tried if t.get("version")]
        return too_old(address, known[0] if known else "damaged: it does not start")
    best = max(young, key=lambda t: sum(t.get(n) is not None for n in needs))
    missing = next(n for n in needs if best.get(n) is None)
    where = f"{best['path']} (Python {'.'.join(map(str, best['version']))})"
    broken = (best.get("error") or {}).get(missing)
    why = (
        f"{missing} of {where} cannot be loaded ({plain(broken)[:200]})"
        if broken
        else f"{where} has no {missing}"
    )
    if missing == "tensorrt":
        return UsageError(
            f"on the board {address.host} {why}: an engine needs TensorRT's own Python package, which JetPack "
            f"brings: run  "
            + address.command("sudo apt-get install -y python3-libnvinfer", terminal=True)
            + "  or use build_engine.sh, which needs trtexec alone."
        )
    made = f"python3 -m venv --system-site-packages {OWN} && {OWN}/bin/pip install {_PACKAGES[missing]}"
    return UsageError(
        f"on the board {address.host} {why}. Give the kit an environment of its own, which is found by itself: run  "
        + address.command(made)
    )


def fault(reply: Mapping[str, Any], address: Address) -> EdgedistillError:
    """A fault that the board named."""
    place, kind = str(reply.get("place")), reply.get("fault")
    if kind == "space":
        free, need = float(reply["free"]) / 1e6, float(reply["need"]) / 1e6
        shown = plain(place)
        other = address.folder is None
        way = (
            "give a folder on a larger disk behind the address, such as /mnt/ssd/bundle"
            if other
            else "give another folder"
        )
        return StoppedError(
            f"no space on the board {address.host}: {shown} has {free:,.0f} MB free, and {need:,.0f} MB are "
            f"needed. Make room, "
            f"or {way}. To see where there is some: run  {address.command('df -h')}"
        )
    if kind == "write":
        if reply.get("number") == errno.EROFS:
            return StoppedError(
                f"the board {address.host} is mounted read-only at {plain(place)}, often after a fault of its "
                f"card: run  " + address.command("sudo mount -o remount,rw /", terminal=True)
            )
        return UsageError(
            f"the board {address.host} lets nothing be written to {plain(place)} ({reply.get('reason')}). Give a "
            f"folder of "
            f"{address.user or 'your user'}'s own behind the address, such as /~/bundle. To see whose it is: run  "
            + address.command("ls -ld /tmp /var/tmp ~")
        )
    if kind == "busy":
        return busy(reply, address)
    if kind == "large":
        return StoppedError(
            f"the kit document on the board {address.host} is too large to be taken: {reply['size']:,} bytes"
        )
    return StoppedError(
        f"the board {address.host} could not go on: {plain(str(reply.get('reason') or kind))[:300]}. To see how it "
        f"is: run  " + address.command("dmesg | tail")
    )


def busy(facts: Mapping[str, Any], address: Address) -> EdgedistillError:
    """Another job of the same user has the board."""
    return StoppedError(
        f"another job of yours was at work on the board {address.host} for all of {facts['seconds']:,} s, and two at "
        f"once would time each other. To see what runs there: run  {address.command('pgrep -af ontarget')}"
    )


def ended(
    command: str, status: Mapping[str, Any], words: str, address: Address
) -> EdgedistillError:
    """A run that did not end well: the kit's own words where it has some."""
    code, where = status.get("code"), f"on the board {address.host}"
    if status.get("gone"):
        return StoppedError(
            f"the folder of the run is gone {where}: it was started anew, or cleared. Give the command again."
        )
    if status.get("fault") == "busy":
        return busy(status, address)
    if code is None and "seconds" in status:
        return StoppedError(
            f"the kit did not end within {status['seconds']:,} s {where} ({command}) and was stopped. Measure "
            f"less: --quick, "
            "or one file alone with --model NAME"
        )
    if code == -9 or status.get("lost"):
        return StoppedError(
            f"the kit was killed {where} ({command}), most likely for want of memory. Close what else runs there, "
            f"or measure one "
            f"file alone with --model NAME. To see what the system says: run  {address.command('dmesg | tail')}"
        )
    if code is None or code < 0:
        told = plain(str(status.get("fault") or f"signal {-code if code else '?'}"))
        return StoppedError(f"the kit was ended {where} ({command}): {told}")
    if code == 0:
        return StoppedError(f"the kit wrote no document {where} ({command}), though it ended well")
    text = plain(words).strip()[-1500:] or f"exit code {code}"
    if "unrecognized arguments" in text or "invalid choice" in text:
        return UsageError(
            f"the kit in this bundle is of another version and does not know what was asked of it {where}: "
            f"{_last(text)}. Make the "
            "bundle again with this edgedistill, or leave that option out."
        )
    kinds: dict[int, type[EdgedistillError]] = {2: UsageError, 3: StoppedError}
    return kinds.get(code, StoppedError)(f"the kit could not {command} {where}: {text}")


def _last(text: str) -> str:
    return text.splitlines()[-1][-300:]
