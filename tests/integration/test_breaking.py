"""Endpoints that misbehave, behind a real sidecar: who is asked, what clients see, what is counted."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
from msgspec import structs

from meshproxy.contract import wire
from meshproxy.contract.policies import (
    CircuitBreakerSpec,
    HealthCheckSpec,
    LimitsSpec,
    LoadBalancingSpec,
    OutlierSpec,
)
from meshproxy.contract.resources import (
    BackendSpec,
    ClusterSpec,
    EndpointSpec,
    EndpointsSpec,
    ListenerSpec,
    RouteSpec,
    Snapshot,
    TcpBackendSpec,
    TcpRouteSpec,
    TcpRuleSpec,
    VirtualHostSpec,
)
from tests.helpers.client import Response, connect, get
from tests.helpers.fault_matrix.clients import Request, ask
from tests.helpers.fault_matrix.mesh import Case, FaultMesh
from tests.helpers.fault_matrix.row import LANES, WAYS, Policy
from tests.helpers.fault_server.connection import reset
from tests.helpers.listening import listening
from tests.helpers.origin import Conversation, Origin, hello, origin
from tests.helpers.pair import Pair, Sidecar
from tests.helpers.ports import free_port
from tests.helpers.tcp_pair import TcpPair

pytestmark = pytest.mark.integration

NO_STATISTICS = OutlierSpec(consecutive_gateway_errors=3, consecutive_local_failures=3)


class Scene:
    """
    client → sidecar → one cluster of plain endpoints.

    Attributes:
        door: Port that leads to the cluster, for requests.
        tcp: The same for opaque connections.
    """

    def __init__(self, directory: Path, ports: Sequence[int], **policies: Any) -> None:
        self.door, self.tcp = free_port(), free_port()
        # In turn, so that all are asked: the default avoids who has failed once.
        balancing = LoadBalancingSpec(algorithm="round-robin")
        cluster = ClusterSpec(
            name="catalog", service="default/catalog", balancing=balancing, **policies
        )
        snapshot = Snapshot(
            clusters=(cluster,),
            endpoints=(
                EndpointsSpec(
                    cluster="catalog",
                    endpoints=tuple(EndpointSpec(address="127.0.0.1", port=port) for port in ports),
                ),
            ),
            virtual_hosts=(
                VirtualHostSpec(
                    name="host",
                    routes=(RouteSpec(name="all", backends=(BackendSpec(cluster="catalog"),)),),
                ),
            ),
            tcp_routes=(
                TcpRouteSpec(
                    name="tcp",
                    rules=(TcpRuleSpec(name="all", backends=(TcpBackendSpec(cluster="catalog"),)),),
                ),
            ),
            listeners=(
                ListenerSpec(
                    name="door",
                    direction="outbound",
                    address="127.0.0.1",
                    port=self.door,
                    virtual_host="host",
                ),
                ListenerSpec(
                    name="tcp",
                    direction="outbound",
                    address="127.0.0.1",
                    port=self.tcp,
                    protocol="tcp",
                    tcp_route="tcp",
                ),
            ),
        )
        self.sidecar = Sidecar(directory, "storefront", snapshot, None)

    def __enter__(self) -> Self:
        self.sidecar.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.sidecar.__exit__()

    async def get(self, path: str = "/") -> Response:
        return await get(self.door, path)

    async def statuses(self, count: int) -> list[int]:
        return [(await self.get()).status for _ in range(count)]

    async def cluster(self) -> Any:
        [cluster] = await asyncio.to_thread(self.sidecar.get, "/clusters")
        return cluster

    async def states(self) -> list[str]:
        return [endpoint["state"] for endpoint in (await self.cluster())["endpoints"]]

    async def metric(self, name: str, **labels: str) -> float:
        """Return the sum of all samples with these labels."""
        text = await asyncio.to_thread(self.sidecar.metrics)
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in text.splitlines()
            if line.startswith((name + "{", name + " ")) and all(want in line for want in wanted)
        )

    async def until(self, condition: Callable[[], Any], seconds: float = 20.0) -> None:
        """Wait until an awaited condition holds."""
        async with asyncio.timeout(seconds):
            while not await condition():
                await asyncio.sleep(0.05)


class Switch:
    """An answer that can be changed while the server runs."""

    def __init__(self, status: int = 200) -> None:
        self.status = status

    async def __call__(self, conversation: Conversation) -> None:
        await conversation.send(
            b"HTTP/1.1 %d Whatever\r\nContent-Length: 2\r\n\r\nok" % self.status
        )


async def tear(conversation: Conversation) -> None:
    """Reset the connection instead of an answer."""
    reset(conversation.writer)
    raise ConnectionResetError


async def hang(conversation: Conversation) -> None:
    """Never answer; end when the proxy gives up."""
    await conversation.reader.read()
    raise ConnectionResetError


@asynccontextmanager
async def origins(*answers: Any) -> AsyncIterator[list[Origin]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(origin(answer)) for answer in answers]
        await all_gone()


async def all_gone() -> None:
    """Let servers notice that the sidecar has gone, and close their ends."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=10)
    await asyncio.sleep(0)


