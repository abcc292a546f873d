"""One side of a relay: frames leave together, ends are ends, and resets are resets."""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import pytest

from meshproxy.flow import HIGH_WATER, LOW_WATER, TIGHT
from meshproxy.tcp import DIRECT, TcpSide
from tests.helpers.transport import FakeLoop, FakeSocket, FakeTransport, connected

RESET = struct.pack("ii", 1, 0)


class Scene:
    def __init__(self, *, tls: bool = False) -> None:
        self.loop = FakeLoop()
        self.side = TcpSide(self.loop.as_loop)
        self.transport: FakeTransport = connected(self.side, tls=tls, socket=FakeSocket())


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_who_dies_has_not_ended() -> None:
    """To close is a reset, from the first moment on, until both directions have ended."""
    scene = Scene()
    scene.side.connection_made(cast("asyncio.Transport", scene.transport))
    assert scene.transport.socket is not None
    assert scene.transport.socket.lingers == RESET
    scene.side.send_end()
    assert scene.transport.socket.lingers == RESET
    scene.side.eof_received()
    assert scene.transport.state == "closing"
    assert scene.transport.socket.lingers == struct.pack("ii", 0, 0)
    scene.side.close()
    scene.side.connection_lost(None)
    scene.side.close()


def test_until_all_has_left_it_has_not_ended(scene: Scene) -> None:
    """What waits for a slow client would be lost with us, and then it must see a reset."""
    scene.side.send_end()
    scene.transport.waiting = 100
    scene.side.eof_received()
    assert scene.transport.state == "open"
    scene.side.resume_writing()
    assert scene.transport.state == "open"
    scene.transport.waiting = 0
    scene.side.resume_writing()
    assert scene.transport.state == "closing"
    assert scene.transport.socket is not None
    assert scene.transport.socket.lingers == struct.pack("ii", 0, 0)


def test_what_comes_in_one_turn_leaves_in_one_write(scene: Scene) -> None:
    """In order; views are copied, for they are valid no longer than the call."""
    buffer = bytearray(b"one")
    scene.side.send_data(memoryview(buffer))
    buffer[:] = b"xxx"
    scene.side.send_data(b"two")
    assert scene.transport.writes == 0
    scene.loop.turn()
    assert (scene.transport.sent, scene.transport.writes) == (b"onetwo", 1)
    scene.side.send_data(b"three")
    scene.loop.turn()
    assert (scene.transport.sent, scene.transport.writes) == (b"onetwothree", 2)


