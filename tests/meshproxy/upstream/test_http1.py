"""A connection to an endpoint: lent, used, given back or thrown away."""

import ssl

import pytest

from meshproxy.codec.upgrade import websocket_accept
from meshproxy.exchange import Exchange
from meshproxy.message import CHUNKED, TUNNEL, Field, RequestHead, ResponseHead, field
from meshproxy.upstream.http1 import DISCARD_LIMIT, DISCARD_TIME, Http1Connection
from meshproxy.upstream.tunnel import EndpointTunnel
from tests.helpers.recorder import Recorder
from tests.helpers.transport import FakeLoop, arrive, connected

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class FakeExchange(Recorder):
    """Says its request as soon as it has a connection, and remembers how the answer failed."""

    def __init__(self, method: bytes = b"GET", length: int | None = None) -> None:
        super().__init__()
        self.head = RequestHead(method, b"catalog", b"/", [], length)
        self.failure: tuple[str, bool] | None = None
        self.tunnel: EndpointTunnel | None = None

    def on_upstream_switched(self, upstream: EndpointTunnel) -> None:
        self.tunnel = upstream

    def on_upstream_ready(self, upstream: Http1Connection) -> None:
        upstream.send_head(self.head)
        if self.head.length is None:
            upstream.send_end(None)

    def on_response_reset(self, code: str, *, reused: bool) -> None:
        self.failure = (code, reused)


class Scene:
    """One connection and its pool's place, taken by a recorder."""

    def __init__(self) -> None:
        self.loop = FakeLoop()
        self.pool = Recorder()
        self.connection = Http1Connection(self.loop.as_loop, self.pool)
        self.transport = connected(self.connection)

    def lend(self, method: bytes = b"GET", length: int | None = None) -> FakeExchange:
        exchange = FakeExchange(method, length)
        self.connection.lend(exchange)
        self.loop.turn()
        return exchange

    def arrive(self, data: bytes) -> None:
        arrive(self.connection, data)

    @property
    def given_back(self) -> int:
        return self.pool.words.count("idle")


def test_one_after_the_other() -> None:
    """Each exchange hears its own answer, and in between the connection is at rest."""
    scene = Scene()
    for number in range(1, 3):
        exchange = scene.lend()
        scene.arrive(OK)
        assert exchange.words == ["on_response_head", "on_response_data", "on_response_end"]
        assert (scene.given_back, scene.connection.served) == (number, number)
    assert scene.transport.sent == b"GET / HTTP/1.1\r\nHost: catalog\r\n\r\n" * 2
    assert scene.transport.state == "open"


def test_a_body_of_unknown_length_goes_out_in_chunks() -> None:
    """With its trailers behind the last one."""
    scene = Scene()
    scene.lend(b"POST", CHUNKED)
    scene.connection.send_data(b"x" * 16)
    scene.connection.send_end([field(b"x-sum", b"1")])
    scene.loop.turn()

    body = scene.transport.sent.partition(b"\r\n\r\n")[2]
    assert body == b"10\r\n" + b"x" * 16 + b"\r\n0\r\nx-sum: 1\r\n\r\n"


def test_a_connection_that_has_heard_trailers_is_not_lent_again() -> None:
    """A server may take them for part of the next request, which would be another client's."""
    scene = Scene()
    exchange = scene.lend(b"POST", CHUNKED)
    scene.connection.send_end([field(b"x-sum", b"1")])
    scene.arrive(OK)

    assert exchange.words[-1] == "on_response_end"
    assert (scene.given_back, scene.connection.usable) == (0, False)


def test_informational_heads_pass() -> None:
    """They precede the answer and are none."""
    scene = Scene()
    exchange = scene.lend()
    scene.arrive(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK)

    assert exchange.words[:2] == ["on_response_informational", "on_response_head"]


@pytest.mark.parametrize("extra", [b"X", OK, b"\r\n"])
def test_bytes_behind_the_answer_end_the_connection(extra: bytes) -> None:
    """They would be taken for the answer to somebody else's request (RFC 9112 section 9.2)."""
    scene = Scene()
    exchange = scene.lend()
    scene.arrive(OK + extra)
    assert exchange.words[-1] == "on_response_end"
    assert (scene.given_back, scene.connection.usable) == (0, False)

    scene = Scene()
    scene.lend()
    scene.arrive(OK)
    scene.arrive(extra)
    assert not scene.connection.usable


