"""
Services that call one another, each app with its sidecar, and a last one that fails.

    client → a ═ mutual TLS ═ b → app → b ═ mutual TLS ═ c → app → c → last

A sidecar is a process; the apps and the last service are served by the test's own loop.  An app
passes `traceparent` on, if the test says so, and what it is told: it fails when its call fails.
"""

import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from meshproxy.contract.policies import RetryBudgetSpec, RetrySpec
from meshproxy.contract.resources import (
    BackendSpec,
    ClusterSpec,
    EndpointSpec,
    EndpointsSpec,
    ListenerSpec,
    RouteSpec,
    Snapshot,
    TrustSpec,
    VirtualHostSpec,
)
from tests.helpers.certificates import TestAuthority
from tests.helpers.client import connect
from tests.helpers.origin import Answer, Conversation, Origin, origin
from tests.helpers.pair import DOMAIN, Sidecar, spiffe
from tests.helpers.ports import free_port


@dataclass
class Chain:
    """
    Attributes:
        port: Where the client asks.
        last: The service at the end.
        sidecars: From the client's on.
    """

    port: int
    last: Origin
    sidecars: list[Sidecar] = field(default_factory=list)


@asynccontextmanager
async def chain(
    directory: Path,
    last: Answer,
    *,
    retry: RetrySpec,
    budget: RetryBudgetSpec,
    hops: int = 3,
    passes_trace_on: bool = True,
) -> AsyncIterator[Chain]:
    """Start all of it; every hop has the same policy for the calls of its app."""
    authority = TestAuthority()
    trust = (TrustSpec(trust_domain=DOMAIN, roots=(authority.pem,)),)
    doors = [free_port() for _ in range(hops)]
    inbound = [free_port() for _ in range(hops)]
    async with AsyncExitStack() as stack:
        end = await stack.enter_async_context(origin(last))
        made = Chain(doors[0], end)
        for hop in range(hops):
            app = None
            if hop > 0:
                call = _forward(doors[hop], trace=passes_trace_on)
                app = await stack.enter_async_context(origin(call))
            is_last = hop == hops - 1
            name = f"hop{hop}"
            to = ClusterSpec(name="next", mtls=not is_last, retry=retry, retry_budget=budget)
            endpoint = EndpointSpec(address="127.0.0.1", port=end.port)
            if not is_last:
                endpoint = EndpointSpec(
                    address="127.0.0.1",
                    port=inbound[hop + 1],
                    identities=(spiffe(f"hop{hop + 1}"),),
                )
            clusters = {"next": (to, endpoint)}
            listeners = [_listener("door", "outbound", doors[hop], "next")]
            if app is not None:
                here = EndpointSpec(address="127.0.0.1", port=app.port)
                clusters["app"] = (ClusterSpec(name="app"), here)
                listeners.append(_listener("inbound", "inbound", inbound[hop], "app"))
            snapshot = Snapshot(
                trust=trust,
                clusters=tuple(cluster for cluster, _ in clusters.values()),
                endpoints=tuple(
                    EndpointsSpec(cluster=name, endpoints=(one,))
                    for name, (_, one) in clusters.items()
                ),
                virtual_hosts=tuple(
                    VirtualHostSpec(
                        name=name,
                        domains=(name,),
                        routes=(RouteSpec(name=name, backends=(BackendSpec(cluster=name),)),),
                    )
                    for name in clusters
                ),
                listeners=tuple(listeners),
            )
            certificate = authority.issue(spiffe(name), directory, name)
            made.sidecars.append(Sidecar(directory, name, snapshot, certificate))
        for sidecar in reversed(made.sidecars):
            stack.enter_context(sidecar)
        yield made


def _listener(name: str, direction: str, port: int, host: str) -> ListenerSpec:
    return ListenerSpec(
        name=name,
        direction="inbound" if direction == "inbound" else "outbound",
        address="127.0.0.1",
        port=port,
        virtual_host=host,
        mtls="strict" if direction == "inbound" else "disabled",
    )


def _forward(door: int, *, trace: bool) -> Answer:
    """Return an app that asks the next one, and fails with 502 when that fails."""

    async def answer(conversation: Conversation) -> None:
        extra = ""
        traceparent = conversation.header("traceparent")
        if trace and traceparent is not None:
            extra = f"traceparent: {traceparent}\r\n"
        status = 0
        with contextlib.suppress(OSError):
            async with connect(door) as client:
                await client.send(b"GET / HTTP/1.1\r\nHost: next\r\n%b\r\n" % extra.encode())
                status = (await client.response()).status
        said = b"200 OK" if status == 200 else b"503 Service Unavailable"
        await conversation.send(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % said)

    return answer
