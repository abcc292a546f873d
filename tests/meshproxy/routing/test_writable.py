"""What configuration may write into a head."""

import pytest

from meshproxy.routing.writable import wrong_hostname, wrong_name, wrong_path, wrong_value


@pytest.mark.parametrize("name", ["x-a", "X_a", "Server", "accept-encoding", "a!#$%&'*+-.^_`|~"])
def test_names_that_may_be_written(name: str) -> None:
    """Any token that is nobody's in particular."""
    assert wrong_name(name) is None


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "not a header name"),
        ("a b", "not a header name"),
        ("a:", "not a header name"),
        ("a\n", "not a header name"),
        ("ä", "not a header name"),
        ("Host", "by a rewrite's hostname only"),
        ("content-Length", "the proxy's own"),
        ("Transfer-Encoding", "the proxy's own"),
        ("connection", "the proxy's own"),
        ("te", "the proxy's own"),
        ("Trailer", "the proxy's own"),
        ("X-Mesh-Peer", "only the mesh may"),
        ("x_mesh_peer", "only the mesh may"),
        ("X-Forwarded-Client-Cert", "only the mesh may"),
    ],
)
def test_names_that_may_not(name: str, why: str) -> None:
    """What frames the message, belongs to the connection, or says who called."""
    assert why in (wrong_name(name) or "")


def test_a_value_stays_on_its_line() -> None:
    """No control characters but the tab, nothing that a parser would trim."""
    assert [wrong_value(value) for value in ("", "a b", "a\tb", "é")] == [None] * 4
    for value in (" a", "a ", "\ta", "a\r\nb", "a\nb", "a\0", "a\x7f", "a\n"):
        assert wrong_value(value)


def test_a_path_is_absolute_or_empty() -> None:
    """Visible ASCII; a query or fragment would end up inside the path."""
    assert [wrong_path(path) for path in ("", "/", "/a/b%20;c")] == [None] * 3
    for path in ("a", "/a?b", "/a#b", "/a b", "/ä", "/a\n"):
        assert wrong_path(path)


def test_a_hostname_is_a_name_or_an_address() -> None:
    """Without a port."""
    assert [wrong_hostname(name) for name in ("a.b", "127.0.0.1", "[::1]")] == [None] * 3
    for name in ("", "a:80", "a b", "a/b", "::1", "a\n"):
        assert wrong_hostname(name)
