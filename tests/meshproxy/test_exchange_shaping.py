"""Shaped traffic in the storyboard: limits, faults, mirrors and shedding, with recorders around."""

from random import Random
from typing import Any

import pytest

from meshproxy.contract.policies import FaultSpec, MirrorSpec, RateLimitSpec, SheddingSpec
from meshproxy.contract.resources import (
    BackendSpec,
    RedirectSpec,
    RouteSpec,
    VirtualHostSpec,
)
from meshproxy.exchange import Exchange
from meshproxy.message import TUNNEL, Field, RequestHead, ResponseHead, field, value_of
from meshproxy.policies.load_shedding import MEASURE_SAMPLES, LoadShedding
from meshproxy.policies.mirroring import MARK
from meshproxy.routing.table import compile_virtual_host
from tests.meshproxy.test_exchange import Client, FakeCluster, FakeEndpoint, Scene

FORWARD = (BackendSpec(cluster="catalog"),)
ABORT = FaultSpec(name="broken", abort_status=418, abort_grpc_status=9, abort_percent=100)
DELAY = FaultSpec(name="slow", delay=1_500, delay_percent=100)
BOTH = FaultSpec(name="both", delay=1_500, delay_percent=100, abort_status=418, abort_percent=100)


def shaped(protocol: str = "http", **more: Any) -> Scene:
    """Return a scene whose only route has these policies."""
    return Scene(RouteSpec(name="all", backends=FORWARD, **more), protocol=protocol)


def answer(scene: Scene) -> ResponseHead:
    [head] = [call[1] for call in scene.client.heard if call[0] == "send_head"]
    assert isinstance(head, ResponseHead)
    return head


def heard(scene: Scene, name: bytes) -> bytes | None:
    return value_of(answer(scene).fields, name)


def respond(scene: Scene, status: int = 200) -> None:
    scene.exchange.on_response_head(ResponseHead(status, [], length=0))
    scene.exchange.on_response_end(None)


# Rate limits ---------------------------------------------------------------------------------------


LIMIT = RateLimitSpec(name="api", requests=1, interval=10_000)


def test_a_request_within_its_limit_is_told_what_is_left() -> None:
    """With the answer of the endpoint."""
    scene = shaped(rate_limits=(LIMIT,))
    scene.ask()
    scene.first.lend()
    respond(scene)
    assert heard(scene, b"ratelimit-policy") == b'"api";q=1;w=10'
    assert heard(scene, b"ratelimit") == b'"api";r=0;t=10'


def test_a_request_above_its_limit_is_refused() -> None:
    """No endpoint hears of it; the caller is told when to come back."""
    scene = shaped(rate_limits=(LIMIT,))
    scene.ask()
    again = shaped()
    again.caller.virtual_host = scene.caller.virtual_host
    again.ask()
    assert answer(again).status == 429
    assert heard(again, b"x-mesh-refusal") == b"rate-limited"
    assert heard(again, b"retry-after") == b"10"
    assert heard(again, b"ratelimit") == b'"api";r=0;t=10'
    assert again.caller.surroundings.shaped == [("api", "limit")]
    assert again.caller.counted == [("all", "-", "", 429, "RL")]
    assert again.at_rest()


def test_a_call_above_its_limit_gets_a_status_of_grpc() -> None:
    """RESOURCE_EXHAUSTED, in an answer of trailers only."""
    scene, again = shaped("http2", rate_limits=(LIMIT,)), shaped("http2")
    scene.call()
    again.caller.virtual_host = scene.caller.virtual_host
    again.call()
    assert heard(again, b"grpc-status") == b"8"
    assert heard(again, b"retry-after") == b"10"
    assert again.caller.grpc == ["8"]


def test_redirects_are_counted_too() -> None:
    """They are answers like others."""
    redirect = RouteSpec(name="all", redirect=RedirectSpec(hostname="b"), rate_limits=(LIMIT,))
    scene = Scene(redirect)
    scene.ask()
    assert answer(scene).status == 302
    assert heard(scene, b"ratelimit") == b'"api";r=0;t=10'


# Injected faults -----------------------------------------------------------------------------------


