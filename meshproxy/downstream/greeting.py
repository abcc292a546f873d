"""
The first bytes of a connection to a port that serves TLS and, perhaps, plaintext as well.

They are looked at with MSG_PEEK, on the raw socket: our TLS must read them as if nobody had, and it
has to be known before the first of them is read whether it is ours at all.

    STRICT       TLS ▶ ours                                   anything else ▶ refused
    PERMISSIVE   TLS that offers a mesh protocol (ALPN) ▶ ours    other TLS ▶ the app's own
                 anything else ▶ plaintext

Where the port has no route for opaque connections nothing could be done with an app's own TLS, so
there every TLS is ours.

A client of PERMISSIVE that says nothing is no mesh peer, for they speak first; but its server may
be waiting to speak, so it is dialled ahead (`speculation.py`).
"""

import asyncio
import socket
from math import inf
from typing import Final

from meshproxy.codec.client_hello import LIMIT, read_client_hello
from meshproxy.codec.sniff import Protocol as Wire
from meshproxy.codec.sniff import sniff
from meshproxy.identity.tls import ALPN, ALPN_LANE, ALPN_TCP
from meshproxy.policies.first_speaker import GRACE

from .destination import Destination
from .sockets import peer_address
from .speculation import Speculation

PEEK: Final = 24
"""Enough for the longest thing that is told apart but for TLS: the HTTP/2 preface."""

SILENCE = 5.0
"""Seconds after which a client that says nothing is taken for no mesh peer."""

_OURS: Final = frozenset(name.encode() for name in (*ALPN, ALPN_LANE, ALPN_TCP))


class Greeting:
    """
    Attributes:
        speculation: The endpoint that was dialled because the client said nothing; None if none.
    """

    __slots__ = ("_destination", "_loop", "_passes", "_sock", "_stirred", "speculation")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        destination: Destination,
        *,
        permissive: bool,
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._destination = destination
        # The app's own TLS, and silence, mean something only where bytes may pass.
        self._passes = permissive and destination.tcp_route is not None
        self._stirred: asyncio.Future[None] | None = None
        self.speculation: Speculation | None = None

    async def hear(self) -> Wire | None:
        """
        Look at the first bytes without taking them.

        Returns:
            `TLS` where it is ours to speak, `OPAQUE` for an app's own; None when nothing can be
            known any more: the connection goes on with `speculation`, if there is one, and is over
            otherwise.
        """
        seen, wanted = 0, 1
        limit = LIMIT + PEEK if self._passes else PEEK
        if self._passes and not await self._client_speaks():
            speculation = self.speculation
            if speculation is None or speculation.settled or self._destination.opaque:
                return None
            return Wire.OPAQUE  # as far as it is known; what it says in the end is looked at
        data = self._at_once(limit)
        while True:
            if data is None:
                await self._readable()
                data = self._sock.recv(limit, socket.MSG_PEEK)
            if len(data) == seen:  # readable, yet nothing new: it will say no more
                self.withdraw()
                return None
            wire = self._judge(data)
            seen = 0 if wire is not None else len(data)
            # Peeked bytes keep a socket readable; the kernel is to wake us for further ones only,
            # or thousands of clients that say three bytes and wait would keep us busy.
            if wanted != seen + 1:
                wanted = seen + 1
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, wanted)
            if wire is not None:
                return wire
            data = None

    def _at_once(self, limit: int) -> bytes | None:
        """
        Return what is there already; None where it has to be waited for.

        Who dials mostly speaks at once, and the busier we are, the more of them have spoken when their
        turn comes: to ask costs less than to wait.
        """
        try:
            return self._sock.recv(limit, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return None

    def _judge(self, data: bytes) -> Wire | None:
        wire = sniff(data[:PEEK])
        if wire is None and len(data) >= PEEK:
            return Wire.HTTP1  # an unusual method; all that it may be otherwise is decided
        if wire is Wire.TLS and self._passes:
            hello = read_client_hello(data)
            if hello is None:
                return None
            return Wire.TLS if _OURS.intersection(hello.protocols) else Wire.OPAQUE
        return wire

    async def _readable(self) -> None:
        """Wait until there is something to read, or somebody else has stirred."""
        self._stirred = self._loop.create_future()
        self._loop.add_reader(self._sock.fileno(), self._stir)
        try:
            await self._stirred
        finally:
            self._loop.remove_reader(self._sock.fileno())

    def _stir(self) -> None:
        if self._stirred is not None and not self._stirred.done():
            self._stirred.set_result(None)

    # The client is silent -------------------------------------------------------------------------

    async def _client_speaks(self) -> bool:
        """Wait for the first byte; say False when it is not the client's."""
        destination = self._destination
        # Also where servers speak first: a peer's hello comes a moment after its connection, and
        # would be met with a greeting in plaintext.
        patience = max(destination.first_speaker.patience(self._loop.time()), GRACE)
        route = destination.tcp_route
        if patience == inf or route is None or route.find(None) is None:
            return True
        try:
            async with asyncio.timeout(patience):
                await self._readable()
                return True
        except TimeoutError:
            pass
        self.speculation = speculation = Speculation(
            destination.caller(None),
            destination.first_speaker,
            self._loop.time,
            self._stir,
            peer_address(self._sock) or "",
        )
        speculation.relay.begin()
        if speculation.settled:
            return False
        try:
            async with asyncio.timeout(SILENCE):
                await self._readable()
                return not speculation.settled
        except TimeoutError:
            return speculation.over

    def on_http(self) -> None:
        """The client has spoken, and HTTP."""
        silence = 0.0 if self.speculation is None else self.speculation.silence()
        self._destination.first_speaker.client_spoke_http(self._loop.time(), silence)

    def withdraw(self) -> None:
        """Forget about the server's speaking first."""
        speculation, self.speculation = self.speculation, None
        if speculation is not None:
            speculation.withdraw()
