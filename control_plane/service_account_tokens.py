"""
Service account tokens of Kubernetes: the API server says whose they are (TokenReview).

    sidecar ──projected token──▶ here ──TokenReview, with our audience──▶ API server
                                      ◀── authenticated? who? for whom? which pod? ──

A token is good here only if all of this holds:

* it is *meant for us*: our audience is among those that the review confirms.  A token for the API
  server itself, which every pod can have, opens nothing;
* it is of the service account that the workload runs as;
* it is bound to a pod, and that pod is the workload.  A token that was stolen from another pod of
  the same account is that pod's; and when a pod is deleted, the API server no longer
  authenticates its tokens, long before they expire.

A pod can show its token as often as it likes, so these certificates count against the rate limit.
"""

import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import msgspec
from msgspec import Struct

from .attestation import Claim, NotAttested

log = logging.getLogger(__name__)

AUDIENCE = "meshproxy"
_PATH = "/apis/authentication.k8s.io/v1/tokenreviews"
_POD = "authentication.kubernetes.io/pod-name"
_WITHIN = 5.0


class User(Struct, frozen=True, kw_only=True):
    """`status.user` of a TokenReview."""

    username: str = ""
    uid: str = ""
    extra: dict[str, list[str]] = {}


class Review(Struct, frozen=True, kw_only=True):
    """`status` of a TokenReview."""

    authenticated: bool = False
    user: User = User()
    audiences: list[str] = []
    error: str = ""


class _TokenReview(Struct, frozen=True, kw_only=True):
    status: Review


class ReviewError(Exception):
    """The API server gave no verdict; says why."""


class Reviewer(Protocol):
    """Who knows whose token it is."""

    async def review(self, token: str, audience: str) -> Review:
        """
        Return the verdict.

        Raises:
            ReviewError: There is none.
        """
        ...


class ServiceAccountTokens:
    """
    The attestor.

    Args:
        reviewer: Asked about each token.
        audience: For which tokens must be meant.
        workload_of: From a pod's namespace and name to the name of its workload.
    """

    def __init__(
        self,
        reviewer: Reviewer,
        audience: str = AUDIENCE,
        workload_of: Callable[[str, str], str] = "{}/{}".format,
    ) -> None:
        self._reviewer = reviewer
        self._audience = audience
        self._workload_of = workload_of

    async def attest(self, claim: Claim) -> str:
        """Have the token of a claim reviewed."""
        try:
            review = await self._reviewer.review(claim.token or "", self._audience)
        except ReviewError as error:
            log.error("no review of the token of %r: %s", claim.workload, error)
            raise NotAttested(
                "review-failed", "Kubernetes could not be asked about the token.", retry=True
            ) from error
        # To be repeated: the kubelet puts a fresh token where the old one was.
        if not review.authenticated:
            if review.error:
                log.warning("token of %r: %r", claim.workload, review.error)
            raise NotAttested(
                "token-not-authentic",
                "Kubernetes does not authenticate the token: it has expired, or its pod is gone.",
                retry=True,
            )
        if self._audience not in review.audiences:
            raise NotAttested(
                "token-of-another-audience", f"The token is not meant for {self._audience!r}."
            )
        match review.user.username.split(":"):
            case ["system", "serviceaccount", namespace, account] if (
                namespace,
                account,
            ) == claim.identity.service_account:
                pass
            case _:
                raise NotAttested(
                    "wrong-identity",
                    f"The token is that of {review.user.username!r}, but {claim.workload} runs as"
                    f" {claim.identity}.",
                )
        pods = review.user.extra.get(_POD, [])
        if [self._workload_of(namespace, pod) for pod in pods] != [claim.workload]:
            found = f"pod {pods[0]!r}" if pods else "no pod"
            raise NotAttested(
                "token-of-another", f"The token is bound to {found}, not to {claim.workload}."
            )
        return f"service account token of pod {pods[0]}"


class ApiServer:
    """
    The reviewer: Kubernetes' API server.

    Args:
        url: Such as ``https://kubernetes.default.svc``.
        token: File with our own token; read each time, because the kubelet replaces it.
        roots: PEM file that vouches for the server; None for plain HTTP, or the system's.
    """

    def __init__(self, url: str, token: Path, roots: Path | None = None) -> None:
        self._url = url.rstrip("/") + _PATH
        self._token = token
        self._roots = roots

    async def review(self, token: str, audience: str) -> Review:
        """Ask it about one token."""
        question = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [audience]},
        }
        try:
            headers = {"Authorization": f"Bearer {self._token.read_text('ascii').strip()}"}
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(_WITHIN)) as session,
                session.post(
                    self._url,
                    json=question,
                    headers=headers,
                    ssl=self._context(),
                    allow_redirects=False,
                ) as answer,
            ):
                body = await answer.read()
        except (OSError, ValueError, TimeoutError, aiohttp.ClientError) as error:
            raise ReviewError(f"{self._url}: {str(error) or type(error).__name__}") from error
        if answer.status not in (200, 201):
            raise ReviewError(f"{self._url} answered {answer.status}: {body[:200]!r}")
        try:
            return msgspec.json.decode(body, type=_TokenReview).status
        except msgspec.DecodeError as error:
            raise ReviewError(f"{self._url}: not a TokenReview: {error}") from error

    def _context(self) -> Any:
        return True if self._roots is None else ssl.create_default_context(cafile=self._roots)
