"""What a refusal looks like to the client."""

import json

import pytest

from meshproxy.local_reply import local_reply
from meshproxy.message import RequestHead, field, value_of
from meshproxy.refusal import REFUSALS, refusal

HOP = "outbound of default/storefront"


def request(**fields: str) -> RequestHead:
    lines = [field(k.replace("_", "-").encode(), v.encode()) for k, v in fields.items()]
    return RequestHead(b"GET", b"catalog", b"/", lines)


@pytest.mark.parametrize("code", REFUSALS)
def test_every_refusal_is_one_plain_sentence_with_its_code(code: str) -> None:
    """Status and code come from the table; hop and attempt say where and after how much."""
    why = refusal(code)
    head, body = local_reply(why, request(), hop=HOP, attempt=2)

    assert (head.status, head.length) == (why.status, len(body))
    assert value_of(head.fields, b"x-mesh-refusal") == code.encode()
    expected = f"{why.sentence} ({code}, {why.flag}; {HOP} after attempt 2)\n"
    assert expected == body.decode()


def test_without_an_attempt_none_is_spoken_of() -> None:
    """A request that could not be read has neither head nor attempts."""
    head, body = local_reply(refusal("malformed-request"), None, hop=HOP, attempt=0)

    assert head.status == 400
    assert body.endswith(b"(malformed-request, DPE; outbound of default/storefront)\n")


def test_json_for_who_asks_for_it() -> None:
    """`Accept: application/json` gets the same facts as an object."""
    asked = request(accept="text/html, application/json")
    head, body = local_reply(refusal("no-route"), asked, hop=HOP, attempt=0)

    assert value_of(head.fields, b"content-type") == b"application/json"
    facts = json.loads(body)
    assert facts.pop("message") == refusal("no-route").sentence
    assert facts == {"code": "no-route", "flag": "NR", "hop": HOP, "attempt": 0}


@pytest.mark.parametrize("kind", ["application/grpc", "application/grpc+proto"])
def test_grpc_callers_get_a_grpc_status(kind: str) -> None:
    """HTTP 200, no body, and the status where gRPC looks for it ("Trailers-Only")."""
    asked = request(content_type=kind)
    head, body = local_reply(refusal("connect-failed"), asked, hop=HOP, attempt=1)

    assert (head.status, head.length, body) == (200, 0, b"")
    assert value_of(head.fields, b"grpc-status") == b"14"
    assert (value_of(head.fields, b"grpc-message") or b"").startswith(b"connect-failed: ")
    assert value_of(head.fields, b"x-mesh-refusal") == b"connect-failed"


@pytest.mark.parametrize(
    "fields", [{}, {"accept": "application/json"}, {"content_type": "application/grpc"}]
)
def test_a_detail_belongs_to_the_sentence(fields: dict[str, str]) -> None:
    """What of this request made it so is told in each form; code and sentence stay."""
    head, body = local_reply(
        refusal("no-route"), request(**fields), hop=HOP, attempt=0, detail="nowhere is not known"
    )

    said = body + (value_of(head.fields, b"grpc-message") or b"")
    assert b"No route matches this request: nowhere is not known." in said
    assert value_of(head.fields, b"x-mesh-refusal") == b"no-route"
