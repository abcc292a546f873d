import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from control_plane.authority import Authority, AuthorityError, BadRequest
from meshproxy.contract.spiffe import SpiffeId
from tests.helpers.certificates import TestAuthority, pem

CATALOG = SpiffeId.of("mesh.local", "default", "catalog")
HOUR = timedelta(hours=1)


def request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    """Return a signing request that asks for everything."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "admin\r\nx")])
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("admin")]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )


KEY = ec.generate_private_key(ec.SECP256R1())
CSR = request(KEY)


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


def test_a_certificate_says_who_and_nothing_else(tmp_path: Path) -> None:
    """Of the request only the key counts; the rest is as X509-SVID wants it."""
    authority = Authority(tmp_path, "mesh.local")
    signed = authority.sign(CSR, CATALOG, HOUR)
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
    serials = {authority.sign(CSR, CATALOG, HOUR).serial for _ in range(20)}
    assert len(serials) == 20
    assert all(len(serial) > 30 for serial in serials)


@pytest.mark.parametrize(
    ("csr", "reason"),
    [
        ("", "expected a certificate signing request"),
        ("é", "expected a certificate signing request"),
        (CSR.replace("CERTIFICATE REQUEST", "CERTIFICATE"), "expected a certificate signing request"),
        (CSR + " " * 20_000, "expected at most"),
        (request(rsa.generate_private_key(65537, 2048)), "expected a key on the curve P-256"),
        (request(ec.generate_private_key(ec.SECP384R1())), "expected a key on the curve P-256"),
    ],
)  # fmt: skip
def test_what_is_no_proper_request_is_refused(csr: str, reason: str, tmp_path: Path) -> None:
    """Garbage, another kind of PEM, a key that we do not sign."""
    with pytest.raises(BadRequest, match=reason):
        Authority(tmp_path, "mesh.local").sign(csr, CATALOG, HOUR)


def test_who_does_not_hold_the_key_gets_no_certificate_for_it(tmp_path: Path) -> None:
    """A request with somebody's public key but another's signature is refused."""
    data = bytearray(x509.load_pem_x509_csr(CSR.encode()).public_bytes(serialization.Encoding.DER))
    data[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(data)).public_bytes(serialization.Encoding.PEM).decode()
    with pytest.raises(BadRequest, match=r"not signed by its own key|signing request"):
        Authority(tmp_path, "mesh.local").sign(forged, CATALOG, HOUR)


@pytest.mark.parametrize("identity", ["spiffe://other.local/ns/a/sa/b", "spiffe://mesh.local"])
def test_it_issues_only_identities_of_its_own_workloads(identity: str, tmp_path: Path) -> None:
    """Neither another trust domain's nor its own name."""
    with pytest.raises(BadRequest, match="is not an identity that this authority issues"):
        Authority(tmp_path, "mesh.local").sign(CSR, SpiffeId.parse(identity), HOUR)


def test_files_are_private_and_a_restart_keeps_the_authority(tmp_path: Path) -> None:
    """0600 in 0700; a new process is the same authority."""
    state = tmp_path / "authority"
    first = Authority(state, "mesh.local")
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in state.iterdir()}
    assert files == {"root.key": 0o600, "roots.pem": 0o600, "issuing.pem": 0o600}
    again = Authority(state, "mesh.local")
    assert again.roots() == first.roots()
    chains = [a.sign(CSR, CATALOG, HOUR).chain for a in (first, again)]
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
    assert Authority(tmp_path, domain).sign(CSR, SpiffeId.of(domain, "a", "b"), HOUR)


def test_an_issuer_outlives_what_it_signs(tmp_path: Path) -> None:
    """Near its end the issuing certificate is renewed by itself; the root stays."""
    clock = Clock()
    authority = Authority(tmp_path, "mesh.local", clock)
    roots = authority.roots()
    first = authority.sign(CSR, CATALOG, HOUR).chain
    clock.now += timedelta(days=364, hours=23, minutes=30)
    second = authority.sign(CSR, CATALOG, HOUR).chain
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
