"""RabbitMQ and pika, as opaque TCP through two real sidecars: the client speaks first, heartbeats."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pika
import pika.exceptions
import pytest
import pytest_asyncio

from tests.helpers.ports import free_port
from tests.helpers.programs import listening, running
from tests.helpers.services import Service, Services
from tests.interop.witness import BODY

# What is on the PATH is a script that insists on a user of its own.
SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not SERVER.exists(), reason="not installed: rabbitmq-server"),
]

DOORS = ["tcp", "detect"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    directory = tmp_path_factory.mktemp("rabbitmq")
    port, names = free_port(), free_port()
    (directory / "plugins").write_text("[].")
    (directory / "rabbitmq.conf").write_text(
        f"listeners.tcp.1 = 127.0.0.1:{port}\nloopback_users = none\n"
    )
    # Erlang's name server, which would outlive the broker; and the broker, in a folder of its own.
    erlang = {"ERL_EPMD_PORT": str(names), "ERL_EPMD_ADDRESS": "127.0.0.1", "HOME": str(directory)}
    broker = {
        "RABBITMQ_NODENAME": f"test{port}@localhost", "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"), "RABBITMQ_LOGS": "-",
        "RABBITMQ_LOG_BASE": str(directory / "logs"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
        "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
        "RABBITMQ_PID_FILE": str(directory / "pid"),
    }  # fmt: skip
    with ExitStack() as stack:
        epmd = running(
            "epmd", "-port", str(names), log=directory / "epmd.log", ready=listening(names),
            environment=erlang,
        )  # fmt: skip
        await asyncio.to_thread(stack.enter_context, epmd)
        server = running(
            SERVER, log=directory / "log", ready=listening(port),
            environment={**erlang, **broker, "PATH": f"{os.environ['PATH']}:/usr/sbin"},
        )  # fmt: skip
        await asyncio.to_thread(stack.enter_context, server)
        mesh = Services(
            directory,
            [Service(door, port, door) for door in DOORS],  # type: ignore[arg-type]
        )
        yield await asyncio.to_thread(stack.enter_context, mesh)
        await asyncio.to_thread(stack.close)


def connection(services: Services, door: str, *, heartbeat: int = 60) -> Any:
    return pika.BlockingConnection(
        pika.ConnectionParameters(
            "127.0.0.1", services.doors[door], heartbeat=heartbeat,
            blocked_connection_timeout=20,
        )
    )  # fmt: skip


@pytest.mark.parametrize("door", DOORS)
async def test_messages(services: Services, door: str) -> None:
    """A thousand small ones and some of MiBs, confirmed, delivered in order, acknowledged."""

    def converse() -> list[bytes]:
        with connection(services, door) as it:
            channel = it.channel()
            queue = channel.queue_declare("", exclusive=True).method.queue
            channel.confirm_delivery()
            for number in range(1000):
                channel.basic_publish("", queue, b"%d" % number)
            for _ in range(3):
                channel.basic_publish("", queue, BODY * 14)
            got = []
            for method, _properties, body in channel.consume(queue, inactivity_timeout=20):
                got.append(body)
                channel.basic_ack(method.delivery_tag)
                if len(got) == 1003:
                    channel.cancel()
                    return got
        raise AssertionError(got)

    assert await asyncio.to_thread(converse) == [b"%d" % n for n in range(1000)] + [BODY * 14] * 3


async def test_heartbeats(services: Services) -> None:
    """A connection on which nothing is said but heartbeats, of both sides, is kept."""

    def wait() -> bytes:
        with connection(services, "tcp", heartbeat=1) as it:
            channel = it.channel()
            queue = channel.queue_declare("", exclusive=True).method.queue
            # Twice as long as the broker waits for a sign of life.
            it.process_data_events(time_limit=4)
            channel.basic_publish("", queue, b"still here")
            it.process_data_events(time_limit=0)
            for _, _, body in channel.consume(queue, inactivity_timeout=20):
                return bytes(body)
        return b""

    assert await asyncio.to_thread(wait) == b"still here"


async def test_an_error_of_the_broker_ends_the_channel_only(services: Services) -> None:
    """Its reason arrives, and the connection goes on."""

    def converse() -> tuple[int, str]:
        with connection(services, "tcp") as it:
            with pytest.raises(pika.exceptions.ChannelClosedByBroker) as raised:
                it.channel().queue_declare("missing", passive=True)
            assert it.channel().is_open
            return raised.value.reply_code, raised.value.reply_text

    code, text = await asyncio.to_thread(converse)
    assert code == 404
    assert "no queue 'missing'" in text
