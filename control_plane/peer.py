"""
Who is at the other end of a TLS connection, and the context that asks.

A client certificate is optional at the level of TLS, because a proxy at first contact has none;
what needs one, the handlers of the conversations decide.  The rules for reading it are those of
X509-SVID section 4 and 5: one URI SAN, a SPIFFE ID of our trust domain, on a leaf.
"""

import asyncio
import ssl
from pathlib import Path
from typing import NamedTuple

from cryptography import x509

from meshproxy.contract.spiffe import SpiffeError, SpiffeId

from .certificate import issuer_key_id


class Peer(NamedTuple):
    """
    Attributes:
        identity: What the client certificate proves.
        not_after: When it expires, in seconds since the epoch.
        issuer: Name of the key that signed it.
        serial: In hexadecimal.
    """

    identity: SpiffeId
    not_after: float
    issuer: str
    serial: str


def server_context(certificate: Path, roots: tuple[str, ...]) -> ssl.SSLContext:
    """
    Return the context of the discovery port.

    Args:
        certificate: PEM file of key and chain.
        roots: PEM certificates that vouch for clients.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_ciphers("DEFAULT@SECLEVEL=2")
    # A resumed session would skip the verification against today's roots.
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_TRUSTED_FIRST
    context.load_verify_locations(cadata="".join(roots))
    context.load_cert_chain(certificate)
    return context


def peer_of(transport: asyncio.BaseTransport | None, trust_domain: str) -> Peer | None:
    """Return whom the client certificate of a connection proves, or None."""
    connection = transport.get_extra_info("ssl_object") if transport is not None else None
    der = connection.getpeercert(binary_form=True) if connection is not None else None
    return read(der, trust_domain) if der else None


def read(der: bytes, trust_domain: str) -> Peer | None:
    """Return whom a verified certificate proves, or None when it is no SVID of the trust domain."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        extensions = certificate.extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
        identity = SpiffeId.parse(uri)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, SpiffeError):
        return None
    if identity.trust_domain != trust_domain or _may_sign(extensions):
        return None
    return Peer(
        identity,
        certificate.not_valid_after_utc.timestamp(),
        issuer_key_id(extensions),
        f"{certificate.serial_number:x}",
    )


def _may_sign(extensions: x509.Extensions) -> bool:
    for extension in extensions:
        match extension.value:
            case x509.BasicConstraints(ca=True):
                return True
            case x509.KeyUsage() as usage if usage.key_cert_sign or usage.crl_sign:
                return True
    return False
