"""
Attestation: who may get which identity.

    first contact   a join token: one use, one workload, an hour        `join_tokens.py`
                    a service account token of Kubernetes                `service_account_tokens.py`
    renewal         the current certificate, of that very identity       here

Each way of proving is an `Attestor`.  Which one is asked, what was shown decides; an identity that
has been revoked can show nothing.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Container
from typing import NamedTuple, Protocol

from meshproxy.contract.spiffe import SpiffeId

_MOST_WORKLOADS = 10_000


class NotAttested(Exception):  # noqa: N818 - a verdict
    """
    Who asks has not proved who it is.

    Attributes:
        code: Stable name of the reason.
        reason: One plain sentence.
        retry: Whether asking again, unchanged, can help.
    """

    def __init__(self, code: str, reason: str, *, retry: bool = False) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason
        self.retry = retry


class Claim(NamedTuple):
    """
    What is asked for, and what is shown for it.

    Attributes:
        workload: ``namespace/name``.
        identity: What that workload is entitled to.
        token: What was handed over, or None.
        proved: What the client certificate of the connection proves, or None.
        key: Fingerprint of the key that is to be certified; who asks has proved to hold it.
    """

    workload: str
    identity: SpiffeId
    token: str | None
    proved: SpiffeId | None
    key: str


class Attestor(Protocol):
    """One way of proving who asks."""

    async def attest(self, claim: Claim) -> str:
        """
        Return how the claim was proved, for the audit log.

        Raises:
            NotAttested: It was not.
        """
        ...


class Renewal:
    """The current certificate proves who asks for the next one."""

    async def attest(self, claim: Claim) -> str:
        if claim.proved is None:
            raise NotAttested(
                "no-credential",
                "A join token or a client certificate is needed to get a certificate.",
            )
        if claim.proved != claim.identity:
            raise NotAttested(
                "wrong-identity",
                f"The certificate is that of {claim.proved}, but {claim.workload} runs as"
                f" {claim.identity}.",
            )
        return "certificate"


class RateLimit:
    """
    So many certificates per workload and period: a sidecar that loops, or a stolen certificate,
    must not keep the authority busy.  A token bucket for each of the workloads seen last.

    Per workload and not per identity, because a hundred replicas of one service account may start
    at once; and nobody can name a workload of another identity, so an identity gets as many as its
    workloads together.
    """

    def __init__(
        self, burst: int = 10, period: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._burst = burst
        self._rate = burst / period
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check(self, workload: str) -> None:
        """
        Count one certificate.

        Raises:
            NotAttested: It is one too many.
        """
        now = self._clock()
        left, seen = self._buckets.pop(workload, (float(self._burst), now))
        left = min(self._burst, left + (now - seen) * self._rate)
        self._buckets[workload] = (max(left - 1, 0.0) if left >= 1 else left, now)
        if len(self._buckets) > _MOST_WORKLOADS:
            self._buckets.popitem(last=False)
        if left < 1:
            raise NotAttested(
                "rate-limited", f"{workload} asked for too many certificates.", retry=True
            )


class Attestation:
    """
    Asks the attestor that fits what was shown.

    Args:
        tokens: For join tokens.
        renewal: For who shows a certificate.
        limit: How many certificates are granted.
        service_accounts: For tokens of Kubernetes; None where they prove nothing.
        revoked: Identities that get none at all.
    """

    def __init__(
        self,
        tokens: Attestor,
        renewal: Attestor,
        limit: RateLimit,
        service_accounts: Attestor | None = None,
        revoked: Container[SpiffeId] = (),
    ) -> None:
        self._tokens = tokens
        self._renewal = renewal
        self._limit = limit
        self._service_accounts = service_accounts
        self._revoked = revoked

    async def attest(self, claim: Claim) -> str:
        """
        Return how the claim was proved.

        Raises:
            NotAttested: It was not, or comes too often, or the identity is revoked.
        """
        if claim.identity in self._revoked:
            # To be repeated: it may be lifted, and then the sidecar should need nobody's help.
            raise NotAttested("identity-revoked", f"{claim.identity} has been revoked.", retry=True)
        attestor = self._attestor(claim.token)
        how = await attestor.attest(claim)
        # Only a proven identity counts against its limit: others must not be able to use it up.
        # (A join token limits itself.)
        if attestor is not self._tokens:
            self._limit.check(claim.workload)
        return how

    def _attestor(self, token: str | None) -> Attestor:
        if token is None:
            return self._renewal
        if token.count(".") != 2:  # a JWT has three parts, a join token one
            return self._tokens
        if self._service_accounts is None:
            raise NotAttested(
                "token-of-nobody",
                "This is a token of a service account, but this control plane asks no Kubernetes"
                " about such tokens.",
            )
        return self._service_accounts
