import pytest

from control_plane.resources.authorization_policy import principal
from control_plane.resources.route import MAX_ITEMS
from tests.helpers.mesh import messages, security


def found(rules: str) -> list[str]:
    prefix = "f.yaml:5: AuthorizationPolicy/default/p: spec.rules"
    text = security("AuthorizationPolicy", f"rules: {rules}")
    return [one.removeprefix(prefix) for one in messages(text)]


@pytest.mark.parametrize(
    "rule",
    [
        "{}",
        "{name: r, from: [{source: {principals: [a.b/ns/c/sa/d, 'spiffe://a.b/*', '*']}}]}",
        "{from: [{source: {notPrincipals: ['*/sa/web'], namespaces: [a], notTrustDomains: [b]}}]}",
        "{from: [{source: {ipBlocks: [10.0.0.0/8, 10.1.2.3, 'fd00::/8']}}]}",
        "{from: [{source: {requestPrincipals: ['https://id.example/*']}}]}",
        "{to: [{operation: {hosts: [shop.example, '*.example', 'a.example:80', '[::1]:80', 'a:*']}}]}",
        "{to: [{operation: {methods: [GET, M-SEARCH, 'P*', '*']}}]}",
        "{to: [{operation: {paths: ['/a', '/a/*', '*.php', '*', '/u/{*}/o', '/f/{**}', '/u/{id}']}}]}",
        "{to: [{operation: {paths: ['/a%20b', '/a b'], notPaths: ['/.well-known/*']}}]}",
        "{to: [{operation: {ports: [80], notPorts: [81]}}]}",
        "{to: [{operation: {grpc: [{service: a.B}, {method: C}, {service: 'a.*'}]}}]}",
        "{to: [{operation: {grpc: [{service: a.B, method: 'Get*'}], notPaths: ['/a.B/GetAll']}}]}",
        "{when: [{key: 'request.headers[x-role]', values: ['admin*'], notValues: [admin-2]}]}",
        "{when: [{key: 'request.auth.claims[realm][roles]', values: [a]}]}",
        "{when: [{key: 'request.auth.claims[https://shop.example/role]', notValues: ['*']}]}",
    ],
)
def test_accepted(rule: str) -> None:
    """Each condition in its spellings."""
    assert found(f"[{rule}]") == []


