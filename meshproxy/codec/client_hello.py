"""
What a TLS client says before anything is encrypted: which name it calls, which protocols it offers.

The app's own TLS passes through us unread; only its first message is looked at, to route it by name
(SNI, RFC 6066 section 3), and to tell a mesh peer from everybody else (ALPN, RFC 7301 section 3.1).

**Strict where it decides, tolerant where it does not.**  A message whose lengths do not add up, or
that says something twice, names nobody: a name that another parser would read differently must not
choose a route.  What we do not know (GREASE, RFC 8701; Encrypted Client Hello, whose outer name is
the one to go by) is stepped over.  The message may be cut into any number of reads, and into
`RECORDS` records: each read looks at all of them again, so a message in records of one byte, sent
byte by byte, would cost half a minute of CPU.
"""

from typing import Final, NamedTuple

LIMIT: Final = 16 * 1024
"""Bytes of records that a ClientHello may take; a larger one names nobody."""

RECORDS: Final = 64
"""Records that a ClientHello may take; clients use one, and a few where they hide from censors."""

_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0
_PROTOCOLS: Final = 16
_HOST_NAME: Final = 0
_LONGEST_NAME: Final = 253
_NAME: Final = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_.")


class ClientHello(NamedTuple):
    """
    Attributes:
        server_name: In lower case, without a dot at the end; None when it names nobody.
        protocols: Those that it offers (ALPN), in its order.
    """

    server_name: str | None = None
    protocols: tuple[bytes, ...] = ()


NOTHING: Final = ClientHello()


class _MalformedError(Exception):
    """Its lengths do not add up."""


def read_client_hello(data: bytes) -> ClientHello | None:
    """Return what a connection's first bytes say, or None when more of them are needed."""
    message = bytearray()
    at = 0
    for _ in range(RECORDS):
        if at + 5 > len(data):
            return NOTHING if len(data) > LIMIT else None
        length = int.from_bytes(data[at + 3 : at + 5])
        if data[at] != _HANDSHAKE or data[at + 1] != 3 or not 0 < length <= LIMIT:
            return NOTHING
        at += 5
        message += data[at : at + length]
        at += length
        if len(message) < 4:
            continue
        wanted = 4 + int.from_bytes(message[1:4])
        if message[0] != _CLIENT_HELLO or wanted > LIMIT:
            return NOTHING
        if len(message) >= wanted:
            try:
                return _read(bytes(message[4:wanted]))
            except _MalformedError:
                return NOTHING
    return NOTHING


class _Cursor:
    """Takes pieces off a string, as TLS writes them: a length, then that many bytes."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def done(self) -> bool:
        return self._at == len(self._data)

    def take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        if len(taken) < count:
            raise _MalformedError
        self._at += count
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def vector(self, size: int) -> "_Cursor":
        """Take what a length of `size` bytes announces."""
        return _Cursor(self.take(self.number(size)))


def _read(body: bytes) -> ClientHello:
    """Read the message of RFC 8446 section 4.1.2."""
    cursor = _Cursor(body)
    cursor.take(2 + 32)  # version and random
    cursor.vector(1)  # session
    cursor.vector(2)  # cipher suites
    cursor.vector(1)  # compression methods
    if cursor.done():  # before TLS 1.2 there need not be any extensions
        return NOTHING
    extensions = cursor.vector(2)
    if not cursor.done():
        raise _MalformedError
    seen: set[int] = set()
    server_name: str | None = None
    protocols: tuple[bytes, ...] = ()
    while not extensions.done():
        kind = extensions.number(2)
        content = extensions.vector(2)
        if kind in seen:  # "There MUST NOT be more than one extension of the same type"
            raise _MalformedError
        seen.add(kind)
        if kind == _SERVER_NAME:
            server_name = _read_server_name(content)
        elif kind == _PROTOCOLS:
            protocols = _read_protocols(content)
    return ClientHello(server_name, protocols)


def _read_server_name(content: _Cursor) -> str | None:
    names = content.vector(2)
    if not content.done() or names.done():
        raise _MalformedError
    found: bytes | None = None
    while not names.done():
        kind, name = names.number(1), names.take(names.number(2))
        if kind == _HOST_NAME:
            if found is not None:  # "MUST NOT contain more than one name of the same name_type"
                raise _MalformedError
            found = name
    if found is None:
        return None
    found = found.lower().removesuffix(b".")
    if not 0 < len(found) <= _LONGEST_NAME or not _NAME.issuperset(found):
        return None
    return found.decode("ascii")


def _read_protocols(content: _Cursor) -> tuple[bytes, ...]:
    offered = content.vector(2)
    if not content.done():
        raise _MalformedError
    protocols = []
    while not offered.done():
        protocols.append(offered.take(offered.number(1)))
    return tuple(protocols)