# One of three -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["503", "resets", "refuses"])
async def test_one_of_three_that_misbehaves_is_left_alone(tmp_path: Path, how: str) -> None:
    """After three failures it gets nothing more, and clients see nothing but answers."""
    answer = {"503": Switch(503), "resets": tear, "refuses": hello}[how]
    async with origins(hello, hello, answer) as apps:
        ports = [app.port for app in apps]
        if how == "refuses":
            ports[2] = free_port()
        with Scene(tmp_path, ports, outliers=NO_STATISTICS) as scene:

            async def ejected() -> bool:
                await scene.statuses(5)
                return await scene.states() == ["in-service", "in-service", "ejected"]

            await scene.until(ejected)
            before = len(apps[2].requests)
            assert await scene.statuses(60) == [200] * 60
            assert len(apps[2].requests) == before
            assert await scene.metric("mesh_outlier_ejections_total", cluster="catalog") == 1
            assert await scene.metric("mesh_endpoints", state="ejected") == 1
            assert f"127.0.0.1:{ports[2]} ejected for 30 s" in scene.sidecar.log()


async def test_it_comes_back_through_probation(tmp_path: Path) -> None:
    """One request finds out that it is well, and then it gets its share."""
    switch = Switch(503)
    spec = OutlierSpec(consecutive_gateway_errors=1, base_ejection=300, interval=100_000)
    async with origins(hello, switch) as apps:
        with Scene(tmp_path, [app.port for app in apps], outliers=spec) as scene:

            async def ejected() -> bool:
                await scene.get()
                return "ejected" in await scene.states()

            await scene.until(ejected)
            switch.status = 200

            async def back() -> bool:
                assert (await scene.get()).status == 200
                return await scene.states() == ["in-service", "in-service"]

            await scene.until(back)


async def test_a_failing_probe_ejects_for_longer(tmp_path: Path) -> None:
    """And costs one request each time, not a burst of them."""
    spec = OutlierSpec(consecutive_gateway_errors=1, base_ejection=100, interval=100_000)
    async with origins(hello, Switch(503)) as apps:
        with Scene(tmp_path, [app.port for app in apps], outliers=spec) as scene:

            async def thrice() -> bool:
                await scene.statuses(3)
                return await scene.metric("mesh_outlier_ejections_total") >= 3

            await scene.until(thrice)
            ejections = await scene.metric("mesh_outlier_ejections_total")
            assert len(apps[1].requests) <= ejections + 1
            failed = await scene.metric("mesh_outlier_ejections_total", reason="probe-failed")
            assert failed == ejections - 1


@pytest.mark.parametrize("statistic", ["failure-percentage", "success-rate"])
async def test_statistics_eject_who_fails_more_than_the_others(
    tmp_path: Path, statistic: str
) -> None:
    """It fails every other time, never twice in a row."""
    turns = iter(range(10**9))

    async def now_and_then(conversation: Conversation) -> None:
        await Switch(503 if next(turns) % 2 else 200)(conversation)

    by_share: dict[str, Any] = {"failure_percent": 30.0}
    spec = OutlierSpec(
        consecutive_gateway_errors=None, interval=1_000, min_hosts=4, min_requests=4,
        stdev_factor=1_000,
        **by_share if statistic == "failure-percentage" else {"success_rate": True},
    )  # fmt: skip
    async with origins(hello, hello, hello, now_and_then) as apps:
        with Scene(tmp_path, [app.port for app in apps], outliers=spec) as scene:

            async def ejected() -> bool:
                await scene.statuses(8)
                return await scene.states() == ["in-service"] * 3 + ["ejected"]

            await scene.until(ejected)
            assert await scene.statuses(20) == [200] * 20
            assert await scene.metric("mesh_outlier_ejections_total", reason=statistic) == 1
            assert await scene.metric("mesh_outlier_ejections_total") == 1


