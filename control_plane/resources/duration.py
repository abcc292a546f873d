"""
Durations as people write them: GEP-2257, a subset of Go's syntax.

"Valid durations: 1 to 4 pairs of a number of at most 5 digits and a unit, h, m, s or ms"; no
fractions, no signs, no larger units: ``1h30m``, ``10s``, ``250ms``, ``0s``.
"""

import re

# The regular expression of GEP-2257, word for word but for the anchors.
_GEP_2257 = re.compile(r"([0-9]{1,5}(h|m|s|ms)){1,4}")
_PAIR = re.compile(r"([0-9]+)(ms|h|m|s)")
_MILLISECONDS = {"h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}

EXPECTED = "expected a duration such as 1h30m, 10s or 250ms"


def problem(text: str, least: int = 0) -> str | None:
    """Return what is wrong with a duration that is to have at least so many milliseconds."""
    try:
        found = milliseconds(text)
    except ValueError as error:
        return str(error)
    return None if found >= least else f'"{text}" is too short, expected at least {least}ms'


def milliseconds(text: str) -> int:
    """
    Return a duration in milliseconds.

    Raises:
        ValueError: It is not a GEP-2257 duration.
    """
    if not _GEP_2257.fullmatch(text):
        raise ValueError(f'"{text}" is not a duration, {EXPECTED}')
    return sum(int(number) * _MILLISECONDS[unit] for number, unit in _PAIR.findall(text))


def text_of(milliseconds: int) -> str:
    """Return a duration as people write it, in as few words as there are."""
    parts: list[str] = []
    for unit, size in _MILLISECONDS.items():
        count, milliseconds = divmod(milliseconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
