from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from meshproxy.policies.load_balancing import LeastRequest


class Server:
    def __init__(self, weight: int = 1, active: int = 0) -> None:
        self.weight = weight
        self.active = active

    def __repr__(self) -> str:
        return f"<weight {self.weight}, active {self.active}>"


def never() -> float:
    raise AssertionError("no chance is needed here")


servers = st.builds(Server, weight=st.integers(0, 5), active=st.integers(0, 20))
points = st.floats(0, 1, exclude_max=True)


def chances(seed: int = 1) -> Callable[[], float]:
    return Random(seed).random


def test_of_none_there_is_nothing_to_pick() -> None:
    """The exchange refuses such a request: no healthy endpoint."""
    assert LeastRequest[Server]().pick((), never) is None


def test_a_single_endpoint_is_picked_without_drawing() -> None:
    """Also when it is the one to avoid: there is no other."""
    one = Server(active=100)
    assert LeastRequest[Server]().pick((one,), never) is one
    assert LeastRequest[Server]().pick((one,), never, avoid=one) is one


def test_of_two_the_less_loaded_is_picked_without_drawing() -> None:
    """Only a tie is left to chance."""
    busy, idle = Server(active=3), Server(active=2)
    assert LeastRequest[Server]().pick((busy, idle), never) is idle
    assert LeastRequest[Server]().pick((idle, busy), never) is idle


def test_load_is_requests_per_weight() -> None:
    """Four requests on weight 4 are less than two on weight 1."""
    strong, weak = Server(weight=4, active=4), Server(weight=1, active=2)
    assert LeastRequest[Server]().pick((strong, weak), never) is strong


def test_the_busiest_of_three_is_never_picked() -> None:
    """Whatever pair is drawn, the other one of it is less loaded."""
    all_three = (Server(active=9), Server(active=1), Server(active=2))
    policy, random = LeastRequest[Server](), chances()
    assert all(policy.pick(all_three, random) is not all_three[0] for _ in range(300))


@settings(deadline=None)
@given(st.lists(servers, max_size=6), st.integers(0, 2**32))
def test_what_is_picked_may_be_picked(endpoints: list[Server], seed: int) -> None:
    """One of those given, with a weight; None only when no endpoint has any."""
    picked = LeastRequest[Server]().pick(endpoints, chances(seed))
    if picked is None:
        assert all(e.weight == 0 for e in endpoints)
    else:
        assert picked in endpoints
        assert picked.weight > 0


@settings(deadline=None)
@given(st.lists(servers, min_size=1, max_size=6), st.data(), st.integers(0, 2**32))
def test_the_avoided_is_picked_only_when_alone(
    endpoints: list[Server], data: st.DataObject, seed: int
) -> None:
    """A second attempt goes elsewhere if there is an elsewhere, idle or not."""
    avoid = data.draw(st.sampled_from(endpoints))
    picked = LeastRequest[Server]().pick(tuple(endpoints), chances(seed), avoid)
    if any(e.weight for e in endpoints if e is not avoid):
        assert picked is not None
        assert picked is not avoid
        assert picked.weight > 0
    else:
        assert picked is (avoid if avoid.weight else None)


def test_avoiding_a_stranger_changes_nothing() -> None:
    """The endpoint of the first attempt may have left in the meantime."""
    three = (Server(), Server(), Server(active=9))
    picked = LeastRequest[Server]().pick(three, chances(), avoid=Server())
    assert picked in three[:2]


@settings(deadline=None)
@given(st.lists(servers, min_size=3, max_size=6), points, points)
def test_any_points_give_an_endpoint(endpoints: list[Server], one: float, two: float) -> None:
    """Rounding at the ends of the line never leads past it."""
    draws = iter((one, two))
    picked = LeastRequest[Server]().pick(endpoints, lambda: next(draws))
    assert (picked is None) == all(e.weight == 0 for e in endpoints)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=5).filter(any), st.integers(0, 2**32))
def test_an_idle_mesh_shares_by_weight(weights: list[int], seed: int) -> None:
    """Over many requests, each done before the next, each endpoint gets its weight's share."""
    endpoints = tuple(Server(weight) for weight in weights)
    policy, random, rounds = LeastRequest[Server](), chances(seed), 2_000
    picks = Counter(policy.pick(endpoints, random) for _ in range(rounds))
    for endpoint in endpoints:
        expected = rounds * endpoint.weight / sum(weights)
        assert abs(picks[endpoint] - expected) < 150  # more than 6 standard deviations


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=2, max_size=5), st.integers(0, 2**32))
def test_a_loaded_mesh_shares_by_weight(weights: list[int], seed: int) -> None:
    """When requests stay, each endpoint holds its weight's share of them."""
    endpoints = tuple(Server(weight) for weight in weights)
    policy, random, rounds = LeastRequest[Server](), chances(seed), 1_000
    for _ in range(rounds):
        picked = policy.pick(endpoints, random)
        assert picked is not None
        picked.active += 1
    for endpoint in endpoints:
        expected = rounds * endpoint.weight / sum(weights)
        assert abs(endpoint.active - expected) < 0.1 * rounds


def test_two_choices_beat_one() -> None:
    """Ten thousand requests on a hundred servers: the fullest is far below that of pure chance."""
    two, one = tuple(Server() for _ in range(100)), tuple(Server() for _ in range(100))
    policy, random = LeastRequest[Server](), chances()
    for _ in range(10_000):
        picked = policy.pick(two, random)
        assert picked is not None
        picked.active += 1
        one[int(random() * 100)].active += 1
    assert max(e.active for e in two) <= 104
    assert max(e.active for e in one) >= 115


def test_a_changed_list_is_seen() -> None:
    """What was learnt of endpoints is kept for tuples only, which cannot change."""
    endpoints = [Server(), Server(), Server()]
    policy = LeastRequest[Server]()
    policy.pick(endpoints, chances())
    kept = endpoints.pop()
    endpoints.extend((Server(weight=0), Server(weight=0)))
    endpoints[0].weight = endpoints[1].weight = 0
    assert policy.pick(endpoints, chances()) is None
    assert kept not in endpoints


def test_a_new_tuple_is_measured_anew() -> None:
    """Config updates hand in new tuples."""
    policy, random = LeastRequest[Server](), chances()
    generations = [tuple(Server() for _ in range(3)) for _ in range(3)]
    assert all(a is not b for a, b in pairwise(generations))
    for endpoints in generations:
        assert policy.pick(endpoints, random) in endpoints
