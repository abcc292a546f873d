"""Load balancing by a real sidecar in front of real apps: who gets what, and who stays with whom."""

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest

from meshproxy.contract.policies import (
    HashKeySpec,
    LoadBalancingSpec,
    SessionPersistenceSpec,
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
    TrustSpec,
    VirtualHostSpec,
)
from tests.helpers.client import connect
from tests.helpers.fault_matrix.clients import Request, ask
from tests.helpers.fault_matrix.mesh import Case, FaultMesh
from tests.helpers.fault_matrix.row import Lane, Policy
from tests.helpers.origin import Conversation, Origin, origin
from tests.helpers.pair import DOMAIN, Sidecar
from tests.helpers.ports import free_port

pytestmark = pytest.mark.integration

SESSION = SessionPersistenceSpec(name="shop")


def snapshot(
    door: int,
    ports: Sequence[int],
    cluster: ClusterSpec,
    weights: Sequence[int] = (),
    session: SessionPersistenceSpec | None = None,
    priorities: Sequence[int] = (),
    **listener: Any,
) -> Snapshot:
    """Return a mesh of one service, whose endpoints are plain apps."""
    none: Sequence[int] = [0] * len(ports)
    endpoints = tuple(
        EndpointSpec(address="127.0.0.1", port=port, weight=weight, priority=priority)
        for port, weight, priority in zip(
            ports, weights or [1] * len(ports), priorities or none, strict=True
        )
    )
    route = RouteSpec(name="all", backends=(BackendSpec(cluster="shop"),), session=session)
    rule = TcpRuleSpec(name="all", backends=(TcpBackendSpec(cluster="shop"),))
    return Snapshot(
        trust=(TrustSpec(trust_domain=DOMAIN, roots=(), session_secret="5e" * 32),),
        clusters=(cluster,),
        endpoints=(EndpointsSpec(cluster="shop", endpoints=endpoints),),
        virtual_hosts=(VirtualHostSpec(name="shop", domains=("shop:80",), routes=(route,)),),
        tcp_routes=(TcpRouteSpec(name="shop", rules=(rule,)),),
        listeners=(
            ListenerSpec(
                name="door",
                direction="outbound",
                address="127.0.0.1",
                port=door,
                virtual_host="shop",
                **listener,
            ),
        ),
    )


@asynccontextmanager
async def sidecar(directory: Path, snapshot: Snapshot) -> AsyncIterator[Sidecar]:
    proxy = Sidecar(directory, "storefront", snapshot, None)
    await asyncio.to_thread(proxy.__enter__)
    try:
        yield proxy
    finally:
        await asyncio.to_thread(proxy.__exit__)


class Shop:
    """
    Three apps that say who they are, behind one sidecar.

    Attributes:
        url: Of the service.
        slow: Seconds that the last app takes.
    """

    def __init__(self, door: int) -> None:
        self.door = door
        self.url = f"http://127.0.0.1:{door}/"
        self.slow = 0.0
        self.apps: list[Origin] = []
        self.stops: list[AsyncExitStack] = []

    async def open(self) -> None:
        for number in range(3):
            stop = AsyncExitStack()
            self.stops.append(stop)
            self.apps.append(await stop.enter_async_context(origin(self._answer(number))))

    def _answer(self, number: int) -> Any:
        async def answer(conversation: Conversation) -> None:
            if number == 2 and self.slow:
                await asyncio.sleep(self.slow)
            await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)

        return answer

    async def ask(self, client: httpx.AsyncClient, path: str = "", **options: Any) -> int:
        """Return the number of the app that has answered."""
        answer = await client.get(self.url + path, **options)
        assert answer.status_code == 200, answer.text
        return int(answer.text)


@asynccontextmanager
async def shop(directory: Path, weights: Sequence[int] = (), **cluster: Any) -> AsyncIterator[Shop]:
    session = cluster.pop("rule_session", None)
    priorities = cluster.pop("priorities", ())
    it = Shop(free_port())
    await it.open()
    ports = [app.port for app in it.apps]
    spec = ClusterSpec(name="shop", **cluster)
    config = snapshot(it.door, ports, spec, weights, session, priorities)
    async with sidecar(directory, config):
        try:
            yield it
        finally:
            for stop in it.stops:
                await stop.aclose()


def hashed(*keys: HashKeySpec, algorithm: Any = "maglev") -> LoadBalancingSpec:
    return LoadBalancingSpec(algorithm=algorithm, hash_keys=keys)


async def test_a_slow_endpoint_gets_less(tmp_path: Path) -> None:
    """One request after the other, so that only latency can tell: peak EWMA, the default."""
    async with shop(tmp_path) as it, httpx.AsyncClient(timeout=20) as client:
        it.slow = 0.5
        counts = Counter([await it.ask(client) for _ in range(60)])
        assert counts[2] <= 6
        assert counts[0] + counts[1] >= 54


