"""Authorization: the rules of precedence, each condition, and that doubt never allows."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.contract.authorization import (
    AuthorizationRuleSpec,
    AuthorizationSpec,
    FactSpec,
    OperationSpec,
    SourceSpec,
)
from meshproxy.contract.wire import ContractError
from meshproxy.message import RequestHead, field
from meshproxy.policies.authorization import Authorization, Source, Standing
from tests.meshproxy.routing.test_readings import BELOW, SPELLINGS

WEB = "spiffe://mesh.local/ns/shop/sa/web"
STRANGER = "spiffe://other.example/ns/shop/sa/web"


def rule(
    *,
    source: SourceSpec | None = None,
    operation: OperationSpec | None = None,
    facts: tuple[FactSpec, ...] = (),
    name: str = "",
) -> AuthorizationRuleSpec:
    return AuthorizationRuleSpec(
        name=name,
        sources=() if source is None else (source,),
        operations=() if operation is None else (operation,),
        facts=facts,
    )


def policy(action: Any, *rules: AuthorizationRuleSpec, name: str = "") -> AuthorizationSpec:
    return AuthorizationSpec(name=name or f"shop/{action}", action=action, rules=rules)


def standing(
    *policies: AuthorizationSpec, identity: str | None = WEB, address: str = "10.0.0.7"
) -> Standing:
    return Authorization(policies).standing(Source.of(identity, address))


def get(path: str = "/", method: str = "GET", *fields: tuple[str, str]) -> RequestHead:
    made = [field(name.encode(), value.encode()) for name, value in fields]
    return RequestHead(method.encode(), b"catalog.shop:80", path.encode("latin-1"), made)


EVERYTHING = rule()
ADMIN = rule(operation=OperationSpec(paths=("/admin", "/admin/*")), name="admin")


# Which policy decides ----------------------------------------------------------------------------


def test_without_policies_everything_passes() -> None:
    """And nothing is looked at."""
    free = standing()
    assert free.free
    assert free.judge(get()).allowed
    assert free.judge_connection().allowed


def test_an_allow_policy_makes_the_rest_denied() -> None:
    """Default-allow ends with the first of them."""
    some = standing(policy("allow", rule(operation=OperationSpec(methods=("GET",)), name="read")))
    assert some.judge(get())[:3] == (True, "shop/allow", "read")
    assert some.judge(get(method="POST"))[:3] == (False, "", "")


def test_an_allow_policy_without_rules_denies_everything() -> None:
    """Empty is not missing."""
    nobody = standing(policy("allow"))
    assert not nobody.free
    assert not nobody.judge(get()).allowed
    assert not nobody.judge_connection().allowed


@pytest.mark.parametrize("action", ["deny", "audit"])
def test_the_others_without_rules_do_nothing(action: str) -> None:
    """An empty list never widens and never narrows by accident."""
    assert standing(policy(action)).free


def test_deny_wins() -> None:
    """Whatever allows, in whatever order they are written."""
    for both in (
        (policy("allow", EVERYTHING), policy("deny", ADMIN)),
        (policy("deny", ADMIN), policy("allow", EVERYTHING)),
    ):
        assert standing(*both).judge(get("/admin"))[:3] == (False, "shop/deny", "admin")
        assert standing(*both).judge(get("/other")).allowed


def test_audit_only_tells() -> None:
    """What DENY would have stopped, beside what was decided."""
    told = standing(policy("audit", ADMIN), policy("allow", EVERYTHING, name="shop/all"))
    assert told.judge(get("/admin")) == (True, "shop/all", "0", (("shop/audit", "admin"),))
    assert told.judge(get("/other")) == (True, "shop/all", "0", ())
    assert standing(policy("audit", ADMIN)).judge(get("/admin")) == (
        True,
        "",
        "",
        (("shop/audit", "admin"),),
    )


# Who ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "web", "stranger", "nobody"),
    [
        (SourceSpec(principals=(WEB,)), True, False, False),
        (SourceSpec(principals=("spiffe://mesh.local/*",)), True, False, False),
        (SourceSpec(principals=("*/sa/web",)), True, True, False),
        (SourceSpec(principals=("*",)), True, True, False),
        (SourceSpec(not_principals=(WEB,)), False, True, True),
        (SourceSpec(namespaces=("shop",)), True, True, False),
        (SourceSpec(not_namespaces=("shop",)), False, False, True),
        (SourceSpec(trust_domains=("mesh.local",)), True, False, False),
        (SourceSpec(not_trust_domains=("mesh.local",)), False, True, True),
        (SourceSpec(namespaces=("shop",), trust_domains=("mesh.local",)), True, False, False),
        (SourceSpec(ip_blocks=("10.0.0.0/8",)), True, True, True),
        (SourceSpec(ip_blocks=("192.168.0.1",)), False, False, False),
        (SourceSpec(not_ip_blocks=("10.0.0.7",)), False, False, False),
    ],
)  # fmt: skip
def test_who_is_meant(source: SourceSpec, web: bool, stranger: bool, nobody: bool) -> None:
    """Identities count only as proved; an unproved caller has none, no namespace, no domain."""
    allow = policy("allow", rule(source=source))
    for identity, expected in ((WEB, web), (STRANGER, stranger), (None, nobody)):
        assert standing(allow, identity=identity).judge(get()).allowed is expected
        assert standing(allow, identity=identity).free is expected


def test_addresses_of_ipv4_in_ipv6_are_the_same() -> None:
    """A dual-stack socket shows ::ffff:10.0.0.7: it must not slip past a block of IPv4."""
    deny = policy("deny", rule(source=SourceSpec(ip_blocks=("10.0.0.0/8",))))
    assert not standing(deny, address="::ffff:10.0.0.7").judge(get()).allowed
    assert Authorization((deny,)).by_address
    assert not Authorization((policy("deny", EVERYTHING),)).by_address


def test_a_connection_without_an_address_is_in_no_block() -> None:
    """Nor outside of one: who asks about addresses does not mean it."""
    for source in (SourceSpec(ip_blocks=("0.0.0.0/0",)), SourceSpec(not_ip_blocks=("1.1.1.1",))):
        allow = Authorization((policy("allow", rule(source=source)),))
        for address in (None, ""):  # a socket whose other end has gone has the second
            assert not allow.standing(Source.of(WEB, address)).judge(get()).allowed


# What --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "yes", "no"),
    [
        (OperationSpec(methods=("GET", "HEAD")), get(), get(method="get")),
        (OperationSpec(not_methods=("GET",)), get(method="PUT"), get()),
        (OperationSpec(paths=("/a*",)), get("/ab?x"), get("/b?/a")),
        (OperationSpec(paths=("/a/{*}",)), get("/a/b"), get("/a/b/c")),
        (OperationSpec(not_paths=("/a*",)), get("/b"), get("/a")),
        (OperationSpec(hosts=("catalog.shop",)), get(), RequestHead(b"GET", b"catalog", b"/", [])),
        (OperationSpec(hosts=("CATALOG.shop:80",)), get(), RequestHead(b"GET", b"catalog.shop:81", b"/", [])),
        (OperationSpec(hosts=("*.shop",)), RequestHead(b"GET", b"Catalog.Shop.", b"/", []), RequestHead(b"GET", b"shop", b"/", [])),
        (OperationSpec(paths=("/shop.Cart/Add",)), get("/shop.Cart/Add"), get("/shopXCart/Add")),
    ],
)  # fmt: skip
def test_what_is_meant(operation: OperationSpec, yes: RequestHead, no: RequestHead) -> None:
    """Hosts in any spelling of the same name, methods as they are, paths without their query."""
    allow = standing(policy("allow", rule(operation=operation)))
    assert allow.judge(yes).allowed
    assert not allow.judge(no).allowed


@pytest.mark.parametrize(
    ("operation", "authority", "meant"),
    [
        (OperationSpec(not_hosts=("admin.shop",)), b"admin.shop", False),
        (OperationSpec(not_hosts=("admin.shop",)), b"Admin.Shop.:8080", False),
        (OperationSpec(not_hosts=("admin.shop:8080",)), b"admin.shop:8080", False),
        (OperationSpec(not_hosts=("admin.shop:8080",)), b"admin.shop", True),
        (OperationSpec(not_hosts=("*.shop",)), b"admin.shop:8080", False),
        (OperationSpec(not_hosts=("admin.shop",)), b"catalog.shop", True),
        (OperationSpec(hosts=("*.shop",), not_hosts=("admin.shop",)), b"admin.shop", False),
    ],
)
def test_hosts_that_are_not_meant(operation: OperationSpec, authority: bytes, meant: bool) -> None:
    """With a port or without one: a host that is excluded in one spelling is in none."""
    head = RequestHead(b"GET", authority, b"/", [])
    assert standing(policy("allow", rule(operation=operation))).judge(head).allowed is meant
    assert standing(policy("deny", rule(operation=operation))).judge(head).allowed is not meant


@pytest.mark.parametrize(
    "authority", [b"", b"shop:x", b"[::1", b"*", b"catalog.shop..", b".catalog.shop"]
)
@pytest.mark.parametrize("side", ["hosts", "not_hosts"])
def test_an_authority_that_nobody_can_read(authority: bytes, side: str) -> None:
    """An app may take it for its own favourite host: it is never allowed, and always denied."""
    about = rule(operation=OperationSpec(**{side: ("catalog.shop",)}))
    head = RequestHead(b"GET", authority, b"/", [])
    assert not standing(policy("allow", about)).judge(head).allowed
    assert not standing(policy("deny", about)).judge(head).allowed


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_spelling_passes_a_denied_path(spelling: str) -> None:
    """Neither past a rule that denies it, nor into one that allows something else."""
    deny = standing(policy("deny", ADMIN))
    assert not deny.judge(get(spelling)).allowed
    allow = standing(policy("allow", rule(operation=OperationSpec(paths=("/x*", "/public*")))))
    assert not allow.judge(get(spelling)).allowed
    but = standing(policy("allow", rule(operation=OperationSpec(not_paths=("/admin*",)))))
    assert not but.judge(get(spelling)).allowed


@pytest.mark.parametrize("spelling", BELOW)
def test_what_climbs_out_of_a_denied_place_may_be_in_it(spelling: str) -> None:
    """To a server that does not look at dots, or does not merge slashes, it is below /admin."""
    assert not standing(policy("deny", ADMIN)).judge(get(spelling)).allowed


def test_a_path_of_too_many_readings_may_be_any() -> None:
    """Whoever denies by path means it, whoever allows by path does not; the others do not care."""
    path = "/a/..;%2f%252e//%3b%5c" * 700
    denied = standing(policy("deny", ADMIN)).judge(get(path))
    assert (denied.allowed, denied.rule) == (False, "admin")
    assert not standing(policy("allow", ADMIN)).judge(get(path)).allowed
    but = rule(operation=OperationSpec(not_paths=("/admin",)))
    assert not standing(policy("allow", but)).judge(get(path)).allowed
    assert not standing(policy("deny", but)).judge(get(path)).allowed
    by_method = rule(operation=OperationSpec(methods=("GET",)))
    assert standing(policy("allow", by_method)).judge(get(path)).allowed


@pytest.mark.parametrize("prefix", ["/public/..", "/public/%2e%2e", "/public;/..", "/public%2f.."])
def test_an_allowed_prefix_is_no_way_out(prefix: str) -> None:
    """All readings must be allowed, not the one that the caller likes best."""
    allow = standing(policy("allow", rule(operation=OperationSpec(paths=("/public*",)))))
    assert allow.judge(get("/public/a")).allowed
    assert not allow.judge(get(f"{prefix}/admin")).allowed


# Facts -------------------------------------------------------------------------------------------


TENANT = FactSpec(kind="header", name="X-Tenant", values=("blue",))


def test_headers() -> None:
    """A missing one is not the wanted one."""
    allow = standing(policy("allow", rule(facts=(TENANT,))))
    assert allow.judge(get("/", "GET", ("x-tenant", "blue"))).allowed
    assert not allow.judge(get("/", "GET", ("x-tenant", "red"))).allowed
    assert not allow.judge(get()).allowed


def test_a_header_sent_twice_helps_nobody() -> None:
    """Who allows wants all lines right; who denies needs one (CVE-2020-25017)."""
    twice = get("/", "GET", ("x-tenant", "blue"), ("x-tenant", "red"))
    assert not standing(policy("allow", rule(facts=(TENANT,)))).judge(twice).allowed
    assert not standing(policy("deny", rule(facts=(TENANT,)))).judge(twice).allowed
    never = FactSpec(kind="header", name="x-tenant", not_values=("blue",))
    assert not standing(policy("allow", rule(facts=(never,)))).judge(twice).allowed
    assert not standing(policy("deny", rule(facts=(never,)))).judge(twice).allowed


@pytest.mark.parametrize(
    ("path", "values", "claims", "allowed"),
    [
        (("group",), ("a",), {"group": "a"}, True),
        (("group",), ("a",), {"group": ["b", "a"]}, True),
        (
            (
                "realm",
                "roles",
            ),
            ("a*",),
            {"realm": {"roles": ["abc"]}},
            True,
        ),
        (("level",), ("7",), {"level": 7}, True),
        (("ok",), ("true",), {"ok": True}, True),
        (("group",), ("a",), {"group": "b"}, False),
        (("group",), ("a",), {"group": {"a": 1}}, False),
        (("group",), ("a",), {}, False),
        (("group",), ("a",), None, False),
        (
            (
                "group",
                "x",
            ),
            ("a",),
            {"group": "a"},
            False,
        ),
        (("https://a.b/c",), ("x",), {"https://a.b/c": "x"}, True),
    ],
)
def test_claims(path: tuple[str, ...], values: tuple[str, ...], claims: Any, allowed: bool) -> None:
    """Of lists, one must match; without a token nothing is claimed."""
    fact = FactSpec(kind="claim", path=path, values=values)
    allow = standing(policy("allow", rule(facts=(fact,))))
    assert allow.judge(get(), claims).allowed is allowed


@pytest.mark.parametrize(
    ("groups", "meant"),
    [
        (["staff"], True),
        (["staff", "banned"], False),
        (["banned"], False),
        ([], True),
        (None, True),
    ],
)
def test_claims_that_are_not_meant(groups: list[str] | None, meant: bool) -> None:
    """Of a list, none may be: who is in two groups is in both."""
    fact = FactSpec(kind="claim", path=("groups",), not_values=("banned",))
    claims = None if groups is None else {"groups": groups}
    assert standing(policy("allow", rule(facts=(fact,)))).judge(get(), claims).allowed is meant
    assert standing(policy("deny", rule(facts=(fact,)))).judge(get(), claims).allowed is not meant


def test_end_users() -> None:
    """By issuer and subject; ``*`` wants any valid token."""
    someone = policy("allow", rule(source=SourceSpec(request_principals=("*",))))
    assert standing(someone).judge(get(), {"iss": "https://id", "sub": "7"}).allowed
    assert not standing(someone).judge(get(), None).allowed
    nobody = policy("deny", rule(source=SourceSpec(not_request_principals=("*",))))
    assert not standing(nobody).judge(get(), None).allowed
    assert standing(nobody).judge(get(), {"iss": "https://id", "sub": "7"}).allowed


# Connections that are not HTTP -------------------------------------------------------------------


def test_on_opaque_connections_doubt_denies() -> None:
    """What asks about requests never allows there, and always denies."""
    assert (
        standing(policy("allow", rule(source=SourceSpec(principals=(WEB,)))))
        .judge_connection()
        .allowed
    )
    assert not standing(policy("allow", ADMIN)).judge_connection().allowed
    assert standing(policy("deny", ADMIN)).judge_connection()[:3] == (False, "shop/deny", "admin")
    stranger = policy("deny", rule(source=SourceSpec(principals=(STRANGER,))))
    assert standing(stranger).judge_connection().allowed
    assert standing(policy("audit", ADMIN)).judge_connection().audited == (("shop/audit", "admin"),)


# Errors and properties ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        (rule(source=SourceSpec(principals=("a*b",))), r"\[0\].rules\[0\].sources\[0\].principals\[0\]"),
        (rule(source=SourceSpec(ip_blocks=("10.0.0.300",))), r"\[0\].rules\[0\].sources\[0\].ip_blocks\[0\]"),
        (rule(operation=OperationSpec(paths=("a",))), r"\[0\].rules\[0\].operations\[0\].paths\[0\]"),
    ],
)  # fmt: skip
def test_errors_say_where(wrong: AuthorizationRuleSpec, where: str) -> None:
    """A policy that cannot be compiled is refused as a whole: it is never taken for an empty one."""
    with pytest.raises(ContractError, match=where):
        Authorization((policy("deny", wrong),))


PATHS = st.sampled_from(["/a", "/a/b", "/c", "/a//b", "/c/../a", "/%61", "/c;x", "/d"])
RULES = st.builds(
    rule,
    source=st.sampled_from([None, SourceSpec(principals=(WEB,)), SourceSpec(principals=(STRANGER,))]),
    operation=st.sampled_from(
        [None, OperationSpec(paths=("/a*",)), OperationSpec(not_paths=("/c",)), OperationSpec(methods=("GET",))]
    ),
    facts=st.sampled_from([(), (TENANT,)]),
)  # fmt: skip
POLICIES = st.lists(
    st.builds(
        lambda action, rules: policy(action, *rules),
        st.sampled_from(["allow", "deny", "audit"]),
        st.lists(RULES, max_size=3),
    ),
    max_size=4,
)


@given(POLICIES, PATHS, st.sampled_from([WEB, STRANGER, None]), st.booleans())
def test_more_deny_never_allows_more(
    policies: list[AuthorizationSpec], path: str, identity: str | None, tenant: bool
) -> None:
    """Nor does removing an allow rule; and audits never change a verdict."""
    head = get(path, "GET", *((("x-tenant", "blue"),) if tenant else ()))
    before = standing(*policies, identity=identity)
    allowed = before.judge(head).allowed
    if before.free:
        assert allowed
    stricter = standing(*policies, policy("deny", ADMIN), identity=identity)
    assert not (stricter.judge(head).allowed and not allowed)
    silent = [one for one in policies if one.action != "audit"]
    assert standing(*silent, identity=identity).judge(head).allowed == allowed
    if before.judge_connection().allowed:
        assert allowed


# Found by attacking it -----------------------------------------------------------------------------


def test_who_has_left_already_does_not_slip_past_its_address() -> None:
    """A socket that was reset has no address any more, but its request can still be read."""
    here = SourceSpec(ip_blocks=("10.0.0.0/8",))
    elsewhere = SourceSpec(not_ip_blocks=("10.0.0.0/8",))
    for source in (here, elsewhere):
        one = rule(source=source)
        assert not standing(policy("deny", one), address="").judge(get()).allowed
        assert not standing(policy("deny", one), address="").judge_connection().allowed
        assert not standing(policy("allow", one), address="").judge(get()).allowed


def test_a_method_in_small_letters_is_denied_too() -> None:
    """Methods are case-sensitive (RFC 9110 section 9.1); frameworks that raise them do not care."""
    delete = rule(operation=OperationSpec(methods=("DELETE",)))
    assert not standing(policy("deny", delete)).judge(get(method="delete")).allowed
    assert not standing(policy("allow", delete)).judge(get(method="delete")).allowed
    reading = rule(operation=OperationSpec(not_methods=("DELETE",)))
    assert standing(policy("allow", reading)).judge(get()).allowed
    assert not standing(policy("allow", reading)).judge(get(method="delete")).allowed
    custom = rule(operation=OperationSpec(methods=("purge",)))
    assert not standing(policy("deny", custom)).judge(get(method="purge")).allowed


@pytest.mark.parametrize(
    "host", [b"admin.shop", b"ADMIN.shop.", b"admin.shop:80", b"Admin.Shop.:80"]
)
def test_host_as_a_fact_has_one_spelling(host: bytes) -> None:
    """As among `hosts`: what is denied by one spelling is denied by all."""
    head = RequestHead(b"GET", host, b"/", [])
    fact = FactSpec(kind="header", name="Host", values=("admin.shop",))
    assert not standing(policy("deny", rule(facts=(fact,)))).judge(head).allowed
    other = FactSpec(kind="header", name="Host", not_values=("admin.shop",))
    assert not standing(policy("allow", rule(facts=(other,)))).judge(head).allowed


def test_half_a_character_in_a_claim_is_no_way_around_a_rule() -> None:
    """JSON can hold lone surrogates: no error, and not the same as another text."""
    claims = {"iss": "https://id.example", "sub": "a\ud800", "role": "r\udfff"}
    subject = rule(source=SourceSpec(request_principals=("https://id.example/a?",)))
    role = rule(facts=(FactSpec(kind="claim", path=("role",), values=("r?",)),))
    for one in (subject, role):
        assert not standing(policy("allow", one)).judge(get(), claims).allowed


def test_a_header_with_underscores_is_the_one_with_dashes() -> None:
    """To servers that fold the one into the other it is; alone, or beside it."""
    fact = FactSpec(kind="header", name="X-Role", values=("admin",))
    deny = standing(policy("deny", rule(facts=(fact,))))
    assert not deny.judge(get("/", "GET", ("x_role", "admin"))).allowed
    assert not deny.judge(get("/", "GET", ("X-Role", "user"), ("X_Role", "admin"))).allowed
    user = FactSpec(kind="header", name="x_role", values=("user",))
    allow = standing(policy("allow", rule(facts=(user,))))
    assert allow.judge(get("/", "GET", ("X-Role", "user"))).allowed
    assert not allow.judge(get("/", "GET", ("X-Role", "user"), ("x_role", "admin"))).allowed
