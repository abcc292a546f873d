"""
From counters of sidecars to opaque connections on edges: open, ended, bytes, who the caller is.

A connection that nobody looks into has no requests, statuses or latency; what can be said of it is
that it is open, how it ended, and how much it carried.  As with requests (`traffic.py`) it is
counted where it arrives, where the caller's identity is proved.  From the caller's sidecar come
those that never arrived, and those that left the mesh (``passthrough``), which nobody else knows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from control_plane.cli.traffic import (
    CONNECTIONS,
    NO_FLAG,
    OPEN,
    PLAINTEXT,
    RECEIVED,
    SENT,
    Counters,
    Edge,
    name_of,
    parent_of,
)
from meshproxy.refusal import REFUSALS

PASSTHROUGH = "passthrough"
"""The `destination` of a captured connection to what is no address of the mesh."""
ON_THE_WAY = frozenset({"DC", "UR", "UC"})
"""Flags of connections that had arrived, and that the client or the endpoint then broke off."""
CLIENTS_OWN = "DC"
OF_REQUESTS = frozenset({"caller-gone"})
"""Refusals that no opaque connection can meet: nobody knows for which request it was opened."""


@dataclass
class Connections:
    """
    The opaque connections of an edge.

    Attributes:
        open: How many are open now.
        flags: How many ended, by response flag; ``-`` for two ends in order.
        received: Bytes from the client.
        sent: Bytes to the client.
    """

    open: float = 0.0
    flags: dict[str, float] = field(default_factory=dict)
    received: float = 0.0
    sent: float = 0.0

    @property
    def ended(self) -> float:
        return sum(self.flags.values())

    @property
    def success(self) -> float | None:
        """Share of the ended that neither the service nor the mesh broke; None where none ended."""
        if not self.ended:
            return None
        broken = sum(n for flag, n in self.flags.items() if flag not in (*NO_FLAG, CLIENTS_OWN))
        return 1 - broken / self.ended

    @property
    def failures(self) -> dict[str, float]:
        """How many did not end in order, by refusal where one flag means one refusal."""
        return {reason(flag): n for flag, n in sorted(self.flags.items()) if flag not in NO_FLAG}


def edges(risen: Counters, standing: Counters) -> dict[Edge, Connections]:
    """
    Sort what any number of sidecars say of opaque connections by edge.

    Args:
        risen: By how much counters rose.
        standing: Where gauges stand.

    Returns:
        Edges on which connections are open, or on which anything happened.
    """
    found: dict[Edge, Connections] = {}
    for (name, pairs), value in [*risen.items(), *standing.items()]:
        if not value or name not in (CONNECTIONS, OPEN, SENT, RECEIVED):
            continue
        labels = dict(pairs)
        edge = _edge(name, labels)
        if edge is None:
            continue
        connections = found.setdefault(edge, Connections())
        if name == CONNECTIONS:
            flag = labels.get("flag", "")
            connections.flags[flag] = connections.flags.get(flag, 0) + value
        elif name == OPEN:
            connections.open += value
        elif name == SENT:
            connections.sent += value
        else:
            connections.received += value
    return dict(sorted(found.items()))


def reason(flag: str) -> str:
    """Return the one refusal with this flag, as in docs/refusals.md; the flag where several share it."""
    names = [
        one.code for one in REFUSALS.values() if one.flag == flag and one.code not in OF_REQUESTS
    ]
    return names[0] if len(names) == 1 else flag


def _edge(name: str, labels: Mapping[str, str]) -> Edge | None:
    source, destination = labels.get("source", ""), labels.get("destination", "")
    if labels.get("direction") == "inbound":
        proved = "" if source == PLAINTEXT else source
        return Edge(name_of(source), destination, "", proved)
    if destination == PASSTHROUGH:
        return Edge(name_of(source), destination, "", "")
    flag = labels.get("flag", "")
    if name == CONNECTIONS and flag not in NO_FLAG and flag not in ON_THE_WAY:
        called = destination.strip("-") or parent_of(labels.get("route", ""))
        return Edge(name_of(source), called, "", "", arrived=False)
    return None
