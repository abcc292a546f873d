"""Two attempts of one exchange at once: the first answer wins, the other leaves no trace."""

import pytest

from meshproxy.contract.policies import HedgeSpec, RetryBudgetSpec, RetrySpec
from meshproxy.message import RequestHead, ResponseHead, field, value_of
from meshproxy.policies.hedging import LEAST_KNOWN
from meshproxy.policies.retry_budget import RetryBudget
from meshproxy.timer_wheel import TICK
from tests.helpers.recorder import Recorder
from tests.meshproxy.test_exchange import OK, FakeCluster, FakeEndpoint
from tests.meshproxy.test_exchange_retries import Retrying

ATTEMPT = b"x-mesh-attempt"


class Hedging(Retrying):
    """A service that mostly answers in 20 ms, and a request that takes longer."""

    def __init__(self, spec: RetrySpec | None = None) -> None:
        super().__init__(spec or RetrySpec(hedge=HedgeSpec(), codes=(503,)))
        for _ in range(LEAST_KNOWN):
            self.cluster.latencies.record(0.02)

    def ask_slowly(self, method: bytes = b"GET") -> Recorder:
        """Begin, and let so much time pass that the second attempt is due."""
        self.ask(method)
        stream = self.first.lend()
        [due] = self.caller.surroundings.waits
        self.caller.surroundings.time += due
        self.caller.surroundings.tick()
        return stream

    @property
    def hedges(self) -> list[str]:
        return self.caller.surroundings.hedges


def test_the_second_attempt_begins_after_a_percentile() -> None:
    """At another endpoint, saying which attempt it is."""
    scene = Hedging()
    scene.ask_slowly()
    assert 0.02 <= scene.caller.surroundings.waits[0] <= 0.025
    second = scene.second.lend()
    [(_, head)] = second.heard
    assert value_of(head.fields, ATTEMPT) == b"2"
    assert scene.hedges == ["begun"]
    assert (scene.first.active, scene.second.active) == (1, 1)


def test_the_second_answer_may_be_first() -> None:
    """The client gets it, the other stream is reset, and everything is given back."""
    scene = Hedging()
    first = scene.ask_slowly()
    scene.second.waiting[0].on_upstream_ready(second := Recorder())
    attempt = scene.second.waiting.pop()
    attempt.on_response_head(OK)
    assert first.words == ["send_head", "reset"]
    attempt.on_response_data(b"ok", True)

    assert second.words == ["send_head"]
    assert scene.client.words == ["send_head", "send_data", "send_end"]
    assert scene.hedges == ["begun", "won"]
    assert scene.first.judged == [(0, None, "downstream-closed", 0.0)]
    assert [judged[:3] for judged in scene.second.judged] == [(200, None, "")]
    assert scene.caller.counted == [("all", "default/catalog", "v1", 200, "-")]
    assert scene.at_rest()
    assert scene.cluster.requests.count == 0


@pytest.mark.parametrize("connected", [True, False])
def test_the_first_answer_cancels_the_second_attempt(connected: bool) -> None:
    """Also where that has no connection yet."""
    scene = Hedging()
    scene.ask_slowly()
    second = scene.second.lend() if connected else None
    scene.exchange.on_response_head(OK)
    scene.exchange.on_response_data(b"ok", True)

    assert second is None or second.words == ["send_head", "reset"]
    assert scene.status == 200
    assert scene.hedges == ["begun"]
    assert scene.at_rest()
    assert scene.cluster.requests.count == 0


def test_a_body_is_said_in_full_once_more() -> None:
    """With its end and trailers."""
    scene = Hedging()
    scene.ask(b"PUT", length=3)
    scene.exchange.on_request_data(b"abc", True)
    scene.first.lend()
    scene.caller.surroundings.tick()
    assert scene.second.lend().words == ["send_head", "send_data", "send_end"]


def test_if_one_fails_the_other_goes_on() -> None:
    """Whichever it is; only when both have failed is there something to decide."""
    for first_fails in (True, False):
        scene = Hedging()
        scene.ask_slowly()
        attempt = scene.second.waiting[0]
        scene.second.lend()
        if first_fails:
            scene.exchange.on_response_reset("upstream-reset", reused=False)
            assert scene.client.words == []
            attempt.on_response_head(OK)
            attempt.on_response_data(b"ok", True)
        else:
            attempt.on_response_reset("upstream-reset", reused=False)
            assert scene.client.words == []
            scene.exchange.on_response_head(OK)
            scene.exchange.on_response_data(b"ok", True)
        assert scene.status == 200
        assert scene.retries == []
        assert scene.at_rest()
        assert scene.cluster.requests.count == 0


