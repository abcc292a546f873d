"""Attempts of an exchange beyond the first: what asks for one, what forbids it, what is seen of it."""

import pytest

from meshproxy.contract.policies import RetryBudgetSpec, RetryCondition, RetrySpec
from meshproxy.contract.resources import BackendSpec, RouteSpec
from meshproxy.message import CHUNKED, Field, RequestHead, ResponseHead, field, value_of
from meshproxy.policies.limits import Limit
from meshproxy.policies.retry_budget import RetryBudget
from meshproxy.refusal import refusal
from meshproxy.timer_wheel import TICK
from tests.helpers.recorder import Recorder
from tests.meshproxy.test_exchange import GRPC_HEAD, OK, FakeEndpoint, Scene

ATTEMPT = b"x-mesh-attempt"
RETRIED = b"x-mesh-retried"
TRACE = field(b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")


def traced() -> RequestHead:
    """Return a request that is part of a trace."""
    head = RequestHead(b"GET", b"catalog", b"/", [TRACE])
    head.trace_fields = [TRACE]
    return head


class Retrying(Scene):
    """A scene whose only route has a retry policy of its own."""

    def __init__(self, spec: RetrySpec, protocol: str = "http", mtls: bool = True) -> None:
        route = RouteSpec(name="all", backends=(BackendSpec(cluster="catalog"),), retry=spec)
        super().__init__(route, protocol=protocol)
        self.cluster.mtls = mtls

    def answer(self, status: int, *fields: Field, length: int | None = 0) -> ResponseHead:
        """Let the current attempt be answered with a head."""
        head = ResponseHead(status, list(fields), length=length)
        self.exchange.on_response_head(head)
        return head

    def refuse_as_mesh(self, code: bytes) -> None:
        """Let the current attempt be answered by the next proxy in its app's stead."""
        head = ResponseHead(503, [], length=10)
        head.mesh_fields = [field(b"x-mesh-refusal", code)]
        self.exchange.on_response_head(head)

    @property
    def retries(self) -> list[str]:
        return self.caller.surroundings.retries

    @property
    def skipped(self) -> list[str]:
        return self.caller.surroundings.skipped


CODES = RetrySpec(codes=(503, 429))


# Answers ------------------------------------------------------------------------------------------


def test_an_answer_that_is_asked_for_once_more_is_not_seen() -> None:
    """Its head is held back, the rest dropped; the client gets what the other endpoint says."""
    scene = Retrying(CODES)
    scene.ask()
    first = scene.first.lend()
    scene.answer(503, length=10)
    assert first.heard[-1] == ("discard", 10)
    assert scene.client.words == []
    scene.caller.surroundings.tick()
    second = scene.second.lend()
    scene.exchange.on_response_head(OK)
    scene.exchange.on_response_data(b"ok", True)

    assert second.words == ["send_head"]
    assert scene.client.words == ["send_head", "send_data", "send_end"]
    assert scene.status == 200
    assert scene.retries == ["503"]
    assert scene.first.judged == [(503, None, "", 0.0)]
    assert scene.at_rest()


def test_the_last_answer_is_passed_on() -> None:
    """When all tries are used up the client gets what the service said, not a word of ours."""
    scene = Retrying(CODES)
    scene.ask()
    for endpoint in (scene.first, scene.second, scene.first):
        endpoint.lend()
        head = scene.answer(503, length=10)
        scene.caller.surroundings.tick()
    scene.exchange.on_response_end(None)

    assert scene.client.heard[0] == ("send_head", head)
    assert scene.retries == ["503", "503"]
    assert scene.skipped == []
    assert scene.caller.counted == [("all", "default/catalog", "v1", 503, "URX")]
    assert scene.at_rest()


def test_answers_that_are_not_asked_for_are_passed_on_without_a_word() -> None:
    """They are no failures to us: nothing is counted as skipped."""
    scene = Retrying(CODES)
    scene.ask()
    scene.first.lend()
    scene.answer(500)
    assert scene.status == 500
    assert scene.skipped == []


def test_a_body_is_said_again_and_goes_on() -> None:
    """What was held comes first; what the client says later follows."""
    scene = Retrying(CODES)
    scene.ask(b"PUT", length=6)
    scene.exchange.on_request_data(b"abc")
    first = scene.first.lend()
    scene.answer(503)
    scene.exchange.on_request_data(b"de")
    scene.caller.surroundings.tick()
    second = scene.second.lend()
    scene.exchange.on_request_data(b"f", True)

    said = [call[1] for call in second.heard if call[0] == "send_data"]
    assert b"".join(said) == b"abcdef"
    assert second.words[-1] == "send_end"
    assert first.words == ["send_head", "send_data", "discard"]


@pytest.mark.parametrize(("limit", "tried_again"), [(5, True), (4, False)])
def test_a_body_above_the_replay_limit_is_sent_once(limit: int, tried_again: bool) -> None:
    """And its answer, whatever it is, is the client's; the limit is the policy's."""
    scene = Retrying(RetrySpec(codes=(503,), replay_limit=limit))
    scene.ask(b"PUT", length=5)
    scene.first.lend()
    scene.exchange.on_request_data(b"abcde", True)
    scene.answer(503)

    assert (scene.client.words == []) == tried_again
    assert scene.skipped == ([] if tried_again else ["body-too-large"])


def large(scene: Retrying, size: int = 10_000) -> None:
    """Ask with a body that is counted where it is kept, and let the attempt begin."""
    scene.ask(b"PUT", length=size)
    scene.first.lend()
    scene.exchange.on_request_data(b"x" * (size - 1))
    scene.exchange.on_request_data(b"y", True)


def test_a_body_for_which_there_is_no_memory_is_sent_once() -> None:
    """It goes to the service as ever; that it is not sent again has a name of its own."""
    scene = Retrying(CODES)
    scene.caller.surroundings.replay.most = 9_999
    large(scene)
    assert scene.caller.surroundings.replay.held == 0
    scene.answer(503)
    assert scene.status == 503
    assert scene.skipped == ["replay-memory"]


def test_a_body_that_waited_for_its_endpoint_is_counted_when_it_is_sent() -> None:
    """Nobody has taken it until then, so it cannot be let go of."""
    for most, held in ((10_000, 10_000), (9_999, 0)):
        scene = Retrying(CODES)
        replay = scene.caller.surroundings.replay
        replay.most = most
        scene.ask(b"PUT", length=10_000)
        scene.exchange.on_request_data(b"x" * 10_000, True)
        assert replay.held == 0
        stream = scene.first.lend()
        assert stream.words == ["send_head", "send_data", "send_end"]
        assert replay.held == held


def test_a_small_body_is_not_counted() -> None:
    """It is kept all the same."""
    scene = Retrying(CODES)
    scene.caller.surroundings.replay.most = 0
    large(scene, 4096)
    scene.answer(503)
    assert scene.retries == ["503"]


@pytest.mark.parametrize("end", ["answered", "client gone", "too large", "failed", "late"])
def test_whatever_ends_a_request_gives_back_what_was_kept_for_it(end: str) -> None:
    """With the head of its answer at the latest: nothing is tried again after that."""
    scene = Retrying(RetrySpec(codes=(503,), conditions=("reset",), replay_limit=20_000))
    replay = scene.caller.surroundings.replay
    scene.ask(b"PUT", length=30_000)
    scene.first.lend()
    scene.exchange.on_request_data(b"x" * 10_000)
    assert replay.held == 10_000
    scene.answer(503)
    scene.caller.surroundings.tick()
    assert replay.held == 10_000
    scene.second.lend()
    if end == "answered":
        scene.exchange.on_response_head(OK)
    elif end == "client gone":
        scene.exchange.on_request_reset()
    elif end == "too large":
        scene.exchange.on_request_data(b"y" * 10_001)
    elif end == "failed":
        scene.exchange.on_response_reset("upstream-protocol-error", reused=False)
    else:
        scene.exchange.on_cause_gone()
    assert replay.held == 0


@pytest.mark.parametrize(
    ("method", "key", "tried_again"),
    [(b"POST", False, False), (b"POST", True, True), (b"PUT", False, True)],
)
def test_a_post_is_repeated_only_with_a_key(method: bytes, key: bool, tried_again: bool) -> None:
    """`Idempotency-Key` says that the service will know the second one from a second order."""
    scene = Retrying(CODES)
    head = RequestHead(method, b"catalog", b"/", [field(b"Idempotency-Key", b"1")] if key else [])
    scene.exchange.on_request_head(head)
    scene.first.lend()
    scene.answer(503)

    assert (scene.client.words == []) == tried_again
    assert scene.skipped == ([] if tried_again else ["not-idempotent"])


def test_where_the_client_has_seen_a_part_nothing_is_repeated() -> None:
    """A response that breaks off is broken off for the client, whatever the policy."""
    scene = Retrying(RetrySpec(conditions=("5xx", "reset"), any_method=True))
    scene.ask()
    scene.first.lend()
    scene.answer(200, length=10)
    scene.exchange.on_response_reset("upstream-reset", reused=False)

    assert scene.client.words == ["send_head", "reset"]
    assert scene.retries == []


@pytest.mark.parametrize(
    ("condition", "code", "reused"),
    [("reset", "upstream-reset", False), ("5xx", "upstream-closed", False)],
)
def test_a_reset_is_retried_where_asked_for(
    condition: RetryCondition, code: str, reused: bool
) -> None:
    """Also on a fresh connection."""
    scene = Retrying(RetrySpec(conditions=(condition,)))
    scene.ask()
    scene.first.lend()
    scene.exchange.on_response_reset(code, reused=reused)
    assert scene.retries == [code]


@pytest.mark.parametrize("mtls", [True, False])
def test_what_the_next_proxy_could_not_deliver_goes_elsewhere(mtls: bool) -> None:
    """It says so, and is believed where it has proved who it is: then also a POST is repeated."""
    scene = Retrying(RetrySpec(), mtls=mtls)
    scene.ask(b"POST")
    scene.first.lend()
    scene.refuse_as_mesh(b"connect-failed")
    assert scene.retries == (["503"] if mtls else [])
    assert (scene.client.words == []) == mtls


ORDER = field(b"Idempotency-Key", b"1")


@pytest.mark.parametrize(
    ("method", "fields", "code"),
    [(b"POST", [ORDER], "retry-failed"), (b"GET", [], "connect-failed")],
)
@pytest.mark.parametrize("answered", [True, False])
def test_what_may_have_been_executed_is_never_called_not_executed(
    method: bytes, fields: list[Field], code: str, answered: bool
) -> None:
    """A 503 of ours would have the client repeat it; what is idempotent may be repeated anyway."""
    scene = Retrying(RetrySpec(codes=(503,), conditions=("reset",), attempts=2))
    scene.exchange.on_request_head(RequestHead(method, b"catalog", b"/", fields))
    scene.first.lend()
    if answered:
        scene.answer(503)
    else:
        scene.exchange.on_response_reset("upstream-closed", reused=False)
    scene.caller.surroundings.tick()
    scene.second.waiting.pop().on_upstream_failed("connect-failed")

    assert scene.caller.surroundings.refusals == [code]
    assert scene.status == refusal(code).status
    assert scene.at_rest()


def test_what_the_next_proxy_did_not_deliver_was_not_executed() -> None:
    """It has proved that, so the last refusal is the whole truth."""
    scene = Retrying(RetrySpec(attempts=2))
    scene.ask(b"POST")
    scene.first.lend()
    scene.refuse_as_mesh(b"connect-failed")
    scene.caller.surroundings.tick()
    scene.second.waiting.pop().on_upstream_failed("connect-timeout")
    assert scene.caller.surroundings.refusals == ["connect-timeout"]


def told(scene: Retrying) -> str:
    """Return how often the refusal says that the request was sent."""
    [body] = [call[1] for call in scene.client.heard if call[0] == "send_data"]
    return str(body.decode().rpartition(", ")[2].removesuffix(")\n"))


def test_a_refusal_tells_how_often_the_request_was_sent() -> None:
    """Attempts that found nobody, no connection, or no time for one have sent nothing."""
    spec = RetrySpec(conditions=("reset",), attempts=3)
    nobody = Retrying(spec)
    nobody.cluster.endpoints = ()
    nobody.ask()
    assert told(nobody) == "not sent"

    failed = Retrying(spec)
    failed.ask()
    for endpoint in (failed.first, failed.second, failed.first):
        endpoint.waiting.pop().on_upstream_failed("connect-failed")
        failed.caller.surroundings.tick()
    assert told(failed) == "not sent in 3 attempts"

    mixed = Retrying(spec)
    mixed.ask()
    mixed.first.lend()
    mixed.exchange.on_response_reset("upstream-closed", reused=False)
    mixed.caller.surroundings.tick()
    mixed.second.waiting.pop().on_upstream_failed("connect-failed")
    mixed.caller.surroundings.tick()
    mixed.first.lend()
    mixed.exchange.on_response_reset("upstream-closed", reused=False)
    assert told(mixed) == "sent 2 times in 3 attempts"

    waiting = Retrying(spec)
    waiting.ask()
    waiting.exchange.on_cause_gone()
    assert told(waiting) == "not sent"

    sent = Retrying(RetrySpec(attempts=1))
    sent.ask()
    sent.first.lend()
    sent.exchange.on_cause_gone()
    assert told(sent) == "sent once"


# Load shedding ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mtls", [True, False])
@pytest.mark.parametrize("codes", [(), (503,)])
def test_who_sheds_load_has_not_failed(codes: tuple[int, ...], mtls: bool) -> None:
    """Where it has proved to be a mesh proxy, and whether or not another one is asked."""
    scene = Retrying(RetrySpec(codes=codes), mtls=mtls)
    scene.ask()
    scene.first.lend()
    scene.refuse_as_mesh(b"overloaded")
    if not codes:
        scene.exchange.on_response_end(None)
    assert [(judged[0], judged[2]) for judged in scene.first.judged] == [
        (503, "overloaded" if mtls else "")
    ]
    if codes:
        scene.caller.surroundings.tick()
        scene.second.lend()
        scene.exchange.on_response_head(OK)
        scene.exchange.on_response_data(b"ok", True)
        assert [judged[:3] for judged in scene.second.judged] == [(200, None, "")]
    assert scene.at_rest()


# gRPC ---------------------------------------------------------------------------------------------


def test_a_call_is_made_again_after_a_status_without_messages() -> None:
    """A POST, but who lists the condition means calls; the other answer counts."""
    scene = Retrying(RetrySpec(conditions=("grpc-unavailable",)), protocol="http2")
    scene.call()
    scene.exchange.on_request_end(None)
    scene.first.lend()
    scene.answer(200, *GRPC_HEAD, field(b"grpc-status", b"14"))
    assert scene.client.words == []
    scene.caller.surroundings.tick()
    scene.second.lend()
    scene.answer(200, *GRPC_HEAD, length=CHUNKED)
    scene.exchange.on_response_end([field(b"grpc-status", b"0")])

    assert scene.retries == ["grpc-14"]
    assert scene.first.judged == [(200, "14", "", 0.0)]
    assert scene.caller.grpc == ["0"]
    assert scene.at_rest()


def test_a_status_after_messages_is_passed_on() -> None:
    """The head has gone to the client by then."""
    scene = Retrying(RetrySpec(conditions=("grpc-unavailable",)), protocol="http2")
    scene.call()
    scene.first.lend()
    scene.answer(200, *GRPC_HEAD, length=CHUNKED)
    scene.exchange.on_response_data(b"message")
    scene.exchange.on_response_end([field(b"grpc-status", b"14")])
    assert scene.retries == []
    assert scene.caller.grpc == ["14"]


def test_a_retry_that_would_come_too_late_is_not_made() -> None:
    """The answer that is there is better than none in time."""
    spec = RetrySpec(conditions=("grpc-unavailable",), backoff=3000, max_backoff=3000)
    scene = Retrying(spec, protocol="http2")
    scene.call("1S")
    scene.first.lend()
    scene.answer(200, *GRPC_HEAD, field(b"grpc-status", b"14"))
    assert scene.skipped == ["deadline"]
    assert scene.client.words == ["send_head"]


# Where --------------------------------------------------------------------------------------------


def test_further_attempts_go_to_who_was_not_tried_yet() -> None:
    """With three endpoints the third attempt goes to the third, not back to the first."""
    scene = Retrying(RetrySpec(codes=(503,), attempts=5))
    endpoints = [FakeEndpoint(f"127.0.0.1:{port}") for port in (1, 2, 3)]
    scene.cluster.available = scene.cluster.endpoints = tuple(endpoints)
    scene.ask()
    asked = []
    for _ in range(5):
        [endpoint] = [one for one in endpoints if one.waiting]
        asked.append(endpoint.name[-1])
        endpoint.lend()
        scene.answer(503)
        scene.caller.surroundings.tick()
    assert asked == ["1", "2", "3", "1", "2"]
    assert scene.status == 503


# When ---------------------------------------------------------------------------------------------


def test_waits_grow() -> None:
    """Half of each bound, by the chance that the test knows."""
    scene = Retrying(RetrySpec(codes=(503,), attempts=4, backoff=100, max_backoff=300))
    scene.ask()
    for endpoint in (scene.first, scene.second, scene.first):
        endpoint.lend()
        scene.answer(503)
        scene.caller.surroundings.tick()
    assert scene.caller.surroundings.waits == pytest.approx([0.05, 0.1, 0.15])


@pytest.mark.parametrize(("after", "tried_again"), [(b"1", True), (b"2", False)])
def test_retry_after_is_honoured_within_limits(after: bytes, tried_again: bool) -> None:
    """Waited for up to `max_backoff`; longer than that, the client had better know."""
    scene = Retrying(RetrySpec(codes=(503,), backoff=20, max_backoff=1000))
    scene.ask()
    scene.first.lend()
    scene.answer(503, field(b"Retry-After", after))
    if tried_again:
        assert scene.caller.surroundings.waits == pytest.approx([1.01])
        assert scene.client.words == []
    else:
        assert scene.skipped == ["retry-after"]
        assert scene.status == 503


@pytest.mark.parametrize("answered", [True, False])
def test_an_attempt_that_takes_too_long_is_given_up(answered: bool) -> None:
    """Its stream is reset and another one tried; but not while that is on its way already."""
    scene = Retrying(RetrySpec(conditions=("timeout",), codes=(503,), per_try_timeout=100))
    scene.ask()
    stream = scene.first.lend()
    if answered:
        scene.answer(503)
    scene.caller.surroundings.sleep(0.1 + 2 * TICK)
    scene.caller.surroundings.tick()

    assert stream.words == ["send_head", "discard" if answered else "reset"]
    assert scene.second.waiting == [scene.exchange]
    assert scene.retries == ["503" if answered else "attempt-timeout"]


def test_each_attempt_has_its_own_time() -> None:
    """And when the last one has had it, too, the client is told."""
    scene = Retrying(RetrySpec(conditions=("timeout",), attempts=2, per_try_timeout=100))
    scene.ask()
    for endpoint in (scene.first, scene.second):
        endpoint.lend()
        scene.caller.surroundings.sleep(0.1 + 2 * TICK)
        scene.caller.surroundings.tick()
    assert scene.status == 504
    assert scene.caller.surroundings.refusals == ["attempt-timeout"]
    assert scene.at_rest()


# The budget ---------------------------------------------------------------------------------------


def test_when_the_budget_is_spent_the_client_gets_the_last_answer() -> None:
    """No 503 of ours in its place: that would say that the request was not executed."""
    scene = Retrying(RetrySpec(conditions=("5xx",)))
    scene.cluster.budget = RetryBudget(RetryBudgetSpec(percent=0, min_count=1))
    scene.ask()
    scene.first.lend()
    scene.answer(500)
    scene.caller.surroundings.tick()
    scene.second.lend()
    scene.answer(500)

    assert scene.status == 500
    assert scene.skipped == ["budget"]


def test_the_budget_is_for_all_retries() -> None:
    """Those that provably were not processed add to the load as well."""
    scene = Retrying(RetrySpec())
    scene.cluster.budget = RetryBudget(RetryBudgetSpec(percent=0, min_count=0))
    scene.ask()
    scene.first.waiting.pop().on_upstream_failed("connect-failed")

    assert scene.status == 503
    assert scene.caller.surroundings.refusals == ["connect-failed"]
    assert scene.skipped == ["budget"]
    assert scene.at_rest()


def test_so_many_requests_are_retried_at_once() -> None:
    """One that is retried counts from then to its end, however often it is tried."""
    scene = Retrying(CODES)
    scene.cluster.retries = Limit("retries", 1)
    scene.cluster.retries.count = 1
    scene.ask()
    scene.first.lend()
    scene.answer(503)
    assert scene.skipped == ["overflow"]
    assert scene.status == 503

    scene = Retrying(CODES)
    scene.cluster.retries = Limit("retries", 1)
    scene.ask()
    for endpoint in (scene.first, scene.second, scene.first):
        endpoint.lend()
        scene.answer(503)
        scene.caller.surroundings.tick()
        assert scene.cluster.retries.count == 1
    scene.exchange.on_response_end(None)
    assert scene.retries == ["503", "503"]
    assert scene.cluster.retries.count == 0


def test_each_request_adds_to_the_budget_of_its_cluster() -> None:
    """Once, however often it is tried."""
    scene = Retrying(CODES)
    scene.ask()
    scene.first.lend()
    scene.answer(503)
    scene.caller.surroundings.tick()
    statistics = scene.cluster.budget.statistics(100.0)
    assert (statistics["requests"], statistics["retries"]) == (1, 1)


# No multiplication --------------------------------------------------------------------------------


def test_the_next_hop_learns_which_attempt_it_is() -> None:
    """The first says nothing, those after it their number, counted over all hops."""
    scene = Retrying(CODES)
    scene.caller.direction = "inbound"
    scene.caller.identity_field = field(b"x-forwarded-client-cert", b"URI=spiffe://a/b")
    head = RequestHead(b"GET", b"catalog", b"/", [])
    head.mesh_fields = [field(ATTEMPT, b"3")]
    scene.exchange.on_request_head(head)
    scene.first.lend()
    assert value_of(head.fields, ATTEMPT) == b"3"

    scene = Retrying(CODES)
    head = scene.ask()
    scene.first.lend()
    assert value_of(head.fields, ATTEMPT) is None
    scene.answer(503)
    scene.caller.surroundings.tick()
    scene.second.lend()
    assert value_of(head.fields, ATTEMPT) == b"2"


@pytest.mark.parametrize(("of_retries", "tried_again"), [(False, False), (True, True)])
def test_what_is_a_retry_already_is_not_retried(of_retries: bool, tried_again: bool) -> None:
    """Unless the policy says so."""
    scene = Retrying(RetrySpec(codes=(503,), of_retries=of_retries))
    scene.caller.direction = "inbound"
    scene.caller.identity_field = field(b"x-forwarded-client-cert", b"URI=spiffe://a/b")
    head = RequestHead(b"GET", b"catalog", b"/", [])
    head.mesh_fields = [field(ATTEMPT, b"2")]
    scene.exchange.on_request_head(head)
    scene.first.lend()
    scene.answer(503)
    assert (scene.client.words == []) == tried_again
    assert scene.skipped == ([] if tried_again else ["of-retry"])


def test_a_retry_whose_connection_was_stale_is_still_repeated() -> None:
    """Nobody has processed it, so nothing is multiplied."""
    scene = Retrying(CODES)
    scene.caller.direction = "inbound"
    scene.caller.identity_field = field(b"x-forwarded-client-cert", b"URI=spiffe://a/b")
    head = RequestHead(b"GET", b"catalog", b"/", [])
    head.mesh_fields = [field(ATTEMPT, b"2")]
    scene.exchange.on_request_head(head)
    scene.first.lend()
    scene.exchange.on_response_reset("upstream-closed", reused=True)
    assert scene.retries == ["upstream-closed"]


def test_an_answer_that_was_retried_below_is_not_retried_here() -> None:
    """The proxy that has answered says so, where it has proved to be one."""
    for mtls in (True, False):
        scene = Retrying(CODES, mtls=mtls)
        scene.ask()
        scene.first.lend()
        head = ResponseHead(503, [], length=0)
        head.mesh_fields = [field(RETRIED, b"1")]
        scene.exchange.on_response_head(head)
        assert scene.skipped == (["retried-below"] if mtls else [])


def test_who_has_failed_after_retries_tells_whoever_is_before() -> None:
    """
    Across the app: a call that was tried more than once fails; the app fails because of it; and its
    inbound proxy adds to that answer that trying again has been done.
    """
    inbound = Retrying(RetrySpec())
    inbound.caller.direction = "inbound"
    inbound.exchange.on_request_head(traced())
    inbound.first.lend()

    call = Retrying(CODES)
    call.caller.surroundings.propagation = inbound.caller.surroundings.propagation
    call.exchange.on_request_head(traced())
    for endpoint in (call.first, call.second, call.first):
        endpoint.lend()
        call.answer(503)
        call.caller.surroundings.tick()
    call.exchange.on_response_end(None)

    head = inbound.answer(502)
    assert value_of(head.fields, RETRIED) == b"1"


def test_who_has_not_retried_says_nothing() -> None:
    """Neither of a failure at the first try, nor of a success after one."""
    scene = Retrying(RetrySpec(attempts=1, codes=(503,)))
    scene.caller.direction = "inbound"
    scene.ask()
    scene.first.lend()
    assert value_of(scene.answer(503).fields, RETRIED) is None


# The connection behind an answer that is not wanted -----------------------------------------------


def test_a_client_that_leaves_between_two_attempts_leaves_nothing_behind() -> None:
    """The attempt that is due is not begun."""
    scene = Retrying(CODES)
    scene.ask()
    scene.first.lend()
    scene.answer(503)
    scene.exchange.on_request_reset()
    scene.caller.surroundings.tick()
    assert scene.at_rest()
    assert scene.client.words == []


def test_a_client_that_sends_while_nobody_takes_it_is_paused() -> None:
    """Between two attempts as before the first."""
    scene = Retrying(RetrySpec(codes=(503,), replay_limit=1 << 20))
    scene.ask(b"PUT", length=200_000)
    scene.first.lend()
    scene.answer(503)
    scene.exchange.on_request_data(b"x" * 100_000)
    assert scene.client.words == ["pause_request"]
    scene.caller.surroundings.tick()
    stream: Recorder = scene.second.lend()
    assert scene.client.words == ["pause_request", "resume_request"]
    assert stream.words == ["send_head", "send_data"]
