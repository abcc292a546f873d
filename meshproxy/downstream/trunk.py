"""
A tunnel connection of another sidecar: opaque connections come as CONNECT streams.

RFC 9113 section 8.5: a CONNECT stream carries a TCP connection; END_STREAM is its FIN, in either
direction and independent of the other, and RST_STREAM(CONNECT_ERROR) is its RST.  The peer may send
data before it knows whether the endpoint is there: they wait here, against its window.

    CONNECT address:port ──▶ a relay to the app ──▶ 200, once the app's socket stands
                                                └─▶ a refusal: status and x-mesh-refusal

**This is no open proxy.**  Where a stream leads, the listener's configuration says and not the
peer.  The authority must still be the place that the connection was made to: a peer that asks for
another one has an idea of us that is wrong.
"""

import asyncio
from collections.abc import Callable
from math import inf

from meshproxy.codec import MalformedError
from meshproxy.codec.budget import TUNNEL
from meshproxy.codec.http2 import CONNECT_ERROR, NO_ERROR, PROTOCOL_ERROR
from meshproxy.message import CHUNKED, Fields, RequestHead, ResponseHead, field
from meshproxy.multiplex import Stream
from meshproxy.refusal import refusal
from meshproxy.relay import Relay
from meshproxy.tcp import keep_alive

from .http2 import Http2Connection, Owner

Begin = Callable[["TunnelStream"], Relay]


class TunnelStream(Stream):
    """One opaque connection; the downstream of a relay."""

    __slots__ = ("_connection", "_relay", "_request_open")

    def __init__(self, connection: "TunnelConnection", stream_id: int) -> None:
        super().__init__(connection, stream_id)
        self._connection = connection
        self._relay: Relay | None = None
        self._request_open = True

    # Told by the peer -----------------------------------------------------------------------------

    def on_request_head(self, head: RequestHead) -> None:
        connection = self._connection
        if head.method != b"CONNECT" or not head.authority.endswith(b":%d" % connection.port):
            connection.owner.malformed("misdirected")
            self.refuse("misdirected")
            return
        self._relay = relay = connection.begin(self)
        relay.begin()

    def on_request_data(self, data: bytes) -> None:
        if self._relay is not None:
            self._relay.on_downstream_data(data)
        self.took(len(data))

    def on_request_end(self, trailers: Fields | None) -> None:  # noqa: ARG002  # TCP has none
        self._request_open = False
        if self._relay is not None:
            self._relay.on_downstream_end()

    def on_request_malformed(self, error: MalformedError) -> None:
        self._connection.owner.malformed(error.code)
        self.end_by_reset(PROTOCOL_ERROR)
        self._lose()

    def on_closed(self, code: int) -> None:  # noqa: ARG002  # to an app all resets are the same
        self.gone()
        self._lose()
        self._connection.stream_gone()

    def _lose(self) -> None:
        relay, self._relay = self._relay, None
        if relay is not None:
            relay.on_downstream_reset()

    def on_blocked(self) -> None:
        if self._relay is not None:
            self._relay.on_downstream_blocked()

    def on_writable(self) -> None:
        if self._relay is not None:
            self._relay.on_downstream_writable()

    # Told by the relay ----------------------------------------------------------------------------

    def established(self) -> None:
        if self.id:
            self._connection.session.send_head(
                self.id, ResponseHead(200, [], length=CHUNKED), ended=False
            )
            self._connection.flush_soon()

    def refuse(self, code: str) -> None:
        """Say why; the peer may still have another endpoint to try."""
        self._relay = None
        if not self.id or self.finished:
            return
        self.finished = True
        head = ResponseHead(
            refusal(code).status, [field(b"x-mesh-refusal", code.encode())], length=0
        )
        connection = self._connection
        connection.session.send_head(self.id, head, ended=True)
        connection.flush_soon()
        if self._request_open:
            self.pause()  # nobody takes the rest: no credit for more
            connection.answered_early.append(self)

    def end_early(self) -> bool:
        """After a flush: the refusal has left, so the rest may be refused as well."""
        if self.id and self._request_open:
            self.end_by_reset(NO_ERROR)
        return True

    def send_end(self, trailers: Fields | None = None) -> None:
        super().send_end(trailers)

    def reset(self) -> None:
        self._relay = None
        self.end_by_reset(CONNECT_ERROR)


class TunnelConnection(Http2Connection):
    """
    One peer's tunnel connection.

    Attributes:
        port: What its streams must ask for.
    """

    __slots__ = ("port",)

    def __init__(
        self, loop: asyncio.AbstractEventLoop, owner: Owner, begin: Begin, port: int
    ) -> None:
        super().__init__(loop, owner, begin, TUNNEL)
        self.port = port

    def on_connected(self) -> None:
        super().on_connected()
        assert self.transport is not None
        keep_alive(self.transport.get_extra_info("socket"))

    def _open_stream(self, stream_id: int) -> TunnelStream:
        if not self._draining:
            self.deadline = inf
        return TunnelStream(self, stream_id)
