"""A shared connection to an endpoint: many attempts at once, against a server of another library."""

import ssl
from typing import Any

import pytest

from meshproxy.flow import HIGH_WATER
from meshproxy.message import CHUNKED, RequestHead, ResponseHead, field
from meshproxy.upstream.http1 import DISCARD_LIMIT, DISCARD_TIME
from meshproxy.upstream.http2 import PINGS, Http2Connection, Http2Stream
from tests.helpers.http2 import Heard, Wire, of
from tests.helpers.recorder import Recorder
from tests.helpers.transport import FakeLoop, arrive, connected

OK = [(":status", "200"), ("content-length", "2")]


class FakeExchange(Recorder):
    """Says its request as soon as it has a stream, and remembers how the answer failed."""

    def __init__(self, head: RequestHead) -> None:
        super().__init__()
        self.head = head
        self.failure: tuple[str, bool] | None = None
        self.stream: Http2Stream

    def on_upstream_ready(self, upstream: Http2Stream) -> None:
        self.stream = upstream
        upstream.send_head(self.head)
        if self.head.length is None:
            upstream.send_end(None)

    def on_response_reset(self, code: str, *, reused: bool) -> None:
        self.failure = (code, reused)


class Pool(Recorder):
    """A pool in which nobody waits, unless the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Any] = []


class Scene:
    """One connection, its server, and its pool's place, taken by a recorder."""

    def __init__(self, *, to_sidecar: bool = False, greeted: bool = True, **settings: int) -> None:
        self.loop = FakeLoop()
        self.pool = Pool()
        self.connection = Http2Connection(self.loop.as_loop, self.pool, to_sidecar=to_sidecar)
        self.transport = connected(self.connection)
        self.server = Wire()
        self._read = 0
        if greeted:
            self.arrive(self.server.settings(**settings) + self.server.settings_ack())
        self.hear()

    def lend(
        self, method: bytes = b"GET", length: int | None = None, fields: Any = ()
    ) -> FakeExchange:
        exchange = FakeExchange(RequestHead(method, b"catalog", b"/", list(fields), length))
        self.connection.lend(exchange)
        return exchange

    def arrive(self, data: bytes) -> None:
        arrive(self.connection, data)

    def hear(self) -> list[Heard]:
        """Return the frames that have left since last time, this turn's included."""
        self.loop.turn()
        self.loop.turn()
        new = self.transport.sent[self._read :]
        self._read = len(self.transport.sent)
        return self.server.hear(new)

    def answer(self, stream: int) -> None:
        self.arrive(
            self.server.headers(stream, OK, end=False) + self.server.data(stream, b"ok", end=True)
        )


def test_many_at_once() -> None:
    """Each exchange hears its own answer, whatever the order; no connection is given back."""
    scene = Scene()
    exchanges = [scene.lend() for _ in range(3)]
    heard = of(scene.hear(), "Headers")
    assert [(h.stream, h.ended) for h in heard] == [(1, True), (3, True), (5, True)]
    assert heard[0].headers == [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "catalog"),
        ("te", "trailers"),
    ]
    for number in (5, 1, 3):
        scene.answer(number)
    for exchange in exchanges:
        assert exchange.words == ["on_response_head", "on_response_data", "on_response_end"]
    assert (scene.connection.served, scene.connection.idle) == (3, True)
    assert scene.pool.words == []
    assert repr(scene.connection) == "<Http2Connection open, 0 streams, served 3>"


@pytest.mark.parametrize("greeted", [True, False])
def test_requests_wait_for_others(greeted: bool) -> None:
    """
    What many clients say leaves together; but not before the server has said how much it takes.

    What waits above its limit would wait until other streams end, which they may never do.
    """
    scene = Scene(greeted=greeted)
    before = scene.transport.writes
    scene.lend(length=3)
    scene.loop.turn()
    assert scene.transport.writes == before + (not greeted)
    scene.loop.turn()
    assert scene.transport.writes == before + 1