@pytest.mark.parametrize("first_fails_first", [True, False])
def test_when_both_have_failed_a_third_is_asked(first_fails_first: bool) -> None:
    """Both were tried, in whichever order they came to their ends."""
    scene = Hedging(RetrySpec(hedge=HedgeSpec(), conditions=("reset",)))
    third = FakeEndpoint()
    scene.cluster.endpoints = scene.cluster.available = (scene.first, scene.second, third)
    scene.ask_slowly()
    attempt = scene.second.waiting[0]
    scene.second.lend()
    both = [scene.exchange, attempt]
    for one in both if first_fails_first else reversed(both):
        one.on_response_reset("upstream-reset", reused=False)
    scene.caller.surroundings.tick()
    assert (scene.first.waiting, scene.second.waiting) == ([], [])
    assert third.waiting == [scene.exchange]


@pytest.mark.parametrize(("lent", "told"), [(True, b"sent 2 times)"), (False, b"sent once in 2")])
def test_a_refusal_counts_the_second_attempt_where_it_was_sent(lent: bool, told: bytes) -> None:
    """As it counts the first."""
    scene = Hedging()
    scene.ask_slowly()
    if lent:
        scene.second.lend()
    scene.exchange.on_cause_gone()
    [body] = [call[1] for call in scene.client.heard if call[0] == "send_data"]
    assert told in body


def test_if_both_fail_that_is_a_failure() -> None:
    """Retried, where the policy has it so and tries are left; else the client is told."""
    scene = Hedging()
    scene.ask_slowly()
    attempt = scene.second.waiting.pop()
    scene.exchange.on_response_reset("upstream-reset", reused=False)
    attempt.on_upstream_failed("connect-failed")
    assert scene.retries == ["connect-failed"]
    scene.caller.surroundings.tick()
    scene.first.lend()
    scene.exchange.on_response_reset("upstream-reset", reused=False)

    assert scene.status == 502
    assert scene.at_rest()
    assert scene.cluster.requests.count == 0


def test_an_answer_that_would_be_retried_does_not_win() -> None:
    """The other attempt may do better, whichever of the two it is."""
    scene = Hedging()
    scene.ask_slowly()
    attempt = scene.second.waiting[0]
    second = scene.second.lend()
    attempt.on_response_head(ResponseHead(503, [], length=9))
    assert second.heard[-1] == ("discard", 9)
    assert scene.client.words == []
    scene.exchange.on_response_head(OK)
    assert scene.status == 200

    scene = Hedging()
    first = scene.ask_slowly()
    attempt = scene.second.waiting[0]
    scene.second.lend()
    scene.exchange.on_response_head(ResponseHead(503, [], length=9))
    assert first.heard[-1] == ("discard", 9)
    assert scene.client.words == []
    attempt.on_response_head(ResponseHead(503, [], length=0))
    assert scene.retries == ["503"]


@pytest.mark.parametrize("method", [b"POST", b"PATCH"])
def test_only_what_may_be_retried_is_hedged(method: bytes) -> None:
    """Both attempts are executed: that must be harmless."""
    scene = Hedging()
    scene.ask_slowly(method)
    assert scene.hedges == []


def test_what_is_a_retry_itself_is_not_hedged() -> None:
    """Nor anything else that would multiply."""
    scene = Hedging()
    scene.caller.direction = "inbound"
    scene.caller.identity_field = field(b"x-forwarded-client-cert", b"URI=spiffe://a/b")
    head = RequestHead(b"GET", b"catalog", b"/", [])
    head.mesh_fields = [field(ATTEMPT, b"2")]
    scene.exchange.on_request_head(head)
    scene.first.lend()
    scene.caller.surroundings.tick()
    assert scene.hedges == []


def test_a_request_that_is_still_being_said_is_not_hedged() -> None:
    """The second endpoint would only wait for the same client."""
    scene = Hedging()
    scene.ask(b"PUT", length=3)
    scene.first.lend()
    scene.caller.surroundings.tick()
    assert scene.hedges == []


def test_hedges_come_out_of_the_budget() -> None:
    """When it is spent the first attempt goes on alone."""
    scene = Hedging()
    scene.cluster.budget = RetryBudget(RetryBudgetSpec(percent=0, min_count=0))
    scene.ask_slowly()
    assert scene.hedges == []
    assert scene.skipped == ["hedge-budget"]


