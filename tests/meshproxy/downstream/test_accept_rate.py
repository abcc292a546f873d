"""A bucket of one second's worth: never more than that at once, nor more in the long run."""

from meshproxy.downstream.accept_rate import AcceptRate


def come(rate: AcceptRate, now: float, many: int) -> int:
    """Let so many come at once; return how many were taken."""
    return sum(rate.take(now) for _ in range(many))


def test_a_second_s_worth_at_once_then_as_they_come() -> None:
    """Whatever was not taken is there again after as long as it lasts."""
    rate = AcceptRate(100)
    assert come(rate, 1000.0, 500) == 100
    assert come(rate, 1000.0, 500) == 0
    assert come(rate, 1000.105, 500) == 10
    assert come(rate, 1060.0, 500) == 100


def test_no_limit_is_none() -> None:
    """The default."""
    assert come(AcceptRate(0.0), 0.0, 10_000) == 10_000


def test_less_than_one_in_a_second() -> None:
    """One may come at once, the next one only after its time."""
    rate = AcceptRate(0.5)
    assert come(rate, 1000.0, 5) == 1
    assert come(rate, 1001.0, 5) == 0
    assert come(rate, 1002.0, 5) == 1


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    """Nor does it take anything."""
    rate = AcceptRate(10)
    assert come(rate, 1000.0, 20) == 10
    assert come(rate, 900.0, 20) == 0
    assert come(rate, 901.0, 20) == 10