def test_bodies_and_trailers_both_ways() -> None:
    """A body that is announced as chunked has no length in HTTP/2."""
    scene = Scene()
    exchange = scene.lend(b"POST", CHUNKED)
    exchange.stream.send_data(b"abc")
    exchange.stream.send_end([field(b"X-Sum", b"3")])
    heard = scene.hear()
    assert [h.kind for h in heard] == ["Headers", "Data", "Headers"]
    assert heard[2].headers == [("x-sum", "3")]
    assert heard[2].ended
    server = scene.server
    scene.arrive(server.headers(1, [(":status", "103"), ("link", "x")], end=False))
    scene.arrive(server.headers(1, [(":status", "200")], end=False) + server.data(1, b"defg"))
    scene.arrive(server.headers(1, [("grpc-status", "0")]))
    assert exchange.words == [
        "on_response_informational",
        "on_response_head",
        "on_response_data",
        "on_response_end",
    ]
    assert exchange.heard[-1] == ("on_response_end", [field(b"Grpc-Status", b"0")])


@pytest.mark.parametrize(
    ("say", "failure"),
    [
        (lambda server: server.reset(1, 7), "stream-refused"),
        (lambda server: server.goaway(0), "stream-refused"),
        (lambda server: server.reset(1, 8), "upstream-reset"),
        (lambda server: server.reset(1, 2), "upstream-reset"),
        (lambda server: server.headers(1, [(":status", "99")]), "upstream-protocol-error"),
        (lambda server: server.headers(1, [("a", "b")]), "upstream-protocol-error"),
        (
            lambda server: server.headers(1, OK, end=False) + server.data(1, b"x", end=True),
            "upstream-protocol-error",
        ),
        (
            lambda server: server.headers(1, OK, end=False) + server.reset(1, 7),
            "upstream-reset",
        ),
    ],
)
def test_how_an_attempt_fails(say: Any, failure: str) -> None:
    """Only what was refused unread may be sent again by any method."""
    scene = Scene()
    exchange = scene.lend(b"POST", 0)
    scene.hear()
    scene.arrive(say(scene.server))
    scene.hear()
    assert exchange.failure == (failure, False)
    assert scene.transport.state == ("closing" if failure == "nothing" else scene.transport.state)


@pytest.mark.parametrize("nonsense", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 100])
def test_an_endpoint_that_speaks_no_http2(nonsense: bytes) -> None:
    """Each attempt fails with that, and it is no connection that was only on its way out."""
    scene = Scene()
    scene.lend()
    scene.hear()
    scene.answer(1)
    waiting = scene.lend()
    scene.hear()
    scene.arrive(nonsense)
    scene.hear()
    assert scene.transport.state == "closing"
    scene.connection.connection_lost(None)
    assert waiting.failure == ("upstream-protocol-error", False)


def test_a_lost_connection_fails_every_attempt() -> None:
    """`reused` where the connection had served before and nothing of this answer had come."""
    scene = Scene()
    first = scene.lend()
    scene.hear()
    scene.answer(1)
    waiting, heard = scene.lend(), scene.lend()
    scene.hear()
    scene.arrive(scene.server.headers(5, OK, end=False))
    scene.connection.connection_lost(None)
    assert first.failure is None
    assert waiting.failure == ("upstream-closed", True)
    assert heard.failure == ("upstream-closed", False)
    assert scene.pool.words[-1] == "lost"
    assert not scene.connection.usable
    assert scene.connection.room == 0


@pytest.mark.parametrize("say", [lambda s: s.reset(3, 2), lambda s: s.headers(3, [("a", "b")])])
def test_a_reset_is_no_connection_that_was_closed_meanwhile(say: Any) -> None:
    """The endpoint has looked at the request: on a connection that has served before, too."""
    scene = Scene()
    scene.lend()
    scene.hear()
    scene.answer(1)
    exchange = scene.lend()
    scene.hear()
    scene.arrive(say(scene.server))
    scene.hear()
    assert exchange.failure is not None
    assert exchange.failure[1] is False


