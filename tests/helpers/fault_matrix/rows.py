"""The matrix.  `docs/resilience.md` shows it; `tests/integration/test_fault_matrix.py` tries it."""

from collections.abc import Mapping

from meshproxy.contract.policies import RetrySpec

from .row import Lane, Policy, Row

DEFAULTS = Policy("defaults", "Nothing is configured: what provably was not processed is repeated.")

REFUSED = {"stream-refused": 2}
HTTP1_ONLY: Mapping[Lane, str | None] = {"http2": None, "grpc": None}
HTTP2_ONLY: Mapping[Lane, str | None] = {"http1": None}
GRPC_ONLY: Mapping[Lane, str | None] = {"http1": None, "http2": None}

OF_DEFAULTS = (
    # Getting there
    Row(
        "nobody listens", "", "connect-failed",
        mode="closed", executed=0, retried={"connect-failed": 2},
    ),
    Row(
        "connections are accepted and reset", "", "upstream-closed or connect-failed",
        mode="reset", executed=0,
    ),
    Row("connections are accepted, and nothing more", "", "waits", mode="silent", executed=0),
    # Before the work
    Row("reset when the head has been read", "at=request do=reset", "upstream-closed", executed=0),
    Row(
        "the same, but the work is done",
        "at=request do=reset executes", "upstream-closed", executed=1,
    ),
    Row(
        "reset amid the request's body",
        "at=request+5000 do=reset", "upstream-closed", body=1_000_000, executed=0,
    ),
    Row("stalls when the head has been read", "at=request do=stall", "waits", executed=0),
    Row(
        "REFUSED_STREAM, once", "at=request do=rst:7 first=1", "200",
        lanes=HTTP2_ONLY, retried={"stream-refused": 1},
    ),
    Row(
        "REFUSED_STREAM, always", "at=request do=rst:7", "stream-refused",
        lanes=HTTP2_ONLY, executed=0, retried=REFUSED,
    ),
    Row(
        "REFUSED_STREAM, for a body too large to be kept",
        "at=request+70000 do=rst:7", "stream-refused",
        lanes=HTTP2_ONLY, body=100_000, executed=0, skipped={"body-too-large": 1},
    ),
    Row(
        "GOAWAY below the request, once", "at=request do=goaway first=1", "200",
        lanes=HTTP2_ONLY, retried={"stream-refused": 1},
    ),
    Row("GOAWAY at the request", "at=head do=leave", "200", lanes=HTTP2_ONLY),
    Row(
        "the stream is reset with INTERNAL_ERROR",
        "at=request do=rst:2", "upstream-reset", lanes=HTTP2_ONLY, executed=0,
    ),
    # On a connection that has served before: perhaps it was on its way out when it was used again
    Row(
        "a reused connection is closed unread, GET",
        "at=request do=close reused first=1", "200",
        method="GET", after=1, retried={"upstream-closed": 1},
    ),
    Row(
        "a reused connection is closed unread, POST",
        "at=request do=close reused first=1", "upstream-closed", after=1, executed=0,
        skipped={"not-idempotent": 1},
    ),
    # The answer's head
    Row("closed before the answer", "at=head do=close", "upstream-closed"),
    Row("reset before the answer", "at=head do=reset", "upstream-closed"),
    Row("closed amid the answer's head", "at=head+8 do=close", "upstream-closed"),
    Row("reset amid the answer's head", "at=head+8 do=reset", "upstream-closed"),
    Row("stalls before the answer", "at=head do=stall", "waits"),
    Row("stalls amid the answer's head", "at=head+8 do=stall", "waits"),
    Row("the answer's head is slow", "at=head pace=1", "200"),
    Row(
        "no HTTP instead of an answer", "at=head do=garbage", "upstream-protocol-error",
        lanes={"http2": "upstream-closed", "grpc": "upstream-closed"},
    ),
    # The answer's body
    Row("closed amid the answer's body", "at=body+10 do=close", "torn", flag="UC"),
    Row("reset amid the answer's body", "at=body+10 do=reset", "torn", flag="UC"),
    Row(
        "the stream is reset amid the answer's body",
        "at=body+10 do=rst:2", "torn", lanes=HTTP2_ONLY, flag="UR",
    ),
    Row("stalls amid the answer's body", "at=body+10 do=stall", "waits"),
    Row("the answer's body is slow", "at=body pace=1 size=20", "200"),
    Row(
        "closed before the last chunk", "framing=chunked at=end do=close", "torn",
        lanes=HTTP1_ONLY, flag="UC",
    ),
    Row(
        "closed before the status, or the end of the stream", "at=end do=close", "torn",
        lanes=HTTP2_ONLY, flag="UC",
    ),
    # Lengths that are not true
    Row(
        "fewer bytes than Content-Length, then closed",
        "length=+5 at=end do=close", "torn", lanes={"grpc": None}, flag="UC",
    ),
    Row(
        "more bytes than Content-Length",
        "length=-5", "200",
        lanes={"http2": "torn", "grpc": None}, flag={"http1": "-", "http2": "UPE"},
    ),
    Row("chunks that are shorter than they say", "framing=lie", "torn", lanes=HTTP1_ONLY, flag="UPE"),
    Row("bytes behind the answer", "at=end do=garbage", "200", lanes=HTTP1_ONLY),
    # What the app says is not touched
    Row("answers 503", "status=503", "503", lanes={"grpc": None}),
    Row("answers 500", "status=500", "500", lanes={"grpc": None}),
    Row("answers 429 with Retry-After", "status=429 retry-after=1", "429", lanes={"grpc": None}),
    Row("answers UNAVAILABLE", "grpc=14", "14", lanes=GRPC_ONLY),
    Row(
        "answers UNAVAILABLE in the head (Trailers-Only)",
        "grpc=14 only", "14", lanes=GRPC_ONLY,
    ),
)  # fmt: skip

