"""
The rules of RFC 9113 for a server, one by one; the list follows that of h2spec.

What is checked is the answer on the wire: a connection error (GOAWAY, or a close where nothing can
be said), a stream error (RST_STREAM), a refusal (400), or that the request is served.
"""

from collections.abc import Callable

import pytest
from hyperframe.frame import HeadersFrame, PingFrame, PriorityFrame, PushPromiseFrame

from meshproxy.codec.budget import PEER
from meshproxy.message import CHUNKED, ResponseHead
from tests.helpers.http2 import GET, POST, Headers, Wire, of
from tests.meshproxy.downstream.test_http2 import Scene

PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR, COMPRESSION_ERROR = (
    1, 3, 5, 6, 9,
)  # fmt: skip
Say = Callable[[Wire], bytes]


def raw(kind: int, stream: int = 0, flags: int = 0, payload: bytes = b"") -> bytes:
    """Return a frame that no library would make."""
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


def opened(wire: Wire, headers: Headers = POST) -> bytes:
    return wire.headers(1, headers, end=False)


CONNECTION_ERRORS: dict[str, tuple[Say, set[int]]] = {
    "4.2 DATA larger than the maximum": (
        lambda w: opened(w) + raw(0, 1, 0, b"x" * 16385), {FRAME_SIZE_ERROR},
    ),
    "4.3 HPACK block that is none": (
        lambda w: raw(1, 1, 5, b"\xff\xff\xff\xff\xff\xff\xff"), {COMPRESSION_ERROR},
    ),
    "4.3 PRIORITY inside a header block": (
        lambda w: HeadersFrame(1, b"\x82").serialize() + PriorityFrame(1).serialize(),
        {PROTOCOL_ERROR},
    ),
    "4.3 HEADERS of another stream inside a header block": (
        lambda w: HeadersFrame(1, b"\x82").serialize() + HeadersFrame(3, b"\x82").serialize(),
        {PROTOCOL_ERROR},
    ),
    "5.1 DATA on an idle stream": (lambda w: w.data(1, b"x"), {PROTOCOL_ERROR, STREAM_CLOSED}),
    "5.1 RST_STREAM on an idle stream": (lambda w: w.reset(1), {PROTOCOL_ERROR}),
    "5.1 WINDOW_UPDATE on an idle stream": (lambda w: w.window(1, 5), {PROTOCOL_ERROR}),
    "5.1 CONTINUATION on an idle stream": (lambda w: raw(9, 1, 4), {PROTOCOL_ERROR}),
    "5.1.1 a stream with an even number": (lambda w: w.headers(2, GET), {PROTOCOL_ERROR}),
    "5.1.1 HEADERS on stream 0": (lambda w: raw(1, 0, 5, b"\x82"), {PROTOCOL_ERROR}),
    "6.1 DATA on stream 0": (lambda w: raw(0, 0, 0, b"x"), {PROTOCOL_ERROR}),
    "6.1 padding longer than DATA": (
        lambda w: opened(w) + raw(0, 1, 8, b"\x09abc"), {PROTOCOL_ERROR},
    ),
    "6.2 padding longer than HEADERS": (lambda w: raw(1, 1, 13, b"\x09\x82"), {PROTOCOL_ERROR}),
    "6.4 RST_STREAM on stream 0": (lambda w: raw(3, 0, 0, b"\0\0\0\x08"), {PROTOCOL_ERROR}),
    "6.4 RST_STREAM of a wrong size": (
        lambda w: opened(w) + raw(3, 1, 0, b"\0\0\0"), {FRAME_SIZE_ERROR},
    ),
    "6.5 SETTINGS ACK with a payload": (
        lambda w: raw(4, 0, 1, b"\0\x03\0\0\0\x01"), {FRAME_SIZE_ERROR},
    ),
    "6.5 SETTINGS on a stream": (lambda w: raw(4, 1), {PROTOCOL_ERROR}),
    "6.5 SETTINGS of a wrong size": (lambda w: raw(4, 0, 0, b"\0\x03\0"), {FRAME_SIZE_ERROR}),
    "6.5.2 ENABLE_PUSH other than 0 and 1": (lambda w: w.settings(s2=2), {PROTOCOL_ERROR}),
    "6.5.2 a window larger than there is": (lambda w: w.settings(s4=2**31), {FLOW_CONTROL_ERROR}),
    "6.5.2 MAX_FRAME_SIZE too small": (lambda w: w.settings(s5=16383), {PROTOCOL_ERROR}),
    "6.5.2 MAX_FRAME_SIZE too large": (lambda w: w.settings(s5=2**24), {PROTOCOL_ERROR}),
    "6.6 a client that pushes": (
        lambda w: opened(w) + PushPromiseFrame(1, 2, b"\x82", flags=["END_HEADERS"]).serialize(),
        {PROTOCOL_ERROR},
    ),
    "6.7 PING on a stream": (lambda w: raw(6, 1, 0, b"12345678"), {PROTOCOL_ERROR}),
    "6.7 PING of a wrong size": (lambda w: raw(6, 0, 0, b"123456"), {FRAME_SIZE_ERROR}),
    "6.8 GOAWAY on a stream": (lambda w: raw(7, 1, 0, b"\0" * 8), {PROTOCOL_ERROR}),
    "6.9 WINDOW_UPDATE of 0 for the connection": (
        lambda w: raw(8, 0, 0, b"\0\0\0\0"), {PROTOCOL_ERROR},
    ),
    "6.9 WINDOW_UPDATE of a wrong size": (lambda w: raw(8, 0, 0, b"\0\0\x01"), {FRAME_SIZE_ERROR}),
    "6.9.1 a window of the connection above the largest": (
        lambda w: w.window(0, 2**31 - 1), {FLOW_CONTROL_ERROR},
    ),
    "6.10 CONTINUATION after END_HEADERS": (lambda w: opened(w) + raw(9, 1, 4), {PROTOCOL_ERROR}),
    "6.10 CONTINUATION on stream 0": (
        lambda w: HeadersFrame(1, b"\x82").serialize() + raw(9, 0, 4), {PROTOCOL_ERROR},
    ),
    "6.10 CONTINUATION after DATA": (
        lambda w: opened(w) + w.data(1, b"x") + raw(9, 1, 4), {PROTOCOL_ERROR},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CONNECTION_ERRORS)
def test_connection_errors(case: str) -> None:
    """GOAWAY with the right code, then a close; no request comes of it."""
    say, codes = CONNECTION_ERRORS[case]
    scene = Scene(PEER)
    scene.arrive(say(scene.client))
    [goaway] = of(scene.hear(), "GoAway")
    assert goaway.frame.error_code in codes
    assert scene.transport.state == "closing"
    scene.connection.connection_lost(None)
    assert all("on_request_end" not in exchange.words for exchange in scene.exchanges)


@pytest.mark.parametrize(
    "preface",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + PingFrame(0, b"12345678").serialize(),
    ],
    ids=["HTTP/1.1", "another preface", "no SETTINGS"],
)
def test_3_4_an_invalid_preface(preface: bytes) -> None:
    """Closed; RFC 9113 section 3.4 lets the GOAWAY be left out."""
    scene = Scene(PEER, greeted=False)
    scene.arrive(preface)
    scene.hear()
    assert scene.transport.state == "closing"


