"""
What is measured, one file for each kind.

A workload is a function that loads one running peer once and returns its figures.  Peers take turns
within each round, so that what the machine does to one of them it does to all.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from bench.peers import Running
from bench.site import Site

Figures = dict[str, float]

OURS, BARE = "ours", "ours-bare"
"""meshproxy with everything armed, and with nothing but what is on by default."""

ENVOY, ENVOY_ARMED = "envoy", "envoy-armed"
"""Envoy as a mesh has it at least, and with everything that `OURS` has."""


@dataclass(frozen=True)
class Metric:
    """
    One row of the table.

    Attributes:
        better: Which direction is the good one.
    """

    key: str
    title: str
    digits: int = 0
    better: Literal["less", "more"] = "less"


LAG = Metric("lag_ms", "greatest loop lag, ms, at most", 1)
"""Of every workload that loads the peers that run: how late an event loop of ours was."""


@dataclass
class Turn:
    """
    What a workload gets: whom it measures, for how long.

    Attributes:
        round: What peers of one round share, such as the figures of a direct call.
    """

    site: Site
    running: Running
    seconds: float
    round: Figures = field(default_factory=dict)


@dataclass(frozen=True)
class Workload:
    """
    Attributes:
        group: By which it can be asked for, with others.
        hop: Which of the peers take part: the pairs, or the single hops.
        service: Name of the service that a peer must have for it.
        base: Name of the peer that ratios refer to.
        twice: Ours and Envoy take part with everything armed and with little, each beside its like.
        only: The peers that take part; empty for all but those that `twice` asks for.
        needs: Programs of the load.
        warm_up: A first turn that does not count fills caches and connections.
        own: It starts peers of its own, and leaves alone those that run.
    """

    name: str
    group: str
    title: str
    metrics: tuple[Metric, ...]
    measure: Callable[[Turn], Figures]
    hop: Literal["pair", "single"] = "pair"
    service: str = "web"
    base: str = ENVOY
    twice: bool = False
    only: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    warm_up: bool = True
    own: bool = False

    @property
    def rows(self) -> tuple[Metric, ...]:
        """The metrics, and what is measured of every workload."""
        return self.metrics if self.own else (*self.metrics, LAG)

    def wants(self, peer: str) -> bool:
        """Say whether a peer of this name takes part."""
        if self.only:
            return peer in self.only
        return self.twice or peer not in (BARE, ENVOY_ARMED)

    def base_of(self, peer: str) -> str | None:
        """Return to whom the ratios of `peer` refer; None for those that have none."""
        base = ENVOY_ARMED if self.twice and peer == OURS else self.base
        return base if base != peer else None


def everything() -> tuple[Workload, ...]:
    """All workloads, in the order of the table."""
    from . import bulk, handshake, http1, http2, memory, rate, start, tcp

    return (
        *http1.WORKLOADS,
        *http2.WORKLOADS,
        *rate.WORKLOADS,
        *bulk.WORKLOADS,
        *tcp.WORKLOADS,
        *handshake.WORKLOADS,
        *memory.WORKLOADS,
        *start.WORKLOADS,
    )
