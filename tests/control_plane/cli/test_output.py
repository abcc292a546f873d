"""Answers on the terminal."""

import json

import pytest
import yaml

from control_plane.cli.output import (
    age,
    dated,
    fitted,
    percent,
    printable,
    redrawing,
    show,
    shown,
    table,
)


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


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("\x1b[31mred\x1b[0m é│…\tx", "red é│…\tx"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]52;c;cGF5\x1b\\y", "y"),
        ("a\rb\x08\x00\x7f\x9b2Jc", "abc"),
        ("\x1bc\x1b(B!", "!"),
    ],
)
def test_nothing_commands_the_terminal(line: str, expected: str) -> None:
    """Colours, cursor movements, titles, the clipboard, NUL; tabs and letters stay."""
    assert printable(line) == expected
    [_, row] = table(("A",), [(line,)]).splitlines()
    assert row.isprintable()  # in a table they are shown, written as escapes


def test_moments_are_dates() -> None:
    """At any depth, and only where a field holds one."""
    data = {"a": [{"not_after": 3600.5, "weight": 1}], "expires_at": None}

    assert dated(data) == {
        "a": [{"not_after": "1970-01-01T01:00:00Z", "weight": 1}],
        "expires_at": None,
    }


@pytest.mark.parametrize(
    ("share", "expected"),
    [(1, "100%"), (0.9, "90%"), (1 / 3, "33.33%"), (0.99999, "99.99%"), (0.29, "29%"), (0, "0%")],
)
def test_percentages_have_one_style(share: float, expected: str) -> None:
    """Two digits at most, and never 100% of what is less."""
    assert percent(share) == expected


def test_an_identity_shows_its_end() -> None:
    """Where it does not fit; where hardly anything of it would, it is left out."""
    rows = [("shop", "spiffe://demo.mesh/ns/default/sa/shop")]

    assert fitted(("NAME", "IDENTITY"), rows, None) == table(("NAME", "IDENTITY"), rows)
    assert fitted(("NAME", "IDENTITY"), rows, 20).splitlines()[1] == "shop  …fault/sa/shop"
    assert fitted(("NAME", "IDENTITY"), rows, 10).splitlines() == ["NAME", "shop"]


def test_a_view_is_shown_until_it_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `--watch` again and again; without, once."""
    seen: list[int] = []
    shown(lambda: seen.append(1), watch=False)
    assert seen == [1]
    monkeypatch.setattr("control_plane.cli.output.WATCH_EVERY", 0.0)

    def third_time() -> None:
        seen.append(2)
        if len(seen) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shown(third_time, watch=True)
    assert seen == [1, 2, 2, 2]
