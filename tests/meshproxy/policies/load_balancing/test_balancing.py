"""Which layers there are, and what is kept when endpoints change."""

import pytest

from meshproxy.contract.policies import LoadBalancingSpec
from meshproxy.policies.load_balancing.balancing import Balancing
from meshproxy.policies.load_balancing.consistent_hashing import ConsistentHashing
from meshproxy.policies.load_balancing.least_request import LeastRequest
from meshproxy.policies.load_balancing.locality import Locality
from meshproxy.policies.load_balancing.peak_ewma import PeakEwma
from meshproxy.policies.load_balancing.round_robin import RoundRobin
from meshproxy.policies.load_balancing.slow_start import SlowStart
from meshproxy.policies.load_balancing.weighted_random import WeightedRandom
from tests.helpers.balancing import Server, chances, servers

NOW = 100.0


def balancing(**options: object) -> Balancing[Server]:
    spec = LoadBalancingSpec(**options)  # type: ignore[arg-type]
    return Balancing(spec, chances(), lambda: NOW)


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [
        ("peak-ewma", PeakEwma),
        ("least-request", LeastRequest),
        ("round-robin", RoundRobin),
        ("random", WeightedRandom),
        ("ring-hash", ConsistentHashing),
        ("maglev", ConsistentHashing),
    ],
)
def test_a_request_usually_meets_the_algorithm_alone(algorithm: str, kind: type[object]) -> None:
    """One level, nobody new: there is no layer that would have nothing to do."""
    all_ = servers(1, 1, 1)
    assert isinstance(balancing(algorithm=algorithm, slow_start=1_000).among(all_, all_), kind)


def test_a_layer_comes_with_its_reason() -> None:
    """Two levels; somebody new, as long as that lasts."""
    all_ = servers(1, 1, 1)
    all_[0].priority = 1
    assert isinstance(balancing().among(all_, all_), Locality)
    assert isinstance(balancing(locality=False).among(all_, all_), PeakEwma)
    all_[1].since = NOW - 2
    slow = balancing(locality=False, slow_start=3_000)
    assert slow.warming(all_)
    assert isinstance(slow.among(all_, all_), SlowStart)
    past = balancing(locality=False, slow_start=1_000)
    assert not past.warming(all_)
    assert isinstance(past.among(all_, all_), PeakEwma)


@pytest.mark.parametrize("algorithm", ["ring-hash", "maglev"])
def test_a_table_is_kept_while_endpoints_stay(algorithm: str) -> None:
    """Whoever is ejected; it is made anew for other endpoints or weights."""
    all_ = servers(1, 1, 1)
    kept = balancing(algorithm=algorithm)

    def table() -> object:
        return kept._tables[0][1]

    kept.among(all_, all_)
    first = table()
    kept.among(all_, all_[1:])
    assert table() is first
    all_[0].weight = 2
    kept.among(all_, all_)
    second = table()
    assert second is not first
    kept.among(all_[1:], all_[1:])
    assert table() is not second
