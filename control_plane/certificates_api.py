"""
The API's part about certificates, for `meshctl certs`: who holds what, rotations, revocations.

    GET  /api/v1/certificates
    POST /api/v1/certificates/rotation        {"do": "begin", "what": "root" | "issuer"}
                                              {"do": "skip-away"} | {"do": "abort"}
    POST /api/v1/certificates/revoke          {"identity": "spiffe://…", "reason": "…"}
    POST /api/v1/certificates/lift            {"identity": "spiffe://…"}

409 says why something cannot be done now.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from msgspec import Meta

from meshproxy.contract import wire
from meshproxy.contract.spiffe import SpiffeError, SpiffeId
from meshproxy.private_file import PrivateFileError

from . import answers
from .authority import Authority, AuthorityError, RefusedError, What
from .certificate import key_id
from .gate import audit
from .revocation import Revocations
from .rotation import Guide, Holder
from .signer import SignerError

log = logging.getLogger(__name__)


class _Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    do: Literal["begin", "skip-away", "abort"]
    what: What | None = None


class _Denial(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    identity: str
    reason: Annotated[str, Meta(max_length=500)] = ""


class CertificatesApi:
    """
    Args:
        authority: Signs.
        guide: Drives its rotations.
        holders: Who holds certificates.
        identity_of: Which identity a workload runs as.
        revocations: Identities that are denied.
        own: The control plane's identity, without which nothing works.
    """

    def __init__(
        self,
        *,
        authority: Authority,
        guide: Guide,
        holders: Callable[[], Iterable[Holder]],
        identity_of: Callable[[str], SpiffeId | None],
        revocations: Revocations,
        own: SpiffeId,
    ) -> None:
        self._authority = authority
        self._guide = guide
        self._holders = holders
        self._identity_of = identity_of
        self._revocations = revocations
        self._own = own

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_get("/api/v1/certificates", self._certificates)
        router.add_post("/api/v1/certificates/rotation", self._rotation)
        router.add_post("/api/v1/certificates/revoke", self._revoke)
        router.add_post("/api/v1/certificates/lift", self._lift)

    # What is so -------------------------------------------------------------------------------

    async def _certificates(self, _request: web.Request) -> web.Response:
        return answers.say(self._described())

    def _described(self) -> dict[str, Any]:
        signer = self._authority.signer
        return {
            "trust_domain": self._authority.trust_domain,
            "issuing": _authority_of(signer.chain[0]),
            "roots": [
                {**_authority_of(root), "signs": root == signer.root}
                for pem in self._authority.roots()
                for root in [x509.load_pem_x509_certificate(pem.encode())]
            ],
            "rotation": self._guide.status(),
            "proxies": [
                {
                    "workload": holder.workload,
                    "identity": str(self._identity_of(holder.workload) or ""),
                    "connected": holder.connected,
                    "serial": holder.serial,
                    "not_after": holder.not_after,
                    "issuer": holder.issuer,
                    "of_current_issuer": holder.issuer == signer.issuer_id,
                    "believes_all_roots": holder.believes,
                }
                for holder in self._holders()
            ],
            "revoked": [msgspec.structs.asdict(entry) for entry in self._revocations.entries],
        }

    # What is done -----------------------------------------------------------------------------

    async def _rotation(self, request: web.Request) -> web.Response:
        try:
            command = wire.decode(await request.read(), _Command)
            audit(request, f"rotation, {command.do} {command.what or ''}".rstrip())
            match command.do:
                case "begin" if command.what is not None:
                    self._guide.begin(command.what)
                case "begin":
                    return answers.refuse(
                        400, 'Expected {"do": "begin", "what": "root" or "issuer"}.'
                    )
                case "skip-away":
                    self._guide.skip_away()
                case "abort":
                    self._guide.abort()
        except wire.ContractError as error:
            return answers.refuse(400, f"Expected a command: {error}.")
        except RefusedError as error:
            return answers.refuse(409, f"{error}.")
        except (PrivateFileError, AuthorityError, SignerError, OSError) as error:
            log.error("the rotation cannot do as it was told: %s", error)
            return answers.refuse(500, f"{error}.")
        return answers.say(self._described())

    async def _revoke(self, request: web.Request) -> web.Response:
        return await self._deny(request, denied=True)

    async def _lift(self, request: web.Request) -> web.Response:
        return await self._deny(request, denied=False)

    async def _deny(self, request: web.Request, *, denied: bool) -> web.Response:
        try:
            asked = wire.decode(await request.read(), _Denial)
            identity = SpiffeId.parse(asked.identity)
        except wire.ContractError as error:
            return answers.refuse(400, f'Expected {{"identity": "spiffe://…"}}: {error}.')
        except SpiffeError as error:
            return answers.refuse(400, f"{error}.")
        audit(request, f"{'revoke' if denied else 'lift'} {identity}: {asked.reason!r}")
        if identity.trust_domain != self._authority.trust_domain:
            domain = self._authority.trust_domain
            return answers.refuse(400, f"Expected an identity of {domain}, found {identity}.")
        if identity == self._own:
            return answers.refuse(
                409, "That is the control plane itself: nobody could be told any more."
            )
        try:
            if denied:
                changed = self._revocations.revoke(identity, asked.reason)
            else:
                changed = self._revocations.lift(identity)
        except PrivateFileError as error:
            return answers.refuse(500, f"{error}.")
        return answers.say({"identity": str(identity), "revoked": denied, "changed": changed})


def _authority_of(certificate: x509.Certificate) -> dict[str, Any]:
    return {
        "subject": certificate.subject.rfc4514_string(),
        "key": key_id(certificate),
        "sha256": certificate.fingerprint(SHA256()).hex(),
        "not_before": certificate.not_valid_before_utc.timestamp(),
        "not_after": certificate.not_valid_after_utc.timestamp(),
    }