@pytest.mark.parametrize(("threshold", "status"), [(50.0, 200), (0.0, 503)])
async def test_with_nobody_left_all_are_asked_or_nobody(
    tmp_path: Path, threshold: float, status: int
) -> None:
    """Panic, or none where the policy says so: checks can be wrong about everybody at once."""
    check = HealthCheckSpec(statuses=(299,), interval=200, timeout=5_000, healthy=1, unhealthy=1)
    spec = OutlierSpec(panic_percent=threshold)
    async with origins(hello, hello) as apps:
        ports = [app.port for app in apps]
        with Scene(tmp_path, ports, health_check=check, outliers=spec) as scene:

            async def ill() -> bool:
                return await scene.states() == ["unhealthy"] * 2

            await scene.until(ill)
            answer = await scene.get()
            refusal = None if status == 200 else "no-healthy-endpoint"
            assert (answer.status, answer.header("x-mesh-refusal")) == (status, refusal)
            assert await scene.metric("mesh_cluster_panic") == (status == 200)


# The breaker --------------------------------------------------------------------------------------


async def test_a_failing_service_is_left_alone_until_it_is_well(tmp_path: Path) -> None:
    """Closed, open (503 at once, with Retry-After, nothing sent), half-open, closed."""
    switch = Switch(503)
    breaker = CircuitBreakerSpec(min_requests=5, open_time=1_500, probes=2)
    async with origins(switch) as [app]:
        with Scene(tmp_path, [app.port], breaker=breaker) as scene:
            assert await scene.statuses(5) == [503] * 5
            refused = await scene.get()
            assert (refused.status, refused.header("x-mesh-refusal")) == (503, "circuit-open")
            assert refused.header("retry-after") in ("1", "2")
            assert len(app.requests) == 5
            assert (await scene.cluster())["breaker"]["state"] == "open"
            assert await scene.metric("mesh_circuit_breaker_state", state="open") == 1
            switch.status = 200

            async def closed() -> bool:
                return (await scene.get()).status == 200

            await scene.until(closed)
            assert await scene.statuses(3) == [200] * 3
            assert (await scene.cluster())["breaker"]["state"] == "closed"
            for state in ("open", "half-open", "closed"):
                name = "mesh_circuit_breaker_transitions_total"
                assert await scene.metric(name, state=state) == 1
            assert "circuit breaker open: 5 of 5 requests failed" in scene.sidecar.log()
            assert "circuit breaker half-open" in scene.sidecar.log()
            assert "circuit breaker closed" in scene.sidecar.log()


async def test_the_breaker_minds_opaque_connections(tmp_path: Path) -> None:
    """Connects that fail open it, and then clients are reset without one."""
    port = free_port()
    breaker = CircuitBreakerSpec(min_requests=3, open_time=60_000)
    with Scene(tmp_path, [port], breaker=breaker, outliers=None) as scene:

        async def opened() -> bool:
            with suppress(
                ConnectionError
            ):  # also while it connects: who is refused hears of it at once
                async with connect(scene.tcp) as client:
                    await client.rest()
            return bool((await scene.cluster())["breaker"]["state"] == "open")

        await scene.until(opened)
        async with origin(hello, port):
            with pytest.raises(ConnectionError):
                async with connect(scene.tcp) as client:
                    await client.rest()
        assert await scene.metric("mesh_refusals_total", code="circuit-open") >= 1


async def test_a_clients_patience_opens_nothing(tmp_path: Path) -> None:
    """Clients that leave are no failures of the service."""
    breaker = CircuitBreakerSpec(min_requests=2)
    async with origins(hang) as [app]:
        with Scene(tmp_path, [app.port], breaker=breaker) as scene:
            for number in range(6):
                async with connect(scene.door) as client:
                    await client.send(b"GET / HTTP/1.1\r\nHost: catalog\r\n\r\n")

                    async def asked(wanted: int = number + 1) -> bool:
                        return len(app.requests) >= wanted

                    await scene.until(asked)
            breaking = (await scene.cluster())["breaker"]
            assert (breaking["state"], breaking["failed"]) == ("closed", 0)


