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
]  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_read(spelling: str) -> None:
    """Whatever makes a server take a path for /admin is among the readings."""
    assert b"/admin" in readings(spelling.encode())


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
        ("/%7Euser", {b"/~user"}),
        ("/caf%C3%A9", {b"/caf\xc3\xa9"}),
        ("/a;b=c", {b"/a"}),
        ("/a/...", set()),
    ],
)
def test_the_readings_are_few_and_the_first_is_as_sent(path: str, others: set[bytes]) -> None:
    """No reading is made up that no server would have."""
    first, *rest = readings(path.encode())
    assert first == path.encode()
    assert set(rest) == others


PIECES = st.sampled_from(
    ["/", "//", "a", "admin", ".", "..", "%2e", "%2f", "%5c", "\\", ";", ";x=1", "%25", "%3b", "%61", "%", "%zz", "\xff"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=12).map(lambda parts: ("/" + "".join(parts)).encode("latin-1")))
@example(b"/%2525252525252561")
def test_any_bytes_have_readings(path: bytes) -> None:
    """Nothing raises, there are never more than 25, and normal ones are normal."""
    found = readings(path)
    assert found[0] == path
    assert 1 <= len(found) == len(set(found)) <= 25
    if len(found) > 1:
        assert any(b"//" not in reading and b"/../" not in reading for reading in found)
