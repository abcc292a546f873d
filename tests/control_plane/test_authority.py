import ssl
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from control_plane import certificate
from control_plane.authority import (
    AsksForMore,
    Authority,
    AuthorityError,
    BadRequest,
    RefusedError,
)
from control_plane.signer import Given
from meshproxy import private_file
from meshproxy.contract.spiffe import SpiffeId
from tests.helpers.certificates import BOTH, TestAuthority, key_pem, pem, uri, usage

CATALOG = SpiffeId.of("mesh.local", "default", "catalog")
HOUR = timedelta(hours=1)
WORKLOAD = "default/catalog-v1"


def request(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    *extensions: x509.ExtensionType,
    subject: str = "",
) -> str:
    """Return a signing request; one that asks for nothing, unless a test wants more."""
    names = [x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)] if subject else []
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    made = builder.sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


KEY = ec.generate_private_key(ec.SECP256R1())
CSR = request(KEY)


def altered(csr: str, old: bytes, new: bytes) -> str:
    """Return a request in which some bytes are others, as no tool would make it."""
    der = ssl.PEM_cert_to_DER_cert(csr.replace(" REQUEST", ""))
    assert old in der
    pem = ssl.DER_cert_to_PEM_cert(der.replace(old, new, 1))
    return pem.replace("CERTIFICATE", "CERTIFICATE REQUEST")


STRANGE = {
    "a version that there is none of": altered(CSR, b"\x02\x01\x00", b"\x02\x01\x3f"),
    "a subject that is a string of bits": altered(
        request(KEY, subject="admin"), b"\x0c\x05admin", b"\x03\x05admin"
    ),
}


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


def test_a_certificate_says_who_and_nothing_else(tmp_path: Path) -> None:
    """It is as X509-SVID wants it."""
    authority = Authority(tmp_path, "mesh.local")
    signed = authority.sign(CSR, CATALOG, HOUR, WORKLOAD)
    leaf, issuing = x509.load_pem_x509_certificates(signed.chain.encode())
    (root,) = (x509.load_pem_x509_certificate(pem.encode()) for pem in authority.roots())
    now = datetime.now(UTC)

    leaf.verify_directly_issued_by(issuing)
    issuing.verify_directly_issued_by(root)
    assert leaf.public_key() == KEY.public_key()
    assert leaf.subject == x509.Name([])
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert list(names.value) == [x509.UniformResourceIdentifier(str(CATALOG))]
    assert names.critical
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.digital_signature, usage.key_cert_sign, usage.crl_sign) == (True, False, False)
    extended = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(extended) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    # Backdated for slow clocks: at least ten minutes.
    assert now - leaf.not_valid_before_utc >= timedelta(minutes=10)
    assert abs(leaf.not_valid_after_utc - now - HOUR) < timedelta(seconds=5)
    assert signed.not_after == int(leaf.not_valid_after_utc.timestamp())


def test_serial_numbers_are_random(tmp_path: Path) -> None:
    """No two certificates share one, nor follow one another."""
    authority = Authority(tmp_path, "mesh.local")
    serials = {authority.sign(CSR, CATALOG, HOUR, WORKLOAD).serial for _ in range(20)}
    assert len(serials) == 20
    assert all(len(serial) > 30 for serial in serials)


@pytest.mark.parametrize(
    ("csr", "reason"),
    [
        ("", "expected a certificate signing request"),
        ("é", "expected a certificate signing request"),
        (CSR.replace("CERTIFICATE REQUEST", "CERTIFICATE"), "expected a certificate signing request"),
        *((csr, "expected a certificate signing request") for csr in STRANGE.values()),
        (CSR + " " * 20_000, "expected at most"),
        (request(rsa.generate_private_key(65537, 2048)), "expected a key on the curve P-256"),
        (request(ec.generate_private_key(ec.SECP384R1())), "expected a key on the curve P-256"),
    ],
)  # fmt: skip
def test_what_is_no_proper_request_is_refused(csr: str, reason: str, tmp_path: Path) -> None:
    """Garbage, another kind of PEM, a key that we do not sign."""
    with pytest.raises(BadRequest, match=reason):
        Authority(tmp_path, "mesh.local").sign(csr, CATALOG, HOUR, WORKLOAD)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (request(KEY, subject="admin\r\nx"), "asks for a subject"),
        (request(KEY, x509.SubjectAlternativeName([uri("spiffe://mesh.local/ns/a/sa/b")])), "other names"),
        (request(KEY, x509.SubjectAlternativeName([uri(str(CATALOG)), x509.DNSName("x")])), "other names"),
        (request(KEY, x509.SubjectAlternativeName([x509.DNSName(str(CATALOG))])), "other names"),
        (request(KEY, x509.BasicConstraints(ca=True, path_length=None)), "right to sign"),
        (request(KEY, usage(signs=True)), "right to sign"),
        (request(KEY, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])), "another use"),
        (request(KEY, x509.NameConstraints([x509.DNSName("x")], None)), "the extension 2.5.29.30"),
    ],
)  # fmt: skip
def test_who_asks_for_more_gets_nothing(more: str, reason: str, tmp_path: Path) -> None:
    """Other names, the right to sign, another use: not left out in silence, but refused."""
    with pytest.raises(AsksForMore, match=reason):
        Authority(tmp_path, "mesh.local").sign(more, CATALOG, HOUR, WORKLOAD)


