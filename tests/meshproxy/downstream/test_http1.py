"""A client's connection: from bytes to exchanges and back, with nothing real around it."""

import errno
import struct
from math import inf

import pytest

from meshproxy.downstream.http1 import (
    BODY_TIMEOUT,
    CLOSE_TIMEOUT,
    DISCARD_LIMIT,
    FIRST_TIMEOUT,
    HALF_CLOSED_TIMEOUT,
    HEAD_TIMEOUT,
    HELD_LIMIT,
    IDLE_TIMEOUT,
    LINGER_TIMEOUT,
    Http1Connection,
)
from meshproxy.downstream.tunnel import ClientTunnel
from meshproxy.flow import Connection
from meshproxy.message import CHUNKED, TUNNEL, RequestHead, ResponseHead, field
from tests.helpers.recorder import Recorder
from tests.helpers.transport import FakeLoop, FakeSocket, arrive, connected

GET = b"GET /%d HTTP/1.1\r\nHost: catalog\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: catalog\r\nContent-Length: %d\r\n\r\n"


class FakeListener:
    """Owns the connection; writes down what it is told."""

    def __init__(self) -> None:
        self.draining = False
        self.half_closing = False
        self.hop = "outbound of default/storefront"
        self.gone: list[Http1Connection | ClientTunnel] = []
        self.tunnels: list[ClientTunnel] = []
        self.again: list[bytes] = []
        self.refused: list[str] = []

    def started_over(self, connection: Connection, authority: bytes, early: bytes) -> None:
        self.again.append(early)

    def closed(self, connection: Http1Connection | ClientTunnel) -> None:
        self.gone.append(connection)

    def switched(self, connection: Connection, tunnel: ClientTunnel) -> None:
        self.tunnels.append(tunnel)

    def malformed(self, code: str) -> None:
        self.refused.append(code)


class Scene:
    """One connection, its transport, and the exchanges that were begun on it."""

    def __init__(
        self, *, tls: bool = False, at_once: bool = False, half_closing: bool = False
    ) -> None:
        self.loop = FakeLoop()
        self.listener = FakeListener()
        self.listener.half_closing = half_closing
        self.exchanges: list[Recorder] = []
        self.at_once = at_once
        self.connection = Http1Connection(self.loop.as_loop, self.listener, self._begin)
        self.transport = connected(self.connection, tls=tls)

    def _begin(self, connection: Http1Connection) -> "Recorder":
        exchange = Impatient(connection) if self.at_once else Recorder()
        self.exchanges.append(exchange)
        return exchange

    def arrive(self, data: bytes) -> None:
        arrive(self.connection, data)

    def answer(self, status: int = 200, body: bytes = b"ok") -> None:
        """Answer the request under way."""
        self.connection.send_head(ResponseHead(status, [], length=len(body)))
        self.connection.send_data(body)
        self.connection.send_end(None)

    @property
    def sent(self) -> bytes:
        """What has left, this turn included."""
        self.loop.turn()
        return self.transport.sent

    @property
    def patience(self) -> float:
        """Seconds until the sweep would end the wait."""
        return self.connection.deadline - self.loop.now

    def expire(self) -> None:
        self.loop.now = self.connection.deadline + 1
        self.connection.expire()


class Impatient(Recorder):
    """Answers as soon as it has heard the head."""

    def __init__(self, connection: Http1Connection) -> None:
        super().__init__()
        self._connection = connection

    def on_request_head(self, head: RequestHead) -> None:
        self._connection.send_head(ResponseHead(404, [], length=len(head.path)))
        self._connection.send_data(head.path)
        self._connection.send_end(None)


def test_a_request_becomes_an_exchange_and_its_words_become_an_answer() -> None:
    """Head, data and end go in; head, data and end come out; the connection goes on."""
    scene = Scene()
    scene.arrive(POST % 3 + b"abc")
    scene.answer()

    [exchange] = scene.exchanges
    assert exchange.words == ["on_request_head", "on_request_data", "on_request_end"]
    assert scene.sent == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    assert (scene.transport.state, scene.connection.idle) == ("open", True)
    assert scene.patience == IDLE_TIMEOUT


