"""
TLS contexts, and who is at the other end.

Between sidecars both ends show a certificate and both verify it (mutual TLS, 1.3 only).  Names
of hosts play no part: who a peer is, its SPIFFE ID says, which `peer_identity` reads from the
certificate that the handshake has verified.  No session is ever resumed (no tickets are
issued): a resumed session would skip the verification against today's roots.
"""

import contextlib
import os
import ssl
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Protocol

from meshproxy.contract.spiffe import SpiffeError, SpiffeId

from . import x509

ALPN_HTTP2 = "mesh-h2"
"""HTTP/2 between two sidecars."""
ALPN_HTTP1 = "mesh-h1"
"""HTTP/1.1 between two sidecars."""
ALPN_TCP = "mesh-tcp"
"""CONNECT streams over HTTP/2: opaque connections between two sidecars."""
ALPN_LANE = "mesh-lane"
"""One opaque connection between two sidecars, in segments (`meshproxy/lane.py`)."""
ALPN = [ALPN_HTTP2, ALPN_HTTP1]
"""What is offered for requests, in the order in which we like them."""
ALPN_BULK = [ALPN_HTTP1]
"""… for large bodies."""
ALPN_TRUNK = [ALPN_TCP]
"""… for opaque connections."""
ALPN_LANES = [ALPN_LANE, ALPN_TCP]
"""
… for a lane.  A peer that knows no lanes agrees to a trunk instead, and so says what it is: a handshake
without any agreement it might take for the app's own.
"""

_REMEMBERED: Final = 1024
"""Peers' certificates, half a kilobyte each, whose identity need not be read again."""


class _Session(ssl.SSLObject):
    """
    A TLS session that does not describe its peer's certificate in words.

    The event loop asks for that after every handshake, for `get_extra_info("peercert")`, and OpenSSL
    writes names, dates and extensions into a dict that nobody here reads: the identity comes from
    the DER form.
    """

    def getpeercert(self, binary_form: bool = False) -> Any:
        return super().getpeercert(binary_form=True) if binary_form else {}


class Transport(Protocol):
    """What an asyncio transport offers of its TLS."""

    def get_extra_info(self, name: str, default: Any = None) -> Any: ...


def server_context(certificate: Path, key: Path | None, roots: str) -> ssl.SSLContext:
    """
    Return the context with which a sidecar accepts its peers.

    Args:
        certificate: PEM, leaf first; `key` may stand in the same file.
        key: PEM, or None.
        roots: PEM text of the trust bundle.

    Raises:
        ssl.SSLError: Key and certificate do not match, or one of them is not PEM.
        OSError: A file cannot be read.
    """
    context = _mutual(ssl.PROTOCOL_TLS_SERVER, certificate, key, roots)
    context.set_alpn_protocols([*ALPN, ALPN_LANE, ALPN_TCP])
    context.num_tickets = 0
    return context


def client_context(certificate: Path, key: Path | None, roots: str) -> ssl.SSLContext:
    """Return the context with which a sidecar dials its peers, for requests; as `server_context`."""
    context = _mutual(ssl.PROTOCOL_TLS_CLIENT, certificate, key, roots)
    context.set_alpn_protocols(ALPN)
    return context


class Offer:
    """
    A client's context that offers certain protocols, for `loop.create_connection`.

    One context serves every purpose: to make one takes a millisecond and more (OpenSSL 3.0), each time
    that a certificate is renewed, and only what it offers would differ.  A session copies that when
    it is made, which is now.
    """

    __slots__ = ("_context", "_protocols")

    def __init__(self, context: ssl.SSLContext, protocols: list[str]) -> None:
        self._context = context
        self._protocols = protocols

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        self._context.set_alpn_protocols(self._protocols)
        return self._context.wrap_bio(*arguments, **options)


def plane_context(roots: str, certificate: Path | None = None) -> ssl.SSLContext:
    """
    Return the context with which a sidecar dials its control plane.

    Args:
        roots: PEM text of the roots that vouch for the plane.
        certificate: PEM of chain and key; None at first contact, when there is none yet.

    Raises:
        ssl.SSLError: As for `server_context`.
    """
    context = _verifying(ssl.PROTOCOL_TLS_CLIENT, roots)
    context.set_alpn_protocols(["http/1.1"])
    if certificate is not None:
        context.load_cert_chain(certificate)
    return context


