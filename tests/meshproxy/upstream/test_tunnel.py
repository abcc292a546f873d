"""The endpoint's end of a tunnel: an exchange without heads."""

import struct
from typing import Any, cast

import pytest

from meshproxy.flow import Connection
from meshproxy.upstream.tunnel import EndpointTunnel
from tests.helpers.recorder import Recorder
from tests.helpers.transport import FakeLoop, FakeSocket, FakeTransport, arrive, connected


class Scene:
    def __init__(self) -> None:
        self.loop = FakeLoop()
        self.pool = Recorder()
        self.exchange = Recorder()
        before = Connection(self.loop.as_loop)
        self.transport: FakeTransport = connected(before)
        self.transport.socket = FakeSocket()
        self.tunnel = EndpointTunnel(self.loop.as_loop, self.pool, cast("Any", self.exchange))
        self.tunnel.take_over(before)


def test_bytes_and_ends_are_the_exchange_s() -> None:
    """Data and end, no trailers; the pool hears when the connection has gone."""
    scene = Scene()
    arrive(scene.tunnel, b"a")
    scene.tunnel.eof_received()
    scene.tunnel.send_end(None)
    scene.tunnel.connection_lost(None)
    assert scene.exchange.heard == [("on_response_data", b"a"), ("on_response_end", None)]
    assert scene.pool.heard == [("lost", scene.tunnel)]
    assert repr(scene.tunnel) == "<EndpointTunnel lost, said end True, heard end True>"


@pytest.mark.parametrize(
    ("error", "code"), [(None, "upstream-closed"), (ConnectionResetError(), "upstream-reset")]
)
def test_a_torn_one_resets_the_exchange(error: Exception | None, code: str) -> None:
    """It says how."""
    scene = Scene()
    scene.tunnel.connection_lost(error)
    assert scene.exchange.heard == [("on_response_reset", code, False)]


def test_one_that_was_reset_says_nothing_any_more() -> None:
    """And its endpoint is told by RST."""
    scene = Scene()
    scene.tunnel.reset()
    arrive(scene.tunnel, b"late")
    scene.tunnel.on_end()
    scene.tunnel.pause_writing()
    scene.tunnel.resume_writing()
    scene.tunnel.connection_lost(None)
    assert scene.exchange.words == []
    assert scene.transport.socket is not None
    assert scene.transport.socket.lingers == struct.pack("ii", 1, 0)


def test_a_slow_side_stops_the_other() -> None:
    """Both ways."""
    scene = Scene()
    scene.tunnel.pause_writing()
    scene.tunnel.resume_writing()
    assert scene.exchange.words == ["on_upstream_blocked", "on_upstream_writable"]
    scene.tunnel.pause_response()
    assert not scene.transport.is_reading()
    scene.tunnel.resume_response()
    assert scene.transport.is_reading()
