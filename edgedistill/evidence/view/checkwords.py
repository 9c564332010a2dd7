"""The words of a check, the same in every view: what a limit allows, what was seen, what grew."""

from __future__ import annotations

from edgedistill.checkresult import Change, Check, CheckRow, Ending, Verdict
from edgedistill.evidence.checks.regression import NAMES
from edgedistill.evidence.view import figures

STATUS_WORD: dict[Ending | Verdict, str] = {
    "pass": "PASS", "fail": "FAIL", "regress": "REGRESS", "inconclusive": "INCONCLUSIVE",
    "unconfirmed": "UNCONFIRMED",
}  # fmt: skip
NOTHING = "–"


def title(row: CheckRow) -> str:
    """The limit in words."""
    return NAMES[row.limit].capitalize()


def allowed(row: CheckRow) -> str:
    """What the limit allows."""
    value, unit = row.allowed.value, row.allowed.unit
    if row.limit in ("max-size-growth", "max-latency-growth"):
        if value == 0:
            return "none"
        return plain_bytes(round(value)) if unit == "bytes" else f"{_short(100 * value)} %"
    if row.limit == "max-drop":
        return f"{_short(100 * value)} points"
    if row.limit == "min-top1":
        return f"{_short(100 * value)} % or more"
    return _value(row, value)


def sides(row: CheckRow) -> tuple[str, str]:
    """The old and the new value, with as many digits as tell them apart."""
    old, new = (NOTHING if v is None else _value(row, v) for v in (row.old, row.new))
    if row.old is None or row.new is None or row.old == row.new:
        return old, new
    for digits in range(3, 13):
        old, new = _value(row, row.old, digits), _value(row, row.new, digits)
        if old != new:
            break
    return old, new


def observed(row: CheckRow) -> str:
    """What is held against the limit, with its interval."""
    if row.observed is None:
        return figures.UNKNOWN if "measured" in row.note else "not known"
    if row.limit == "max-size-growth" and row.old is not None and row.new is not None:
        return growth(round(row.old), round(row.new))
    if row.limit == "max-latency-growth":
        return _with_interval(row, 1, "%")
    if row.limit == "max-drop":
        return _with_interval(row, 2, "points")
    return _value(row, row.observed)


def origins(check: Check) -> str:
    """Who set the limits: `Limits: size growth by default; top-1 by --min-top1.`"""
    found: dict[str, list[str]] = {}
    for row in check.rows:
        found.setdefault(row.allowed.origin, []).append(title(row).lower())
    parts = [f"{', '.join(names)} {_by(origin)}" for origin, names in found.items()]
    return f"Limits: {'; '.join(parts)}." if parts else ""


def _by(origin: str) -> str:
    return "by default" if origin == "default" else f"by {origin}"


def growth(old: int, new: int) -> str:
    """Bytes more or less: `+1,024 B (+0.04 %)`."""
    if old == new:
        return "unchanged"
    share = f" ({_signed(100 * (new - old) / old)} %)" if old else ""
    return f"{'+' if new > old else '−'}{abs(new - old):,} B{share}"


def plain_bytes(count: int) -> str:
    """A number of bytes in full: `1 byte`, `12,345 bytes`."""
    return f"{count:,} byte{'' if count == 1 else 's'}"


def _signed(value: float) -> str:
    return ("+" if value > 0 else "−" if value < 0 else "") + figures.significant(abs(value), 3)


def _with_interval(row: CheckRow, decimals: int, unit: str) -> str:
    def fixed(value: float) -> str:
        text = f"{100 * value:+.{decimals}f}"
        return text.replace("-", "−") if float(text) else text[1:]

    assert row.observed is not None
    bounds = ""
    if row.low is not None and row.high is not None:
        bounds = f" ({fixed(row.low)} to {fixed(row.high)})"
    return f"{fixed(row.observed)} {unit}{bounds}"


def _short(value: float) -> str:
    return f"{value:.6g}"


def _value(row: CheckRow, value: float, digits: int = 3) -> str:
    """A size, a time or a share of images in the unit of people."""
    if row.limit in ("max-size-growth", "max-size-mb", "max-memory-mb"):
        return plain_bytes(round(value)) if value < 10_000 else figures.megabytes(value, digits)
    if row.limit in ("max-latency-growth", "max-latency-ms"):
        return figures.milliseconds(value, digits)
    return figures.percent(value, max(digits - 1, 1))


def operators(check: Check) -> str:
    """Operators that came, went or are more or fewer: `+ HardSwish 3; Clip 35 to 32; − Pad`."""
    parts = []
    for change in check.changes.operators:
        name = figures.short(change.name, 60)
        if change.old is None:
            parts.append(f"+ {name} ({change.new})")
        elif change.new is None:
            parts.append(f"− {name} ({change.old})")
        else:
            parts.append(f"{name} {change.old} to {change.new}")
    return "; ".join(parts)


def facts(check: Check) -> list[tuple[str, str]]:
    """What else changed, as (what, words): files, operators, parameters, opset, precision."""
    new, old = check.new, check.old
    if old is None:
        return []
    found = []
    if len(new.files) > 1 or len(old.files) > 1:
        found += [(f"File {figures.short(c.name, 60)}", change(c)) for c in check.changes.files]
    if check.changes.operators:
        found.append(("Operators", operators(check)))
    for what, before, after in (
        ("Parameters", old.params, new.params),
        ("Opset", old.opset, new.opset),
    ):
        if None not in (before, after) and before != after:
            found.append((what, f"{figures.count(before)} to {figures.count(after)}"))
    if old.precision and new.precision and old.precision != new.precision:
        found.append(("Precision", f"{old.precision} to {new.precision}"))
    return found


def change(item: Change) -> str:
    """Bytes of a layer or file in both models: `1,024 to 2,048 bytes, +1,024 B (+100 %)`."""
    if item.old is None:
        return f"new, {plain_bytes(item.new or 0)}"
    if item.new is None:
        return f"gone, {plain_bytes(item.old)}"
    return f"{item.old:,} to {plain_bytes(item.new)}, {growth(item.old, item.new)}"


def grown(check: Check) -> list[Change]:
    """Everything that holds bytes and changed: layers, those known as a sum, the rest; what grew most first."""
    found = [*check.changes.layers]
    found += [c for c in (check.changes.other_layers, check.changes.rest) if c is not None]
    return sorted(found, key=lambda c: (c.old or 0) - (c.new or 0))


def note(row: CheckRow) -> str:
    """The note and the advice of a row in one line."""
    return "; ".join(part for part in (row.note, row.advice) if part)
