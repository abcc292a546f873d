"""
The identity conversation, `/v1/identity`: a signing request comes, a certificate or a refusal goes.

    SigningRequest → entitled? (the workload's service account) → asks for no more?
                   → attested? (token, certificate) → signed → SigningAnswer;   else → Refused

Every outcome is counted and logged; tokens and keys never are.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta

from aiohttp import WSMsgType, web

from meshproxy.contract import wire
from meshproxy.contract.discovery import FromAuthority, Refused, SigningAnswer, SigningRequest
from meshproxy.contract.spiffe import SpiffeId
from meshproxy.private_file import PrivateFileError

from . import peer
from .attestation import Attestation, Claim, NotAttested
from .authority import AsksForMore, Authority, AuthorityError, BadRequest
from .certificate import fingerprint
from .metrics import Metrics

log = logging.getLogger(__name__)

_LARGEST_REQUEST = 64 << 10
_REQUEST_WITHIN = 10.0


class Enrolment:
    """
    `identity_of` tells which identity a workload (``namespace/name``) is entitled to, or None when
    there is no such workload; `lifetime` how long certificates live from now on.
    """

    def __init__(
        self,
        *,
        authority: Authority,
        attestation: Attestation,
        identity_of: Callable[[str], SpiffeId | None],
        lifetime: Callable[[], timedelta],
        metrics: Metrics,
    ) -> None:
        self._authority = authority
        self._attestation = attestation
        self._identity_of = identity_of
        self._lifetime = lifetime
        self._metrics = metrics

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        """Serve one connection: one request, one answer."""
        socket = web.WebSocketResponse(
            max_msg_size=_LARGEST_REQUEST, compress=False, heartbeat=_REQUEST_WITHIN
        )
        await socket.prepare(request)
        proved = peer.peer_of(request.transport, self._authority.trust_domain)
        try:
            async with asyncio.timeout(_REQUEST_WITHIN):
                message = await socket.receive()
        except TimeoutError:
            message = None
        if message is not None and message.type is WSMsgType.TEXT:
            answer = await self.answer(message.data, proved.identity if proved else None)
            await socket.send_str(wire.encode(answer).decode())
        await socket.close()
        return socket

    async def answer(self, message: str, proved: SpiffeId | None) -> FromAuthority:
        """Return the answer to a message; never raises, whatever the message is."""
        workload = "?"
        try:
            asked = wire.decode(message, SigningRequest)
            workload = asked.workload
            answer, how = await self._sign(asked, proved)
        except (
            NotAttested, BadRequest, wire.ContractError, PrivateFileError, AuthorityError
        ) as error:  # fmt: skip
            refused = _refusal(error)
            self._metrics.signings.labels(refused.code).inc()
            log.warning("no certificate for %r: %s (%s)", workload, refused.reason, refused.code)
            return refused
        self._metrics.signings.labels("signed").inc()
        log.info("certificate of %s signed for %s by %s", answer.identity, workload, how)
        return answer

    async def _sign(
        self, asked: SigningRequest, proved: SpiffeId | None
    ) -> tuple[SigningAnswer, str]:
        identity = self._identity_of(asked.workload)
        if identity is None:
            raise NotAttested("unknown-workload", "There is no such workload.", retry=True)
        # The request is judged before the token is used up.
        key = fingerprint(self._authority.check(asked.csr, identity))
        how = await self._attestation.attest(
            Claim(asked.workload, identity, asked.token, proved, key)
        )
        signed = self._authority.sign(asked.csr, identity, self._lifetime(), asked.workload)
        answer = SigningAnswer(
            identity=str(identity),
            chain=signed.chain,
            roots=self._authority.roots(),
            not_before=signed.not_before,
            not_after=signed.not_after,
        )
        return answer, f"{how}, serial {signed.serial}"


def _refusal(error: Exception) -> Refused:
    if isinstance(error, NotAttested):
        return Refused(code=error.code, reason=error.reason, retry=error.retry)
    if isinstance(error, AsksForMore):
        return Refused(code="asks-for-more", reason=f"Signing request: {error}.", retry=False)
    if isinstance(error, BadRequest):
        return Refused(code="bad-request", reason=f"Signing request: {error}.", retry=False)
    if isinstance(error, PrivateFileError):
        # What could not be written down, the use of a token or the certificate, has not happened.
        return Refused(
            code="state-not-writable",
            reason="The control plane could not write down that it was granted.",
            retry=True,
        )
    if isinstance(error, AuthorityError):
        return Refused(code="authority-expired", reason=f"{error}.", retry=True)
    return Refused(code="bad-message", reason=str(error), retry=False)
