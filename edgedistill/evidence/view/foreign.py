"""Text of strangers in a view: names of classes, files and runs, with nothing hidden in them."""

from __future__ import annotations

import unicodedata

_JOINERS = {"\u200c", "\u200d"}
_SPELLED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _spell(char: str) -> str:
    if char in _SPELLED:
        return _SPELLED[char]
    code = ord(char)
    hidden = unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
    never = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    if not (hidden or never) or char in _JOINERS:
        return char
    return f"\\x{code:02x}" if code < 256 else f"\\u{{{code:x}}}"


def visible(text: str) -> str:
    """`text` with control, bidirectional and private characters spelled out, as `\\u{202e}`."""
    return "".join(map(_spell, text))


def short(text: str, limit: int = 80) -> str:
    """`visible(text)`, at most `limit` characters, the cut shown by an ellipsis."""
    shown = visible(text[: limit * 4])
    return shown if len(shown) <= limit and len(text) <= limit * 4 else shown[: limit - 1] + "…"
