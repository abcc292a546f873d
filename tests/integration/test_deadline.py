"""Deadlines along a chain: three real sidecars, and apps that pass nothing on but `traceparent`."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from prometheus_client.parser import text_string_to_metric_families

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
from tests.helpers.chain import chain
from tests.helpers.client import Client, Response, connect, get
from tests.helpers.environment import until
from tests.helpers.origin import Conversation, hello, origin
from tests.helpers.pair import Pair, Sidecar
from tests.helpers.ports import free_port

pytestmark = pytest.mark.integration

TRACE = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n"


def counted(sidecar: Sidecar, name: str, **labels: str) -> float:
    """Return the value of a counter, summed over all series with these labels."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(sidecar.metrics())
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


@dataclass
class Chain:
    """
    Attributes:
        cart: The app in the middle, which asks the last one.
        stock: The last app.
        left: Milliseconds that the apps were told, the middle one first.
        times: When each of them was told, and when the middle one had done its part.
        work: What the middle app does before it asks.
        answer: What the last app does.
        gone: The last app has lost a connection while it was at work.
        relayed: What the middle app got for its call.
    """

    door: int = field(default_factory=free_port)
    second_door: int = field(default_factory=free_port)
    left: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    work: Callable[[], Awaitable[object]] = field(default=lambda: asyncio.sleep(0))
    stalls: bool = False
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    relayed: "asyncio.Queue[Response]" = field(default_factory=asyncio.Queue)
    sidecars: list[Sidecar] = field(default_factory=list)

    def note(self, conversation: Conversation) -> None:
        self.times.append(asyncio.get_running_loop().time())
        self.left.append(int(conversation.header("x-mesh-deadline-ms") or -1))

    async def cart(self, conversation: Conversation) -> None:
        self.note(conversation)
        await self.work()
        self.times.append(asyncio.get_running_loop().time())
        trace = conversation.header("traceparent")
        extra = f"traceparent: {trace}\r\n" if trace else ""
        answer = await get(self.second_door, extra=extra)
        self.relayed.put_nowait(answer)
        await conversation.send(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer.body), answer.body)
        )

    async def stock(self, conversation: Conversation) -> None:
        self.note(conversation)
        self.arrived.set()
        if self.stalls:
            await conversation.reader.read()
            self.gone.set()
        head = conversation.head.decode()
        said = [line for line in head.lower().split("\r\n") if line.startswith("x-mesh-")]
        body = json.dumps(said).encode()
        await conversation.send(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )


@asynccontextmanager
async def chained(directory: Path, **route: Any) -> AsyncIterator[Chain]:
    it = Chain()
    async with origin(it.cart) as cart, origin(it.stock) as stock:
        doors = (it.door, it.second_door)
        async with chain(directory, (cart.port, stock.port), doors, **route) as it.sidecars:
            yield it


async def test_the_last_hop_has_what_the_first_allowed_less_what_was_spent(tmp_path: Path) -> None:
    """The app between them has said nothing of time, and has taken some."""
    async with chained(tmp_path, request_timeout=20_000) as it:
        it.work = lambda: asyncio.sleep(0.2)
        began = asyncio.get_running_loop().time()
        answer = await get(it.door, extra=TRACE)
        assert answer.status == 200
        cart, stock = it.left
        told, done, last = it.times
        assert 0 < stock < cart <= 20_000
        assert stock <= cart - int((done - told) * 1000) + 1
        assert stock >= 20_000 - (last - began) * 1000 - 5
        assert counted(it.sidecars[1], "mesh_propagation_total", result="found") == 1


async def test_without_a_trace_nothing_is_inherited(tmp_path: Path) -> None:
    """Nothing is guessed: a call that names no trace may belong to any request, or to none."""
    async with chained(tmp_path, request_timeout=20_000) as it:
        assert (await get(it.door)).status == 200
        assert it.left[1] == -1


async def test_a_call_for_which_no_time_is_left_names_who_took_it(tmp_path: Path) -> None:
    """The app has worked past its deadline: its call is refused where it begins."""
    async with chained(tmp_path, request_timeout=300) as it:
        late = asyncio.Event()
        it.work = late.wait
        answer = await get(it.door, extra=TRACE)
        assert answer.status == 504
        assert answer.header("x-mesh-refusal") == "deadline-exceeded"
        assert b"default/cart took" in answer.body
        told = it.times[0] + it.left[0] / 1000
        await until(lambda: asyncio.get_running_loop().time() > told + 0.05)
        late.set()
        async with asyncio.timeout(10):
            refused = await it.relayed.get()
        assert refused.status == 504
        assert refused.header("x-mesh-refusal") == "deadline-exceeded"
        assert b"default/cart took" in refused.body
        assert b"it was not sent on" in refused.body
        assert len(it.left) == 1  # the last app was not asked


