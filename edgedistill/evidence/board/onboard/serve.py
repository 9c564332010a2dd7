"""Serves one request; the module that is started on the board."""

import contextlib
import json
import sys

from edgedistill.evidence.board.onboard.alone import alone
from edgedistill.evidence.board.onboard.files import begin, look, put
from edgedistill.evidence.board.onboard.runs import clean, fetch, follow, start
from edgedistill.evidence.board.onboard.talk import Fault, beating, reply

CALLS = {
    "look": look,
    "begin": begin,
    "put": put,
    "start": start,
    "follow": follow,
    "fetch": fetch,
    "clean": clean,
}
APART = ("start", "follow")
"""Calls that fork, or beat by themselves."""
ALONE = ("look", "begin", "put")
"""Calls that would be heard in a measurement."""


def main() -> None:
    """Serve the one request of stdin."""
    sys.dont_write_bytecode = True
    request = json.loads(sys.stdin.buffer.readline().decode("utf-8"))
    op, stack = request["op"], contextlib.ExitStack()
    try:
        with stack:
            if op not in APART:
                stack.enter_context(beating())
            if op in ALONE:
                stack.enter_context(alone(request))
            CALLS[op](request)
    except Fault as fault:
        reply(**fault.facts)
    except OSError as error:
        reply(fault="system", reason=str(error)[:500], number=error.errno)