def test_an_abort_is_answered_here() -> None:
    """With the status that was asked for; marked as what it is, and counted for who was meant."""
    scene = shaped(faults=(ABORT,))
    scene.ask()
    assert answer(scene).status == 418
    assert heard(scene, b"x-mesh-refusal") == b"fault-injected"
    assert scene.caller.surroundings.shaped == [("broken", "abort")]
    [(_, service, *outcome)] = scene.caller.counted
    assert (service, outcome) == ("default/catalog", ["", 418, "FI"])
    assert scene.at_rest()


def test_a_call_is_aborted_with_a_status_of_grpc() -> None:
    """Whatever that of HTTP would be."""
    scene = shaped("http2", faults=(ABORT,))
    scene.call()
    assert (answer(scene).status, heard(scene, b"grpc-status")) == (200, b"9")


def test_a_delayed_request_goes_on_afterwards() -> None:
    """With what the client has said meanwhile; and is marked in the metrics."""
    scene = shaped(faults=(DELAY,))
    head = scene.ask(b"POST", length=3)
    scene.exchange.on_request_data(b"abc", True)
    assert not scene.first.waiting
    scene.caller.surroundings.tick()
    stream = scene.first.lend()
    assert stream.heard == [("send_head", head), ("send_data", b"abc"), ("send_end", None)]
    respond(scene)
    assert scene.caller.surroundings.shaped == [("slow", "delay")]
    assert [one[3:] for one in scene.caller.counted] == [(200, "DI")]
    assert scene.at_rest()


def test_first_the_delay_then_the_abort() -> None:
    """A dependency that is slow, and broken."""
    scene = shaped(faults=(BOTH,))
    scene.ask()
    assert scene.client.heard == []
    scene.caller.surroundings.tick()
    assert answer(scene).status == 418
    assert scene.caller.surroundings.shaped == [("both", "delay"), ("both", "abort")]


def test_a_delay_counts_against_the_deadline() -> None:
    """The caller is told in its own time, and nothing happens when the delay is over."""
    scene = shaped("http2", faults=(DELAY,))
    scene.call("1S")
    scene.caller.surroundings.sleep(1.1)
    assert heard(scene, b"grpc-status") == b"4"
    scene.caller.surroundings.tick()
    assert not scene.first.waiting
    assert scene.at_rest()


def test_a_client_that_leaves_during_a_delay() -> None:
    """Is not called for any more."""
    scene = shaped(faults=(DELAY,))
    scene.ask()
    scene.exchange.on_request_reset()
    scene.caller.surroundings.tick()
    assert not scene.first.waiting
    assert scene.at_rest()


# Mirrors -------------------------------------------------------------------------------------------


class Mirrored(Scene):
    """A scene with a second cluster, which gets a copy."""

    def __init__(self, *mirrors: MirrorSpec, protocol: str = "http", **more: Any) -> None:
        super().__init__(protocol=protocol)
        self.shadow = FakeEndpoint()
        self.copies = FakeCluster(self.shadow)
        self.copies.service = "default/shadow"
        route = RouteSpec(
            name="all", backends=FORWARD, mirrors=mirrors or (MirrorSpec(cluster="shadow"),), **more
        )
        self.caller.virtual_host = compile_virtual_host(
            VirtualHostSpec(name="host", routes=(route,)),
            {"catalog": self.cluster, "shadow": self.copies},
        )

    def copied(self) -> bool:
        return (self.shadow.active, self.copies.mirrors.active) == (0, 0)


def test_a_copy_has_the_same_body() -> None:
    """And its answer, however different, concerns nobody."""
    scene = Mirrored()
    scene.ask(b"POST", length=6)
    stream, copy = scene.first.lend(), scene.shadow.lend()
    scene.exchange.on_request_data(b"abc")
    scene.exchange.on_request_data(b"def", True)
    mirror = scene.exchange.mirrors
    assert mirror is not None
    assert stream.heard[1:] == copy.heard[1:]
    assert copy.heard[0][1].fields[0] == MARK
    mirror[0].on_response_head(ResponseHead(500, []))
    mirror[0].on_response_end(None)
    respond(scene)
    assert scene.status == 200
    assert scene.caller.counted == [("all", "default/catalog", "v1", 200, "-")]
    assert scene.caller.surroundings.shaped == [("default/shadow", "5xx")]
    assert scene.at_rest()
    assert scene.copied()


