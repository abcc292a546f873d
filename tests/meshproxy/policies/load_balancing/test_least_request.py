"""Least request: the less busy one of two."""

from hypothesis import given, settings
from hypothesis import strategies as st

from meshproxy.policies.load_balancing.least_request import LeastRequest
from meshproxy.policies.load_balancing.moving_window import MANY, TURNS, WIDTH
from tests.helpers.balancing import Server, chances, picks, servers


def clock() -> float:
    return 1_000.0


def test_of_two_the_less_loaded_is_picked() -> None:
    """In whichever order they are drawn."""
    busy, idle = Server(active=3), Server(active=2)
    policy = LeastRequest((busy, idle), chances(), clock)
    assert {policy.pick(None) for _ in range(20)} == {idle}


def test_load_is_requests_per_weight() -> None:
    """Four requests on weight 4 are less than two on weight 1."""
    strong, weak = Server(weight=4, active=4), Server(weight=1, active=2)
    policy = LeastRequest((strong, weak), chances(), clock)
    assert {policy.pick(None) for _ in range(20)} == {strong}


def test_the_busiest_of_three_is_never_picked() -> None:
    """Whatever pair is drawn, the other one of it is less loaded."""
    all_three = (Server(active=9), Server(active=1), Server(active=2))
    policy = LeastRequest(all_three, chances(), clock)
    assert all(policy.pick(None) is not all_three[0] for _ in range(300))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=2, max_size=5), st.integers(0, 2**32))
def test_a_loaded_mesh_shares_by_weight(weights: list[int], seed: int) -> None:
    """When requests stay, each endpoint holds its weight's share of them."""
    endpoints = tuple(Server(weight) for weight in weights)
    policy, rounds = LeastRequest(endpoints, chances(seed), clock), 1_000
    for _ in range(rounds):
        picked = policy.pick(None)
        assert picked is not None
        picked.active += 1
    for endpoint in endpoints:
        expected = rounds * endpoint.weight / sum(weights)
        assert abs(endpoint.active - expected) < 0.1 * rounds


def test_two_choices_beat_one() -> None:
    """Ten thousand requests on a hundred servers: the fullest is far below that of pure chance."""
    two, one = tuple(Server() for _ in range(100)), tuple(Server() for _ in range(100))
    random = chances()
    policy = LeastRequest(two, random, clock)
    for _ in range(10_000):
        picked = policy.pick(None)
        assert picked is not None
        picked.active += 1
        one[int(random() * 100)].active += 1
    assert max(e.active for e in two) <= 104
    assert max(e.active for e in one) >= 115


def test_very_many_idle_ones_share_exactly() -> None:
    """After each revolution of the window everybody has had as many requests."""
    all_ = servers(*[1] * MANY)
    policy = LeastRequest(all_, chances(), clock)
    for _ in range(3):
        assert picks(policy, TURNS * MANY) == dict.fromkeys(all_, TURNS)


def test_of_very_many_the_busy_ones_are_spared() -> None:
    """Wherever the window is: of two of whom one is busy, the other has the request."""
    all_ = servers(*[1] * MANY)
    for busy in all_[::2]:
        busy.active = 1
    policy = LeastRequest(all_, chances(), clock)
    count = TURNS * MANY
    counts = picks(policy, count)
    # Both of two are busy in a quarter of all draws; then two others are drawn.
    assert sum(counts[busy] for busy in all_[::2]) < count / 16 * 1.2


def test_requests_that_stay_are_spread_over_very_many() -> None:
    """Far more than the window has places: nobody has more than by drawing from all."""
    all_ = servers(*[1] * MANY)
    policy = LeastRequest(all_, chances(), clock)
    for number in range(10 * MANY):
        picked = policy.pick(None)
        assert picked is not None
        picked.active += 1
        if number == WIDTH - 1:
            assert max(one.active for one in all_) == 1
    assert max(one.active for one in all_) <= 13