def test_an_early_answer_ends_the_connection() -> None:
    """The request is not complete, and the server may never read the rest: cut, not closed."""
    scene = Scene()
    exchange = scene.lend(b"PUT", 1_000_000)
    scene.connection.send_data(b"x" * 100_000)
    scene.arrive(OK)

    assert exchange.words[-1] == "on_response_end"
    assert (scene.given_back, scene.transport.state) == (0, "aborted")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ],
)
def test_a_server_that_closes_is_believed(answer: bytes) -> None:
    """The connection is not lent again."""
    scene = Scene()
    scene.lend()
    scene.arrive(answer)

    assert (scene.given_back, scene.transport.state) == (0, "closing")


def test_a_body_until_close_ends_with_the_connection() -> None:
    """And is complete, where a body with a length is not."""
    scene = Scene()
    exchange = scene.lend()
    scene.arrive(b"HTTP/1.1 200 OK\r\n\r\nall")
    assert scene.connection.eof_received() is False
    assert exchange.words[-1] == "on_response_end"
    scene.connection.connection_lost(None)
    assert (scene.given_back, exchange.failure) == (0, None)

    scene = Scene()
    exchange = scene.lend()
    scene.arrive(OK[:-1])
    scene.connection.eof_received()
    assert exchange.failure == ("upstream-closed", False)


@pytest.mark.parametrize(
    ("before", "some", "reused"), [(0, b"", False), (1, b"", True), (1, b"H", False)]
)
def test_only_a_reused_connection_without_a_byte_is_a_stale_one(
    before: int, some: bytes, reused: bool
) -> None:
    """The exchange learns whether the request may have been the victim of an idle close."""
    scene = Scene()
    for _ in range(before):
        scene.lend()
        scene.arrive(OK)
    exchange = scene.lend()
    if some:
        scene.arrive(some)
    scene.connection.connection_lost(ConnectionResetError())

    assert exchange.failure == ("upstream-closed", reused)
    assert scene.pool.words[-1] == "lost"


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\nsecret",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 33,
    ],
)
def test_an_answer_that_is_no_http_fails_the_attempt(answer: bytes) -> None:
    """And the connection, of which nobody knows where it stands; also a switch nobody asked for."""
    scene = Scene()
    exchange = scene.lend()
    scene.arrive(answer)

    assert exchange.failure == ("upstream-protocol-error", False)
    assert "on_response_head" not in exchange.words
    assert scene.transport.state == "aborted"


def _alert(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("TLSV1_ALERT_UNKNOWN_CA", "handshake-failed"),
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "handshake-failed"),
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", "handshake-failed"),
        ("SSLV3_ALERT_BAD_RECORD_MAC", "upstream-closed"),
        ("DECRYPTION_FAILED_OR_BAD_RECORD_MAC", "upstream-closed"),
        ("CERTIFICATE_VERIFY_FAILED", "upstream-closed"),
    ],
)
def test_only_a_certificate_alert_proves_that_nothing_was_executed(reason: str, code: str) -> None:
    """A tampered record may have been the answer: whoever can tamper must not cause a repetition."""
    scene = Scene()
    exchange = scene.lend()
    scene.connection.connection_lost(_alert(reason))
    assert exchange.failure == (code, False)

    scene = Scene()
    scene.lend()
    scene.arrive(OK)
    exchange = scene.lend()
    scene.connection.connection_lost(_alert(reason))
    assert exchange.failure == ("upstream-closed", True)


def test_an_exchange_that_leaves_takes_the_connection_with_it() -> None:
    """What still arrives reaches nobody."""
    scene = Scene()
    exchange = scene.lend()
    scene.connection.reset()
    scene.arrive(OK)
    scene.connection.connection_lost(None)

    assert (exchange.heard, exchange.failure) == ([], None)
    assert scene.given_back == 0


def test_a_paused_connection_is_resumed_before_the_next_exchange() -> None:
    """The slow client of one exchange must not stop the answer to another."""
    scene = Scene()
    scene.lend()
    scene.connection.pause_response()
    assert not scene.transport.is_reading()
    scene.arrive(OK)  # what TLS had decrypted already

    assert scene.transport.is_reading()
    assert scene.given_back == 1


