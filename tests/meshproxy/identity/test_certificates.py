import asyncio
import json
import logging
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.hashes import SHA256

from meshproxy.contract.discovery import SigningAnswer
from meshproxy.identity.certificates import CannotSign, Certificates
from meshproxy.identity.x509 import CertificateError
from tests.helpers.certificates import TestAuthority, key_pem, pem, uri, write

CATALOG = "spiffe://mesh.local/ns/default/sa/catalog"
REVIEWS = "spiffe://mesh.local/ns/default/sa/reviews"
ROOT = TestAuthority()
OTHER = TestAuthority("other")


def answer(
    identity: str = CATALOG, seconds: float = 3600, root: TestAuthority = ROOT
) -> tuple[str, SigningAnswer]:
    """Return a key and the authority's answer for it."""
    now = datetime.now(UTC)
    not_after = now + timedelta(seconds=seconds)
    certificate, key = root.leaf(
        uri(identity), not_before=min(now, not_after) - timedelta(hours=1), not_after=not_after
    )
    return key_pem(key), SigningAnswer(
        identity=identity,
        chain=pem(certificate),
        roots=(root.pem,),
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
        (*answer(seconds=-10), "has expired"),
        (answer()[0], answer()[1], "not usable with its key"),
        (answer()[0], SigningAnswer(identity=CATALOG, chain="", roots=(), not_before=0, not_after=0), "PEM"),
    ],
    ids=["identity", "expired", "another key", "empty"],
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
        CATALOG, tmp_path, clock=time.clock, pause=time.pause, draw=lambda: 1.0
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
