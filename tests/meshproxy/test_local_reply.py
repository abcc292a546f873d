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
    """Status and code come from the table; the hop says where, and what was sent how often."""
    why = refusal(code)
    head, body = local_reply(why, request(), hop=HOP, attempts=2, sent=2)

    assert (head.status, head.length) == (why.status, len(body))
    assert value_of(head.fields, b"x-mesh-refusal") == code.encode()
    expected = f"{why.sentence} ({code}, {why.flag}; {HOP}, sent 2 times)\n"
    assert expected == body.decode()


@pytest.mark.parametrize(
    ("attempts", "sent", "told"),
    [
        (0, 0, ", not sent"),
        (1, 0, ", not sent"),
        (3, 0, ", not sent in 3 attempts"),
        (1, 1, ", sent once"),
        (3, 1, ", sent once in 3 attempts"),
        (3, 2, ", sent 2 times in 3 attempts"),
        (3, 3, ", sent 3 times"),
        (0, None, ""),
    ],
)
def test_it_says_how_often_the_request_was_sent(attempts: int, sent: int | None, told: str) -> None:
    """Not how often somebody tried; and nothing where nobody knows."""
    why = refusal("connect-failed")
    _, body = local_reply(why, None, hop=HOP, attempts=attempts, sent=sent)
    assert body.decode().endswith(f"(connect-failed, UF; {HOP}{told})\n")

    asked = request(accept="application/json")
    _, body = local_reply(why, asked, hop=HOP, attempts=attempts, sent=sent)
    facts = json.loads(body)
    assert facts.get("sent") == sent
    assert facts.get("attempts") == (None if sent is None else attempts)


def test_what_could_not_be_read_was_not_sent() -> None:
    """There is no head, and there were no attempts."""
    head, body = local_reply(refusal("malformed-request"), None, hop=HOP)

    assert head.status == 400
    assert body.endswith(b"(malformed-request, DPE; outbound of default/storefront, not sent)\n")


def test_json_for_who_asks_for_it() -> None:
    """`Accept: application/json` gets the same facts as an object."""
    asked = request(accept="text/html, application/json")
    head, body = local_reply(refusal("no-route"), asked, hop=HOP)

    assert value_of(head.fields, b"content-type") == b"application/json"
    facts = json.loads(body)
    assert facts.pop("message") == refusal("no-route").sentence
    assert facts == {"code": "no-route", "flag": "NR", "hop": HOP, "attempts": 0, "sent": 0}


@pytest.mark.parametrize("kind", ["application/grpc", "application/grpc+proto"])
def test_grpc_callers_get_a_grpc_status(kind: str) -> None:
    """HTTP 200, no body, and the status where gRPC looks for it ("Trailers-Only")."""
    asked = request(content_type=kind)
    head, body = local_reply(refusal("connect-failed"), asked, hop=HOP, attempts=1)

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
        refusal("no-route"), request(**fields), hop=HOP, detail="nowhere is not known"
    )

    said = body + (value_of(head.fields, b"grpc-message") or b"")
    assert b"No route matches this request: nowhere is not known." in said
    assert value_of(head.fields, b"x-mesh-refusal") == b"no-route"