def test_a_server_that_does_not_believe_us() -> None:
    """With TLS 1.3 its judgement comes after the handshake."""
    loop, pool = FakeLoop(), Pool()
    connection = Http2Connection(loop.as_loop, pool)
    connected(connection)
    exchange = FakeExchange(RequestHead(b"GET", b"a", b"/", []))
    connection.lend(exchange)
    error = ssl.SSLError(1, "x")
    error.reason = "TLSV1_ALERT_UNKNOWN_CA"
    connection.connection_lost(error)
    assert exchange.failure == ("handshake-failed", False)


def test_going_away() -> None:
    """No new requests; those under way are answered; then it closes."""
    scene = Scene()
    exchange = scene.lend()
    scene.hear()
    scene.arrive(scene.server.goaway(2**31 - 1))
    assert scene.pool.words == ["leaving"]
    assert not scene.connection.usable
    scene.arrive(scene.server.goaway(1))
    scene.answer(1)
    assert exchange.words[-1] == "on_response_end"
    scene.hear()
    assert scene.transport.state == "closing"


def test_retiring() -> None:
    """Nobody needs it any more: it ends what runs, says goodbye and closes."""
    scene = Scene()
    scene.lend()
    scene.hear()
    scene.connection.retire()
    assert scene.hear() == []
    scene.answer(1)
    assert of(scene.hear(), "GoAway")
    assert scene.transport.state == "closing"


def test_who_gives_up_cancels_its_stream_only() -> None:
    """RST_STREAM(CANCEL); the neighbour's answer still comes."""
    scene = Scene()
    gone, stays = scene.lend(), scene.lend()
    scene.hear()
    gone.stream.reset()
    heard = scene.hear()
    assert [(h.kind, h.stream, h.frame.error_code) for h in heard] == [("RstStream", 1, 8)]
    scene.answer(1)  # it was on its way
    scene.answer(3)
    assert (gone.words, gone.failure) == ([], None)
    assert stays.words[-1] == "on_response_end"


def test_an_answer_before_the_request_has_ended() -> None:
    """The rest of the request is of no use: the stream is cancelled, the connection goes on."""
    scene = Scene()
    exchange = scene.lend(b"POST", CHUNKED)
    scene.hear()
    scene.answer(1)
    assert exchange.words[-1] == "on_response_end"
    assert [h.kind for h in scene.hear()] == ["RstStream"]
    exchange.stream.send_data(b"late")
    exchange.stream.send_end(None)
    assert scene.hear() == []
    assert scene.connection.usable


def test_a_server_that_does_not_read_blocks_its_stream_only() -> None:
    """Above the high-water mark the exchange is told, and again when the server has read."""
    scene = Scene(s4=1000)
    slow, quick = scene.lend(b"POST", CHUNKED), scene.lend(b"POST", CHUNKED)
    slow.stream.send_data(b"x" * (HIGH_WATER + 1))
    assert slow.stream.blocked
    assert slow.words == ["on_upstream_blocked"]
    quick.stream.send_data(b"y" * 500)
    assert len(of(scene.hear(), "Data", 3)) == 1
    server = scene.server
    scene.arrive(server.window(1, HIGH_WATER) + server.window(0, HIGH_WATER))
    scene.hear()
    assert slow.words == ["on_upstream_blocked", "on_upstream_writable"]
    assert quick.words == []


def test_a_client_that_does_not_read_stops_this_stream_only() -> None:
    """A paused response is not credited until it goes on, or is given up."""
    scene = Scene()
    slow, quick = scene.lend(), scene.lend()
    scene.hear()
    slow.stream.pause_response()
    server = scene.server
    for number in (1, 3):
        scene.arrive(server.headers(number, [(":status", "200")], end=False))
        for _ in range(40):
            scene.arrive(server.data(number, b"x" * 16384))
    heard = scene.hear()
    assert not of(heard, "WindowUpdate", 1)
    assert of(heard, "WindowUpdate", 3)
    assert len(quick.words) == 41
    slow.stream.resume_response()
    assert of(scene.hear(), "WindowUpdate", 1)
    slow.stream.pause_response()
    scene.arrive(server.data(1, b"x" * 1000))
    slow.stream.reset()
    assert scene.connection.session.held == 0


