"""
Extended CONNECT on the wire: RFC 8441 and RFC 9113 section 8.5, for both roles.

The other end is made of other libraries (hyperframe, hpack), as everywhere here.
"""

import pytest

from meshproxy.codec.budget import PEER
from meshproxy.message import TUNNEL, RequestHead, ResponseHead
from tests.helpers.http2 import Headers, of
from tests.meshproxy.downstream.test_http2 import Scene as Server
from tests.meshproxy.upstream.test_http2 import FakeExchange
from tests.meshproxy.upstream.test_http2 import Scene as Client

CONNECT_ERROR, CANCEL, ENABLE_CONNECT_PROTOCOL = 10, 8, 8
CHAT: Headers = (
    (":method", "CONNECT"),
    (":protocol", "websocket"),
    (":scheme", "http"),
    (":authority", "catalog"),
    (":path", "/chat"),
)


def switched(upgrade: bytes | None = b"websocket") -> ResponseHead:
    head = ResponseHead(101, [], TUNNEL)
    head.upgrade = upgrade
    return head


# As a server --------------------------------------------------------------------------------------


def test_3_the_server_offers_it() -> None:
    """SETTINGS_ENABLE_CONNECT_PROTOCOL = 1, in the first SETTINGS."""
    scene = Server(PEER, greeted=False)
    assert of(scene.hear(), "Settings")[0].frame.settings[ENABLE_CONNECT_PROTOCOL] == 1


def test_5_a_tunnel_has_data_and_two_ends() -> None:
    """200 opens it; either end may come first, and the stream is closed when both have."""
    for client_first in (True, False):
        scene = Server(PEER)
        client = scene.client
        scene.arrive(client.headers(1, CHAT, end=False))
        [stream], [exchange] = scene.streams, scene.exchanges
        head = exchange.heard[0][1]
        assert (head.method, head.path, head.upgrade) == (b"GET", b"/chat", b"websocket")
        assert stream.switch(switched()) is stream
        stream.send_data(b"abc")
        heard = scene.hear()
        assert [(h.kind, h.ended) for h in heard] == [("Headers", False), ("Data", False)]
        assert heard[0].headers == [(":status", "200")]
        scene.arrive(client.data(1, b"def"))
        if client_first:
            scene.arrive(client.data(1, b"", end=True))
            stream.send_data(b"more")
            stream.send_end(None)
        else:
            stream.send_end(None)
            scene.hear()
            scene.arrive(client.data(1, b"more"))
            scene.arrive(client.data(1, b"", end=True))
        assert [word for word in exchange.words if word != "on_request_data"] == [
            "on_request_head", "on_request_end",
        ]  # fmt: skip
        heard = scene.hear()
        assert not of(heard, "RstStream")
        assert scene.connection.idle
        assert scene.transport.state == "open"


def test_8_5_what_breaks_off_is_a_connect_error() -> None:
    """The stream's state says what the connection behind it has met."""
    scene = Server(PEER)
    scene.arrive(scene.client.headers(1, CHAT, end=False))
    scene.streams[0].switch(switched())
    scene.hear()
    scene.streams[0].reset()
    [reset] = of(scene.hear(), "RstStream")
    assert reset.frame.error_code == CONNECT_ERROR


@pytest.mark.parametrize("code", [CANCEL, CONNECT_ERROR])
def test_8_5_a_reset_is_heard_as_one(code: int) -> None:
    """Also after our direction has ended."""
    for ended in (False, True):
        scene = Server(PEER)
        scene.arrive(scene.client.headers(1, CHAT, end=False))
        scene.streams[0].switch(switched())
        if ended:
            scene.streams[0].send_end(None)
        scene.hear()
        scene.arrive(scene.client.reset(1, code))
        assert scene.exchanges[0].words[-1] == "on_request_reset"


@pytest.mark.parametrize("status", [200, 204, 403])
def test_8_5_an_answer_that_opens_no_tunnel_is_no_2xx(status: int) -> None:
    """And a request that goes on all the same is told that nobody listens."""
    scene = Server(PEER)
    scene.arrive(scene.client.headers(1, CHAT, end=False))
    stream = scene.streams[0]
    stream.send_head(ResponseHead(status, [], None if status == 204 else 2))
    stream.send_data(b"ok")
    stream.send_end(None)
    heard = scene.hear() + scene.hear()  # the reset goes behind the answer
    [head] = of(heard, "Headers")
    assert head.headers is not None
    assert head.headers[0] == (":status", "403" if status == 403 else "501")
    assert [h.frame.error_code for h in of(heard, "RstStream")] == [0]


