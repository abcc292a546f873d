"""
What a pick costs, by algorithm and number of endpoints, and what it costs to make what picks.

    python -m bench.balancers

Endpoints are as busy as in a mesh under load; the least of many rounds is printed, in microseconds
(one loop around the call, about 0.03, included).
"""

import random
import time
from collections.abc import Callable

from meshproxy.contract.policies import LoadBalancingSpec
from meshproxy.contract.resources import EndpointSpec
from meshproxy.policies.load_balancing.balancing import Balancing
from meshproxy.policies.load_balancing.consistent_hashing import hash_of
from meshproxy.policies.load_balancing.endpoint import Endpoint
from meshproxy.policies.load_balancing.peak_ewma import observe

ROUNDS = 30
CALLS = 2_000


class Server(Endpoint):
    """One that nobody is behind."""

    __slots__ = ()

    def __init__(self, spec: EndpointSpec, *, weight: int, priority: int, since: float) -> None:
        self.name = f"{spec.address}:{spec.port}"
        self.weight = weight
        self.priority = priority
        self.since = since
        self.active = random.randrange(4)
        self.latency = random.uniform(0.001, 0.01)
        self.measured = time.monotonic()


def servers(
    count: int, *, weighted: bool = False, zones: int = 1, new: bool = False
) -> tuple[Server, ...]:
    now = time.monotonic()
    return tuple(
        Server(
            EndpointSpec(address=f"10.0.{number // 250}.{number % 250 + 1}", port=80),
            weight=1 + (weighted and number % 3),
            priority=number % zones,
            since=now if new and number == 0 else float("-inf"),
        )
        for number in range(count)
    )


def least(call: Callable[[], object], calls: int = CALLS, rounds: int = ROUNDS) -> float:
    """Return the microseconds of a call."""
    best = float("inf")
    for _ in range(rounds):
        begun = time.perf_counter()
        for _ in range(calls):
            call()
        best = min(best, time.perf_counter() - begun)
    return best / calls * 1e6


def cost(spec: LoadBalancingSpec, all_: tuple[Server, ...], *, fresh: bool) -> tuple[float, float]:
    """Return the microseconds of a pick and the milliseconds of a balancer's making."""
    balancing = Balancing[Server](spec, random.random, time.monotonic)
    begun = time.perf_counter()
    balancer = balancing.among(all_, all_)
    made = time.perf_counter() - begun
    pick = balancer.pick
    key = hash_of(b"alice") if spec.algorithm in ("ring-hash", "maglev") else None
    if fresh:  # as when all are answering; the rounds must not outlast it
        now = time.monotonic() + 60
        for server in all_:
            server.measured = now
    return least(lambda: pick(None, key)), made * 1e3


def main() -> None:
    rows: list[tuple[str, LoadBalancingSpec, dict[str, bool | int]]] = [
        ("least-request", LoadBalancingSpec(algorithm="least-request"), {}),
        ("peak-ewma", LoadBalancingSpec(), {}),
        ("peak-ewma, idle for long", LoadBalancingSpec(), {"stale": True}),
        ("peak-ewma, weights", LoadBalancingSpec(), {"weighted": True}),
        ("round-robin", LoadBalancingSpec(algorithm="round-robin"), {}),
        ("random", LoadBalancingSpec(algorithm="random"), {}),
        ("ring-hash", LoadBalancingSpec(algorithm="ring-hash"), {}),
        ("maglev", LoadBalancingSpec(algorithm="maglev"), {}),
        ("peak-ewma, two levels", LoadBalancingSpec(), {"zones": 2}),
        ("peak-ewma, slow start", LoadBalancingSpec(slow_start=3_600_000), {"new": True}),
    ]
    print(f"{'':26}{'µs, 3':>9}{'µs, 5000':>9}{'made, ms':>10}")
    for name, spec, options in rows:
        given = {key: value for key, value in options.items() if key != "stale"}
        fresh = "stale" not in options
        few, _ = cost(spec, servers(3, **given), fresh=fresh)  # type: ignore[arg-type]
        many, made = cost(spec, servers(5_000, **given), fresh=fresh)  # type: ignore[arg-type]
        print(f"{name:26}{few:9.2f}{many:9.2f}{made:10.1f}")
    server = servers(1)[0]
    observed = least(lambda: observe(server, 0.001, server.measured + 0.001))
    print(f"{'an answer, peak-ewma':26}{observed:9.2f}")


if __name__ == "__main__":
    main()
