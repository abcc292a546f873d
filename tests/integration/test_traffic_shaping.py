"""Rate limits, injected faults, mirrors and load shedding through two real sidecars."""

import asyncio
import hashlib
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from meshproxy.contract.matching import IdentityMatchSpec, MatchSpec, ValueMatchSpec
from meshproxy.contract.policies import (
    CircuitBreakerSpec,
    FaultSpec,
    HealthCheckSpec,
    MirrorSpec,
    RateLimitSpec,
    SheddingSpec,
)
from meshproxy.contract.resources import ClusterSpec, EndpointSpec, EndpointsSpec, Snapshot
from meshproxy.policies.mirroring import HELD_EACH
from tests.helpers.client import Response, connect, get
from tests.helpers.http2_peers import http2_client
from tests.helpers.origin import Conversation, hello, origin
from tests.helpers.pair import Pair, Sidecar, spiffe

pytestmark = pytest.mark.integration

MIRRORED = ("service", "outcome")


# The mesh ------------------------------------------------------------------------------------------


def route(**more: Any) -> Callable[[Snapshot], Snapshot]:
    """Change the only route of a sidecar."""

    def change(snapshot: Snapshot) -> Snapshot:
        [host] = snapshot.virtual_hosts
        [one] = host.routes
        return replace(snapshot, virtual_hosts=(replace(host, routes=(replace(one, **more),)),))

    return change


def host(**more: Any) -> Callable[[Snapshot], Snapshot]:
    """Change the only virtual host of a sidecar."""

    def change(snapshot: Snapshot) -> Snapshot:
        [one] = snapshot.virtual_hosts
        return replace(snapshot, virtual_hosts=(replace(one, **more),))

    return change


def app(**more: Any) -> Callable[[Snapshot], Snapshot]:
    """Change the only cluster of a sidecar."""

    def change(snapshot: Snapshot) -> Snapshot:
        [one] = snapshot.clusters
        return replace(snapshot, clusters=(replace(one, **more),))

    return change


def mirrored(*ports: int, protocol: Any = "http1") -> Callable[[Snapshot], Snapshot]:
    """Have every request copied to the servers at these ports."""
    names = [f"shadow-{number}" for number, _ in enumerate(ports)]

    def change(snapshot: Snapshot) -> Snapshot:
        snapshot = route(mirrors=tuple(MirrorSpec(cluster=name) for name in names))(snapshot)
        clusters = tuple(
            ClusterSpec(name=name, service=f"default/{name}", protocol=protocol) for name in names
        )
        endpoints = tuple(
            EndpointsSpec(cluster=name, endpoints=(EndpointSpec(address="127.0.0.1", port=port),))
            for name, port in zip(names, ports, strict=True)
        )
        return replace(
            snapshot,
            clusters=snapshot.clusters + clusters,
            endpoints=snapshot.endpoints + endpoints,
        )

    return change


@asynccontextmanager
async def pair(directory: Path, port: int, **more: Any) -> AsyncIterator[Pair]:
    it = Pair(directory, port, **more)
    await asyncio.to_thread(it.__enter__)
    try:
        yield it
    finally:
        await asyncio.to_thread(it.__exit__)


Figures = dict[tuple[str, ...], float]


