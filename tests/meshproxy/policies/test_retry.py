"""When a request is sent again, and when not."""

import pytest

from meshproxy.policies.retry import ATTEMPTS, BACKOFF, IDEMPOTENT, Retry
from meshproxy.refusal import refusal

EVERY = [*sorted(IDEMPOTENT), b"POST", b"PATCH", b"FOO"]


@pytest.mark.parametrize("method", EVERY)
def test_what_was_never_sent_is_sent_again(method: bytes) -> None:
    """Without a connection nothing can have happened: any method, reused or not."""
    assert Retry().wants(method, 1, "connect-failed", sent=False, reused=False)
    assert Retry().wants(method, 1, "connect-failed", sent=False, reused=True)


@pytest.mark.parametrize("method", EVERY)
def test_what_may_have_arrived_needs_an_idle_close_and_an_idempotent_method(method: bytes) -> None:
    """A reused connection closed before a byte is most likely an idle one; a fresh one is not."""
    assert Retry().wants(method, 1, "connect-failed", sent=True, reused=True) == (
        method in IDEMPOTENT
    )
    assert not Retry().wants(method, 1, "connect-failed", sent=True, reused=False)


def test_methods_are_case_sensitive() -> None:
    """`get` is not GET (RFC 9110 section 9.1), so nothing is known about it."""
    assert not Retry().wants(b"get", 1, "connect-failed", sent=True, reused=True)


def test_attempts_are_limited() -> None:
    """The first try counts; one attempt means no retry at all."""
    verdicts = [
        Retry().wants(b"GET", made, "connect-failed", sent=False, reused=False)
        for made in range(1, 5)
    ]

    assert verdicts == [made < ATTEMPTS for made in range(1, 5)]
    assert not Retry(attempts=1).wants(b"GET", 1, "connect-failed", sent=False, reused=False)


def test_waits_grow_and_are_random() -> None:
    """Full jitter up to a bound that doubles; none after a stale connection."""
    retry = Retry()
    for made, bound in ((1, BACKOFF), (2, 2 * BACKOFF), (3, 4 * BACKOFF)):
        assert retry.wait(made, sent=False, random=lambda: 0.0) == 0.0
        assert retry.wait(made, sent=False, random=lambda: 0.5) == pytest.approx(bound / 2)
    assert retry.wait(1, sent=True, random=lambda: 0.9) == 0.0


@pytest.mark.parametrize("code", ["overflow", "not-ready", "fields-too-large"])
def test_what_cannot_get_better_is_not_asked_again(code: str) -> None:
    """Another try would only add to the crowd, and a head that is too large will not shrink."""
    assert not Retry().wants(b"GET", 1, code, sent=False, reused=False)


def test_what_was_refused_unread_is_asked_again_by_any_method() -> None:
    """REFUSED_STREAM and GOAWAY prove that nothing was processed (RFC 9113 section 8.7)."""
    assert not refusal("stream-refused").processed
    assert Retry().wants(b"POST", 1, "stream-refused", sent=False, reused=False)
    assert refusal("upstream-reset").processed
    assert not Retry().wants(b"GET", 1, "upstream-reset", sent=True, reused=False)
