"""Serves one request; the module that is started on the board."""

import json
import sys

from edgedistill.evidence.board.onboard.files import begin, look, put
from edgedistill.evidence.board.onboard.runs import clean, fetch, follow, start
from edgedistill.evidence.board.onboard.talk import Fault, reply

CALLS = {
    "look": look,
    "begin": begin,
    "put": put,
    "start": start,
    "follow": follow,
    "fetch": fetch,
    "clean": clean,
}


def main() -> None:
    """Serve the one request of stdin."""
    sys.dont_write_bytecode = True
    request = json.loads(sys.stdin.buffer.readline().decode("utf-8"))
    try:
        CALLS[request["op"]](request)
    except Fault as fault:
        reply(**fault.facts)
    except OSError as error:
        reply(fault="system", reason=str(error)[:500], number=error.errno)