def test_who_asks_for_just_what_is_granted_gets_it(tmp_path: Path) -> None:
    """A request made with other tools may say what it expects."""
    modest = request(
        KEY,
        x509.SubjectAlternativeName([uri(str(CATALOG))]),
        x509.BasicConstraints(ca=False, path_length=None),
        usage(),
        x509.ExtendedKeyUsage(BOTH),
    )
    assert Authority(tmp_path, "mesh.local").sign(modest, CATALOG, HOUR, WORKLOAD)


def test_who_does_not_hold_the_key_gets_no_certificate_for_it(tmp_path: Path) -> None:
    """A request with somebody's public key but another's signature is refused."""
    data = bytearray(x509.load_pem_x509_csr(CSR.encode()).public_bytes(serialization.Encoding.DER))
    data[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(data)).public_bytes(serialization.Encoding.PEM).decode()
    with pytest.raises(BadRequest, match=r"not signed by its own key|signing request"):
        Authority(tmp_path, "mesh.local").sign(forged, CATALOG, HOUR, WORKLOAD)


@pytest.mark.parametrize("identity", ["spiffe://other.local/ns/a/sa/b", "spiffe://mesh.local"])
def test_it_issues_only_identities_of_its_own_workloads(identity: str, tmp_path: Path) -> None:
    """Neither another trust domain's nor its own name."""
    with pytest.raises(BadRequest, match="is not an identity that this authority issues"):
        Authority(tmp_path, "mesh.local").sign(CSR, SpiffeId.parse(identity), HOUR, WORKLOAD)


def test_files_are_private_and_a_restart_keeps_the_authority(tmp_path: Path) -> None:
    """0600 in 0700; a new process is the same authority."""
    state = tmp_path / "authority"
    first = Authority(state, "mesh.local")
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    first.sign(CSR, CATALOG, HOUR, WORKLOAD)
    first.begin("root")
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in state.iterdir()}
    names = ("root.key", "roots.pem", "issuing.pem", "issued.jsonl", "rotation.json")
    assert files == dict.fromkeys(names, 0o600)
    again = Authority(state, "mesh.local")
    assert again.roots() == first.roots()
    chains = [a.sign(CSR, CATALOG, HOUR, WORKLOAD).chain for a in (first, again)]
    assert len({x509.load_pem_x509_certificates(chain.encode())[1] for chain in chains}) == 1


def test_the_bundle_may_hold_more_roots(tmp_path: Path) -> None:
    """A root that an operator adds is active too; the own one comes first."""
    own = Authority(tmp_path, "mesh.local").roots()[0]
    other = pem(TestAuthority().certificate)
    (tmp_path / "roots.pem").write_text(other + own)
    assert Authority(tmp_path, "mesh.local").roots() == (own, other)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("root.key", None, "root.key: is missing; restore it from a backup"),
        ("roots.pem", None, "roots.pem: is missing"),
        ("root.key", "nonsense", "root.key: expected a PEM key"),
        ("roots.pem", "nonsense", "roots.pem: expected PEM certificates"),
        ("issuing.pem", "nonsense", "issuing.pem: expected a PEM key"),
        ("roots.pem", TestAuthority().pem, "roots.pem has no certificate of root.key"),
    ],
)
def test_damage_is_an_error_and_never_a_new_authority(
    name: str, content: str | None, reason: str, tmp_path: Path
) -> None:
    """To start over would lock every running proxy out; the operator decides."""
    Authority(tmp_path, "mesh.local")
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(content)
    with pytest.raises(AuthorityError, match=reason):
        Authority(tmp_path, "mesh.local")


def test_a_key_that_others_can_read_is_an_error(tmp_path: Path) -> None:
    """The operator is told which file and which mode."""
    Authority(tmp_path, "mesh.local")
    (tmp_path / "root.key").chmod(0o644)
    with pytest.raises(AuthorityError, match=r"root\.key: has mode 0644, expected 0600"):
        Authority(tmp_path, "mesh.local")