# Limits -------------------------------------------------------------------------------------------


async def test_requests_above_the_limit_overflow(tmp_path: Path) -> None:
    """What is under way is not disturbed, and when it has ended there is room again."""
    gate = asyncio.Event()

    async def slowly(conversation: Conversation) -> None:
        await gate.wait()
        await hello(conversation)

    async with origins(slowly) as [app]:
        limits = LimitsSpec(connections=10, pending=10, requests=3)
        with Scene(tmp_path, [app.port], limits=limits) as scene:
            waiting = [asyncio.create_task(scene.get()) for _ in range(3)]

            async def full() -> bool:
                return bool((await scene.cluster())["limits"]["requests"]["now"] == 3)

            await scene.until(full)
            refused = await scene.get()
            assert (refused.status, refused.header("x-mesh-refusal")) == (503, "overflow")
            labels = {"cluster": "catalog", "scope": "cluster", "limit": "requests"}
            assert await scene.metric("mesh_overflows_total", **labels) == 1
            assert await scene.metric("mesh_limit_remaining", limit="requests") == 0
            gate.set()
            assert {(await one).status for one in waiting} == {200}
            assert (await scene.get()).status == 200
            assert (await scene.cluster())["limits"]["requests"]["now"] == 0


async def test_connections_and_the_line_are_limited_for_the_whole_cluster(tmp_path: Path) -> None:
    """One connection each, whatever the limit; one more waits; the others are refused."""
    gate = asyncio.Event()

    async def slowly(conversation: Conversation) -> None:
        await gate.wait()
        await hello(conversation)

    async with origins(slowly, slowly) as apps:
        limits = LimitsSpec(connections=1, pending=3, requests=None)
        with Scene(tmp_path, [app.port for app in apps], limits=limits) as scene:
            asked = [asyncio.create_task(scene.get()) for _ in range(8)]

            async def settled() -> bool:
                return sum(task.done() for task in asked) >= 3

            await scene.until(settled)
            gate.set()
            codes = sorted([(await one).status for one in asked])
            assert codes.count(503) >= 3
            assert codes.count(200) >= 3
            assert all(app.connections <= 1 for app in apps)
            assert await scene.metric("mesh_overflows_total", limit="pending") >= 3