def test_trailers_are_copied() -> None:
    """They are part of the request."""
    scene = Mirrored(protocol="http2")
    scene.call()
    stream, copy = scene.first.lend(), scene.shadow.lend()
    scene.exchange.on_request_end([field(b"x-sum", b"1")])
    assert stream.heard[-1] == copy.heard[-1] == ("send_end", [field(b"x-sum", b"1")])


def test_a_stalled_copy_slows_nobody() -> None:
    """The client is not paused, whatever the copy holds."""
    scene = Mirrored()
    scene.ask(b"POST", length=1 << 22)
    scene.first.lend()
    copy = scene.shadow.lend()
    copy.blocked = True
    for _ in range(64):
        scene.exchange.on_request_data(b"x" * (1 << 16))
    assert "pause_request" not in scene.client.words
    assert copy.words[-1] == "reset"
    assert scene.caller.surroundings.shaped == [("default/shadow", "overflow")]
    assert scene.copied()


def test_the_original_ends_early() -> None:
    """Half a request is not left standing at the other end."""
    scene = Mirrored()
    scene.ask(b"POST", length=100)
    scene.first.lend()
    copy = scene.shadow.lend()
    scene.exchange.on_request_data(b"half")
    respond(scene, 413)
    assert copy.words[-1] == "reset"
    assert scene.caller.surroundings.shaped == [("default/shadow", "unfinished")]


def test_a_second_attempt_is_no_second_copy() -> None:
    """It is the same request."""
    scene = Mirrored()
    scene.ask()
    scene.first.waiting.pop().on_upstream_failed("connect-failed")
    scene.caller.surroundings.tick()
    assert len(scene.second.waiting) == len(scene.shadow.waiting) == 1


def test_what_is_not_copied() -> None:
    """Conversations in other protocols, and what is refused before an endpoint is asked."""
    scene = Mirrored()
    scene.ask(length=TUNNEL)
    assert not scene.shadow.waiting
    scene = Mirrored(faults=(ABORT,))
    scene.ask()
    assert not scene.shadow.waiting
    scene = Mirrored(MirrorSpec(cluster="shadow", percent=50))  # chance says 0.5
    scene.ask()
    assert not scene.shadow.waiting


@pytest.mark.parametrize("proved", [True, False])
def test_a_mark_is_believed_of_peers(proved: bool) -> None:
    """Only then is it told to the app; from others, it is a lie."""
    scene = Scene()
    scene.caller.direction = "inbound"
    if proved:
        scene.caller.identity_field = field(b"x-forwarded-client-cert", b"URI=a")
    head = RequestHead(b"GET", b"catalog", b"/", [])
    head.mesh_fields = [field(b"x-mesh-mirrored", b"1")]
    scene.exchange.on_request_head(head)
    assert (MARK in head.fields) == proved


# Load shedding -------------------------------------------------------------------------------------


class Loaded(Scene):
    """An app that is given two requests at once."""

    def __init__(self, limit: int = 2, protocol: str = "http", **more: Any) -> None:
        super().__init__(protocol=protocol)
        self.caller.direction = "inbound"
        self.caller.identity_field = field(b"x-forwarded-client-cert", b"URI=a")
        spec = SheddingSpec(initial=limit, **({"adaptive": False} | more))
        self.app = LoadShedding(spec, Random(1).random)
        self.cluster.shedding = self.app

    def matters(self, criticality: bytes) -> None:
        head = RequestHead(b"GET", b"catalog", b"/", [])
        said: list[Field] = [field(b"x-mesh-criticality", criticality)]
        head.mesh_fields = said
        self.exchange.on_request_head(head)


def test_the_app_has_enough_to_do() -> None:
    """Who is less critical is turned away, unheard; who is critical has a place left."""
    scene = Loaded()
    scene.app.admit("critical", 0.0)
    scene.ask()
    assert answer(scene).status == 503
    assert heard(scene, b"x-mesh-refusal") == b"overloaded"
    assert heard(scene, b"retry-after") == b"1"
    assert scene.caller.surroundings.shaped == [("default/catalog", "default")]
    assert [one[3:] for one in scene.caller.counted] == [(503, "OM")]
    assert scene.app.active == 1
    assert scene.at_rest()

    scene = Loaded()
    scene.app.admit("critical", 0.0)
    scene.matters(b"critical")
    assert scene.app.active == 2
    scene.first.lend()
    respond(scene)
    assert scene.app.active == 1
    assert scene.at_rest()


