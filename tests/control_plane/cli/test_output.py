"""Answers on the terminal."""

import json

import pytest
import yaml

from control_plane.cli.output import age, redrawing, show, table


def test_columns_are_aligned_and_countable() -> None:
    """Text to the left, numbers to the right, a dash for nothing, no trailing blanks."""
    text = table(("NAME", "COUNT", "NOTE"), [("a", 1, ""), ("longer", 20, None), ("b", None, "x")])

    assert text.splitlines() == [
        "NAME     COUNT   NOTE",
        "a            1   -",
        "longer      20   -",
        "b            -   x",
    ]


def test_a_cell_is_one_line_whatever_a_proxy_says() -> None:
    """A refusal's reason comes from a sidecar; it can neither add rows nor paint the terminal."""
    assert table(("A",), [("x\n\x1b[31mSYNCED",)]).splitlines() == ["A", r"x\n\x1b[31mSYNCED"]


def test_rows_are_cut_on_a_terminal_only() -> None:
    """An ellipsis shows that there is more; in a pipe nothing is left out."""
    rows = [("x" * 30,)]

    assert table(("NAME",), rows, width=10).splitlines()[1] == "x" * 9 + "…"
    assert table(("NAME",), rows).splitlines()[1] == "x" * 30


def test_a_table_without_rows_shows_its_headers() -> None:
    """A script that skips the first line keeps working."""
    assert table(("A", "B"), []) == "A   B"


def test_the_format_is_the_users_choice(capsys: pytest.CaptureFixture[str]) -> None:
    """The same data in each."""
    data = [{"name": "a", "n": 1}]
    show(data, "json", "text")
    assert json.loads(capsys.readouterr().out) == data
    show(data, "yaml", "text")
    assert yaml.safe_load(capsys.readouterr().out) == data
    show(data, "table", "text")
    assert capsys.readouterr().out == "text\n"


def test_watching_in_a_pipe_appends(capsys: pytest.CaptureFixture[str]) -> None:
    """No control characters where nobody draws."""
    with redrawing():
        print("table")

    assert capsys.readouterr().out == "table\n\n"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, "-"), (-3, "0s"), (0.4, "0s"), (45, "45s"), (190, "3m10s"), (3600, "1h"),
        (7500, "2h5m"), (3605, "1h"), (4 * 86400 + 3 * 3600, "4d3h"),
    ],
)  # fmt: skip
def test_spans_are_given_in_two_units(seconds: float | None, expected: str) -> None:
    """Enough to read, never more."""
    assert age(seconds) == expected
