"""Heads: what lines mean once they have been read."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.codec import MalformedError, heads
from meshproxy.codec.heads import check_unfinished_head, read_request_head, read_response_head
from meshproxy.codec.limits import LIMITS
from meshproxy.codec.target import read_target
from meshproxy.message import CHUNKED, TUNNEL, RequestHead, ResponseHead


def request(*lines: bytes) -> tuple[RequestHead, bool, bool]:
    return read_request_head([b"GET / HTTP/1.1", b"Host: a", *lines], LIMITS)


def response(*lines: bytes, status: bytes = b"HTTP/1.1 200 OK") -> tuple[ResponseHead, int, bool]:
    return read_response_head([status, *lines], b"GET", LIMITS)


def names(head: RequestHead | ResponseHead) -> list[bytes]:
    return [field[0] for field in head.fields]


def test_a_request_head_is_complete() -> None:
    """Everything has its place; what concerns the connection is in none."""
    head, keep_alive, http10 = request(
        b"Accept: a", b"TE: trailers", b"Keep-Alive: timeout=5", b"Proxy-Connection: close",
        b"HTTP2-Settings: A", b"Content-Length: 5", b"Expect: 100-Continue", b"X-Mesh-Peer: b",
        b"Cookie: c",
    )  # fmt: skip
    assert (head.method, head.scheme, head.authority, head.path) == (b"GET", b"http", b"a", b"/")
    assert names(head) == [b"accept", b"cookie"]
    assert head.mesh_fields == [(b"x-mesh-peer", b"b", b"X-Mesh-Peer: b")]
    assert (head.length, head.expect_continue, head.upgrade) == (5, True, None)
    assert (keep_alive, http10) == (True, False)


@pytest.mark.parametrize(
    ("version", "connection", "keep_alive"),
    [
        (b"1.1", None, True), (b"1.1", b"close", False), (b"1.1", b"Close", False),
        (b"1.1", b"x, CLOSE", False), (b"1.1", b"close, keep-alive", False),
        (b"1.0", None, False), (b"1.0", b"Keep-Alive", True), (b"1.0", b"close, keep-alive", False),
    ],
)  # fmt: skip
def test_persistence(version: bytes, connection: bytes | None, keep_alive: bool) -> None:
    """RFC 9112 section 9.3: close wins, HTTP/1.0 must ask to stay."""
    lines = [b"Host: a"] + ([b"Connection: " + connection] if connection else [])
    _, kept, http10 = read_request_head([b"GET / HTTP/" + version, *lines], LIMITS)
    assert (keep_alive, version == b"1.0") == (kept, http10)
    lines = [b"Content-Length: 0", *lines[1:]]
    assert (
        keep_alive == read_response_head([b"HTTP/" + version + b" 200", *lines], b"GET", LIMITS)[2]
    )


def test_connection_names_away_only_what_decides_nothing() -> None:
    """`Connection: authorization` is an attempt to strip what a proxy relies on; it has no effect."""
    head, _, _ = request(
        b"Connection: x-own, Authorization, X-Mesh-Peer, host, content-length, ,",
        b"X-Own: 1", b"Authorization: b", b"X-Mesh-Peer: c", b"Content-Length: 5", b"X-Other: 2",
    )  # fmt: skip
    assert names(head) == [b"authorization", b"x-other"]
    assert head.mesh_fields is not None
    assert (head.authority, head.length) == (b"a", 5)
    assert names(response(b"Connection: x-own", b"X-Own: 1", b"A: b")[0]) == [b"a"]


def test_absolute_target_wins_over_host() -> None:
    """RFC 9112 section 3.2.2: and Host must be there all the same."""
    lines = [b"GET https://b:8443/c?d HTTP/1.1", b"Host: a"]
    head, _, _ = read_request_head(lines, LIMITS)
    assert (head.scheme, head.authority, head.path) == (b"https", b"b:8443", b"/c?d")


def test_http10_may_do_without_host_when_the_target_names_one() -> None:
    """HTTP/1.0 has no Host; only an absolute target says where to go then."""
    head, _, http10 = read_request_head([b"GET http://b/c HTTP/1.0"], LIMITS)
    assert (head.authority, head.path, http10) == (b"b", b"/c", True)
    with pytest.raises(MalformedError):
        read_request_head([b"GET /c HTTP/1.0"], LIMITS)


@pytest.mark.parametrize(
    ("lines", "upgrade"),
    [
        ([b"Connection: Upgrade", b"Upgrade: websocket"], b"websocket"),
        ([b"Upgrade: websocket"], None),
        ([b"Connection: upgrade", b"Upgrade: h2c"], None),
        ([b"Connection: upgrade, http2-settings", b"Upgrade: H2C, websocket"], b"websocket"),
        ([b"Connection: upgrade", b"Upgrade: websocket", b"Upgrade: h2c"], b"websocket"),
        ([b"Connection: upgrade", b"Upgrade: own/1", b"Content-Length: 0"], b"own/1"),
        ([b"Connection: upgrade", b"Upgrade: own/1", b"Content-Length: 1"], None),
        ([b"Connection: upgrade", b"Upgrade: own/1", b"Transfer-Encoding: chunked"], None),
    ],
)
def test_upgrade(lines: list[bytes], upgrade: bytes | None) -> None:
    """
    Upgrade counts when Connection names it (RFC 9110 section 7.8), in a request without a body, and
    never for h2c.
    """
    head, keep_alive, _ = request(*lines)
    assert upgrade == head.upgrade
    assert (head.length == TUNNEL) is (upgrade is not None)
    assert b"upgrade" not in names(head)
    assert keep_alive


def test_http10_cannot_expect_or_upgrade() -> None:
    """RFC 9110 sections 7.8 and 10.1.1: ignored."""
    lines = [b"Host: a", b"Expect: 100-continue", b"Content-Length: 5", b"Connection: upgrade", b"Upgrade: a"]  # fmt: skip
    head, _, _ = read_request_head([b"POST / HTTP/1.0", *lines], LIMITS)
    assert (head.expect_continue, head.upgrade) == (False, None)


def test_nobody_waits_for_leave_to_send_nothing() -> None:
    """100-continue without a body is ignored."""
    assert not request(b"Expect: 100-continue")[0].expect_continue
    assert not request(b"Expect: 100-continue", b"Content-Length: 0")[0].expect_continue


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"DELETE", b"FROB"])
def test_framing_does_not_depend_on_the_method(method: bytes) -> None:
    """CL.0 and its kin: a method does not make a body go away."""
    for line, length in ((b"Content-Length: 5", 5), (b"Transfer-Encoding: chunked", CHUNKED)):
        head, _, _ = read_request_head([method + b" / HTTP/1.1", b"Host: a", line], LIMITS)
        assert length == head.length


def test_after_connect_nothing_is_a_request() -> None:
    """Bytes behind a CONNECT belong to a tunnel, or to nobody."""
    head, keep_alive, _ = read_request_head([b"CONNECT b:1 HTTP/1.1", b"Host: b:1"], LIMITS)
    assert (head.authority, head.path, keep_alive) == (b"b:1", b"", False)
    assert (head.length, head.upgrade) == (TUNNEL, None)
    lines = [b"CONNECT b:1 HTTP/1.1", b"Host: b:1", b"Connection: upgrade", b"Upgrade: own"]
    assert read_request_head(lines, LIMITS)[0].upgrade is None


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [
        (b"HTTP/1.1 200 OK", 200, b"OK"), (b"HTTP/1.1 200 ", 200, b""), (b"HTTP/1.1 200", 200, b""),
        (b"HTTP/1.0 599 A \xe9\tb", 599, b"A \xe9\tb"),
    ],
)  # fmt: skip
def test_status_lines(line: bytes, status: int, reason: bytes) -> None:
    """Any status from 100 to 599, any reason or none."""
    head, _, _ = response(status=line)
    assert (status, reason) == (head.status, head.reason)


@pytest.mark.parametrize(
    "line",
    [
        b"", b"HTTP/1.1", b"HTTP/1.1 ", b"HTTP/1.1 20", b"HTTP/1.1 2000", b"HTTP/1.1 600 A",
        b"HTTP/1.1 099 A", b"HTTP/1.1  200 A", b"HTTP/1.1 +20 A", b"HTTP/1.1 \xef\xbc\x9200 A",
        b"HTTP/1.1 200\tOK", b"HTTP/1.1 200 O\x00K", b"HTTP/1.1 200 O\x7fK", b"http/1.1 200 OK",
        b"HTTP/2 200 OK", b"HTTP/2.0 200 OK", b"HTTP/1.2 200 OK", b"HTTP/0.9 200 OK", b"ICY 200 OK",
        b" HTTP/1.1 200 OK",
    ],
)  # fmt: skip
def test_refused_status_lines(line: bytes) -> None:
    """Other versions, odd numbers, control bytes."""
    with pytest.raises(MalformedError):
        response(status=line)


def test_response_sets_mesh_fields_apart() -> None:
    """What claims to come from the next sidecar; an app may be lying."""
    head, _, _ = response(b"X-Mesh-Refusal: no-route", b"Content-Length: 0")
    assert names(head) == []
    assert head.mesh_fields is not None
    assert [name for name, _, _ in head.mesh_fields] == [b"x-mesh-refusal"]


def test_switching_protocols_ends_http() -> None:
    """A 101 says to what, and the connection carries no further request."""
    line = b"HTTP/1.1 101 Switching Protocols"
    head, follows, keep_alive = response(b"Upgrade: websocket", status=line)
    assert (head.upgrade, head.length, follows, keep_alive) == (b"websocket", TUNNEL, TUNNEL, False)


@pytest.mark.parametrize(
    ("start", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r", None), (b"GET /", None), (b"GET /\r", None),
        (b"GET / HTTP/1.1\nHost", "malformed-request"), (b"GET /\rHTTP", "malformed-request"),
        (b"GET /" + b"a" * 70000, "target-too-long"),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 70000, "fields-too-large"),
    ],
)  # fmt: skip
def test_the_start_of_a_head_is_judged_early(start: bytes, code: str | None) -> None:
    """What can never become a head is refused before all of it is there."""
    if code is None:
        check_unfinished_head(start, LIMITS)
        return
    with pytest.raises(MalformedError) as caught:
        check_unfinished_head(start, LIMITS)
    assert caught.value.code == code


@given(
    st.sampled_from([b"GET", b"OPTIONS", b"CONNECT", b"M-SEARCH"]),
    st.sampled_from([b"/", b"/a?b", b"*", b"h:1", b"http://h/a", b"https://h", b"/%2", b"a", b""]),
    st.lists(st.sampled_from([b"a", b"a:80", b"", b"a b", b"u@a", b"[::1]"]), max_size=2),
    st.sampled_from([b"1.1", b"1.0"]),
)
def test_the_shortcuts_of_a_request_head_change_nothing(
    method: bytes, target: bytes, hosts: list[bytes], version: bytes
) -> None:
    """The commonest target and Host are read without the functions for all cases; same verdict."""

    def in_full() -> tuple[bytes, bytes, bytes]:
        scheme, named, path = read_target(method, target)
        lines = [(b"host", host, b"Host: " + host) for host in hosts]
        return scheme, heads._authority(named, lines, http10=version == b"1.0"), path

    def in_short() -> tuple[bytes, bytes, bytes]:
        line = b"%b %b HTTP/%b" % (method, target, version)
        head, _, _ = read_request_head([line, *(b"Host: " + host for host in hosts)], LIMITS)
        return head.scheme, head.authority, head.path

    def verdict(read: Callable[[], tuple[bytes, bytes, bytes]]) -> tuple[bytes, bytes, bytes] | str:
        try:
            return read()
        except MalformedError as error:
            return error.code

    assert verdict(in_short) == verdict(in_full)
