"""Listening sockets, as the kernel has them."""

import asyncio
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from meshproxy.downstream.sockets import Place, Sockets, accept, listen
from tests.helpers.ports import free_port


@pytest.fixture
def place() -> Place:
    return ("127.0.0.1", free_port())


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    sockets = Sockets()
    yield sockets
    sockets.close()


def close(opened: list[socket.socket]) -> None:
    for sock in opened:
        sock.close()


def accepted(sock: socket.socket) -> int:
    """Return how many connections waited; they are closed."""
    count = 0
    while True:
        try:
            sock.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def test_a_new_place(sockets: Sockets, place: Place) -> None:
    """One socket that listens and does not block."""
    [sock] = taken = sockets.take(place)
    with socket.create_connection(place):
        assert accepted(sock) == 1
    with pytest.raises(BlockingIOError):
        sock.accept()
    close(taken)


@pytest.mark.parametrize("count", [1, 3])
def test_a_taken_port_is_an_error(place: Place, count: int) -> None:
    """Also for several sockets: SO_REUSEPORT must not let a second proxy in unnoticed."""
    opened = listen(place, count)
    for wanted in (1, 2):
        with pytest.raises(OSError, match="in use"):
            listen(place, wanted)
    close(opened)


@pytest.mark.parametrize("address", ["nul\0byte", "a" * 70 + ".example", "192.0.2.1"])
def test_no_address_at_all(address: str) -> None:
    """Whatever is wrong with it is an OSError, and nothing stays open."""
    with pytest.raises(OSError, match=r"."):
        listen((address, free_port()))


def test_siblings_share_what_comes(place: Place) -> None:
    """The kernel spreads new connections over all sockets of a place."""
    opened = listen(place, 2)
    clients = [socket.create_connection(place) for _ in range(100)]
    counts = [accepted(sock) for sock in opened]
    assert sum(counts) == 100
    assert min(counts) > 10
    close([*opened, *clients])


def test_a_sibling_may_come_later(place: Place) -> None:
    """One process is followed by one with workers: it adds sockets to the one it was handed."""
    first = listen(place)
    second = listen(place, 1, beside=first)
    clients = [socket.create_connection(place) for _ in range(100)]
    assert sum(accepted(sock) for sock in [*first, *second]) == 100
    close([*first, *second, *clients])


def test_what_was_handed_over_is_used(sockets: Sockets, place: Place) -> None:
    """The same sockets, with whoever waits in their queues; more of them if more are wanted."""
    handed = listen(place)
    client = socket.create_connection(place)
    sockets.hand(place, handed)
    taken = sockets.take(place, 2)
    assert taken[0] is handed[0]
    assert len(taken) == 2
    assert accepted(taken[0]) == 1
    close([*taken, client])


def test_given_back(sockets: Sockets, place: Place) -> None:
    """What was handed over can be asked for again; what was opened is closed."""
    handed = listen(place)
    sockets.hand(place, handed)
    sockets.give_back(place, sockets.take(place, 2))
    again = sockets.take(place)
    assert again == handed
    close(again)

    sockets.give_back(place, sockets.take(place))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(place)


def test_what_nobody_wants_is_closed(sockets: Sockets, place: Place) -> None:
    """Nobody waits in a queue that nobody serves."""
    sockets.hand(place, listen(place))
    sockets.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(place)


def test_what_is_accepted_is_watched() -> None:
    """TCP keep-alive, inherited from the listening socket: a vanished client is noticed."""
    [listening] = Sockets().take(("127.0.0.1", free_port()))
    with listening, socket.create_connection(listening.getsockname()):
        listening.setblocking(True)
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_what_is_accepted(sockets: Sockets, address: str) -> None:
    """It is a socket like others, which knows who has come; nobody waiting is said as ever."""
    [listening] = sockets.take((address, free_port()))
    with listening:
        family = int(listening.family)
        with pytest.raises(BlockingIOError):
            accept(listening, family)
        with socket.create_connection((address, listening.getsockname()[1])) as client:
            accepted, peer = accept(listening, family)
            assert peer == client.getsockname() == accepted.getpeername()
            assert (accepted.family, accepted.type) == (client.family, client.type)
            accepted.send(b"hello")
            assert client.recv(9) == b"hello"
            accepted.close()
            assert client.recv(9) == b""


def test_a_number_is_not_closed_for_somebody_else() -> None:
    """Who gives up a handshake closes a socket of which the loop will close the number later."""

    async def give_up(listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with socket.create_connection(listening.getsockname()):
            sock = await next_of(loop, listening)
            handshake = loop.connect_accepted_socket(
                asyncio.Protocol, sock, ssl=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            )
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await handshake
            sock.close()
            other = os.open("/dev/null", os.O_RDONLY)
            for _ in range(5):
                await asyncio.sleep(0.01)
            os.close(other)

    async def next_of(loop: asyncio.AbstractEventLoop, listening: socket.socket) -> socket.socket:
        ready = asyncio.Event()
        loop.add_reader(listening, ready.set)
        await ready.wait()
        loop.remove_reader(listening)
        sock, _ = accept(listening, int(listening.family))
        sock.setblocking(False)
        return sock

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        uvloop.run(give_up(listening))


def test_both_families_side_by_side() -> None:
    """`::` is IPv6 alone, so that `0.0.0.0` can have the same port."""
    port = free_port()
    opened = [*listen(("::", port)), *listen(("0.0.0.0", port))]
    for sock in opened:
        sock.close()
    assert len(opened) == 2


def test_a_file_in_the_place_of_a_unix_socket_is_left_alone(tmp_path: Path) -> None:
    """Only a socket that nobody listens on is taken away."""
    path = tmp_path / "admin.sock"
    path.write_text("precious")

    with pytest.raises(OSError, match="in use"):
        listen((str(path), 0))
    assert path.read_text() == "precious"
    with pytest.raises(OSError, match="No such file"):
        listen((str(tmp_path / "nowhere" / "admin.sock"), 0))
