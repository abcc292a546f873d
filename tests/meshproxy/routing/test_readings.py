import posixpath
import re
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshproxy.routing.readings import readings

# Ways to write /admin that one server or another takes for it.
SPELLINGS = [
    "/admin", "//admin", "///admin", "/./admin", "/x/../admin", "/x/./../admin", "/../admin", "/../../admin",
    "/%61dmin", "/%61%64%6d%69%6e", "/%61%64%6D%69%6E", "/adm%69n", "/x/%2e%2e/admin", "/x/%2E%2E/admin", "/x/.%2e/admin",
    "/x/%2e./admin", "/%2e/admin", "/.//admin", "/x//../admin", "/x/..//admin", "/%2fadmin", "/%2Fadmin",
    "/x%2f..%2fadmin", "/x/..%2fadmin", "/x%2f../admin", "/x%2F%2e%2e%2Fadmin", "/%252fadmin", "/x/%252e%252e/admin",
    "/%2561dmin", "/%252561dmin", "/\\admin", "/x\\..\\admin", "/x/..\\admin", "/%5cadmin", "/%5Cadmin", "/x%5c..%5cadmin",
    "/x/..%5Cadmin", "/%255cadmin", "/admin;", "/admin;v=1", "/admin;v=1;w=2", "/;/admin", "/;x/admin", "/x/..;/admin",
    "/x/..;v=1/admin", "/x/%2e%2e;/admin", "/.;/admin", "/admin%3b", "/admin%3Bv=1", "/x/..%3b/admin", "/x;y/../admin",
    "/admin?x=1", "/admin;?x", "//admin?..", "/x/../admin?a=/b/../c", "/%61dmin;v", "//%61dmin", "/x/..//%61dmin;v=1?q",
    "/x%2f..%2f%61dmin;z", "/x\\..\\%61dmin", "/x/y/../../admin", "/x/y/%2e%2e/%2E%2E/admin", "/%2e%2e/admin",
    "/x/..%2f..%2fadmin", "/.%2fadmin", "/./././admin", "/%2f%2f%2fadmin", "/x/%2e%2e%2fadmin", "/%5c%2fadmin", "/;%2fadmin",
    "/x/%252e%252e%252fadmin",
    # a parameter at every segment; of two servers, one before the other
    "/;a/x;b/..;c/admin;d", "/%3ba/x/%2e%2e%3bc/admin%3b", "/x;a;b/%2e;/..;/admin;;", "/x/..;/..;/..;/admin;a=b",
    # what ends it: a NUL for C, an escaped `?` or `#` for who reads a decoded path as a target (CVE-2024-38474)
    "/admin%00", "/admin%00.html", "/x/../admin%00/y", "/admin%2500", "/admin%3f", "/admin%3Fx", "/%61dmin%23y", "/admin%253fx",
    # overlong UTF-8, in two to four bytes, of a letter, a dot, a slash, a backslash, a semicolon
    "/%c1%a1dmin", "/x/%c0%ae%c0%ae/admin", "/x/%c0%ae./admin", "/x%c0%af..%c0%afadmin", "/%c0%afadmin", "/x/%e0%80%ae%e0%80%ae/admin",
    "/%e0%80%afadmin", "/%f0%80%80%afadmin", "/x%c1%9c..%c1%9cadmin", "/admin%c0%bbv", "/x/%25c0%25ae%25c0%25ae/admin",
    # case of escapes, and several layers of them, mixed
    "/x/%2E%2e/%61dmin", "/x/%252E%252e%252Fadmin", "/x/%25252e%25252e/admin", "/x%252f%2e%2e%2fadmin", "/x/.%252e//admin",
    "/x/%2e%2e%5cadmin", "/x%255c..%255cadmin", "/%2e/%2e/%2e//%2fadmin", "/x/y/z/..%2f..%2f..%2f%61%64min", "/x//..//..///admin",
]  # fmt: skip