def test_much_of_one_turn_does_not_wait_for_its_end(scene: Scene) -> None:
    """Or the transport would not say in time that it has enough."""
    for _ in range(16):
        scene.side.send_data(b"x" * (HIGH_WATER // 16))
    assert (len(scene.transport.sent), scene.transport.writes) == (HIGH_WATER, 1)
    scene.side.send_data(b"y")
    scene.loop.turn()
    assert (len(scene.transport.sent), scene.transport.writes) == (HIGH_WATER + 1, 2)


@contextmanager
def on_a_socket(scene: Scene) -> Iterator[socket.socket]:
    """Put a real one under the transport; yield its other end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for sock in (ours, theirs):
            sock.setblocking(False)
        assert scene.transport.socket is not None
        os.dup2(ours.fileno(), scene.transport.socket.descriptor)
        yield theirs


def received(sock: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(BlockingIOError):
        while more := sock.recv(1 << 20):
            data += more
    return data


def test_over_tls_nothing_goes_past_it() -> None:
    """However much it is: the kernel would send it as it is."""
    scene = Scene(tls=True)
    much = bytes(DIRECT)
    with on_a_socket(scene) as other:
        scene.side.send_data(memoryview(much))
        scene.loop.turn()
        assert received(other) == b""
        assert scene.transport.sent == much


def test_much_is_given_to_the_kernel_at_once(scene: Scene) -> None:
    """Then nobody need keep a copy; what it does not take comes behind, and so does all else."""
    much = bytes(range(256)) * (DIRECT // 256)
    with on_a_socket(scene) as other:
        scene.side.send_data(memoryview(much))
        assert received(other) == much
        scene.side.send_data(b"before")
        scene.side.send_data(much)
        assert received(other) == b"before" + much
        scene.loop.turn()
        assert scene.transport.sent == b""
        scene.side.send_data(much * 64)
        scene.side.send_data(b"small")
        scene.side.send_data(much)
        direct = received(other)
        scene.loop.turn()
        assert 0 < len(direct) < 64 * DIRECT
        assert direct + scene.transport.sent == much * 64 + b"small" + much
        scene.side.send_data(much, True)
        assert received(other) == much
        assert scene.transport.ended


def test_where_there_is_no_room_all_is_kept(scene: Scene) -> None:
    """In order, also what was kept before and has left in part."""
    much = bytes(range(256)) * (DIRECT // 256)
    with on_a_socket(scene) as other:
        while scene.transport.socket is not None:
            try:
                os.write(scene.transport.socket.descriptor, b"x" * 4096)
            except BlockingIOError:
                break
        scene.side.send_data(b"before" * 10_000)
        scene.side.send_data(much)
        taken = len(received(other))
        scene.side.send_data(much)
        direct = received(other)
        scene.loop.turn()
        assert taken > 0
        assert direct + scene.transport.sent == b"before" * 10_000 + much * 2


@pytest.mark.parametrize("state", ["something waits", "closing", "no socket", "gone"])
def test_nothing_overtakes_what_waits(scene: Scene, state: str) -> None:
    """Nor is anything said to a socket that may be another one by now."""
    with on_a_socket(scene) as other:
        if state == "something waits":
            scene.transport.waiting = 1
        elif state == "closing":
            scene.transport.close()
        elif state == "no socket":
            scene.transport.socket = None
        else:
            other.close()
        scene.side.send_data(b"x" * DIRECT)
        scene.loop.turn()
        assert scene.transport.sent == b"x" * DIRECT


def test_an_end_comes_behind_what_was_said(scene: Scene) -> None:
    """And nothing behind it."""
    scene.side.send_data(b"all")
    scene.side.send_end()
    assert (scene.transport.sent, scene.transport.ended) == (b"all", True)
    scene.side.send_data(b"more")
    scene.loop.turn()
    assert scene.transport.sent == b"all"


def test_a_reset_comes_at_once(scene: Scene) -> None:
    """What has not left is lost, and the peer can tell."""
    scene.side.send_data(b"lost")
    scene.side.reset()
    scene.loop.turn()
    assert (scene.transport.sent, scene.transport.state) == (b"", "aborted")
    assert scene.transport.socket is not None
    assert scene.transport.socket.lingers == struct.pack("ii", 1, 0)


def test_who_has_gone_is_told_nothing(scene: Scene) -> None:
    """Bytes that were on their way are dropped."""
    scene.side.pause()
    assert not scene.transport.is_reading()
    scene.side.resume()
    assert scene.transport.is_reading()
    scene.side.send_data(b"late")
    scene.side.connection_lost(None)
    scene.loop.turn()
    assert scene.transport.sent == b""


def test_while_memory_is_short_little_waits(scene: Scene) -> None:
    """Little is collected in one turn, and the transport is told to hold as little."""
    scene.side.turn.tighten(True)
    scene.side.send_data(bytes(TIGHT - 1))
    assert (scene.transport.writes, scene.transport.limits) == (0, (HIGH_WATER, LOW_WATER))
    scene.side.send_data(b"x")
    assert (scene.transport.writes, scene.transport.limits) == (1, (TIGHT, TIGHT // 4))


def test_who_is_about_to_end_waits_for_the_last_byte(scene: Scene) -> None:
    """Also when the usual marks hold again meanwhile: the transport would tell of a low mark otherwise."""
    scene.transport.waiting = 100
    scene.side.turn.tighten(True)
    scene.side.close()
    scene.side.turn.tighten(False)
    scene.side.resume_writing()
    assert (scene.transport.state, scene.transport.limits) == ("open", (0, 0))
    scene.transport.waiting = 0
    scene.side.resume_writing()
    assert scene.transport.state == "closing"