async def test_opaque_connections_above_the_limit_are_refused(tmp_path: Path) -> None:
    """By a reset, for nobody can be told why; one that ends makes room for another."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(5))
        await reader.read()
        writer.close()

    async with listening(echo) as port:
        with Scene(tmp_path, [port], limits=LimitsSpec(connections=1)) as scene:
            async with connect(scene.tcp) as first:
                await first.send(b"hello")
                assert await first.reader.readexactly(5) == b"hello"
                with pytest.raises(ConnectionError):  # perhaps before the client's system told it
                    async with connect(scene.tcp) as second:
                        await second.rest()
            assert await scene.metric("mesh_overflows_total", limit="connections") == 1

            async def ended() -> bool:
                return bool((await scene.cluster())["limits"]["connections"]["now"] == 0)

            await scene.until(ended)
            async with connect(scene.tcp) as third:
                await third.send(b"hello")
                assert await third.reader.readexactly(5) == b"hello"
        await all_gone()


# Health checks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["http", "tcp"])
async def test_checks_take_an_endpoint_out_and_bring_it_back(tmp_path: Path, kind: Any) -> None:
    """Before a request has failed there, and without one having to find out."""
    check = HealthCheckSpec(
        type=kind, path="/health", interval=50, timeout=500, healthy=1, unhealthy=2
    )
    port = free_port()
    async with origins(hello) as [app]:
        with Scene(tmp_path, [app.port, port], health_check=check) as scene:

            async def out() -> bool:
                return await scene.states() == ["in-service", "unhealthy"]

            await scene.until(out)
            assert await scene.statuses(20) == [200] * 20
            async with origin(hello, port) as late:

                async def back() -> bool:
                    return await scene.states() == ["in-service", "in-service"]

                await scene.until(back)
                if kind == "http":
                    assert b"GET /health HTTP/1.1" in late.requests[0]
                assert await scene.metric("mesh_health_checks_total", result="healthy") > 0


async def test_checks_over_each_protocol_bring_an_endpoint_back(tmp_path: Path) -> None:
    """Who says that it is ill gets nothing; when it is well it gets its share, also through a sidecar."""
    checks: dict[Any, dict[str, Any]] = {"http": {"path": "/health"}, "grpc": {}}
    cases = {
        Case(f"{kind}-{lane}-{way}", lane, way, kind, "ill"): Policy(
            kind, "", cluster={
                "health_check": HealthCheckSpec(
                    type=kind, interval=300, timeout=5_000, healthy=1, unhealthy=1, **how
                ),
                "balancing": LoadBalancingSpec(algorithm="round-robin"),
            },
        )
        for kind, how in checks.items()
        for lane in LANES if (kind, lane) != ("grpc", "http1")
        for way in WAYS
    }  # fmt: skip
    names = [case.name for case in cases]

    async def elsewhere(mesh: FaultMesh, count: int) -> dict[str, int]:
        mesh.server.forget()
        for case in cases:
            request = Request("POST", case.name, {"x-id": case.name})
            seen = await ask(case.lane, mesh.port, [request] * count, None)
            assert seen.text in ("0", "200")
        told = mesh.server.counts()
        assert told.executed == dict.fromkeys(names, count)
        return {name: told.elsewhere.get(name, 0) for name in names}

    mesh = FaultMesh(tmp_path, cases)
    await asyncio.to_thread(mesh.__enter__)
    try:
        await came(lambda: mesh.state_of_second(names) == dict.fromkeys(names, "unhealthy"))
        assert await elsewhere(mesh, 6) == dict.fromkeys(names, 0)
        mesh.server.heal()
        await came(lambda: mesh.state_of_second(names) == dict.fromkeys(names, "in-service"))
        assert await elsewhere(mesh, 6) == dict.fromkeys(names, 3)
    finally:
        await asyncio.to_thread(mesh.__exit__)


# After a hot restart ------------------------------------------------------------------------------


async def test_a_new_process_begins_with_a_closed_breaker(tmp_path: Path) -> None:
    """It finds out for itself; who is still connected to the old one is told what that one knows."""
    breaker = CircuitBreakerSpec(min_requests=5, open_time=60_000)
    async with origins(Switch(503)) as [app]:
        with Scene(tmp_path, [app.port], breaker=breaker, outliers=None) as scene:
            async with connect(scene.door) as kept:
                for _ in range(6):
                    await kept.send(b"GET / HTTP/1.1\r\nHost: catalog\r\n\r\n")
                    response = await kept.response()
                assert response.header("x-mesh-refusal") == "circuit-open"
                await asyncio.to_thread(scene.sidecar.restart)
                assert (await scene.cluster())["breaker"]["state"] == "closed"

                await kept.send(b"GET / HTTP/1.1\r\nHost: catalog\r\n\r\n")
                response = await kept.response()
                assert response.header("x-mesh-refusal") == "circuit-open"
                assert response.header("connection") == "close"
                assert len(app.requests) == 5

            asked = [(await scene.get()).header("x-mesh-refusal") for _ in range(6)]
            assert asked == [None] * 5 + ["circuit-open"]
            assert len(app.requests) == 10
            assert await scene.metric("mesh_circuit_breaker_transitions_total", state="open") == 1


async def test_a_new_process_has_ejected_nobody(tmp_path: Path) -> None:
    """The endpoint that fails is asked as often as it takes to eject it once more, and no oftener."""
    async with origins(hello, Switch(503)) as apps:
        with Scene(tmp_path, [app.port for app in apps], outliers=NO_STATISTICS) as scene:

            async def ejected() -> bool:
                await scene.get()
                return await scene.states() == ["in-service", "ejected"]

            await scene.until(ejected)
            assert len(apps[1].requests) == 3
            await asyncio.to_thread(scene.sidecar.restart)
            assert await scene.states() == ["in-service", "in-service"]
            await scene.until(ejected)
            assert await scene.statuses(10) == [200] * 10
            assert len(apps[1].requests) == 6
            assert await scene.metric("mesh_outlier_ejections_total", cluster="catalog") == 1


async def test_a_new_process_asks_for_health_anew(tmp_path: Path) -> None:
    """Until the first verdict an endpoint serves, also one that the old process knew to be ill."""
    check = HealthCheckSpec(type="tcp", interval=200, timeout=5_000, healthy=1, unhealthy=1)
    async with origins(hello) as [app]:
        with Scene(tmp_path, [app.port, free_port()], health_check=check) as scene:

            async def out() -> bool:
                return await scene.states() == ["in-service", "unhealthy"]

            await scene.until(out)
            await asyncio.to_thread(scene.sidecar.restart)
            assert await scene.statuses(5) == [200] * 5
            await scene.until(out)


# Between two sidecars -----------------------------------------------------------------------------


class Serving(grpc.GenericRpcHandler):  # type: ignore[misc]  # no types
    """gRPC's health service, and whatever else is called answers UNAVAILABLE."""

    def __init__(self) -> None:
        self.status = b"\x08\x01"
        self.asked: list[bytes] = []

    def service(self, details: Any) -> Any:
        check = details.method == "/grpc.health.v1.Health/Check"
        return grpc.unary_unary_rpc_method_handler(self._check if check else self._fail)

    def _check(self, request: bytes, _context: Any) -> bytes:
        self.asked.append(request)
        return self.status

    def _fail(self, _request: bytes, context: Any) -> None:
        context.abort(grpc.StatusCode.UNAVAILABLE, "not today")