def test_a_call_to_a_busy_app() -> None:
    """UNAVAILABLE: it was not executed, and another endpoint may have room."""
    scene = Loaded(1, "http2")
    scene.app.admit("critical", 0.0)
    scene.call()
    assert heard(scene, b"grpc-status") == b"14"


@pytest.mark.parametrize("how", ["answered", "failed", "left", "torn"])
def test_every_end_makes_room(how: str) -> None:
    """However a request ends."""
    scene = Loaded()
    scene.ask()
    assert scene.app.active == 1
    if how == "failed":
        for endpoint in (scene.first, scene.second, scene.first):
            endpoint.waiting.pop().on_upstream_failed("connect-failed")
            scene.caller.surroundings.tick()
    else:
        scene.first.lend()
        if how == "answered":
            respond(scene)
        elif how == "left":
            scene.exchange.on_request_reset()
        else:
            scene.exchange.on_response_head(ResponseHead(200, [], length=5))
            scene.exchange.on_response_reset("upstream-closed", reused=False)
    assert scene.app.active == 0
    assert scene.at_rest()


def test_a_conversation_leaves_the_count() -> None:
    """What has switched protocols is no request that the app works on."""
    scene = Loaded()
    scene.ask(length=TUNNEL)
    scene.first.lend()
    assert scene.app.active == 1
    scene.exchange.on_response_head(ResponseHead(101, [], length=TUNNEL))
    assert scene.app.active == 0
    scene.exchange.on_request_reset()
    assert scene.app.active == 0


def test_the_body_of_a_request_is_not_the_apps_time() -> None:
    """A client that sends slowly does not make the app look slow, whether it comes to an end or not."""
    for ends in (True, False):
        scene = Loaded(adaptive=True)
        for _ in range(MEASURE_SAMPLES):
            one = Loaded(adaptive=True)
            one.cluster.shedding = scene.app
            one.ask(b"POST", length=1)
            one.first.lend()
            one.caller.surroundings.time += 10
            if ends:
                one.exchange.on_request_data(b"x", True)
                one.caller.surroundings.time += 0.25
                respond(one)
            else:
                one.exchange.on_request_reset()
        assert scene.app.min_rtt == (pytest.approx(0.25) if ends else 0)
        assert not scene.app._began_calm  # nobody is waited for that will not come


def test_who_does_not_come_gives_up_his_place() -> None:
    """To the next one who is turned away; whose request is whole, keeps his."""
    slow = Loaded(3)
    slow.ask(b"POST", length=1)
    slow.first.lend()
    slow.app.admit("critical", 0.0, "another")
    surroundings = slow.caller.surroundings
    surroundings.time += 60
    late = Exchange(Client("http"), slow.exchange.caller)
    late.on_request_head(RequestHead(b"GET", b"catalog", b"/", []))
    assert answer(slow).status == 408
    assert heard(slow, b"x-mesh-refusal") == b"body-timeout"
    assert late.endpoint is slow.first
    again = Exchange(client := Client("http"), slow.exchange.caller)
    surroundings.time += 60
    again.on_request_head(RequestHead(b"GET", b"catalog", b"/", []))
    assert client.heard[0][1].status == 503
    assert not late.done


def test_latency_is_that_of_the_head() -> None:
    """A client that reads slowly does not make the app look slow."""
    scene = Loaded(adaptive=True)
    for _ in range(MEASURE_SAMPLES):
        one = Loaded(adaptive=True)
        one.cluster.shedding = scene.app
        one.ask()
        one.first.lend()
        one.caller.surroundings.time += 0.25
        one.exchange.on_response_head(ResponseHead(200, [], length=1))
        one.caller.surroundings.time += 10
        one.exchange.on_response_data(b"x", True)
    assert scene.app.min_rtt == pytest.approx(0.25)