def test_a_trust_domain_is_fixed(tmp_path: Path) -> None:
    """Another one in MeshConfig is an error that explains itself."""
    Authority(tmp_path, "mesh.local")
    with pytest.raises(AuthorityError, match=r"that of 'mesh\.local', but MeshConfig says 'new"):
        Authority(tmp_path, "new.local")


def test_a_trust_domain_of_any_legal_length(tmp_path: Path) -> None:
    """Common names end at 64 characters, trust domains at 255."""
    domain = "a" * 200 + ".local"
    assert Authority(tmp_path, domain).sign(CSR, SpiffeId.of(domain, "a", "b"), HOUR, WORKLOAD)


def test_an_issuer_outlives_what_it_signs(tmp_path: Path) -> None:
    """Near its end the issuing certificate is renewed by itself; the root stays."""
    clock = Clock()
    authority = Authority(tmp_path, "mesh.local", clock)
    roots = authority.roots()
    first = authority.sign(CSR, CATALOG, HOUR, WORKLOAD).chain
    clock.now += timedelta(days=364, hours=23, minutes=30)
    second = authority.sign(CSR, CATALOG, HOUR, WORKLOAD).chain
    issuers = [x509.load_pem_x509_certificates(chain.encode())[1] for chain in (first, second)]
    assert issuers[0] != issuers[1]
    leaf = x509.load_pem_x509_certificates(second.encode())[0]
    assert leaf.not_valid_after_utc - clock.now > timedelta(minutes=59)
    assert authority.roots() == roots


def test_an_expired_root_is_an_error(tmp_path: Path) -> None:
    """Nothing that it signs would be believed."""
    clock = Clock()
    Authority(tmp_path, "mesh.local", clock)
    clock.now += timedelta(days=3651)
    with pytest.raises(AuthorityError, match="the root expired"):
        Authority(tmp_path, "mesh.local", clock)


# A rotation ---------------------------------------------------------------------------------------


def issuers(authority: Authority) -> tuple[str, str]:
    """Return the keys of issuing certificate and root of a certificate that is signed now."""
    leaf, *chain = x509.load_pem_x509_certificates(
        authority.sign(CSR, CATALOG, HOUR, WORKLOAD).chain.encode()
    )
    leaf.verify_directly_issued_by(chain[0])
    (root,) = (
        root
        for root in (x509.load_pem_x509_certificate(pem.encode()) for pem in authority.roots())
        if root.subject == chain[-1].issuer
    )
    chain[-1].verify_directly_issued_by(root)
    return certificate.key_id(chain[0]), certificate.key_id(root)


def test_a_root_is_replaced_in_three_steps(tmp_path: Path) -> None:
    """Both are believed before the new one signs, and until all that the old one signed has ended."""
    clock = Clock()
    authority = Authority(tmp_path, "mesh.local", clock)
    told: list[int] = []
    authority.on_changed = lambda: told.append(len(authority.roots()))
    (old,) = authority.roots()
    before = issuers(authority)

    authority.begin("root")
    assert authority.roots()[0] == old
    assert len(authority.roots()) == 2
    assert issuers(authority) == before

    clock.now += HOUR / 2
    authority.switch(HOUR)
    new, also = authority.roots()
    assert also == old
    assert issuers(authority)[1] not in before

    clock.now += HOUR - timedelta(seconds=1)
    with pytest.raises(RefusedError, match="certificates of the old one are still good"):
        authority.finish()
    clock.now += timedelta(seconds=1)
    authority.finish()
    assert authority.roots() == (new,)
    assert authority.rotation is None
    assert told == [2, 2, 1]
    assert Authority(tmp_path, "mesh.local", clock).roots() == (new,)
    assert not (tmp_path / "rotation.json").exists()


def test_an_issuing_certificate_is_replaced_under_its_root(tmp_path: Path) -> None:
    """What is believed stays the same; the old key is forgotten in the end."""
    clock = Clock()
    authority = Authority(tmp_path, "mesh.local", clock)
    roots, before = authority.roots(), issuers(authority)
    authority.begin("issuer")
    authority.switch(HOUR)
    after = issuers(authority)
    assert authority.roots() == roots
    assert (after[0] != before[0], after[1]) == (True, before[1])
    clock.now += HOUR
    authority.finish()
    assert issuers(Authority(tmp_path, "mesh.local", clock)) == after


