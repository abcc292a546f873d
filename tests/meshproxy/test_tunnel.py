"""A transport that has left HTTP: two directions, each with an end of its own."""

import asyncio
import contextlib
import socket
import struct
from typing import cast

import pytest

from meshproxy.flow import Connection
from meshproxy.tunnel import ANYBODY, SIDECARS, Tunnel, Vigilance, keep_alive, vanished
from meshproxy.upstream.tunnel import EndpointTunnel
from tests.helpers.recorder import Recorder
from tests.helpers.transport import (
    FakeLoop,
    FakeSocket,
    FakeTransport,
    arrive,
    connected,
    unanswered,
)

RESET = struct.pack("ii", 1, 0)
END, TORN, GONE = "on_response_end", "on_response_reset", "lost"


class Scene:
    """A tunnel that has just taken over from another connection; one that tells what it hears."""

    def __init__(self, *, tls: bool = False, family: int = socket.AF_INET) -> None:
        self.loop = FakeLoop()
        before = Connection(self.loop.as_loop)
        self.transport: FakeTransport = connected(before, tls=tls)
        self.transport.socket = FakeSocket(family)
        before.write(b"head")
        before.blocked = True
        self.heard = Recorder()
        self.tunnel: Tunnel = EndpointTunnel(self.loop.as_loop, self.heard, self.heard)
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
    assert scene.heard.heard == [("on_response_data", b"b")]


def test_a_unix_socket_is_left_alone() -> None:
    """It has no TCP under it."""
    scene = Scene(family=socket.AF_UNIX)
    assert scene.transport.socket is not None
    assert scene.transport.socket.options == {socket.SO_KEEPALIVE: 0}


@pytest.mark.parametrize(("vigilance", "seconds"), [(ANYBODY, 120), (SIDECARS, 20)])
def test_how_long_who_has_vanished_is_waited_for(vigilance: Vigilance, seconds: int) -> None:
    """As the documents say; that TCP shall ask is set at the socket."""
    assert vigilance.seconds == seconds
    transport = FakeTransport()
    transport.socket = FakeSocket()
    keep_alive(cast("asyncio.Transport", transport), vigilance)
    assert transport.socket.options == {
        socket.SO_KEEPALIVE: 1,
        socket.TCP_KEEPIDLE: vigilance.idle,
        socket.TCP_KEEPINTVL: vigilance.interval,
        socket.TCP_KEEPCNT: vigilance.questions,
    }


def counts_as_vanished(**facts: int) -> bool:
    """Say so of a sidecar."""
    transport = FakeTransport()
    with unanswered(**facts) as transport.socket:  # type: ignore[arg-type]
        return vanished(cast("asyncio.Transport", transport), SIDECARS)


def test_who_has_vanished() -> None:
    """Who was repeated to, or probed, three times, and has not answered for as long as is waited."""
    assert counts_as_vanished(repeated=3, since=20_000)
    assert counts_as_vanished(repeated=0, probed=3, since=20_000)
    assert not counts_as_vanished(repeated=3, since=19_999)
    assert not counts_as_vanished(repeated=2, probed=2)  # it was silent before
    assert not counts_as_vanished(waiting=False)


def test_who_does_not_read_is_there() -> None:
    """Its kernel says that it takes nothing, and that is an answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = socket.create_connection(server.getsockname())
        reader, _ = server.accept()
        with sender, reader:
            sender.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    sender.send(bytes(1 << 20))
            transport = FakeTransport()
            transport.socket = cast("FakeSocket", sender)
            as_transport = cast("asyncio.Transport", transport)
            info = sender.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 60)
            assert len(info) == 60
            assert not vanished(as_transport, Vigilance(0, 0, 0))


def test_nobody_to_look_at() -> None:
    """No transport any more, one without TCP, one whose socket is closed."""
    transport = FakeTransport()
    as_transport = cast("asyncio.Transport", transport)
    assert not vanished(None, SIDECARS)
    assert not vanished(as_transport, SIDECARS)
    transport.socket = FakeSocket(socket.AF_UNIX)
    assert not vanished(as_transport, SIDECARS)
    transport.socket = FakeSocket()
    assert not vanished(as_transport, SIDECARS)


def test_nothing_to_take_over() -> None:
    """The connection has gone in between: the tunnel stays silent."""
    loop = FakeLoop()
    heard = Recorder()
    tunnel = EndpointTunnel(loop.as_loop, heard, heard)
    tunnel.take_over(Connection(loop.as_loop))
    tunnel.send_data(b"a")
    tunnel.send_end(None)
    tunnel.abort()
    loop.turn()
    assert heard.words == []


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
    assert scene.heard.words == [END, GONE]


def test_an_end_is_heard_once() -> None:
    """A transport that is read again after its end says it again."""
    scene = Scene()
    scene.end()
    scene.tunnel.pause_reading()
    scene.tunnel.resume_reading()
    assert not scene.transport.is_reading()
    scene.end()
    assert scene.heard.words == [END]


def test_over_tls_one_end_is_the_end_of_both() -> None:
    """There is no half of a connection to close."""
    scene = Scene(tls=True)
    scene.tunnel.send_end(None)
    assert scene.transport.state == "closing"
    scene.lose()
    assert scene.heard.words == [END, GONE]

    scene = Scene(tls=True)
    assert not scene.end()
    scene.lose()
    assert scene.heard.words == [END, TORN, GONE]


@pytest.mark.parametrize("error", [None, ConnectionResetError()])
@pytest.mark.parametrize("half", [False, True])
def test_what_breaks_off_is_no_end(error: Exception | None, half: bool) -> None:
    """Also when one direction had ended."""
    scene = Scene()
    if half:
        scene.tunnel.send_end(None)
    scene.lose(error)
    assert scene.heard.words == [TORN, GONE]


def test_to_break_off_is_a_reset_on_the_wire() -> None:
    """A FIN would look like an end."""
    scene = Scene()
    scene.tunnel.abort()
    assert scene.transport.state == "aborted"
    assert scene.transport.socket is not None
    assert scene.transport.socket.lingers == RESET
