"""What an attempt says about the server that it went to, as a table."""

import pytest

from meshproxy.message import field
from meshproxy.policies.outcome import (
    GATEWAY_ERROR,
    HURRIED,
    LOCAL_FAILURE,
    NOTHING,
    SERVER_ERROR,
    SUCCESS,
    excuse,
    is_late,
    outcome,
    shed,
)
from meshproxy.refusal import REFUSALS


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (0, SUCCESS), (101, SUCCESS), (200, SUCCESS), (304, SUCCESS), (400, SUCCESS), (404, SUCCESS),
        (408, SUCCESS), (429, SUCCESS), (499, SUCCESS), (500, SERVER_ERROR), (501, SERVER_ERROR),
        (502, GATEWAY_ERROR), (503, GATEWAY_ERROR), (504, GATEWAY_ERROR), (505, SERVER_ERROR),
        (599, SERVER_ERROR),
    ],
)  # fmt: skip
def test_answers(status: int, expected: int) -> None:
    """A client's mistake is none of the server's; who cannot be asked differs from who could not."""
    assert outcome(status, None, "") == expected


def test_grpc() -> None:
    """Its status counts where the HTTP status says 200 to everything."""
    expected = dict.fromkeys(range(17), SUCCESS) | {
        2: SERVER_ERROR, 4: GATEWAY_ERROR, 13: GATEWAY_ERROR, 14: GATEWAY_ERROR, 15: SERVER_ERROR,
    }  # fmt: skip
    assert {code: outcome(200, str(code), "") for code in range(17)} == expected
    assert outcome(200, "-", "") == SUCCESS
    assert outcome(503, "-", "") == GATEWAY_ERROR


def test_every_code_of_a_failed_attempt_is_known() -> None:
    """What the proxy itself lacks, or the client has done, is not held against the server."""
    ours = {
        code
        for code in REFUSALS
        if outcome(0, None, code) == NOTHING
    }  # fmt: skip
    assert ours == {
        "downstream-closed", "overflow", "not-ready", "fields-too-large", "body-timeout",
        "upgrade-not-supported", "overloaded", "memory-pressure", "access-denied",
    }  # fmt: skip
    assert outcome(200, "0", "upstream-closed") == LOCAL_FAILURE


def test_who_sheds_load_says_so() -> None:
    """In a field of the mesh, like any refusal."""
    assert shed([field(b"x-mesh-refusal", b"overloaded")])
    assert not shed([field(b"x-mesh-refusal", b"connect-failed")])
    assert shed([field(b"x-mesh-refusal", b"overflow")])
    assert not shed([])


def test_what_a_proved_peer_has_refused_for_no_fault_of_its_app() -> None:
    """It has enough to do, or the client did not deliver; all else may be its app's."""
    for code in REFUSALS:
        excused = excuse([field(b"x-mesh-refusal", code.encode())])
        assert bool(excused) == (
            code in ("overloaded", "overflow", "body-timeout", "memory-pressure")
        )
        assert not excused or outcome(503, "4", excused) == NOTHING
    assert excuse(None) == excuse([]) == ""


def test_an_answer_that_time_is_up() -> None:
    """By either status; and of who was in a hurry, it proves nothing."""
    assert is_late(504, None)
    assert is_late(200, "4")
    assert not is_late(503, "14")
    assert outcome(504, "4", HURRIED) == NOTHING
    assert not shed(None)
