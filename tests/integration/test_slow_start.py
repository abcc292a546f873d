"""Slow start by real sidecars: who is new gets little at first, and more until it is all of its share."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from meshproxy.contract.policies import HealthCheckSpec, LoadBalancingSpec
from meshproxy.contract.resources import (
    BackendSpec,
    ClusterSpec,
    EndpointSpec,
    EndpointsSpec,
    ListenerSpec,
    RouteSpec,
    Snapshot,
    VirtualHostSpec,
)
from tests.helpers.client import Client, connect
from tests.helpers.origin import Answer, Conversation, origin
from tests.helpers.pair import Sidecar
from tests.helpers.ports import free_port
from tests.helpers.running_mesh import RunningMesh, shop

pytestmark = pytest.mark.integration

SOME = 40
WINDOW = 10_000
"""Milliseconds: `SOME` requests take a hundredth of it, or a tenth where the machine is busy."""

POLICY = f"""
apiVersion: meshproxy.io/v1alpha1
kind: TrafficPolicy
metadata: {{name: catalog}}
spec:
  targetRefs: [{{group: "", kind: Service, name: catalog-v1}}]
  loadBalancing: {{algorithm: RoundRobin, slowStart: {WINDOW}ms}}
"""


async def ask(client: Client) -> bytes:
    """Return the first word of an answer: who has given it."""
    await client.send(b"GET / HTTP/1.1\r\nHost: catalog\r\n\r\n")
    response = await client.response()
    assert response.status == 200, response
    return response.body.split()[0]


async def grows(door: int, old: bytes, new: bytes, join: Callable[[], Awaitable[object]]) -> None:
    """
    Ask all the time; `join` makes an endpoint known that gets half of all in the end.

    Of the first `SOME` answers after its first one it has given few, and of some later ones as many as
    the old one, but for chance.
    """
    async with connect(door) as client, asyncio.timeout(60):
        for _ in range(SOME):
            assert await ask(client) == old
        await join()
        while await ask(client) != new:
            pass
        at_first = [await ask(client) for _ in range(SOME)]
        assert at_first.count(new) <= SOME // 4
        latest = deque(at_first, SOME)
        while latest.count(new) < SOME * 2 // 5:
            latest.append(await ask(client))


async def test_an_endpoint_that_joins_begins_slowly(tmp_path: Path) -> None:
    """In a running mesh, where a Service begins to select one more workload."""
    files = shop() | {"policy.yaml": POLICY}
    more = files["services.yaml"].replace(', "version": "v1"', "")
    mesh = RunningMesh(tmp_path, files)
    await asyncio.to_thread(mesh.__enter__)
    try:

        async def join() -> None:
            mesh.write("services.yaml", more)

        await grows(mesh.door(), b"catalog-v1", b"catalog-v2", join)
    finally:
        await asyncio.to_thread(mesh.__exit__)


async def test_an_endpoint_that_comes_back_begins_slowly(tmp_path: Path) -> None:
    """Health checks have found that it is there again."""
    absent = free_port()
    async with AsyncExitStack() as stack:
        old = await stack.enter_async_context(origin(says(b"old")))
        sidecar, door = one_service(tmp_path, old.port, absent)
        await asyncio.to_thread(sidecar.__enter__)
        stack.push_async_callback(asyncio.to_thread, sidecar.__exit__)
        async with asyncio.timeout(20):
            while await asyncio.to_thread(state_of_second, sidecar) != "unhealthy":
                await asyncio.sleep(0.02)
        await grows(
            door, b"old", b"new",
            lambda: stack.enter_async_context(origin(says(b"new"), absent)),
        )  # fmt: skip


def says(name: bytes) -> Answer:
    async def answer(conversation: Conversation) -> None:
        await conversation.send(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(name), name)
        )

    return answer


def one_service(directory: Path, *ports: int) -> tuple[Sidecar, int]:
    """Return a sidecar before endpoints at these ports, which it checks, and its own port."""
    door = free_port()
    cluster = ClusterSpec(
        name="catalog",
        balancing=LoadBalancingSpec(algorithm="round-robin", slow_start=WINDOW),
        health_check=HealthCheckSpec(type="tcp", interval=200, timeout=5_000, healthy=1),
    )
    endpoints = tuple(EndpointSpec(address="127.0.0.1", port=port) for port in ports)
    route = RouteSpec(name="all", backends=(BackendSpec(cluster="catalog"),))
    snapshot = Snapshot(
        clusters=(cluster,),
        endpoints=(EndpointsSpec(cluster="catalog", endpoints=endpoints),),
        virtual_hosts=(VirtualHostSpec(name="host", domains=("catalog",), routes=(route,)),),
        listeners=(
            ListenerSpec(
                name="door", direction="outbound", address="127.0.0.1", port=door,
                virtual_host="host",
            ),
        ),
    )  # fmt: skip
    return Sidecar(directory, "storefront", snapshot, None), door


def state_of_second(sidecar: Sidecar) -> str:
    [cluster] = sidecar.get("/clusters")
    return str(cluster["endpoints"][1]["state"])
