import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.resources.duration import milliseconds, problem, text_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0s", 0),
        ("250ms", 250),
        ("10s", 10_000),
        ("1h30m", 5_400_000),
        ("1h1m1s1ms", 3_661_001),
        ("99999h", 359_996_400_000),
        ("1s1s", 2_000),
    ],
)
def test_accepted(text: str, expected: int) -> None:
    """Pairs of number and unit, added up."""
    assert milliseconds(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "10", "s", "1.5s", "-1s", "1d", "100000s", "1s1s1s1s1s", "1S", " 1s", "1s\n", "\u0661s"],
)
def test_refused(text: str) -> None:
    """Everything else, with an example of what would do."""
    with pytest.raises(ValueError, match=r"is not a duration, expected a duration such as 1h30m"):
        milliseconds(text)


@given(st.text(alphabet="0123456789hms.- "))
def test_a_number_or_a_clear_error(text: str) -> None:
    """No text makes it fail in another way."""
    with contextlib.suppress(ValueError):
        assert milliseconds(text) >= 0


def test_problem() -> None:
    """A sentence for what is none, or is too short."""
    assert problem("0s") is None
    assert problem("1ms", 1) is None
    assert problem("0s", 1) == '"0s" is too short, expected at least 1ms'
    assert str(problem("x")).startswith('"x" is not a duration')


@pytest.mark.parametrize("text", ["0s", "1ms", "1s500ms", "1m", "1h30m", "24h"])
def test_text(text: str) -> None:
    """The way back, in the largest units."""
    assert text_of(milliseconds(text)) == text
