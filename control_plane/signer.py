"""
Who signs: a root, and one issuing certificate under it with its key.

    own       root and root key, made here: another issuing certificate can be made at any time
    given     an operator's PEM files: root, issuing certificate (and what is between), its key.
              The root's key need not be here, and should not be.

A given signer is tried before it is used: a certificate that it signs must pass the verification
that every sidecar does.  What is wrong with a file is said with its name and what was expected.
"""

import ssl
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from msgspec import Struct

from meshproxy import private_file
from meshproxy.contract.spiffe import SpiffeId

from . import certificate as certificates
from .certificate import Issuer, IssuingKey

ROOT_LIFETIME = timedelta(days=3650)
ISSUING_LIFETIME = timedelta(days=365)
_SHORTEST_RSA = 2048


class SignerError(Exception):
    """Keys or certificates cannot be used to sign; names the file, says what was expected."""


class Given(NamedTuple):
    """
    An operator's own files.

    Attributes:
        root: PEM of one root certificate.
        certificate: PEM of the issuing certificate; certificates between it and the root after it.
        key: PEM of the issuing certificate's key, mode 0600.
    """

    root: Path
    certificate: Path
    key: Path


class SignerFile(Struct, frozen=True, kw_only=True):
    """A signer as text, all PEM, for a file of ours."""

    root: str
    root_key: str | None = None
    chain: str
    key: str


class Signer(NamedTuple):
    """
    Attributes:
        root: What vouches for all the rest.
        root_key: None when the root is an operator's.
        chain: The issuing certificate, then what is between it and the root.
        key: Of the issuing certificate.
    """

    root: x509.Certificate
    root_key: IssuingKey | None
    chain: tuple[x509.Certificate, ...]
    key: IssuingKey

    @property
    def issuer(self) -> Issuer:
        return Issuer(self.chain[0], self.key)

    @property
    def root_id(self) -> str:
        """Name of the root's key."""
        return certificates.key_id(self.root)

    @property
    def issuer_id(self) -> str:
        """Name of the issuing key: every certificate that it has signed points to it."""
        return certificates.key_id(self.chain[0])

    def to_file(self) -> SignerFile:
        return SignerFile(
            root=certificates.pem(self.root),
            root_key=None if self.root_key is None else certificates.key_pem(self.root_key),
            chain=certificates.pem(*self.chain),
            key=certificates.key_pem(self.key),
        )


def from_file(file: SignerFile) -> Signer:
    """
    Return what `Signer.to_file` has written.

    Raises:
        SignerError: Somebody else has written it.
    """
    root_key = None if file.root_key is None else parse_key(file.root_key.encode(), "its root key")
    (root,) = parse_certificates(file.root.encode(), "its root")
    chain = parse_certificates(file.chain.encode(), "its chain")
    return Signer(root, root_key, chain, parse_key(file.key.encode(), "its key"))


def created(trust_domain: str, now: datetime) -> Signer:
    """Return a new root with an issuing certificate under it."""
    key = certificates.new_key()
    return issued(certificates.root(trust_domain, key, now, ROOT_LIFETIME), key, trust_domain, now)


def issued(
    root: x509.Certificate, root_key: IssuingKey, trust_domain: str, now: datetime
) -> Signer:
    """Return a signer with a new issuing certificate under a root of ours."""
    key = certificates.new_key()
    by = Issuer(root, root_key)
    chain = (certificates.issuing(trust_domain, key, by, now, ISSUING_LIFETIME),)
    return Signer(root, root_key, chain, key)


def given(files: Given, trust_domain: str, now: datetime) -> Signer:
    """
    Return an operator's signer.

    Raises:
        SignerError: A file is missing, readable by others, or not what it should be; or nobody
            would believe what it signs.
    """
    root, *more = parse_certificates(_content(files.root), str(files.root))
    if more:
        raise SignerError(f"{files.root}: expected one root certificate, found {1 + len(more)}")
    chain = parse_certificates(_content(files.certificate), str(files.certificate))
    try:
        key = parse_key(private_file.read(files.key) or b"", str(files.key))
    except private_file.PrivateFileError as error:
        raise SignerError(str(error)) from error
    _check_root(files.root, root, trust_domain, now)
    for one in chain:
        _check_authority(files.certificate, one, trust_domain, now)
    if certificates.public_bytes(chain[0]) != certificates.public_bytes(key):
        raise SignerError(f"{files.key}: is not the key of {_subject(chain[0])}, the first"
                          f" certificate in {files.certificate}")  # fmt: skip
    for one, above in zip(chain, (*chain[1:], root), strict=True):
        try:
            one.verify_directly_issued_by(above)
        except (ValueError, TypeError, InvalidSignature):
            raise SignerError(
                f"{files.certificate}: {_subject(one)} is not signed by {_subject(above)}; expected"
                f" the issuing certificate, then what is between it and the root in {files.root}"
            ) from None
    signer = Signer(root, None, chain, key)
    _try(signer, trust_domain, now, str(files.certificate))
    return signer