def test_8_5_a_client_that_has_ended_at_once() -> None:
    """CONNECT with END_STREAM: a tunnel with one direction."""
    scene = Server(PEER)
    scene.arrive(scene.client.headers(1, CHAT, end=True))
    stream = scene.streams[0]
    assert scene.exchanges[0].words == ["on_request_head", "on_request_end"]
    stream.switch(switched())
    stream.send_data(b"abc")
    stream.send_end(None)
    heard = scene.hear()
    assert heard[-1].ended
    assert not of(heard, "RstStream")


# As a client --------------------------------------------------------------------------------------


def ask(scene: Client, method: bytes = b"GET") -> FakeExchange:
    exchange = FakeExchange(RequestHead(method, b"catalog", b"/chat", [], TUNNEL))
    exchange.head.upgrade = b"websocket, other"
    scene.connection.lend(exchange)
    return exchange


def test_4_the_request_and_its_answer() -> None:
    """The first protocol is asked for, and a 200 has switched to it."""
    scene = Client(s8=1)
    exchange = ask(scene)
    [head] = of(scene.hear(), "Headers")
    assert head.headers is not None
    assert sorted(head.headers) == sorted(CHAT)
    assert not head.ended
    scene.arrive(scene.server.headers(1, [(":status", "200")], end=False))
    [(word, answer)] = exchange.heard
    assert word == "on_response_head"
    assert (answer.status, answer.upgrade, answer.length) == (101, b"websocket", TUNNEL)
    exchange.stream.send_data(b"abc")
    scene.arrive(scene.server.data(1, b"def", end=True))
    assert exchange.words[1:] == ["on_response_data", "on_response_end"]
    exchange.stream.send_data(b"more")
    exchange.stream.send_end(None)
    heard = scene.hear()
    assert b"".join(h.frame.data for h in of(heard, "Data")) == b"abcmore"
    assert not of(heard, "RstStream")
    assert scene.connection.idle


@pytest.mark.parametrize("half", [False, True])
def test_8_5_resets_go_both_ways(half: bool) -> None:
    """Ours says that the connection behind it has gone; theirs is heard, also after their end."""
    for ours in (True, False):
        scene = Client(s8=1)
        exchange = ask(scene)
        scene.hear()
        scene.arrive(scene.server.headers(1, [(":status", "200")], end=False))
        if half:
            scene.arrive(scene.server.data(1, b"", end=True))
        scene.hear()
        if ours:
            exchange.stream.reset()
            [reset] = of(scene.hear(), "RstStream")
            assert reset.frame.error_code == CONNECT_ERROR
        else:
            scene.arrive(scene.server.reset(1, CONNECT_ERROR))
            assert exchange.failure == ("upstream-reset", False)


def test_3_it_is_not_sent_before_the_peer_has_offered_it() -> None:
    """A new connection waits for the peer's SETTINGS."""
    scene = Client(greeted=False)
    exchange, gone = ask(scene), ask(scene)
    gone.stream.reset()
    assert not of(scene.hear(), "Headers")
    scene.arrive(scene.server.settings(s8=1))
    assert [h.stream for h in of(scene.hear(), "Headers")] == [1]
    assert (exchange.failure, gone.failure) == (None, None)


@pytest.mark.parametrize("first", [True, False])
def test_3_a_peer_that_has_not_offered_it_is_never_asked(first: bool) -> None:
    """Whether that is known already or not."""
    scene = Client(greeted=not first)
    exchange = ask(scene)
    if first:
        scene.arrive(scene.server.settings())
    assert not of(scene.hear(), "Headers")
    assert exchange.failure == ("upgrade-not-supported", False)


def test_3_what_waited_counts_against_the_limit() -> None:
    """The SETTINGS that offer it also say how many streams there may be."""
    scene = Client(greeted=False)
    several = [ask(scene) for _ in range(3)]
    scene.arrive(scene.server.settings(s8=1, s3=2))
    assert len(of(scene.hear(), "Headers")) == 2
    assert [exchange.failure for exchange in several] == [None, None, ("stream-refused", False)]


def test_3_a_connection_that_is_lost_before() -> None:
    """Nothing was sent, so it may be tried again."""
    scene = Client(greeted=False)
    exchange = ask(scene)
    scene.connection.connection_lost(None)
    assert exchange.failure == ("connect-failed", False)


@pytest.mark.parametrize("status", ["101", "403", "501"])
def test_5_other_answers_open_nothing(status: str) -> None:
    """101 does not exist in HTTP/2 (RFC 9113 section 8.6)."""
    scene = Client(s8=1)
    exchange = ask(scene)
    scene.hear()
    scene.arrive(scene.server.headers(1, [(":status", status)], end=True))
    if status == "101":
        scene.hear()
        assert exchange.failure is not None
        assert exchange.words == []
    else:
        assert exchange.heard[0][1].status == int(status)
        assert exchange.words == ["on_response_head", "on_response_end"]