async def figures(sidecar: Sidecar, name: str, *labels: str) -> Figures:
    """Return the samples of a metric, by the values of these labels."""
    text = await asyncio.to_thread(sidecar.metrics)
    return {
        tuple(sample.labels[label] for label in labels): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


async def until(sidecar: Sidecar, name: str, wanted: Figures, *labels: str) -> None:
    """Wait until a metric says so."""
    async with asyncio.timeout(30):
        while (found := await figures(sidecar, name, *labels)) != wanted:
            assert not {key for key in found if key not in wanted}, found
            await asyncio.sleep(0.05)


class Echo(grpc.GenericRpcHandler):  # type: ignore[misc]  # no types
    def __init__(self) -> None:
        self.heard: list[tuple[bytes, str]] = []

    def service(self, details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._echo)

    async def _echo(self, request: bytes, context: Any) -> bytes:
        said = dict(context.invocation_metadata())
        self.heard.append((request, said.get("x-mesh-mirrored", "")))
        return request


@asynccontextmanager
async def grpc_app() -> AsyncIterator[tuple[Echo, int]]:
    echo, server = Echo(), grpc.aio.server()
    server.add_generic_rpc_handlers((echo,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield echo, port
    finally:
        await server.stop(0)


@asynccontextmanager
async def channel(port: int) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as it:
        yield it.unary_unary("/test/Echo")


# Rate limits ---------------------------------------------------------------------------------------


async def test_a_caller_gets_its_share(tmp_path: Path) -> None:
    """At the app's sidecar, by the identity that mutual TLS has proved."""
    limits = (
        RateLimitSpec(name="each", per="identity", requests=3, interval=600_000),
        RateLimitSpec(name="total", requests=100, interval=600_000),
    )
    async with (
        origin(hello) as it,
        pair(tmp_path, it.port, change_b=host(rate_limits=limits)) as mesh,
    ):
        answers = [await get(mesh.door) for _ in range(5)]
        assert [one.status for one in answers] == [200, 200, 200, 429, 429]
        assert len(it.requests) == 3
        assert answers[0].header("ratelimit-policy") == '"each";q=3;w=600, "total";q=100;w=600'
        assert answers[0].header("ratelimit") == '"each";r=2;t=200, "total";r=99;t=6'
        assert answers[3].header("x-mesh-refusal") == "rate-limited"
        assert 190 <= int(answers[3].header("retry-after") or 0) <= 200
        assert b"its limit is 'each'" in answers[3].body
        limited = await figures(mesh.b, "mesh_rate_limited_total", "direction", "limit", "reason")
        assert limited == {("inbound", "each", "limit"): 2}


async def test_workers_share_a_limit(tmp_path: Path) -> None:
    """Whichever of them gets the connections: together never more than was agreed upon."""
    limits = (RateLimitSpec(name="all", requests=10, interval=600_000),)
    async with (
        origin(hello) as it,
        pair(tmp_path, it.port, change_a=host(rate_limits=limits), settings={"workers": 2}) as mesh,
    ):
        answers = await asyncio.gather(*(get(mesh.door) for _ in range(40)))
        statuses = Counter(one.status for one in answers)
        assert 5 <= statuses[200] <= 10
        assert statuses[200] + statuses[429] == 40
        assert len(it.requests) == statuses[200]


async def test_a_call_above_the_limit(tmp_path: Path) -> None:
    """At the caller's sidecar; gRPC's own library sees RESOURCE_EXHAUSTED, and when to come back."""
    limits = (RateLimitSpec(name="calls", requests=1, interval=600_000),)
    async with (
        grpc_app() as (echo, port),
        pair(tmp_path, port, app_protocol="http2", change_a=route(rate_limits=limits)) as mesh,
        channel(mesh.door) as call,
    ):
        assert await call(b"one") == b"one"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"two")
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        # Of an answer without a body, the head is what gRPC's library calls trailers.
        told = dict((*caught.value.trailing_metadata(), *caught.value.initial_metadata()))
        assert told["x-mesh-refusal"] == "rate-limited"
        assert 500 < int(told["retry-after"]) <= 600
        assert [one for one, _ in echo.heard] == [b"one"]


# Injected faults -----------------------------------------------------------------------------------


async def test_faults_for_who_asks_for_them(tmp_path: Path) -> None:
    """By header and by identity: an abort, a delay; the others notice nothing."""
    asked = MatchSpec(headers=(ValueMatchSpec(name="x-test", value="abort"),))
    slow = MatchSpec(headers=(ValueMatchSpec(name="x-test", value="slow"),))
    us = IdentityMatchSpec(principals=(spiffe("storefront"),))
    others = IdentityMatchSpec(principals=(spiffe("other"),))
    faults = (
        FaultSpec(name="not us", match=asked, source=others, abort_status=500, abort_percent=100),
        FaultSpec(name="broken", match=asked, source=us, abort_status=418, abort_percent=100),
        FaultSpec(name="slow", match=slow, source=us, delay=50, delay_percent=100),
    )
    async with (
        origin(hello) as it,
        pair(tmp_path, it.port, change_b=route(faults=faults)) as mesh,
    ):
        assert (await get(mesh.door)).status == 200
        broken = await get(mesh.door, extra="x-test: abort\r\n")
        assert (broken.status, broken.header("x-mesh-refusal")) == (418, "fault-injected")
        assert (await get(mesh.door, extra="x-test: slow\r\n")).status == 200
        assert len(it.requests) == 2
        injected = await figures(mesh.b, "mesh_faults_injected_total", "direction", "fault", "kind")
        assert injected == {
            ("inbound", "broken", "abort"): 1,
            ("inbound", "slow", "delay"): 1,
        }
        flags = await figures(mesh.b, "mesh_requests_total", "code", "flag")
        assert flags == {("200", "-"): 1, ("418", "FI"): 1, ("200", "DI"): 1}


async def test_faults_of_calls(tmp_path: Path) -> None:
    """An abort has gRPC's status; a delay that is longer than the deadline is a deadline exceeded."""
    faults = (
        FaultSpec(
            name="broken",
            match=MatchSpec(headers=(ValueMatchSpec(name="x-test", value="abort"),)),
            abort_grpc_status=9,
            abort_percent=100,
        ),
        FaultSpec(name="stuck", delay=3_600_000, delay_percent=100),
    )
    async with (
        grpc_app() as (echo, port),
        pair(tmp_path, port, app_protocol="http2", change_a=route(faults=faults)) as mesh,
        channel(mesh.door) as call,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"", metadata=(("x-test", "abort"),))
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"", timeout=0.5)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert echo.heard == []


# Mirrors -------------------------------------------------------------------------------------------


class Bodies:
    """Answers with the hash of what it was sent, and remembers it."""

    def __init__(self) -> None:
        self.hashes: list[str] = []
        self.heads: list[Conversation] = []

    async def answer(self, conversation: Conversation) -> None:
        digest = hashlib.sha256(await conversation.body()).hexdigest()
        self.hashes.append(digest)
        self.heads.append(conversation)
        await conversation.send(
            b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n%b" % digest.encode()
        )


async def post(port: int, body: bytes) -> Response:
    async with connect(port) as client:
        await client.send(
            b"POST / HTTP/1.1\r\nHost: catalog\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        await client.send(body)
        return await client.response()


async def test_copies_are_exact(tmp_path: Path) -> None:
    """Two mirrors get every body, by HTTP/1.1 and HTTP/2, byte for byte, and know what they get."""
    real, one, two = Bodies(), Bodies(), Bodies()
    async with (
        origin(real.answer) as it,
        origin(one.answer) as first,
        origin(two.answer) as second,
        pair(tmp_path, it.port, change_a=mirrored(first.port, second.port)) as mesh,
    ):
        bodies = [b"", b"x", bytes(range(256)) * 1_000, b"y" * (HELD_EACH // 2)]
        for body in bodies:
            assert (await post(mesh.door, body)).body.decode() == hashlib.sha256(body).hexdigest()
        async with http2_client(mesh.door) as client:
            stream = client.ask(
                (
                    (":method", "POST"),
                    (":scheme", "http"),
                    (":authority", "catalog"),
                    (":path", "/"),
                ),
                end=False,
            )
            await stream.body(b"by HTTP/2")
            assert (await stream.message()).status == "200"
        wanted: Figures = {("default/shadow-0", "2xx"): 5.0, ("default/shadow-1", "2xx"): 5.0}
        await until(mesh.a, "mesh_mirrored_requests_total", wanted, *MIRRORED)
        assert sorted(one.hashes) == sorted(two.hashes) == sorted(real.hashes)
        assert {head.header("x-mesh-mirrored") for head in one.heads} == {"1"}
        assert {head.header("host") for head in one.heads} == {"catalog"}
        assert {head.header("x-mesh-mirrored") for head in real.heads} == {None}


async def test_copies_of_calls(tmp_path: Path) -> None:
    """gRPC's messages and trailers pass; the copy's status is counted as its own."""
    async with (
        grpc_app() as (real, port),
        grpc_app() as (shadow, other),
        pair(
            tmp_path, port, app_protocol="http2", change_a=mirrored(other, protocol="http2")
        ) as mesh,
        channel(mesh.door) as call,
    ):
        messages = [b"%d" % number * 100 for number in range(20)]
        for message in messages:
            assert await call(message) == message
        wanted: Figures = {("default/shadow-0", "grpc-0"): 20.0}
        await until(mesh.a, "mesh_mirrored_requests_total", wanted, *MIRRORED)
        assert sorted(shadow.heard) == sorted((message, "1") for message in messages)
        assert {mark for _, mark in real.heard} == {""}


@contextmanager
def silent() -> Iterator[int]:
    """A port where the kernel takes connections and a few bytes, and nobody ever reads them."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        listening.bind(("127.0.0.1", 0))
        listening.listen(16)
        yield listening.getsockname()[1]


async def broken(conversation: Conversation) -> None:
    """Reads half of what comes, and leaves."""
    conversation.writer.transport.abort()


async def erring(conversation: Conversation) -> None:
    await conversation.body()
    await conversation.send(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize("how", ["dead", "stalled", "broken", "erring"])
async def test_a_bad_mirror_is_nobodys_problem(tmp_path: Path, how: str) -> None:
    """Dead, stalled, broken or in error: each request is answered as without it, body and all."""
    real = Bodies()
    async with (
        origin(real.answer) as it,
        origin(broken if how == "broken" else erring) as bad,
    ):
        with silent() as stalled:
            port = {"dead": 1, "stalled": stalled}.get(how, bad.port)
            async with pair(tmp_path, it.port, change_a=mirrored(port)) as mesh:
                # More than all buffers on the way to it hold.
                bodies = [b"%d" % number * (8 << 20) for number in range(4)]
                for body in bodies:
                    answer = await post(mesh.door, body)
                    assert answer.status == 200
                    assert answer.body.decode() == hashlib.sha256(body).hexdigest()
                assert real.hashes == [hashlib.sha256(body).hexdigest() for body in bodies]
                known = {
                    "dead": {"connect-failed", "overflow"},
                    "stalled": {"overflow"},
                    "broken": {"upstream-closed", "overflow"},
                    "erring": {"5xx", "overflow"},
                }
                requests = await figures(mesh.a, "mesh_requests_total", "code", "flag")
                assert requests == {("200", "-"): 4}
                # Each copy has ended, but for the last ones: they may be under way.
                outcomes = await figures(mesh.a, "mesh_mirrored_requests_total", *MIRRORED)
                statistics = await asyncio.to_thread(mesh.a.get, "/clusters")
                waiting = sum(one["mirrored"] for one in statistics)
                assert {outcome for _, outcome in outcomes} <= known[how]
                assert sum(outcomes.values()) + waiting == 4
                assert outcomes


# Load shedding -------------------------------------------------------------------------------------


class Kitchen:
    """An app of a fixed capacity: so many cooks, so long a dish; who comes then waits in line."""

    def __init__(self, cooks: int, seconds: float) -> None:
        self._cooks = asyncio.Semaphore(cooks)
        self._seconds = seconds
        self.guests = 0
        self.most = 0

    async def answer(self, conversation: Conversation) -> None:
        self.guests += 1
        self.most = max(self.most, self.guests)
        async with self._cooks:
            await asyncio.sleep(self._seconds)
        self.guests -= 1
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


async def order(mesh: Pair, criticality: str) -> int:
    answer = await get(mesh.door, extra=f"x-mesh-criticality: {criticality}\r\n")
    if answer.status != 200:
        assert answer.status == 503
        assert answer.header("x-mesh-refusal") == "overloaded"
        assert answer.header("retry-after") == "1"
    return answer.status


async def test_critical_requests_live_through_an_overload(tmp_path: Path) -> None:
    """
    Eight guests for each cook, a few of them critical, which the sidecars hand on: the limit settles
    near the number of cooks, and who is critical is served.
    """
    cooks = 4
    kitchen = Kitchen(cooks, 0.1)
    async with (
        origin(kitchen.answer) as it,
        pair(tmp_path, it.port, change_b=app(shedding=SheddingSpec())) as mesh,
    ):
        # How fast it is when it is not busy, it shows in peace.
        assert {await order(mesh, "default") for _ in range(30)} == {200}
        counted: Counter[tuple[str, int]] = Counter()

        async def guest(criticality: str) -> None:
            while True:
                status = await order(mesh, criticality)
                counted[criticality, status] += 1
                if status != 200:
                    await asyncio.sleep(0.05)

        async def served(count: int) -> None:
            async with asyncio.timeout(60):
                while sum(n for (_, status), n in counted.items() if status == 200) < count:
                    await asyncio.sleep(0.05)

        kinds = (*("critical",) * 3, *("default",) * 12, *("sheddable",) * 17)
        guests = [asyncio.create_task(guest(kind)) for kind in kinds]
        await served(200)  # by now it has found its way
        counted.clear()
        await served(200)
        statistics = await asyncio.to_thread(mesh.b.get, "/clusters")
        for task in guests:
            task.cancel()
        ended = await asyncio.gather(*guests, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in ended)
        [shedding] = [one["shedding"] for one in statistics]
        assert cooks <= shedding["limit"] <= 4 * cooks
        assert shedding["min_rtt_ms"] >= 90
        assert counted["critical", 200] >= 9 * counted["critical", 503]
        assert counted["default", 503] > counted["default", 200]
        assert counted["sheddable", 503] > counted["sheddable", 200]
        shed = await figures(mesh.b, "mesh_shed_requests_total", "criticality")
        assert shed.keys() >= {("default",), ("sheddable",)}
        assert list(await figures(mesh.b, "mesh_concurrency_limit", "cluster")) == [("app",)]


async def test_a_call_to_a_busy_app(tmp_path: Path) -> None:
    """UNAVAILABLE, at once, while the app works on what it has."""

    class Stuck(Echo):
        async def _echo(self, request: bytes, context: Any) -> bytes:
            self.heard.append((request, ""))
            await release.wait()
            return request

    release, stuck, server = asyncio.Event(), Stuck(), grpc.aio.server()
    server.add_generic_rpc_handlers((stuck,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    shedding = SheddingSpec(adaptive=False, initial=1)
    async with pair(
        tmp_path, port, app_protocol="http2", change_b=app(shedding=shedding)
    ) as mesh, channel(mesh.door) as call:  # fmt: skip
        first = asyncio.ensure_future(call(b"first"))
        async with asyncio.timeout(20):
            while not stuck.heard:
                await asyncio.sleep(0.01)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"second")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        release.set()
        assert await first == b"first"
        assert await call(b"third") == b"third"
    await server.stop(0)


async def test_a_busy_app_is_not_taken_for_a_broken_one(tmp_path: Path) -> None:
    """Neither breaker nor health checks hold it against an endpoint that its sidecar sheds load."""
    release = asyncio.Event()

    async def stuck(conversation: Conversation) -> None:
        if b"/check" not in conversation.request_line:
            await release.wait()
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    watched = app(
        breaker=CircuitBreakerSpec(min_requests=3),
        health_check=HealthCheckSpec(interval=50, timeout=10_000, unhealthy=1, path="/check"),
    )
    busy = app(shedding=SheddingSpec(adaptive=False, initial=1))
    async with (
        origin(stuck) as it,
        pair(tmp_path, it.port, change_a=watched, change_b=busy) as mesh,
    ):
        first = asyncio.create_task(get(mesh.door))
        async with asyncio.timeout(20):
            while not any(head.startswith(b"GET / ") for head in it.requests):
                await asyncio.sleep(0.01)
                if first.done():  # a check was there just then
                    first = asyncio.create_task(get(mesh.door))
        [before] = await asyncio.to_thread(mesh.a.get, "/clusters")
        assert {await order(mesh, "default") for _ in range(10)} == {503}
        async with asyncio.timeout(20):  # until some checks have been turned away, too
            while True:
                shed = await figures(mesh.b, "mesh_shed_requests_total", "criticality")
                if shed[("default",)] >= 13:
                    break
                await asyncio.sleep(0.05)
        [after] = await asyncio.to_thread(mesh.a.get, "/clusters")
        told = [(one["breaker"]["state"], one["endpoints"][0]["state"]) for one in (before, after)]
        assert told == [("closed", "in-service")] * 2
        release.set()
        assert (await first).status == 200


async def test_workers_share_what_an_app_can_bear(tmp_path: Path) -> None:
    """Whichever of them gets the requests: together never more than the limit reaches the app."""
    release = asyncio.Event()

    async def stuck(conversation: Conversation) -> None:
        await release.wait()
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    busy = app(shedding=SheddingSpec(adaptive=False, initial=8, default_criticality="critical"))
    async with (
        origin(stuck) as it,
        pair(tmp_path, it.port, change_b=busy, settings={"workers": 2}) as mesh,
    ):
        guests = [asyncio.create_task(order(mesh, "critical")) for _ in range(40)]
        async with asyncio.timeout(30):
            # Those who are turned away hear of it at once; the others are with the app.
            while sum(guest.done() for guest in guests) + len(it.requests) < len(guests):
                await asyncio.sleep(0.02)
        assert 4 <= len(it.requests) <= 8
        release.set()
        statuses = Counter(await asyncio.gather(*guests))
        assert statuses[200] == len(it.requests)
        shed = await figures(mesh.b, "mesh_shed_requests_total", "criticality")
        assert shed == {("critical",): statuses[503]}


async def test_workers_copy_what_each_of_them_gets(tmp_path: Path) -> None:
    """Every request once, and the counts of both together."""
    async with origin(hello) as it, origin(hello) as shadow:
        settings = {"workers": 2}
        async with pair(
            tmp_path, it.port, change_a=mirrored(shadow.port), settings=settings
        ) as mesh:
            answers = await asyncio.gather(*(get(mesh.door) for _ in range(40)))
            assert {answer.status for answer in answers} == {200}
            await until(
                mesh.a,
                "mesh_mirrored_requests_total",
                {("default/shadow-0", "2xx"): 40},
                *MIRRORED,
            )
        assert len(it.requests) == len(shadow.requests) == 40
