"""
A lane to another sidecar (`meshproxy/lane.py`): the upstream of a relay.

`lanes.py` dials them, and says when.
"""

import asyncio
from typing import Protocol

from meshproxy.contract.resources import EndpointSpec
from meshproxy.identity.tls import refused_our_certificate
from meshproxy.lane import ACCEPTED, Lane
from meshproxy.policies.flow_sizes import Flow
from meshproxy.refusal import REFUSALS
from meshproxy.relay import Bytes

from .tcp import Relay


class Owner(Protocol):
    """The pool that dialled the connection."""

    def lost(self, connection: "LaneConnection") -> None: ...


def authority_of(endpoint: EndpointSpec) -> bytes:
    """Return what an endpoint is called in a request for a connection to it."""
    address, port = endpoint.address, endpoint.port
    return (f"[{address}]:{port}" if ":" in address else f"{address}:{port}").encode()


class LaneConnection(Lane):
    """A dialled connection; it serves one relay, and then nobody."""

    __slots__ = ("_accepted", "_authority", "_flow", "_owner", "_relay")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, owner: Owner, authority: bytes, flow: Flow
    ) -> None:
        super().__init__(loop)
        self._owner = owner
        self._authority = authority
        self._flow = flow
        self._relay: Relay | None = None
        self._accepted = False

    @property
    def usable(self) -> bool:
        """It may be lent."""
        return self.transport is not None and not self.transport.is_closing()

    @property
    def carries(self) -> bool:
        """What it was lent for has not ended."""
        return self._relay is not None and not (self.said_end and self.heard_end)

    def lend(self, relay: Relay) -> None:
        """Carry what this relay says."""
        self._relay = relay
        self.send_word(self._authority)
        relay.on_upstream_ready(self)

    def retire(self) -> None:
        """It has grown old, or the endpoint is gone: what runs on it goes on to its end."""

    # Told by the peer -----------------------------------------------------------------------------

    def on_word(self, word: bytes) -> None:
        relay = self._relay
        if relay is None:
            return
        if word == ACCEPTED:
            self._accepted = True
            relay.on_upstream_connected()
            return
        self._relay = None
        self.abort()
        code = word.decode("ascii", "replace")
        relay.on_upstream_failed(code if code in REFUSALS else "stream-refused")

    def on_data(self, data: memoryview) -> None:
        self._flow.moved(len(data))
        if self._relay is not None:
            self._relay.on_upstream_data(data)

    def on_other_end(self) -> None:
        if self._relay is not None:
            self._relay.on_upstream_end()

    def on_withdrawn(self) -> None:
        self.on_malformed()  # that is for us to say

    def on_malformed(self) -> None:
        self.abort()
        self._lose("upstream-protocol-error")

    def on_torn(self, error: Exception | None) -> None:
        if not self._accepted and refused_our_certificate(error):
            self._lose("handshake-failed")
        else:
            self._lose("upstream-closed" if error is None else "upstream-reset")

    def _lose(self, code: str) -> None:
        relay, self._relay = self._relay, None
        if relay is not None:
            relay.on_upstream_reset(code)

    def on_gone(self) -> None:
        self._relay = None
        if self._accepted:
            self._flow.ended()
        self._owner.lost(self)

    def on_blocked(self) -> None:
        if self._relay is not None:
            self._relay.on_upstream_blocked()

    def on_writable(self) -> None:
        if self._relay is not None:
            self._relay.on_upstream_writable()

    # Told by the relay ----------------------------------------------------------------------------

    def send_data(self, data: Bytes) -> None:
        self._flow.moved(len(data))
        super().send_data(data)

    def reset(self) -> None:
        self._relay = None
        super().reset()

    def withdraw(self) -> None:
        self._relay = None
        super().withdraw()
