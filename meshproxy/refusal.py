"""
Every response that the proxy makes itself, in one table.

A refusal says what happened (a stable code), whose fault it is (the status), what operators of
other meshes call it (Envoy's response flag), and whether the request may already have been
executed: `processed` is False only where the proxy can prove that it was not.  So 503 means
"not executed, safe to repeat" and 502 means "unknown".

`docs/refusals.md` is checked against this table.  This module imports nothing of ours.
"""

from typing import NamedTuple


class Refusal(NamedTuple):
    """
    One reason for the proxy to answer instead of the service.

    Attributes:
        code: Stable name, sent as ``x-mesh-refusal`` and used as a metric label.
        status: HTTP status (RFC 9110 section 15).
        grpc_status: gRPC status code number, for gRPC callers.
        flag: Response flag as in Envoy's access log, or ``-``.
        processed: False when the request provably did not reach the service.
        sentence: What happened, in plain English.
    """

    code: str
    status: int
    grpc_status: int
    flag: str
    processed: bool
    sentence: str


_TABLE = (
    # The request itself
    Refusal("malformed-request", 400, 13, "DPE", False, "The request is not valid HTTP."),
    Refusal("fields-too-large", 431, 8, "DPE", False, "The header fields of the request are too large."),
    Refusal("target-too-long", 414, 8, "DPE", False, "The request target is too long."),
    Refusal("version-not-supported", 505, 12, "DPE", False, "This version of HTTP is not supported."),
    Refusal("head-timeout", 408, 4, "DPE", False, "The request head did not arrive in time."),
    Refusal("body-timeout", 408, 4, "DPE", True, "The rest of the request body did not arrive in time."),
    Refusal("not-implemented", 501, 12, "DPE", False, "The proxy does not offer what the request asks for."),
    Refusal("connection-abused", 429, 8, "DPE", False, "The connection was used for much that is no request."),
    Refusal("proxy-overloaded", 503, 14, "OM", False, "This proxy has no room for more connections."),
    # Where it should go
    Refusal("no-route", 404, 12, "NR", False, "No route matches this request."),
    Refusal("misdirected", 421, 14, "NR", False, "The tunnel was asked for another place than the one it leads to."),
    Refusal("unknown-destination", 502, 12, "NR", False, "This address is no service of the mesh, and others are not to be called."),
    Refusal("loop", 508, 12, "NR", False, "The request goes in a circle."),
    Refusal("unresolved-backend", 500, 14, "NC", False, "The route points to a backend that does not exist."),
    Refusal("not-ready", 503, 14, "NC", False, "The proxy has no configuration or no certificate yet."),
    # Whether it may pass
    Refusal("invalid-token", 401, 16, "UAEX", False, "The request's token proves nothing."),
    Refusal("access-denied", 403, 7, "UAEX", False, "Access denied."),
    Refusal("mtls-required", 403, 16, "UAEX", False, "This port accepts mutual TLS only."),
    # Shaped on its way
    Refusal("rate-limited", 429, 8, "RL", False, "The caller asks for more than it may."),
    Refusal("fault-injected", 503, 14, "FI", False, "This fault was injected on purpose."),
    Refusal("overloaded", 503, 14, "OM", False, "The service has as many requests as it can work on."),
    # Getting there
    Refusal("no-healthy-endpoint", 503, 14, "UH", False, "The service has no endpoint that can be called."),
    Refusal("identity-revoked", 503, 14, "UH", False, "The identity of the service has been revoked."),
    Refusal("circuit-open", 503, 14, "UO", False, "The service has failed too often and is left alone for a while."),
    Refusal("overflow", 503, 14, "UO", False, "As much goes on with the service as may go on at once."),
    Refusal("connect-failed", 503, 14, "UF", False, "No connection to the endpoint could be made."),
    Refusal("connect-timeout", 503, 14, "UF", False, "Connecting to the endpoint took too long."),
    Refusal("handshake-failed", 503, 14, "UF", False, "The TLS handshake with the endpoint failed."),
    Refusal("peer-identity-mismatch", 503, 14, "UF", False, "The endpoint proved another identity than the one expected."),
    Refusal("upgrade-not-supported", 501, 12, "UPE", False, "The endpoint cannot switch protocols over HTTP/2."),
    Refusal("stream-refused", 503, 14, "UR", False, "The endpoint refused the request before it looked at it."),
    # Coming back
    Refusal("upstream-closed", 502, 14, "UC", True, "The endpoint closed the connection before it answered in full."),
    Refusal("upstream-reset", 502, 14, "UR", True, "The endpoint gave up the request before it answered in full."),
    Refusal("upstream-protocol-error", 502, 13, "UPE", True, "The endpoint's answer is not valid HTTP."),
    Refusal("retry-failed", 502, 14, "URX", True, "One attempt failed that may have been executed, and a further one could not be made."),
    Refusal("attempt-timeout", 504, 4, "UT", True, "The endpoint did not answer in the time that one attempt has."),
    Refusal("stream-idle", 504, 4, "SI", True, "Nothing of the request or its answer has moved for too long."),
    Refusal("memory-pressure", 502, 8, "OM", True, "This proxy was short of memory, and nothing of this had moved for longer than of others."),
    Refusal("duration-exceeded", 504, 4, "UMSDR", True, "Request and answer together took longer than is allowed."),
    Refusal("deadline-exceeded", 504, 4, "UT", True, "The time that the caller allowed has passed."),
    # Across the app
    Refusal("caller-gone", 499, 1, "DC", True, "The client of the request that this call is made for has gone."),
    # Never sent: the client had gone, or was being answered already
    Refusal("downstream-closed", 499, 1, "DC", True, "The client closed the connection before it was answered."),
)  # fmt: skip

REFUSALS: dict[str, Refusal] = {refusal.code: refusal for refusal in _TABLE}


def refusal(code: str) -> Refusal:
    """
    Return the refusal named `code`.

    Raises:
        KeyError: There is no such refusal; codes are literals in our own code.
    """
    return REFUSALS[code]
