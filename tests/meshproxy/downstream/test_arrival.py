"""A connection that has just been accepted: which protocol takes over, however the bytes come."""

import asyncio
import gc
import ssl
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshproxy.contract.resources import (
    ListenerSpec,
    TcpBackendSpec,
    TcpRouteSpec,
    TcpRuleSpec,
)
from meshproxy.downstream.arrival import PREFACE, Arrival
from meshproxy.downstream.destination import Destination
from meshproxy.downstream.http1 import FIRST_TIMEOUT, HEAD_TIMEOUT
from meshproxy.downstream.speculation import Speculation
from meshproxy.flow import Connection
from meshproxy.neighbours import Surroundings
from meshproxy.policies.deadline import NO_TIMEOUTS
from meshproxy.policies.first_speaker import DOUBT, GRACE, SILENCE
from meshproxy.policies.limits import Limit
from meshproxy.policies.retry import Retry
from meshproxy.policies.retry_budget import RetryBudget
from meshproxy.relay import Cluster as RelayCluster
from meshproxy.routing.table import Authorities
from meshproxy.routing.tcp import compile_tcp_route
from meshproxy.telemetry.metrics import Metrics
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


class Opaque(Recorder):
    """What goes on with an opaque connection."""

    def on_eof(self) -> bool:
        self.heard.append(("on_eof",))
        return True


class Listener:
    """Admits everybody unless told otherwise; its connections are recorders."""

    def __init__(self) -> None:
        self.admits = True
        self.chosen: list[tuple[bool, Recorder]] = []
        self.trunks: list[Recorder] = []
        self.lanes: list[Recorder] = []
        self.passed: list[tuple[str | None, Speculation | None, Opaque]] = []
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

    def lane(self, arrival: Arrival) -> Any:
        self.lanes.append(Recorder())
        return self.lanes[-1]

    def opaque(
        self, arrival: Arrival, server_name: str | None, speculation: Speculation | None
    ) -> Any:
        self.passed.append((server_name, speculation, Opaque()))
        if speculation is not None:
            speculation.adopt(self.passed[-1][2])
        return self.passed[-1][2]

    def closed(self, connection: Arrival) -> None:
        self.gone.append(connection)


def destination(**options: Any) -> Destination:
    """Return a place of a listener that leads nowhere."""
    spec = ListenerSpec(name="a", direction="outbound", address="127.0.0.1", port=80, **options)
    surroundings: Any = FakeEnvironment()
    return Destination(surroundings, spec)


class FakeSurroundings(Surroundings):
    """A clock that stands still, and timers that are never due."""

    def __init__(self) -> None:
        self.now = lambda: 0.0
        self.random = lambda: 0.5
        self.timers: Any = Recorder()

    def refused(self, direction: str, code: str) -> None:
        """Nobody asks here."""


class FakeEnvironment(Recorder):
    surroundings = FakeSurroundings()
    workload = "default/storefront"
    identity = "spiffe://test.mesh/ns/default/sa/storefront"
    metrics = Metrics()


class FakeEndpoint(Recorder):
    active = 0

    def judge(self, *how: object) -> None:
        """Nobody asks here."""


class FakeCluster:
    """One endpoint, which answers when the test says so."""

    service = "default/broker"

    def __init__(self) -> None:
        self.endpoint = FakeEndpoint()
        self.connections = Limit("connections")
        self.timeouts = NO_TIMEOUTS
        self.hash_key = None
        self.retry, self.budget = Retry(), RetryBudget()

    def pick(self, avoid: object, key: int | None) -> Any:
        return self.endpoint

    def admits(self, limit: Limit) -> bool:
        return not limit.full

    def refusal(self, limit: Limit) -> Any:
        return "overflow", "", []


def place_of(*names: str, protocol: Any = "detect") -> tuple[Destination, FakeCluster]:
    """Return a place that takes opaque connections, and where they go."""
    cluster = FakeCluster()
    rule = TcpRuleSpec(name="all", server_names=names, backends=(TcpBackendSpec(cluster="broker"),))
    place = destination(protocol=protocol)
    spec = ListenerSpec(
        name="a", direction="outbound", address="127.0.0.1", port=80, protocol=protocol
    )
    clusters: dict[str, RelayCluster] = {"broker": cluster}
    route = compile_tcp_route(TcpRouteSpec(name="r", rules=(rule,)), clusters)
    place.obey(spec, None, Authorities([]), route)
    return place, cluster


class Loop(FakeLoop):
    """With timers that strike when the test says so."""

    def strike(self) -> None:
        for timer in self.timers:
            if not timer.cancelled:
                timer.cancelled = True
                timer.callback()