def test_a_head_that_is_too_large_is_not_sent() -> None:
    """The connection, and everybody on it, would pay for it."""
    scene = Scene(s6=1000)
    exchange = scene.lend(b"POST", CHUNKED, [field(b"x", b"y" * 1000)])
    exchange.stream.send_data(b"abc")
    exchange.stream.send_end(None)
    said = [exchange.failure]  # nothing yet: the exchange is still speaking
    assert scene.hear() == []
    assert said == [None]
    assert exchange.failure == ("fields-too-large", False)
    assert scene.connection.usable


def test_a_sidecar_that_has_vanished_is_given_up() -> None:
    """Silent, it is asked; without an answer to some pings the connection is cut."""
    scene = Scene(to_sidecar=True)
    scene.lend()
    scene.hear()
    scene.connection.sweep(0.0)
    assert scene.hear() == [], "it has just been heard"
    for _ in range(PINGS):
        scene.connection.sweep(0.0)
        assert len(of(scene.hear(), "Ping")) == 1
    assert scene.transport.state == "open"
    scene.connection.sweep(0.0)
    assert scene.transport.state == "aborted"


def test_a_sidecar_that_answers_pings_may_be_silent_otherwise() -> None:
    """A long poll takes as long as it takes."""
    scene = Scene(to_sidecar=True)
    scene.lend()
    scene.hear()
    for _ in range(5 * PINGS):
        scene.connection.sweep(0.0)
        for ping in of(scene.hear(), "Ping"):
            scene.arrive(scene.server.ping(ping.frame.opaque_data, ack=True))
    assert scene.transport.state == "open"


def test_plain_apps_are_not_asked() -> None:
    """gRPC servers disconnect clients that ping too often."""
    scene = Scene()
    for _ in range(5 * PINGS):
        scene.connection.sweep(0.0)
    assert scene.hear() == []
    assert scene.transport.state == "open"


# An answer that nobody wants ------------------------------------------------------------------------


class Unwilling(FakeExchange):
    """Wants nothing of an answer but its head."""

    def on_response_head(self, head: ResponseHead) -> None:
        self.heard.append(("on_response_head", head.status))
        self.stream.discard(head.length)


def unwanted(scene: Scene, length: int | None = None) -> Unwilling:
    exchange = Unwilling(RequestHead(b"GET", b"catalog", b"/", [], length))
    scene.connection.lend(exchange)
    scene.hear()
    return exchange


@pytest.mark.parametrize("announced", [True, False])
def test_a_short_answer_that_nobody_wants_ends_by_itself(announced: bool) -> None:
    """No reset, which peers count; and the window it took is given back."""
    scene = Scene()
    exchange = unwanted(scene)
    fields = [(":status", "503"), *([("content-length", "5")] if announced else [])]
    scene.arrive(scene.server.headers(1, fields, end=False))
    scene.arrive(scene.server.data(1, b"sorry", end=True))
    scene.loop.sleep(DISCARD_TIME)
    assert not of(scene.hear(), "RstStream")
    assert exchange.words == ["on_response_head"]
    assert scene.connection.idle
    assert scene.connection.served == 1


def test_an_answer_without_a_body_that_nobody_wants() -> None:
    """As gRPC's answers with a status alone."""
    scene = Scene()
    unwanted(scene)
    scene.arrive(scene.server.headers(1, [(":status", "503")], end=True))
    assert not of(scene.hear(), "RstStream")
    assert scene.connection.idle


@pytest.mark.parametrize("case", ["long", "slow", "early"])
def test_other_answers_that_nobody_wants_are_cancelled(case: str) -> None:
    """What is long, does not end soon, or came before the request had ended."""
    scene = Scene()
    unwanted(scene, 10 if case == "early" else None)
    length = DISCARD_LIMIT + 1 if case == "long" else 5
    fields = [(":status", "503"), ("content-length", str(length))]
    scene.arrive(scene.server.headers(1, fields, end=False))
    if case == "slow":
        assert not of(scene.hear(), "RstStream")
        scene.loop.sleep(DISCARD_TIME)
    assert [h.frame.error_code for h in of(scene.hear(), "RstStream")] == [8]
