"""
The discovery streams, `/v1/discovery`: each proxy is told what differs from what it holds.

    a change ─▶ fan-out: for each stream, in turn ─▶ snapshot_for(workload)
                  only endpoints differ  → offered at once
                  anything else differs  → offered after 100 ms of quiet, 10 s at most
    a stream: offered ─▶ delta ─▶ Update ─▶ Ack | Nack ─▶ the newest offer, if it differs …

Each stream has a task of its own and keeps only the newest offer, so a slow or frozen proxy
delays nobody and gathers no queue.  Who a proxy is, its certificate says.  This file knows nothing of
resources: it is handed a function from workload to snapshot.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Container
from contextlib import suppress

from aiohttp import WSMsgType, web

from meshproxy.contract import wire
from meshproxy.contract.discovery import PROTOCOL, Ack, FromProxy, Hello, Nack, Refused, Update
from meshproxy.contract.resources import Snapshot
from meshproxy.contract.spiffe import SpiffeId
from meshproxy.contract.wire import ContractError

from . import peer, snapshots
from .debounce import Debounce
from .metrics import Metrics
from .peer import Peer
from .snapshots import Proxy, State

log = logging.getLogger(__name__)

# A Hello names every resource the proxy holds: 100 bytes each, so tens of thousands fit.
_LARGEST_MESSAGE = 4 << 20
_HELLO_WITHIN = 10.0
# aiohttp waits half of it for the pong: a frozen proxy is noticed within 15 s.
_HEARTBEAT = 10.0


class _Refusal(Exception):  # noqa: N818 - a verdict
    def __init__(self, code: str, reason: str, *, retry: bool = True) -> None:
        reason = reason[: snapshots.LONGEST]  # some quote what the other side has said
        super().__init__(f"{code}: {reason}")
        self.refused = Refused(code=code, reason=reason, retry=retry)


class Stream:
    """
    One connected proxy.

    Attributes:
        held: What the proxy holds, as far as it has told or acknowledged.
        target: What it will hold when it has obeyed all that was offered.
        target_version: Version of the snapshot that was offered last.
    """

    def __init__(
        self,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport,
        proxy: Proxy,
        held: snapshots.Versions,
    ) -> None:
        self.socket = socket
        self.transport = transport
        self.proxy = proxy
        self.target = held
        self._hold(held)
        self.target_version = ""
        self._offer: tuple[Snapshot, float] | None = None
        self._offered = asyncio.Event()
        self._awaited: Update | None = None
        self._answered = asyncio.Event()
        self._nacked = ""
        self._nonces = 0

    def offer(self, snapshot: Snapshot, since: float) -> None:
        """Let the proxy have `snapshot` as soon as it has answered the update under way."""
        self._offer = (snapshot, since)
        self.target = snapshots.versions_of(snapshot)
        self.target_version = snapshot.version
        self._offered.set()

    async def send(self, metrics: Metrics) -> None:
        """Send what is offered, one update at a time; runs until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._offered.wait()
            self._offered.clear()
            if self._offer is None:
                continue
            snapshot, since = self._offer
            self._offer = None
            versions = self.target
            if snapshot.version == self._nacked:
                continue
            changed, removed = snapshots.delta(self.held, snapshot)
            if not changed and not removed:
                self.proxy.on_synced(snapshot.version, time.time())
                continue
            self._nonces += 1
            update = Update(
                nonce=str(self._nonces), version=snapshot.version, changed=changed, removed=removed
            )
            self._awaited = update
            self._answered.clear()
            self.proxy.on_update(snapshot.version)
            metrics.updates.inc()
            await self.socket.send_str(wire.encode(update).decode())
            await self._answered.wait()
            if self.proxy.state is State.SYNCED:
                self._hold(versions)
                metrics.convergence.observe(loop.time() - since)

    def _hold(self, versions: snapshots.Versions) -> None:
        self.held = versions
        # One trust domain, so one bundle; what a proxy claims to hold of others does not count.
        self.proxy.trust = ",".join(versions.get("trust", {}).values())

    def on_answer(self, answer: Ack | Nack, metrics: Metrics) -> None:
        """Take note of the answer to the update under way; another's is an error."""
        if self._awaited is None or answer.nonce != self._awaited.nonce:
            raise _Refusal("unexpected-answer", f"No update {answer.nonce!r} awaits an answer.")
        workload, version = self.proxy.workload, self._awaited.version
        if isinstance(answer, Ack):
            self._nacked = ""
            self.proxy.on_synced(version, time.time())
            metrics.answers.labels("ack").inc()
            log.info("%s has version %s in force", workload, version)
        else:
            self._nacked = version
            self.proxy.on_nack(answer)
            metrics.answers.labels("nack").inc()
            log.warning(
                "%s refused version %s: %r: %r",
                workload,
                version,
                self.proxy.path,
                self.proxy.reason,
            )
        self._awaited = None
        self._answered.set()


