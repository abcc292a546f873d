"""What one request has of session and key."""

from meshproxy.contract.policies import SessionPersistenceSpec
from meshproxy.message import Field, RequestHead, field
from meshproxy.policies.load_balancing.affinity import Affinity
from meshproxy.policies.load_balancing.session import Session
from meshproxy.policies.load_balancing.tokens import Tokens
from tests.helpers.balancing import Server

TOKENS = Tokens(b"s" * 32, lambda: 1_700_000_000.0)
SESSION = Session(SessionPersistenceSpec(name="shop", type="header"))
ONE, OTHER = Server(name="10.0.0.1:80"), Server(name="10.0.0.2:80")


def affinity(*fields: Field, session: Session | None = SESSION) -> Affinity[Server]:
    head = RequestHead(b"GET", b"shop", b"/", list(fields))
    return Affinity(head, "rule", session, TOKENS)


def test_a_new_session() -> None:
    """The first answer names who gave it, and the next request asks for it."""
    new = affinity()
    assert new.wanted() is None
    (name, token, _), = new.answer(ONE)  # fmt: skip
    assert affinity(field(name, token)).wanted() == TOKENS.id_of(ONE.name)


def test_a_session_that_goes_on_is_not_told_again() -> None:
    """Only when another endpoint has answered."""
    going_on = affinity()
    going_on.endpoint = ONE
    assert going_on.answer(ONE) == []
    (name, token, _), = going_on.answer(OTHER)  # fmt: skip
    assert affinity(field(name, token)).wanted() == TOKENS.id_of(OTHER.name)


def test_the_cookie_of_a_key() -> None:
    """Is given with the answer, whoever gives it; there need not be a session."""
    cookie = field(b"Set-Cookie", b"a=1")
    hashed = affinity(session=None)
    hashed.hashed(7, cookie)
    assert (hashed.key, hashed.answer(ONE)) == (7, [cookie])
    hashed.hashed(None, None)
    assert (hashed.key, hashed.answer(ONE)) == (None, [])
