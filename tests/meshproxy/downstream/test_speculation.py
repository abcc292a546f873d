"""An endpoint dialled ahead of its client's first byte: whose connection is it in the end?"""

from typing import Any

import pytest

from meshproxy.downstream.speculation import Speculation
from meshproxy.policies.first_speaker import GRACE, FirstSpeaker
from tests.helpers.recorder import Recorder
from tests.meshproxy.test_relay import FakeCaller, FakeEndpoint
from tests.meshproxy.test_relay import Scene as RelayScene


class Scene:
    def __init__(self, *, connected: bool = True) -> None:
        self.now = 100.0
        self.speaker = FirstSpeaker()
        self.decided = 0
        story = RelayScene()
        self.caller: FakeCaller = story.caller
        self.endpoint: FakeEndpoint = story.endpoints[0]
        self.speculation = Speculation(self.caller, self.speaker, lambda: self.now, self._decide)
        self.relay = self.speculation.relay
        self.relay.begin()
        if connected:
            self.upstream = self.endpoint.way()
            self.relay.on_upstream_connected()

    def _decide(self) -> None:
        self.decided += 1

    def adopt(self) -> Any:
        client = Recorder()
        self.speculation.adopt(client)
        return client


def test_the_server_speaks() -> None:
    """What it says before the client's connection is ready is kept for it."""
    scene = Scene()
    scene.relay.on_upstream_data(b"220 ")
    scene.relay.on_upstream_data(b"mail")
    assert (scene.decided, scene.speculation.settled) == (1, True)
    assert scene.adopt().heard == [("send_data", b"220 mail")]
    assert scene.speaker.patience(scene.now) == 0.0


@pytest.mark.parametrize(
    "greeting",
    [b"HTTP/1.1 408 Request Timeout\r\n\r\n", b"\0\0\x0c\4\0\0\0\0\0" + b"s" * 12],
    ids=["a timeout", "SETTINGS"],
)
@pytest.mark.parametrize("cut", [1, 100])
def test_http_servers_may_speak_first_as_well(greeting: bytes, cut: int) -> None:
    """That is no verdict for bytes; the connection is given up and the client waited for."""
    scene = Scene()
    for at in range(0, len(greeting), cut):
        scene.relay.on_upstream_data(greeting[at : at + cut])
        if scene.relay.done:
            break
    assert scene.decided == 0
    assert scene.speculation.over
    assert scene.upstream.words == ["withdraw"]
    assert scene.speaker.speaks_http(scene.now)


def test_an_end_or_a_failure_is_the_clients() -> None:
    """Where nothing speaks for HTTP."""
    scene = Scene()
    scene.relay.on_upstream_end()
    assert scene.decided == 1
    assert scene.adopt().words == ["send_end"]

    scene = Scene()
    scene.relay.on_upstream_reset("upstream-reset")
    assert scene.adopt().words == ["reset"]

    scene = Scene(connected=False)
    scene.speculation.refuse("no-healthy-endpoint")
    assert scene.adopt().words == ["reset"]


@pytest.mark.parametrize("end", ["on_upstream_end", "on_upstream_reset"])
def test_on_a_port_of_http_they_mean_nothing(end: str) -> None:
    """The client will have its answer, or its refusal, when it has asked."""
    scene = Scene()
    scene.speaker.client_spoke_http(scene.now)
    getattr(scene.relay, end)(*(["upstream-reset"] if "reset" in end else []))
    assert (scene.decided, scene.speculation.over) == (0, True)


def test_silence_is_measured_from_the_connection() -> None:
    """Before there is one, nobody is silent."""
    scene = Scene(connected=False)
    scene.now += 5
    assert scene.speculation.silence() == 0.0
    scene.endpoint.way()
    scene.relay.on_upstream_connected()
    scene.now += 0.3
    assert scene.speculation.silence() == pytest.approx(0.3)
    scene.speculation.pause()
    scene.speculation.resume()
    scene.speculation.withdraw()
    assert scene.speculation.over
    assert scene.speaker.patience(scene.now) == GRACE
