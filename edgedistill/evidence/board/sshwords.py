"""What a login that failed means, and the one command that helps: the OpenSSH client's own words, taken apart."""

from __future__ import annotations

import re
import shlex

from edgedistill.errors import EdgedistillError, StoppedError, UsageError
from edgedistill.evidence.board.address import Address

NO_PYTHON = re.compile(
    r"python3['\"]?:.*(not found|no such file)|not found.*python3|unknown command.*python3", re.I
)
TOO_OLD = ("SyntaxError", "Unknown option: -I", "No module named 'typing'")


class HostKeyError(UsageError):
    """A host key that is not the one that is known, or is not known."""


def explained(words: str, address: Address, code: int = 255) -> EdgedistillError:
    """The error for what the client, or the board through it, said before it ended with `code`."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    text = " ".join(lines)
    if code != 255:
        return _on_the_board(text, address, code)
    if "IDENTIFICATION HAS CHANGED" in text:
        return _changed(words, address)
    if "Host key verification failed" in text or "host key is known for" in text:
        return HostKeyError(
            f"the board {address.host} is not known here yet, so its host key was not accepted and nothing was sent. "
            f"Log in once by hand and compare the fingerprint that it shows: run  {address.command()}"
        )
    for sign, make in _SIGNS.items():
        if sign in text:
            return make(address, text)
    return StoppedError(
        f"ssh cannot reach {address.login}: {_end(lines) or 'it ended without a word'}"
    )


def _changed(words: str, address: Address) -> HostKeyError:
    """Another host key than the known one: refused, with the file and the way to forget the old key."""
    found = re.search(r"Offending .*key in (.+):(\d+)\s*$", words, re.M)
    where = f" ({found.group(1)}, line {found.group(2)})" if found else ""
    name = f"[{address.host}]:{address.port}" if address.port not in (None, 22) else address.host
    given = ["-f", found.group(1)] if found else []
    return HostKeyError(
        f"the host key of {address.host} is not the one that is known here{where}: another machine answers under its "
        "name, or the board was set up anew. Nothing was sent to it. If it was set up anew, forget the old key: run  "
        f"{shlex.join(['ssh-keygen', *given, '-R', name])}  and log in once by hand to compare the new one."
    )


def _no_host(address: Address, text: str) -> EdgedistillError:
    return UsageError(
        f"no machine called {address.host} is found from here. Look up its name or address on the board "
        f"(hostname -I), and try: ping -c 1 {shlex.quote(address.host)}"
    )


def _refused(address: Address, text: str) -> EdgedistillError:
    return StoppedError(
        f"{address.host} takes no ssh connection at port {address.port or 22}. Start its ssh server: run on the board  "
        "sudo systemctl enable --now ssh"
    )


def _silent(address: Address, text: str) -> EdgedistillError:
    return StoppedError(
        f"{address.host} does not answer: it is off, or in another network. Try: ping -c 1 {shlex.quote(address.host)}"
    )


def _denied(address: Address, text: str) -> EdgedistillError:
    if "Too many authentication failures" in text:
        return UsageError(
            f"{address.login} refused you after too many keys, before the right one was offered: name that one in "
            "~/.ssh/config, with IdentitiesOnly yes. To see what is offered: run  "
            + address.command().replace("ssh ", "ssh -v ", 1)
        )
    return UsageError(
        f"{address.login} does not accept a key of yours, or the key has a passphrase (neither that nor a password is "
        "asked for here). A key with a passphrase is unlocked once a session: run  ssh-add  (in a shell without an "
        "agent first  eval $(ssh-agent)). A key that the board does not know is given to it: run  "
        + address.command(program="ssh-copy-id")
    )


_SIGNS = {
    "Could not resolve hostname": _no_host,
    "Connection refused": _refused,
    "timed out": _silent,
    "No route to host": _silent,
    "Network is unreachable": _silent,
    "Permission denied": _denied,
    "Too many authentication failures": _denied,
}


def _on_the_board(text: str, address: Address, code: int) -> EdgedistillError:
    """Why our program did not start or did not end there."""
    if code == 127 or NO_PYTHON.search(text):
        return UsageError(
            f"the board {address.host} has no python3, and the kit needs Python 3.8 or newer. Install it: run  "
            + address.command("sudo apt-get install -y python3-venv", terminal=True)
        )
    if any(sign in text for sign in TOO_OLD):
        return too_old(address, "older than 3.5")
    said = f": {text[-400:]}" if text else ""
    return StoppedError(
        f"the board {address.host} did not run what was asked of it (exit code {code}){said}. See what its login shell "
        f"does with a command: run  {address.command('python3 --version')}"
    )


def too_old(address: Address, version: str) -> UsageError:
    """A Python that cannot run the kit."""
    return UsageError(
        f"python3 of the board {address.host} is {version}, and the kit needs 3.8 or newer; a newer one beside it "
        f"is found "
        "by itself. On JetPack 4, where there is none, build_engine.sh times an engine with trtexec alone. Where the "
        "system has one: run  "
        + address.command("sudo apt-get install -y python3.8 python3.8-venv", terminal=True)
    )


def _end(lines: list[str]) -> str:
    return " ".join(lines)[-500:]