# Ways to write something below /admin that climb out of it in one reading, and not in another.
BELOW = [
    "/%61dmin/../x", "/%61dmin/%2e%2e/x", "//admin/../x", "/admin;/../x", "/\\admin/../x", "/%2fadmin/../x",
    "/y/../admin//../x", "/y/%2e%2e/admin//%2e%2e/x", "/y/..//admin//..//x", "/admin%2f..%2f..%2fx", "/%61dmin%2f..%2fx",
    "/x/../admin/%252e%252e/y", "/%61dmin/..;/x", "/%61dmin;/..;/x", "/;/admin/../..", "/%61dmin/..%5c..%5cx",
    "/%61dmin/..", "/y/../%61dmin/%2e%2e/x",
]  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_read(spelling: str) -> None:
    """Whatever makes a server take a path for /admin is among the readings."""
    assert b"/admin" in (readings(spelling.encode()) or ())


@pytest.mark.parametrize("spelling", BELOW)
def test_what_climbs_out_of_a_place_may_be_in_it(spelling: str) -> None:
    """Not every server looks at dots, and not every one merges slashes before it does."""
    found = readings(spelling.encode()) or ()
    assert any(reading.startswith(b"/admin/") for reading in found)


@pytest.mark.parametrize("path", ["/", "/administrator", "/a/b.c", "/x?y=//..%2f;", "*", "/.."[:1]])
def test_plain_paths_have_one_reading(path: str) -> None:
    """Nearly all requests: nothing is computed for them."""
    assert readings(path.encode()) == (path.partition("?")[0].encode(),)


@pytest.mark.parametrize(
    ("path", "others"),
    [
        ("/public/../admin", {b"/admin"}),
        ("/a//b", {b"/a/b"}),
        ("/a/b/.", {b"/a/b/"}),
        ("/a/b/..", {b"/a/"}),
        ("/a//../b", {b"/a/../b", b"/a/b", b"/b"}),
        ("/%7Euser", {b"/~user"}),
        ("/caf%C3%A9", {b"/caf\xc3\xa9"}),
        ("/a%20b", {b"/a b"}),
        ("/a%2Fb", {b"/a/b"}),
        ("/%41/..", {b"/A/..", b"/"}),
        ("/a%3Fb", {b"/a?b", b"/a"}),
        ("/a;b=c", {b"/a"}),
        ("/a/...", set()),
    ],
)
def test_the_readings_are_few_and_the_first_is_as_sent(path: str, others: set[bytes]) -> None:
    """No reading is made up that no server would have."""
    first, *rest = readings(path.encode()) or ()
    assert first == path.encode()
    assert set(rest) == others


def without_dots(path: bytes, *, escaped: bool = True) -> bytes:
    """As the URL standard of browsers does it: escaped dots are dots, empty segments are segments."""
    kept: list[bytes] = []
    segments = path.split(b"/")[1:]
    for number, segment in enumerate(segments):
        plain = segment.lower().replace(b"%2e", b".") if escaped else segment
        last = number + 1 == len(segments)
        if plain == b"..":
            kept = [*kept[:-1], *([b""] if last else [])]
        elif plain != b".":
            kept.append(segment)
        elif last:
            kept.append(b"")
    return b"/" + b"/".join(kept)


def urls(path: bytes) -> bytes:
    """
    As Node.js: nothing is decoded.

    But for letters, digits, and ``-._~``: RFC 3986 calls both spellings equal, and no policy names an
    escape of one (`validate` wants the plain spelling beside it).
    """
    plain = rb"%(2[DdEe]|3[0-9]|4[1-9A-Fa-f]|5[0-9AaFf]|6[1-9A-Fa-f]|7[0-9AaEe])"
    return re.sub(plain, lambda found: unquote_to_bytes(found.group()), without_dots(path))


def merged(path: bytes) -> bytes:
    return re.sub(rb"//+", b"/", path)


def unmatrixed(path: bytes) -> bytes:
    return re.sub(rb";[^/]*", b"", path)