def try_out(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """
    Have two ends shake hands with each other in memory, as a sidecar with another one would.

    Raises:
        ssl.SSLError: They do not believe each other.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(2):  # client: hello; server: its flight; client: finished; server: believes
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()


def _mutual(
    side: ssl._SSLMethod, certificate: Path, key: Path | None, roots: str
) -> ssl.SSLContext:
    context = _verifying(side, roots)
    with _whole_chain(certificate, roots) as chain:
        context.load_cert_chain(chain, key or certificate)
    context.sslobject_class = _Session
    return context


@contextlib.contextmanager
def _whole_chain(certificate: Path, roots: str) -> Iterator[Path]:
    """
    Yield a file with our certificate and those above it.

    Where a certificate stands alone OpenSSL looks for the rest among the roots, for each handshake
    anew, verifies every signature of what it has found, and sends it.  That takes a tenth of a
    handshake, and proves nothing to anybody: only the peer can judge us.  Given the same
    certificates it just sends them.
    """
    own = ""
    with contextlib.suppress(x509.CertificateError):  # it is OpenSSL's to say what is wrong
        chain = list(x509.chain(certificate.read_text("latin-1")))
        if len(chain) == 1:
            own = _with_those_above(chain[0], roots)
    if not own:
        yield certificate
        return
    descriptor = os.memfd_create("chain")  # no certificate can be loaded but from a file
    try:
        os.write(descriptor, own.encode("ascii"))
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


@lru_cache(maxsize=1)  # each is asked for twice: for who dials and for who is dialled
def _with_those_above(der: bytes, roots: str) -> str:
    """Return a chain in PEM; empty where no root is known to stand above the certificate."""
    above = x509.above(der, x509.chain(roots))
    return "".join(map(ssl.DER_cert_to_PEM_cert, (der, *above))) if above else ""


def _verifying(side: ssl._SSLMethod, roots: str) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # Level 2 refuses SHA-1 signatures and keys below 112 bits of strength.
    context.set_ciphers("DEFAULT@SECLEVEL=2")
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_TRUSTED_FIRST
    context.load_verify_locations(cadata=roots)
    return context


def peer_identity(
    connection: ssl.SSLObject | ssl.SSLSocket | Transport | None, trust_domain: str
) -> str | None:
    """
    Return the SPIFFE ID that the peer has proved, or None when it has proved none.

    X509-SVID section 4 and 5: a leaf has exactly one URI SAN, which is a SPIFFE ID, and may sign
    nothing.  Other SANs mean nothing here: a SPIFFE ID in a DNS name is no SPIFFE ID.

    Args:
        connection: An `ssl.SSLObject` or `SSLSocket`, or an asyncio transport.
        trust_domain: The domain whose authority our roots belong to; they vouch for no other.
    """
    if isinstance(connection, ssl.SSLObject | ssl.SSLSocket):
        tls: ssl.SSLObject | ssl.SSLSocket | None = connection
    else:
        tls = connection.get_extra_info("ssl_object") if connection is not None else None
    der = tls.getpeercert(binary_form=True) if tls is not None else None
    return None if der is None else _identity_in(der, trust_domain)


# The same peer comes with the same certificate for hours, and the same bytes say the same.  That
# they are valid today is not remembered: OpenSSL has verified them in this handshake.
@lru_cache(maxsize=_REMEMBERED)
def _identity_in(der: bytes, trust_domain: str) -> str | None:
    try:
        return str(svid_identity(der, trust_domain))
    except (x509.CertificateError, SpiffeError):
        return None


def protocol(transport: Transport | None) -> str | None:
    """Return the protocol that both ends have agreed on; None over plaintext, or if they have not."""
    tls = transport.get_extra_info("ssl_object") if transport is not None else None
    agreed: str | None = tls.selected_alpn_protocol() if tls is not None else None
    return agreed


def refused_our_certificate(error: Exception | None) -> bool:
    """
    Say whether the server has judged our certificate, and read nothing of the request.

    With TLS 1.3 a client believes the handshake done before that judgement, which arrives as an
    alert in place of the first bytes.  Other alerts and errors of TLS prove nothing: a record that
    somebody has tampered with may be the answer to a request that was executed.
    """
    if not isinstance(error, ssl.SSLError):
        return False
    reason = error.reason or ""
    return "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason)


def svid_identity(der: bytes, trust_domain: str) -> SpiffeId:
    """
    Return the identity that an X.509-SVID carries.

    Raises:
        CertificateError: It is not the leaf of an SVID.
        SpiffeError: Its URI is not a SPIFFE ID of the trust domain.
    """
    facts = x509.read(der)
    if facts.authority:
        raise x509.CertificateError("expected a leaf certificate, found an authority's")
    if len(facts.uris) != 1:
        raise x509.CertificateError(f"expected one URI SAN, found {len(facts.uris)}")
    identity = SpiffeId.parse(facts.uris[0])
    if identity.trust_domain != trust_domain:
        raise SpiffeError(f"{identity}: expected an identity of {trust_domain}")
    return identity
