"""
The certificate authority: two keys, and a signature on who is who.

    root (10 years)  ──signs──▶  issuing (1 year)  ──signs──▶  X.509-SVID (a day or less)

The root's key signs nothing but issuing certificates.  Both are created at first start and kept
0600 in the state directory.  `roots.pem` is the trust bundle: the own root, and any others that
an operator adds there, so that a root rotates in three steps without an outage (add the new one,
sign with it, remove the old one).

An SVID carries one URI SAN and nothing else that names anybody (X509-SVID sections 2 and 4).
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meshproxy import private_file
from meshproxy.contract.spiffe import SpiffeId

log = logging.getLogger(__name__)

_ROOT_LIFETIME = timedelta(days=3650)
_ISSUING_LIFETIME = timedelta(days=365)
# A proxy whose clock is this much behind still takes its certificate for valid.
_BACKDATED = timedelta(minutes=10)
_LARGEST_REQUEST = 16 << 10


def _now() -> datetime:
    return datetime.now(UTC)


class AuthorityError(Exception):
    """The authority cannot start with what it found in its directory; says what and where."""


class BadRequest(ValueError):  # noqa: N818 - a fact about the request
    """A signing request cannot be signed; says why."""


class Signed(NamedTuple):
    """
    Attributes:
        chain: PEM, leaf first, without the root.
        serial: Of the leaf, in hexadecimal, for the audit log.
    """

    chain: str
    not_before: int
    not_after: int
    serial: str


class _Pair(NamedTuple):
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


class Authority:
    """
    Attributes:
        trust_domain: Fixed when the root was created.
    """

    def __init__(
        self, directory: Path, trust_domain: str, clock: Callable[[], datetime] = _now
    ) -> None:
        """
        Open the authority, and create it at first start.

        Raises:
            AuthorityError: Files are missing, damaged, readable by others, of another trust
                domain, or the root has expired.
        """
        self.trust_domain = trust_domain
        self._clock = clock
        self._directory = directory
        try:
            private_file.directory(directory)
            if not (directory / "root.key").exists() and not (directory / "roots.pem").exists():
                self._create_root()
            self._bundle = self._read_bundle()
            self._root = self._read_root()
            self._issuing = self._read_issuing() or self._create_issuing()
        except private_file.PrivateFileError as error:
            raise AuthorityError(str(error)) from error

    def roots(self) -> tuple[str, ...]:
        """Return the trust bundle, one PEM certificate each, the own root first."""
        return self._bundle

    def check(self, csr: str) -> ec.EllipticCurvePublicKey:
        """
        Return the key of a signing request; its signature proves possession of the key.

        Raises:
            BadRequest: It is not a request, its signature is wrong, or its key is of a kind that
                we do not sign.
        """
        if len(csr) > _LARGEST_REQUEST:
            raise BadRequest(f"expected at most {_LARGEST_REQUEST} bytes")
        try:
            request = x509.load_pem_x509_csr(csr.encode())
            key = request.public_key()
            genuine = request.is_signature_valid
        except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
            raise BadRequest("expected a certificate signing request in PEM form") from error
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
            raise BadRequest("expected a key on the curve P-256")
        if not genuine:
            raise BadRequest("the request is not signed by its own key")
        return key

    def sign(self, csr: str, identity: SpiffeId, lifetime: timedelta) -> Signed:
        """
        Issue a certificate of `identity` for the key of a signing request; nothing else of the
        request counts.

        Raises:
            BadRequest: As for `check`.
        """
        return self._issue(self.check(csr), identity, lifetime)

    def issue(self, identity: SpiffeId, lifetime: timedelta) -> tuple[str, Signed]:
        """Return a new key (PEM) and its certificate: the control plane's own."""
        key = ec.generate_private_key(ec.SECP256R1())
        return _key_pem(key).decode("ascii"), self._issue(key.public_key(), identity, lifetime)

    def _issue(
        self, key: ec.EllipticCurvePublicKey, identity: SpiffeId, lifetime: timedelta
    ) -> Signed:
        if identity.trust_domain != self.trust_domain or identity.service_account is None:
            raise BadRequest(f"{identity} is not an identity that this authority issues")
        self._renew_issuing(lifetime)
        now = self._clock()
        issuer = self._issuing
        not_after = min(now + lifetime, issuer.certificate.not_valid_after_utc)
        leaf = (
            _builder(issuer.certificate.subject, x509.Name([]), key, now - _BACKDATED, not_after)
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
            .add_extension(_issuer_key(issuer), critical=False)
            .sign(issuer.key, hashes.SHA256())
        )
        return Signed(
            chain=_pem(leaf) + _pem(issuer.certificate),
            not_before=int(leaf.not_valid_before_utc.timestamp()),
            not_after=int(leaf.not_valid_after_utc.timestamp()),
            serial=f"{leaf.serial_number:x}",
        )

    # The files --------------------------------------------------------------------------------

    def _create_root(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(self.trust_domain, "root")
        now = self._clock()
        root = (
            _builder(name, name, key.public_key(), now - _BACKDATED, now + _ROOT_LIFETIME)
            .add_extension(_domain(self.trust_domain), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        private_file.write(self._directory / "root.key", _key_pem(key))
        private_file.write(self._directory / "roots.pem", _pem(root).encode())
        log.info("authority of %s created in %s", self.trust_domain, self._directory)

    def _create_issuing(self) -> _Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        now = self._clock()
        root = self._root
        until = min(now + _ISSUING_LIFETIME, root.certificate.not_valid_after_utc)
        certificate = (
            _builder(
                root.certificate.subject,
                _name(self.trust_domain, "issuing"),
                key.public_key(),
                now - _BACKDATED,
                until,
            )
            .add_extension(_domain(self.trust_domain), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(_issuer_key(root), critical=False)
            .sign(root.key, hashes.SHA256())
        )
        # One file, so that key and certificate are replaced at one stroke.
        private_file.write(
            self._directory / "issuing.pem", _key_pem(key) + _pem(certificate).encode()
        )
        log.info("issuing certificate created, good until %s", until.isoformat(timespec="seconds"))
        return _Pair(certificate, key)

    def _renew_issuing(self, lifetime: timedelta) -> None:
        # An issuer must outlive what it signs; a root that is near its own end cannot help that.
        wanted = max(2 * lifetime, _ISSUING_LIFETIME / 12)
        ends = self._issuing.certificate.not_valid_after_utc
        if ends - self._clock() < wanted and ends < self._root.certificate.not_valid_after_utc:
            self._issuing = self._create_issuing()

    def _read_bundle(self) -> tuple[str, ...]:
        path = self._directory / "roots.pem"
        try:
            roots = x509.load_pem_x509_certificates(self._content("roots.pem"))
        except ValueError as error:
            raise AuthorityError(f"{path}: expected PEM certificates: {error}") from error
        for root in roots:
            if root.not_valid_after_utc <= self._clock():
                log.warning("%s: the root %s has expired", path, root.subject.rfc4514_string())
        return tuple(_pem(root) for root in roots)

    def _read_root(self) -> _Pair:
        key = self._key("root.key")
        public = _public(key)
        for pem in self._bundle:
            root = x509.load_pem_x509_certificate(pem.encode())
            if _public(root) == public:
                break
        else:
            raise AuthorityError(f"{self._directory}: roots.pem has no certificate of root.key")
        if _domain_of(root) != self.trust_domain:
            raise AuthorityError(
                f"{self._directory}: this authority is that of {_domain_of(root)!r}, but MeshConfig"
                f" says {self.trust_domain!r}; a trust domain is fixed once the authority exists"
            )
        if root.not_valid_after_utc <= self._clock():
            raise AuthorityError(
                f"{self._directory}: the root expired on {root.not_valid_after_utc}"
            )
        self._bundle = (_pem(root), *(pem for pem in self._bundle if pem != _pem(root)))
        return _Pair(root, key)

    def _read_issuing(self) -> _Pair | None:
        if not (self._directory / "issuing.pem").exists():
            return None
        key = self._key("issuing.pem")
        try:
            certificate = x509.load_pem_x509_certificate(self._content("issuing.pem"))
            certificate.verify_directly_issued_by(self._root.certificate)
        except (ValueError, InvalidSignature):
            log.warning("the issuing certificate is not of this root; making another")
            return None
        return None if _public(certificate) != _public(key) else _Pair(certificate, key)

    def _content(self, name: str) -> bytes:
        data = private_file.read(self._directory / name)
        if data is None:
            raise AuthorityError(f"{self._directory / name}: is missing; restore it from a backup")
        return data

    def _key(self, name: str) -> ec.EllipticCurvePrivateKey:
        try:
            key = serialization.load_pem_private_key(self._content(name), password=None)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise AuthorityError(f"{self._directory / name}: expected a PEM key") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise AuthorityError(f"{self._directory / name}: expected a key on the curve P-256")
        return key


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


def _name(trust_domain: str, role: str) -> x509.Name:
    # X.520 allows a common name 64 characters; the URI SAN has the whole trust domain.
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "meshproxy"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{trust_domain} {role}"[-64:]),
        ]
    )


def _domain(trust_domain: str) -> x509.SubjectAlternativeName:
    uri = x509.UniformResourceIdentifier(str(SpiffeId(trust_domain)))
    return x509.SubjectAlternativeName([uri])


def _domain_of(root: x509.Certificate) -> str:
    try:
        names = root.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
        return SpiffeId.parse(uri).trust_domain
    except (x509.ExtensionNotFound, ValueError):
        return ""


def _issuer_key(issuer: _Pair) -> x509.AuthorityKeyIdentifier:
    own = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


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


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _public(holder: x509.Certificate | ec.EllipticCurvePrivateKey) -> bytes:
    return holder.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
