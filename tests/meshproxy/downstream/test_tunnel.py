"""The client's end of a tunnel: an exchange without heads."""

import errno
import struct

import pytest

from meshproxy.downstream.tunnel import CLOSE_TIMEOUT, HALF_CLOSED_LOOK, ClientTunnel
from meshproxy.flow import Connection
from tests.helpers.recorder import Recorder
from tests.helpers.transport import FakeLoop, FakeSocket, FakeTransport, arrive, connected


class Scene:
    def __init__(self) -> None:
        self.loop = FakeLoop()
        self.listener = Recorder()
        self.exchange = Recorder()
        before = Connection(self.loop.as_loop)
        self.transport: FakeTransport = connected(before)
        self.transport.socket = FakeSocket()
        self.tunnel = ClientTunnel(self.loop.as_loop, self.listener, self.exchange)
        self.tunnel.take_over(before)


def test_bytes_and_ends_are_the_exchange_s() -> None:
    """Data and end, no trailers; the listener hears when the connection has gone."""
    scene = Scene()
    arrive(scene.tunnel, b"a")
    scene.tunnel.eof_received()
    scene.tunnel.send_end(None)
    scene.tunnel.connection_lost(None)
    assert scene.exchange.heard == [("on_request_data", b"a"), ("on_request_end", None)]
    assert scene.listener.heard == [("closed", scene.tunnel)]
    assert repr(scene.tunnel) == "<ClientTunnel lost, said end True, heard end True>"


def test_a_torn_one_resets_the_exchange() -> None:
    """Once; and one that the exchange has reset says nothing any more."""
    scene = Scene()
    scene.tunnel.connection_lost(ConnectionResetError())
    assert scene.exchange.words == ["on_request_reset"]

    scene = Scene()
    scene.tunnel.reset()
    arrive(scene.tunnel, b"late")
    scene.tunnel.on_end()
    scene.tunnel.pause_writing()
    scene.tunnel.resume_writing()
    scene.tunnel.connection_lost(None)
    assert scene.exchange.words == []
    assert scene.transport.state == "aborted"
    assert scene.transport.socket is not None
    assert scene.transport.socket.lingers == struct.pack("ii", 1, 0)


def test_a_slow_side_stops_the_other() -> None:
    """Both ways."""
    scene = Scene()
    scene.tunnel.pause_writing()
    scene.tunnel.resume_writing()
    assert scene.exchange.words == ["on_downstream_blocked", "on_downstream_writable"]
    scene.tunnel.pause_request()
    assert not scene.transport.is_reading()
    scene.tunnel.resume_request()
    assert scene.transport.is_reading()


def test_it_waits_for_nobody_s_clock_until_it_is_closing() -> None:
    """No idle timeout, and draining leaves it alone; but a client that never reads is cut."""
    scene = Scene()
    scene.tunnel.drain()
    assert scene.transport.state == "open"
    assert scene.tunnel.deadline == pytest.approx(float("inf"))
    scene.tunnel.send_end(None)
    scene.tunnel.eof_received()
    assert scene.tunnel.deadline == scene.loop.now + CLOSE_TIMEOUT
    scene.tunnel.expire()
    assert scene.transport.state == "aborted"


def test_a_client_that_says_no_more_is_looked_after() -> None:
    """It may listen for hours; but one that has died in the meantime would hold its tunnel open."""
    scene = Scene()
    scene.tunnel.eof_received()
    for _ in range(3):
        assert scene.tunnel.deadline == scene.loop.now + HALF_CLOSED_LOOK
        scene.loop.now += 2 * HALF_CLOSED_LOOK
        scene.tunnel.expire()
        assert scene.transport.state == "open"
    assert scene.transport.socket is not None
    scene.transport.socket.error = errno.ECONNRESET
    scene.tunnel.expire()
    assert scene.transport.state == "aborted"
    scene.tunnel.connection_lost(None)
    assert scene.exchange.words == ["on_request_end", "on_request_reset"]
