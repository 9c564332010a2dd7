"""Where a board is: `ssh://user@board[:port][/folder]`, as data for a client that hands some of it to shells."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from edgedistill.errors import UsageError

FORM = "ssh://user@board, with :port and /folder where they are needed"
_HOST = re.compile(
    r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9_.])?|[0-9A-Fa-f:]+(?:%[A-Za-z0-9]+)?"
)
_NOT_IN_USERS = frozenset("'`\"$;&<>|(){}\\%")
"""What newer clients refuse in a user name, as a ProxyCommand would hand it to a shell."""


@dataclass(frozen=True)
class Address:
    """Where a board is. `folder` is a path on it that the bundle is kept in, `None` for a private one of this run."""

    host: str
    user: str | None = None
    port: int | None = None
    folder: str | None = None

    @property
    def login(self) -> str:
        """`user@host`, as people write it."""
        return f"{self.user}@{self.host}" if self.user is not None else self.host

    def command(self, *remote: str, program: str = "ssh", terminal: bool = False) -> str:
        """A command for a person to paste: ssh with a remote command, quoted for both shells."""
        port = ["-p", str(self.port)] if self.port is not None else []
        words = [program, *(["-t"] if terminal else []), *port, self.login]
        return shlex.join([*words, " ".join(remote)] if remote else words)


def parse_address(text: str) -> Address:
    """The address in `ssh://[user@]host[:port][/folder]`. Raises `UsageError`."""

    def no(why: str) -> UsageError:
        hidden = re.sub(r"^(ssh://[^@/:]*:)[^@]*@", r"\1***@", text)
        shown = "".join(c if c.isprintable() else "?" for c in hidden)[:120]
        return UsageError(f'--target "{shown}": {why}. Give {FORM}.')

    if not all(c.isprintable() for c in text):
        raise no("it holds a character that cannot be printed")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise no(str(error)) from None
    if parts.scheme != "ssh":
        raise no("only boards over ssh are known")
    if parts.query or parts.fragment:
        raise no('"?" and "#" in a folder are written %3F and %23')
    user, colon, _ = parts.netloc.rpartition("@")[0].partition(":")
    if colon:
        raise no("a password has no place here; a key does, see ssh-copy-id")
    host = parts.netloc.rpartition("@")[2]
    host = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if not _HOST.fullmatch(host):
        raise no("the host is not a name or an address" if host else "the host is missing")
    name = unquote(user)
    if name and (
        name[0] == "-"
        or set(name) & _NOT_IN_USERS
        or not all(c.isprintable() for c in name)
        or " -" in name
    ):
        raise no("no user has such a name")
    folder = unquote(parts.path)
    if "\0" in folder:
        raise no("a folder holds no zero byte")
    folder = folder[1:] if folder.startswith("/~/") else folder
    return Address(host, name or None, port, folder if folder.strip("/") else None)