# The same failures, where the policy asks once more ---------------------------------------------

RETRIES = Policy(
    "retries",
    "Retries of 503, 429 and UNAVAILABLE are asked for (`codes`, `conditions`), three tries in all.",
    route={
        "retry": RetrySpec(codes=(503, 429), conditions=("grpc-unavailable",), max_backoff=1_500)
    },
)

HTTP: Mapping[Lane, str | None] = {"grpc": None}

OF_RETRIES = (
    Row(
        "answers 503 once, GET", "status=503 first=1", "200",
        method="GET", executed=2, retried={"503": 1},
    ),
    Row(
        "answers 503 always, GET", "status=503", "503",
        method="GET", executed=3, retried={"503": 2},
    ),
    Row(
        "answers 503 once, GET, in chunks", "status=503 first=1 framing=chunked size=5000", "200",
        lanes=HTTP1_ONLY, method="GET", executed=2, retried={"503": 1},
    ),
    Row(
        "answers 503 once, POST", "status=503 first=1", "503",
        lanes=HTTP, skipped={"not-idempotent": 1},
    ),
    Row(
        "answers 503 once, POST with Idempotency-Key", "status=503 first=1", "200",
        lanes=HTTP, fields={"idempotency-key": '"1"'}, body=1_000, executed=2, retried={"503": 1},
    ),
    Row(
        "the same, but its body is too large to be kept", "status=503 first=1", "503",
        lanes=HTTP, fields={"idempotency-key": '"1"'}, body=100_000, skipped={"body-too-large": 1},
    ),
    Row(
        "answers 429 and wants a second, GET", "status=429 retry-after=1 first=1", "200",
        method="GET", executed=2, retried={"429": 1},
    ),
    Row(
        "answers 429 and wants a minute, GET", "status=429 retry-after=60 first=1", "429",
        method="GET", skipped={"retry-after": 1},
    ),
    Row("answers 500, GET", "status=500 first=1", "500", method="GET"),
    Row(
        "closed amid the answer's body, GET", "at=body+10 do=close", "torn",
        method="GET", flag="UC",
    ),
    Row(
        "answers UNAVAILABLE in the head once (Trailers-Only)", "grpc=14 only first=1", "200",
        lanes=GRPC_ONLY, executed=2, retried={"grpc-14": 1},
    ),
    Row(
        "answers UNAVAILABLE in the head always", "grpc=14 only", "14",
        lanes=GRPC_ONLY, executed=3, retried={"grpc-14": 2},
    ),
    Row("answers UNAVAILABLE after a message", "grpc=14 first=1", "14", lanes=GRPC_ONLY),
)  # fmt: skip

MATRIX: tuple[tuple[Policy, tuple[Row, ...]], ...] = (
    (DEFAULTS, OF_DEFAULTS),
    (RETRIES, OF_RETRIES),
)
