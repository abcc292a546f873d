"""
The certificate authority: two keys, and a signature on who is who.

    root (10 years)  ──signs──▶  issuing (1 year)  ──signs──▶  X.509-SVID (a day or less)

Both are made at first start, or are an operator's own (`signer.py`), and lie 0600 in the state
directory: `root.key`, `issuing.pem` (key and chain), and `roots.pem`, the trust bundle that every
proxy is given.  An operator may add roots there, or take added ones away again, at any time.

**A rotation** replaces root or issuing certificate.  The authority knows what may be done in which
phase, and can be stopped after every single write; when to go on, `rotation.py` decides.

    begin ─▶ spreading ───switch──▶ renewing ───finish──▶ (over)
             both roots   │         signed by the new,
             are believed │         the old one still believed
                          └ abort: forget the new root;  later: switch back, and wait as long

`rotation.json` says what is so.  A switch is written there first (phase `switching`) and then done;
whoever finds it half done at start does it again.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from msgspec import Struct

from meshproxy import private_file
from meshproxy.contract import wire
from meshproxy.contract.spiffe import SpiffeId

from . import certificate as certificates
from . import signer as signers
from .certificate import Issuer, IssuingKey
from .ledger import Entry, Ledger
from .signer import ISSUING_LIFETIME, Given, Signer, SignerError, SignerFile

log = logging.getLogger(__name__)

_LARGEST_REQUEST = 16 << 10
_OURS = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}

What = Literal["root", "issuer"]


def _now() -> datetime:
    return datetime.now(UTC)


class AuthorityError(Exception):
    """The authority cannot work with what it found in its directory; says what and where."""


class BadRequest(ValueError):  # noqa: N818 - a fact about the request
    """A signing request cannot be signed; says why."""


class AsksForMore(BadRequest):
    """A signing request asks for what its sender may not have; says for what."""


class RefusedError(Exception):
    """A rotation cannot do now what it is told; says why."""


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


class Rotation(Struct, frozen=True, kw_only=True):
    """
    A rotation under way, as `rotation.json` keeps it.

    Attributes:
        started: Seconds since the epoch.
        back: It was aborted after the switch: the old signer signs again.
        until: When the last certificate of the previous signer ends; 0 before the switch.
        next: Who will sign; None after the switch.
        previous: Who has signed; None before the switch.
    """

    what: What
    phase: Literal["spreading", "switching", "renewing"]
    started: float
    back: bool = False
    until: float = 0.0
    next: SignerFile | None = None
    previous: SignerFile | None = None


class Authority:
    """
    Attributes:
        trust_domain: Fixed when the root was created.
        ledger: Which certificates are out.
        rotation: What is under way, or None.
        on_changed: Called when the trust bundle or who signs has changed.
    """

    def __init__(
        self,
        directory: Path,
        trust_domain: str,
        clock: Callable[[], datetime] = _now,
        given: Given | None = None,
    ) -> None:
        """
        Open the authority, and create it at first start.

        Args:
            directory: Of its own.
            trust_domain: Of the mesh.
            clock: Tells the time.
            given: The operator's own root and issuing certificate; None to make them.

        Raises:
            AuthorityError: Files are missing, damaged, readable by others, of another trust
                domain, or the root has expired.
        """
        self.trust_domain = trust_domain
        self.rotation: Rotation | None = None
        self.on_changed: Callable[[], None] = _nobody
        self._clock = clock
        self._directory = directory
        self._given = given
        try:
            private_file.directory(directory)
            if not any((directory / name).exists() for name in ("root.key", "roots.pem")):
                self._create()
            self.rotation = self._read_rotation()
            if self.rotation is not None and self.rotation.phase == "switching":
                self._switch_files(self.rotation)
            self._signer = self._read_signer()
            self._bundle = self._complete(self._read_roots())
            self._seen = self._stamp()
            self.ledger = Ledger(directory / "issued.jsonl", self._time())
        except (private_file.PrivateFileError, SignerError) as error:
            raise AuthorityError(str(error)) from error
        self._compare_with_given()

    # What it says and does --------------------------------------------------------------------

    @property
    def signer(self) -> Signer:
        """Who signs."""
        return self._signer

    def roots(self) -> tuple[str, ...]:
        """Return the trust bundle, one PEM certificate each, the one that signs first."""
        return tuple(certificates.pem(root) for root in self._bundle)

    def check(self, csr: str, identity: SpiffeId) -> ec.EllipticCurvePublicKey:
        """
        Return the key of a signing request; its signature proves possession of the key.

        A request need not ask for anything: what the certificate will say, we decide.  One that
        does ask for something else was made by somebody who expects to get it.

        Raises:
            BadRequest: It is not a request, its signature is wrong, or its key is of a kind that
                we do not sign.
            AsksForMore: It asks for another name than `identity`, or for a right to sign.
        """
        if len(csr) > _LARGEST_REQUEST:
            raise BadRequest(f"expected at most {_LARGEST_REQUEST} bytes")
        try:
            request = x509.load_pem_x509_csr(csr.encode())
            key = request.public_key()
            genuine = request.is_signature_valid
            subject, asked = request.subject, request.extensions
        except (
            ValueError,
            TypeError,  # of a name whose parts are of kinds that they cannot be of
            UnsupportedAlgorithm,
            InvalidSignature,
            x509.DuplicateExtension,
            x509.InvalidVersion,
            x509.UnsupportedGeneralNameType,
        ) as error:
            raise BadRequest("expected a certificate signing request in PEM form") from error
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
            raise BadRequest("expected a key on the curve P-256")
        if not genuine:
            raise BadRequest("the request is not signed by its own key")
        if len(subject):
            raise AsksForMore("it asks for a subject; an SVID has none")
        for extension in asked:
            if what := _more(extension.value, identity):
                raise AsksForMore(f"it asks for {what}")
        return key

    def sign(self, csr: str, identity: SpiffeId, lifetime: timedelta, workload: str) -> Signed:
        """
        Issue a certificate of `identity` for the key of a signing request, and write it down.

        Raises:
            BadRequest: As for `check`.
            AuthorityError: Whoever signs has expired.
            PrivateFileError: It could not be written down, so it was not issued.
        """
        signed = self._issue(self.check(csr, identity), identity, lifetime)
        entry = Entry(
            workload=workload,
            serial=signed.serial,
            issuer=self._signer.issuer_id,
            root=self._signer.root_id,
            not_after=signed.not_after,
        )
        self.ledger.note(entry, self._time())
        return signed

    def issue(self, identity: SpiffeId, lifetime: timedelta) -> tuple[str, Signed]:
        """
        Return a new key (PEM) and its certificate: the control plane's own.

        Raises:
            AuthorityError: Whoever signs has expired.
        """
        key = certificates.new_key()
        return certificates.key_pem(key), self._issue(key.public_key(), identity, lifetime)

    def _issue(
        self, key: ec.EllipticCurvePublicKey, identity: SpiffeId, lifetime: timedelta
    ) -> Signed:
        if identity.trust_domain != self.trust_domain or identity.service_account is None:
            raise BadRequest(f"{identity} is not an identity that this authority issues")
        self._renew_issuing(lifetime)
        ends, now = self._signer.chain[0].not_valid_after_utc, self._clock()
        if ends <= now:
            raise AuthorityError(f"the issuing certificate expired on {ends}; replace it")
        leaf = certificates.svid(identity, key, self._signer.issuer, now, lifetime)
        return Signed(
            chain=certificates.pem(leaf, *self._signer.chain),
            not_before=int(leaf.not_valid_before_utc.timestamp()),
            not_after=int(leaf.not_valid_after_utc.timestamp()),
            serial=f"{leaf.serial_number:x}",
        )

    def _renew_issuing(self, lifetime: timedelta) -> None:
        # An issuer must outlive what it signs; a root that is near its own end cannot help that.
        wanted = max(2 * lifetime, ISSUING_LIFETIME / 12)
        signer = self._signer
        ends = signer.chain[0].not_valid_after_utc
        if ends - self._clock() >= wanted or ends >= signer.root.not_valid_after_utc:
            return
        if signer.root_key is not None:
            self._signer = self._replace_issuing(Issuer(signer.root, signer.root_key))

    # A rotation, step by step -----------------------------------------------------------------

    def begin(self, what: What) -> Rotation:
        """
        Begin to replace the root (and what is under it), or the issuing certificate alone.

        Raises:
            RefusedError: One is under way, or there is nothing to replace it with; says why.
            PrivateFileError: It cannot be written down.
        """
        if self.rotation is not None:
            under_way = self.rotation
            raise RefusedError(
                f"a rotation of the {under_way.what} is under way ({under_way.phase}); let it end,"
                " or abort it"
            )
        following = self._next_of_given(what) if self._given else self._next_of_own(what)
        rotation = Rotation(
            what=what, phase="spreading", started=self._time(), next=following.to_file()
        )
        self._write_rotation(rotation)
        self._believe(self._bundle)
        log.warning("rotation of the %s begun: next is %s", what, _described(following))
        return rotation

    def _next_of_own(self, what: What) -> Signer:
        if what == "root":
            return signers.created(self.trust_domain, self._clock())
        root, root_key = self._signer.root, self._signer.root_key
        if root_key is None:
            raise RefusedError("the issuing certificate is an operator's, and the root's key is not"
                               " here; name the new files in `authority`")  # fmt: skip
        return self._new_issuing(root, root_key)

    def _next_of_given(self, what: What) -> Signer:
        assert self._given is not None
        try:
            following = signers.given(self._given, self.trust_domain, self._clock())
        except SignerError as error:
            raise RefusedError(str(error)) from error
        same_root = following.root == self._signer.root
        if following.chain == self._signer.chain and same_root:
            raise RefusedError(f"{self._given.certificate} is what signs now; put the new files in"
                               " the place of the old ones first")  # fmt: skip
        if what == "root" and same_root:
            raise RefusedError(f"{self._given.root} is the root in force, and only what is under it"
                               " differs: that is a rotation of the issuer")  # fmt: skip
        if what == "issuer" and not same_root:
            raise RefusedError(f"{self._given.root} is another root than that in force: that is a"
                               " rotation of the root")  # fmt: skip
        return following

    def switch(self, lifetime: timedelta) -> Rotation:
        """
        Sign with the new one from now on; everybody must believe it already.

        Args:
            lifetime: How long certificates live at present: none of the old ones, also of those
                that an earlier version has not written down, lives longer from now on.

        Raises:
            RefusedError: There is nothing to switch to.
            PrivateFileError: It cannot be written; a switch half done is done at the next start.
        """
        rotation = self.rotation
        if rotation is None or rotation.phase != "spreading":
            raise RefusedError("no rotation waits for its new root to be believed")
        return self._switch(rotation, lifetime)

    def _switch(self, rotation: Rotation, lifetime: timedelta) -> Rotation:
        old = self._signer
        written_down = (
            self.ledger.until(root=old.root_id)
            if rotation.what == "root"
            else self.ledger.until(issuer=old.issuer_id)
        )
        switching = msgspec.structs.replace(
            rotation,
            phase="switching",
            previous=old.to_file(),
            until=max(written_down, self._time() + lifetime.total_seconds()),
        )
        self._write_rotation(switching)
        return self._carry_out(switching)

    def carry_on(self) -> None:
        """
        Do what is left of a switch that was cut off, by a full disk, say.

        Raises:
            PrivateFileError: It still cannot be written.
        """
        if self.rotation is not None and self.rotation.phase == "switching":
            self._carry_out(self.rotation)

    def _carry_out(self, switching: Rotation) -> Rotation:
        rotation = self._switch_files(switching)
        self._signer = self._read_signer()
        log.warning("rotation: %s signs from now on", _described(self._signer))
        self._believe(self._bundle)
        return rotation

    def finish(self) -> None:
        """
        Forget the old one: nothing that it has signed is good any more.

        Raises:
            RefusedError: Certificates of the old one are still good, or it still signs.
            PrivateFileError: It cannot be written.
        """
        rotation = self.rotation
        if rotation is None or rotation.phase != "renewing" or rotation.previous is None:
            raise RefusedError("no rotation waits for old certificates to end")
        if self._time() < rotation.until:
            raise RefusedError("certificates of the old one are still good")
        self._end(rotation, signers.from_file(rotation.previous))
        log.warning("rotation of the %s is over: %s", rotation.what, _described(self._signer))

    def abort(self, lifetime: timedelta) -> Rotation | None:
        """
        Take a rotation back; return what is still to be waited for, if anything.

        Raises:
            RefusedError: There is none, or it is being taken back.
            PrivateFileError: It cannot be written.
        """
        rotation = self.rotation
        if rotation is None:
            raise RefusedError("no rotation is under way")
        if rotation.back:
            raise RefusedError("the rotation is being taken back already")
        if rotation.phase == "switching":
            raise RefusedError("the switch is half done; once it is whole, it can be taken back")
        log.warning("rotation of the %s aborted (%s)", rotation.what, rotation.phase)
        if rotation.phase == "spreading" and rotation.next is not None:
            self._end(rotation, signers.from_file(rotation.next))
            return None
        back = msgspec.structs.replace(rotation, back=True, next=rotation.previous)
        return self._switch(back, lifetime)

    def _end(self, rotation: Rotation, without: Signer) -> None:
        # `rotation.json` goes last: found without it, the root would be an operator's, and stay.
        self.rotation = None
        gone = {without.root} - {self._signer.root}
        try:
            self._believe(tuple(root for root in self._bundle if root not in gone))
        except private_file.PrivateFileError:
            self.rotation = rotation
            raise
        (self._directory / "rotation.json").unlink(missing_ok=True)

    # The trust bundle -------------------------------------------------------------------------

    def reread(self) -> bool:
        """
        Obey `roots.pem` if somebody has changed it; say whether the bundle is another now.

        A root that a rotation or a certificate that is out depends on cannot be taken away; the
        file is then not obeyed, which is logged.
        """
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        self._seen = stamp
        try:
            found = self._read_roots()
            missing = [root for root in self._needed() if root not in found]
            if missing:
                raise SignerError(
                    f"{self._directory / 'roots.pem'}: lacks {_subject(missing[0])}, on which"
                    " certificates depend that are in use; put it back (`meshctl certs rotate-root`"
                    " replaces a root)"
                )
        except (SignerError, AuthorityError, private_file.PrivateFileError) as error:
            log.error("the trust bundle stays as it was: %s", error)
            return False
        before = self._bundle
        self._bundle = self._complete(found)
        if self._bundle == before:
            return False
        log.warning("trust bundle changed: %s", ", ".join(map(_subject, self._bundle)))
        self.on_changed()
        return True

    def _needed(self) -> tuple[x509.Certificate, ...]:
        """Return the roots without which something would break, the one that signs first."""
        rotation = self.rotation
        files = () if rotation is None else (rotation.next, rotation.previous)
        others = (signers.from_file(file).root for file in files if file is not None)
        return tuple(dict.fromkeys((self._signer.root, *others)))

    def _complete(self, found: tuple[x509.Certificate, ...]) -> tuple[x509.Certificate, ...]:
        return tuple(dict.fromkeys((*self._needed(), *found)))

    def _believe(self, roots: tuple[x509.Certificate, ...]) -> None:
        self._bundle = self._complete(roots)
        private_file.write(
            self._directory / "roots.pem", certificates.pem(*self._bundle).encode("ascii")
        )
        self._seen = self._stamp()
        self.on_changed()

    def _stamp(self) -> tuple[int, int, int]:
        try:
            found = (self._directory / "roots.pem").stat()
        except OSError:
            return (0, 0, 0)
        return (found.st_ino, found.st_mtime_ns, found.st_size)

    # The files --------------------------------------------------------------------------------

    def _create(self) -> None:
        if self._given is not None:
            signer = signers.given(self._given, self.trust_domain, self._clock())
        else:
            signer = signers.created(self.trust_domain, self._clock())
        self._write_signer(signer, (signer.root,))
        log.info("authority of %s created in %s", self.trust_domain, self._directory)

    def _write_signer(self, signer: Signer, roots: tuple[x509.Certificate, ...]) -> None:
        self._write_issuing(signer)
        if signer.root_key is not None:
            key = certificates.key_pem(signer.root_key).encode("ascii")
            private_file.write(self._directory / "root.key", key)
        else:
            (self._directory / "root.key").unlink(missing_ok=True)
        private_file.write(self._directory / "roots.pem", certificates.pem(*roots).encode("ascii"))

    def _write_issuing(self, signer: Signer) -> None:
        # One file, so that key and certificate are replaced at one stroke.
        private_file.write(
            self._directory / "issuing.pem",
            (certificates.key_pem(signer.key) + certificates.pem(*signer.chain)).encode("ascii"),
        )

    def _switch_files(self, rotation: Rotation) -> Rotation:
        assert rotation.next is not None
        following = signers.from_file(rotation.next)
        roots = self._read_roots()
        self._write_signer(following, tuple(dict.fromkeys((following.root, *roots))))
        rotation = msgspec.structs.replace(rotation, phase="renewing", next=None)
        self._write_rotation(rotation)
        return rotation

    def _write_rotation(self, rotation: Rotation) -> None:
        private_file.write(self._directory / "rotation.json", wire.encode(rotation))
        self.rotation = rotation

    def _read_rotation(self) -> Rotation | None:
        path = self._directory / "rotation.json"
        data = private_file.read(path)
        try:
            return None if data is None else wire.decode(data, Rotation)
        except wire.ContractError as error:
            raise AuthorityError(f"{path}: {error}") from error

    def _read_roots(self) -> tuple[x509.Certificate, ...]:
        path = self._directory / "roots.pem"
        roots = signers.parse_certificates(self._content("roots.pem"), str(path))
        for root in roots:
            if root.not_valid_after_utc <= self._clock():
                log.warning("%s: the root %s has expired", path, _subject(root))
        return tuple(dict.fromkeys(roots))

    def _read_signer(self) -> Signer:
        roots = self._read_roots()
        own = None
        if (self._directory / "root.key").exists() or self._given is None:
            own = self._own_root(roots)
        signer = self._read_issuing(roots, own)
        root = signer.root
        named = certificates.trust_domain_of(root)
        if named not in ("", self.trust_domain):
            raise AuthorityError(
                f"{self._directory}: this authority is that of {named!r}, but MeshConfig says"
                f" {self.trust_domain!r}; a trust domain is fixed once the authority exists"
            )
        if root.not_valid_after_utc <= self._clock():
            raise AuthorityError(
                f"{self._directory}: the root expired on {root.not_valid_after_utc}"
            )
        return signer

    def _own_root(self, roots: tuple[x509.Certificate, ...]) -> Issuer:
        key = signers.parse_key(self._content("root.key"), str(self._directory / "root.key"))
        for root in roots:
            if certificates.public_bytes(root) == certificates.public_bytes(key):
                return Issuer(root, key)
        raise AuthorityError(f"{self._directory}: roots.pem has no certificate of root.key")

    def _read_issuing(self, roots: tuple[x509.Certificate, ...], own: Issuer | None) -> Signer:
        path = self._directory / "issuing.pem"
        if own is not None and not path.exists():
            return self._replace_issuing(own)
        content = self._content("issuing.pem")
        key = signers.parse_key(content, str(path))
        chain = signers.parse_certificates(content, str(path))
        genuine = certificates.public_bytes(chain[0]) == certificates.public_bytes(key)
        above = next((root for root in roots if _issued(chain[-1], root)), None)
        if own is None:
            if not genuine or above is None:
                raise AuthorityError(f"{path}: its certificate is not that of its key, or is under"
                                     " no root in roots.pem")  # fmt: skip
            return Signer(above, None, chain, key)
        if genuine and above == own.certificate:
            return Signer(above, own.key, chain, key)
        log.warning("the issuing certificate is not of this root; making another")
        return self._replace_issuing(own)

    def _replace_issuing(self, own: Issuer) -> Signer:
        signer = self._new_issuing(own.certificate, own.key)
        self._write_issuing(signer)
        return signer

    def _new_issuing(self, root: x509.Certificate, root_key: IssuingKey) -> Signer:
        signer = signers.issued(root, root_key, self.trust_domain, self._clock())
        log.info("issuing certificate created: %s", _described(signer))
        return signer

    def _compare_with_given(self) -> None:
        """Say so if an operator has put new files where the old ones were."""
        if self._given is None:
            return
        try:
            found = signers.given(self._given, self.trust_domain, self._clock())
        except SignerError as error:
            log.warning("%s; signing goes on with %s", error, _described(self._signer))
            return
        if found.chain != self._signer.chain:
            verb = "rotate-issuer" if found.root == self._signer.root else "rotate-root"
            log.warning("%s is not what signs: `meshctl certs %s` brings it into force",
                        self._given.certificate, verb)  # fmt: skip

    def _content(self, name: str) -> bytes:
        data = private_file.read(self._directory / name)
        if data is None:
            own = name == "root.key"
            hint = " (if the root is an operator's, `authority` must name its files)" if own else ""
            raise AuthorityError(
                f"{self._directory / name}: is missing; restore it from a backup{hint}"
            )
        return data

    def _time(self) -> float:
        return self._clock().timestamp()


def _more(asked: x509.ExtensionType, identity: SpiffeId) -> str:
    """Return what an extension of a request asks for beyond what will be granted, if anything."""
    match asked:
        case x509.SubjectAlternativeName():
            if list(asked) == [x509.UniformResourceIdentifier(str(identity))]:
                return ""
            return f"other names than {identity}"
        case x509.BasicConstraints():
            return "the right to sign certificates" if asked.ca else ""
        case x509.KeyUsage():
            if asked.key_cert_sign or asked.crl_sign:
                return "the right to sign certificates"
            return "more than TLS needs" if asked.content_commitment else ""
        case x509.ExtendedKeyUsage():
            return "" if set(asked) <= _OURS else "another use than TLS"
        case x509.SubjectKeyIdentifier():
            return ""
        case _:
            return f"the extension {asked.oid.dotted_string}"


def _issued(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _subject(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string()


def _described(signer: Signer) -> str:
    ends = signer.chain[0].not_valid_after_utc.isoformat(timespec="seconds")
    return f"{_subject(signer.chain[0])} under {_subject(signer.root)}, good until {ends}"


def _nobody() -> None:
    """Nobody wants to know yet."""