async def test_what_is_near_goes_first(tmp_path: Path) -> None:
    """As long as it is there; then the next zone, with not a request lost and no panic."""
    async with shop(tmp_path, priorities=(0, 1, 1)) as it, httpx.AsyncClient() as client:
        assert {await it.ask(client) for _ in range(20)} == {0}
        await it.stops[0].aclose()
        for writer in it.apps[0].writers:
            writer.close()
        assert {await it.ask(client) for _ in range(40)} == {1, 2}


async def test_round_robin_counts(tmp_path: Path) -> None:
    """Over a few rounds each has exactly its weight, give or take one."""
    balancing = LoadBalancingSpec(algorithm="round-robin")
    async with (
        shop(tmp_path, (3, 2, 1), balancing=balancing) as it,
        httpx.AsyncClient() as client,
    ):
        counts = Counter([await it.ask(client) for _ in range(36)])
        assert all(abs(counts[number] - 6 * (3 - number)) <= 1 for number in range(3))


@pytest.mark.parametrize("algorithm", ["maglev", "ring-hash"])
async def test_the_same_user_the_same_endpoint(tmp_path: Path, algorithm: str) -> None:
    """By a header, over many connections; users are spread."""
    balancing = hashed(HashKeySpec(source="header", name="x-user"), algorithm=algorithm)
    async with shop(tmp_path, balancing=balancing) as it:
        seen = []
        for _ in range(3):
            async with httpx.AsyncClient() as client:
                seen.append([await it.ask(client, headers={"X-User": str(n)}) for n in range(30)])
        assert seen[0] == seen[1] == seen[2]
        assert set(seen[0]) == {0, 1, 2}


@pytest.mark.parametrize(
    ("source", "spread"), [("query", True), ("address", True), ("identity", False)]
)
async def test_the_same_key_the_same_endpoint(tmp_path: Path, source: Any, spread: bool) -> None:
    """By a query parameter and by the client's address; by identity, all that our one app asks."""
    key = HashKeySpec(source=source, name="user" if source == "query" else "")
    async with shop(tmp_path, balancing=hashed(key)) as it:

        async def asked(number: int) -> bytes:
            address = f"127.0.0.{number if source == 'address' else 1}"
            async with connect(it.door, local_addr=(address, 0)) as client:
                await client.send(b"GET /?user=%d HTTP/1.1\r\nHost: shop\r\n\r\n" % number)
                return (await client.response()).body

        once = [await asked(number) for number in range(1, 21)]
        again = [await asked(number) for number in range(1, 21)]
        assert once == again
        assert len(set(once)) == (3 if spread else 1)


async def test_a_client_without_the_cookie_gets_one(tmp_path: Path) -> None:
    """And stays from then on; another client is somebody else."""
    balancing = hashed(HashKeySpec(source="cookie", name="user", cookie_ttl=3_600_000))
    async with shop(tmp_path, balancing=balancing) as it:
        firsts = set()
        for _ in range(12):
            async with httpx.AsyncClient() as client:
                answer = await client.get(it.url)
                assert "Max-Age=3600" in answer.headers["set-cookie"]
                firsts.add(answer.text)
                again = await client.get(it.url)
                assert again.text == answer.text
                assert "set-cookie" not in again.headers
        assert len(firsts) > 1


@pytest.mark.parametrize("of", ["session", "rule_session"])
async def test_a_session_stays_until_its_endpoint_goes(tmp_path: Path, of: str) -> None:
    """With the cookies of a real client, of the cluster or of a rule."""
    balancing = LoadBalancingSpec(algorithm="round-robin")
    options: dict[str, Any] = {of: SESSION}
    async with (
        shop(tmp_path, balancing=balancing, **options) as it,
        httpx.AsyncClient() as client,
        httpx.AsyncClient() as other,
    ):
        first = await client.get(it.url)
        mine = int(first.text)
        cookie = first.headers["set-cookie"]
        assert "HttpOnly; SameSite=Strict" in cookie
        assert ("Path=/" in cookie) == (of == "rule_session")
        assert str(it.apps[mine].port) not in cookie
        assert {await it.ask(client) for _ in range(6)} == {mine}
        theirs = await it.ask(other)
        assert theirs != mine
        assert await it.ask(client) == mine

        await it.stops[mine].aclose()  # accepts no more, and ends the connection that rests
        for writer in it.apps[mine].writers:
            writer.close()
        answer = await client.get(it.url)
        assert (answer.status_code, "set-cookie" in answer.headers) == (200, True)
        assert int(answer.text) != mine
        assert {await it.ask(client) for _ in range(4)} == {int(answer.text)}
        assert await it.ask(other) == theirs


