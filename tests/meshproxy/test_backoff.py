from hypothesis import given
from hypothesis import strategies as st

from meshproxy.backoff import Backoff


def test_the_longest_wait_doubles_up_to_the_cap() -> None:
    """0.2, 0.4, 0.8 … 15 s, and stays there."""
    backoff = Backoff(base=0.2, cap=15, draw=lambda: 1.0)
    assert [backoff.next() for _ in range(9)] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 15, 15]


def test_success_starts_from_the_beginning() -> None:
    """After a reset the first wait is short again."""
    backoff = Backoff(base=1, draw=lambda: 1.0)
    backoff.next()
    backoff.next()
    backoff.reset()
    assert backoff.next() == 1


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 5000))
def test_a_wait_is_drawn_from_the_whole_range(draw: float, failures: int) -> None:
    """Full jitter: from zero to the ceiling, however many failures there were."""
    backoff = Backoff(base=0.2, cap=15, draw=lambda: draw)
    for _ in range(min(failures, 100)):
        backoff.next()
    ceiling = backoff.ceiling
    assert backoff.next() == ceiling * draw
    assert ceiling <= 15
    assert "failures" in repr(backoff)