def parse_certificates(data: bytes, where: str) -> tuple[x509.Certificate, ...]:
    """
    Return all certificates of a PEM text, one or more.

    Raises:
        SignerError: There is none, or something else.
    """
    try:
        found = tuple(x509.load_pem_x509_certificates(data))
        for one in found:
            _ = one.extensions  # parsed when they are asked for
    except ValueError as error:
        raise SignerError(f"{where}: expected PEM certificates: {error}") from error
    return found


def parse_key(data: bytes, where: str) -> IssuingKey:
    """
    Return the key of a PEM text.

    Raises:
        SignerError: There is none that we sign with.
    """
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except TypeError as error:
        raise SignerError(f"{where}: expected a key without a password") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignerError(f"{where}: expected a PEM key") from error
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in ("secp256r1", "secp384r1"):
        return key
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= _SHORTEST_RSA:
        return key
    raise SignerError(f"{where}: expected a key on the curve P-256 or P-384, or RSA of at least"
                      f" {_SHORTEST_RSA} bits")  # fmt: skip


# Is it what it should be? -------------------------------------------------------------------------


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SignerError(f"{path}: cannot be read: {error.strerror}") from error


def _check_root(path: Path, root: x509.Certificate, trust_domain: str, now: datetime) -> None:
    try:
        root.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature):
        raise SignerError(
            f"{path}: {_subject(root)} is not signed by itself; expected a root certificate"
        ) from None
    _check_authority(path, root, trust_domain, now)


def _check_authority(
    path: Path, certificate: x509.Certificate, trust_domain: str, now: datetime
) -> None:
    who = _subject(certificate)
    if certificate.not_valid_after_utc <= now:
        raise SignerError(f"{path}: {who} has expired, on {certificate.not_valid_after_utc}")
    if certificate.not_valid_before_utc > now:
        raise SignerError(f"{path}: {who} is not valid before {certificate.not_valid_before_utc}")
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        raise SignerError(f"{path}: {who} has no basic constraints; expected CA:TRUE") from None
    if not constraints.ca:
        raise SignerError(f"{path}: {who} is no authority's: expected CA:TRUE")
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        raise SignerError(f"{path}: {who} has no key usage; expected keyCertSign") from None
    if not usage.key_cert_sign:
        raise SignerError(f"{path}: {who} may not sign certificates: expected keyCertSign")
    named = certificates.trust_domain_of(certificate)
    if named not in ("", trust_domain):
        raise SignerError(f"{path}: {who} is of the trust domain {named!r}, expected"
                          f" {trust_domain!r}")  # fmt: skip


def _try(signer: Signer, trust_domain: str, now: datetime, where: str) -> None:
    """Have two ends shake hands with a certificate that it signs, as two sidecars would."""
    key = certificates.new_key()
    identity = SpiffeId.of(trust_domain, "mesh-system", "trial")
    leaf = certificates.svid(identity, key.public_key(), signer.issuer, now, timedelta(minutes=5))
    with TemporaryDirectory() as folder:
        file = Path(folder, "trial.pem")  # readable by us alone, like its folder
        private_file.write(
            file, (certificates.key_pem(key) + certificates.pem(leaf, *signer.chain)).encode()
        )
        try:
            ends = [_end(side, file, signer.root) for side in (True, False)]
        except ssl.SSLError as error:
            raise SignerError(f"{where}: cannot be used: {error.reason or error}") from error
    (server, to_server), (client, to_client) = (
        (context.wrap_bio(inward, outward, server_side=side), (inward, outward))
        for side, context in zip((True, False), ends, strict=True)
        for inward, outward in [(ssl.MemoryBIO(), ssl.MemoryBIO())]
    )
    for _ in range(4):  # a handshake of TLS 1.3 needs less
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLCertVerificationError as error:
                raise SignerError(
                    f"{where}: nobody would believe what it signs: {error.verify_message}"
                ) from error
            except ssl.SSLError as error:
                raise SignerError(f"{where}: cannot be used: {error.reason or error}") from error
            to_server[0].write(to_client[1].read())
            to_client[0].write(to_server[1].read())


def _end(server: bool, file: Path, root: x509.Certificate) -> ssl.SSLContext:
    # As `meshproxy.identity.tls` has it: level 2 refuses SHA-1 and short keys, STRICT is RFC 5280.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_ciphers("DEFAULT@SECLEVEL=2")
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_TRUSTED_FIRST
    context.load_verify_locations(cadata=certificates.pem(root))
    context.load_cert_chain(file)
    return context


def _subject(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or f"certificate {certificate.serial_number:x}"