FROM = "{from: [{source: {%s}}]}"
TO = "{to: [{operation: {%s}}]}"
WHEN = "{when: [{%s}]}"


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        # from
        (
            FROM % "",
            ".from[0].source: is empty, expected who is meant; leave `from` out to mean everybody",
        ),
        (
            FROM % "ipBlocks: [10.0.0.1/8]",
            '.from[0].source.ipBlocks[0]: "10.0.0.1/8" is not such as 10.0.0.0/8 or 10.1.2.3: ',
        ),
        (
            FROM % "notIpBlocks: [10.0.0.0/8, web]",
            '.from[0].source.notIpBlocks[1]: "web" is not such as 10.0.0.0/8',
        ),
        *(
            (
                FROM % f"{name}: [a, 'b*c']",
                f".from[0].source.{name}[1]: expected a text with at most one '*', first or last",
            )
            for name in (
                "principals",
                "notPrincipals",
                "namespaces",
                "notNamespaces",
                "trustDomains",
                "notTrustDomains",
                "requestPrincipals",
                "notRequestPrincipals",
            )
        ),
        (FROM % "namespaces: ['']", ".from[0].source.namespaces[0]: expected a text with"),
        # to
        (
            TO % "",
            ".to[0].operation: is empty, expected what is meant; leave `to` out to mean everything",
        ),
        (TO % "hosts: ['*.a.*']", ".to[0].operation.hosts[0]: expected a text with at most one"),
        (
            TO % "hosts: ['http://shop']",
            '.to[0].operation.hosts[0]: "http://shop" is no host, expected such as shop.example, ',
        ),
        (TO % "notHosts: ['shop/*']", '.to[0].operation.notHosts[0]: "shop/*" is no host'),
        (TO % "hosts: ['shop:http']", '.to[0].operation.hosts[0]: "shop:http" is no host'),
        (TO % "methods: ['G*T']", ".to[0].operation.methods[0]: expected a text with at most one"),
        (
            TO % "methods: [GET, delete]",
            '.to[0].operation.methods[1]: "delete" is in lower case, expected "DELETE"',
        ),
        (TO % "notMethods: [get]", '.to[0].operation.notMethods[0]: "get" is in lower case'),
        (TO % "paths: [a]", ".to[0].operation.paths[0]: expected a path that starts with '/'"),
        (TO % "notPaths: ['']", ".to[0].operation.notPaths[0]: expected a path that starts with"),
        (
            TO % "paths: ['/{**}/a']",
            ".to[0].operation.paths[0]: expected {**} at the end only",
        ),
        (
            TO % "paths: ['/a{*}']",
            ".to[0].operation.paths[0]: expected {*}, {name} or plain text between slashes",
        ),
        (
            TO % "paths: ['/a?b=c']",
            '.to[0].operation.paths[0]: "/a?b=c" is more than a path: queries are not compared',
        ),
        (TO % "paths: ['/a#b']", '.to[0].operation.paths[0]: "/a#b" is more than a path'),
        (
            TO % "paths: [/x, /a//b]",
            '.to[0].operation.paths[1]: "/a//b" can also be read as "/a/b", expected that beside it',
        ),
        (
            TO % "paths: ['/a%20b']",
            '.to[0].operation.paths[0]: "/a%20b" can also be read as "/a b"',
        ),
        (TO % "paths: ['/a b']", '.to[0].operation.paths[0]: "/a b" can also be read as "/a%20b"'),
        (
            TO % "notPaths: [/a/../b/*]",
            '.to[0].operation.notPaths[0]: "/a/../b/*" can also be read',
        ),
        (
            TO % "ports: [70000]",
            ".to[0].operation.ports[0]: 70000 is out of range, expected an integer 1 to 65535",
        ),
        (
            TO % "grpc: [{}]",
            ".to[0].operation.grpc[0]: is empty, expected a service, a method or both",
        ),
        (
            TO % "grpc: [{service: a/B}]",
            '.to[0].operation.grpc[0].service: "a/B" is no service of gRPC, expected a name, or *',
        ),
        (TO % "grpc: [{service: '*B'}]", '.to[0].operation.grpc[0].service: "*B" is no service'),
        (TO % "grpc: [{service: ''}]", '.to[0].operation.grpc[0].service: "" is no service'),
        (
            TO % "grpc: [{service: a.B, method: 'G*t'}]",
            '.to[0].operation.grpc[0].method: "G*t" is no method of gRPC',
        ),
        (
            TO % "grpc: [{service: 'a.*', method: Get}]",
            ".to[0].operation.grpc[0].method: cannot stand beside a service that ends in *",
        ),
        (
            TO % "grpc: [{method: 'Get*'}]",
            ".to[0].operation.grpc[0].method: cannot end in * without a service",
        ),
        (
            TO % "grpc: [{service: a.B}], paths: [/a]",
            ".to[0].operation.paths: cannot stand beside grpc, which is a path and the method POST",
        ),
        (TO % "grpc: [{service: a.B}], methods: [POST]", ".to[0].operation.methods: cannot stand"),
        # when
        (
            WHEN % "key: source.ip, values: [a]",
            '.when[0].key: "source.ip" is not known, expected request.headers[name] or request.auth.c',
        ),
        (
            WHEN % "key: 'request.headers[a][b]', values: [a]",
            '.when[0].key: "request.headers[a][b]"',
        ),
        (WHEN % "key: 'request.headers[a b]', values: [a]", '.when[0].key: "a b" is not a header'),
        (
            WHEN % "key: 'request.auth.claims', values: [a]",
            '.when[0].key: "request.auth.claims" is',
        ),
        (
            WHEN % "key: 'request.headers[a]'",
            ".when[0]: has neither values nor notValues, expected one of them",
        ),
        (
            WHEN % "key: 'request.headers[a]', values: ['a*b']",
            ".when[0].values[0]: expected a text",
        ),
        (WHEN % "key: 'request.headers[a]', notValues: ['']", ".when[0].notValues[0]: expected a"),
        (WHEN % "values: [a]", ".when[0].key: is missing"),
    ],
)
def test_refused(rule: str, expected: str) -> None:
    """Each is one finding, with its line and its field."""
    (only,) = found(f"[{rule}]")
    assert only.startswith(f"[0]{expected}")


def test_two_rules_of_one_name() -> None:
    """Who reads which rule decided must know which."""
    (only,) = found("[{name: a}, {}, {name: a}]")
    assert only == '[2].name: "a" is also the name of rules[0]'


def test_many_rules() -> None:
    """Each costs every request a look."""
    many = ", ".join(["{}"] * (4 * MAX_ITEMS + 1))
    (only,) = found(f"[{many}]")
    assert only == f": has {4 * MAX_ITEMS + 1} items, expected at most {4 * MAX_ITEMS}"
    assert found(f"[{', '.join(['{}'] * 4 * MAX_ITEMS)}]") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mesh.local/ns/a/sa/b", "spiffe://mesh.local/ns/a/sa/b"),
        ("mesh.local/ns/a/*", "spiffe://mesh.local/ns/a/*"),
        ("spiffe://mesh.local/ns/a/sa/b", "spiffe://mesh.local/ns/a/sa/b"),
        ("*/sa/b", "*/sa/b"),
        ("*", "*"),
    ],
)
def test_principals_need_no_scheme(text: str, expected: str) -> None:
    """Istio's have none; a suffix stays one."""
    assert principal(text) == expected
