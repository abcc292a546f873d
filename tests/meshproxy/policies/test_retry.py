"""When a request is sent again, and when not."""

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.contract.policies import HedgeSpec, RetryCondition, RetrySpec
from meshproxy.contract.wire import ContractError
from meshproxy.message import TUNNEL, RequestHead, field
from meshproxy.policies.retry import (
    ASKED,
    HOPELESS,
    IDEMPOTENT,
    NEVER,
    STALE,
    STATUS,
    UNPROCESSED,
    Retry,
    retry_after,
)
from meshproxy.refusal import REFUSALS, refusal

UNSAFE = [b"POST", b"PATCH", b"FOO", b"get"]
EVERY = [*sorted(IDEMPOTENT), *UNSAFE]
CASES = (UNPROCESSED, STALE, ASKED, STATUS)


def request(method: bytes = b"GET", key: bool = False, length: int | None = None) -> RequestHead:
    fields = [field(b"Idempotency-Key", b'"8e03978e"')] if key else []
    return RequestHead(method, b"catalog", b"/", fields, length)


def objection(retry: Retry, case: int, head: RequestHead, **facts: Any) -> str:
    usual: dict[str, Any] = {"made": 1, "held": True, "of_retry": False, "below": False}
    return retry.objection(case, head, **(usual | facts))


# What speaks for it -------------------------------------------------------------------------------


@pytest.mark.parametrize("code", sorted(set(REFUSALS) - HOPELESS))
def test_what_was_never_sent_is_sent_again(code: str) -> None:
    """Without a connection nothing can have happened."""
    assert Retry().of_failure(code, sent=False, reused=False) == UNPROCESSED
    assert Retry().of_failure(code, sent=False, reused=True) == UNPROCESSED


def test_what_may_have_arrived_needs_an_idle_close_or_a_policy() -> None:
    """A reused connection closed before a byte is most likely an idle one; a fresh one is not."""
    assert Retry().of_failure("upstream-closed", sent=True, reused=True) == STALE
    assert Retry().of_failure("upstream-closed", sent=True, reused=False) == NEVER


@pytest.mark.parametrize("code", sorted(HOPELESS))
def test_what_cannot_get_better_is_not_asked_again(code: str) -> None:
    """Another try would only add to the crowd, and a head that is too large will not shrink."""
    every = Retry(RetrySpec(conditions=get_args(RetryCondition)))
    assert every.of_failure(code, sent=False, reused=False) == NEVER


def test_what_was_refused_unread_is_asked_again() -> None:
    """REFUSED_STREAM and GOAWAY prove that nothing was processed (RFC 9113 section 8.7)."""
    assert not refusal("stream-refused").processed
    assert refusal("upstream-reset").processed


@pytest.mark.parametrize(
    ("condition", "codes"),
    [
        ("reset", {"upstream-closed", "upstream-reset"}),
        ("timeout", {"attempt-timeout"}),
        ("5xx", {"upstream-closed", "upstream-reset", "attempt-timeout"}),
        ("gateway-error", {"upstream-closed", "upstream-reset", "attempt-timeout"}),
        ("retriable-4xx", set()),
        ("connect-failure", set()),
        ("refused-stream", set()),
        ("reset-before-request", set()),
        ("grpc-unavailable", set()),
    ],
)
def test_failures_that_a_condition_means(condition: RetryCondition, codes: set[str]) -> None:
    """As in Envoy: a 5xx is also no answer at all; three conditions name what is done anyway."""
    retry = Retry(RetrySpec(conditions=(condition,)))
    every = set(REFUSALS) | {"attempt-timeout"}
    asked = {code for code in every if retry.of_failure(code, sent=True, reused=False) == ASKED}
    assert asked == codes


@pytest.mark.parametrize(
    ("spec", "statuses"),
    [
        (RetrySpec(), set()),
        (RetrySpec(codes=(503, 429)), {503, 429}),
        (RetrySpec(conditions=("5xx",)), set(range(500, 600))),
        (RetrySpec(conditions=("gateway-error",)), {502, 503, 504}),
        (RetrySpec(conditions=("retriable-4xx", "gateway-error")), {409, 502, 503, 504}),
    ],
)
def test_answers_that_are_asked_for_once_more(spec: RetrySpec, statuses: set[int]) -> None:
    """The codes of the spec and of its conditions; by default none."""
    retry = Retry(spec)
    asked = {status for status in range(200, 600) if retry.of_answer(status, None, None) == ASKED}
    assert asked == statuses


