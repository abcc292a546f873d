"""
Opaque connections to another sidecar: CONNECT streams on a trunk, a connection of their own.

One mutual TLS handshake then serves any number of TCP connections, each of which keeps its two
halves (see `downstream/trunk.py`, the other end).  They do not share the connection that requests
use: a bulk transfer would queue ahead of them.

**Nobody waits for an answer.**  A stream is opened and used at once, before the peer has said 200;
so a connection costs no round trip more than without us.  What was said in the meantime is kept by
the relay, in case the peer cannot reach its app and another endpoint has to be asked.

**Fairness.**  nghttp2 serves streams strictly one after another unless they say that they may be
interleaved: ``priority: u=3, i`` (RFC 9218 section 4.2).
"""

import asyncio
from typing import Any, Final

from meshproxy.codec import MalformedError
from meshproxy.codec.budget import TRUNK
from meshproxy.codec.http2 import CANCEL, CONNECT_ERROR, PROTOCOL_ERROR, REFUSED_STREAM
from meshproxy.contract.policies import LimitsSpec
from meshproxy.contract.resources import ClusterSpec, EndpointSpec
from meshproxy.identity.tls import ALPN_TCP, ALPN_TRUNK, protocol
from meshproxy.message import TUNNEL, Fields, RequestHead, ResponseHead, field
from meshproxy.multiplex import Stream
from meshproxy.policies.flow_sizes import Flow, FlowSizes
from meshproxy.policies.limits import Limits
from meshproxy.refusal import REFUSALS
from meshproxy.tunnel import SIDECARS, keep_alive

from .http2 import Http2Connection
from .lane import authority_of
from .lanes import LanePool
from .pool import Environment, Pool
from .tcp import Relay

_INTERLEAVED: Final = field(b"priority", b"u=3, i")


class TrunkPool(Pool):
    """
    The trunks to one endpoint; dialled and shared as the connections of requests are.

    Limits are for what they carry, and counted where that begins (`relay.py`, `cluster.py`).
    """

    __slots__ = ("lanes", "sizes")

    def __init__(
        self,
        cluster: ClusterSpec,
        endpoint: EndpointSpec,
        environment: Environment,
        sizes: FlowSizes,
    ) -> None:
        """`sizes` are those of what the whole cluster carries."""
        unlimited = Limits(LimitsSpec())
        super().__init__(cluster, endpoint, environment, unlimited, unlimited)
        self.sizes = sizes
        self.lanes = LanePool(cluster, endpoint, environment, self.sizes, self.acquire)

    @property
    def carried(self) -> int:
        """How many opaque connections stand or wait for a trunk."""
        streams = sum(len(trunk.session.streams) for trunk in self._shared)
        return len(self.waiting) + streams + self.lanes.carried

    def statistics(self) -> dict[str, int]:
        """Return how many there are of each, for `/clusters`."""
        return {**super().statistics(), "lanes": self.lanes.carried}

    def connect(self, relay: Relay) -> None:
        """Answer the relay with `on_upstream_ready` or `on_upstream_failed`, now or later."""
        # To a pool, requests and relays are the same: somebody who waits for a connection.
        lanes = self.lanes
        if lanes.wanted:
            lanes.cluster, lanes.endpoint = self.cluster, self.endpoint
            lanes.acquire(relay)
        else:
            self.acquire(relay)

    def disconnect(self, relay: Relay) -> None:
        """The relay waits no longer."""
        self.forget(relay)
        self.lanes.forget(relay)

    def leaving(self, connection: Http2Connection) -> None:
        super().leaving(connection)
        self.lanes.forgive()

    def retire(self) -> None:
        super().retire()
        self.lanes.retire()

    def close(self) -> None:
        super().close()
        self.lanes.close()

    @property
    def _offered(self) -> list[str]:
        return ALPN_TRUNK

    def objection(self, transport: asyncio.Transport) -> str | None:
        objection = super().objection(transport)
        if objection is None and protocol(transport) != ALPN_TCP:
            self._warn("the sidecar there carries no opaque connections")
            objection = "handshake-failed"
        return objection

    def successor(self, transport: asyncio.Transport) -> "TrunkConnection":  # noqa: ARG002
        return TrunkConnection(self._environment.loop, self, self.sizes)


