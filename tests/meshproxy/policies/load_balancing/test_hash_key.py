"""Keys: what requests and connections are hashed by."""

import pytest

from meshproxy.contract.policies import HashKeySpec
from meshproxy.contract.wire import ContractError
from meshproxy.message import RequestHead, field
from meshproxy.policies.load_balancing.consistent_hashing import hash_of
from meshproxy.policies.load_balancing.hash_key import HashKey


class Client:
    def __init__(self, address: str = "192.0.2.7") -> None:
        self.address = address


ALICE = "spiffe://test.mesh/ns/default/sa/alice"


def key(
    *specs: HashKeySpec,
    path: bytes = b"/",
    fields: tuple[tuple[bytes, bytes], ...] = (),
    identity: str = ALICE,
    client: Client | None = None,
    scheme: bytes = b"http",
) -> tuple[int | None, bytes | None]:
    head = RequestHead(b"GET", b"a", path, [field(*one) for one in fields], scheme=scheme)
    found, cookie = HashKey(specs).of_request(head, identity, client or Client(), lambda: 0.5)
    return found, cookie and cookie[1]


def header(name: str) -> HashKeySpec:
    return HashKeySpec(source="header", name=name)


def test_a_header() -> None:
    """In any spelling of its name; of several lines all count, as one value."""
    assert key(header("X-User"), fields=((b"x-user", b"alice"),)) == (hash_of(b"alice"), None)
    both = ((b"X-User", b"a"), (b"X-USER", b"b"))
    assert key(header("x-user"), fields=both) == (hash_of(b"a, b"), None)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/?user=alice", b"alice"),
        (b"/a?x=1&user=al%69ce&user=bob", b"alice"),
        (b"/?us%65r=a+b", b"a b"),
        (b"/?user", b""),
        (b"/?username=alice", None),
        (b"/user=alice", None),
    ],
)
def test_a_query_parameter(path: bytes, expected: bytes | None) -> None:
    """Decoded: who is the same person is the same in any spelling."""
    wanted = None if expected is None else hash_of(expected)
    assert key(HashKeySpec(source="query", name="user"), path=path) == (wanted, None)


def test_a_cookie() -> None:
    """That the client sends; without a time to live none is made."""
    spec = HashKeySpec(source="cookie", name="session")
    assert key(spec, fields=((b"Cookie", b"session=7"),)) == (hash_of(b"7"), None)
    assert key(spec) == (None, None)


@pytest.mark.parametrize(
    ("ttl", "scheme", "attributes"),
    [
        (0, b"http", b"; Path=/; HttpOnly; SameSite=Strict"),
        (60_000, b"http", b"; Path=/; Max-Age=60; HttpOnly; SameSite=Strict"),
        (1, b"https", b"; Path=/; Max-Age=1; HttpOnly; SameSite=Strict; Secure"),
    ],
)
def test_a_missing_cookie_is_made(ttl: int, scheme: bytes, attributes: bytes) -> None:
    """And its request is hashed by it already, so that the next goes to the same endpoint."""
    spec = HashKeySpec(source="cookie", name="session", cookie_ttl=ttl)
    found, made = key(spec, scheme=scheme)
    assert made is not None
    value, *_ = made.removeprefix(b"session=").split(b";")
    assert made == b"session=" + value + attributes
    assert key(spec, fields=((b"Cookie", b"session=" + value),)) == (found, None)


def test_who_calls() -> None:
    """By identity or by address, where there is one."""
    identity, address = HashKeySpec(source="identity"), HashKeySpec(source="address")
    assert key(identity) == (hash_of(ALICE.encode()), None)
    assert key(address) == (hash_of(b"192.0.2.7"), None)
    assert key(identity, address, identity="") == (hash_of(b"192.0.2.7"), None)
    assert key(identity, address, identity="", client=Client("")) == (None, None)


def test_the_first_that_is_there_counts() -> None:
    """In the order of configuration, not of the request."""
    specs = (header("x-user"), HashKeySpec(source="cookie", name="s", cookie_ttl=0))
    fields = ((b"Cookie", b"s=1"), (b"x-user", b"alice"))
    assert key(*specs, fields=fields) == (hash_of(b"alice"), None)
    assert key(*specs, fields=fields[:1]) == (hash_of(b"1"), None)
    found, cookie = key(*specs)
    assert found is not None
    assert cookie is not None


def test_an_opaque_connection_has_only_its_caller() -> None:
    """Nobody looks inside for headers."""
    hashing = HashKey((header("x-user"), HashKeySpec(source="address")))
    assert hashing.of_connection(ALICE, Client()) == hash_of(b"192.0.2.7")
    assert HashKey((header("x-user"),)).of_connection(ALICE, Client()) is None


@pytest.mark.parametrize("source", ["header", "cookie", "query"])
def test_a_source_without_a_name_is_an_error(source: str) -> None:
    """It says which of the keys."""
    specs = (HashKeySpec(source="address"), HashKeySpec(source=source))  # type: ignore[arg-type]
    with pytest.raises(
        ContractError, match=rf"^hash_keys\[1\].name: expected the name of the {source}"
    ):
        HashKey(specs)