STREAM_ERRORS: dict[str, tuple[Say, set[int]]] = {
    "5.1 DATA after END_STREAM": (
        lambda w: w.headers(1, GET) + w.data(1, b"x"), {STREAM_CLOSED, PROTOCOL_ERROR},
    ),
    "5.1 HEADERS after END_STREAM": (
        lambda w: w.headers(1, GET) + w.headers(1, GET), {STREAM_CLOSED, PROTOCOL_ERROR},
    ),
    "6.9.1 a window of a stream above the largest": (
        lambda w: opened(w) + w.window(1, 2**31 - 1), {FLOW_CONTROL_ERROR},
    ),
    "6.9 WINDOW_UPDATE of 0 for a stream": (
        lambda w: opened(w) + raw(8, 1, 0, b"\0\0\0\0"), {PROTOCOL_ERROR},
    ),
    "8.1 trailers without END_STREAM": (
        lambda w: opened(w) + w.headers(1, [("x", "y")], end=False), {PROTOCOL_ERROR},
    ),
    "8.1.1 a body longer than Content-Length": (
        lambda w: opened(w, [*POST, ("content-length", "1")]) + w.data(1, b"ab"), {PROTOCOL_ERROR},
    ),
    "8.1.1 a body shorter than Content-Length": (
        lambda w: opened(w, [*POST, ("content-length", "3")]) + w.data(1, b"ab", end=True),
        {PROTOCOL_ERROR},
    ),
    "8.1.1 no body where Content-Length announces one": (
        lambda w: w.headers(1, [*POST, ("content-length", "3")]), {PROTOCOL_ERROR},
    ),
    "8.3 pseudo-header fields in trailers": (
        lambda w: opened(w) + w.headers(1, [(":path", "/")]), {PROTOCOL_ERROR},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", STREAM_ERRORS)
def test_stream_errors(case: str) -> None:
    """RST_STREAM with the right code (some may end the connection instead); no request is served."""
    say, codes = STREAM_ERRORS[case]
    scene = Scene(PEER)
    scene.arrive(say(scene.client))
    heard = scene.hear()
    errors = of(heard, "RstStream", 1) + of(heard, "GoAway")
    assert {error.frame.error_code for error in errors} <= codes
    assert errors
    if scene.transport.state != "open":
        scene.connection.connection_lost(None)
    assert all(exchange.words[-1] == "on_request_reset" for exchange in scene.exchanges)


CONNECT = (":method", "CONNECT")
MALFORMED: dict[str, Headers] = {
    "8.2.1 a name in upper case": [*GET, ("Upper", "x")],
    "8.2.1 a name with a space": [*GET, ("a b", "x")],
    "8.2.1 a value with CR LF": [*GET, ("a", "x\r\nhost: evil")],
    "8.2.1 a value with NUL": [*GET, ("a", "x\0")],
    "8.2.1 a value with leading white space": [*GET, ("a", " x")],
    "8.2.2 Connection": [*GET, ("connection", "keep-alive")],
    "8.2.2 Keep-Alive": [*GET, ("keep-alive", "x")],
    "8.2.2 Proxy-Connection": [*GET, ("proxy-connection", "x")],
    "8.2.2 Transfer-Encoding": [*GET, ("transfer-encoding", "chunked")],
    "8.2.2 Upgrade": [*GET, ("upgrade", "h2c")],
    "8.2.2 TE other than trailers": [*GET, ("te", "gzip")],
    "8.3 an unknown pseudo-header field": [*GET, (":test", "x")],
    "8.3 a pseudo-header field of responses": [*GET, (":status", "200")],
    "8.3 a pseudo-header field after a field": [*GET[:3], ("a", "b"), GET[3]],
    "8.3.1 no :method": GET[1:],
    "8.3.1 no :scheme": [GET[0], *GET[2:]],
    "8.3.1 no :path": GET[:3],
    "8.3.1 :path twice": [*GET, GET[3]],
    "8.3.1 :method twice": [GET[0], *GET],
    "8.3.1 an empty :path": [*GET[:3], (":path", "")],
    "8.3.1 a :path that is none": [*GET[:3], (":path", "a")],
    "8.3.1 a fragment in :path": [*GET[:3], (":path", "/a#b")],
    "8.3.1 a space in :path": [*GET[:3], (":path", "/a HTTP/1.1")],
    "8.3.1 neither :authority nor Host": [*GET[:2], GET[3]],
    "8.3.1 user information in :authority": [*GET[:2], (":authority", "u@catalog"), GET[3]],
    "8.3.1 Host of another than :authority": [*GET, ("host", "other")],
    "8.3.1 Host twice": [*GET, ("host", "catalog"), ("host", "catalog")],
    "8441 4 :protocol without CONNECT": [GET[0], (":protocol", "websocket"), *GET[1:]],
    "8441 4 :protocol without :path": [CONNECT, (":protocol", "websocket"), *GET[1:3]],
    "8441 4 :protocol without :scheme": [CONNECT, (":protocol", "websocket"), *GET[2:]],
    "8441 4 :protocol twice": [CONNECT, (":protocol", "a"), (":protocol", "a"), *GET[1:]],
    "8441 4 a :protocol that is none": [CONNECT, (":protocol", "a b"), *GET[1:]],
    "8441 4 an empty :protocol": [CONNECT, (":protocol", ""), *GET[1:]],
    "8441 4 a body announced": [
        CONNECT, (":protocol", "a"), *GET[1:], ("content-length", "5"),
    ],
    "8.5 CONNECT without a port": [CONNECT, GET[2]],
    "8.5 CONNECT with a :scheme": [CONNECT, GET[1], (":authority", "catalog:80")],
    "8.5 CONNECT with a :path": [(":method", "CONNECT"), *GET[1:]],
    "9110 Content-Length that is no number": [*GET, ("content-length", "+0")],
    "9110 Content-Length twice": [*GET, ("content-length", "0"), ("content-length", "1")],
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_requests(case: str) -> None:
    """RST_STREAM(PROTOCOL_ERROR) or 400, on this stream only; no exchange hears of it."""
    scene = Scene(PEER)
    scene.arrive(scene.client.headers(1, MALFORMED[case]) + scene.client.headers(3, GET))
    heard = scene.hear()
    resets = of(heard, "RstStream", 1)
    answers = [h.headers for h in of(heard, "Headers", 1)]
    if answers:
        assert answers[0] is not None
        assert (":status", "400") in answers[0]
    else:
        assert [reset.frame.error_code for reset in resets] == [PROTOCOL_ERROR]
    assert [stream.id for stream in scene.streams] == [3]
    assert scene.transport.state == "open"


def _padded(wire: Wire) -> bytes:
    frame = HeadersFrame(1, wire._encoder.encode(GET), pad_length=7, stream_weight=3)
    frame.flags |= {"END_HEADERS", "END_STREAM", "PADDED", "PRIORITY"}
    return bytes(frame.serialize())


SERVED: dict[str, Say] = {
    "4.1 a frame of an unknown type": lambda w: raw(0x77, 0, 0, b"x") + w.headers(1, GET),
    "4.1 undefined flags": lambda w: raw(1, 1, 0xD7, w.headers(1, GET)[9:]),
    "5.1 PRIORITY on an idle stream": lambda w: PriorityFrame(5).serialize() + w.headers(1, GET),
    "5.1.1 numbers may be skipped": lambda w: w.headers(101, GET),
    "6.1 padded DATA": lambda w: opened(w) + raw(0, 1, 9, b"\x02abc\0\0"),
    "6.2 padded HEADERS with priority": _padded,
    "6.5.3 unknown settings": lambda w: w.settings(s4660=1) + w.headers(1, GET),
    "8.1 trailers": lambda w: opened(w) + w.headers(1, [("x", "y")]),
    "8.2.2 TE: trailers": lambda w: w.headers(1, [*GET, ("te", "trailers")]),
    "8.3.1 Host like :authority": lambda w: w.headers(1, [*GET, ("host", "catalog")]),
    "8.3.1 OPTIONS *": lambda w: w.headers(1, [(":method", "OPTIONS"), *GET[1:3], (":path", "*")]),
}


@pytest.mark.parametrize("case", SERVED)
def test_what_is_allowed_is_served(case: str) -> None:
    """And a PING behind it is answered: the connection is in order."""
    scene = Scene(PEER)
    scene.arrive(SERVED[case](scene.client) + scene.client.ping(b"in order"))
    assert scene.exchanges[0].words[-1] in ("on_request_head", "on_request_end")
    assert scene.streams[0].ended
    [pong] = of(scene.hear(), "Ping")
    assert "ACK" in pong.frame.flags
    assert pong.frame.opaque_data == b"in order"
    assert scene.transport.state == "open"


def test_5_1_2_more_streams_than_admitted() -> None:
    """
    The one too many is never served: refused, unread, as long as the client may not have known the
    limit; afterwards it has broken a rule that it had acknowledged.
    """
    for aware in (False, True):
        scene = Scene(PEER, greeted=False)
        client = scene.client
        scene.arrive(client.hello() + (client.settings_ack() if aware else b""))
        scene.hear()
        for number in range(1001):
            scene.arrive(client.headers(2 * number + 1, GET))
        heard = scene.hear()
        assert len(scene.exchanges) == 1000
        if aware:
            assert [h.frame.error_code for h in of(heard, "GoAway")] == [PROTOCOL_ERROR]
        else:
            [reset] = of(heard, "RstStream")
            assert (reset.stream, reset.frame.error_code) == (2001, 7)
            assert scene.transport.state == "open"


def test_5_1_frames_that_crossed_a_reset_are_ignored() -> None:
    """The client cannot know yet that we have ended its stream."""
    scene = Scene(PEER)
    scene.arrive(opened(scene.client))
    scene.streams[0].reset()
    scene.hear()
    scene.arrive(scene.client.data(1, b"x" * 100) + scene.client.window(1, 5))
    scene.arrive(scene.client.data(1, b"", end=True) + scene.client.headers(3, GET))
    assert not of(scene.hear(), "GoAway")
    assert len(scene.exchanges) == 2


def test_6_9_2_a_window_may_become_negative() -> None:
    """SETTINGS that shrink it count what was sent already."""
    scene = Scene(PEER, s4=10)
    client = scene.client
    scene.arrive(client.headers(1, GET))
    stream = scene.streams[0]
    stream.send_head(ResponseHead(200, [], CHUNKED))
    stream.send_data(b"x" * 20)
    assert _bytes_of(scene) == 10
    scene.arrive(client.settings(s4=4))  # the window is -6 now
    scene.arrive(client.window(1, 6))
    assert _bytes_of(scene) == 0
    scene.arrive(client.window(1, 3))
    assert _bytes_of(scene) == 3


def _bytes_of(scene: Scene) -> int:
    return sum(len(h.frame.data) for h in of(scene.hear(), "Data"))
