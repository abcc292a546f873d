"""One side of a relay: frames leave together, ends are ends, and resets are resets."""

import pytest

from meshproxy.tcp import TcpSide
from tests.helpers.transport import FakeLoop, FakeSocket, FakeTransport, connected


class Scene:
    def __init__(self) -> None:
        self.loop = FakeLoop()
        self.side = TcpSide(self.loop.as_loop)
        self.transport: FakeTransport = connected(self.side)
        self.transport.socket = FakeSocket()


@pytest.fixture
def scene() -> Scene:
    return Scene()


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
    assert scene.transport.socket.lingers is not None


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
