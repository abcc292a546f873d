"""
The matrix as the tables of `docs/resilience.md`: what is promised there is what is tried.

    python -m tests.helpers.fault_matrix.document      writes them anew
"""

from pathlib import Path

from .row import LANES, TITLES, Lane, Row
from .rows import MATRIX

DOCUMENT = Path(__file__).parents[3] / "docs" / "resilience.md"
BEGIN = "<!-- tables: made by tests/helpers/fault_matrix/document.py -->\n"
END = "<!-- end of tables -->\n"


def tables() -> str:
    """Return a table for each policy."""
    return "\n".join(
        f"**{policy.text}**\n\n{_HEAD}{''.join(map(_line, rows))}" for policy, rows in MATRIX
    )


_COLUMNS = ("What goes wrong", *TITLES.values(), "Executed", "Counted as")
_HEAD = f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}\n"


def _line(row: Row) -> str:
    cells = [row.what, *(_seen(row, lane) for lane in LANES), _executed(row), _counted(row)]
    return f"| {' | '.join(cells)} |\n"


def _seen(row: Row, lane: Lane) -> str:
    return " or ".join(_code(one) for one in row.expected(lane)) or "–"  # noqa: RUF001


def _code(seen: str) -> str:
    status, _, refusal = seen.partition(" ")
    return f"{status} `{refusal}`" if refusal else seen


def _executed(row: Row) -> str:
    counts = {row.executions(lane) for lane in LANES if row.expected(lane)}
    return " or ".join(map(str, sorted(counts)))


def _counted(row: Row) -> str:
    flags = {flag: None for lane in LANES if row.expected(lane) for flag in row.flags(lane)}
    said = [" or ".join(f"`{flag}`" for flag in flags)]
    said += [f"{_counter(name)}: {count}" for name, count in (row.counts or {}).items()]
    return "; ".join(said)


def _counter(name: str) -> str:
    """Return the name of a counter and its label."""
    counter, _, label = name.partition(" ")
    return f"`{counter}` {label}".strip()


def parts(text: str) -> tuple[str, str, str]:
    """Return what is before the tables, the tables, and what is behind them."""
    before, _, rest = text.partition(BEGIN)
    found, _, after = rest.partition(END)
    return before + BEGIN, found, END + after


if __name__ == "__main__":
    before, _, after = parts(DOCUMENT.read_text())
    DOCUMENT.write_text(f"{before}\n{tables()}\n{after}")
