"""Calls to a board that outlive its connection: where that is cut, we log in again and go on, as long as that helps."""

from __future__ import annotations

import binascii
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from edgedistill.errors import EdgedistillError, StoppedError
from edgedistill.evidence.board.boardwords import fault
from edgedistill.evidence.board.ssh import Connection, Dropped, Reply
from edgedistill.evidence.board.sshwords import HostKeyError
from edgedistill.progress import Face

RECONNECT_S = 600.0
PAUSES_S = (0.2, 1.0, 2.0, 5.0, 10.0, 20.0)
MOST_DROPS = 10
"""So often in a row the connection may be lost with nothing done in between."""
DONE = ("stored", "data", "words", "beat")
"""What a reply says where something came through, or runs on the board."""
T = TypeVar("T")


class Calls:
    """The calls of one session; `left` says where on the board a result will lie that we cannot wait for."""

    def __init__(self, connection: Connection, face: Face, left: Callable[[], str]) -> None:
        self._connection, self._face, self._left = connection, face, left
        self._login = connection.address.login
        self._heard, self._tries, self._drops = time.monotonic(), 0, 0
        self._waits = False
        self.given_up = False

    def call(
        self,
        request: Mapping[str, Any],
        body: Iterator[bytes] | None = None,
        told: Callable[[Reply], None] | None = None,
    ) -> Reply:
        """One call. What is no answer of ours, or a fault, is an error."""

        def heard(reply: Reply) -> None:
            self._heard = time.monotonic()
            if any(reply.get(key) for key in DONE):
                self.went_on()
            if reply.get("busy") is True and not self._waits:
                self._waits = True
                self._face.say(
                    f"another job of yours is at work on {self._login}; waiting for its end, so that neither times "
                    "the other (Ctrl-C to leave)"
                )
            if told is not None:
                told(reply)

        try:
            reply = self._connection.call(request, body or (), heard)
            if "fault" in reply:
                raise fault(reply, self._connection.address)
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise StoppedError(
                f"{self._login} answers in a way that is not understood ({error!r})"
            ) from None
        return reply

    def went_on(self) -> None:
        """Something came through: a loss of the connection from now on is the first one."""
        self._tries = self._drops = 0

    def held(self, work: Callable[[], T]) -> T:
        """What `work` gives; where the connection is lost, it is done again after another login."""
        self._drops = 0
        while True:
            try:
                return work()
            except Dropped:
                self._drops += 1
                if self._drops >= MOST_DROPS:
                    raise StoppedError(
                        f"the connection to {self._login} was lost {self._drops} times in a row before anything came "
                        "through. Find a better line to it, and give the same command again."
                    ) from None
                self._again()

    def _again(self) -> None:
        """Log in again, until `RECONNECT_S` after the board was last heard. Raises `StoppedError` then."""
        if not self._tries:
            self._face.say(f"the connection to {self._login} was lost; what runs there goes on")
        reason = "the connection is lost each time"
        while time.monotonic() - self._heard < RECONNECT_S:
            self._tries += 1
            time.sleep(PAUSES_S[min(self._tries, len(PAUSES_S)) - 1])
            try:
                self._connection.open()
            except HostKeyError:
                raise
            except EdgedistillError as error:
                reason = str(error)
            else:
                self._face.say(f"logged in to {self._login} again")
                return
        self.given_up = True
        raise StoppedError(
            f"{self._login} was not heard of for {RECONNECT_S:g} s ({reason}). A run that was started there goes on "
            f"to its end.{self._left()}"
        )
