"""
The conversation between a proxy and its control plane.

Two WebSockets over TLS carry it, one JSON message a frame:

    /v1/identity    the proxy:  SigningRequest            the plane:  SigningAnswer | Refused
    /v1/discovery   the proxy:  Hello, Ack, Nack          the plane:  Update | Refused

The discovery stream needs a client certificate; identity needs one or a join token.  The plane
sends only what differs from what the proxy says it holds; the proxy applies an update whole or not
at all.  One update is in flight at a time: the next follows the answer to the last.
"""

from msgspec import Raw

from .resources import Kind
from .spec import Name, Spec

PROTOCOL = 1
"""Both sides must speak the same number; a change that the other could misread raises it."""


# Identity -----------------------------------------------------------------------------------------


class SigningRequest(Spec, frozen=True, kw_only=True, tag="sign", tag_field="type"):
    """
    Ask for an X.509-SVID.

    Attributes:
        workload: ``namespace/name`` of the workload that the proxy stands beside.
        csr: PEM certificate signing request; of its content only the public key counts.
        token: One-time join token; None when a current certificate proves who asks (renewal).
    """

    workload: Name
    csr: str
    token: str | None = None


class SigningAnswer(Spec, frozen=True, kw_only=True, tag="signed", tag_field="type"):
    """
    The certificate.

    Attributes:
        identity: The SPIFFE ID that was granted.
        chain: PEM, leaf first, intermediates after; without the root.
        roots: PEM certificates of the trust bundle, for first contact; later the trust that comes
            with the configuration counts, which cannot be older.
        not_before: Seconds since the epoch.
        not_after: Seconds since the epoch.
    """

    identity: str
    chain: str
    roots: tuple[str, ...]
    not_before: int
    not_after: int


class Refused(Spec, frozen=True, kw_only=True, tag="refused", tag_field="type"):
    """
    The plane's last word on a stream.

    Attributes:
        code: Stable name of the reason.
        reason: One plain sentence.
        retry: Whether asking again later can help.
    """

    code: str
    reason: str
    retry: bool = True


# Configuration ------------------------------------------------------------------------------------


class Hello(Spec, frozen=True, kw_only=True, tag="hello", tag_field="type"):
    """
    The proxy's first message.  Who it is comes from its certificate; this says the rest.

    Attributes:
        workload: ``namespace/name``; the certificate must belong to its service account.
        build: Version of the proxy program.
        admin: ``address:port`` of its metrics, or None.
        version: Version of the snapshot in force, or empty.
        held: For each kind, the version of each resource that the proxy holds.
    """

    workload: Name
    protocol: int = PROTOCOL
    build: str = ""
    admin: str | None = None
    version: str = ""
    held: dict[Kind, dict[str, str]] = {}


class Change(Spec, frozen=True, kw_only=True):
    """One resource that is new or different; `spec` is decoded as its kind asks."""

    kind: Kind
    name: Name
    version: str
    spec: Raw


class Removal(Spec, frozen=True, kw_only=True):
    kind: Kind
    name: Name


class Update(Spec, frozen=True, kw_only=True, tag="update", tag_field="type"):
    """
    A delta against what the proxy holds.

    Attributes:
        nonce: Echoed by the answer.
        version: Version of the snapshot that results; the proxy checks it.
    """

    nonce: str
    version: str
    changed: tuple[Change, ...] = ()
    removed: tuple[Removal, ...] = ()


class Ack(Spec, frozen=True, kw_only=True, tag="ack", tag_field="type"):
    """The update is in force."""

    nonce: str
    version: str


class Nack(Spec, frozen=True, kw_only=True, tag="nack", tag_field="type"):
    """
    The update was refused; the old snapshot stays in force.

    Attributes:
        version: The version still in force.
        path: Resource and field, such as ``virtual_host/default/catalog:80 routes[2].match``.
        reason: What is wrong with it.
    """

    nonce: str
    version: str
    path: str
    reason: str


FromProxy = Hello | Ack | Nack
FromPlane = Update | Refused
ToAuthority = SigningRequest
FromAuthority = SigningAnswer | Refused