class TrunkStream(Stream["TrunkConnection", Relay]):
    """
    One opaque connection; the upstream of a relay.

    Attributes:
        exchange: The relay; None when it has taken its leave.
    """

    __slots__ = ("_flow",)

    def __init__(self, link: "TrunkConnection", stream_id: int = 0) -> None:
        super().__init__(link, stream_id)
        self._flow = Flow(link.sizes)

    def open(self, authority: bytes) -> None:
        """
        Ask for the endpoint.

        Raises:
            MalformedError: The connection takes no more streams.
        """
        self.method = b"CONNECT"
        head = RequestHead(b"CONNECT", authority, b"", [_INTERLEAVED], length=TUNNEL)
        self.id = self._link.session.send_head(self, head, ended=False)
        self._link.flush_soon()

    # Told by the peer -----------------------------------------------------------------------------

    def on_response_informational(self, head: ResponseHead) -> None:
        """Nothing that TCP could say."""

    def on_response_head(self, head: ResponseHead) -> None:
        relay = self.exchange
        if relay is None:
            return
        if head.status == 200:
            relay.on_upstream_connected()
            return
        self.exchange = None
        self.end_by_reset(CANCEL)
        relay.on_upstream_failed(_code_of(head))

    def on_response_data(self, data: bytes, last: bool = False) -> None:
        self._flow.moved(len(data))
        if self.exchange is not None:
            self.exchange.on_upstream_data(data)
        self.took(len(data))
        if last:
            self.on_response_end(None)

    def on_response_end(self, trailers: Fields | None) -> None:  # noqa: ARG002  # TCP has none
        self.ended = True
        self._link.served += 1
        if self.exchange is not None:
            self.exchange.on_upstream_end()

    def on_response_malformed(self, error: MalformedError) -> None:
        self.end_by_reset(PROTOCOL_ERROR)
        self._lose(error.code)

    def on_closed(self, code: int) -> None:
        self.gone()
        self._flow.ended()
        self._lose("stream-refused" if code == REFUSED_STREAM else "upstream-reset")
        self._link.stream_gone()

    def on_lost(self, code: str) -> None:
        """The connection has gone."""
        self.gone()
        self._lose(code)

    def _lose(self, code: str) -> None:
        relay, self.exchange = self.exchange, None
        if relay is not None:
            relay.on_upstream_reset(code)

    def on_blocked(self) -> None:
        if self.exchange is not None:
            self.exchange.on_upstream_blocked()

    def on_writable(self) -> None:
        if self.exchange is not None:
            self.exchange.on_upstream_writable()

    # Told by the relay ----------------------------------------------------------------------------

    def send_data(self, data: bytes | memoryview, last: bool = False) -> None:
        self._flow.moved(len(data))
        Stream.send_data(self, data, last)

    def send_end(self, trailers: Fields | None = None) -> None:
        super().send_end(trailers)

    def reset(self) -> None:
        self.exchange = None
        self.tear(CONNECT_ERROR)

    def withdraw(self) -> None:
        self.exchange = None
        self.end_by_reset(CANCEL)


class TrunkConnection(Http2Connection):
    """One trunk to one endpoint."""

    __slots__ = ("_authority", "sizes")

    def __init__(self, loop: asyncio.AbstractEventLoop, owner: TrunkPool, sizes: FlowSizes) -> None:
        super().__init__(loop, owner, to_sidecar=True, allowance=TRUNK)
        self.sizes = sizes
        self._authority = authority_of(owner.endpoint)

    def on_connected(self) -> None:
        super().on_connected()
        keep_alive(self.transport, SIDECARS)

    def lend(self, exchange: Any) -> bool:
        """Give a relay a stream; return False when there is no room for one."""
        if self.room <= 0:
            return False
        relay: Relay = exchange
        stream = TrunkStream(self)
        stream.exchange = relay
        try:
            stream.open(self._authority)
        except MalformedError as error:
            relay.on_upstream_failed(error.code)
        else:
            relay.on_upstream_ready(stream)
        return True


def _code_of(head: ResponseHead) -> str:
    """Return why a peer has refused; what it calls a reason that we do not know is not passed on."""
    fields = [*head.fields, *(head.mesh_fields or ())]
    said = [value for name, value, _ in fields if name == b"x-mesh-refusal"]
    code = said[0].decode("ascii", "replace") if said else ""
    return code if code in REFUSALS else "stream-refused"
