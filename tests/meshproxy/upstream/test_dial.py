"""Dialling with options that have to be there before the handshake, over real sockets."""

import asyncio
import errno
import socket
import ssl
from pathlib import Path

import pytest

from meshproxy.congestion import options_at
from meshproxy.tunnel import Options
from meshproxy.upstream import dial as dialling
from meshproxy.upstream.dial import dial
from tests.helpers.certificates import TestAuthority
from tests.helpers.environment import until
from tests.helpers.ports import free_port

SEGMENT = 1000
SMALL: Options = ((socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT),)
"""What is said to the other end in the handshake, and never again."""


class Heard(asyncio.Protocol):
    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.data = b""
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


async def told(
    protocol: Heard,
    place: tuple[str, int],
    source: tuple[str, int] | None = None,
    tls: ssl.SSLContext | None = None,
    options: Options = SMALL,
) -> None:
    """Dial as `dial` does where the socket is to be told something, on any machine."""
    loop = asyncio.get_running_loop()
    await dialling._dial(loop, lambda: protocol, place, source, tls, options)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_options_are_there_before_the_handshake(address: str) -> None:
    """The other end has been told what is said only then; and what it says first is heard."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    protocol = Heard()
    with socket.create_server((address, 0), family=family) as server:
        await told(protocol, server.getsockname()[:2])
        accepted, _ = server.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) <= SEGMENT
            accepted.sendall(b"server first")
            await until(lambda: protocol.data == b"server first")
    await until(lambda: protocol.lost)


async def test_from_an_address() -> None:
    """The last leg of a captured connection says by it that it is one."""
    protocol = Heard()
    with socket.create_server(("127.0.0.1", 0)) as server:
        await told(protocol, server.getsockname(), source=("127.0.0.9", 0))
        accepted, (peer, _) = server.accept()
        accepted.close()
    assert peer == "127.0.0.9"
    await until(lambda: protocol.lost)


async def test_with_tls(tmp_path: Path) -> None:
    """The protocol is told after the handshake."""
    certificate, key = TestAuthority().issue("spiffe://test.mesh/ns/default/sa/it", tmp_path, "it")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"encrypted")
        await writer.drain()

    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=context)
    async with server:
        protocol = Heard()
        await told(protocol, server.sockets[0].getsockname(), tls=client)
        assert protocol.transport is not None
        assert protocol.transport.get_extra_info("ssl_object") is not None
        await until(lambda: protocol.data == b"encrypted")
        protocol.transport.abort()
        await until(lambda: protocol.lost)


async def test_nobody_there() -> None:
    """An error as from the loop."""
    with pytest.raises(ConnectionRefusedError):
        await told(Heard(), ("127.0.0.1", free_port()))


async def test_an_address_that_cannot_be_dialled_from() -> None:
    """The kernel's reason."""
    with pytest.raises(OSError, match="assign") as failed:
        await told(Heard(), ("127.0.0.1", free_port()), source=("192.0.2.1", 0))
    assert failed.value.errno == errno.EADDRNOTAVAIL


async def test_a_full_queue_is_waited_for() -> None:
    """The handshake is not always over at once: TCP tries again in a second."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        with socket.create_connection(server.getsockname()):  # all the room there is
            protocol = Heard()
            dialled = asyncio.create_task(told(protocol, server.getsockname()))
            await asyncio.sleep(0)
            assert not dialled.done()
            server.accept()[0].close()
            await dialled
    assert protocol.transport is not None
    protocol.transport.abort()
    await until(lambda: protocol.lost)


async def test_what_is_given_up_is_closed() -> None:
    """However far it has come."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        with socket.create_connection(server.getsockname()):
            dialled = asyncio.create_task(told(Heard(), server.getsockname()))
            await asyncio.sleep(0)
            dialled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await dialled


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost"])
async def test_dialling_by_the_way_of_this_machine(address: str) -> None:
    """Whatever its congestion control; a name is the loop's to resolve."""
    assert options_at("localhost", SMALL) == ()
    protocol = Heard()
    with socket.create_server(("127.0.0.1", 0)) as server:
        loop = asyncio.get_running_loop()
        await dial(loop, lambda: protocol, address, server.getsockname()[1])
        server.accept()[0].close()
    await until(lambda: protocol.lost)
