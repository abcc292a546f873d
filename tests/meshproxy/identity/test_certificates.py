import asyncio
import json
import logging
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509 as reference
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from meshproxy.contract.discovery import SigningAnswer
from meshproxy.identity.certificates import CannotSign, Certificates
from meshproxy.identity.signing_request import KeyAndRequest
from meshproxy.identity.x509 import CertificateError
from tests.helpers.certificates import TestAuthority, key_pem, pem, uri, write

CATALOG = "spiffe://mesh.local/ns/default/sa/catalog"
REVIEWS = "spiffe://mesh.local/ns/default/sa/reviews"
ROOT = TestAuthority()
OTHER = TestAuthority("other")


def answer(
    identity: str = CATALOG,
    seconds: float = 3600,
    root: TestAuthority = ROOT,
    *,
    roots: tuple[str, ...] | None = None,
    starting: float = -3600,
    key: ec.EllipticCurvePrivateKey | None = None,
) -> tuple[str, SigningAnswer]:
    """Return a key and the authority's answer for it."""
    now = datetime.now(UTC) + timedelta(seconds=max(starting, 0))
    not_after = now + timedelta(seconds=seconds)
    certificate, key = root.leaf(
        uri(identity),
        not_before=min(now, not_after) + timedelta(seconds=min(starting, 0)),
        not_after=not_after,
        key=key,
    )
    return key_pem(key), SigningAnswer(
        identity=identity,
        chain=pem(certificate),
        roots=(root.pem,) if roots is None else roots,
        not_before=int(certificate.not_valid_before_utc.timestamp()),
        not_after=int(certificate.not_valid_after_utc.timestamp()),
    )


def test_what_is_installed_is_in_force_and_kept_private(tmp_path: Path) -> None:
    """Contexts at once; files 0600 in a directory 0700; a new holder takes them from there."""
    state = tmp_path / "state"
    certificates = Certificates(CATALOG, state)
    assert [certificates.ready, certificates.file] == [False, None]
    key, signed = answer()
    certificates.install(key, signed)

    assert certificates.ready
    assert certificates.server is not None
    assert certificates.client is not None
    assert certificates.not_after == signed.not_after
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    files = sorted(state.iterdir())
    assert [path.name for path in files] == ["identity.pem", "roots.pem"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}

    restarted = Certificates(CATALOG, state)
    assert restarted.load_cache()
    assert restarted.ready
    assert restarted.roots == ROOT.pem
    assert "PRIVATE" not in repr(restarted)


