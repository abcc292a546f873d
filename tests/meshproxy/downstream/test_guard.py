"""What a guard says, counts and notes; what it decides is tested with the policies."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from joserfc import jwt as tokens
from joserfc.jwk import ECKey

from meshproxy.contract.authentication import JwtSpec
from meshproxy.contract.authorization import (
    AuthorizationRuleSpec,
    AuthorizationSpec,
    FactSpec,
    OperationSpec,
    SourceSpec,
)
from meshproxy.downstream.guard import REMEMBERED, Guard
from meshproxy.message import RequestHead, field, value_of
from meshproxy.policies.authorization import Authorization, Source
from meshproxy.policies.jwt import Jwt
from meshproxy.telemetry.denials import Denials
from meshproxy.telemetry.metrics import Metrics

WEB = "spiffe://mesh.local/ns/shop/sa/web"
NOW = 1_800_000_000.0
KEY = ECKey.generate_key("P-256", {"kid": "1"})


class Client(NamedTuple):
    address: str


HERE = Client("10.0.0.7")


class Environment:
    def __init__(self) -> None:
        self.metrics = Metrics()
        self.wall: Callable[[], float] = lambda: NOW
        self.denials = Denials(lambda: 0.0, self.wall)

    def shown(self, name: str) -> list[str]:
        text = self.metrics.render(0.0).decode()
        return [line for line in text.splitlines() if line.startswith(name + "_total")]


def guard(environment: Environment, *policies: AuthorizationSpec, jwt: bool = False) -> Guard:
    standing = Authorization(policies).standing(Source.of(WEB)) if policies else None
    keys = json.dumps({"keys": [KEY.as_dict(private=False)]})
    issuer = JwtSpec(name="shop/users", issuer="https://id.example", keys=keys)
    return Guard(environment, WEB, standing, Jwt((issuer,)) if jwt else None)


def policy(action: Any, operation: OperationSpec, **rule: Any) -> AuthorizationSpec:
    one = AuthorizationRuleSpec(name="rule", operations=(operation,), **rule)
    return AuthorizationSpec(name=f"shop/{action}", action=action, rules=(one,))


ADMIN = OperationSpec(paths=("/admin*",))
ANY = OperationSpec(paths=("/*",))


def test_what_is_denied_is_counted_and_noted() -> None:
    """With the rule, and without the query, where secrets are."""
    environment = Environment()
    subject = guard(environment, policy("deny", ADMIN))
    assert subject.stop(RequestHead(b"GET", b"shop", b"/", []), HERE) is None
    stopped = subject.stop(RequestHead(b"GET", b"shop", b"/admin?key=secret", []), HERE)
    assert stopped is not None
    code, number, fields = stopped
    assert (code, fields) == ("access-denied", ())
    [denial] = environment.denials.found(number)
    assert (denial["source"], denial["path"]) == (WEB, "/admin")
    assert (denial["policy"], denial["rule"]) == ("shop/deny", "rule")
    assert environment.shown("mesh_authorization_denied") == [
        'mesh_authorization_denied_total{policy="shop/deny"} 1.0'
    ]


def test_what_would_have_been_denied_is_counted_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And passes."""
    environment = Environment()
    subject = guard(environment, policy("audit", ADMIN))
    assert subject.stop(RequestHead(b"GET", b"shop", b"/admin", []), HERE) is None
    assert environment.shown("mesh_authorization_audited") == [
        'mesh_authorization_audited_total{policy="shop/audit"} 1.0'
    ]
    assert environment.denials.found() == []
    assert "would be denied: 'GET shop/admin'" in caplog.text
    assert "rule 'rule' of AUDIT AuthorizationPolicy shop/audit" in caplog.text


def test_connections() -> None:
    """The same for what has no requests."""
    environment = Environment()
    assert guard(environment, policy("deny", ADMIN)).stop_connection(HERE)
    assert not guard(environment, policy("audit", ADMIN)).stop_connection(HERE)
    assert not guard(environment).stop_connection(HERE)
    assert [denial["method"] for denial in environment.denials.found()] == [""]


