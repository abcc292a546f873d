"""
The sidecar's side of the conversation with its control plane.

    restore the last snapshot → until cancelled:
        no certificate, or half of its life is over   → /v1/identity: signing request, answer
        connected                                     → /v1/discovery: Hello, then for each Update
                                                        all fits → apply, Ack;  or not → Nack
        lost, refused, garbage                        → wait (full jitter), connect again

The data plane never waits for any of this: it serves with what was applied last, after its own
restart with what lies on disk.  Before a byte of the conversation is sent, the plane's
certificate has been verified against the roots and its SPIFFE ID compared.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from meshproxy import private_file
from meshproxy.backoff import Backoff
from meshproxy.contract import wire
from meshproxy.contract.discovery import (
    Ack,
    FromAuthority,
    FromPlane,
    Hello,
    Nack,
    Refused,
    SigningAnswer,
    SigningRequest,
    Update,
)
from meshproxy.contract.resources import Snapshot
from meshproxy.contract.spiffe import SpiffeId
from meshproxy.contract.wire import ContractError
from meshproxy.identity import tls
from meshproxy.identity.certificates import CannotSign, Certificates
from meshproxy.identity.x509 import CertificateError

from . import delta
from .bootstrap import Bootstrap

log = logging.getLogger(__name__)

_SNAPSHOT_FILE = "snapshot.json"
# A plane that is gone without a word (no FIN, no RST) is noticed after both together.
_PING_EVERY, _PONG_WITHIN = 5.0, 5.0
_CONNECT_WITHIN = 10.0
_ANSWER_WITHIN = 20.0
# A mesh of thousands of services fits many times over; more is a plane gone mad.
_LARGEST_UPDATE = 32 << 20
_LARGEST_ANSWER = 256 << 10
# X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED (openssl/x509_vfy.h).
_NOT_NOW = (9, 10)
# A connection that lived this long was a good one: the next failure starts from the shortest wait.
_SETTLED = 5.0


class PlaneError(Exception):
    """The control plane could not be talked to, or said no; says why in one sentence."""


class DiscoveryClient:
    """
    One task keeps certificate and configuration fresh: `run`.

    `apply` puts a snapshot into force, or raises `ContractError` to refuse it; `build` is the
    version of the proxy program and `admin` the ``address:port`` of its metrics.

    Attributes:
        snapshot: What was applied last; version is empty before anything was.
        connected: Whether the discovery stream is up.
        last_error: Why it is not, or was refused last; None when all is well.
    """

    def __init__(
        self,
        bootstrap: Bootstrap,
        certificates: Certificates,
        apply: Callable[[Snapshot], Awaitable[None]],
        *,
        build: str = "",
        admin: str | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if bootstrap.control_plane is None:
            raise ValueError("a static bootstrap has no control plane to talk to")
        self.snapshot = Snapshot()
        self.connected = False
        self.last_error: str | None = None
        self._plane = bootstrap.control_plane
        self._workload = bootstrap.workload
        self._state = bootstrap.state
        self._trust_domain = SpiffeId.parse(bootstrap.identity).trust_domain
        self._certificates = certificates
        self._apply = apply
        self._build = build
        self._admin = admin
        self._pause = pause
        self._refused_token: str | None = None

    def __repr__(self) -> str:
        state = "connected" if self.connected else "not connected"
        return f"<DiscoveryClient {self._workload} {state}, version {self.snapshot.version or '-'}>"

    async def run(self) -> None:
        """Restore what an earlier run has left, then talk to the control plane; never returns."""
        if not self._certificates.ready:
            self._certificates.load_cache()
        if not self.snapshot.version:
            await self.restore()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._certificates.keep(self.sign))
            tasks.create_task(self._follow())

    # What an earlier run has left -------------------------------------------------------------

    async def restore(self) -> bool:
        """Apply the snapshot of an earlier run; say whether there was a usable one."""
        path = self._state / _SNAPSHOT_FILE
        try:
            data = private_file.read(path)
            if data is None:
                return False
            snapshot = wire.decode(data, Snapshot)
            delta.check_version(snapshot)
            await self._put_into_force(snapshot)
        except (private_file.PrivateFileError, ContractError) as error:
            log.warning("%s: last snapshot not used: %s", path, error)
            return False
        log.info("snapshot %s restored from %s", snapshot.version, path)
        return True

    async def _persist(self, snapshot: Snapshot) -> None:
        # In a thread: a slow disk must not hold up requests.  A full one is no reason to refuse.
        def write() -> None:
            private_file.directory(self._state)
            private_file.write(self._state / _SNAPSHOT_FILE, wire.encode(snapshot))

        try:
            await asyncio.to_thread(write)
        except private_file.PrivateFileError as error:
            log.warning("snapshot %s not kept for a restart: %s", snapshot.version, error)

    # The identity conversation ----------------------------------------------------------------

    async def sign(self, csr: str) -> SigningAnswer:
        """
        Have a signing request signed: with the current certificate, else with the join token.

        Raises:
            CannotSign: There is neither, the plane cannot be reached, or it says no.
        """
        token = None if self._certificates.file else self._token()
        request = SigningRequest(workload=self._workload, csr=csr, token=token)
        try:
            connection = await self._connect("/v1/identity", _LARGEST_ANSWER)
            async with connection:
                await connection.send(wire.encode(request).decode())
                async with asyncio.timeout(_ANSWER_WITHIN):
                    message = await connection.recv()
                answer: FromAuthority = wire.decode(message, FromAuthority)  # type: ignore[arg-type]
        except (OSError, TimeoutError, WebSocketException, PlaneError, ContractError) as error:
            raise CannotSign(self._sentence(error)) from error
        if isinstance(answer, Refused):
            if not answer.retry:
                self._refused_token = token
            raise CannotSign(f"refused ({answer.code}): {answer.reason}")
        return answer

    def _token(self) -> str:
        path = self._plane.token
        if path is None:
            raise CannotSign("no valid certificate, and the bootstrap names no join token")
        try:
            token = path.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise CannotSign(f"no valid certificate, and no join token: {error}") from error
        if token == self._refused_token:
            raise CannotSign(f"the join token in {path} was refused for good; put a new one there")
        return token

    # The discovery conversation ---------------------------------------------------------------

    async def _follow(self) -> None:
        backoff = Backoff()
        loop = asyncio.get_running_loop()
        while True:
            await self._certificates.until_ready()
            began = loop.time()
            try:
                await self._converse()
            except (OSError, TimeoutError, WebSocketException, PlaneError, ContractError) as error:
                self._lost(self._sentence(error))
            finally:
                self.connected = False
            if loop.time() - began > _SETTLED:
                backoff.reset()
            await self._pause(backoff.next())

    async def _converse(self) -> None:
        # Of the certificate that the connection will show, so before it is made.
        renewed = self._certificates.renewed
        connection = await self._connect("/v1/discovery", _LARGEST_UPDATE)
        async with connection:
            hello = Hello(
                workload=self._workload,
                build=self._build,
                admin=self._admin,
                version=self.snapshot.version,
                held=delta.versions_of(self.snapshot),
            )
            await connection.send(wire.encode(hello).decode())
            self.connected = True
            self.last_error = None
            log.info(
                "connected to %s, holding version %s", self._where, self.snapshot.version or "-"
            )
            left = asyncio.Event()
            leaving = asyncio.create_task(self._leave_when(renewed, connection, left))
            try:
                async for message in connection:
                    heard: FromPlane = wire.decode(message, FromPlane)  # type: ignore[arg-type]
                    if isinstance(heard, Refused):
                        raise PlaneError(f"refused ({heard.code}): {heard.reason}")
                    await connection.send(wire.encode(await self._on_update(heard)).decode())
                if not left.is_set():
                    raise PlaneError("the connection was closed")
            finally:
                leaving.cancel()

    async def _leave_when(
        self, renewed: asyncio.Event, connection: ClientConnection, left: asyncio.Event
    ) -> None:
        # The plane ends a stream whose certificate has expired; a renewed one starts another in
        # good time, and shows the plane until when it is good.
        await renewed.wait()
        left.set()
        await connection.close()

    async def _on_update(self, update: Update) -> Ack | Nack:
        try:
            snapshot = delta.apply(self.snapshot, update)
            await self._put_into_force(snapshot)
        except ContractError as error:
            log.warning("update to version %s refused: %s", update.version, error)
            self.last_error = f"update to version {update.version} refused: {error}"
            return Nack(
                nonce=update.nonce,
                version=self.snapshot.version,
                path=error.path,
                reason=error.reason,
            )
        self.last_error = None
        log.info("version %s in force", snapshot.version)
        await self._persist(snapshot)
        return Ack(nonce=update.nonce, version=snapshot.version)

    async def _put_into_force(self, snapshot: Snapshot) -> None:
        roots = next(
            (t.roots for t in snapshot.trust if t.trust_domain == self._trust_domain), None
        )
        before = self._certificates.roots
        try:
            if roots is not None:
                self._certificates.trust(roots)
        except CertificateError as error:
            raise ContractError(f"trust/{self._trust_domain} roots", str(error)) from error
        try:
            await self._apply(snapshot)
        except ContractError:
            if before:
                self._certificates.trust((before,))
            raise
        self.snapshot = snapshot

    # The connection ---------------------------------------------------------------------------

    async def _connect(self, path: str, largest: int) -> ClientConnection:
        expected = self._plane.identity
        trust_domain = SpiffeId.parse(expected).trust_domain

        class Verified(ClientConnection):
            async def handshake(self, *args: Any, **kwargs: Any) -> None:
                """Say nothing, not even the HTTP request, to anybody but the control plane."""
                found = tls.peer_identity(self.transport, trust_domain)
                if found != expected:
                    self.transport.abort()
                    raise PlaneError(f"expected {expected}, found {found or 'no SPIFFE ID'}")
                await super().handshake(*args, **kwargs)

        connection = await connect(
            f"wss://{self._plane.address}:{self._plane.port}{path}",
            ssl=self._context(),
            create_connection=Verified,
            proxy=None,
            compression=None,
            user_agent_header=None,
            max_size=largest,
            open_timeout=_CONNECT_WITHIN,
            close_timeout=1.0,
            ping_interval=_PING_EVERY,
            ping_timeout=_PONG_WITHIN,
        )
        channel: socket.socket = connection.transport.get_extra_info("socket")
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connection

    def _context(self) -> ssl.SSLContext:
        # The file vouches at first contact (with what an earlier run believed, should the file be
        # old); later the bundle alone, so that the plane may move to a new root without a change of
        # every bootstrap, and the old one is then believed no more.
        certificates = self._certificates
        try:
            if certificates.ready:
                return tls.plane_context(certificates.roots, certificates.file)
            return tls.plane_context(self._plane.roots.read_text("ascii") + certificates.roots)
        except (OSError, ValueError) as error:
            raise PlaneError(f"roots of the control plane {self._plane.roots}: {error}") from error

    @property
    def _where(self) -> str:
        return f"control plane {self._plane.address}:{self._plane.port}"

    def _sentence(self, error: Exception) -> str:
        if isinstance(error, ssl.SSLCertVerificationError):
            roots = "the trust bundle" if self._certificates.ready else self._plane.roots
            text = f"its certificate is not vouched for by {roots}: {error.verify_message}"
            if error.verify_code in _NOT_NOW:
                text += " by this machine's clock, which may be wrong"
        elif isinstance(error, ConnectionClosed):
            text = "the connection was lost"
        elif isinstance(error, TimeoutError):
            text = "no answer in time"
        else:
            text = str(error) or type(error).__name__
        return f"{self._where}: {text}"

    def _lost(self, sentence: str) -> None:
        if self.connected or sentence != self.last_error:
            log.warning("%s; going on with version %s", sentence, self.snapshot.version or "-")
        self.last_error = sentence
