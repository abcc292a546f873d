"""Hold a port for a process that will listen on it later."""

import asyncio
import errno
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing

import pytest
import uvloop
from aiohttp import web

from control_plane.cli.local.allocation import FIRST, LAST
from control_plane.cli.local.reservation import ADDRESS, reserve
from meshproxy.contract.resources import ListenerSpec
from meshproxy.downstream.listener import Listener
from tests.helpers.environment import Environment


@pytest.fixture
def held() -> Iterator[int]:
    """A port that is reserved."""
    for port in range(FIRST, LAST):
        if (holder := reserve(port)) is not None:
            with holder:
                yield port
            return


async def admin(port: int) -> None:
    """Listen as a sidecar's admin pages do."""
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, ADDRESS, port)
    server.close()
    await server.wait_closed()


async def control_plane(port: int) -> None:
    """Listen as a control plane does."""
    runner = web.AppRunner(web.Application())
    await runner.setup()
    try:
        await web.TCPSite(runner, ADDRESS, port).start()
    finally:
        await runner.cleanup()


async def sidecar(port: int) -> None:
    """Listen as a sidecar does."""
    spec = ListenerSpec(name="out", direction="outbound", address=ADDRESS, port=port)
    listener = Listener(spec, Environment())
    listener.bind()
    listener.start()
    listener.close()


@pytest.mark.parametrize("listen", [admin, control_plane, sidecar])
def test_our_own_programs_listen_over_a_reservation(
    held: int, listen: Callable[[int], Coroutine[None, None, None]]
) -> None:
    """Again and again, and nobody else can have the port before, between or after."""
    assert reserve(held) is None
    for _ in range(2):
        uvloop.run(listen(held))
        assert reserve(held) is None


def test_a_port_that_somebody_listens_on_is_not_to_be_had() -> None:
    """Also not by whoever had it once."""
    with socket.create_server((ADDRESS, 0)) as server:
        port = server.getsockname()[1]
        assert reserve(port) is None
        assert reserve(port, known=True) is None


def test_a_released_port_is_free(held: int) -> None:
    """Also for a program that does not know of SO_REUSEADDR."""
    with pytest.raises(OSError, match="in use") as caught, closing(socket.socket()) as app:
        app.bind((ADDRESS, held))
    assert caught.value.errno == errno.EADDRINUSE

    reserved = reserve(held + 1) or reserve(held + 2)
    assert reserved is not None
    port = reserved.getsockname()[1]
    reserved.close()
    with closing(socket.socket()) as app:
        app.bind((ADDRESS, port))


def test_connections_in_time_wait_keep_out_strangers_only() -> None:
    """A mesh that is started again a moment later has the ports that it had."""
    with socket.create_server((ADDRESS, 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection((ADDRESS, port)) as client:
            accepted, _ = server.accept()
            accepted.close()  # who closes first keeps the connection in TIME_WAIT
            assert client.recv(1) == b""

    assert reserve(port) is None
    holder = reserve(port, known=True)
    assert holder is not None
    holder.close()
