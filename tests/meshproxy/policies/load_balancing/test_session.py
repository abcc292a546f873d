"""Sessions: how a token travels."""

import pytest

from meshproxy.contract.policies import SessionPersistenceSpec
from meshproxy.contract.wire import ContractError
from meshproxy.message import Field, RequestHead, field
from meshproxy.policies.load_balancing.session import Session
from meshproxy.policies.load_balancing.tokens import Tokens

RULE = "HTTPRoute/default/shop/0"


class Clock:
    time = 1_700_000_000.0

    def __call__(self) -> float:
        return self.time


def request(*fields: Field, scheme: bytes = b"http") -> RequestHead:
    return RequestHead(b"GET", b"shop", b"/", list(fields), scheme=scheme)


def sessions(path: bytes = b"", **options: object) -> tuple[Session, Tokens, Clock]:
    clock = Clock()
    spec = SessionPersistenceSpec(name="Shop", **options)  # type: ignore[arg-type]
    return Session(spec, path), Tokens(b"s" * 32, clock), clock


def test_a_cookie_there_and_back() -> None:
    """What the answer sets, the next request brings."""
    session, tokens, _ = sessions(b"/shop")
    named = tokens.id_of("10.0.0.1:80")
    name, value, _ = session.begin(named, request(), RULE, tokens)
    pair, _, attributes = value.partition(b";")
    assert (name, attributes) == (b"set-cookie", b" Path=/shop; HttpOnly; SameSite=Strict")
    head = request(field(b"Cookie", b"other=1; " + pair))
    assert session.read(head, RULE, tokens) == named
    assert session.read(head, "another rule", tokens) is None
    assert session.read(request(), RULE, tokens) is None


def test_a_header_there_and_back() -> None:
    """Clients that are no browsers repeat it themselves."""
    session, tokens, _ = sessions(type="header")
    named = tokens.id_of("10.0.0.1:80")
    name, token, line = session.begin(named, request(), RULE, tokens)
    assert (name, line) == (b"shop", b"Shop: " + token)
    assert session.read(request(field(b"SHOP", token)), RULE, tokens) == named


def test_a_session_ends_whatever_the_client_does() -> None:
    """A client that keeps its cookie for longer than it should begins anew."""
    session, tokens, clock = sessions(absolute_timeout=60_000)
    _, value, _ = session.begin(tokens.id_of("a"), request(), RULE, tokens)
    assert b"Max-Age" not in value  # "through a different mechanism", says GEP-1619
    head = request(field(b"Cookie", value.partition(b";")[0]))
    clock.time += 59
    assert session.read(head, RULE, tokens) is not None
    clock.time += 2
    assert session.read(head, RULE, tokens) is None


def test_a_permanent_cookie_says_how_long() -> None:
    """And is sent only over TLS, where it came by TLS."""
    session, tokens, _ = sessions(absolute_timeout=90_500, permanent=True)
    head = request(scheme=b"https")
    _, value, _ = session.begin(tokens.id_of("a"), head, RULE, tokens)
    assert value.endswith(b"; Max-Age=90; HttpOnly; SameSite=Strict; Secure")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "a b"}, "routes.0..session.name: expected the name of a cookie, got 'a b'"),
        ({"name": "a;", "type": "header"}, "name: expected the name of a header"),
        ({"name": "é"}, "name: expected the name of a cookie"),
        ({"name": "a", "permanent": True}, "absolute_timeout: is missing"),
    ],
)
def test_what_cannot_be_obeyed(options: dict[str, object], message: str) -> None:
    """The error says which field."""
    with pytest.raises(ContractError, match=message):
        Session(SessionPersistenceSpec(**options), where="routes[0].session")  # type: ignore[arg-type]
