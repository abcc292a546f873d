"""
What captured connections are meant for: from the address that a client called to a destination.

The address decides, and nothing that the client says: an HTTP request to the address of one service
that names another in its Host field is the first one's request, and whoever calls an address that
is no service's cannot reach a service by its name.  (Istio routes outbound HTTP by Host among all
services of a port; then a client's header decides whose identity is checked.)

What is no destination is *unknown*.  Where that is allowed it is passed on, byte by byte, to the
address that it was meant for.
"""

import logging
import socket
from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakValueDictionary

from meshproxy.contract.resources import (
    DestinationSpec,
    Direction,
    TcpBackendSpec,
    TcpRouteSpec,
    TcpRuleSpec,
)
from meshproxy.contract.wire import ContractError
from meshproxy.neighbours import Authorities
from meshproxy.neighbours import Cluster as ExchangeCluster
from meshproxy.relay import Cluster as RelayCluster
from meshproxy.routing.table import VirtualHost
from meshproxy.routing.tcp import TcpRoute, compile_tcp_route

from .destination import Destination, Environment
from .original_destination import Address, canonical, original_destination
from .socket_owner import is_ours

log = logging.getLogger("meshproxy.listener")

PASSTHROUGH = "passthrough"
"""Destination and route, in metrics, of what is passed on."""

REMEMBERED = 1024
"""Unknown addresses whose counters and ways are kept at hand; made anew for those beyond."""

LOOKED_AT = 32
"""Of so many connections one is looked at for its owner, and so many at the beginning."""

_ROUTE = TcpRouteSpec(
    name=PASSTHROUGH,
    rules=(TcpRuleSpec(name=PASSTHROUGH, backends=(TcpBackendSpec(cluster=PASSTHROUGH),)),),
)

PassThrough = Callable[[Address], RelayCluster]
"""Makes what dials an unknown address."""

Wanted = tuple[DestinationSpec, VirtualHost[ExchangeCluster] | None, TcpRoute[RelayCluster] | None]


class Unknown(Destination):
    """An address that is no destination: nobody looks at what is said, or says anything to it."""

    __slots__ = ()


class Captured:
    """
    The destinations of one direction.

    Args:
        direction: Whose connections these are.
        environment: What destinations need of the process.
        pass_through: Makes the way to an unknown address.
    """

    def __init__(
        self,
        direction: Direction,
        environment: Environment,
        pass_through: PassThrough,
    ) -> None:
        self._direction = direction
        self._environment = environment
        self._pass_through = pass_through
        self._authorities: Authorities
        self._by_name: dict[str, Destination] = {}
        self._gone: WeakValueDictionary[str, Destination] = WeakValueDictionary()
        self._places: dict[tuple[str | None, int], Destination] = {}
        self._unknown: dict[Address, Unknown] = {}
        self._seen = 0

    def __repr__(self) -> str:
        return f"<Captured {self._direction} {len(self._by_name)}>"

    def obey(self, wanted: Iterable[Wanted], authorities: Authorities) -> None:
        """
        Have these destinations from now on; those that stay are told of what is new.

        One that comes back is the one that its connections still have, or these would obey for ever
        the policies of before.
        """
        by_name: dict[str, Destination] = {}
        self._places = {}
        self._authorities = authorities
        for spec, virtual_host, tcp_route in wanted:
            destination = (
                self._by_name.pop(spec.name, None)
                or self._gone.pop(spec.name, None)
                or Destination(self._environment, spec)
            )
            destination.obey(spec, virtual_host, authorities, tcp_route)
            by_name[spec.name] = destination
            for place in places(spec):
                self._places[place] = destination
        self._gone.update(self._by_name)
        self._by_name = by_name

    def meant(self, sock: socket.socket, peer: Any, *, passing: bool) -> Destination | None:
        """
        Return what a connection is meant for, or None when it is to be refused.

        Args:
            sock: Accepted by a listener that connections are redirected to.
            peer: Where it comes from, as `accept` says.
            passing: What is unknown is passed on.
        """
        original = original_destination(sock)
        if original is None:
            return None
        if self._direction == "outbound" and self._is_our_own(peer, original):
            return None
        return self.find(original) or (self._passage(original) if passing else None)

    def find(self, original: Address) -> Destination | None:
        """Return what an address is, or None when it is unknown: address and port, then the port."""
        return self._places.get(original) or self._places.get((None, original[1]))

    def _is_our_own(self, peer: Any, original: Address) -> bool:
        """
        Say whether we have caught ourselves: each connection would then lead to another, for ever.

        It happens where the sidecar runs as another user than the rules let through.  Of a chain
        without an end, some link is among those that are looked at.
        """
        self._seen += 1
        if self._seen > LOOKED_AT and self._seen % LOOKED_AT:
            return False
        if not is_ours((peer[0].partition("%")[0], peer[1]), original):
            return False
        log.error(
            "refused a connection of our own to %s port %d: the packet filter rules do not let the "
            "user through that we run as (meshproxy intercept --proxy-uid)", *original,
        )  # fmt: skip
        return True

    def _passage(self, original: Address) -> Unknown:
        """Return what passes a connection on to where it was meant to go."""
        destination = self._unknown.pop(original, None)
        if destination is None:
            spec = DestinationSpec(
                name=PASSTHROUGH, direction=self._direction, port=original[1], protocol="tcp"
            )
            route = compile_tcp_route(_ROUTE, {PASSTHROUGH: self._pass_through(original)})
            destination = Unknown(self._environment, spec)
            destination.obey(spec, None, self._authorities, route)
            if len(self._unknown) >= REMEMBERED:
                del self._unknown[next(iter(self._unknown))]  # the one that waited longest
        self._unknown[original] = destination
        return destination


def places(spec: DestinationSpec) -> list[tuple[str | None, int]]:
    """
    Return the addresses, None for any, and the port that mean this destination.

    Raises:
        ContractError: One is no IP address; names which.
    """
    if not spec.addresses:
        return [(None, spec.port)]
    found: list[tuple[str | None, int]] = []
    for index, address in enumerate(spec.addresses):
        try:
            found.append((canonical(address), spec.port))
        except (OSError, ValueError):
            where = f"destination/{spec.name} addresses[{index}]"
            raise ContractError(where, f"expected an IP address, got {address!r}") from None
    return found
