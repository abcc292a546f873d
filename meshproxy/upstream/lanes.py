"""
The lanes to one endpoint: dialled one for each relay, and never used twice.

A relay waits for its lane, as it would for a socket; what its client says meanwhile it keeps.  Whatever
goes wrong with the dial, the relay goes to the trunk instead, which will find out for itself what is
wrong, and say so.  For a while nobody is then made to wait for another lane: the peer may be older than
lanes are.
"""

import asyncio
from collections.abc import Callable
from math import inf
from typing import Any, Final

from meshproxy.contract.policies import LimitsSpec
from meshproxy.contract.resources import ClusterSpec, EndpointSpec
from meshproxy.identity.tls import ALPN_LANE, ALPN_LANES, protocol
from meshproxy.policies.flow_sizes import Flow, FlowSizes
from meshproxy.policies.limits import Limits

from .lane import LaneConnection, authority_of
from .pool import Environment, Pool

AVOID: Final = 60.0
"""Seconds without lanes after one could not be had, unless the trunk ends before."""


class LanePool(Pool):
    """Limits are for what lanes carry, and counted where that begins (`relay.py`, `cluster.py`)."""

    __slots__ = ("_otherwise", "_shut_until", "_sizes")

    def __init__(
        self,
        cluster: ClusterSpec,
        endpoint: EndpointSpec,
        environment: Environment,
        sizes: FlowSizes,
        otherwise: Callable[[Any], None],
    ) -> None:
        """`otherwise` serves relays for which there is no lane."""
        unlimited = Limits(LimitsSpec())
        super().__init__(cluster, endpoint, environment, unlimited, unlimited)
        self._sizes = sizes
        self._otherwise = otherwise
        self._sharing = False
        self._shut_until = -inf

    @property
    def wanted(self) -> bool:
        """The next connection is likely to be worth a lane, and can have one."""
        return self._sizes.bulk and self._environment.now() >= self._shut_until

    @property
    def carried(self) -> int:
        """How many opaque connections have a lane, or wait for one; a lane may take longer to close."""
        carrying = [
            one for one in self._connections if isinstance(one, LaneConnection) and one.carries
        ]
        return len(self.waiting) + len(carrying)

    def forgive(self) -> None:
        """The trunk has ended: who comes after it may be able to do more."""
        self._shut_until = -inf

    def idle(self, connection: Any) -> None:
        """A new one stands; who has waited for it may have left."""
        if self.waiting:
            connection.lend(self._next())
        else:
            connection.close()

    def look(self) -> None:
        for connection in list(self._connections):
            if isinstance(connection, LaneConnection):  # as all of them are
                connection.look()

    def _on_dial_failed(self, code: str) -> None:  # noqa: ARG002  # the trunk finds it out
        self._shut_until = self._environment.now() + AVOID
        while self.waiting:
            self._otherwise(self._next())

    @property
    def _offered(self) -> list[str]:
        return ALPN_LANES

    def objection(self, transport: asyncio.Transport) -> str | None:
        objection = super().objection(transport)
        if objection is None and protocol(transport) != ALPN_LANE:
            return "handshake-failed"
        return objection

    def successor(self, transport: asyncio.Transport) -> LaneConnection:  # noqa: ARG002
        authority, flow = authority_of(self.endpoint), Flow(self._sizes)
        return LaneConnection(self._environment.loop, self, authority, flow)