def test_without_another_endpoint_nothing_is_hedged() -> None:
    """The one that is slow would have twice as much to do."""
    scene = Hedging()
    assert isinstance(scene.cluster, FakeCluster)
    scene.cluster.endpoints = (scene.first,)
    scene.ask_slowly()
    assert scene.hedges == []


@pytest.mark.parametrize("end", ["answered", "left", "failed"])
def test_what_is_over_is_not_hedged(end: str) -> None:
    """By the time the second attempt is due the request may have ended, or be retried."""
    scene = Hedging()
    scene.ask()
    scene.first.lend()
    if end == "answered":
        scene.exchange.on_response_head(OK)
    elif end == "left":
        scene.exchange.on_request_reset()
    else:
        scene.exchange.on_response_reset("upstream-closed", reused=True)
    scene.caller.surroundings.tick()
    assert scene.hedges == []


@pytest.mark.parametrize("connected", [True, False])
def test_a_client_that_leaves_takes_both_attempts_with_it(connected: bool) -> None:
    """Nothing stays behind."""
    scene = Hedging()
    first = scene.ask_slowly()
    second = scene.second.lend() if connected else None
    scene.exchange.on_request_reset()
    assert first.words[-1] == "reset"
    assert second is None or second.words[-1] == "reset"
    assert scene.at_rest()
    assert scene.cluster.requests.count == 0


def test_a_client_that_does_not_read_slows_the_winner() -> None:
    """As it would have slowed the first."""
    scene = Hedging()
    scene.ask_slowly()
    attempt = scene.second.waiting[0]
    second = scene.second.lend()
    scene.client.blocked = True
    attempt.on_response_head(OK)
    assert second.words == ["send_head", "pause_response"]


def test_a_winner_that_breaks_off_is_broken_off_for_the_client() -> None:
    """It is the exchange's only attempt by then."""
    scene = Hedging()
    scene.ask_slowly()
    attempt = scene.second.waiting[0]
    scene.second.lend()
    attempt.on_response_head(OK)
    attempt.on_response_reset("upstream-closed", reused=False)
    assert scene.client.words == ["send_head", "reset"]
    assert scene.at_rest()


def test_the_second_attempt_keeps_its_time_when_the_first_has_failed() -> None:
    """Its endpoint may be the one that never answers."""
    spec = RetrySpec(hedge=HedgeSpec(), attempts=2, per_try_timeout=100)
    scene = Hedging(spec)
    scene.ask_slowly()
    second = scene.second.lend()
    scene.exchange.on_response_reset("upstream-reset", reused=False)
    scene.caller.surroundings.sleep(0.1 + 2 * TICK)
    assert second.words[-1] == "reset"
    assert scene.caller.surroundings.refusals == ["attempt-timeout"]
    assert scene.at_rest()


def test_nothing_is_hedged_while_the_breaker_is_not_closed() -> None:
    """What is left alone gets probes, one by one, and no second attempts beside them."""
    scene = Hedging()
    scene.ask()
    scene.first.lend()
    scene.cluster.requests.shut = True
    scene.caller.surroundings.tick()
    assert scene.hedges == []


def test_where_a_second_attempt_is() -> None:
    """Limits of an endpoint ask that, as of any retry: there until it ends, whoever has it by then."""
    scene = Hedging()
    scene.ask_slowly()
    attempt = scene.second.waiting[0]
    told = [(attempt.attempts, attempt.endpoint)]
    scene.second.lend()
    attempt.on_response_head(OK)
    told.append((attempt.attempts, attempt.endpoint))
    attempt.on_response_data(b"ok", True)
    told.append((attempt.attempts, attempt.endpoint))
    assert told == [(2, scene.second), (2, scene.second), (2, None)]

    scene = Hedging()
    scene.ask_slowly()
    attempt = scene.second.waiting[0]
    scene.exchange.on_response_head(OK)
    assert attempt.endpoint is None


@pytest.mark.parametrize("first_fails_first", [True, False])
def test_what_either_attempt_may_have_executed_counts(first_fails_first: bool) -> None:
    """That the other one was not delivered does not make it undone."""
    scene = Hedging(RetrySpec(hedge=HedgeSpec(), attempts=2, any_method=True))
    scene.ask_slowly(b"POST")
    attempt = scene.second.waiting[0]
    if first_fails_first:
        scene.exchange.on_response_reset("upstream-reset", reused=False)
        scene.second.waiting.pop().on_upstream_failed("connect-failed")
    else:
        scene.second.lend()
        attempt.on_response_reset("upstream-reset", reused=False)
        scene.exchange.on_response_reset("stream-refused", reused=False)
    assert scene.caller.surroundings.refusals == ["retry-failed"]
    assert scene.at_rest()