def test_pipelined_requests_wait_for_their_turn() -> None:
    """The second exchange begins when the first has ended, and not before."""
    scene = Scene()
    scene.arrive(GET % 1 + GET % 2)
    assert len(scene.exchanges) == 1
    scene.answer(body=b"1")
    assert len(scene.exchanges) == 2
    scene.answer(body=b"2")

    assert scene.sent.count(b"HTTP/1.1 200 OK") == 2
    assert scene.sent.endswith(b"2")


def test_a_client_that_sends_far_ahead_is_not_read_from() -> None:
    """Requests ahead of their turn are bytes in our memory: only so many."""
    scene = Scene()
    scene.arrive(GET % 1 + (POST % (2 * HELD_LIMIT)))
    scene.arrive(b"x" * HELD_LIMIT)
    assert not scene.transport.is_reading()
    scene.answer()

    assert scene.transport.is_reading()
    assert scene.exchanges[1].words == ["on_request_head", "on_request_data"]


def test_a_client_that_never_reads_is_answered_no_further() -> None:
    """Answers pile up in our memory otherwise; the rest is answered once it has read."""
    scene = Scene(at_once=True)
    scene.connection.pause_writing()
    scene.arrive((GET % 1) * 100)
    assert scene.sent.count(b"HTTP/1.1 404") == 1
    assert not scene.transport.is_reading()

    scene.connection.resume_writing()

    assert scene.sent.count(b"HTTP/1.1 404") == 100
    assert scene.transport.is_reading()
    assert scene.connection.idle


def test_chunks_and_trailers() -> None:
    """A body of unknown length goes out in chunks, trailers behind the last."""
    scene = Scene()
    scene.arrive(GET % 1)
    scene.connection.send_head(ResponseHead(200, [], length=CHUNKED))
    scene.connection.send_data(b"x" * 17)
    scene.connection.send_end([field(b"x-sum", b"1")])

    body = scene.sent.partition(b"\r\n\r\n")[2]
    assert body == b"11\r\n" + b"x" * 17 + b"\r\n0\r\nx-sum: 1\r\n\r\n"


def test_an_http_1_0_client_gets_neither_chunks_nor_informational_heads() -> None:
    """The end of the connection ends the body (RFC 9112 section 6.3)."""
    scene = Scene()
    scene.arrive(b"GET / HTTP/1.0\r\nHost: catalog\r\nConnection: keep-alive\r\n\r\n")
    scene.connection.send_informational(ResponseHead(103, []))
    scene.connection.send_head(ResponseHead(200, [], length=CHUNKED))
    scene.connection.send_data(b"all")
    scene.connection.send_end(None)

    assert scene.sent == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall"
    assert scene.transport.state == "closing"


@pytest.mark.parametrize("later", [False, True])
def test_a_malformed_request_is_answered_and_closed(later: bool) -> None:
    """400 with the reason, whether it is the first or comes behind one that was answered."""
    scene = Scene()
    if later:
        scene.arrive(GET % 1)
        scene.answer()
    scene.arrive(b"GET  / HTTP/1.1\r\n\r\n")

    assert b"HTTP/1.1 400 Bad Request\r\n" in scene.sent
    assert b"x-mesh-refusal: malformed-request" in scene.sent
    assert scene.sent.startswith(b"HTTP/1.1 200") == later
    assert scene.listener.refused == ["malformed-request"]
    assert scene.transport.ended
    assert len(scene.exchanges) == later
    scene.arrive(GET % 2)  # whatever follows is not looked at
    assert len(scene.exchanges) == later