class Scene:
    def __init__(
        self, agreed: str | None = None, *, tls: bool = False, place: Destination | None = None
    ) -> None:
        self.loop = Loop()
        self.listener = Listener()
        self.destination = place or destination()
        self.arrival = Arrival(self.loop.as_loop, self.listener, self.destination, tls=tls)
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


def test_so_are_lanes() -> None:
    """A connection that carries one opaque one is neither."""
    scene = Scene("mesh-lane", tls=True)
    scene.connect()
    assert (scene.listener.chosen, scene.listener.trunks) == ([], [])
    [successor] = scene.listener.lanes
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


# What has to be guessed ---------------------------------------------------------------------------

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def guessing(*names: str, protocol: Any = "detect") -> tuple[Scene, FakeCluster]:
    place, cluster = place_of(*names, protocol=protocol)
    scene = Scene(place=place)
    scene.connect()
    return scene, cluster


@given(st.lists(st.integers(1, 40), max_size=6), st.sampled_from([GET, PREFACE, b"\0\1 anything", b"PING\r\n"]))  # fmt: skip
def test_bytes_are_told_from_requests(cuts: list[int], said: bytes) -> None:
    """For any split; whoever goes on reads all of it, and nothing was dialled."""
    scene, cluster = guessing()
    whole = said + b" and more"
    successor: Any = scene.arrival
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(whole)], strict=True):
        if whole[start:end]:
            successor.on_bytes(whole[start:end])
        if scene.transport.protocol is not None:
            successor = scene.transport.protocol
    if said in (GET, PREFACE):
        [(http2, heard)] = scene.listener.chosen
        assert http2 == (said == PREFACE)
    else:
        [(name, speculation, heard)] = scene.listener.passed
        assert (name, speculation) == (None, None)
    assert b"".join(call[1] for call in heard.heard if call[0] == "on_bytes") == whole
    assert cluster.endpoint.words == []
    assert all(timer.cancelled for timer in scene.loop.timers)


def test_a_name_is_read_where_a_route_asks_for_it() -> None:
    """Not before the ClientHello is complete; without such a route TLS is just bytes."""
    said = client_hello("a.b")
    scene, _ = guessing("a.b", protocol="tcp")
    scene.say(said[:100])
    assert scene.listener.passed == []
    scene.say(said[100:])
    assert [name for name, *_ in scene.listener.passed] == ["a.b"]

    scene, _ = guessing()
    scene.say(said[:100])
    assert [name for name, *_ in scene.listener.passed] == [None]


def client_hello(name: str) -> bytes:
    outgoing = ssl.MemoryBIO()
    context = ssl.create_default_context()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def test_a_silent_clients_endpoint_is_dialled() -> None:
    """After a moment; when the server speaks the connection is its own, and remembered as such."""
    scene, cluster = guessing()
    assert [timer.seconds for timer in scene.loop.timers] == [GRACE]
    scene.loop.strike()
    [(_, relay)] = cluster.endpoint.heard
    relay.on_upstream_ready(Recorder())
    relay.on_upstream_connected()
    relay.on_upstream_data(memoryview(b"220 mail"))
    [(_, speculation, heard)] = scene.listener.passed
    assert speculation is not None
    assert ("send_data", b"220 mail") in heard.heard
    assert scene.destination.first_speaker.patience(scene.loop.now) == 0.0

    again = Scene(place=scene.destination)
    again.connect()
    assert len(cluster.endpoint.heard) == 2, "dialled at once"


def test_http_after_all() -> None:
    """The relay is withdrawn; the server's silence is remembered, and nothing dialled any more."""
    scene, cluster = guessing()
    scene.loop.strike()
    [(_, relay)] = cluster.endpoint.heard
    upstream = Recorder()
    relay.on_upstream_ready(upstream)
    relay.on_upstream_connected()
    scene.loop.now += SILENCE
    scene.say(GET)
    assert upstream.words == ["withdraw"]
    assert len(scene.listener.chosen) == 1

    again = Scene(place=scene.destination)
    again.connect()
    assert again.loop.timers == []


def test_bytes_after_all() -> None:
    """What was dialled ahead is used."""
    scene, cluster = guessing()
    scene.loop.strike()
    [(_, relay)] = cluster.endpoint.heard
    relay.on_upstream_ready(Recorder())
    scene.say(b"\0\1\2")
    [(_, speculation, heard)] = scene.listener.passed
    assert speculation is not None
    assert speculation.relay is relay
    assert ("on_bytes", b"\0\1\2") in heard.heard


