"""A connection that has just been accepted: which protocol takes over, however the bytes come."""

import asyncio
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshproxy.contract.resources import ListenerSpec
from meshproxy.downstream.arrival import PREFACE, Arrival
from meshproxy.downstream.destination import Destination
from meshproxy.downstream.http1 import FIRST_TIMEOUT, HEAD_TIMEOUT
from meshproxy.flow import Connection
from tests.helpers.recorder import Recorder
from tests.helpers.transport import FakeLoop, FakeTransport


class Transport(FakeTransport):
    """With a TLS session, if the test says so, and a protocol that can be replaced."""

    def __init__(self, agreed: str | None = None) -> None:
        super().__init__()
        self.agreed = agreed
        self.protocol: Any = None

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self if name == "ssl_object" else default

    def selected_alpn_protocol(self) -> str | None:
        return self.agreed


class Listener:
    """Admits everybody unless told otherwise; its connections are recorders."""

    def __init__(self) -> None:
        self.admits = True
        self.chosen: list[tuple[bool, Recorder]] = []
        self.trunks: list[Recorder] = []
        self.gone: list[Arrival] = []

    def arrived(self, arrival: Arrival) -> None:
        if not self.admits:
            arrival.abort()

    def successor(self, arrival: Arrival, *, http2: bool) -> Any:
        self.chosen.append((http2, Recorder()))
        return self.chosen[-1][1]

    def trunk(self, arrival: Arrival) -> Any:
        self.trunks.append(Recorder())
        return self.trunks[-1]

    def closed(self, connection: Arrival) -> None:
        self.gone.append(connection)


def destination(**options: Any) -> Destination:
    """Return a place of a listener that leads nowhere."""
    spec = ListenerSpec(name="a", direction="outbound", address="127.0.0.1", port=80, **options)
    surroundings: Any = FakeEnvironment()
    return Destination(surroundings, spec)


class FakeEnvironment:
    workload = "default/storefront"


class Scene:
    def __init__(self, agreed: str | None = None, *, tls: bool = False) -> None:
        self.loop = FakeLoop()
        self.listener = Listener()
        self.arrival = Arrival(self.loop.as_loop, self.listener, destination(), tls=tls)
        self.transport = Transport(agreed)

    def connect(self) -> None:
        self.arrival.connection_made(self.transport)  # type: ignore[arg-type]

    def say(self, data: bytes) -> None:
        self.arrival.on_bytes(data)


@pytest.mark.parametrize(("agreed", "http2"), [("mesh-h2", True), ("mesh-h1", False)])
def test_the_handshake_says_it(agreed: str, http2: bool) -> None:
    """Between sidecars nothing has to be read first."""
    scene = Scene(agreed, tls=True)
    scene.connect()
    [(chosen, successor)] = scene.listener.chosen
    assert chosen == http2
    assert scene.transport.protocol is successor
    assert successor.words == ["connection_made"]


def test_trunks_are_agreed_upon_too() -> None:
    """A connection that carries opaque ones is none that carries requests."""
    scene = Scene("mesh-tcp", tls=True)
    scene.connect()
    assert scene.listener.chosen == []
    [successor] = scene.listener.trunks
    assert scene.transport.protocol is successor


@given(st.lists(st.integers(1, 30), max_size=5), st.booleans())
def test_the_first_bytes_say_it(cuts: list[int], http2: bool) -> None:
    """For any split, and the successor reads all of them."""
    said = (PREFACE if http2 else b"PRINT / HTTP/1.1\r\nHost: a\r\n\r\n") + b"more"
    scene = Scene()
    scene.connect()
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(said)], strict=True):
        if scene.listener.chosen:
            scene.listener.chosen[0][1].on_bytes(said[start:end])
        elif said[start:end]:
            scene.say(said[start:end])
    [(chosen, successor)] = scene.listener.chosen
    assert chosen == http2
    assert b"".join(call[1] for call in successor.heard if call[0] == "on_bytes") == said


def test_tls_without_an_agreement_is_judged_by_its_bytes() -> None:
    """A client that offers no ALPN."""
    scene = Scene(None, tls=True)
    scene.connect()
    assert scene.listener.chosen == []
    scene.say(b"GET / HTTP/1.1\r\n")
    assert scene.listener.chosen[0][0] is False


def test_who_is_not_admitted_reaches_no_protocol() -> None:
    """Neither does what was read meanwhile."""
    scene = Scene("mesh-h2", tls=True)
    scene.listener.admits = False
    scene.connect()
    scene.say(PREFACE)
    assert scene.listener.chosen == []
    assert scene.transport.state == "aborted"


def test_waiting_has_an_end() -> None:
    """For the first byte long, for the rest of a preface less; then it is cut."""
    scene = Scene()
    scene.connect()
    assert scene.arrival.deadline == scene.loop.now + FIRST_TIMEOUT
    scene.say(b"PRI")
    assert scene.arrival.deadline == scene.loop.now + HEAD_TIMEOUT
    scene.arrival.expire()
    assert scene.transport.state == "aborted"
    scene.arrival.connection_lost(None)
    assert scene.listener.gone == [scene.arrival]


def test_draining_closes_it() -> None:
    """It has not begun anything."""
    scene = Scene()
    scene.connect()
    scene.arrival.drain()
    assert scene.transport.state == "closing"
    assert isinstance(scene.arrival, asyncio.BufferedProtocol)


@given(st.sampled_from([PREFACE + b"x", b"GET / HTTP/1.1\r\n", b"PRI"]), st.integers(0, 30))
@settings(deadline=None)
def test_a_client_that_starts_over_is_met_as_if_it_had_just_come(data: bytes, at: int) -> None:
    """With what it has said already; not before the turn of the loop has ended."""
    loop, listener, transport = FakeLoop(), Listener(), Transport()
    before = Connection(loop.as_loop)
    before.connection_made(cast("asyncio.Transport", transport))
    arrival = Arrival(loop.as_loop, listener, destination(), early=data[:at])
    arrival.take_over(before)
    assert before.transport is None
    assert transport.protocol is arrival
    assert listener.chosen == []
    if data[at:]:
        arrival.on_bytes(data[at:])
    loop.turn()
    if data == b"PRI":
        assert listener.chosen == []
        assert arrival.deadline == loop.now + HEAD_TIMEOUT
        return
    [(http2, successor)] = listener.chosen
    assert http2 is data.startswith(PREFACE)
    assert b"".join(call[1] for call in successor.heard if call[0] == "on_bytes") == data


def test_a_client_that_has_gone_does_not_start_over() -> None:
    """Nothing to take over, nothing to say."""
    loop, listener = FakeLoop(), Listener()
    arrival = Arrival(loop.as_loop, listener, destination(), early=b"GET")
    arrival.take_over(Connection(loop.as_loop))
    loop.turn()
    assert listener.chosen == []