@pytest.mark.parametrize(
    ("key", "signed", "reason"),
    [
        (*answer(REVIEWS), f"expected a certificate of {CATALOG}"),
        (*answer(seconds=-10), "has expired, [0-9]+ (s|min) ago by this machine's clock"),
        (*answer(starting=3600), "is not valid yet, for [0-9]+ min more by this machine's clock"),
        (*answer(root=OTHER, roots=(ROOT.pem,)), "the roots that we believe do not vouch"),
        (answer()[0], answer()[1], "not usable with its key"),
        (answer()[0], SigningAnswer(identity=CATALOG, chain="", roots=(), not_before=0, not_after=0), "PEM"),
    ],
    ids=["identity", "expired", "too early", "another root", "another key", "empty"],
)  # fmt: skip
def test_an_answer_that_does_not_fit_changes_nothing(
    key: str, signed: SigningAnswer, reason: str, tmp_path: Path
) -> None:
    """The certificate in use stays in use, on disk too."""
    certificates = Certificates(CATALOG, tmp_path)
    certificates.install(*answer())
    before = certificates.server, (tmp_path / "identity.pem").read_text()
    with pytest.raises(CertificateError, match=reason):
        certificates.install(key, signed)
    assert (certificates.server, (tmp_path / "identity.pem").read_text()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["identity.pem", "roots.pem"]


@pytest.mark.parametrize("damage", ["open", "other key", "identity", "expired", "garbage", "roots"])
def test_a_cache_that_is_not_right_is_not_used(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Readable by others, mismatched, of somebody else, too old, damaged: start without it, say why."""
    Certificates(CATALOG, tmp_path).install(*answer())
    path = tmp_path / "identity.pem"
    now = datetime.now(UTC)
    hour = timedelta(hours=1)
    match damage:
        case "open":
            path.chmod(0o640)
        case "other key":
            write(path, ROOT.leaf(uri(CATALOG))[0], ROOT.leaf()[1])
        case "identity":
            ROOT.svid(path, REVIEWS)
        case "expired":
            write(path, *ROOT.leaf(uri(CATALOG), not_before=now - 2 * hour, not_after=now - hour))
        case "garbage":
            path.write_bytes(b"\xff\x00")
        case "roots":
            (tmp_path / "roots.pem").write_text("nonsense")
    with caplog.at_level(logging.WARNING):
        restarted = Certificates(CATALOG, tmp_path)
        assert not restarted.load_cache()
    assert not restarted.ready
    assert "certificate cache not used" in caplog.text
    assert "PRIVATE" not in caplog.text


def test_without_a_cache_there_is_nothing_to_say(tmp_path: Path) -> None:
    """First start is no error; a holder without a state directory has no cache."""
    assert not Certificates(CATALOG, tmp_path).load_cache()
    assert not Certificates(CATALOG).load_cache()


def test_trust_replaces_both_contexts_at_once(tmp_path: Path) -> None:
    """A new bundle: new contexts; the same bundle: the same; a bad one: an error, the old stays."""
    certificates = Certificates(CATALOG, tmp_path)
    certificates.install(*answer())
    before = certificates.server
    certificates.trust([ROOT.pem])
    assert certificates.server is before
    certificates.trust([ROOT.pem, OTHER.pem.strip()])
    assert certificates.server is not before
    assert certificates.roots == ROOT.pem + OTHER.pem
    replaced = certificates.server
    for bad in (["nonsense"], []):
        with pytest.raises(CertificateError, match="trust bundle"):
            certificates.trust(bad)
    assert certificates.server is replaced
    assert certificates.roots == ROOT.pem + OTHER.pem


def test_the_bundle_is_kept_for_a_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A sidecar that lost its snapshot must find a control plane whose root has been replaced."""
    certificates = Certificates(CATALOG, tmp_path)
    certificates.install(*answer())
    certificates.trust([ROOT.pem, OTHER.pem])
    restarted = Certificates(CATALOG, tmp_path)
    assert restarted.load_cache()
    assert restarted.roots == ROOT.pem + OTHER.pem
    (tmp_path / "roots.pem").unlink()
    (tmp_path / "roots.pem").mkdir()
    certificates.trust([ROOT.pem])
    assert certificates.roots == ROOT.pem
    assert "not kept for a restart" in caplog.text


def test_files_of_somebody_else_become_usable_with_roots(tmp_path: Path) -> None:
    """A static certificate waits for the snapshot's trust bundle."""
    certificate, key = ROOT.leaf(uri(CATALOG))
    (tmp_path / "cert.pem").write_text(pem(certificate))
    (tmp_path / "key.pem").write_text(key_pem(key))
    certificates = Certificates(CATALOG)
    certificates.load_files(tmp_path / "cert.pem", tmp_path / "key.pem")
    before = certificates.ready
    certificates.trust([ROOT.pem])
    assert [before, certificates.ready] == [False, True]
    with pytest.raises(CertificateError, match="cannot be read"):
        Certificates(CATALOG).load_files(tmp_path / "no.pem", tmp_path / "key.pem")


class Time:
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.start = self.now = datetime.now(UTC).timestamp()
        self.naps: list[float] = []

    def clock(self) -> float:
        return self.now

    async def pause(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


async def a_pair() -> KeyAndRequest:
    """Stand for the process that makes one, where each attempt is refused, whatever it asks with."""
    return KeyAndRequest("no key", "no request")


class Enough(Exception):  # noqa: N818
    """Ends a loop that would go on for ever."""


@pytest.mark.parametrize(("draw", "share"), [(0.0, 0.45), (0.5, 0.5), (1.0, 0.55)])
async def test_renewal_comes_at_half_the_life_with_jitter(
    draw: float, share: float, tmp_path: Path
) -> None:
    """Half of what was left when it came, give or take a tenth: not_before is backdated."""
    time = Time()
    certificates = Certificates(
        CATALOG, tmp_path, clock=time.clock, pause=time.pause, draw=lambda: draw
    )
    certificates.install(*answer(seconds=60))
    asked: list[float] = []

    async def sign(_csr: str) -> SigningAnswer:
        asked.append(time.now)
        raise Enough

    with pytest.raises(Enough):
        await certificates.keep(sign)
    lived = certificates.not_after - time.start
    assert asked[0] - time.start == pytest.approx(lived * share, abs=0.5)
    assert max(time.naps) <= 30


async def test_a_refused_renewal_is_tried_again_with_the_old_certificate_in_use(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Waits grow, the reason is kept and logged once, the old certificate serves on."""
    time = Time()
    certificates = Certificates(
        CATALOG, tmp_path, clock=time.clock, pause=time.pause, draw=lambda: 1.0, make=a_pair
    )
    certificates.install(*answer(seconds=60))
    serving = certificates.server
    attempts = 0

    async def sign(_csr: str) -> SigningAnswer:
        nonlocal attempts
        attempts += 1
        if attempts == 3:
            raise Enough
        raise CannotSign("refused (rate-limited): too many")

    with caplog.at_level(logging.WARNING), pytest.raises(Enough):
        await certificates.keep(sign)
    assert time.naps[-2:] == [0.2, 0.4]
    assert certificates.last_error == "refused (rate-limited): too many"
    assert caplog.text.count("too many") == 1
    assert certificates.server is serving


@pytest.mark.parametrize(("seconds", "longest"), [(60, 3.0), (86400, 15.0), (12, 1.0)])
async def test_a_short_life_is_retried_quickly(
    seconds: float, longest: float, tmp_path: Path
) -> None:
    """The waits grow to a twentieth of the life, so that there is time for many."""
    time = Time()
    certificates = Certificates(
        CATALOG, tmp_path, clock=time.clock, pause=time.pause, draw=lambda: 1.0, make=a_pair
    )
    certificates.install(*answer(seconds=seconds))

    async def sign(_csr: str) -> SigningAnswer:
        if certificates.failures == 8:
            raise Enough
        raise CannotSign("nobody there")

    with pytest.raises(Enough):
        await certificates.keep(sign)
    assert max(time.naps[-8:]) == pytest.approx(longest, rel=0.1)
    assert certificates.failures == 8


async def test_a_renewal_that_fails_for_too_long_is_a_worry_and_then_the_end(
    tmp_path: Path,
) -> None:
    """
    Past three quarters of the life there is a sentence for the operator, with the reason; past the
    end no context: nobody is dialled and nobody let in.
    """
    time = Time()
    certificates = Certificates(CATALOG, tmp_path, clock=time.clock, pause=time.pause, make=a_pair)
    certificates.install(*answer(seconds=100))
    seen: dict[str, float] = {}

    async def sign(_csr: str) -> SigningAnswer:
        left = certificates.not_after - time.now
        if certificates.worry is not None:
            seen.setdefault("worry", left)
            assert "nobody there" in certificates.worry
        if left < 0:
            raise Enough
        assert certificates.ready
        assert certificates.server is not None
        raise CannotSign("nobody there")

    with pytest.raises(Enough):
        await certificates.keep(sign)
    assert 15 < seen["worry"] <= 25
    assert not certificates.ready
    assert (certificates.server, certificates.client) == (None, None)
    assert (certificates.file, certificates.worry) == (None, None)


def of_request(csr: str) -> SigningAnswer:
    """Answer a signing request, as the authority does."""
    request = reference.load_pem_x509_csr(csr.encode())
    made, _key = ROOT.leaf(uri(CATALOG))
    builder = (
        reference.CertificateBuilder()
        .issuer_name(ROOT.name)
        .subject_name(reference.Name([]))
        .public_key(request.public_key())
        .serial_number(made.serial_number)
        .not_valid_before(made.not_valid_before_utc)
        .not_valid_after(made.not_valid_after_utc)
    )
    for extension in made.extensions:
        if not isinstance(extension.value, reference.SubjectKeyIdentifier):
            builder = builder.add_extension(extension.value, critical=extension.critical)
    builder = builder.add_extension(
        reference.SubjectKeyIdentifier.from_public_key(request.public_key()), critical=False
    )
    signed = pem(builder.sign(ROOT.key, SHA256()))
    return SigningAnswer(
        identity=CATALOG, chain=signed, roots=(ROOT.pem,), not_before=0, not_after=0
    )


async def test_a_crash_between_token_and_certificate_costs_nothing(tmp_path: Path) -> None:
    """
    Whoever is started in place of the one that died asks with the same key, which is in a private
    file until the certificate is stored; a renewal makes a new one.
    """
    asked: list[bytes] = []
    pending = tmp_path / "pending.pem"

    def key_in(csr: str) -> bytes:
        public = reference.load_pem_x509_csr(csr.encode()).public_key()
        return public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    async def dies(csr: str) -> SigningAnswer:
        asked.append(key_in(csr))
        assert stat.S_IMODE(pending.stat().st_mode) == 0o600
        raise Enough

    async def signs(csr: str) -> SigningAnswer:
        asked.append(key_in(csr))
        return of_request(csr)

    for _ in range(2):
        with pytest.raises(Enough):
            await Certificates(CATALOG, tmp_path).keep(dies)
    certificates = Certificates(CATALOG, tmp_path)
    await certificates._renew(signs)
    assert certificates.ready
    assert not pending.exists()
    await certificates._renew(signs)
    assert asked[0] == asked[1] == asked[2] != asked[3]
    assert certificates.renewals == 2


async def test_a_first_answer_that_does_not_fit_costs_the_key(tmp_path: Path) -> None:
    """With another it may be better; the same would be wrong for ever."""

    async def wrong(_csr: str) -> SigningAnswer:
        return answer()[1]

    with pytest.raises(CertificateError, match="not usable with its key"):
        await Certificates(CATALOG, tmp_path)._renew(wrong)
    assert not (tmp_path / "pending.pem").exists()


def test_an_answer_says_whom_to_believe_only_at_first_contact(tmp_path: Path) -> None:
    """One that was under way while the bundle changed is older than what discovery has said."""
    certificates = Certificates(CATALOG, tmp_path)
    certificates.install(*answer())
    assert certificates.roots == ROOT.pem
    certificates.trust([ROOT.pem, OTHER.pem])
    certificates.install(*answer())
    assert certificates.roots == ROOT.pem + OTHER.pem
    assert (tmp_path / "roots.pem").read_text() == ROOT.pem + OTHER.pem


async def test_waiting_ends_when_there_is_a_certificate(tmp_path: Path) -> None:
    """`until_ready` returns as soon as peers would accept us."""
    certificates = Certificates(CATALOG, tmp_path)
    waiting = asyncio.create_task(certificates.until_ready())
    await asyncio.sleep(0)
    assert not waiting.done()
    certificates.install(*answer())
    await waiting


def test_the_key_appears_nowhere_else(tmp_path: Path) -> None:
    """Contexts are all that leaves this class: attributes show no key."""
    certificates = Certificates(CATALOG, tmp_path)
    certificates.install(*answer())
    assert "PRIVATE" not in json.dumps({k: repr(v) for k, v in vars(certificates).items()})


def test_what_an_operator_may_know(tmp_path: Path) -> None:
    """Facts of certificate and roots, never a key; before there is a certificate, that there is none."""
    certificates = Certificates(CATALOG, tmp_path)
    assert certificates.described()["certificate"] is None
    key, signed = answer()
    certificates.install(key, signed)
    described = certificates.described()

    assert described["identity"] == described["certificate"]["identity"] == CATALOG
    assert described["certificate"]["not_after"] == signed.not_after
    assert described["roots"] == [
        {
            "subject": ROOT.certificate.subject.rfc4514_string(),
            "serial": f"{ROOT.certificate.serial_number:x}",
            "sha256": ROOT.certificate.fingerprint(SHA256()).hex(),
            "not_before": ROOT.certificate.not_valid_before_utc.timestamp(),
            "not_after": ROOT.certificate.not_valid_after_utc.timestamp(),
        }
    ]
    assert "PRIVATE" not in json.dumps(described)


def test_a_worker_follows_its_parent(tmp_path: Path) -> None:
    """Roots and certificate as the parent has them; what is wrong changes nothing."""
    parent, worker = Certificates(CATALOG, tmp_path), Certificates(CATALOG)
    told: list[None] = []
    parent.on_changed = lambda: told.append(None)
    assert parent.files == (None, None)
    worker.follow(None, None, "")
    worker.follow(None, None, OTHER.pem)
    assert [worker.ready] == [False]

    parent.install(*answer())
    assert told
    worker.follow(*parent.files, parent.roots)
    assert worker.ready
    assert (worker.roots, worker.not_after) == (parent.roots, parent.not_after)

    server = worker.server
    stranger, key = ROOT.issue(REVIEWS, tmp_path, "reviews")
    with pytest.raises(CertificateError, match="expected a certificate of"):
        worker.follow(stranger, key, OTHER.pem)
    assert (worker.roots, worker.server) == (parent.roots, server)

    told.clear()
    parent.trust((ROOT.pem, OTHER.pem))
    assert told
    worker.follow(*parent.files, parent.roots)
    assert worker.roots == ROOT.pem + OTHER.pem
