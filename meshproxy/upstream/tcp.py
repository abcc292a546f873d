"""
TCP connections to one endpoint that is no mesh peer: to the app beside us, for the most part.

Each opaque connection gets one of its own, dialled when it begins and closed when it ends.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any, Protocol

from meshproxy.contract.resources import ClusterSpec, EndpointSpec
from meshproxy.driven import Driven
from meshproxy.flow import COUNTED, RECEIVED, as_protocol
from meshproxy.tcp import TcpSide
from meshproxy.telemetry.metrics import ConnectionSeries
from meshproxy.tunnel import ANYBODY, keep_alive, vanished

log = logging.getLogger("meshproxy.upstream")


class Relay(Protocol):
    """Who wants an opaque connection: a relay, or a health check."""

    def on_upstream_ready(self, upstream: Any) -> None: ...
    def on_upstream_connected(self) -> None: ...
    def on_upstream_failed(self, code: str) -> None: ...
    def on_upstream_data(self, data: Any) -> None: ...
    def on_upstream_end(self) -> None: ...
    def on_upstream_reset(self, code: str) -> None: ...
    def on_upstream_blocked(self) -> None: ...
    def on_upstream_writable(self) -> None: ...


class Timers(Protocol):
    """Tells a dial that it has taken too long: `timer_wheel.py`."""

    def add(self, item: Any) -> set[Any]: ...
    def drop(self, slot: set[Any], item: Any) -> None: ...


class Environment(Protocol):
    """
    What dialling needs of the process.

    Attributes:
        dialled: All TCP connections to apps and unknown places that are open.
    """

    loop: asyncio.AbstractEventLoop
    dialled: "set[TcpConnection]"
    now: Callable[[], float]

    @property
    def timers(self) -> Timers: ...
    def connections_to(self, direction: str) -> ConnectionSeries: ...


class Sockets:
    """
    The TCP connections to one endpoint.

    Attributes:
        cluster, endpoint: As configured now.
    """

    __slots__ = (
        "_counts", "_dials", "_environment", "_failing", "_open", "_source", "cluster", "endpoint",
    )  # fmt: skip

    def __init__(
        self,
        cluster: ClusterSpec,
        endpoint: EndpointSpec,
        environment: Environment,
        source: str | None = None,
    ) -> None:
        """Dial from the address `source`, where there is one to dial from."""
        self.cluster = cluster
        self.endpoint = endpoint
        self._environment = environment
        self._source = None if source is None else (source, 0)
        self._failing = ""  # why the last dial failed, as it was logged
        self._dials: dict[Relay, _Dial] = {}
        self._open: set[TcpConnection] = set()
        self._counts = environment.connections_to("inbound")

    def statistics(self) -> dict[str, int]:
        """Return how many there are, for `/clusters`."""
        return {"connections": len(self._open), "dialling": len(self._dials)}

    @property
    def carried(self) -> int:
        """How many opaque connections stand or are dialled."""
        return len(self._open) + len(self._dials)

    def connect(self, relay: Relay) -> None:
        """Answer the relay with `on_upstream_ready` or `on_upstream_failed`, later."""
        self._dials[relay] = _Dial(self, relay, self._environment, self._source)

    def disconnect(self, relay: Relay) -> None:
        """The relay waits no longer."""
        dial = self._dials.pop(relay, None)
        if dial is not None:
            dial.cancel()

    def failed(self, relay: Relay, code: str, why: str) -> None:
        """There is no connection to be had."""
        if self._dials.pop(relay, None) is not None:
            self._warn(why)
            relay.on_upstream_failed(code)

    def opened(self, connection: "TcpConnection", relay: Relay) -> bool:
        """Say whether anybody still wants the connection."""
        dial = self._dials.pop(relay, None)
        if dial is None:
            return False
        dial.rest()
        self._open.add(connection)
        self._environment.dialled.add(connection)
        self._counts.opened += 1
        if self._failing:
            self._failing = ""
            log.info("%s: connected again", self._where)
        return True

    def closed(self, connection: "TcpConnection") -> None:
        if connection in self._open:
            self._open.remove(connection)
            self._environment.dialled.discard(connection)
            self._counts.closed += 1

    def close(self) -> None:
        """End everything now."""
        for relay in list(self._dials):
            self.disconnect(relay)
        for connection in list(self._open):
            connection.abort()

    @property
    def _where(self) -> str:
        return f"{self.cluster.name} at {self.endpoint.address}:{self.endpoint.port}"

    def _warn(self, why: str) -> None:
        """Log why dialling fails: once, until it succeeds or fails for another reason."""
        level = logging.DEBUG if why == self._failing else logging.WARNING
        self._failing = why
        log.log(level, "%s: %s", self._where, why)


class _Dial:
    """
    One endpoint being dialled for one relay.

    Attributes:
        due: When it has taken too long.
    """

    __slots__ = ("_driven", "_environment", "_relay", "_slot", "_sockets", "_source", "due")

    def __init__(
        self,
        sockets: Sockets,
        relay: Relay,
        environment: Environment,
        source: tuple[str, int] | None,
    ) -> None:
        self._sockets = sockets
        self._relay = relay
        self._environment = environment
        self._source = source
        self._driven: Driven | None = None
        self.due = environment.now() + sockets.cluster.connect_timeout / 1000
        self._slot: set[_Dial] | None = environment.timers.add(self)
        # Not now: what has come with the wish may show that it is none, and nobody is to see a
        # connection then.
        environment.loop.call_soon(self._begin)

    def _begin(self) -> None:
        if self._slot is None:
            return
        loop, endpoint = self._environment.loop, self._sockets.endpoint
        connection = TcpConnection(loop, self._sockets, self._relay)
        self._driven = Driven(
            loop,
            loop.create_connection(
                lambda: as_protocol(connection),
                endpoint.address,
                endpoint.port,
                local_addr=self._source,
            ),
            self._on_end,
        )

    def _on_end(self, driven: Driven, error: Exception | None) -> None:  # noqa: ARG002
        self.rest()
        self._driven = None  # which knows us, too
        if error is not None:  # ValueError: an address that is no address
            self._sockets.failed(self._relay, "connect-failed", f"cannot connect: {reason(error)}")

    def on_due(self) -> None:
        """It takes too long."""
        self._slot = None
        self.cancel()
        why = f"no connection within {self._sockets.cluster.connect_timeout} ms"
        self._sockets.failed(self._relay, "connect-timeout", why)

    def rest(self) -> None:
        """It has an end, and may take as long as it likes with it."""
        slot, self._slot = self._slot, None
        if slot is not None:
            self._environment.timers.drop(slot, self)

    def cancel(self) -> None:
        """Nobody waits for it."""
        self.rest()
        driven, self._driven = self._driven, None
        if driven is not None:
            driven.cancel()


class TcpConnection(TcpSide):
    """A dialled connection; the upstream of a relay."""

    __slots__ = ("_owner", "_relay", "_watched")

    def __init__(self, loop: asyncio.AbstractEventLoop, owner: Sockets, relay: Relay) -> None:
        super().__init__(loop)
        self._owner = owner
        self._relay: Relay | None = relay
        self._watched = False

    def look(self) -> None:
        """
        See whether anybody is there; called every few seconds.

        At first have TCP do so, which no short connection needs.
        """
        if not self._watched:
            self._watched = True
            keep_alive(self.transport)
        elif vanished(self.transport, ANYBODY):
            self.abort()

    def on_connected(self) -> None:
        # Here and not when `create_connection` returns: the first bytes come before that.
        super().on_connected()
        relay = self._relay
        assert relay is not None
        if not self._owner.opened(self, relay):
            self.reset()
            return
        relay.on_upstream_ready(self)
        relay.on_upstream_connected()

    def buffer_updated(self, nbytes: int) -> None:
        if nbytes >= COUNTED:
            self.turn.came(nbytes)
        if self._relay is not None:
            self._relay.on_upstream_data(RECEIVED[:nbytes])

    def on_bytes(self, data: bytes) -> None:
        if self._relay is not None:
            self._relay.on_upstream_data(data)

    def on_end(self) -> None:
        if self._relay is not None:
            self._relay.on_upstream_end()

    def on_torn(self, error: Exception | None) -> None:
        relay, self._relay = self._relay, None
        if relay is not None:
            relay.on_upstream_reset("upstream-closed" if error is None else "upstream-reset")

    def on_gone(self) -> None:
        self._relay = None  # which knows us: together they would wait for the cycle collector
        self._owner.closed(self)

    def on_blocked(self) -> None:
        if self._relay is not None:
            self._relay.on_upstream_blocked()

    def on_writable(self) -> None:
        if self._relay is not None:
            self._relay.on_upstream_writable()

    def reset(self) -> None:
        self._relay = None
        super().reset()

    def withdraw(self) -> None:
        self._relay = None
        self.said_end = True
        self.close()


def reason(error: Exception) -> str:
    """Return what the system calls it, with its number: ``Connection refused (errno 111)``."""
    number = getattr(error, "errno", None)
    if (
        not number or number < 0
    ):  # not from connect(): the address is none, or no name server knows it
        return str(error)
    return f"{os.strerror(number)} (errno {number})"
