"""Retries over several hops, hedging, and the connections that carry them: with real processes."""

import asyncio
import re
from pathlib import Path

import pytest

from meshproxy.contract.policies import HedgeSpec, LoadBalancingSpec, RetryBudgetSpec, RetrySpec
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
from tests.helpers.client import connect, get
from tests.helpers.environment import until
from tests.helpers.origin import Conversation, hello, origin
from tests.helpers.pair import Sidecar
from tests.helpers.ports import free_port
from tests.helpers.retrying_chain import chain

pytestmark = pytest.mark.integration

TRACE = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"
PLENTY = RetryBudgetSpec(min_count=1_000)
THREE_TRIES = RetrySpec(codes=(503,), backoff=1, max_backoff=5)


async def fail(conversation: Conversation) -> None:
    await conversation.send(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nsorry")


def metric(sidecar: Sidecar, name: str, **labels: str) -> float:
    """Return the sum of a metric's series that have these labels."""
    total = 0.0
    for line in sidecar.metrics().splitlines():
        match = re.fullmatch(rf"{name}\{{(.*)\}} (\S+)", line)
        if match and all(f'{key}="{value}"' in match[1] for key, value in labels.items()):
            total += float(match[2])
    return total


def alone(directory: Path, cluster: ClusterSpec, *ports: int) -> tuple[Sidecar, int]:
    """Return a proxy without a mesh in front of servers at these ports, and its own port."""
    door = free_port()
    endpoints = tuple(EndpointSpec(address="127.0.0.1", port=port) for port in ports)
    route = RouteSpec(name="all", backends=(BackendSpec(cluster=cluster.name),))
    snapshot = Snapshot(
        clusters=(cluster,),
        endpoints=(EndpointsSpec(cluster=cluster.name, endpoints=endpoints),),
        virtual_hosts=(VirtualHostSpec(name="host", domains=("catalog",), routes=(route,)),),
        listeners=(
            ListenerSpec(
                name="door", direction="outbound", address="127.0.0.1", port=door,
                virtual_host="host",
            ),
        ),
    )  # fmt: skip
    return Sidecar(directory, "storefront", snapshot, None), door


# No multiplication --------------------------------------------------------------------------------


async def test_three_hops_with_three_tries_each_cost_three_requests(tmp_path: Path) -> None:
    """
    The hop next to the failure retries, and those before it learn that this has been done.  The app
    knows nothing of it: it only passes `traceparent` on.
    """
    async with chain(tmp_path, fail, retry=THREE_TRIES, budget=PLENTY) as made:
        response = await get(made.port, extra=TRACE)
        assert response.status == 503
        assert len(made.last.requests) == 3
        first, second, third = made.sidecars
        assert metric(third, "mesh_retries_total", reason="503") == 2
        assert metric(second, "mesh_retries_total") == 0
        assert metric(second, "mesh_retries_skipped_total", reason="retried-below") == 1
        assert metric(first, "mesh_retries_skipped_total", reason="retried-below") == 1


async def test_without_a_trace_the_hops_know_nothing_of_each_other(tmp_path: Path) -> None:
    """What the above has spared: 27 requests, were it not for the budget, which counts them all."""
    arguments = {"retry": THREE_TRIES, "passes_trace_on": False}
    (tmp_path / "without").mkdir()
    async with chain(tmp_path / "without", fail, budget=PLENTY, **arguments) as made:  # type: ignore[arg-type]
        await get(made.port, extra=TRACE)
        # Inside one hop the proxies tell each other: what the second has retried the first knows.
        assert len(made.last.requests) == 27
    (tmp_path / "with").mkdir()
    tight = RetryBudgetSpec(min_count=2, min_interval=60_000)
    async with chain(tmp_path / "with", fail, budget=tight, **arguments) as made:  # type: ignore[arg-type]
        await get(made.port, extra=TRACE)
        assert len(made.last.requests) <= 9


async def test_a_retry_is_not_retried_further_down(tmp_path: Path) -> None:
    """Two hops: where the first attempt comes too late to help, the second is the only one below."""
    answered = 0

    async def fail_now_and_then(conversation: Conversation) -> None:
        nonlocal answered
        answered += 1
        assert (conversation.header("x-mesh-attempt") is None) == (answered == 1)
        await fail(conversation)

    async with chain(tmp_path, fail_now_and_then, retry=THREE_TRIES, budget=PLENTY, hops=2) as made:
        await get(made.port, extra=TRACE)
        assert answered == 3


async def test_a_storm_adds_no_more_than_the_budget(tmp_path: Path) -> None:
    """The last service fails everything: it gets the offered load and a fifth, not three times it."""
    offered = 300
    budget = RetryBudgetSpec(percent=20, min_count=0)
    async with chain(tmp_path, fail, retry=THREE_TRIES, budget=budget) as made:
        async with connect(made.port) as client:
            for number in range(offered):
                trace = f"traceparent: 00-{number + 1:032x}-b7ad6b7169203331-01\r\n"
                await client.send(b"GET / HTTP/1.1\r\nHost: next\r\n%b\r\n" % trace.encode())
                assert (await client.response()).status == 503
        assert offered * 1.1 < len(made.last.requests) <= offered * 1.2
        left = made.sidecars[2].get("/clusters")[0]["retry_budget"]
        assert left["left"] < offered * 0.2


# Connections --------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True])
async def test_the_connection_behind_an_answer_that_is_not_wanted_is_used_again(
    tmp_path: Path, chunked: bool
) -> None:
    """A short answer is read to its end: nothing is dialled anew for a retry."""
    asked = 0

    async def fail_first(conversation: Conversation) -> None:
        nonlocal asked
        asked += 1
        if asked % 3:
            body = b"5\r\nsorry\r\n0\r\n\r\n" if chunked else b"sorry"
            how = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 5"
            await conversation.send(b"HTTP/1.1 503 No\r\n%b\r\n\r\n%b" % (how, body))
        else:
            await hello(conversation)

    async with origin(fail_first) as app:
        spec = ClusterSpec(name="catalog", retry=THREE_TRIES, retry_budget=PLENTY)
        sidecar, door = alone(tmp_path, spec, app.port)
        with sidecar:
            for _ in range(20):
                assert (await get(door)).status == 200
            assert asked == 60
            assert app.connections <= 2  # the retry may be due before the old answer has ended


async def test_a_long_answer_that_is_not_wanted_is_not_read(tmp_path: Path) -> None:
    """Its connection is closed: to dial is cheaper."""
    closed = asyncio.Event()
    asked = 0

    async def fail_at_length(conversation: Conversation) -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            await hello(conversation)
            return
        await conversation.send(b"HTTP/1.1 503 No\r\nContent-Length: 10000000\r\n\r\nsorry")
        await conversation.reader.read()
        closed.set()

    async with origin(fail_at_length) as app:
        spec = ClusterSpec(name="catalog", retry=THREE_TRIES, retry_budget=PLENTY)
        sidecar, door = alone(tmp_path, spec, app.port)
        with sidecar:
            assert (await get(door)).status == 200
            async with asyncio.timeout(20):
                await closed.wait()


async def test_an_answer_that_is_not_wanted_and_never_ends_holds_nothing(tmp_path: Path) -> None:
    """It is waited for a moment, then the connection is closed."""
    closed = asyncio.Event()
    asked = 0

    async def fail_for_ever(conversation: Conversation) -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            await hello(conversation)
            return
        await conversation.send(b"HTTP/1.1 503 No\r\nContent-Length: 10\r\n\r\nsor")
        await conversation.reader.read()
        closed.set()

    async with origin(fail_for_ever) as app:
        spec = ClusterSpec(name="catalog", retry=THREE_TRIES, retry_budget=PLENTY)
        sidecar, door = alone(tmp_path, spec, app.port)
        with sidecar:
            assert (await get(door)).status == 200
            async with asyncio.timeout(20):
                await closed.wait()
            assert metric(sidecar, "mesh_retries_total", reason="503") == 1


async def test_kept_bodies_have_a_bound_together(tmp_path: Path) -> None:
    """What passes it is sent once and answered as ever; that is counted, logged, and given back."""

    async def swallow(conversation: Conversation) -> None:
        await conversation.body()
        await fail(conversation)

    async with origin(swallow) as app:
        spec = ClusterSpec(name="catalog", retry=THREE_TRIES, retry_budget=PLENTY)
        sidecar, door = alone(tmp_path, spec, app.port)
        sidecar.settings["limits"] = {"replay": 20_000}
        with sidecar:
            for size, tries in ((20_000, 3), (20_001, 1), (4_096, 3), (20_000, 3)):
                app.requests.clear()
                async with connect(door) as client:
                    head = f"PUT / HTTP/1.1\r\nHost: catalog\r\nContent-Length: {size}\r\n\r\n"
                    await client.send(head.encode() + b"x" * size)
                    assert (await client.response()).status == 503
                assert len(app.requests) == tries, size
            assert metric(sidecar, "mesh_retries_skipped_total", reason="replay-memory") == 1
            assert "mesh_replay_bytes 0.0" in sidecar.metrics()
        assert "a retry was not made: replay-memory" in sidecar.log()


async def test_one_failing_endpoint_of_two_is_hidden(tmp_path: Path) -> None:
    """The next attempt prefers the other."""
    async with origin(fail) as bad, origin(hello) as good:
        spec = ClusterSpec(
            name="catalog", retry=THREE_TRIES, retry_budget=PLENTY, outliers=None,
            balancing=LoadBalancingSpec(algorithm="round-robin"),
        )  # fmt: skip
        sidecar, door = alone(tmp_path, spec, bad.port, good.port)
        with sidecar:
            for _ in range(20):
                assert (await get(door)).status == 200
            assert metric(sidecar, "mesh_retries_total", reason="503") == len(bad.requests) > 0


# Hedging ------------------------------------------------------------------------------------------


async def test_a_second_attempt_saves_a_slow_request(tmp_path: Path) -> None:
    """
    One endpoint of two begins to hang: requests that meet it are answered by the other, and the
    attempts that hang are given up.
    """
    hanging = False
    abandoned = 0

    async def hang(conversation: Conversation) -> None:
        nonlocal abandoned
        if hanging:
            await conversation.reader.read()
            abandoned += 1
        else:
            await hello(conversation)

    async with origin(hang) as slow, origin(hello) as quick:
        spec = ClusterSpec(
            name="catalog", retry=RetrySpec(hedge=HedgeSpec(min_delay=20)), retry_budget=PLENTY,
            outliers=None, balancing=LoadBalancingSpec(algorithm="round-robin"),
        )  # fmt: skip
        sidecar, door = alone(tmp_path, spec, slow.port, quick.port)
        with sidecar:
            async with connect(door) as client:
                for number in range(220):
                    if number == 200:
                        hanging = True
                    await client.send(b"GET /x HTTP/1.1\r\nHost: catalog\r\n\r\n")
                    assert (await client.response()).status == 200
            assert metric(sidecar, "mesh_hedges_won_total") >= 10
            assert metric(sidecar, "mesh_hedges_total") >= 10
            await until(lambda: abandoned >= 10)
            [cluster] = sidecar.get("/clusters")
            assert [endpoint["active"] for endpoint in cluster["endpoints"]] == [0, 0]
            assert cluster["limits"]["requests"]["now"] == 0
            assert cluster["limits"]["retries"]["now"] == 0
            # None of them is counted twice.
            assert metric(sidecar, "mesh_requests_total", code="200") == 220
