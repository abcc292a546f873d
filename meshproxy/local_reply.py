"""
What a refusal looks like to the client: a status, a stable code, and one plain sentence.

Text by default, JSON to who asks for it, a gRPC status to gRPC callers (whose status lives in
trailers; a response without a body carries it in its head: gRPC over HTTP/2, "Trailers-Only").
"""

from collections.abc import Sequence

from meshproxy.codec.grpc import CONTENT_TYPE, status_fields
from meshproxy.message import Field, Fields, RequestHead, ResponseHead, field, value_of
from meshproxy.refusal import Refusal

_TEXT = field(b"Content-Type", b"text/plain; charset=utf-8")
_JSON = field(b"Content-Type", b"application/json")
_GRPC = field(b"Content-Type", CONTENT_TYPE)


def local_reply(
    why: Refusal,
    request: RequestHead | None,
    *,
    hop: str,
    attempts: int = 0,
    sent: int | None = 0,
    detail: str = "",
    more: Sequence[Field] = (),
) -> tuple[ResponseHead, bytes]:
    """
    Return head and body of the answer.

    Args:
        why: The reason.
        request: What was asked, or None when it could not be read.
        hop: Which proxy refuses, in which role.
        attempts: How many were made.
        sent: Of these, how many have said anything of the request to anybody; None where that is
            not known.
        detail: What of this request made it so, in ASCII; never an address behind the proxy.
        more: Fields that tell the client what to do now, such as `Retry-After`.
    """
    message = f"{why.sentence.removesuffix('.')}: {detail}." if detail else why.sentence
    code = field(b"x-mesh-refusal", why.code.encode())
    if request is not None and _is_grpc(request):
        status = status_fields(why.grpc_status, f"{why.code}: {message} ({hop})")
        grpc: Fields = [_GRPC, *status, code, *more]
        return ResponseHead(200, grpc, length=0), b""
    if request is not None and b"json" in (value_of(request.fields, b"accept") or b""):
        import json  # few ask for it, and to load it takes two hundredths of a start

        facts = {"code": why.code, "flag": why.flag, "hop": hop}
        counts = {} if sent is None else {"attempts": attempts, "sent": sent}
        body = json.dumps({**facts, **counts, "message": message}).encode() + b"\n"
        return ResponseHead(why.status, [_JSON, code, *more], length=len(body)), body
    told = "" if sent is None else f", {_how_often(sent, attempts)}"
    body = f"{message} ({why.code}, {why.flag}; {hop}{told})\n".encode()
    return ResponseHead(why.status, [_TEXT, code, *more], length=len(body)), body


def _how_often(sent: int, attempts: int) -> str:
    """Say how many attempts were sent, and of how many, where that is another number."""
    often = {0: "not sent", 1: "sent once"}.get(sent, f"sent {sent} times")
    return often if attempts in (sent, 1) or not attempts else f"{often} in {attempts} attempts"


def _is_grpc(request: RequestHead) -> bool:
    content_type = value_of(request.fields, b"content-type")
    return content_type is not None and content_type.startswith(CONTENT_TYPE)
