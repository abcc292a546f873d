"""
The way to an address that is no service of the mesh: dialled as it is, in the clear.

An inbound connection to a port that nobody declared goes to the app at the very address that the
caller used, not to the loopback: else a caller could reach what the app offers to itself alone.  It
comes from the loopback, by which the packet filter knows the last leg of a captured connection and
does not capture it once more.
"""

from collections.abc import Collection

from meshproxy.contract.resources import ClusterSpec, Direction, EndpointSpec
from meshproxy.message import Fields
from meshproxy.policies.deadline import NO_TIMEOUTS
from meshproxy.policies.limits import Limit
from meshproxy.policies.retry import Retry
from meshproxy.policies.retry_budget import RetryBudget

from .tcp import Environment, Sockets

NAME = "passthrough"


class PassThrough(Sockets):
    """
    One address, as a cluster with this one endpoint (see `relay.Cluster`, `relay.Endpoint`).

    Attributes:
        active: Attempts under way.
        budget, connections, retry: Never limited: the mesh knows nothing of what it leads to.
        service: Name of all such addresses in metrics: there may be any number of them.
    """

    __slots__ = ("active", "budget", "connections", "hash_key", "retry", "service", "timeouts")

    def __init__(
        self,
        direction: Direction,
        environment: Environment,
        address: tuple[str, int],
    ) -> None:
        host, port = address
        source = None
        if direction == "inbound":
            source = "::1" if ":" in host else "127.0.0.1"
        super().__init__(
            ClusterSpec(name=NAME), EndpointSpec(address=host, port=port), environment, source
        )
        self.active = 0
        self.connections = Limit("connections")
        self.retry, self.budget = Retry(), RetryBudget()
        self.service = NAME
        self.timeouts = NO_TIMEOUTS
        self.hash_key = None

    def pick(
        self,
        avoid: Collection[object] | None,
        key: int | None = None,  # noqa: ARG002
    ) -> "PassThrough | None":
        """Return the one endpoint, once: there is no other that could answer instead."""
        return None if avoid is not None and self in avoid else self

    def admits(self, limit: Limit) -> bool:  # noqa: ARG002
        """Nothing is limited here."""
        return True

    def refusal(self, limit: Limit) -> tuple[str, str, Fields]:  # noqa: ARG002
        """Return why it is not picked a second time."""
        return "no-healthy-endpoint", "", []

    def judge(
        self, status: int, grpc_status: str | None, code: str, seconds: float, began: float
    ) -> None:
        """Nothing follows from how it went: there is no other."""
