"""
The words of HTTP that every part of the proxy shares: heads, fields and their names.

A *field* (RFC 9110 section 5) is kept as one tuple of three byte strings:

    (name in lower case, value, the line as it stands on an HTTP/1.1 wire, without CRLF)

The line is kept because most messages pass through unchanged: HTTP/1.1 to HTTP/1.1 then copies
whole lines, keeps the sender's spelling, and shares the tuple with the next message that carries
the same line.  HTTP/2 uses the first two.

This module imports nothing of ours.
"""

from collections.abc import Mapping
from typing import Any, Final

Field = tuple[bytes, bytes, bytes]
Fields = list[Field]

CHUNKED: Final = -1
"""`length` of a message whose end is marked in-band rather than announced (RFC 9112 section 7)."""

TUNNEL: Final = -3
"""
`length` of a request that asks to switch protocols (Upgrade, CONNECT) and of the response that
does: what follows is no body, but belongs to another protocol, in both directions at once.
"""


class RequestHead:
    """
    What a request says before its body.

    Attributes:
        method: As sent; methods are case-sensitive.
        scheme: ``b"http"`` or ``b"https"``, as the client meant it.
        authority: Host and optional port, as sent (RFC 9110 section 7.2).  Never empty.
        path: Path and query in origin form (``/a?b``), or ``*`` for ``OPTIONS *``.
        fields: End-to-end fields in order; never Host, never framing or hop-by-hop fields.
        mesh_fields: Fields that only a mesh proxy may set (``x-mesh-*``, identity headers),
            set apart by the codec so that nothing from outside is ever taken for ours.
            None when there were none.
        trace_fields: Those of `fields` that say which trace the request is part of; None when
            there are none.
        length: Bytes of the body as announced; `CHUNKED`; `TUNNEL`; or None when the message has
            no body.
        expect_continue: The client waits for ``100 Continue`` (RFC 9110 section 10.1.1).
        upgrade: The protocols that the client asks to switch to, most wanted first, else None.
        claims: Of its token, where it has had one that was right; else not set.
    """

    __slots__ = (
        "authority", "claims", "expect_continue", "fields", "length", "mesh_fields", "method",
        "path", "scheme", "trace_fields", "upgrade",
    )  # fmt: skip

    claims: Mapping[str, Any]

    def __init__(
        self,
        method: bytes,
        authority: bytes,
        path: bytes,
        fields: Fields,
        length: int | None = None,
        scheme: bytes = b"http",
    ) -> None:
        self.method = method
        self.scheme = scheme
        self.authority = authority
        self.path = path
        self.fields = fields
        self.mesh_fields: Fields | None = None
        self.trace_fields: Fields | None = None
        self.length = length
        self.expect_continue = False
        self.upgrade: bytes | None = None

    def __repr__(self) -> str:
        return f"<RequestHead {self.method!r} {self.authority!r} {self.path!r}>"


class ResponseHead:
    """
    What a response says before its body.

    Attributes:
        status: 100 to 599.  1xx heads are informational and precede the real one.
        reason: Reason phrase as sent; carries no meaning (RFC 9112 section 4).
        fields: End-to-end fields in order; never framing or hop-by-hop fields.
        length: Bytes of the body as announced (for HEAD and 304: what a GET would have had);
            `CHUNKED`; `TUNNEL`; or None when nothing was announced.
        upgrade: The protocol switched to on a 101, else None.
        mesh_fields: What claims to come from a mesh proxy, set apart from `fields` because an
            app's word for it does not count; None when there is nothing.
    """

    __slots__ = ("fields", "length", "mesh_fields", "reason", "status", "upgrade")

    def __init__(
        self, status: int, fields: Fields, length: int | None = None, reason: bytes = b""
    ) -> None:
        self.status = status
        self.reason = reason
        self.fields = fields
        self.mesh_fields: Fields | None = None
        self.length = length
        self.upgrade: bytes | None = None

    def __repr__(self) -> str:
        return f"<ResponseHead {self.status}>"


def field(name: bytes, value: bytes) -> Field:
    """Make a field of our own; name and value must already be valid (RFC 9110 section 5.6.2)."""
    return (name.lower(), value, name + b": " + value)


def value_of(fields: Fields, name: bytes) -> bytes | None:
    """
    Return the combined value of a field, or None when it is absent.

    Repeated fields are joined with ``", "`` (RFC 9110 section 5.3): who looks at only the first
    of several lines can be deceived by the second.
    """
    values = [f[1] for f in fields if f[0] == name]
    if not values:
        return None
    return values[0] if len(values) == 1 else b", ".join(values)


HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Fields that speak about one connection and end with it (RFC 9110 section 7.6.1)."""

TRACE_FIELDS: Final = frozenset({b"traceparent", b"b3", b"x-b3-traceid", b"x-request-id"})
"""Fields with the id of a trace: of W3C Trace Context, of Zipkin, of many gateways."""

MESH_FIELD_PREFIX: Final = b"x-mesh-"
IDENTITY_FIELDS: Final = frozenset(
    {
        b"x-forwarded-client-cert",
        b"x-envoy-peer-metadata",
        b"x-envoy-peer-metadata-id",
        b"l5d-client-id",
    }
)
"""Fields by which meshes tell an app who called; from outside they are lies until proved."""


def is_mesh_field(name: bytes) -> bool:
    """
    Say whether only a mesh proxy may set the field `name` (in lower case).

    Underscores count as hyphens: CGI-style servers fold them, so ``x_mesh_peer`` would reach
    an app under the name of ours.
    """
    name = name.replace(b"_", b"-")
    return name.startswith(MESH_FIELD_PREFIX) or name in IDENTITY_FIELDS
