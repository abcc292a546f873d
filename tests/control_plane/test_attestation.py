import logging
import stat
from pathlib import Path

import pytest

from control_plane.attestation import (
    Attestation,
    Claim,
    JoinTokens,
    NotAttested,
    RateLimit,
    Renewal,
)
from meshproxy import private_file
from meshproxy.contract.spiffe import SpiffeId
from meshproxy.contract.wire import ContractError

CATALOG = SpiffeId.of("mesh.local", "default", "catalog")
REVIEWS = SpiffeId.of("mesh.local", "default", "reviews")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def claim(
    token: str | None = None,
    proved: SpiffeId | None = None,
    workload: str = "default/catalog-v1",
    identity: SpiffeId = CATALOG,
) -> Claim:
    return Claim(workload=workload, identity=identity, token=token, proved=proved)


def test_a_token_opens_once(tmp_path: Path) -> None:
    """The second use is as good as no token."""
    tokens = JoinTokens(tmp_path / "tokens.json")
    token, _expires = tokens.issue("default/catalog-v1", CATALOG)
    assert tokens.attest(claim(token)) == "token"
    with pytest.raises(NotAttested, match="token-unknown") as caught:
        tokens.attest(claim(token))
    assert not caught.value.retry


def test_a_token_lives_an_hour(tmp_path: Path) -> None:
    """Then it is forgotten, on disk too."""
    clock = Clock()
    tokens = JoinTokens(tmp_path / "tokens.json", clock)
    token, expires = tokens.issue("default/catalog-v1", CATALOG)
    assert expires == clock.now + 3600
    clock.now += 3600
    with pytest.raises(NotAttested, match="token-unknown"):
        tokens.attest(claim(token))
    assert len(JoinTokens(tmp_path / "tokens.json", clock)) == 0


@pytest.mark.parametrize(
    "other",
    [claim("", workload="default/reviews"), claim("", identity=REVIEWS)],
    ids=["workload", "identity"],
)
def test_a_token_is_bound_and_survives_misuse(other: Claim, tmp_path: Path) -> None:
    """For another workload, or one whose service account has changed since, it opens nothing."""
    tokens = JoinTokens(tmp_path / "tokens.json")
    token, _expires = tokens.issue("default/catalog-v1", CATALOG)
    with pytest.raises(NotAttested, match="token-of-another"):
        tokens.attest(other._replace(token=token))
    assert tokens.attest(claim(token)) == "token"


def test_a_restart_keeps_tokens_but_nobody_can_read_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """On disk lies a hash, 0600; in the log neither."""
    path = tmp_path / "tokens.json"
    with caplog.at_level(logging.DEBUG):
        token, _expires = JoinTokens(path).issue("default/catalog-v1", CATALOG)
        assert token not in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert JoinTokens(path).attest(claim(token)) == "token"
        assert len(JoinTokens(path)) == 0
    assert token not in caplog.text
    assert "join token issued for default/catalog-v1" in caplog.text


def test_a_damaged_token_file_is_an_error(tmp_path: Path) -> None:
    """Starting without the tokens that were given out would be a riddle to their owners."""
    private_file.write(tmp_path / "tokens.json", b"{")
    with pytest.raises(ContractError):
        JoinTokens(tmp_path / "tokens.json")


@pytest.mark.parametrize("token", ["", "x", "é", "a" * 100_000])
def test_what_never_was_a_token_is_refused(token: str, tmp_path: Path) -> None:
    """Any text at all is answered, not only those of the right form."""
    tokens = JoinTokens(tmp_path / "tokens.json")
    tokens.issue("default/catalog-v1", CATALOG)
    with pytest.raises(NotAttested, match="token-unknown"):
        tokens.attest(claim(token))


def test_renewal_needs_the_very_identity() -> None:
    """Its certificate renews a workload's own, and no other."""
    assert Renewal().attest(claim(proved=CATALOG)) == "certificate"
    with pytest.raises(NotAttested, match="wrong-identity"):
        Renewal().attest(claim(proved=REVIEWS))
    with pytest.raises(NotAttested, match="no-credential"):
        Renewal().attest(claim())


def test_names_are_compared_byte_by_byte() -> None:
    """A dot is a dot: no pattern is ever made of a service account's name."""
    dotted = SpiffeId.of("mesh.local", "default", "cert-manager.io")
    other = SpiffeId.of("mesh.local", "default", "cert-managerXio")
    with pytest.raises(NotAttested, match="wrong-identity"):
        Renewal().attest(claim(proved=other, identity=dotted))


def test_so_many_certificates_a_minute() -> None:
    """The eleventh within a minute is refused, later ones come at the rate of the period."""
    clock = Clock()
    limit = RateLimit(burst=10, period=60, clock=clock)
    for _ in range(10):
        limit.check("default/catalog-v1")
    with pytest.raises(NotAttested, match="rate-limited") as caught:
        limit.check("default/catalog-v1")
    assert caught.value.retry
    limit.check("default/catalog-v2")
    clock.now += 6.1
    limit.check("default/catalog-v1")
    with pytest.raises(NotAttested):
        limit.check("default/catalog-v1")


def test_others_cannot_use_up_a_workloads_rate(tmp_path: Path) -> None:
    """Only who has proved an identity is counted against it."""
    attestation = Attestation(
        JoinTokens(tmp_path / "tokens.json"), Renewal(), RateLimit(burst=1, period=60)
    )
    for _ in range(5):
        with pytest.raises(NotAttested, match="wrong-identity"):
            attestation.attest(claim(proved=REVIEWS))
    assert attestation.attest(claim(proved=CATALOG)) == "certificate"
    with pytest.raises(NotAttested, match="rate-limited"):
        attestation.attest(claim(proved=CATALOG))
