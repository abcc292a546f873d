"""
What our certificates say: roots, issuing certificates, SVIDs.  Pure: keys and time are arguments.

    root      CA, path length 1, names the trust domain        signs nothing but issuing certificates
    issuing   CA, path length 0, names the trust domain        signs nothing but SVIDs
    SVID      no CA, one URI SAN and no other name             X509-SVID sections 2 and 4

Each points to its issuer's key (authority key identifier), so that while a root rotates, and two of
one name are believed, nobody has to try which of them it was.
"""

from datetime import datetime, timedelta
from hashlib import sha256
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meshproxy.contract.spiffe import SpiffeError, SpiffeId

BACKDATED = timedelta(minutes=10)
"""A machine whose clock is this much behind still takes a new certificate for valid."""

Key = ec.EllipticCurvePrivateKey
IssuingKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
"""Our own are P-256; an operator's may be others."""


class Issuer(NamedTuple):
    """Who signs."""

    certificate: x509.Certificate
    key: IssuingKey


def new_key() -> Key:
    """Return a new P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def root(trust_domain: str, key: Key, now: datetime, lifetime: timedelta) -> x509.Certificate:
    """Return a root for `key`, signed by itself."""
    name = _name(trust_domain, "root", key)
    builder = _authority(trust_domain, name, name, key, now, now + lifetime, path_length=1)
    return builder.sign(key, hashes.SHA256())


def issuing(
    trust_domain: str, key: Key, by: Issuer, now: datetime, lifetime: timedelta
) -> x509.Certificate:
    """Return an issuing certificate for `key`; it does not outlive its root."""
    until = min(now + lifetime, by.certificate.not_valid_after_utc)
    name = _name(trust_domain, "issuing", key)
    builder = _authority(
        trust_domain, by.certificate.subject, name, key, now, until, path_length=0
    ).add_extension(_key_of(by), critical=False)
    return builder.sign(by.key, hashes.SHA256())


def svid(
    identity: SpiffeId,
    key: ec.EllipticCurvePublicKey,
    by: Issuer,
    now: datetime,
    lifetime: timedelta,
) -> x509.Certificate:
    """Return the certificate of `identity` for `key`; it does not outlive its issuer."""
    until = min(now + lifetime, by.certificate.not_valid_after_utc)
    return (
        _builder(by.certificate.subject, x509.Name([]), key, now - BACKDATED, until)
        .add_extension(
            # Critical, because the subject is empty (RFC 5280 section 4.2.1.6).
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(identity))]),
            critical=True,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
        .add_extension(_key_of(by), critical=False)
        .sign(by.key, hashes.SHA256())
    )


# Reading them -------------------------------------------------------------------------------------


def key_id(certificate: x509.Certificate) -> str:
    """Return the name of a certificate's key, in hexadecimal: what it signs points to that."""
    return _key_identifier(certificate).digest.hex()


def issuer_key_id(extensions: x509.Extensions) -> str:
    """Return the name of the key that signed a certificate, or an empty text."""
    try:
        found = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    except x509.ExtensionNotFound:
        return ""
    return (found.key_identifier or b"").hex()


def trust_domain_of(certificate: x509.Certificate) -> str:
    """Return the trust domain that an authority's certificate names, or an empty text."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
        return SpiffeId.parse(uri).trust_domain
    except (x509.ExtensionNotFound, ValueError, SpiffeError):
        return ""


def public_bytes(holder: x509.Certificate | IssuingKey) -> bytes:
    """Return the public key of a certificate, or of a private key, to compare it."""
    return holder.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """Return the SHA-256 of a public key, in hexadecimal."""
    der = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return sha256(der).hexdigest()


def pem(*certificates: x509.Certificate) -> str:
    """Return certificates as PEM."""
    return "".join(
        certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")
        for certificate in certificates
    )


def key_pem(key: IssuingKey) -> str:
    """Return a private key as PEM (PKCS #8)."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode("ascii")


# Their parts --------------------------------------------------------------------------------------


def _authority(
    trust_domain: str,
    issuer: x509.Name,
    subject: x509.Name,
    key: Key,
    now: datetime,
    until: datetime,
    *,
    path_length: int,
) -> x509.CertificateBuilder:
    uri = x509.UniformResourceIdentifier(str(SpiffeId(trust_domain)))
    return (
        _builder(issuer, subject, key.public_key(), now - BACKDATED, until)
        .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_usage(signs=True), critical=True)
    )


def _builder(
    issuer: x509.Name,
    subject: x509.Name,
    key: ec.EllipticCurvePublicKey,
    not_before: datetime,
    not_after: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(trust_domain: str, role: str, key: Key) -> x509.Name:
    # X.520 allows a common name 64 characters; the URI SAN has the whole trust domain.  The end is
    # the key's, so that people can tell two of them apart.
    number = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()[:8]
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "meshproxy"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{trust_domain} {role} {number}"[-64:]),
        ]
    )


def _key_of(issuer: Issuer) -> x509.AuthorityKeyIdentifier:
    own = _key_identifier(issuer.certificate)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _key_identifier(certificate: x509.Certificate) -> x509.SubjectKeyIdentifier:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:  # an operator's: RFC 5280 section 4.2.1.2 says how it is made
        return x509.SubjectKeyIdentifier.from_public_key(certificate.public_key())


def _usage(*, digital_signature: bool = False, signs: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
