"""What every balancer promises, whatever its algorithm."""

from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshproxy.contract.policies import LoadBalancingSpec
from meshproxy.policies.load_balancing.balancing import Balancing
from tests.helpers.balancing import Server, chances, picks, servers

Algorithm = Literal[
    "peak-ewma", "least-request", "round-robin", "random", "ring-hash", "maglev"
]  # fmt: skip
ALGORITHMS: tuple[Algorithm, ...] = (
    "peak-ewma", "least-request", "round-robin", "random", "ring-hash", "maglev",
)  # fmt: skip
NOW = 1_000.0

each_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)


def balancing(algorithm: Algorithm, seed: int = 1, slow_start: int = 0) -> Balancing[Server]:
    # A small table: what is promised does not depend on its size, how long the test takes does.
    spec = LoadBalancingSpec(algorithm=algorithm, ring_size=211, slow_start=slow_start)
    return Balancing(spec, chances(seed), lambda: NOW)


clusters = st.lists(
    st.builds(
        Server,
        weight=st.integers(0, 5),
        active=st.integers(0, 20),
        priority=st.integers(0, 2),
        since=st.sampled_from([float("-inf"), NOW - 60, NOW - 3, NOW]),
        latency=st.sampled_from([0.0, 0.001, 2.0]),
        measured=st.sampled_from([NOW - 100, NOW]),
    ),
    max_size=8,
)


@each_algorithm
@settings(max_examples=60, deadline=None)
@given(
    endpoints=clusters,
    data=st.data(),
    seed=st.integers(0, 2**32),
    key=st.none() | st.integers(0, 2**64 - 1),
    slow_start=st.sampled_from([0, 10_000]),
)
def test_who_is_out_of_service_is_never_picked(
    algorithm: Algorithm,
    endpoints: list[Server],
    data: st.DataObject,
    seed: int,
    key: int | None,
    slow_start: int,
) -> None:
    """
    One of those in service, with a weight, is picked while there is one; none of those to avoid while
    there is another; None only when there is nobody at all.
    """
    for number, endpoint in enumerate(endpoints):
        endpoint.name = f"10.0.0.{number}:80"
    available = [e for e in endpoints if data.draw(st.booleans())]
    avoid = data.draw(st.none() | st.lists(st.sampled_from(endpoints or [Server()])))
    balancer = balancing(algorithm, seed, slow_start).among(endpoints, available)
    able = [e for e in available if e.weight]
    others = [e for e in able if e not in (avoid or ())]
    for _ in range(3):
        picked = balancer.pick(avoid, key)
        if others:
            assert picked in others
        else:
            assert picked in able if able else picked is None


@each_algorithm
def test_a_single_endpoint_gets_everything(algorithm: Algorithm) -> None:
    """Also when it is the one to avoid: there is no other."""
    (one,) = all_ = servers(1)
    one.active = 100
    balancer = balancing(algorithm).among(all_, all_)
    assert (balancer.pick(None, 7), balancer.pick((one,), 7), balancer.pick((one,), None)) == (
        one,
    ) * 3


@each_algorithm
def test_avoiding_a_stranger_changes_nothing(algorithm: Algorithm) -> None:
    """The endpoint of the first attempt may have left in the meantime."""
    all_ = servers(1, 1, 1)
    assert balancing(algorithm).among(all_, all_).pick((Server(),), 7) in all_


@each_algorithm
@pytest.mark.parametrize(
    "weights", [(1, 1), (1, 2, 3), (5, 0, 1, 1), (100, 100, 100, 100), (1, 1_000_000)], ids=str
)
def test_an_idle_mesh_shares_by_weight(algorithm: Algorithm, weights: tuple[int, ...]) -> None:
    """Over many requests, each done before the next, each endpoint gets its weight's share."""
    all_ = servers(*weights)
    for server in all_:  # all answer alike
        server.latency, server.measured = 0.01, NOW
    spec = LoadBalancingSpec(algorithm=algorithm, ring_size=4_000)
    balancer = Balancing[Server](spec, chances(), lambda: NOW).among(all_, all_)
    rounds = 8_000
    random = chances(2)
    keys = [int(random() * 2**64) for _ in range(rounds)]
    counts = picks(balancer, rounds, keys)
    for server in all_:
        expected = rounds * server.weight / sum(weights)
        # 6 standard deviations, and what a ring's points lie apart
        tolerance = 280 + (0.08 * expected if algorithm == "ring-hash" else 0)
        assert abs(counts[server] - expected) <= tolerance
