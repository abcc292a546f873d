"""Priority levels: how much stays near, and where the rest goes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.contract.policies import LoadBalancingSpec
from meshproxy.policies.load_balancing.balancing import Balancing
from meshproxy.policies.load_balancing.consistent_hashing import KEYS
from meshproxy.policies.load_balancing.locality import shares
from tests.helpers.balancing import Server, chances, picks

ROUNDS = 10_000


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([(10, 10), (10, 10)], [1, 0]),
        ([(8, 10), (10, 10)], [1, 0]),  # 80 % and more to spare
        ([(5, 10), (10, 10)], [0.7, 0.3]),
        ([(2.5, 10), (10, 10)], [0.35, 0.65]),
        ([(0, 10), (10, 10)], [0, 1]),
        ([(5, 10), (1, 10), (10, 10)], [0.7, 0.14, 0.16]),
        ([(2, 10), (1, 10)], [2 / 3, 1 / 3]),  # not enough altogether: each its part
        ([(0, 10), (0, 10)], [0, 0]),
        ([(0, 0), (1, 1)], [0, 1]),
    ],
    ids=str,
)
def test_shares(levels: list[tuple[float, float]], expected: list[float]) -> None:
    """Envoy's table of priority levels with its overprovisioning factor."""
    assert shares(levels) == pytest.approx(expected)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=5))
def test_all_requests_go_somewhere(counts: list[tuple[int, int]]) -> None:
    """Shares add up to one while anybody is in service, and nobody in service is passed over for farther ones."""
    levels = [(some, some + out) for some, out in counts]
    result = shares(levels)
    assert sum(result) == pytest.approx(1.0 if any(some for some, _ in levels) else 0.0)
    for (some, _), share in zip(levels, result, strict=True):
        assert some or not share


def zones(*counts: int) -> list[list[Server]]:
    return [
        [Server(name=f"10.{zone}.0.{number}:80", priority=zone) for number in range(count)]
        for zone, count in enumerate(counts)
    ]


@pytest.mark.parametrize(
    ("out", "near"), [(0, 1.0), (2, 1.0), (5, 0.7), (8, 0.28), (10, 0.0)], ids=str
)
@pytest.mark.parametrize("hashed", [False, True])
def test_traffic_moves_over_as_endpoints_fail(out: int, near: float, *, hashed: bool) -> None:
    """By chance, or by key; within each level everybody gets as much as the others."""
    here, there = zones(10, 10)
    everybody, available = here + there, here[out:] + there
    algorithm = "maglev" if hashed else "random"
    spec = LoadBalancingSpec(algorithm=algorithm)  # type: ignore[arg-type]
    random = chances()
    balancer = Balancing[Server](spec, random, lambda: 0.0).among(everybody, available)
    keys = [int(random() * KEYS) for _ in range(ROUNDS)] if hashed else [None]
    counts = picks(balancer, ROUNDS, keys)
    assert sum(counts[server] for server in here) / ROUNDS == pytest.approx(near, abs=0.02)
    if 0 < out < 10:
        each = [counts[server] for server in here[out:]]
        assert max(each) < 1.5 * min(each) + 100


def test_a_second_attempt_goes_farther_rather_than_to_who_failed() -> None:
    """The near level has only one endpoint."""
    here, there = zones(1, 1)
    balancer = Balancing[Server](LoadBalancingSpec(), chances(), lambda: 0.0).among(
        here + there, here + there
    )
    assert balancer.pick(None, None) is here[0]
    assert balancer.pick((here[0],), None) is there[0]


def test_without_locality_all_are_equal() -> None:
    """Zones are then nothing but a label."""
    here, there = zones(2, 2)
    spec = LoadBalancingSpec(algorithm="round-robin", locality=False)
    balancer = Balancing[Server](spec, chances(), lambda: 0.0).among(here + there, here + there)
    assert set(picks(balancer, 8).values()) == {2}


@pytest.mark.parametrize(
    ("near", "far", "expected"), [(0, 3, True), (1, 1, False), (2, 1, True), (0, 2, False)]
)
def test_when_far_endpoints_can_do_the_work(near: int, far: int, *, expected: bool) -> None:
    """Five near and three far ones: whether there is reason to panic with so many left."""
    here, there = zones(5, 3)
    left = here[:near] + there[:far]
    balancing = Balancing[Server](LoadBalancingSpec(), chances(), lambda: 0.0)
    assert balancing.bearable(here + there, left) is expected


def test_one_level_leaves_its_work_to_no_other() -> None:
    """Then it is for the panic threshold to say."""
    [here] = zones(4)
    for locality in (True, False):
        spec = LoadBalancingSpec(locality=locality)
        assert not Balancing[Server](spec, chances(), lambda: 0.0).bearable(here, here)
