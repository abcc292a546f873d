import pytest

from control_plane.attestation import Attestation, Claim, NotAttested, RateLimit, Renewal
from meshproxy.contract.spiffe import SpiffeId

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
    return Claim(workload, identity, token, proved, key="")


async def test_renewal_needs_the_very_identity() -> None:
    """Its certificate renews a workload's own, and no other."""
    assert await Renewal().attest(claim(proved=CATALOG)) == "certificate"
    with pytest.raises(NotAttested, match="wrong-identity"):
        await Renewal().attest(claim(proved=REVIEWS))
    with pytest.raises(NotAttested, match="no-credential"):
        await Renewal().attest(claim())


async def test_names_are_compared_byte_by_byte() -> None:
    """A dot is a dot: no pattern is ever made of a service account's name."""
    dotted = SpiffeId.of("mesh.local", "default", "cert-manager.io")
    other = SpiffeId.of("mesh.local", "default", "cert-managerXio")
    with pytest.raises(NotAttested, match="wrong-identity"):
        await Renewal().attest(claim(proved=other, identity=dotted))


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


class Answering:
    """An attestor that believes everybody."""

    def __init__(self, how: str) -> None:
        self.how = how

    async def attest(self, _claim: Claim) -> str:
        return self.how


TOKENS, ACCOUNTS = Answering("token"), Answering("account")
JWT = "eyJh.eyJp.c2ln"


async def test_what_is_shown_decides_who_is_asked() -> None:
    """Nothing: the certificate; three parts: a token of Kubernetes; else a join token."""
    attestation = Attestation(TOKENS, Renewal(), RateLimit(), service_accounts=ACCOUNTS)
    assert await attestation.attest(claim(proved=CATALOG)) == "certificate"
    assert await attestation.attest(claim("x")) == "token"
    assert await attestation.attest(claim(JWT)) == "account"
    with pytest.raises(NotAttested, match="token-of-nobody"):
        await Attestation(TOKENS, Renewal(), RateLimit()).attest(claim(JWT))


async def test_a_token_that_can_be_shown_again_counts_against_the_rate() -> None:
    """A pod's token is good for an hour, and not for a thousand certificates."""
    limit = RateLimit(burst=1, period=60)
    attestation = Attestation(TOKENS, Renewal(), limit, service_accounts=ACCOUNTS)
    assert await attestation.attest(claim(JWT)) == "account"
    with pytest.raises(NotAttested, match="rate-limited"):
        await attestation.attest(claim(JWT))
    assert await attestation.attest(claim("x")) == "token"


@pytest.mark.parametrize("shown", [claim("x"), claim(JWT), claim(proved=CATALOG)])
async def test_a_revoked_identity_gets_nothing(shown: Claim) -> None:
    """Whatever it shows; it may come again, for it may be forgiven."""
    attestation = Attestation(TOKENS, Renewal(), RateLimit(), ACCOUNTS, revoked={CATALOG})
    with pytest.raises(NotAttested, match="identity-revoked") as caught:
        await attestation.attest(shown)
    assert caught.value.retry
    forgiven = Attestation(TOKENS, Renewal(), RateLimit(), ACCOUNTS, revoked={REVIEWS})
    assert await forgiven.attest(shown)


async def test_others_cannot_use_up_a_workloads_rate() -> None:
    """Only who has proved an identity is counted against it."""
    attestation = Attestation(TOKENS, Renewal(), RateLimit(burst=1, period=60))
    for _ in range(5):
        with pytest.raises(NotAttested, match="wrong-identity"):
            await attestation.attest(claim(proved=REVIEWS))
    assert await attestation.attest(claim(proved=CATALOG)) == "certificate"
    with pytest.raises(NotAttested, match="rate-limited"):
        await attestation.attest(claim(proved=CATALOG))
