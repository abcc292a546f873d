"""
The key of a request or connection: what consistent hashing keeps together.

Sources are asked in the order of configuration, and the first that the request has counts.  A cookie
with a time to live is always there: who does not send it gets one, with a random value, and is
hashed by that at once, so that the very first request goes where the others will.

`identity` is the SPIFFE ID of who calls: that of the app beside an outbound proxy, the peer's for an
inbound one.  `address` is the address that the connection comes from.  These two are all that an
opaque connection has.

Keys are no secrets, and who chooses the value of a header chooses where its requests go, among the
endpoints that there are: hashing spreads load, it does not limit it.

Called from: `Exchange._bind`, `Relay.begin`.   Configured by: `HashKeySpec`.
"""

from collections.abc import Callable, Sequence
from typing import Protocol
from urllib.parse import unquote_to_bytes

from meshproxy.contract.policies import HashKeySpec
from meshproxy.contract.wire import ContractError
from meshproxy.message import Field, RequestHead, value_of

from .consistent_hashing import KEYS, hash_of
from .cookies import cookie_of, set_cookie


class Client(Protocol):
    """Who a request or connection comes from."""

    @property
    def address(self) -> str:
        """Its IP address; empty where it has none."""


class HashKey:
    """Makes keys."""

    __slots__ = ("_specs",)

    def __init__(self, specs: Sequence[HashKeySpec], where: str = "hash_keys") -> None:
        """
        Raises:
            ContractError: A header, cookie or query parameter has no name.
        """
        for index, spec in enumerate(specs):
            if not spec.name and spec.source in ("header", "cookie", "query"):
                raise ContractError(
                    f"{where}[{index}].name", f"expected the name of the {spec.source}"
                )
        self._specs = tuple((spec, _named(spec)) for spec in specs)

    def of_request(
        self, head: RequestHead, identity: str, client: Client, random: Callable[[], float]
    ) -> tuple[int | None, Field | None]:
        """Return the key, if the request has one, and the cookie that its client shall have."""
        for spec, name in self._specs:
            value: bytes | None
            match spec.source:
                case "header":
                    value = value_of(head.fields, name)
                case "cookie":
                    value = cookie_of(head.fields, name)
                    if value is None and spec.cookie_ttl is not None:
                        value = b"%016x" % int(random() * KEYS)
                        return hash_of(value), _cookie(spec, name, value, head)
                case "query":
                    value = _parameter(head.path, name)
                case _:
                    value = _of_caller(spec, identity, client)
            if value is not None:
                return hash_of(value), None
        return None, None

    def of_connection(self, identity: str, client: Client) -> int | None:
        """Return the key of an opaque connection, if it has one."""
        for spec, _ in self._specs:
            value = _of_caller(spec, identity, client)
            if value is not None:
                return hash_of(value)
        return None


def _named(spec: HashKeySpec) -> bytes:
    name = spec.name.encode()
    return name.lower() if spec.source == "header" else name


def _of_caller(spec: HashKeySpec, identity: str, client: Client) -> bytes | None:
    value = ""
    if spec.source == "identity":
        value = identity
    elif spec.source == "address":
        value = client.address
    return value.encode() or None


def _cookie(spec: HashKeySpec, name: bytes, value: bytes, head: RequestHead) -> Field:
    lifetime = -(-(spec.cookie_ttl or 0) // 1000) or None
    secure = head.scheme == b"https"
    return set_cookie(name, value, path=b"/", max_age=lifetime, secure=secure)


def _parameter(path: bytes, name: bytes) -> bytes | None:
    """Return the value of a query parameter, decoded; the first, if there are many."""
    for pair in path.partition(b"?")[2].split(b"&"):
        key, _, value = pair.partition(b"=")
        if _decoded(key) == name:
            return _decoded(value)
    return None


def _decoded(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" "))
