"""Header lists and heads: what is refused beyond what nghttp2 refuses, and how fields travel."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.codec import MalformedError
from meshproxy.codec.fields import Header
from meshproxy.codec.http2_heads import (
    HEADER_LIST_LIMIT,
    declined,
    read_request_head,
    read_response_head,
    read_trailers,
    request_headers,
    response_headers,
    trailer_headers,
)
from meshproxy.codec.limits import LIMITS
from meshproxy.message import CHUNKED, TUNNEL, RequestHead, ResponseHead, field

PSEUDO: list[Header] = [
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b":authority", b"catalog:80"),
    (b":path", b"/a?b"),
]


def with_(name: bytes, value: bytes) -> list[Header]:
    """Return the list with one pseudo-header field replaced."""
    return [(n, value if n == name else v) for n, v in PSEUDO]


def test_a_request() -> None:
    """Pseudo-header fields become the head, the rest its fields with an HTTP/1.1 line."""
    head = read_request_head([*PSEUDO, (b"accept", b"*/*"), (b"te", b"trailers")], ended=True)
    assert (head.method, head.scheme, head.authority, head.path) == (
        b"GET",
        b"http",
        b"catalog:80",
        b"/a?b",
    )
    assert head.fields == [(b"accept", b"*/*", b"Accept: */*")]
    assert (head.length, head.mesh_fields, head.expect_continue) == (None, None, False)


@pytest.mark.parametrize(
    ("extra", "ended", "length"),
    [
        ([], True, None),
        ([], False, CHUNKED),
        ([(b"content-length", b"5")], False, 5),
        ([(b"content-length", b"0")], True, 0),
    ],
)
def test_the_length_of_a_request(extra: list[Header], ended: bool, length: int | None) -> None:
    """Announced, in-band, or none."""
    assert read_request_head([*PSEUDO, *extra], ended=ended).length == length


@pytest.mark.parametrize(
    "headers",
    [
        with_(b":path", b"/a#b"),
        with_(b":path", b"/a b"),
        with_(b":path", "/ä".encode()),
        with_(b":path", b"http://other/a"),
        with_(b":path", b"*"),
        with_(b":path", b"a"),
        with_(b":path", b"/%2"),
        with_(b":scheme", b"ftp"),
        with_(b":authority", b"user@catalog"),
        with_(b":authority", b"a,b"),
        with_(b":authority", b"catalog:0"),
        PSEUDO[:2] + PSEUDO[3:],
        [*PSEUDO, (b"host", b"other")],
        [*PSEUDO, (b"host", b"catalog:80"), (b"host", b"catalog:80")],
        [*PSEUDO, (b"content-length", b"+1")],
        [*PSEUDO, (b"content-length", b"1"), (b"content-length", b"2")],
        [*PSEUDO, (b"expect", b"miracles")],
        [*PSEUDO, (b"content_length", b"5")],
        [*PSEUDO, (b"x_mesh_peer", b"me")],
        [*PSEUDO, (b"x", b"a\nb")],
        [*PSEUDO, (b"a b", b"c")],
    ],
)
def test_what_is_malformed_beyond_what_the_library_refuses(headers: list[Header]) -> None:
    """The rules are those of HTTP/1.1, so that a request means the same on both wires."""
    with pytest.raises(MalformedError) as raised:
        read_request_head(headers, ended=True)
    assert raised.value.code == "malformed-request"


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        (with_(b":path", b"/" + b"a" * LIMITS.target), "target-too-long"),
        ([*PSEUDO, (b"a", b"b" * LIMITS.head)], "fields-too-large"),
        ([*PSEUDO, (b"x-mesh-a", b"b" * LIMITS.head)], "fields-too-large"),
        ([*PSEUDO, (b"cookie", b"b" * 65000), (b"a", b"b" * 600)], "fields-too-large"),
        ([*PSEUDO, *[(b"a", b"b")] * (LIMITS.fields + 1)], "fields-too-large"),
    ],
)
def test_limits(headers: list[Header], code: str) -> None:
    """Those of HTTP/1.1."""
    with pytest.raises(MalformedError) as raised:
        read_request_head(headers, ended=True)
    assert raised.value.code == code


def test_limits_are_exact() -> None:
    """All that is counted, and no more than that: many short fields pass beside a long one."""
    short = [(b"accept", b"*/*")] * 100
    room = LIMITS.head - 100 * len(b"accept: */*") - len(b"a: ")
    read_request_head([*PSEUDO, *short, (b"a", b"b" * room)], ended=True)
    with pytest.raises(MalformedError):
        read_request_head([*PSEUDO, *short, (b"a", b"b" * (room + 1))], ended=True)


def test_host_stands_in_for_authority() -> None:
    """Alone, or next to an equal one; OPTIONS may ask about the server; CONNECT has no path."""
    alone = [*PSEUDO[:2], PSEUDO[3], (b"host", b"catalog")]
    assert read_request_head(alone, ended=True).authority == b"catalog"
    both = [*PSEUDO, (b"host", b"Catalog:80")]
    head = read_request_head(both, ended=True)
    assert (head.authority, head.fields) == (b"catalog:80", [])
    options = [(b":method", b"OPTIONS"), *with_(b":path", b"*")[1:]]
    assert read_request_head(options, ended=True).path == b"*"
    connect = [(b":method", b"CONNECT"), (b":authority", b"a:80")]
    assert read_request_head(connect, ended=False).path == b""


def test_mesh_fields_are_set_apart() -> None:
    """Nothing from outside is taken for ours: neither a client's word nor, in a response, an app's."""
    head = read_request_head([*PSEUDO, (b"x-mesh-peer", b"me")], ended=True)
    assert (head.fields, head.mesh_fields) == ([], [field(b"X-Mesh-Peer", b"me")])
    response = read_response_head(
        [(b":status", b"503"), (b"x-mesh-refusal", b"overflow")], b"GET", ended=True
    )
    assert response.fields == []
    assert response.mesh_fields == [field(b"X-Mesh-Refusal", b"overflow")]


def test_cookies_are_joined() -> None:
    """RFC 9113 section 8.2.3; one piece stays as and where it is."""
    pieces = [(b"cookie", b"a=b"), (b"x", b"y"), (b"cookie", b"c=d; e=f")]
    head = read_request_head([*PSEUDO, *pieces], ended=True)
    assert head.fields == [field(b"X", b"y"), field(b"Cookie", b"a=b; c=d; e=f")]
    head = read_request_head([*PSEUDO, *pieces[:2]], ended=True)
    assert head.fields == [field(b"Cookie", b"a=b"), field(b"X", b"y")]


@pytest.mark.parametrize(
    ("status", "method", "extra", "ended", "length"),
    [
        (b"200", b"GET", [], False, CHUNKED),
        (b"200", b"GET", [], True, 0),
        (b"200", b"GET", [(b"content-length", b"7")], False, 7),
        (b"200", b"HEAD", [(b"content-length", b"7")], True, 7),
        (b"200", b"HEAD", [], True, None),
        (b"304", b"GET", [(b"content-length", b"7")], True, 7),
        (b"304", b"GET", [], True, None),
        (b"204", b"GET", [], True, None),
        (b"103", b"GET", [], False, None),
    ],
)
def test_the_length_of_a_response(
    status: bytes, method: bytes, extra: list[Header], ended: bool, length: int | None
) -> None:
    """What an HTTP/1.1 side has to know to frame it."""
    head = read_response_head([(b":status", status), *extra], method, ended=ended)
    assert (head.status, head.length) == (int(status), length)


@pytest.mark.parametrize("status", [b"99", b"600", b"2x0", b"+20", b"0200", b""])
def test_no_status(status: bytes) -> None:
    """Three digits, or the response is malformed."""
    with pytest.raises(MalformedError):
        read_response_head([(b":status", status)], b"GET", ended=True)


def test_trailers_decide_nothing() -> None:
    """What routes, authorizes or frames does not come late."""
    trailers = [(b"grpc-status", b"0"), (b"host", b"x"), (b"x-mesh-a", b"b"), (b"cookie", b"c")]
    assert read_trailers(trailers) == [field(b"Grpc-Status", b"0")]
    assert read_trailers([(b"te", b"x")]) is None
    assert trailer_headers([field(b"Grpc-Status", b"0")]) == [(b"grpc-status", b"0")]


def test_writing_a_request() -> None:
    """Pseudo-header fields first; what was never said by HTTP/2 itself is said anew."""
    head = RequestHead(b"POST", b"catalog", b"/", [field(b"X-A", b"b")], length=3)
    head.expect_continue = True
    head.mesh_fields = [field(b"x-mesh-a", b"b")]
    assert request_headers(head)[0] == [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/"),
        (b":authority", b"catalog"),
        (b"x-a", b"b"),
        (b"content-length", b"3"),
        (b"te", b"trailers"),
        (b"expect", b"100-continue"),
    ]
    connect, _size = request_headers(RequestHead(b"CONNECT", b"a:80", b"", [], TUNNEL))
    assert [name for name, _ in connect] == [b":method", b":authority"]


def upgrade(method: bytes = b"GET", protocols: bytes = b"websocket") -> RequestHead:
    head = RequestHead(method, b"catalog", b"/chat", [field(b"X-A", b"b")], TUNNEL)
    head.upgrade = protocols
    return head


def test_upgrade_is_connect_with_a_protocol() -> None:
    """RFC 8441 section 4: the first of the protocols; another method than GET rides in a field."""
    expected = [
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        (b":scheme", b"http"),
        (b":path", b"/chat"),
        (b":authority", b"catalog"),
        (b"x-a", b"b"),
    ]
    assert request_headers(upgrade())[0] == expected
    assert request_headers(upgrade(protocols=b"websocket, own/1"))[0] == expected
    assert request_headers(upgrade(b"POST"))[0] == [*expected, (b"x-mesh-method", b"POST")]


@pytest.mark.parametrize("method", [b"GET", b"POST", b"OPTIONS"])
def test_connect_with_a_protocol_is_upgrade(method: bytes) -> None:
    """What one sidecar says the other understands; its body only begins when it has switched."""
    head = read_request_head(request_headers(upgrade(method, b"own/1"))[0], ended=False)
    assert (head.method, head.path, head.authority) == (method, b"/chat", b"catalog")
    assert (head.upgrade, head.length, head.expect_continue) == (b"own/1", TUNNEL, False)
    assert head.fields == [field(b"X-A", b"b")]


EXTENDED = [(b":method", b"CONNECT"), (b":protocol", b"websocket"), *PSEUDO[1:]]


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([*EXTENDED, (b"content-length", b"0")], "malformed-request"),
        ([*EXTENDED, (b"x-mesh-method", b"CONNECT")], "malformed-request"),
        ([*EXTENDED, (b"x-mesh-method", b"GET /")], "malformed-request"),
        ([EXTENDED[0], (b":protocol", b"a b"), *EXTENDED[2:]], "malformed-request"),
        ([EXTENDED[0], (b":protocol", b"h2c"), *EXTENDED[2:]], "not-implemented"),
        ([EXTENDED[0], (b":protocol", b"TLS/1.2"), *EXTENDED[2:]], "not-implemented"),
        ([EXTENDED[0], (b":protocol", b"a, b"), *EXTENDED[2:]], "not-implemented"),
        ([(b":method", b"CONNECT"), (b":authority", b"catalog")], "malformed-request"),
        ([*EXTENDED[:2], EXTENDED[2], (b":path", b"*"), EXTENDED[4]], "malformed-request"),
    ],
)
def test_what_connect_must_not_be(headers: list[tuple[bytes, bytes]], code: str) -> None:
    """With a length, another method than it may stand for, or a protocol that hides requests."""
    with pytest.raises(MalformedError) as caught:
        read_request_head(headers, ended=False)
    assert caught.value.code == code


def test_the_answer_to_connect_opens_a_tunnel() -> None:
    """2xx does, anything else is an answer like others; what HTTP/1.1 says with 101 is 200 here."""
    for status, length in ((b"200", TUNNEL), (b"204", TUNNEL), (b"403", CHUNKED)):
        head = read_response_head([(b":status", status)], b"CONNECT", ended=False)
        assert head.length == length
    assert response_headers(ResponseHead(101, [], TUNNEL)) == [(b":status", b"200")]


@pytest.mark.parametrize("status", [200, 204, 206, 301, 403, 503])
def test_an_answer_that_declines_a_tunnel_is_no_2xx_on_the_wire(status: int) -> None:
    """There it would open one; the next sidecar restores it, and only where it may mean that."""
    head = declined(ResponseHead(status, [field(b"X-A", b"b")], 2 if status != 204 else None))
    headers = response_headers(head)
    assert headers[0][1][:1] != b"2"
    restored = read_response_head(headers, b"CONNECT", ended=False)
    assert (restored.status, restored.length) == (status, None if status == 204 else 2)
    assert restored.fields == [field(b"X-A", b"b")]
    if 200 <= status < 300:
        assert read_response_head(headers, b"GET", ended=False).status == 501


@pytest.mark.parametrize("lie", [b"101", b"2", b"20x", b"404", b"2000"])
def test_no_other_status_is_restored(lie: bytes) -> None:
    """Least of all one that opens a tunnel."""
    headers = [(b":status", b"501"), (b"x-mesh-status", lie)]
    assert read_response_head(headers, b"CONNECT", ended=True).status == 501


def test_writing_a_response() -> None:
    """In-band framing is HTTP/2's own; an announced length travels."""
    assert response_headers(ResponseHead(200, [], CHUNKED)) == [(b":status", b"200")]
    assert response_headers(ResponseHead(404, [field(b"a", b"b")], 3, b"Nope")) == [
        (b":status", b"404"),
        (b"a", b"b"),
        (b"content-length", b"3"),
    ]


_NAMES = st.from_regex(rb"x-[a-z0-9]{1,8}", fullmatch=True)
_VALUES = st.from_regex(rb"[!-~]([ -~]{0,20}[!-~])?", fullmatch=True)


@given(st.lists(st.tuples(_NAMES, _VALUES), max_size=20))
def test_fields_come_through_unchanged(pairs: list[Header]) -> None:
    """Values, order and multiplicity, through a head and back."""
    pairs = [pair for pair in pairs if not pair[0].startswith(b"x-mesh")]
    head = read_request_head([*PSEUDO, *pairs], ended=True)
    headers, size = request_headers(head)
    assert [header for header in headers if header[0].startswith(b"x-")] == pairs
    counted = sum(len(name) + len(value) + 32 for name, value in headers)
    assert counted <= size <= counted + 512


def test_every_http1_head_fits_the_announced_limit() -> None:
    """The largest head that HTTP/1.1 admits, counted as HTTP/2 counts."""
    assert LIMITS.head + 32 * LIMITS.fields <= HEADER_LIST_LIMIT