def test_tokens_bring_facts_for_the_policies() -> None:
    """A wrong one is refused whatever these say, and the app sees none of it."""
    environment = Environment()
    wanted = FactSpec(kind="claim", path=("role",), values=("admin",))
    subject = guard(environment, policy("allow", ANY, facts=(wanted,)), jwt=True)

    def ask(role: str, key: ECKey = KEY) -> tuple[str | None, RequestHead]:
        claims = {"iss": "https://id.example", "exp": NOW + 60, "role": role}
        token = tokens.encode({"alg": "ES256", "kid": "1"}, claims, key, algorithms=["ES256"])
        line = field(b"Authorization", b"Bearer " + token.encode())
        head = RequestHead(b"GET", b"shop", b"/", [line])
        stopped = subject.stop(head, HERE)
        return (None if stopped is None else stopped[0]), head

    code, head = ask("admin")
    assert code is None
    assert value_of(head.fields, b"authorization") is None
    assert ask("user")[0] == "access-denied"
    assert ask("admin", ECKey.generate_key("P-256", {"kid": "1"}))[0] == "invalid-token"
    assert environment.denials.found()[0]["reason"] == "no key of the issuer has signed the token"
    nothing = subject.stop(RequestHead(b"GET", b"shop", b"/", []), HERE)
    assert nothing is not None
    assert nothing[0] == "access-denied"


def test_a_wrong_token_is_challenged() -> None:
    """RFC 9110 section 15.5.2: a 401 says how to come again."""
    subject = guard(Environment(), jwt=True)
    stopped = subject.stop(
        RequestHead(b"GET", b"shop", b"/", [field(b"Authorization", b"Bearer x.y.z")]), HERE
    )
    assert stopped is not None
    code, _, fields = stopped
    assert code == "invalid-token"
    assert [one[0] for one in fields] == [b"www-authenticate"]


def test_addresses_are_looked_at_with_each_request() -> None:
    """One identity calls from many; what is remembered of them is bounded."""
    environment = Environment()
    inner = AuthorizationRuleSpec(sources=(SourceSpec(ip_blocks=("10.0.0.0/8",)),))
    policies = Authorization((AuthorizationSpec(name="shop/deny", action="deny", rules=(inner,)),))
    subject = Guard(
        environment, WEB, None, None, lambda address: policies.standing(Source.of(WEB, address))
    )
    head = RequestHead(b"GET", b"shop", b"/", [])
    for _ in range(2):
        assert subject.stop(head, HERE) is not None
        assert subject.stop(head, Client("192.0.2.1")) is None
        assert subject.stop(head, Client("")) is not None  # it has left; who knows where it was
    assert subject.stop_connection(HERE)
    for number in range(3 * REMEMBERED):
        subject.stop(head, Client(f"192.0.{number // 256}.{number % 256}"))
    assert len(subject._standings) <= REMEMBERED


def test_streams_are_judged_by_what_they_were_let_in_with() -> None:
    """What its token has proved holds, though the app has it now; one that nobody asked for is read."""
    environment = Environment()
    wanted = FactSpec(kind="claim", path=("role",), values=("admin",))
    policies = (policy("allow", ANY, facts=(wanted,)),)
    checked = guard(environment, *policies, jwt=True)

    def asked(role: str | None) -> RequestHead:
        if role is None:
            return RequestHead(b"GET", b"shop", b"/", [])
        claims = {"iss": "https://id.example", "exp": NOW + 60, "role": role}
        token = tokens.encode({"alg": "ES256", "kid": "1"}, claims, KEY, algorithms=["ES256"])
        line = field(b"Authorization", b"Bearer " + token.encode())
        return RequestHead(b"GET", b"shop", b"/", [line])

    before = asked("admin")
    assert checked.stop(before, HERE) is None
    assert before.fields == []  # the token stays here
    environment.wall = lambda: NOW + 3600
    assert checked.forbids(before, HERE) == ""
    environment.wall = lambda: NOW
    unread = asked("admin")
    assert guard(environment).stop(unread, HERE) is None
    assert checked.forbids(unread, HERE) == ""
    assert len(unread.fields) == 1
    for role in ("user", None):
        number = checked.forbids(asked(role), HERE)
        assert environment.denials.found(number)
    wrong = asked("admin")
    wrong.fields[0] = field(b"Authorization", b"Bearer x.y.z")
    assert checked.forbids(wrong, HERE)
    assert guard(environment).forbids(asked(None), HERE) == ""
    assert environment.shown("mesh_authorization_denied") == [
        'mesh_authorization_denied_total{policy="-"} 3.0'
    ]