def test_the_wrong_order_is_refused(tmp_path: Path) -> None:
    """Nobody skips a step, and no two rotations mix."""
    authority = Authority(tmp_path, "mesh.local")
    steps: list[Callable[[], object]] = [
        lambda: authority.switch(HOUR),
        authority.finish,
        lambda: authority.abort(HOUR),
    ]
    for step in steps:
        with pytest.raises(RefusedError):
            step()
    authority.begin("root")
    with pytest.raises(RefusedError, match="a rotation of the root is under way"):
        authority.begin("issuer")
    with pytest.raises(RefusedError, match="no rotation waits for old certificates"):
        authority.finish()
    authority.switch(HOUR)
    with pytest.raises(RefusedError, match="no rotation waits for its new root"):
        authority.switch(HOUR)


def test_a_restart_goes_on_where_it_was(tmp_path: Path) -> None:
    """In every phase the new process believes, and signs with, what the old one did."""
    clock = Clock()
    first = Authority(tmp_path, "mesh.local", clock)
    first.begin("root")
    second = Authority(tmp_path, "mesh.local", clock)
    assert second.roots() == first.roots()
    second.switch(HOUR)
    third = Authority(tmp_path, "mesh.local", clock)
    assert third.roots() == second.roots()
    assert issuers(third) == issuers(second)
    assert third.rotation == second.rotation
    clock.now += HOUR
    third.finish()


