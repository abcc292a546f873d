"""Field lines: what is read, what is refused, what is remembered."""

import pytest

from meshproxy.codec import MalformedError, fields
from meshproxy.codec.fields import (
    CONNECTION,
    CONTENT_LENGTH,
    DROPPED,
    END_TO_END,
    HOST,
    MESH,
    has_bare_line_end,
    is_protected,
    read_fields,
    read_trailers,
    values,
)


def read_line(line: bytes) -> fields.Entry:
    return fields._lines[line]


@pytest.mark.parametrize(
    ("line", "kind", "field"),
    [
        (b"Accept: */*", END_TO_END, (b"accept", b"*/*", b"Accept: */*")),
        (b"a:b", END_TO_END, (b"a", b"b", b"a: b")),
        (b"A: \t b c\t ", END_TO_END, (b"a", b"b c", b"A: b c")),
        (b"A:", END_TO_END, (b"a", b"", b"A: ")),
        (b"A: b:c", END_TO_END, (b"a", b"b:c", b"A: b:c")),
        (b"A: \xe9", END_TO_END, (b"a", b"\xe9", b"A: \xe9")),
        (b"a_b: c", END_TO_END, (b"a_b", b"c", b"a_b: c")),
        (b"HOST: a", HOST, (b"host", b"a", b"HOST: a")),
        (b"Te: trailers", DROPPED, (b"te", b"trailers", b"Te: trailers")),
        (b"HTTP2-Settings: AAA", DROPPED, (b"http2-settings", b"AAA", b"HTTP2-Settings: AAA")),
        (b"X-Mesh-Peer: a", MESH, (b"x-mesh-peer", b"a", b"X-Mesh-Peer: a")),
        (b"x-forwarded-client-cert: a", MESH, (b"x-forwarded-client-cert", b"a", b"x-forwarded-client-cert: a")),
    ],
)  # fmt: skip
def test_field_lines(line: bytes, kind: int, field: tuple[bytes, bytes, bytes]) -> None:
    """Name in lower case, value without white space around it, and the line made plain."""
    assert (kind, field) == read_line(line)
    assert (kind, field) == read_line(line), "from the cache, or not, it is the same"


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        (b"accept", b"Accept"), (b"x-a-b", b"X-A-B"), (b"set-cookie", b"Set-Cookie"),
        (b"etag", b"ETag"), (b"sec-websocket-key", b"Sec-WebSocket-Key"),
        (b"www-authenticate", b"WWW-Authenticate"),
    ],
)  # fmt: skip
def test_names_of_http2_are_spelled_for_http1(name: bytes, spelled: bytes) -> None:
    """As old programs expect them, whatever HTTP/1.1 lines came before; those keep theirs."""
    assert read_line(name + b": x")[1] == (name, b"x", name + b": x")
    assert fields._headers[name, b"x"][1] == (name, b"x", spelled + b": x")


@pytest.mark.parametrize(
    "line",
    [
        b"", b"a", b": b", b" a: b", b"\ta: b", b"a : b", b"a\t: b", b"a b: c", b"a\x00: b", b"(a): b",
        b"a/b: c", b"\xc3\xa9: b", b"a: b\x00c", b"a: b\rc", b"a: b\nc", b"a: \x0bb", b"a: \x7f",
        b"a: \x1b[2J", b"\r: b", b'"a": b',
        b"content_length: 5", b"Transfer_Encoding: chunked", b"x_mesh_peer: a", b"X-Mesh_Peer: a",
        b"x_forwarded_client_cert: a",
    ],
)  # fmt: skip
def test_refused_field_lines(line: bytes) -> None:
    """No token for a name, control bytes in a value, folds, and names that pose as others."""
    for _ in range(2):
        with pytest.raises(MalformedError) as caught:
            read_line(line)
        assert caught.value.code == "malformed-request"


def test_what_concerns_the_connection_is_set_apart() -> None:
    """End-to-end fields keep their order; the rest is grouped by kind."""
    lines = [b"B: 1", b"Connection: a", b"A: 2", b"connection: b", b"Content-Length: 5", b"B: 3"]
    end_to_end, special = read_fields(lines)
    assert [field[:2] for field in end_to_end] == [(b"b", b"1"), (b"a", b"2"), (b"b", b"3")]
    assert values(special, CONNECTION) == [b"a", b"b"]
    assert values(special, CONTENT_LENGTH) == [b"5"]
    assert values(special, HOST) == []


@pytest.mark.parametrize(
    "line",
    [
        b"Cookie: a=b", b"Set-Cookie: a=b", b"Authorization: Bearer a", b"Proxy-Authorization: a",
        b"X-Api-Key: a", b"X-Auth-Token: a", b"traceparent: 00-1-2-01", b"X-Request-Id: 1",
        b"Last-Modified: Sun, 22 Nov 2026 00:00:00 GMT", b"ETag: 5", b"X-B3-TraceId: 1",
        b"x-forwarded-for: 1.2.3.4", b"x-mesh-peer: a", b"Long: " + b"a" * 200,
    ],
)  # fmt: skip
def test_secrets_and_ids_are_not_remembered(line: bytes) -> None:
    """Secrets do not stay in memory, and values that never return do not push out others."""
    read_line(line)
    assert line not in fields._lines


def test_the_cache_is_bounded() -> None:
    """Whatever a client sends, no more than a fixed number of lines and names is kept."""
    for number in range(3000):
        read_line(b"Name-%d: value" % number)
        assert len(fields._lines) <= fields._MOST_CACHED
        assert len(fields._names) <= fields._MOST_CACHED
    read_line(b"Accept: text/html")
    assert b"Accept: text/html" in fields._lines


@pytest.mark.parametrize(
    "name",
    [
        b"host", b"content-length", b"transfer-encoding", b"authorization", b"cookie", b"content-type",
        b"x-mesh-peer", b"x-forwarded-for", b"x-forwarded-client-cert", b"traceparent", b"if-match",
    ],
)  # fmt: skip
def test_what_decides_is_protected(name: bytes) -> None:
    """Fields that route, authenticate or frame can neither be nominated away nor trail behind."""
    assert is_protected(name)


def test_trailers_are_filtered() -> None:
    """Only what decides nothing may arrive after the decision (RFC 9110 section 6.5.1)."""
    lines = [b"Host: b", b"X-Sum: 1", b"Authorization: a", b"Content-Length: 5", b"x-mesh-peer: a"]
    assert read_trailers(lines) == [(b"x-sum", b"1", b"X-Sum: 1")]
    assert read_trailers([b"Host: b"]) is None


@pytest.mark.parametrize(
    ("data", "complete", "bare"),
    [
        (b"", True, False), (b"a\r\nb", True, False), (b"a\nb", True, True), (b"a\rb", True, True),
        (b"a\r", True, True), (b"a\r", False, False), (b"\n", False, True), (b"a\r\r\nb", True, True),
        (b"a\n\r", True, True), (b"\r\n\r", False, False),
    ],
)  # fmt: skip
def test_bare_line_ends(data: bytes, complete: bool, bare: bool) -> None:
    """A CR or LF alone is seen; a CR at the end of what has come so far may still get its LF."""
    assert bare == has_bare_line_end(data, 0, len(data), complete=complete)
