"""A transport that has left HTTP: two directions, each with an end of its own."""

import socket
import struct
from typing import Any

import pytest

from meshproxy.flow import Connection
from meshproxy.tunnel import Tunnel
from tests.helpers.transport import FakeLoop, FakeSocket, FakeTransport, arrive, connected

RESET = struct.pack("ii", 1, 0)


class Heard(Tunnel):
    """Writes down what it hears."""

    def __init__(self, loop: Any) -> None:
        super().__init__(loop)
        self.words: list[Any] = []

    def on_bytes(self, data: bytes) -> None:
        self.words.append(data)

    def on_end(self) -> None:
        self.words.append("end")

    def on_torn(self, error: Exception | None) -> None:
        self.words.append("torn")

    def on_gone(self) -> None:
        self.words.append("gone")


class Scene:
    """A tunnel that has just taken over from another connection."""

    def __init__(self, *, tls: bool = False, family: int = socket.AF_INET) -> None:
        self.loop = FakeLoop()
        before = Connection(self.loop.as_loop)
        self.transport: FakeTransport = connected(before, tls=tls)
        self.transport.socket = FakeSocket(family)
        before.write(b"head")
        before.blocked = True
        self.tunnel = Heard(self.loop.as_loop)
        self.tunnel.take_over(before)
        assert before.transport is None

    def end(self) -> bool:
        """Let the peer end its direction."""
        return self.tunnel.eof_received()

    def lose(self, error: Exception | None = None) -> None:
        self.tunnel.connection_lost(error)


def test_the_transport_changes_hands() -> None:
    """With what was still to be written, and its marks; TCP is told to look after it."""
    scene = Scene()
    assert scene.transport.sent == b"head"
    assert scene.transport.protocol is scene.tunnel
    assert scene.tunnel.blocked
    assert scene.transport.socket is not None
    assert scene.transport.socket.options[socket.SO_KEEPALIVE] == 1
    scene.tunnel.send_data(b"a")
    scene.loop.turn()
    assert scene.transport.sent == b"heada"
    arrive(scene.tunnel, b"b")
    assert scene.tunnel.words == [b"b"]


def test_a_unix_socket_is_left_alone() -> None:
    """It has no TCP under it."""
    scene = Scene(family=socket.AF_UNIX)
    assert scene.transport.socket is not None
    assert not scene.transport.socket.options


def test_nothing_to_take_over() -> None:
    """The connection has gone in between: the tunnel stays silent."""
    loop = FakeLoop()
    tunnel = Heard(loop.as_loop)
    tunnel.take_over(Connection(loop.as_loop))
    tunnel.send_data(b"a")
    tunnel.send_end(None)
    tunnel.abort()
    loop.turn()
    assert tunnel.words == []


def test_each_direction_ends_by_itself() -> None:
    """Only when both have, the connection is closed; whichever is first."""
    scene = Scene()
    scene.tunnel.send_data(b"a")
    scene.tunnel.send_end(None)
    assert (scene.transport.sent, scene.transport.ended) == (b"heada", True)
    scene.tunnel.send_data(b"late")
    arrive(scene.tunnel, b"b")
    assert scene.transport.state == "open"
    assert scene.end()
    assert scene.transport.state == "closing"

    scene = Scene()
    assert scene.end()
    scene.tunnel.send_data(b"a")
    assert scene.transport.state == "open"
    scene.tunnel.send_end(None)
    scene.tunnel.send_end(None)
    assert (scene.transport.sent, scene.transport.state) == (b"heada", "closing")
    scene.lose()
    assert scene.tunnel.words == ["end", "gone"]


def test_an_end_is_heard_once() -> None:
    """A transport that is read again after its end says it again."""
    scene = Scene()
    scene.end()
    scene.tunnel.pause_reading()
    scene.tunnel.resume_reading()
    assert not scene.transport.is_reading()
    scene.end()
    assert scene.tunnel.words == ["end"]


def test_over_tls_one_end_is_the_end_of_both() -> None:
    """There is no half of a connection to close."""
    scene = Scene(tls=True)
    scene.tunnel.send_end(None)
    assert scene.transport.state == "closing"
    scene.lose()
    assert scene.tunnel.words == ["end", "gone"]

    scene = Scene(tls=True)
    assert not scene.end()
    scene.lose()
    assert scene.tunnel.words == ["end", "torn", "gone"]


@pytest.mark.parametrize("error", [None, ConnectionResetError()])
@pytest.mark.parametrize("half", [False, True])
def test_what_breaks_off_is_no_end(error: Exception | None, half: bool) -> None:
    """Also when one direction had ended."""
    scene = Scene()
    if half:
        scene.tunnel.send_end(None)
    scene.lose(error)
    assert scene.tunnel.words == ["torn", "gone"]


def test_to_break_off_is_a_reset_on_the_wire() -> None:
    """A FIN would look like an end."""
    scene = Scene()
    scene.tunnel.abort()
    assert scene.transport.state == "aborted"
    assert scene.transport.socket is not None
    assert scene.transport.socket.lingers == RESET