async def test_who_took_little_of_the_time_is_not_told_on(tmp_path: Path) -> None:
    """The app's call goes to a server outside the mesh, which hears what the next proxy would."""
    door, heads = free_port(), []
    enough = 0.0

    async def cart(conversation: Conversation) -> None:
        began = asyncio.get_running_loop().time()
        await until(lambda: asyncio.get_running_loop().time() > began + enough)
        answer = await get(door, extra=f"traceparent: {conversation.header('traceparent')}\r\n")
        await conversation.send(
            b"HTTP/1.1 %d Whatever\r\nContent-Length: 0\r\n\r\n" % answer.status
        )

    async def outside(conversation: Conversation) -> None:
        heads.append(conversation)
        await hello(conversation)

    async with origin(cart) as app, origin(outside) as server:
        pair = Pair(tmp_path, app.port, change_b=lambda b: with_door(b, door, server.port))
        await asyncio.to_thread(pair.__enter__)
        try:
            # A twentieth is 3 s, and then 200 ms.
            for allowed, enough in ((60_000, 0.0), (4_000, 0.3)):  # noqa: B007 - see `cart`
                said = f"{TRACE}x-mesh-deadline-ms: {allowed}\r\n"
                assert (await get(pair.door, extra=said)).status == 200
        finally:
            await asyncio.to_thread(pair.__exit__)
    quick, slow = heads
    assert quick.header("x-mesh-spent") is None
    name, _, took = str(slow.header("x-mesh-spent")).partition("=")
    assert (name, 300 <= int(took) < 4_000) == ("default/catalog", True)
    assert int(quick.header("x-mesh-deadline-ms") or 0) > int(
        slow.header("x-mesh-deadline-ms") or 0
    )


def with_door(sidecar: Snapshot, port: int, server: int) -> Snapshot:
    """Return the same with a port for the app that leads to a server without a sidecar."""
    endpoint = EndpointSpec(address="127.0.0.1", port=server)
    route = RouteSpec(name="outside", backends=(BackendSpec(cluster="outside"),))
    listener = ListenerSpec(
        name="door", direction="outbound", address="127.0.0.1", port=port, virtual_host="outside"
    )
    return structs.replace(
        sidecar,
        clusters=(*sidecar.clusters, ClusterSpec(name="outside")),
        endpoints=(*sidecar.endpoints, EndpointsSpec(cluster="outside", endpoints=(endpoint,))),
        virtual_hosts=(
            *sidecar.virtual_hosts,
            VirtualHostSpec(name="outside", domains=("outside",), routes=(route,)),
        ),
        listeners=(*sidecar.listeners, listener),
    )


async def test_the_last_app_stops_when_the_time_has_passed(tmp_path: Path) -> None:
    """A deadline that the first sidecar has set ends the work at the last one."""
    async with chained(tmp_path, request_timeout=300) as it:
        it.stalls = True
        answer = await get(it.door, extra=TRACE)
        assert answer.status == 504
        async with asyncio.timeout(10):
            await it.gone.wait()


@pytest.mark.parametrize("how", ["resets", "closes"])
async def test_when_the_client_goes_the_last_app_hears_of_it(tmp_path: Path, how: str) -> None:
    """No deadline anywhere: the client ends its connection, and hop by hop the work is cancelled."""
    async with chained(tmp_path) as it:
        it.stalls = True
        async with connect(it.door) as client:
            await client.send(b"GET / HTTP/1.1\r\nHost: cart\r\n" + TRACE.encode() + b"\r\n")
            async with asyncio.timeout(10):
                await it.arrived.wait()
            if how == "resets":
                leave(client)
            else:
                client.writer.close()
        async with asyncio.timeout(10):
            await it.gone.wait()
            answer = await it.relayed.get()
        assert (answer.status, answer.header("x-mesh-refusal")) == (499, "caller-gone")
        assert (
            counted(it.sidecars[1], "mesh_calls_cancelled_total", destination="default/stock") == 1
        )


def leave(client: Client) -> None:
    """Go without a word."""
    sock = client.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.transport.abort()


async def test_the_last_hop_knows_how_important_it_is(tmp_path: Path) -> None:
    """The first app has said so of its call, and the one between passes on nothing of it."""
    async with chained(tmp_path) as it:
        answer = await get(it.door, extra=TRACE + "x-mesh-criticality: sheddable\r\n")
        assert json.loads(answer.body) == ["x-mesh-criticality: sheddable"]
