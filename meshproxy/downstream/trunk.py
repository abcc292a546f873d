"""
A trunk: a connection of another sidecar that carries opaque ones, each as a CONNECT stream.

RFC 9113 section 8.5: a CONNECT stream carries a TCP connection; END_STREAM is its FIN, in either
direction and independent of the other, and RST_STREAM(CONNECT_ERROR) is its RST.  The peer may send
data before it knows whether the endpoint is there: they wait here, against its window.

    CONNECT address:port ──▶ a relay to the app ──▶ 200, once the app's socket stands
                                                └─▶ a refusal: status and x-mesh-refusal

**This is no open proxy.**  Where a stream leads, the listener's configuration says and not the
peer.  The authority must still be the place that the connection was made to: a peer that asks for
another one has an idea of us that is wrong.

**Nor is it a way around the policies of HTTP.**  Where nobody has said that a port is opaque, what
comes here must not be a request: its sender would have looked at the first bytes as we do, and sent
it as one.  So we look again, and reset what some server would read as a request that nobody judged.
"""

import asyncio
from collections.abc import Callable

from meshproxy.codec import MalformedError
from meshproxy.codec.budget import TRUNK
from meshproxy.codec.http2 import (
    CANCEL,
    CONNECT_ERROR,
    NO_ERROR,
    PROTOCOL_ERROR,
    RequestStream,
)
from meshproxy.codec.sniff import Protocol as Wire
from meshproxy.codec.sniff import sniff
from meshproxy.message import TUNNEL, Fields, RequestHead, ResponseHead, field
from meshproxy.multiplex import Stream
from meshproxy.refusal import refusal
from meshproxy.tunnel import SIDECARS, keep_alive

from .http2 import Http2Connection, Owner
from .tcp import Carrier


class TrunkStream(Stream["TrunkConnection", Carrier]):
    """
    One opaque connection; the downstream of a relay.

    Attributes:
        exchange: The relay; None when it has taken its leave, or has not come yet.
    """

    __slots__ = ("_unread",)

    def __init__(self, link: "TrunkConnection", stream_id: int = 0) -> None:
        super().__init__(link, stream_id)
        self._unread: bytes | None = b"" if link.guesses else None  # None: looked at, and passed

    # Told by the peer -----------------------------------------------------------------------------

    def on_request_head(self, head: RequestHead) -> None:
        link = self._link
        if head.method != b"CONNECT" or not head.authority.endswith(b":%d" % link.port):
            link.owner.malformed("misdirected")
            self.refuse("misdirected")
            return
        self.exchange = relay = link.begin(self)
        relay.begin()

    def on_request_data(self, data: bytes, last: bool = False) -> None:
        if self._unread is not None:
            self._look(data)
        elif self.exchange is not None:
            self.exchange.on_downstream_data(data)
        self.took(len(data))
        if last:
            self.on_request_end(None)

    def _look(self, data: bytes) -> None:
        """Pass on what begins no request; what may still become one waits for its next byte."""
        self._unread = unread = (self._unread or b"") + data
        wire = sniff(unread)
        if wire is Wire.HTTP1 or wire is Wire.HTTP2:
            self._link.owner.malformed("misdirected")
            self.end_by_reset(CONNECT_ERROR)
            self._lose()
        elif wire is not None:
            self._pass_on()

    def _pass_on(self) -> None:
        unread, self._unread = self._unread, None
        if unread and self.exchange is not None:
            self.exchange.on_downstream_data(unread)

    def on_request_end(self, trailers: Fields | None) -> None:  # noqa: ARG002  # TCP has none
        self._pass_on()  # the beginning of a request, and no more, is none
        self.ended = True
        if self.exchange is not None:
            self.exchange.on_downstream_end()

    def on_request_malformed(self, error: MalformedError) -> None:
        self._link.owner.malformed(error.code)
        self.end_by_reset(PROTOCOL_ERROR)
        self._lose()

    def on_closed(self, code: int) -> None:
        self.gone()
        if code == CANCEL and self.exchange is not None:
            self.exchange.withdraw()
            self.exchange = None
        self._lose()
        self._link.stream_gone()

    def _lose(self) -> None:
        relay, self.exchange = self.exchange, None
        if relay is not None:
            relay.on_downstream_reset()

    def on_blocked(self) -> None:
        if self.exchange is not None:
            self.exchange.on_downstream_blocked()

    def on_writable(self) -> None:
        if self.exchange is not None:
            self.exchange.on_downstream_writable()

    # Told by the relay ----------------------------------------------------------------------------

    def established(self) -> None:
        if self.id:
            link = self._link
            link.session.send_head(self.id, ResponseHead(200, [], length=TUNNEL), ended=False)
            link.flush_soon()

    def refuse(self, code: str) -> None:
        """Say why; the peer may still have another endpoint to try."""
        self.exchange = None
        if not self.id or self.finished:
            return
        self.finished = True
        why = field(b"x-mesh-refusal", code.encode())
        link = self._link
        link.session.send_head(
            self.id, ResponseHead(refusal(code).status, [why], length=0), ended=True
        )
        link.flush_soon()
        if not self.ended:
            self.pause()  # nobody takes the rest: no credit for more
            link.answered_early.append(self)

    def end_early(self) -> bool:
        """After a flush: the refusal has left, so the rest may be refused as well."""
        if self.id and not self.ended:
            self.end_by_reset(NO_ERROR)
        return True

    def send_data(self, data: bytes | memoryview, last: bool = False) -> None:
        if self._unread is not None:
            self._pass_on()  # the server has spoken first: none of HTTP, which waits to be asked
        super().send_data(data, last)

    def send_end(self, trailers: Fields | None = None) -> None:
        super().send_end(trailers)

    def reset(self) -> None:
        self.exchange = None
        self.tear(CONNECT_ERROR)


class TrunkConnection(Http2Connection):
    """
    One peer's trunk.

    Attributes:
        port: What its streams must ask for.
        guesses: Nobody has said what that port speaks.
    """

    __slots__ = ("guesses", "port")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        owner: Owner,
        begin: Callable[[TrunkStream], Carrier],
        port: int,
        *,
        guesses: bool,
    ) -> None:
        super().__init__(loop, owner, begin, TRUNK)
        self.port = port
        self.guesses = guesses

    def open_stream(self, stream_id: int) -> RequestStream:
        return TrunkStream(self, stream_id)

    def on_connected(self) -> None:
        super().on_connected()
        keep_alive(self.transport, SIDECARS)
