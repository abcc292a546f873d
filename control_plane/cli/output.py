"""
Answers on the terminal: tables as kubectl prints them, JSON, YAML.

A table has upper-case headers and aligned columns and no boxes, so that `awk`, `cut` and eyes can
read it.  On a terminal its rows are cut to the width; in a pipe nothing is ever left out.
"""

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from meshproxy.one_line import one_line

GAP = "   "
NOTHING = "-"


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    width: int | None = None,
    gap: str = GAP,
) -> str:
    """
    Return rows in aligned columns.

    Numbers are aligned to the right, and an empty cell is a dash: columns stay countable.

    Args:
        headers: One for each column.
        rows: Each as long as the headers.
        width: Where to cut lines that are longer; None for nowhere.
        gap: What stands between two columns.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    right = [
        bool(rows)
        and all(isinstance(row[index], int | float) or row[index] is None for row in rows)
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


def show(data: Any, output: str, as_table: str) -> None:
    """Print an answer in the format that was asked for; `as_table` is its table."""
    if output == "json":
        text = json.dumps(data, indent=2)
    elif output == "yaml":
        import yaml

        text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True).rstrip()
    else:
        text = as_table
    print(text, flush=True)


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


def _cut(line: str, width: int | None) -> str:
    if width is None or len(line) <= width:
        return line
    return line[: width - 1] + "…"