def test_slow_sides_are_passed_on() -> None:
    """A full transport stops the request; with nobody there, nobody is told."""
    scene = Scene()
    scene.connection.pause_writing()
    exchange = scene.lend(b"PUT", 10)
    scene.connection.resume_writing()
    scene.connection.pause_writing()

    assert exchange.words == ["on_upstream_writable", "on_upstream_blocked"]


def test_the_recorder_stands_in_for_an_exchange() -> None:
    """Every word that the connection says is one that an exchange has."""
    said = {"on_response_informational", "on_response_head", "on_response_data", "on_response_end",
            "on_response_reset", "on_upstream_ready", "on_upstream_blocked", "on_upstream_writable"}  # fmt: skip
    assert said <= set(dir(Exchange))


# Switching protocols ------------------------------------------------------------------------------

SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %b\r\n%b\r\n"


class Switching(Scene):
    """A connection that was asked to switch."""

    def __init__(
        self, upgrade: bytes | None = b"own", *fields: Field, method: bytes = b"GET"
    ) -> None:
        super().__init__()
        self.exchange = FakeExchange(method, TUNNEL)
        self.exchange.head.upgrade = upgrade
        self.exchange.head.fields = list(fields)
        self.connection.lend(self.exchange)
        self.loop.turn()


def test_the_request_says_what_it_wants() -> None:
    """Upgrade is of one connection, so it is made anew."""
    scene = Switching(b"own/1, other")
    assert scene.transport.sent == (
        b"GET / HTTP/1.1\r\nHost: catalog\r\nConnection: Upgrade\r\nUpgrade: own/1, other\r\n\r\n"
    )


def test_after_the_switch_the_connection_is_a_tunnel() -> None:
    """Also for what came with the 101; it never goes back to the pool."""
    scene = Switching()
    scene.arrive(SWITCHED % (b"own", b"") + b"first")
    exchange, tunnel = scene.exchange, scene.exchange.tunnel
    assert tunnel is not None
    assert exchange.words == ["on_response_head", "on_response_data"]
    assert exchange.heard[1] == ("on_response_data", b"first")
    assert scene.pool.heard == [("switched", scene.connection, tunnel)]
    assert scene.transport.protocol is tunnel
    tunnel.send_data(b"x")
    scene.loop.turn()
    assert scene.transport.sent.endswith(b"\r\n\r\nx")
    assert not scene.connection.usable


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (b"own", b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
        (b"own", SWITCHED % (b"other", b"")),
        (b"own", SWITCHED % (b"own, h2c", b"")),
        (b"websocket", SWITCHED % (b"websocket", b"Sec-WebSocket-Accept: wrong\r\n")),
        (b"websocket", SWITCHED % (b"websocket", b"")),
        (None, SWITCHED % (b"own", b"")),
    ],
)
def test_a_switch_to_something_else_fails_the_attempt(asked: bytes | None, answer: bytes) -> None:
    """RFC 9110 section 7.8; and not a byte behind it is passed on."""
    scene = Switching(asked, method=b"GET" if asked else b"CONNECT")
    scene.arrive(answer + b"secret")
    assert scene.exchange.failure == ("upstream-protocol-error", False)
    assert scene.exchange.words == []
    assert scene.transport.state == "aborted"


def test_a_tunnel_may_be_declined() -> None:
    """Then the connection goes on as HTTP, once the exchange has said that this was the request."""
    scene = Switching()
    scene.arrive(b"HTTP/1.1 200 OK\r\nUpgrade: own\r\nContent-Length: 2\r\n\r\n")
    scene.connection.send_end(None)
    scene.arrive(b"ok")
    assert scene.exchange.words == ["on_response_head", "on_response_data", "on_response_end"]
    assert scene.given_back == 1
    assert scene.lend().words == []
    assert scene.transport.state == "open"


