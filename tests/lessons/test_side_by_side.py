"""Tables that people compare columns in."""

from lessons.side_by_side import milliseconds, percent, table


def test_figures_stand_below_each_other() -> None:
    """Names to the left, figures to the right, as wide as the widest."""
    assert table("seen", ("before", "after"), [("answered", "1.0 %", "100.0 %")]) == (
        "seen      before    after\n"
        "answered   1.0 %  100.0 %"
    )  # fmt: skip


def test_what_nobody_measured_is_a_dash() -> None:
    """No answers have no latency."""
    assert (milliseconds(None), milliseconds(0.0154), percent(99.96)) == ("–", "15 ms", "100.0 %")  # noqa: RUF001