class Discovery:
    """
    `identity_of` tells which identity a workload (``namespace/name``) runs as, `snapshot_for` all
    that its proxy must know; both tell None when there is no such workload.  Identities in
    `revoked` are turned away.

    Attributes:
        proxies: Every proxy that was connected since start, by workload, as long as there is such a
            workload.
        on_admitted: Told of the connection of each proxy that is let in.
    """

    def __init__(
        self,
        *,
        trust_domain: str,
        identity_of: Callable[[str], SpiffeId | None],
        snapshot_for: Callable[[str], Snapshot | None],
        metrics: Metrics,
        revoked: Container[SpiffeId] = (),
        debounce: Debounce | None = None,
    ) -> None:
        self.proxies: dict[str, Proxy] = {}
        self._trust_domain = trust_domain
        self._identity_of = identity_of
        self._snapshot_for = snapshot_for
        self._metrics = metrics
        self._revoked = revoked
        self._debounce = debounce or Debounce()
        self._streams: dict[str, Stream] = {}
        self.on_admitted: Callable[[asyncio.Transport], None] = lambda _transport: None
        self._changed = asyncio.Event()
        self._changed_at = 0.0

    def __repr__(self) -> str:
        return f"<Discovery {len(self._streams)} proxies connected>"

    # A change, and whom it concerns -----------------------------------------------------------

    def changed(self) -> None:
        """Note that snapshots may have changed."""
        now = asyncio.get_running_loop().time()
        if self._debounce.due() is None:
            self._changed_at = now
        self._debounce.touch(now)
        self._changed.set()

    async def run(self) -> None:
        """Fan changes out; runs until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = self._debounce.due()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._changed.wait()
            self._changed.clear()
            due = self._debounce.due()
            all_of_it = due is not None and loop.time() >= due
            since = self._changed_at
            if all_of_it:
                self._debounce.clear()
            for stream in list(self._streams.values()):
                self._offer(stream, since, only_endpoints=not all_of_it)
                # One proxy at a time: heartbeats and answers of the others get their turn.
                await asyncio.sleep(0)
            self._forget(*list(self.proxies))

    def _offer(self, stream: Stream, since: float, *, only_endpoints: bool) -> None:
        snapshot = self._snapshot(stream.proxy.workload)
        # Same content, same version: nothing unchanged is sent, nor compared.
        if snapshot is None or snapshot.version == stream.target_version:
            return
        if only_endpoints:
            changed, removed = snapshots.delta(stream.target, snapshot)
            if any(c.kind != "endpoints" for c in changed) or any(
                r.kind != "endpoints" for r in removed
            ):
                return
        stream.offer(snapshot, since)

    def _snapshot(self, workload: str) -> Snapshot | None:
        try:
            return self._snapshot_for(workload)
        except Exception:
            # A mistake of ours in one proxy's snapshot must not keep the others from theirs.
            log.exception(
                "no snapshot could be made for %s; it goes on with the last one", workload
            )
            return None

    def _forget(self, *workloads: str) -> None:
        """Of who has gone, keep nothing once there is no such workload any more."""
        for workload in workloads:
            if workload not in self._streams and self._identity_of(workload) is None:
                self.proxies.pop(workload, None)

    def cut(self) -> None:
        """End the streams of identities that have been revoked."""
        for stream in self._streams.values():
            if SpiffeId.parse(stream.proxy.identity) in self._revoked:
                log.warning("%s: stream ended, its identity is revoked", stream.proxy.workload)
                stream.transport.abort()

    def close(self) -> None:
        """Let all proxies go: the control plane stops."""
        for stream in self._streams.values():
            stream.transport.abort()

    # A stream ---------------------------------------------------------------------------------

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        """Serve one proxy until either side leaves."""
        socket = web.WebSocketResponse(
            max_msg_size=_LARGEST_MESSAGE, compress=False, heartbeat=_HEARTBEAT, timeout=1.0
        )
        await socket.prepare(request)
        transport = request.transport
        if transport is None:
            return socket
        try:
            await self._serve(socket, transport)
        except _Refusal as refusal:
            self._metrics.refusals.labels(refusal.refused.code).inc()
            log.warning("stream refused: %s", refusal)
            with suppress(ConnectionError):
                await socket.send_str(wire.encode(refusal.refused).decode())
        finally:
            await socket.close()
        return socket

    async def _serve(self, socket: web.WebSocketResponse, transport: asyncio.Transport) -> None:
        client = peer.peer_of(transport, self._trust_domain)
        if client is None:
            raise _Refusal(
                "no-certificate", "The discovery stream needs a certificate of this mesh."
            )
        try:
            async with asyncio.timeout(_HELLO_WITHIN):
                hello = await _receive(socket)
        except TimeoutError:
            raise _Refusal("no-hello", f"No Hello came within {_HELLO_WITHIN:.0f} s.") from None
        if hello is None:
            return
        if not isinstance(hello, Hello):
            raise _Refusal("no-hello", "The first message must be a Hello.")
        proxy = self._admit(hello, client)
        self.on_admitted(transport)
        stream = Stream(socket, transport, proxy, hello.held)
        workload = stream.proxy.workload
        previous = self._streams.get(workload)
        self._streams[workload] = stream
        log.info("%s connected, holding version %s", workload, stream.proxy.acked_version or "-")
        loop = asyncio.get_running_loop()
        sender = loop.create_task(stream.send(self._metrics))
        try:
            if previous is not None:
                previous.transport.abort()
            snapshot = self._snapshot(workload)
            if snapshot is not None:
                stream.offer(snapshot, loop.time())
            await self._listen(stream, client.not_after - time.time())
        finally:
            sender.cancel()
            (failure,) = await asyncio.gather(sender, return_exceptions=True)
            if isinstance(failure, Exception) and not isinstance(failure, ConnectionError):
                log.error("sending to %s failed", workload, exc_info=failure)
            if self._streams.get(workload) is stream:
                del self._streams[workload]
                stream.proxy.on_disconnect("The connection was closed.")
                log.info("%s disconnected", workload)
                self._forget(workload)

    def _admit(self, hello: Hello, client: Peer) -> Proxy:
        if hello.protocol != PROTOCOL:
            raise _Refusal(
                "protocol", f"This control plane speaks protocol {PROTOCOL}, not {hello.protocol}."
            )
        entitled = self._identity_of(hello.workload)
        if entitled is None:
            raise _Refusal("unknown-workload", f"There is no workload {hello.workload!r}.")
        if entitled != client.identity:
            raise _Refusal(
                "wrong-identity",
                f"{hello.workload} runs as {entitled}, but the certificate is that of"
                f" {client.identity}.",
            )
        if client.identity in self._revoked:
            raise _Refusal("identity-revoked", f"{client.identity} has been revoked.")
        proxy = self.proxies.setdefault(hello.workload, Proxy(workload=hello.workload))
        proxy.on_hello(hello, str(client.identity), client.not_after, time.time())
        proxy.certificate_issuer, proxy.certificate_serial = client.issuer, client.serial
        return proxy

    async def _listen(self, stream: Stream, seconds: float) -> None:
        """Take answers until the proxy leaves, or until its certificate has expired."""
        try:
            async with asyncio.timeout(max(seconds, 0)):
                while (answer := await _receive(stream.socket)) is not None:
                    if isinstance(answer, Hello):
                        raise _Refusal("second-hello", "A stream has one Hello.")
                    stream.on_answer(answer, self._metrics)
        except TimeoutError:
            raise _Refusal(
                "certificate-expired", "The certificate of this connection has expired."
            ) from None


async def _receive(socket: web.WebSocketResponse) -> FromProxy | None:
    """Return the next message, or None when there will be no more."""
    message = await socket.receive()
    if message.type is not WSMsgType.TEXT:
        return None
    try:
        return wire.decode(message.data, FromProxy)  # type: ignore[arg-type]
    except ContractError as error:
        raise _Refusal("bad-message", str(error)) from None
