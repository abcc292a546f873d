"""One request of a client's, and how many it can be made to cost."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meshproxy.contract.policies import HedgeSpec, MirrorSpec, RetryBudgetSpec, RetrySpec
from meshproxy.contract.resources import ClusterSpec, EndpointSpec, EndpointsSpec, Snapshot
from tests.helpers.certificates import TestAuthority
from tests.helpers.chain import Link, snapshot_of
from tests.helpers.client import connect, get
from tests.helpers.origin import Conversation, Origin, hello, origin
from tests.helpers.pair import Pair, Sidecar, spiffe
from tests.helpers.retrying_chain import chain

pytestmark = pytest.mark.integration

TRACE = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"
TRIES = 3
RETRY = RetrySpec(attempts=TRIES, codes=(503,), conditions=("5xx",), backoff=1, max_backoff=1_000)
ENOUGH = RetryBudgetSpec(percent=100.0, min_count=1_000)


async def _fails(conversation: Conversation) -> None:
    await conversation.body()
    await conversation.send(
        b"HTTP/1.1 503 No\r\nContent-Length: 0\r\nRetry-After: 0\r\n"
        b"X-Mesh-Refusal: connect-failed\r\nX-Mesh-Attempt: 1\r\n\r\n"
    )


SAID = (
    "",
    "x-mesh-attempt: 0\r\n",
    "x-mesh-attempt: 1\r\nx-mesh-attempt: 1\r\n",
    "x-mesh-attempt: -5\r\nx-mesh-deadline-ms: 99999999\r\n",
    "x-mesh-attempt: 999\r\nx-mesh-criticality: critical\r\n",
    "Idempotency-Key: a\r\nx-mesh-retried: 1\r\nx-mesh-refusal: connect-failed\r\n",
    "x-mesh-via: 00000000, 00000000\r\nx-mesh-criticality: critical\r\nIdempotency-Key: a\r\n",
)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_three_hops_of_retries_cost_what_one_does(tmp_path: Path, method: str) -> None:
    """Whatever the client says of attempts, time and importance; the answers ask for retries."""
    async with chain(tmp_path, _fails, retry=RETRY, budget=ENOUGH) as it:
        for said in SAID:
            before = len(it.last.requests)
            async with connect(it.port) as client:
                head = (
                    f"{method} / HTTP/1.1\r\nHost: next\r\n{TRACE}{said}Content-Length: 0\r\n\r\n"
                )
                await client.send(head.encode())
                assert (await client.response()).status in (502, 503)
            assert len(it.last.requests) - before <= TRIES, said


async def test_retries_hedges_and_mirrors_together(tmp_path: Path) -> None:
    """Each is bounded by itself, and all together by what they add up to, not by their product."""
    slow = RetrySpec(
        attempts=TRIES, codes=(503,), backoff=1, max_backoff=100, hedge=HedgeSpec(min_delay=1)
    )
    async with origin(_fails) as app, origin(_fails) as shadow:

        def change(snapshot: Snapshot) -> Snapshot:
            [cluster] = snapshot.clusters
            cluster = msgspec.structs.replace(cluster, retry=slow, retry_budget=ENOUGH)
            mirror = ClusterSpec(name="shadow", retry=slow)
            [host] = snapshot.virtual_hosts
            [route] = host.routes
            route = msgspec.structs.replace(route, mirrors=(MirrorSpec(cluster="shadow"),))
            at = EndpointSpec(address="127.0.0.1", port=shadow.port)
            return msgspec.structs.replace(
                snapshot,
                clusters=(cluster, mirror),
                endpoints=(*snapshot.endpoints, EndpointsSpec(cluster="shadow", endpoints=(at,))),
                virtual_hosts=(msgspec.structs.replace(host, routes=(route,)),),
            )

        two = Pair(tmp_path, app.port, change_a=change)
        await asyncio.to_thread(two.__enter__)
        try:
            for number in range(1, 120):  # enough for hedges to begin
                fields = "Idempotency-Key: a\r\nx-mesh-criticality: critical\r\n"
                assert (await get(two.door, extra=fields)).status == 503
                assert len(app.requests) <= number * TRIES
                assert len(shadow.requests) <= number
        finally:
            await asyncio.to_thread(two.__exit__)


@contextlib.asynccontextmanager
async def _started(*sidecars: Sidecar) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        for sidecar in sidecars:
            await asyncio.to_thread(sidecar.__enter__)
            stack.push_async_callback(asyncio.to_thread, sidecar.__exit__)
        yield


async def test_what_is_made_for_a_copy_is_not_copied(tmp_path: Path) -> None:
    """A mirror whose app calls back would else be kept busy for ever, by a single request."""
    authority = TestAuthority()
    doors: dict[str, int] = {}
    settled = asyncio.Event()

    async def cart(conversation: Conversation) -> None:
        """Asks the stock for each request, and passes on what tracing wants."""
        trace = conversation.header("traceparent")
        await get(doors["cart"], extra=f"traceparent: {trace}\r\n")
        await hello(conversation)

    async def stock(conversation: Conversation) -> None:
        await hello(conversation)
        if len(last.requests) >= 2:
            settled.set()

    async with origin(cart) as middle, origin(stock) as last:
        links = [Link("storefront", 0), Link("cart", middle.port), Link("stock", last.port)]
        doors["cart"] = links[1].door
        sidecars = []
        for number, link in enumerate(links):
            following = links[number + 1] if number < 2 else None
            said: dict[str, Any] = {"mirrors": (MirrorSpec(cluster="cart"),)} if number == 1 else {}
            snapshot = snapshot_of(link, following, authority.pem, **said)
            if number == 1:  # calls of the cart for the stock are copied to the cart
                here = EndpointSpec(
                    address="127.0.0.1", port=link.inbound, identities=(spiffe("cart"),)
                )
                snapshot = msgspec.structs.replace(
                    snapshot,
                    clusters=(*snapshot.clusters, ClusterSpec(name="cart", mtls=True)),
                    endpoints=(
                        *snapshot.endpoints,
                        EndpointsSpec(cluster="cart", endpoints=(here,)),
                    ),
                )
            certificate = authority.issue(spiffe(link.name), tmp_path, link.name)
            sidecars.append(Sidecar(tmp_path, link.name, snapshot, certificate))
        async with _started(*reversed(sidecars)):
            assert (await get(links[0].door, extra=TRACE)).status == 200
            async with asyncio.timeout(10):
                await settled.wait()  # the copy has made its call as well
                while (before := len(last.requests)) and not await _quiet(last, before):
                    pass  # while the original is under way, a call may be for either
            marked = [one for one in last.requests if b"x-mesh-mirrored: 1" in one.lower()]
            assert marked


async def _quiet(app: Origin, before: int) -> bool:
    """Say whether nobody asks any more."""
    await asyncio.sleep(0.5)
    return len(app.requests) == before
