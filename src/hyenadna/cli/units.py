"""Numbers as people read them."""

from __future__ import annotations


def size(count: float) -> str:
    """Bytes with a binary unit: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, the two largest: 1 h 05 min, 3 min 20 s, 12 s."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def counted(count: int, one: str, many: str = "") -> str:
    """A number of things: 1 record, 2,185 records. many: where it is not `one` with an s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def bases(count: float) -> str:
    """A number of bases: 999 bp, 12.2 Mb, 3.10 Gb."""
    for limit, unit in ((1e3, "bp"), (1e6, "kb"), (1e9, "Mb")):
        if count < limit:
            return f"{count * 1e3 / limit:.{0 if unit == 'bp' else 1}f} {unit}"
    return f"{count / 1e9:.2f} Gb"