@contextmanager
def serving() -> Iterator[tuple[int, Serving]]:
    handler = Serving()
    server = grpc.server(ThreadPoolExecutor(4), handlers=(handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port, handler
    finally:
        server.stop(None).wait()


def arm(pair: Any, **policies: Any) -> None:
    """Give the cluster of a sidecar that has not been started these policies."""
    snapshot = wire.decode(pair.a._snapshot.read_bytes(), Snapshot)
    clusters = tuple(structs.replace(cluster, **policies) for cluster in snapshot.clusters)
    pair.a._snapshot.write_bytes(wire.encode(structs.replace(snapshot, clusters=clusters)))


def state(sidecar: Sidecar) -> str:
    [cluster] = sidecar.get("/clusters")
    return str(cluster["endpoints"][0]["state"])


async def came(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.05)


async def test_grpc_health_is_asked_over_mutual_tls(tmp_path: Path) -> None:
    """Through the endpoint's sidecar, of the service that is named."""
    check = HealthCheckSpec(
        type="grpc", service="shop.Books", interval=50, timeout=2_000, healthy=1, unhealthy=1
    )
    with serving() as (port, handler):
        pair = Pair(tmp_path, port, app_protocol="http2")
        arm(pair, health_check=check, outliers=None)
        with pair:
            await came(lambda: bool(handler.asked))
            assert handler.asked[0] == b"\x0a\x0ashop.Books"
            assert state(pair.a) == "in-service"
            handler.status = b"\x08\x02"
            await came(lambda: state(pair.a) == "unhealthy")
            handler.status = b"\x08\x01"
            await came(lambda: state(pair.a) == "in-service")


async def test_calls_that_fail_open_the_breaker(tmp_path: Path) -> None:
    """UNAVAILABLE under a status of 200; then it is the sidecar that says so, at once."""
    breaker = CircuitBreakerSpec(min_requests=3, open_time=60_000)
    with serving() as (port, _):
        pair = Pair(tmp_path, port, app_protocol="http2")
        arm(pair, breaker=breaker, outliers=None)
        with pair:

            def call() -> Any:
                with grpc.insecure_channel(f"127.0.0.1:{pair.door}") as channel:
                    try:
                        channel.unary_unary("/shop.Books/Get")(b"", timeout=20)
                    except grpc.RpcError as error:
                        return error
                raise AssertionError("was answered")

            said = [str((await asyncio.to_thread(call)).details()) for _ in range(4)]
            assert said[:3] == ["not today"] * 3
            assert said[3].startswith("circuit-open: ")


async def test_tcp_is_checked_through_to_the_app(tmp_path: Path) -> None:
    """A sidecar that is there does not make up for an app that is not."""
    check = HealthCheckSpec(type="tcp", interval=50, timeout=2_000, healthy=1, unhealthy=1)
    port = free_port()
    pair = TcpPair(tmp_path, port)
    arm(pair, health_check=check, outliers=None)
    with pair:
        await came(lambda: state(pair.a) == "unhealthy")
        async with origin(hello, port):
            await came(lambda: state(pair.a) == "in-service")
    await all_gone()