@pytest.mark.parametrize("written", [0, 1, 2, 3])
def test_a_switch_that_was_cut_off_is_done_at_the_next_start(
    written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After whichever write the machine goes down, the next start signs with the new one."""
    clock = Clock()
    authority = Authority(tmp_path, "mesh.local", clock)
    (old,) = authority.roots()
    authority.begin("root")
    assert authority.rotation is not None
    assert authority.rotation.next is not None
    wanted = authority.rotation.next.root
    real, left = private_file.write, written + 1

    def write(path: Path, data: bytes) -> None:
        nonlocal left
        if not left:
            raise private_file.PrivateFileError("the machine went down")
        left -= 1
        real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(private_file, "write", write)
        with pytest.raises(private_file.PrivateFileError):
            authority.switch(HOUR)
    again = Authority(tmp_path, "mesh.local", clock)
    assert again.roots() == (wanted, old)
    assert certificate.pem(again.signer.root) == wanted
    assert again.rotation is not None
    assert again.rotation.phase == "renewing"
    assert issuers(again)


def test_before_the_switch_an_abort_leaves_nothing(tmp_path: Path) -> None:
    """Nobody holds anything of the new root: it is forgotten at once."""
    authority = Authority(tmp_path, "mesh.local")
    roots, before = authority.roots(), issuers(authority)
    authority.begin("root")
    assert authority.abort(HOUR) is None
    assert (authority.roots(), issuers(authority)) == (roots, before)
    assert Authority(tmp_path, "mesh.local").roots() == roots


def test_after_the_switch_an_abort_goes_back_and_waits(tmp_path: Path) -> None:
    """The old root signs again; the new one is believed until its certificates have ended."""
    clock = Clock()
    authority = Authority(tmp_path, "mesh.local", clock)
    (old,), before = authority.roots(), issuers(authority)
    authority.begin("root")
    authority.switch(HOUR)
    issuers(authority)
    assert authority.abort(HOUR) is not None
    assert issuers(authority) == before
    assert len(authority.roots()) == 2
    with pytest.raises(RefusedError, match="being taken back already"):
        authority.abort(HOUR)
    clock.now += HOUR
    authority.finish()
    assert authority.roots() == (old,)


# The trust bundle, edited by hand -----------------------------------------------------------------


def test_added_roots_are_read_when_the_file_changes(tmp_path: Path) -> None:
    """And taken away again; nothing has to be restarted."""
    authority = Authority(tmp_path, "mesh.local")
    told: list[int] = []
    authority.on_changed = lambda: told.append(len(authority.roots()))
    (own,), other = authority.roots(), TestAuthority().pem
    path = tmp_path / "roots.pem"
    assert not authority.reread()
    private_file.write(path, (other + own).encode())
    assert authority.reread()
    assert authority.roots() == (own, other)
    private_file.write(path, own.encode())
    assert authority.reread()
    assert told == [2, 1]


def test_a_root_that_is_needed_cannot_be_taken_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither that which signs nor one that a rotation needs; the log says what to do instead."""
    authority = Authority(tmp_path, "mesh.local")
    authority.begin("root")
    both = authority.roots()
    for left in (both[0], both[1], TestAuthority().pem, "nonsense"):
        private_file.write(tmp_path / "roots.pem", left.encode())
        assert not authority.reread()
        assert authority.roots() == both
    (tmp_path / "roots.pem").unlink()
    assert not authority.reread()
    assert "on which certificates depend" in caplog.text
    assert "is missing" in caplog.text


# An operator's own root ---------------------------------------------------------------------------


def given(folder: Path, root: TestAuthority, name: str = "issuing") -> Given:
    issuing = TestAuthority(name, signed_by=root)
    (folder / "root.pem").write_text(root.pem)
    (folder / "issuing.pem").write_text(issuing.pem)
    private_file.write(folder / "issuing.key", key_pem(issuing.key).encode())
    return Given(folder / "root.pem", folder / "issuing.pem", folder / "issuing.key")


def test_a_given_authority_signs_from_the_first_start(tmp_path: Path) -> None:
    """With the operator's issuing certificate, under the operator's root; no root is made."""
    root = TestAuthority("corporate")
    files = given(tmp_path, root)
    authority = Authority(tmp_path / "authority", "mesh.local", given=files)
    assert authority.roots() == (root.pem,)
    assert issuers(authority)[1] == certificate.key_id(root.certificate)
    assert not (tmp_path / "authority" / "root.key").exists()
    again = Authority(tmp_path / "authority", "mesh.local", given=files)
    assert issuers(again) == issuers(authority)
    with pytest.raises(AuthorityError, match="`authority` must name its files"):
        Authority(tmp_path / "authority", "mesh.local")


def test_given_files_are_brought_into_force_by_a_rotation(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """New files alone change nothing; whether root or issuer must rotate, the operator is told."""
    clock, root = Clock(), TestAuthority("corporate")
    files = given(tmp_path, root)
    authority = Authority(tmp_path / "authority", "mesh.local", clock, files)
    before = issuers(authority)
    with pytest.raises(RefusedError, match="is what signs now"):
        authority.begin("issuer")
    with pytest.raises(RefusedError, match="is what signs now"):
        authority.begin("root")

    given(tmp_path, root, "issuing 2")
    Authority(tmp_path / "authority", "mesh.local", clock, files)
    assert "`meshctl certs rotate-issuer` brings it into force" in caplog.text
    with pytest.raises(RefusedError, match="a rotation of the issuer"):
        authority.begin("root")
    authority.begin("issuer")
    authority.switch(HOUR)
    after = issuers(authority)
    assert (after[0] != before[0], after[1]) == (True, before[1])
    clock.now += HOUR
    authority.finish()


def test_another_given_root_is_brought_into_force_by_a_rotation(tmp_path: Path) -> None:
    """In the end it alone is believed."""
    clock, other = Clock(), TestAuthority("other")
    files = given(tmp_path, TestAuthority("corporate"))
    authority = Authority(tmp_path / "authority", "mesh.local", clock, files)
    given(tmp_path, other)
    with pytest.raises(RefusedError, match="a rotation of the root"):
        authority.begin("issuer")
    authority.begin("root")
    authority.switch(HOUR)
    assert issuers(authority)[1] == certificate.key_id(other.certificate)
    clock.now += HOUR
    authority.finish()
    assert authority.roots() == (other.pem,)


def test_from_an_own_root_to_a_given_one(tmp_path: Path) -> None:
    """The own root's key is gone afterwards."""
    clock = Clock()
    Authority(tmp_path / "authority", "mesh.local", clock)
    files = given(tmp_path, TestAuthority("corporate"))
    authority = Authority(tmp_path / "authority", "mesh.local", clock, files)
    authority.begin("root")
    authority.switch(HOUR)
    assert not (tmp_path / "authority" / "root.key").exists()
    clock.now += HOUR
    authority.finish()
    assert authority.roots() == ((tmp_path / "root.pem").read_text(),)


def test_an_issuer_that_has_ended_signs_nothing(tmp_path: Path) -> None:
    """An operator's cannot be renewed here; to sign on would help nobody."""
    clock = Clock()
    files = given(tmp_path, TestAuthority("corporate"))
    authority = Authority(tmp_path / "authority", "mesh.local", clock, files)
    clock.now += timedelta(hours=23, minutes=59)
    leaf = x509.load_pem_x509_certificates(
        authority.sign(CSR, CATALOG, HOUR, WORKLOAD).chain.encode()
    )[0]
    assert leaf.not_valid_after_utc <= authority.signer.chain[0].not_valid_after_utc
    clock.now += timedelta(minutes=2)
    with pytest.raises(AuthorityError, match="the issuing certificate expired"):
        authority.sign(CSR, CATALOG, HOUR, WORKLOAD)
