"""Figures of two runs beside each other."""

from collections.abc import Sequence


def table(title: str, columns: Sequence[str], rows: Sequence[tuple[str, ...]]) -> str:
    """Return the rows, each with a name and a figure for each column, under a title."""
    lines = [(title, *columns), *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns) + 1)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def percent(value: float) -> str:
    return f"{value:.1f} %"


def milliseconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{1000 * seconds:.0f} ms"  # noqa: RUF001
