"""A board over ssh as a target: what it has is looked at first, the bundle is copied, the kit runs apart from the
connection, and its document comes back; what was put there is removed again.

A run on the board does not need us: where the connection is cut, it goes on, and we log in again and collect it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from edgedistill.errors import DocumentError, EdgedistillError, StoppedError
from edgedistill.evidence.bench import KIT_TIMEOUT_S, read_kit
from edgedistill.evidence.board.address import Address
from edgedistill.evidence.board.boardwords import FIRST_PYTHON, ended, lacking, plain
from edgedistill.evidence.board.calls import Calls
from edgedistill.evidence.board.onboard.talk import PREFIX
from edgedistill.evidence.board.ssh import Connection, Dropped, Reply
from edgedistill.evidence.board.travel import (
    Looked,
    Sent,
    bytes_of,
    needs_of,
    rest_of,
    travelling,
)
from edgedistill.evidence.kitdocument import MAX_KIT_BYTES
from edgedistill.files import write_atomic
from edgedistill.progress import Face

WRITTEN = (0, 1, 2, 3)
"""Exit codes of a kit that came to its own end, and may have written its document."""
PARTS = ("rows", "eval", "check", "engines", "compare")
"""What a document holds where the command came to something, also if one model failed."""
WAIT_S = 3600
"""So long another job of the same user on the board is waited for."""


class SshTarget:
    """A board; `with SshTarget(address, face) as board: board.run(...)`. Its folder there lives as long as the `with`.

    Raises `UsageError` for what the user can mend and `StoppedError` for what may be over the next time.
    """

    def __init__(self, address: Address, face: Face, limit_s: int = KIT_TIMEOUT_S) -> None:
        self.address, self.face, self.limit_s = address, face, limit_s
        self.connection = Connection(address)
        self._token = secrets.token_hex(8)
        self._runs: list[str] = []
        self._root: str | None = None
        self._machine: dict[str, Any] | None = None
        self._looked: dict[tuple[str, ...], Looked] = {}
        self._signals: dict[int, Any] = {}
        self._calls = Calls(self.connection, face, self._result)

    def __enter__(self) -> SshTarget:
        self._heed_signals()
        try:
            self.connection.__enter__()
        except BaseException:
            self._restore_signals()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._clean()
        finally:
            self.connection.close()
            self._restore_signals()

    def machine(self) -> Mapping[str, Any]:
        """What the board says of itself. Raises `UsageError` where it has no Python."""
        if self._machine is None:
            self._machine = dict(self._asked("look", needs=[])["machine"])
        return self._machine

    def look(self, needs: Sequence[str]) -> Looked:
        """What the board has; asked once. Raises `UsageError` where it lacks a Python with all of `needs`."""
        key = tuple(needs)
        if key not in self._looked:
            reply = self._asked("look", needs=list(needs))
            tried = [t for t in reply["tried"] if isinstance(t, dict)]
            for found in tried:
                if tuple(found.get("version") or ()) >= FIRST_PYTHON and all(
                    found.get(n) for n in needs
                ):
                    versions = {"Python": ".".join(map(str, found["version"]))}
                    versions |= {n: str(found[n]) for n in needs}
                    self._looked[key] = Looked(str(found["path"]), versions, reply["machine"])
                    break
            else:
                raise lacking(tried, needs, self.address)
            self.face.say(f"{self.address.login}: {self._looked[key].words}")
        return self._looked[key]

    def run(self, bundle: Path, arguments: Sequence[str], out: Path, face: Face) -> dict[str, Any]:
        """Run one command of the bundle's kit there; its document comes back to `out`. Paths in `arguments` are those
        of files inside the bundle's folder, and relative to it.
        """
        looked = self.look(needs_of(arguments))
        files = travelling(bundle)
        self._copy(files, face)
        run = secrets.token_hex(4)
        self._runs.append(run)
        started = self._asked(
            "start", run=run, python=looked.python, arguments=list(arguments), limit_s=self.limit_s
        )
        place = str(started["run"])
        face.detail(f"{self.address.login}: {' '.join(arguments)} in {plain(place)}")
        words = bytearray()
        status, said = self._follow(place, words, face)
        data = self._fetched(place) if status.get("code") in WRITTEN else None
        if data is not None:
            write_atomic(out, data)
        failed = ended(arguments[0], status, words.decode("utf-8", "replace") or said, self.address)
        if data is None:
            raise failed
        try:
            document = read_kit(out)
        except DocumentError as error:
            raise DocumentError(
                f"{error}. The kit in this bundle is of another version than this edgedistill: make the bundle again"
            ) from None
        if status["code"] != 0 and not any(document.get(part) for part in PARTS):
            raise failed
        return document

    def _asked(self, op: str, **facts: Any) -> Reply:
        """The answer to a call, over as many logins as that takes."""
        return self._calls.held(lambda: self._calls.call(self._request(op, **facts)))

    def _request(self, op: str, **facts: Any) -> dict[str, Any]:
        """A call of this session."""
        own = {"token": self._token, "folder": self.address.folder, "root": self._root}
        return {"op": op, "wait_s": WAIT_S, **own, **facts}

    def _copy(self, files: Sequence[Sent], face: Face) -> None:
        """Bring the folder on the board to the bundle's state; only what differs travels."""
        told, least = [0], [0]

        def once() -> None:
            begun = self._calls.call(self._request("begin", files=[f.row for f in files]))
            self._root = str(begun["root"])
            missing = rest_of(files, begun["missing"])
            if not missing:
                return
            total = sum(f.size - at for f, at in missing)
            if total < least[0]:  # a call that was cut off before it could say so
                self._calls.went_on()
            least[0] = total
            if not told[0]:
                face.say(f"copying {len(missing)} files, {total / 1e6:,.1f} MB")
            told[0] += 1
            with face.bar("copying", total) as advance:
                put = self._request("put", files=[(*f.row, at) for f, at in missing])
                reply = self._calls.call(
                    put, bytes_of(missing), lambda r: advance(int(r.get("stored", 0)))
                )
            if "done" not in reply:
                raise StoppedError(
                    "a file of the bundle changed while it was copied. Give the same command again."
                )

        self._calls.held(once)

    def _follow(self, place: str, words: bytearray, face: Face) -> tuple[dict[str, Any], str]:
        """Tell the progress of a run until it ends, over as many logins as that takes."""
        offset = [0]
        with _progress(face) as tell:

            def told(reply: Reply) -> None:
                if "words" in reply:
                    offset[0] = int(reply["offset"])
                    words.extend(str(reply["words"]).encode())
                    tell(plain(words[-2000:].decode("utf-8", "replace")))

            def once() -> Reply:
                return self._calls.call(
                    self._request("follow", run=place, offset=offset[0]), told=told
                )

            reply = self._calls.held(once)
        return dict(reply["status"]), str(reply.get("out") or "")

    def _fetched(self, place: str) -> bytes | None:
        """The kit document of a run, where it wrote one."""
        data = bytearray()

        def once() -> Reply:
            return self._calls.call(
                self._request("fetch", run=place, offset=len(data), most=MAX_KIT_BYTES),
                told=lambda r: data.extend(base64.b64decode(r["data"])) if "data" in r else None,
            )

        reply = self._calls.held(once)
        if "none" in reply:
            return None
        if reply.get("size") != len(data):
            raise StoppedError(
                f"the kit document on {self.address.login} changed while it was brought here. Give the same command "
                "again."
            )
        return bytes(data)

    def _result(self) -> str:
        """Where the document of the last run will lie, in words."""
        if self._root is None or not self._runs:
            return ""
        return (
            f" Its document will be {plain(self._root)}/run-{self._runs[-1]}/kit.json there: bring it here, and give "
            "it to  edgedistill record"
        )

    def _clean(self) -> None:
        """Remove what was put on the board, and end what runs there; else say the command which does."""
        if self._root is None and not self._runs:
            return
        request = self._request("clean", runs=self._runs)
        with contextlib.suppress(Dropped, EdgedistillError, KeyboardInterrupt):
            if not self._calls.given_up and self._cleaned(request):
                return
        self.face.warn(
            f"something is left on {self.address.login}: to end and remove it, run  {self._by_hand()}"
        )

    def _cleaned(self, request: Mapping[str, Any]) -> bool:
        """Whether nothing is left on the board; after a lost connection, of one more login."""
        try:
            reply = self._calls.call(request)
        except Dropped:
            self.connection.open()
            reply = self._calls.call(request)
        return reply.get("left") is None

    def _by_hand(self) -> str:
        """The one command that ends what runs on the board and removes it. `[r]un` keeps pkill off its own shell."""
        runs = "|".join(f"[r]un-{run}" for run in self._runs) or f"[e]{PREFIX[1:]}{self._token}"
        if self.address.folder is None:
            gone = shlex.quote(self._root) if self._root else f"/tmp/{PREFIX}{self._token}-*"
        else:
            gone = shlex.join(
                f"{self._root or self.address.folder}/run-{run}" for run in self._runs
            )
        return self.address.command(f"pkill -f {shlex.quote(runs)}; rm -rf {gone}")

    def _heed_signals(self) -> None:
        """A polite end of this program is as Ctrl-C: the board is cleaned first."""

        def stop(number: int, frame: FrameType | None) -> None:
            raise KeyboardInterrupt

        if threading.current_thread() is threading.main_thread():
            for name in ("SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)
                if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                    self._signals[number] = signal.signal(number, stop)

    def _restore_signals(self) -> None:
        for number, handler in self._signals.items():
            signal.signal(number, handler)
        self._signals = {}


@contextlib.contextmanager
def _progress(face: Face) -> Iterator[Callable[[str], None]]:
    """Shows the last line of what a run says: in place on a terminal, else each new one, seldom."""
    shown, at = [""], [0.0]
    status = face.console.status("waiting for the board") if face.live else None

    def tell(text: str) -> None:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if not lines or lines[-1] == shown[0]:
            return
        shown[0] = lines[-1]
        if status is not None:
            status.update(json.dumps(shown[0], ensure_ascii=False)[1:-1].replace("[", "\\["))
        elif time.monotonic() - at[0] > 2:
            at[0] = time.monotonic()
            face.say(f"    {shown[0][:160]}")

    with status or contextlib.nullcontext():
        yield tell
