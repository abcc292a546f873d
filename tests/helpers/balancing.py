"""Endpoints as balancers see them, chance that repeats itself, and counts of what was picked."""

from collections import Counter
from collections.abc import Callable, Sequence
from math import inf
from random import Random

from meshproxy.policies.load_balancing.endpoint import Balancer, Endpoint


class Server(Endpoint):
    """See `policies.load_balancing.endpoint.Endpoint`."""

    def __init__(
        self,
        weight: int = 1,
        active: int = 0,
        *,
        name: str = "",
        priority: int = 0,
        since: float = -inf,
        latency: float = 0.0,
        measured: float = -inf,
    ) -> None:
        self.name = name
        self.weight = weight
        self.active = active
        self.priority = priority
        self.since = since
        self.latency = latency
        self.measured = measured

    def __repr__(self) -> str:
        return f"<{self.name} weight {self.weight}, active {self.active}>"


def servers(*weights: int) -> tuple[Server, ...]:
    """Return servers of these weights, named by their number."""
    return tuple(
        Server(weight, name=f"10.0.{number // 256}.{number % 256}:80")
        for number, weight in enumerate(weights)
    )


def chances(seed: int = 1) -> Callable[[], float]:
    return Random(seed).random


def picks(
    balancer: Balancer[Server], count: int, keys: Sequence[int | None] = (None,)
) -> Counter[Server]:
    """Return how often each is picked, each request being done before the next."""
    counts: Counter[Server] = Counter()
    for number in range(count):
        picked = balancer.pick(None, keys[number % len(keys)])
        assert picked is not None
        counts[picked] += 1
    return counts