def cleaned(path: bytes) -> bytes:
    """As Go, Tomcat and nginx do it."""
    return posixpath.normpath(merged(path))


# What servers make of a path before they look for who serves it.
SERVERS: dict[str, Callable[[bytes], bytes]] = {
    "WSGI and ASGI: decoded": unquote_to_bytes,
    "Node.js, URL": urls,
    "Node.js, URL of a backslash": lambda path: urls(path.replace(b"\\", b"/")),
    "Express: URL, decoded": lambda path: unquote_to_bytes(without_dots(path)),
    "nginx, Go: decoded and cleaned": lambda path: cleaned(unquote_to_bytes(path)),
    "nginx without merge_slashes": lambda path: without_dots(unquote_to_bytes(path), escaped=False),
    "Tomcat: without parameters, decoded, cleaned": lambda path: cleaned(unquote_to_bytes(unmatrixed(path))),
    "Tomcat that takes a backslash": lambda path: cleaned(unquote_to_bytes(unmatrixed(path)).replace(b"\\", b"/")),
    "parameters looked for behind the decoding": lambda path: cleaned(unmatrixed(unquote_to_bytes(path))),
    "cleaned, then decoded": lambda path: unquote_to_bytes(without_dots(unmatrixed(path))),
    "one decodes, the app behind it again": lambda path: cleaned(unquote_to_bytes(unquote_to_bytes(path)))
    if path.count(b"%25") == path.count(b"%") else path,
    "merged only": merged,
    "a string of C": lambda path: cleaned(unquote_to_bytes(path).partition(b"\0")[0] or b"/"),
    "a rewritten target": lambda path: re.split(rb"[?#]", unquote_to_bytes(path))[0],
}  # fmt: skip

PIECES = st.sampled_from(
    ["/", "//", "a", "admin", ".", "..", "%2e", "%2f", "%5c", "\\", ";", ";x=1", "%25", "%3b", "%61", "%", "%zz", "\xff",
     "/../", "/..;/", "%2e%2e", "%00", "%3f", "%c0%ae", "%252e", "/admin/"]
)  # fmt: skip
PATHS = st.lists(PIECES, max_size=12).map(lambda parts: ("/" + "".join(parts)).encode("latin-1"))


@pytest.mark.parametrize("server", SERVERS)
@given(path=PATHS)
@example(path=b"/%61dmin/../x")
@example(path=b"/y/../admin//../x")
@example(path=b"/x/../%61dmin/%2e%2e/y")
def test_what_a_server_serves_is_among_the_readings(server: str, path: bytes) -> None:
    """Of any path, but for a slash at its end, which is not ours to judge."""
    found = readings(path)
    assert found is not None
    served = SERVERS[server](path).rstrip(b"/")
    assert served in {reading.rstrip(b"/") for reading in found}


@given(PATHS)
@example(b"/%2525252525252561")
def test_any_bytes_have_readings(path: bytes) -> None:
    """Nothing raises, the first is as sent, and each is there once."""
    found = readings(path)
    assert found is not None
    assert found[0] == path
    assert len(found) == len(set(found))


@pytest.mark.parametrize(
    "path", ["/a/..;%2f%252e//%3b%5c" * 700, "/%252e%c0%ae\\..//;%2f%61%61%3f..//%3b" * 400]
)
def test_too_many_are_none(path: str) -> None:
    """Nobody needs them; they are made to cost time, or to hide something."""
    assert readings(path.encode()) is None


@pytest.mark.parametrize("path", ["/" + "a%20b/" * 2000, "/" + "%e4%bd%a0" * 1000, "/" + "a%2Fb" * 2000])  # fmt: skip
def test_long_paths_of_an_honest_kind_are_read(path: str) -> None:
    """Blanks and letters of other scripts make two readings, however many they are."""
    found = readings(path.encode())
    assert found is not None
    assert len(found) <= 3
