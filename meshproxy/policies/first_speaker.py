"""
First speaker: how long to wait for a client's first byte before its endpoint is dialled.

Theory of operation
===================

Where nobody has said what a port speaks, the first bytes of a connection decide.  But in some
protocols (SMTP, MySQL, FTP, SSH) the server speaks first, and the client would wait for ever for a
greeting from a server that nobody has dialled.  So a silent client's endpoint is dialled ahead of
its first byte, as if it were an opaque connection, and whoever speaks first decides.

For HTTP that dial is in vain: the app sees a connection on which nothing is asked.  Hence patience,
by what the port's connections have shown in the last ten minutes:

    the server has spoken first                           none: dial at once
    nothing                                               20 ms
    a client has spoken HTTP                              1 s
    the same, while a server was connected and silent     for ever: the server waits, too

A client that speaks first needs at most a round trip for that, and it is on our own host; so on a
port of HTTP nothing is ever dialled in vain but for clients that dawdle, and those stop being a
reason as soon as one of them has shown that the server waits.  A server that speaks first costs its
first client 20 ms, and the others nothing.

The evidence for *nothing is dialled* is the server's own silence, not a guess from what one client
said: a stray GET to a mail server makes its next silent client wait for a second, not for ever, and
the greeting that this one gets puts things right.  A port that only ever speaks one protocol can be
told so (`appProtocol`), and then none of this happens.

Called from: `Arrival`, `Speculation`.
"""

from math import inf

GRACE = 0.02
"""Seconds for the first byte of a client on a port of which nothing is known."""

DOUBT = 1.0
"""The same where clients have spoken HTTP."""

SILENCE = 0.2
"""Seconds of a connected server's silence that show that it waits for the client."""

REMEMBERED = 600.0
"""Seconds for which what was seen is believed to hold."""


class FirstSpeaker:
    """What the connections of one port have shown."""

    __slots__ = ("_http", "_server", "_waits")

    def __init__(self) -> None:
        # Until when each of these is believed
        self._server = -inf
        self._http = -inf
        self._waits = -inf

    def patience(self, now: float) -> float:
        """Return the seconds to wait for a client's first byte before its endpoint is dialled."""
        if now < self._server:
            return 0.0
        if now < self._waits:
            return inf
        return DOUBT if now < self._http else GRACE

    def speaks_http(self, now: float) -> bool:
        """Say whether a connection on which nothing was said is more likely one of HTTP."""
        return now < self._http and now >= self._server

    def server_spoke(self, now: float) -> None:
        """A server has spoken first, and not HTTP."""
        self._server = now + REMEMBERED

    def client_spoke_http(self, now: float, silence: float = 0.0) -> None:
        """
        A client has spoken first, and HTTP.

        Args:
            now: Of the loop's clock.
            silence: Seconds for which a server was connected and said nothing.
        """
        self._http = now + REMEMBERED
        if silence >= SILENCE:
            self._waits = now + REMEMBERED
            self._server = -inf
