"""A token bucket: what may be spent at once, and how it comes back."""

from hypothesis import given
from hypothesis import strategies as st

from meshproxy.codec.budget import PEER, STRANGER, Budget


def test_a_burst_and_not_one_more() -> None:
    """What is there may be spent at once."""
    budget = Budget(3, 1)
    assert [budget.spend(0.0) for _ in range(4)] == [True, True, True, False]


def test_it_refills_with_time_up_to_the_burst() -> None:
    """A pause of any length gives no more than the burst."""
    budget = Budget(2, 10)
    assert budget.spend(0.0, 2)
    assert not budget.spend(0.0)
    assert budget.spend(0.2)
    assert [budget.spend(1000.0) for _ in range(3)] == [True, True, False]


def test_useful_work_earns() -> None:
    """Whoever does something useful for each of its control frames never runs out."""
    budget = Budget(1, 0)
    for _ in range(1000):
        assert budget.spend(0.0)
        budget.earn(5)
    assert budget.left == 1


@given(st.lists(st.floats(0, 10), max_size=100), st.integers(1, 20), st.floats(0, 20))
def test_never_more_than_burst_and_rate(pauses: list[float], burst: int, rate: float) -> None:
    """In any stretch of time at most `burst + rate * time` is granted."""
    budget = Budget(burst, rate)
    now = granted = 0.0
    for pause in pauses:
        now += pause
        granted += budget.spend(now)
    assert granted <= burst + rate * now + 1e-6


def test_peers_may_spend_more_than_strangers() -> None:
    """A wave of a thousand cancelled calls is normal between sidecars."""
    assert PEER.torn[0] > 1000 > STRANGER.torn[0]
    assert PEER.control[0] > STRANGER.control[0]