def test_statuses_of_grpc_that_are_asked_for_once_more() -> None:
    """Each condition means one; no other status, and not its number in HTTP."""
    numbers = {
        "grpc-cancelled": "1",
        "grpc-deadline-exceeded": "4",
        "grpc-resource-exhausted": "8",
        "grpc-internal": "13",
        "grpc-unavailable": "14",
    }
    assert {name for name in get_args(RetryCondition) if name.startswith("grpc-")} == set(numbers)
    for name, number in numbers.items():
        retry = Retry(RetrySpec(conditions=(name,)))  # type: ignore[arg-type]  # they are, see above
        asked = {str(s) for s in range(17) if retry.of_answer(200, str(s), None) == STATUS}
        assert asked == {number}
        assert retry.of_answer(200, None, None) == NEVER


@pytest.mark.parametrize(
    ("refused", "case"),
    [
        (b"connect-failed", UNPROCESSED),
        (b"connect-timeout", UNPROCESSED),
        (b"stream-refused", UNPROCESSED),
        (b"upstream-closed", NEVER),
        (b"overflow", NEVER),
        (b"no-route", NEVER),
        (b"made-up", NEVER),
        (None, NEVER),
    ],
)
def test_the_next_proxy_may_prove_that_nothing_was_processed(
    refused: bytes | None, case: int
) -> None:
    """It could not reach its app: another one may be reachable.  Its crowds are not added to."""
    assert Retry().of_answer(503, None, refused, elsewhere=True) == case
    assert Retry().of_answer(200, "14", refused, elsewhere=True) == case
    assert Retry().of_answer(503, None, refused) == NEVER


def test_what_was_refused_unprocessed_is_safe_where_the_code_is_asked_for() -> None:
    """A 503 of the mesh says that nothing was executed, one of the app does not."""
    retry = Retry(RetrySpec(codes=(502, 503)))
    assert retry.of_answer(503, None, b"overflow") == UNPROCESSED
    assert retry.of_answer(502, None, b"upstream-closed") == ASKED
    assert retry.of_answer(503, None, b"made-up") == ASKED
    assert retry.of_answer(503, None, b"\xff") == ASKED


# What speaks against it ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", EVERY)
def test_what_was_not_processed_is_repeated_whatever_the_method(method: bytes) -> None:
    """So is a call of which the policy names the status: all calls are POSTs."""
    assert objection(Retry(), UNPROCESSED, request(method)) == ""
    assert objection(Retry(), STATUS, request(method)) == ""
    assert objection(Retry(), UNPROCESSED, request(method, length=TUNNEL)) == ""


@pytest.mark.parametrize("method", EVERY)
@pytest.mark.parametrize("case", [STALE, ASKED])
def test_what_may_have_been_processed_is_repeated_only_where_that_is_safe(
    method: bytes, case: int
) -> None:
    """By its method (case-sensitive, RFC 9110 section 9.1), its key, or the policy's word."""
    safe = "" if method in IDEMPOTENT else "not-idempotent"
    assert objection(Retry(), case, request(method)) == safe
    assert objection(Retry(), case, request(method, key=True)) == ""
    assert objection(Retry(RetrySpec(any_method=True)), case, request(method)) == ""


@pytest.mark.parametrize("case", [STALE, ASKED])
def test_a_switch_of_protocols_is_never_safe(case: int) -> None:
    """Whatever the method, the key or the policy: nobody knows what the two ends have done."""
    retry = Retry(RetrySpec(any_method=True))
    assert objection(retry, case, request(key=True, length=TUNNEL)) == "not-idempotent"


@pytest.mark.parametrize("case", CASES)
def test_attempts_are_limited(case: int) -> None:
    """The first try counts; one attempt means no retry at all."""
    for attempts in (1, 2, 3, 7):
        retry = Retry(RetrySpec(attempts=attempts))
        made = 1
        while not objection(retry, case, request(), made=made):
            made += 1
        assert made == attempts


@pytest.mark.parametrize(("fact", "name"), [("of_retry", "of-retry"), ("below", "retried-below")])
def test_nothing_is_multiplied(fact: str, name: str) -> None:
    """What others retry is not retried here, unless nobody processed it or the policy says so."""
    for case in CASES:
        expected = name if case in (ASKED, STATUS) else ""
        assert objection(Retry(), case, request(), **{fact: True}) == expected
        assert objection(Retry(RetrySpec(of_retries=True)), case, request(), **{fact: True}) == ""