def test_prompt_clients_make_others_wait_longer() -> None:
    """On a port where HTTP was spoken a silent client is given a second."""
    scene, _ = guessing()
    scene.say(GET)
    again = Scene(place=scene.destination)
    again.connect()
    assert [timer.seconds for timer in again.loop.timers] == [DOUBT]


def test_an_end_may_be_all_that_a_client_says() -> None:
    """On a port of bytes it is passed on; on one of HTTP it is nobody's connection."""
    scene, _ = guessing()
    assert scene.arrival.eof_received()
    [(*_, heard)] = scene.listener.passed
    assert heard.words == ["connection_made", "on_eof"]

    scene, _ = guessing()
    scene.destination.first_speaker.client_spoke_http(scene.loop.now)
    assert not scene.arrival.eof_received()
    assert scene.listener.passed == []


def test_silence_of_both_is_allowed_and_half_a_beginning_is_not() -> None:
    """
    Two ends of an opaque connection may be silent; half a method is HTTP in the end.

    Or whoever wants a request to pass all policies by says two letters of it and waits.
    """
    scene, cluster = guessing()
    scene.loop.strike()
    scene.arrival.expire()
    assert (scene.transport.state, scene.arrival.deadline) == ("open", float("inf"))
    scene.arrival.connection_lost(None)
    assert cluster.endpoint.words == ["connect", "disconnect"]

    scene, _ = guessing()
    scene.say(b"GE")
    assert scene.arrival.deadline == scene.loop.now + HEAD_TIMEOUT
    scene.arrival.expire()
    assert scene.listener.passed == []
    [(http2, heard)] = scene.listener.chosen
    assert (http2, heard.heard[-1]) == (False, ("on_bytes", b"GE"))

    scene, _ = guessing()
    scene.destination.first_speaker.server_spoke(scene.loop.now)
    scene.say(b"GE")
    scene.arrival.expire()
    assert len(scene.listener.passed) == 1

    scene, _ = guessing()
    scene.say(b"\x16\x03")  # no request begins like this
    scene.arrival.expire()
    assert len(scene.listener.passed) == 1


def test_where_a_name_is_needed_nothing_is_dialled_without() -> None:
    """A silent client leads nowhere yet."""
    scene, cluster = guessing("a.b")
    scene.loop.strike()
    assert cluster.endpoint.heard == []


@pytest.mark.parametrize("early", [b"", b"ahead"])
def test_starting_over_in_a_place_of_bytes(early: bytes) -> None:
    """Nothing has to be heard; what was said ahead is not lost."""
    loop, listener, transport = FakeLoop(), Listener(), Transport()
    before = Connection(loop.as_loop)
    before.connection_made(cast("asyncio.Transport", transport))
    place, _ = place_of(protocol="tcp")
    Arrival(loop.as_loop, listener, place, early=early).take_over(before)
    loop.turn()
    [(name, _, successor)] = listener.passed
    assert name is None
    assert [call[1] for call in successor.heard if call[0] == "on_bytes"] == [early] * bool(early)


def test_starting_over_waits_for_a_client_that_does_not_read() -> None:
    """
    Nothing more is read from it, and nothing is begun, until it has taken what was said.

    The transport tells once that it is full: whoever takes it over has to know.
    """
    loop, listener, transport = FakeLoop(), Listener(), Transport()
    before = Connection(loop.as_loop)
    before.connection_made(cast("asyncio.Transport", transport))
    before.pause_writing()
    arrival = Arrival(loop.as_loop, listener, place_of()[0], early=b"GET / HTTP/1.1\r\n")
    arrival.take_over(before)
    loop.turn()
    arrival.on_bytes(b"Host: a\r\n")  # had been read already
    assert (listener.chosen, transport.is_reading()) == ([], False)
    arrival.resume_writing()
    assert (len(listener.chosen), transport.is_reading()) == (1, True)

    # It may also become full just then.
    arrival = Arrival(loop.as_loop, listener, place_of()[0], early=b"GET / HTTP/1.1\r\n")
    before = Connection(loop.as_loop)
    before.connection_made(cast("asyncio.Transport", transport))
    arrival.take_over(before)
    arrival.pause_writing()
    loop.turn()
    assert (len(listener.chosen), transport.is_reading()) == (1, False)


def test_what_was_handed_over_is_not_kept() -> None:
    """
    A client may ask to start over thousands of times in one read.

    Each arrival would keep the rest of it until the cycle collector comes by.
    """
    scene, _ = guessing()
    scene.say(b"GET / HTTP/1.1\r\n")
    [(_, heard)] = scene.listener.chosen
    assert heard.heard[-1] == ("on_bytes", b"GET / HTTP/1.1\r\n")
    assert not any(isinstance(kept, bytes) and kept for kept in gc.get_referents(scene.arrival))