async def test_curl_keeps_its_cookie(tmp_path: Path) -> None:
    """The cookie is one to programs that are strict about cookies, too."""
    curl = shutil.which("curl")
    assert curl is not None
    balancing = LoadBalancingSpec(algorithm="round-robin")
    jar = str(tmp_path / "jar")
    async with shop(tmp_path, balancing=balancing, session=SESSION) as it:
        seen = []
        for _ in range(5):
            process = await asyncio.create_subprocess_exec(
                *(curl, "-sS", "-b", jar, "-c", jar, it.url), stdout=asyncio.subprocess.PIPE
            )
            out, _ = await process.communicate()
            seen.append(out)
        assert len(set(seen)) == 1


async def test_a_forged_token_is_no_session(tmp_path: Path) -> None:
    """It is nobody's, and the answer brings one that counts."""
    async with shop(tmp_path, session=SESSION) as it, httpx.AsyncClient() as client:
        answer = await client.get(it.url, headers={"Cookie": "shop=" + "A" * 27})
        assert answer.headers["set-cookie"].startswith("shop=")


async def test_old_connections_are_replaced(tmp_path: Path) -> None:
    """Without a request noticing."""
    async with (
        shop(tmp_path, max_connection_age=50) as it,
        httpx.AsyncClient() as client,
    ):
        async with asyncio.timeout(20):
            while sum(app.connections for app in it.apps) < 6:
                await it.ask(client)


@pytest.mark.parametrize("lane", ["http2", "grpc"])
async def test_old_connections_of_streams_are_replaced(tmp_path: Path, lane: Lane) -> None:
    """Without a request noticing, also where one connection could have taken them all."""
    case = Case("aging", lane, "pair", "age")
    mesh = FaultMesh(tmp_path, {case: Policy("age", "", cluster={"max_connection_age": 50})})
    await asyncio.to_thread(mesh.__enter__)
    try:
        request = Request("POST", case.name, {"x-id": "a"})
        async with asyncio.timeout(20):
            while await asyncio.to_thread(mesh.opened) < 5:
                seen = await ask(lane, mesh.port, [request] * 5, None)
                assert seen.text in ("0", "200")
    finally:
        await asyncio.to_thread(mesh.__exit__)


# Other protocols ------------------------------------------------------------------------------------


class Named(grpc.GenericRpcHandler):  # type: ignore[misc]  # no types
    """Answers every call with the port that it serves."""

    def __init__(self) -> None:
        self.port = 0

    def service(self, details: Any) -> Any:  # the library's signature
        async def answer(request: bytes, context: Any) -> bytes:
            return str(self.port).encode()

        return grpc.unary_unary_rpc_method_handler(answer)


async def test_grpc_is_balanced_by_call(tmp_path: Path) -> None:
    """One channel, one connection of the client's; its calls go to all endpoints alike."""
    servers, ports = [], []
    for _ in range(3):
        named = Named()
        server = grpc.aio.server(handlers=(named,))
        named.port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        servers.append(server)
        ports.append(named.port)
    door = free_port()
    cluster = ClusterSpec(
        name="shop", protocol="http2", balancing=LoadBalancingSpec(algorithm="round-robin")
    )
    try:
        async with (
            sidecar(tmp_path, snapshot(door, ports, cluster)),
            grpc.aio.insecure_channel(f"127.0.0.1:{door}") as channel,
        ):
            call = channel.unary_unary("/shop.Books/Get")
            counts = Counter([int(await call(b"")) for _ in range(30)])
            assert counts == dict.fromkeys(ports, 10)
    finally:
        for server in servers:
            await server.stop(None)


async def test_opaque_connections_stay_with_their_address(tmp_path: Path) -> None:
    """Each connection from one address reaches the same app; addresses are spread."""
    async with AsyncExitStack() as stack:
        ports = []
        for _ in range(3):
            server = await asyncio.start_server(_say_port, "127.0.0.1", 0)
            stack.push_async_callback(_close, server)
            ports.append(server.sockets[0].getsockname()[1])
        door = free_port()
        cluster = ClusterSpec(name="shop", balancing=hashed(HashKeySpec(source="address")))
        mesh = snapshot(door, ports, cluster, protocol="tcp", tcp_route="shop")
        await stack.enter_async_context(sidecar(tmp_path, mesh))

        async def reached(address: str) -> int:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", door, local_addr=(address, 0)
            )
            said = await reader.read()
            writer.close()
            return int(said)

        addresses = [f"127.0.0.{number}" for number in range(1, 21)]
        once = [await reached(address) for address in addresses]
        again = [await reached(address) for address in addresses]
        assert once == again
        assert set(once) == set(ports)


async def _say_port(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(str(writer.get_extra_info("sockname")[1]).encode())
    writer.close()


async def _close(server: asyncio.Server) -> None:
    server.close()