@pytest.mark.parametrize("case", CASES)
def test_half_a_body_is_not_repeated(case: int) -> None:
    """What is no longer held in full cannot be."""
    assert objection(Retry(), case, request(), held=False) == "body-too-large"


specs = st.builds(
    RetrySpec,
    attempts=st.integers(1, 10),
    codes=st.lists(st.integers(400, 599)).map(tuple),
    conditions=st.lists(st.sampled_from(get_args(RetryCondition))).map(tuple),
    of_retries=st.booleans(),
)


@given(
    spec=specs,
    method=st.sampled_from(UNSAFE),
    status=st.integers(200, 599),
    code=st.sampled_from(sorted(REFUSALS)),
    reused=st.booleans(),
    made=st.integers(1, 12),
)
def test_what_is_not_idempotent_is_executed_once(
    spec: RetrySpec, method: bytes, status: int, code: str, reused: bool, made: int
) -> None:
    """Whatever the policy but `any_method`: not after an answer, nor when it may have arrived."""
    retry = Retry(spec)
    for case in (
        retry.of_answer(status, None, None),
        retry.of_failure(code, sent=True, reused=reused),
    ):
        assert case == NEVER or objection(retry, case, request(method), made=made)


# When ---------------------------------------------------------------------------------------------


def test_waits_grow_and_are_random() -> None:
    """Full jitter up to a bound that doubles, and not above the cap; none when it was stale."""
    retry = Retry(RetrySpec(backoff=20, max_backoff=100))
    for made, bound in ((1, 0.02), (2, 0.04), (3, 0.08), (4, 0.1), (90, 0.1)):
        assert retry.wait(UNPROCESSED, made, lambda: 0.0) == 0.0
        assert retry.wait(ASKED, made, lambda: 0.5) == pytest.approx(bound / 2)
        assert retry.wait(STALE, made, lambda: 0.9) == 0.0


def test_what_the_service_asks_for_is_waited_and_a_little_more() -> None:
    """Never less than `Retry-After`, and not all at the same moment."""
    retry = Retry(RetrySpec(backoff=20))
    assert retry.wait(ASKED, 1, lambda: 0.0, 2.0) == 2.0
    assert retry.wait(ASKED, 1, lambda: 0.5, 2.0) == pytest.approx(2.01)


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        (b"0", None, 0.0),
        (b"120", None, 120.0),
        (b"9" * 40, None, float("inf")),
        (b"Sun, 06 Nov 1994 08:49:39 GMT", b"Sun, 06 Nov 1994 08:49:37 GMT", 2.0),
        (b"Sun, 06 Nov 1994 08:49:37 GMT", b"Sun, 06 Nov 1994 09:00:00 GMT", 0.0),
        (b"Sun, 06 Nov 1994 08:49:60 GMT", b"Sun, 06 Nov 1994 08:49:37 GMT", 22.0),
        (b"Sun, 06 Nov 1994 08:49:39 GMT", None, None),
        (b"Sunday, 06-Nov-94 08:49:37 GMT", b"Sun, 06 Nov 1994 08:49:37 GMT", None),
        (b"Sun, 31 Feb 1994 08:49:37 GMT", b"Sun, 06 Nov 1994 08:49:37 GMT", None),
        (b"Sun, 06 Nov 1994 08:49:37 CET", b"Sun, 06 Nov 1994 08:49:37 GMT", None),
        (b"-1", None, None),
        (b"1.5", None, None),
        (b"", None, None),
        (b"1, 2", None, None),
    ],
)
def test_retry_after(value: bytes, date: bytes | None, seconds: float | None) -> None:
    """Seconds, or a date by the clock of who says it; what cannot be read asks for nothing."""
    fields = [field(b"Retry-After", value)]
    if date is not None:
        fields.append(field(b"Date", date))
    assert retry_after(fields) == seconds
    assert retry_after([]) is None


# What cannot be right -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        (RetrySpec(backoff=2000, max_backoff=1000), "routes[0].retry.backoff"),
        (RetrySpec(attempts=1, hedge=HedgeSpec()), "routes[0].retry.hedge"),
        (
            RetrySpec(per_try_timeout=100, hedge=HedgeSpec(min_delay=100)),
            "routes[0].retry.hedge.min_delay",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(spec: RetrySpec, path: str) -> None:
    """With the path to it."""
    with pytest.raises(ContractError) as raised:
        Retry(spec, "routes[0].retry")
    assert raised.value.path == path
