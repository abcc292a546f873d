"""
Switching protocols: what Upgrade asks for, what may be relayed, and what an answer must say.

A request that asks to switch is an exchange like any other until its answer has come.  What the
two versions of HTTP say for the same thing (RFC 9110 section 7.8, RFC 8441):

    HTTP/1.1   GET /chat        Connection: Upgrade, Upgrade: websocket     → 101, Upgrade: websocket
    HTTP/2     CONNECT /chat    :protocol: websocket                        → 200

In between it is the former: `RequestHead.upgrade` and a `length` of `TUNNEL`; 101 with
`ResponseHead.upgrade`.

**Never relayed** is Upgrade to another version of HTTP or to TLS: inside, requests would pass that
no policy has seen ("h2c smuggling").  Everything else is relayed unread.

**WebSocket** over HTTP/1.1 proves with a key and its hash that the server has understood the
request (RFC 6455 section 4.2.2); over HTTP/2 there is neither (RFC 8441 section 5).  So where only
one of the two sides speaks HTTP/2, its sidecar plays the other part.
"""

import base64
import hashlib
from functools import lru_cache
from typing import Final

from . import MalformedError
from .fields import LONGEST_CACHED, is_token

WEBSOCKET: Final = b"websocket"
KEY: Final = b"sec-websocket-key"
ACCEPT: Final = b"sec-websocket-accept"

_NEVER_RELAYED: Final = frozenset({b"h2c", b"h2", b"h3", b"http", b"tls"})
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def read_protocols(lines: list[bytes]) -> bytes | None:
    """
    Return the protocols of Upgrade that may be relayed, as one list; None when there are none.

    Raises:
        MalformedError: One is not ``name`` or ``name/version`` (RFC 9110 section 7.8).
    """
    return _protocols(b", ".join(lines))


@lru_cache(maxsize=64)
def _protocols(value: bytes) -> bytes | None:
    if len(value) > LONGEST_CACHED:
        _protocols.cache_clear()  # others choose what is remembered: of long ones, never more than one
    relayed = []
    for member in value.split(b","):
        protocol = member.strip(b" \t")
        if not protocol:  # RFC 9110 section 5.6.1.2: empty list elements are ignored
            continue
        name, slash, version = protocol.partition(b"/")
        if not is_token(name) or (slash and not is_token(version)):
            raise MalformedError("malformed-request", f"protocol {protocol[:64]!r}")
        name = name.lower()
        if name == WEBSOCKET:
            relayed.append(WEBSOCKET)
        elif name not in _NEVER_RELAYED:
            relayed.append(protocol)
    return b", ".join(relayed) or None


def first_of(protocols: bytes) -> bytes:
    """Return the one that goes into ``:protocol``, which has room for one: the most wanted."""
    return protocols.partition(b",")[0]


def was_asked_for(answered: bytes | None, asked: bytes | None) -> bool:
    """
    Say whether a 101 switches to what was asked for.

    RFC 9110 section 15.2.2: it "MUST generate an Upgrade header field in the response that
    indicates which protocol(s) will be in effect", and section 7.8: "A server MUST NOT switch to a
    protocol that was not indicated by the client".
    """
    if not answered or not asked:
        return False
    return _members(answered) <= _members(asked)


def _members(protocols: bytes) -> set[bytes]:
    return {member.strip(b" \t").lower() for member in protocols.split(b",")}


def websocket_key(nonce: bytes) -> bytes:
    """Return the value of Sec-WebSocket-Key for 16 random bytes."""
    return base64.b64encode(nonce)


def websocket_accept(key: bytes) -> bytes:
    """Return the value of Sec-WebSocket-Accept that proves that `key` was read."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
