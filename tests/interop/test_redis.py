"""redis and its client, as opaque TCP through two real sidecars."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio

from tests.helpers.client import connect
from tests.helpers.ports import free_port
from tests.helpers.programs import found, listening, needs, running
from tests.helpers.services import Service, Services
from tests.interop.witness import BODY

pytestmark = [
    pytest.mark.integration,
    pytest.mark.asyncio(loop_scope="module"),
    needs("redis-server"),
]

DOORS = ["tcp", "detect"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    directory = tmp_path_factory.mktemp("redis")
    port = free_port()
    command = [found("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    server = running(*command, log=directory / "redis.log", ready=listening(port))
    mesh = Services(directory, [Service("tcp", port, "tcp"), Service("detect", port, "detect")])
    await asyncio.to_thread(server.__enter__)
    await asyncio.to_thread(mesh.__enter__)
    yield mesh
    await asyncio.to_thread(mesh.__exit__)
    await asyncio.to_thread(server.__exit__, None, None, None)


def client(services: Services, door: str) -> Any:
    return redis.asyncio.Redis(host="127.0.0.1", port=services.doors[door], socket_timeout=20)


@pytest.mark.parametrize("door", DOORS)
async def test_commands(services: Services, door: str) -> None:
    """Values of any bytes and size, errors, transactions, and what blocks until there is one."""
    async with client(services, door) as one, client(services, door) as two:
        assert await one.ping()
        value = BODY * 20
        await one.set("large", value)
        assert await two.get("large") == value
        with pytest.raises(redis.ResponseError, match="not an integer"):
            await one.incr("large")
        async with one.pipeline(transaction=True) as transaction:
            transaction.set("n", 1).incr("n").get("n")
            assert await transaction.execute() == [True, 2, b"2"]
        waiting = asyncio.create_task(one.blpop(["list"], timeout=20))
        while not (await two.info("clients"))["blocked_clients"]:
            await asyncio.sleep(0.01)
        await two.rpush("list", "x")
        assert await waiting == (b"list", b"x")


@pytest.mark.parametrize("door", DOORS)
async def test_pipelining(services: Services, door: str) -> None:
    """20,000 commands before the first answer is read."""
    async with client(services, door) as one, one.pipeline(transaction=False) as pipeline:
        for number in range(10_000):
            pipeline.set(f"key{number}", number)
            pipeline.get(f"key{number}")
        answers = await pipeline.execute()
    assert answers[1::2] == [b"%d" % number for number in range(10_000)]


@pytest.mark.parametrize("door", DOORS)
async def test_publish_and_subscribe(services: Services, door: str) -> None:
    """Subscribers that say nothing hear what is published, each of them all of it."""
    async with client(services, door) as publisher:
        subscribers = [publisher.pubsub() for _ in range(20)]
        for subscriber in subscribers:
            await subscriber.subscribe("news")
            assert (await subscriber.get_message(timeout=20) or {})["type"] == "subscribe"
        for number in range(100):
            assert await publisher.publish("news", number) == 20
        for subscriber in subscribers:
            heard = [(await subscriber.get_message(timeout=20) or {})["data"] for _ in range(100)]
            assert heard == [b"%d" % number for number in range(100)]
            await subscriber.aclose()


@pytest.mark.parametrize("door", DOORS)
async def test_the_client_ends_its_half_first(services: Services, door: str) -> None:
    """As `printf | nc` does: the answers come in full, and then the end."""
    async with connect(services.doors[door]) as it:
        await it.send(b"PING\r\nECHO hello\r\nQUIT\r\n")
        it.writer.write_eof()
        assert await it.rest() == b"+PONG\r\n$5\r\nhello\r\n+OK\r\n"


async def test_many_connections(services: Services) -> None:
    """200 clients at once share the tunnel between the sidecars."""
    clients = [client(services, "tcp") for _ in range(200)]
    assert await asyncio.gather(*[one.echo(f"{n}") for n, one in enumerate(clients)]) == [
        b"%d" % number for number in range(200)
    ]
    for one in clients:
        await one.aclose()