def test_any_2xx_to_connect_opens_a_tunnel() -> None:
    """It has no Upgrade."""
    scene = Switching(None, method=b"CONNECT")
    scene.arrive(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert scene.exchange.words == ["on_response_head", "on_response_data"]
    assert scene.exchange.tunnel is not None


def test_a_websocket_from_http2_gets_a_key() -> None:
    """And what proves that the endpoint has read it stays here: nobody else has asked."""
    scene = Switching(b"websocket")
    [key] = [
        line.partition(b": ")[2]
        for line in scene.transport.sent.split(b"\r\n")
        if line.startswith(b"Sec-WebSocket-Key: ")
    ]
    proof = b"Sec-WebSocket-Accept: " + websocket_accept(key) + b"\r\nX-Own: a\r\n"
    scene.arrive(SWITCHED % (b"websocket", proof))
    assert [f[0] for f in scene.exchange.heard[0][1].fields] == [b"x-own"]
    assert scene.exchange.head.fields == []


def test_a_websocket_with_a_key_keeps_it() -> None:
    """The client proves the endpoint by itself; so does the next one on the same connection."""
    key = field(b"Sec-WebSocket-Key", b"theirs")
    scene = Switching(b"websocket")
    scene.arrive(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    scene.connection.send_end(None)
    scene = Switching(b"websocket", key)
    assert scene.transport.sent.count(b"Sec-WebSocket-Key") == 1
    scene.arrive(SWITCHED % (b"websocket", b"Sec-WebSocket-Accept: proof\r\n"))
    assert [f[:2] for f in scene.exchange.heard[0][1].fields] == [
        (b"sec-websocket-accept", b"proof")
    ]


# An answer that nobody wants ------------------------------------------------------------------------

HEAD = b"HTTP/1.1 503 No\r\nContent-Length: %d\r\n\r\n"


class Unwilling(FakeExchange):
    """Wants nothing of an answer but its head."""

    connection: Http1Connection

    def on_response_head(self, head: ResponseHead) -> None:
        self.heard.append(("on_response_head", head.status))
        self.connection.discard(head.length)


def unwanted(scene: Scene, method: bytes = b"GET", length: int | None = None) -> Unwilling:
    """Lend the connection to an exchange that will discard the answer."""
    exchange = Unwilling(method, length)
    exchange.connection = scene.connection
    scene.connection.lend(exchange)
    scene.loop.turn()
    return exchange


@pytest.mark.parametrize("pieces", [1, 5])
def test_a_short_answer_that_nobody_wants_is_read_to_its_end(pieces: int) -> None:
    """Then the connection is as good as new, and stays so."""
    scene = Scene()
    exchange = unwanted(scene)
    answer = HEAD % 5 + b"sorry"
    size = len(answer) // pieces + 1
    for start in range(0, len(answer), size):
        scene.arrive(answer[start : start + size])
    assert exchange.words == ["on_response_head"]
    assert scene.given_back == 1
    scene.loop.sleep(DISCARD_TIME)
    assert scene.transport.state == "open"
    again = scene.lend()
    scene.arrive(OK)
    assert again.words[-1] == "on_response_end"


@pytest.mark.parametrize(
    ("announced", "said"),
    [
        (HEAD % (DISCARD_LIMIT + 1), b""),
        (
            b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"8000\r\n" + b"x" * 0x8000 + b"\r\n",
        ),
    ],
)
def test_a_long_answer_that_nobody_wants_costs_its_connection(
    announced: bytes, said: bytes
) -> None:
    """To read it would cost more than to dial."""
    scene = Scene()
    unwanted(scene)
    scene.arrive(announced)
    for _ in range(3 if said else 0):
        scene.arrive(said)
    assert scene.transport.state == "aborted"
    assert scene.given_back == 0


def test_an_answer_that_nobody_wants_must_end_soon() -> None:
    """Or the connection would be held for ever."""
    scene = Scene()
    unwanted(scene)
    scene.arrive(HEAD % 5 + b"sor")
    scene.loop.sleep(DISCARD_TIME)
    assert scene.transport.state == "aborted"


def test_an_answer_that_nobody_wants_before_the_request_has_ended() -> None:
    """The server may never read the rest: the connection ends."""
    scene = Scene()
    unwanted(scene, b"PUT", 10)
    scene.arrive(HEAD % 5 + b"sorry")
    assert scene.transport.state == "aborted"
    assert scene.given_back == 0