def test_a_body_gone_wrong_resets_its_exchange() -> None:
    """Half a body must not be taken for all of it; the client is told."""
    scene = Scene()
    scene.arrive(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcX")

    assert scene.exchanges[0].words[-1] == "on_request_reset"
    assert b"HTTP/1.1 400 " in scene.sent


def test_a_body_gone_wrong_behind_its_answer_is_not_answered_twice() -> None:
    """After a complete answer there is nothing to say; inside one, it is torn."""
    complete = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    scene = Scene(at_once=True)
    scene.arrive(complete)
    scene.arrive(b"zz\r\n")
    assert scene.sent.count(b"HTTP/1.1 ") == 1
    assert scene.transport.ended

    scene = Scene()
    scene.arrive(complete)
    scene.connection.send_head(ResponseHead(200, [], length=10))
    scene.arrive(b"zz\r\n")
    assert scene.transport.state == "aborted"
    assert scene.exchanges[0].words[-1] == "on_request_reset"


def test_a_torn_response_aborts_the_connection() -> None:
    """The client must not take what it has for all of it."""
    scene = Scene()
    scene.arrive(GET % 1)
    scene.connection.send_head(ResponseHead(200, [], length=10))
    scene.connection.send_data(b"half")
    scene.connection.reset()

    assert scene.transport.sent.endswith(b"half")
    assert scene.transport.state == "aborted"


def test_a_lost_connection_resets_its_exchange_once() -> None:
    """The exchange hears it, the listener hears it, and nothing is sent any more."""
    scene = Scene()
    scene.arrive(POST % 3)
    scene.connection.connection_lost(None)

    assert scene.exchanges[0].words == ["on_request_head", "on_request_reset"]
    assert scene.listener.gone == [scene.connection]


# Endings ------------------------------------------------------------------------------------------


def test_connection_close_is_obeyed() -> None:
    """The answer says so too, and the transport is closed behind it."""
    scene = Scene()
    scene.arrive(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + GET % 2)
    scene.answer()

    assert b"\r\nConnection: close\r\n" in scene.sent
    assert (len(scene.exchanges), scene.transport.state) == (1, "closing")
    assert scene.patience == CLOSE_TIMEOUT  # a client that never reads must not hold us
    scene.expire()
    assert scene.transport.state == "aborted"


@pytest.mark.parametrize("begun", [False, True])
def test_a_client_that_ends_its_half_has_gone(begun: bool) -> None:
    """Its request is given up at once, whether or not its answer has begun."""
    scene = Scene()
    scene.arrive(GET % 1)
    if begun:
        scene.connection.send_head(ResponseHead(200, [], CHUNKED))
        scene.connection.send_data(b"some")
    assert scene.connection.eof_received() is False
    assert scene.transport.state == "aborted"
    scene.connection.connection_lost(None)
    assert scene.exchanges[0].words[-1] == "on_request_reset"


def test_what_was_answered_reaches_a_client_that_ends_its_half() -> None:
    """There is no work left that could be given up."""
    scene = Scene()
    scene.arrive(GET % 1)
    scene.answer()
    assert scene.connection.eof_received() is False
    assert scene.sent.endswith(b"ok")
    assert scene.transport.state == "open"  # its owner closes it, once all is written

    scene = Scene()
    scene.arrive(GET % 1)
    scene.connection.pause_writing()
    scene.answer()
    assert scene.connection.eof_received() is True
    scene.connection.resume_writing()
    assert scene.transport.state == "closing"


def test_where_clients_half_close_they_get_their_answer() -> None:
    """A whole request is answered after FIN; an unfinished one is not kept."""
    scene = Scene(half_closing=True)
    scene.arrive(GET % 1)
    assert scene.connection.eof_received() is True
    scene.answer()
    assert b"Connection: close" in scene.sent
    assert scene.transport.state == "closing"

    scene = Scene(half_closing=True)
    scene.arrive(POST % 3 + b"ab")
    assert scene.connection.eof_received() is False

    scene = Scene(half_closing=True)
    assert scene.connection.eof_received() is False


def test_a_half_closed_client_is_not_waited_for_without_end() -> None:
    """
    A client that has given up looks like one that said its last word: if the app hangs, it is
    let go in time; if its answer flows, it is not cut while it takes what is written.
    """
    scene = Scene(half_closing=True)
    scene.arrive(GET % 1)
    assert scene.connection.eof_received() is True
    assert scene.patience == HALF_CLOSED_TIMEOUT
    scene.expire()
    assert scene.transport.state == "aborted"

    scene = Scene(half_closing=True)
    scene.arrive(GET % 1)
    assert scene.connection.eof_received() is True
    scene.connection.send_head(ResponseHead(200, [], length=5))
    scene.transport.socket = FakeSocket()
    scene.expire()
    assert (scene.transport.state, scene.patience) == ("open", HALF_CLOSED_TIMEOUT)
    scene.transport.socket.error = errno.ECONNRESET
    scene.expire()
    assert scene.transport.state == "aborted"


def test_a_torn_answer_to_http_1_0_is_reset() -> None:
    """There a clean end of the connection would be the clean end of the body (RFC 9112 section 8)."""
    scene = Scene()
    scene.transport.socket = FakeSocket()
    scene.arrive(b"GET / HTTP/1.0\r\nHost: catalog\r\n\r\n")
    scene.connection.send_head(ResponseHead(200, [], length=CHUNKED))
    scene.connection.send_data(b"half")
    scene.connection.reset()
    assert scene.transport.state == "aborted"
    assert scene.transport.socket.lingers == struct.pack("ii", 1, 0)


def test_over_tls_there_is_no_half_close() -> None:
    """The transport closes in any case, and would warn of an answer that says otherwise."""
    scene = Scene(tls=True)
    scene.arrive(GET % 1)

    assert scene.connection.eof_received() is False


def test_an_early_answer_lets_the_rest_of_the_body_run_out() -> None:
    """The connection survives when little follows, and is closed when much does."""
    scene = Scene(at_once=True)
    scene.arrive(POST % 3)
    assert scene.patience == LINGER_TIMEOUT
    scene.arrive(b"abc" + GET % 2)
    assert (len(scene.exchanges), scene.transport.state) == (2, "open")

    scene = Scene(at_once=True)
    scene.arrive(POST % (2 * DISCARD_LIMIT))
    for _ in range(2 * DISCARD_LIMIT // 65536):
        scene.arrive(b"x" * 65536)
    assert scene.transport.ended
    assert scene.exchanges[0].words == []
    scene.expire()
    assert scene.transport.state == "aborted"


def test_another_answer_than_100_ends_a_client_that_waits_for_it() -> None:
    """Whether its body will still come is a guess (RFC 9110 section 10.1.1)."""
    expecting = b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    scene = Scene()
    scene.arrive(expecting)
    scene.answer(417)
    assert b"Connection: close" in scene.sent
    assert scene.transport.ended

    scene = Scene()
    scene.arrive(expecting)
    scene.connection.send_informational(ResponseHead(100, []))
    scene.arrive(b"abc")
    scene.answer()
    assert scene.sent.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert scene.connection.idle


def test_draining_ends_with_the_current_request() -> None:
    """Idle: at once.  Busy: behind the answer, which says so.  In the middle of a head: after it."""
    scene = Scene()
    scene.connection.drain()
    assert scene.transport.state == "closing"

    for beginning in (GET % 1, (GET % 1)[:-3]):
        scene = Scene()
        scene.arrive(beginning)
        scene.connection.drain()
        assert scene.transport.state == "open"
        scene.arrive((GET % 1)[len(beginning) :])
        scene.answer()
        assert b"Connection: close" in scene.sent
        assert scene.transport.state == "closing"


def test_draining_does_not_cut_an_answer_that_lingers() -> None:
    """Closing with unread bytes would send RST, which can destroy the answer on its way."""
    scene = Scene()
    scene.arrive(b"nonsense\r\n\r\n")
    scene.connection.drain()

    assert scene.transport.state == "open"


# Patience -----------------------------------------------------------------------------------------


def test_every_wait_has_an_end() -> None:
    """First byte, head, next request: each has its own; an exchange has none here."""
    scene = Scene()
    assert scene.patience == FIRST_TIMEOUT
    scene.loop.now += 5
    scene.arrive(b"GET /")
    assert scene.patience == HEAD_TIMEOUT
    scene.loop.now += 5
    scene.arrive(b"1")  # a byte now and then buys no time
    assert scene.patience == HEAD_TIMEOUT - 5
    scene.arrive((GET % 1)[6:])
    assert scene.connection.deadline == inf
    scene.answer()
    assert scene.patience == IDLE_TIMEOUT
    scene.arrive(b"G")
    assert scene.patience == HEAD_TIMEOUT


@pytest.mark.parametrize("later", [False, True])
def test_a_slow_head_is_told_and_an_idle_client_is_closed(later: bool) -> None:
    """408 for who has begun to speak, also on a connection that has served; silence for silence."""
    scene = Scene()
    if later:
        scene.arrive(GET % 1)
        scene.answer()
    scene.arrive(b"GET / HT")
    scene.expire()
    assert b"HTTP/1.1 408 Request Timeout\r\n" in scene.sent
    assert scene.listener.refused == ["head-timeout"]
    scene.expire()
    assert scene.transport.state == "aborted"

    scene = Scene()
    scene.expire()
    assert (scene.sent, scene.transport.state) == (b"", "aborted")


def test_a_body_that_stops_coming_is_not_waited_for_without_end() -> None:
    """408 and a reset of the attempt; who is paused by us, or waits for our 100, is not late."""
    scene = Scene()
    scene.arrive(POST % 10 + b"ab")
    assert scene.patience == BODY_TIMEOUT
    scene.connection.pause_request()
    assert scene.patience == inf
    scene.connection.resume_request()
    scene.expire()
    assert b"HTTP/1.1 408 Request Timeout\r\n" in scene.sent
    assert scene.listener.refused == ["body-timeout"]
    assert scene.exchanges[0].words[-1] == "on_request_reset"

    scene = Scene()
    scene.arrive((POST % 10).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
    assert scene.patience == inf
    scene.connection.send_informational(ResponseHead(100, []))
    assert scene.patience == BODY_TIMEOUT
    scene.arrive(b"0123456789")
    assert scene.patience == inf  # said in full: how long the answer takes is the app's affair


def test_slow_sides_are_passed_on() -> None:
    """The transport's `blocked` reaches the exchange, the exchange's pause reaches the transport."""
    scene = Scene()
    scene.connection.pause_writing()  # nobody to tell yet
    scene.connection.resume_writing()
    scene.arrive(POST % 10)
    scene.connection.pause_writing()
    scene.connection.resume_writing()
    assert scene.exchanges[0].words[1:] == ["on_downstream_blocked", "on_downstream_writable"]
    scene.connection.pause_request()
    assert not scene.transport.is_reading()
    scene.connection.resume_request()
    assert scene.transport.is_reading()


# Switching protocols ------------------------------------------------------------------------------

UPGRADE = b"GET /chat HTTP/1.1\r\nHost: catalog\r\nConnection: Upgrade\r\nUpgrade: %b\r\n%b\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: own\r\n\r\n"


def switching(protocol: bytes = b"own") -> ResponseHead:
    head = ResponseHead(101, [], TUNNEL)
    head.upgrade = protocol
    return head


def test_behind_a_request_to_switch_nothing_is_read() -> None:
    """Neither as data nor as a request, until the answer has come; then it is the tunnel's."""
    scene = Scene()
    scene.arrive(UPGRADE % (b"own", b"") + b"early")
    scene.arrive(GET % 1)
    [exchange] = scene.exchanges
    assert exchange.words == ["on_request_head"]
    assert scene.patience == inf
    tunnel = scene.connection.switch(switching())
    assert scene.sent == SWITCHED
    assert scene.listener.tunnels == [tunnel]
    assert exchange.heard[1:] == [("on_request_data", b"early" + GET % 1)]
    arrive(tunnel, b"more")
    assert exchange.heard[-1] == ("on_request_data", b"more")
    assert scene.transport.protocol is tunnel
    assert scene.connection.transport is None


def test_a_client_that_ended_before_the_switch_has_ended_in_the_tunnel() -> None:
    """A half-close is kept, and what was said before it."""
    scene = Scene(half_closing=True)
    scene.arrive(UPGRADE % (b"own", b"") + b"early")
    assert scene.connection.eof_received()
    assert scene.exchanges[0].words == ["on_request_head"]
    tunnel = scene.connection.switch(switching())
    assert scene.exchanges[0].words[1:] == ["on_request_data", "on_request_end"]
    tunnel.send_data(b"answer")
    tunnel.send_end(None)
    assert scene.sent == SWITCHED + b"answer"
    assert scene.transport.state == "closing"


def test_what_waits_for_a_switch_is_bounded() -> None:
    """Who says too much early is not read from until the answer has come."""
    scene = Scene()
    scene.arrive(UPGRADE % (b"own", b""))
    scene.arrive(b"x" * HELD_LIMIT)
    assert scene.transport.is_reading()
    scene.arrive(b"x")
    assert not scene.transport.is_reading()


def test_an_answer_that_does_not_switch_is_like_any_other() -> None:
    """And the connection goes on; but what was said early is never read as a request."""
    scene = Scene()
    scene.arrive(UPGRADE % (b"own", b""))
    scene.answer()
    assert scene.sent == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    assert scene.connection.idle
    scene.arrive(GET % 1)
    assert len(scene.exchanges) == 2

    scene = Scene()
    scene.arrive(UPGRADE % (b"own", b"") + GET % 1)
    scene.answer()
    assert b"Connection: close" in scene.sent
    assert (len(scene.exchanges), scene.transport.state) == (1, "closing")


def test_connect_opens_a_tunnel_as_well() -> None:
    """With any 2xx, which has neither length nor protocol; refused, it ends the connection."""
    connect = b"CONNECT catalog:80 HTTP/1.1\r\nHost: catalog:80\r\n\r\nearly"
    scene = Scene()
    scene.arrive(connect)
    scene.connection.switch(ResponseHead(200, [], TUNNEL))
    assert scene.sent == b"HTTP/1.1 200 OK\r\n\r\n"
    assert scene.exchanges[0].heard[1:] == [("on_request_data", b"early")]

    scene = Scene()
    scene.arrive(connect)
    scene.answer(501)
    assert b"Connection: close" in scene.sent
    assert (len(scene.exchanges), scene.transport.state) == (1, "closing")


def test_a_client_may_start_over() -> None:
    """What it has said behind its CONNECT is not lost; one that has ended begins nothing."""
    connect = b"CONNECT catalog:80 HTTP/1.1\r\nHost: catalog:80\r\n\r\nearly"
    scene = Scene()
    scene.arrive(connect)
    assert scene.connection.start_over(ResponseHead(200, [], TUNNEL))
    assert scene.transport.sent == b"HTTP/1.1 200 OK\r\n\r\n"
    assert scene.listener.again == [b"early"]

    scene = Scene(half_closing=True)
    scene.arrive(connect)
    scene.connection.eof_received()
    assert scene.connection.start_over(ResponseHead(200, [], TUNNEL))
    assert (scene.listener.again, scene.transport.state) == ([], "closing")


@pytest.mark.parametrize("proved", [False, True])
def test_a_websocket_gets_the_proof_that_its_client_waits_for(proved: bool) -> None:
    """From an endpoint behind HTTP/2, which has none, or as the endpoint made it."""
    scene = Scene()
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    scene.arrive(UPGRADE % (b"websocket", key))
    head = switching(b"websocket")
    if proved:
        head.fields = [field(b"Sec-WebSocket-Accept", b"theirs")]
    scene.connection.switch(head)
    accept = b"theirs" if proved else b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert scene.sent.count(b"Sec-WebSocket-Accept: ") == 1
    assert b"\r\nSec-WebSocket-Accept: " + accept + b"\r\n" in scene.sent


def test_a_client_that_goes_before_the_answer_resets() -> None:
    """Like any other."""
    scene = Scene()
    scene.arrive(UPGRADE % (b"own", b""))
    scene.connection.connection_lost(ConnectionResetError())
    assert scene.exchanges[0].words[-1] == "on_request_reset"
