"""
A silent client's endpoint, dialled ahead of its first byte: the downstream of a relay for so long.

    the server speaks first      ▶ the relay is the connection's: `adopt`
    the client speaks first      ▶ opaque: the same; HTTP: the relay is withdrawn, and the app sees
                                   that a connection was made and closed
    the server ends or fails     ▶ so does the connection, unless its port is one of HTTP

`policies/first_speaker.py` says when this happens, and why it seldom does in vain.
"""

from collections.abc import Callable

from meshproxy.codec.sniff import Protocol as Wire
from meshproxy.codec.sniff import sniff_greeting
from meshproxy.policies.first_speaker import FirstSpeaker
from meshproxy.relay import Bytes, Caller, Downstream, Relay


class Speculation:
    """
    Attributes:
        address: The client's IP address.
        relay: To the endpoint.
        blocked: Never: a server that speaks much before anybody listens is paused by `pause`.
    """

    __slots__ = (
        "_connected_at", "_decide", "_ended", "_held", "_now", "_speaker", "_torn", "address",
        "blocked", "relay",
    )  # fmt: skip

    def __init__(
        self,
        caller: Caller,
        speaker: FirstSpeaker,
        now: Callable[[], float],
        decide: Callable[[], None],
        address: str = "",
    ) -> None:
        """`decide` is called once, when the connection is the server's; `adopt` must follow."""
        self.address = address
        self.relay = Relay(self, caller)
        self.blocked = False
        self._speaker = speaker
        self._now = now
        self._decide: Callable[[], None] | None = decide
        self._held = b""
        self._ended = False
        self._torn = False
        self._connected_at: float | None = None

    @property
    def settled(self) -> bool:
        """The connection is the server's."""
        return self._decide is None

    @property
    def over(self) -> bool:
        """It has led to nothing, and the client may still say anything."""
        return self.relay.done and not (self._held or self._ended or self._torn)

    # Told by the relay ----------------------------------------------------------------------------

    def established(self) -> None:
        self._connected_at = self._now()

    def send_data(self, data: Bytes) -> None:
        self._held += data
        if self._decide is None:  # it has been decided; `adopt` is about to come
            return
        wire = sniff_greeting(self._held)
        if wire is Wire.OPAQUE:
            self._speaker.server_spoke(self._now())
            self._settle()
        elif wire is not None:
            self._held = b""
            self._speaker.client_spoke_http(self._now())
            self.relay.withdraw()

    def send_end(self) -> None:
        self._ended = True
        self._on_lost()

    def reset(self) -> None:
        self._torn = True
        self._on_lost()

    def refuse(self, code: str) -> None:  # noqa: ARG002  # why is told when the client has spoken
        self.reset()

    def pause(self) -> None: ...
    def resume(self) -> None: ...

    def _on_lost(self) -> None:
        if self._speaker.speaks_http(self._now()):
            self._held, self._ended, self._torn = b"", False, False
            self.relay.withdraw()
        else:
            self._settle()

    def _settle(self) -> None:
        decide, self._decide = self._decide, None
        if decide is not None:
            decide()

    # Told by who waits for the client -------------------------------------------------------------

    def adopt(self, downstream: Downstream) -> None:
        """Let the relay go on with the client's connection."""
        self._decide = None
        self.relay.downstream = downstream
        if self._held:
            downstream.send_data(self._held)
        if self._torn:
            downstream.reset()
        elif self._ended:
            downstream.send_end()

    def withdraw(self) -> None:
        """The client speaks HTTP, or has gone."""
        self._decide = None
        self.relay.withdraw()

    def silence(self) -> float:
        """Return the seconds for which the server has been connected and has said nothing."""
        if self._connected_at is None or self._held:
            return 0.0
        return self._now() - self._connected_at
