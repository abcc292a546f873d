"""
Answers on the terminal: tables as kubectl prints them, JSON, YAML.

A table has upper-case headers and aligned columns and no boxes, so that `awk`, `cut` and eyes can
read it.  On a terminal its rows are cut to the width; in a pipe nothing is ever left out.
"""

import json
import math
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from meshproxy.one_line import one_line

WATCH_EVERY = 2.0
"""Seconds between two showings of a `--watch`."""
GAP = "   "
NARROW = "  "
"""Between the columns of tables that are to fit a terminal."""
NOTHING = "-"
MOMENTS = (
    "not_before",
    "not_after",
    "certificate_not_after",
    "connected_since",
    "expires_at",
    "since",
    "started_at",
    "old_ends_at",
)
"""Fields that hold seconds since the epoch."""
_PERCENT = re.compile(r"[0-9.]+%")
_CONTROL = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor movements
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)"  # OSC and its like: titles, links, the clipboard
    r"|\x1b[ -/]*[0-~]?"  # other escapes
    r"|[\x00-\x08\x0a-\x1f\x7f-\x9f]"  # all control characters but the tab
)


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    width: int | None = None,
    gap: str = GAP,
) -> str:
    """
    Return rows in aligned columns.

    Numbers and percentages are aligned to the right, and an empty cell is a dash: columns stay countable.

    Args:
        headers: One for each column.
        rows: Each as long as the headers.
        width: Where to cut lines that are longer; None for nowhere.
        gap: What stands between two columns.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    right = [
        bool(rows) and all(_is_number(row[index]) or row[index] is None for row in rows)
        for index in range(len(headers))
    ]
    lines = [
        gap.join(
            text.rjust(size) if numeric else text.ljust(size)
            for text, size, numeric in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in ([*headers], *cells)
    ]
    return "\n".join(_cut(line, width) for line in lines)


def printable(text: str) -> str:
    """
    Return a line without what would move the cursor, colour or command a terminal.

    What others wrote must not be able to rewrite what stands on the screen above it.
    """
    return _CONTROL.sub("", text)


def show(data: Any, output: str, as_table: str) -> None:
    """Print an answer in the format that was asked for; `as_table` is its table."""
    if output == "json":
        text = json.dumps(dated(data), indent=2)
    elif output == "yaml":
        import yaml

        text = yaml.safe_dump(dated(data), sort_keys=False, allow_unicode=True).rstrip()
    else:
        text = as_table
    print(text, flush=True)


def dated(data: Any) -> Any:
    """Return data in which moments are ISO 8601 in UTC, for people, instead of seconds."""
    if isinstance(data, list | tuple):
        return [dated(item) for item in data]
    if not isinstance(data, dict):
        return data
    return {
        key: moment(value) if key in MOMENTS and isinstance(value, int | float) else dated(value)
        for key, value in data.items()
    }


def moment(seconds: float) -> str:
    """Return seconds since the epoch as ``2026-01-02T03:04:05Z``."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def percent(share: float) -> str:
    """
    Return a share as ``99.98%``, without zeros that say nothing.

    It is cut, not rounded: what is not everything is never called 100%.
    """
    return f"{math.floor(round(share * 10_000, 6)) / 100:g}%"


def fitted(
    headers: Sequence[str], rows: Sequence[Sequence[object]], width: int | None, room: int = 12
) -> str:
    """
    Return a table for a terminal, the last column of which is an identity.

    What does not fit is left out of an identity's beginning: the end tells them apart.  Where
    there is not even `room` for that, columns are left out from the right.
    """
    if width is None:
        return table(headers, rows)
    kept = len(headers) - 1

    def without_identity() -> str:
        return table(headers[:kept], [row[:kept] for row in rows], gap=NARROW)

    def taken() -> int:
        return max(map(len, without_identity().splitlines()))

    rest = width - taken() - len(NARROW)
    if rest < room:
        while kept > 1 and taken() > width:
            kept -= 1
        return without_identity()
    ends = [(*row[:-1], _end_of(_cell(row[-1]), rest)) for row in rows]
    return table(headers, ends, gap=NARROW, width=width)


def terminal_width() -> int | None:
    """Return the width of the terminal that we print on; None when we do not."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


@contextmanager
def redrawing() -> Iterator[None]:
    """Before each showing of a `--watch`: clear the screen of a terminal, else leave a blank line."""
    if sys.stdout.isatty():
        print("\x1b[H\x1b[2J", end="")
        yield
    else:
        yield
        print(flush=True)


def shown(view: Callable[[], None], *, watch: bool) -> None:
    """Show a view once, or again and again until interrupted."""
    while watch:
        with redrawing():
            view()
        time.sleep(WATCH_EVERY)
    view()


def age(seconds: float | None) -> str:
    """Return a time span in its largest two units: ``45s``, ``3m10s``, ``2h5m``, ``4d3h``."""
    if seconds is None:
        return NOTHING
    left = max(0, int(seconds))
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
        elif parts:
            break
    return "".join(parts[:2]) or "0s"


def _cell(value: object) -> str:
    if value is None or value == "":
        return NOTHING
    return one_line(str(value))  # proxies and files choose some of it


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) or bool(_PERCENT.fullmatch(str(value)))


def _end_of(text: str, room: int) -> str:
    return text if len(text) <= room else "…" + text[len(text) - room + 1 :]


def _cut(line: str, width: int | None) -> str:
    if width is None or len(line) <= width:
        return line
    return line[: width - 1] + "…"
