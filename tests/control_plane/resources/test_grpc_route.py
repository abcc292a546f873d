import pytest

from tests.helpers.mesh import messages, route


def found(rule: str) -> list[str]:
    """Return field and message of what is wrong with a route of one rule."""
    return [
        line.removeprefix("f.yaml:7: GRPCRoute/default/r: spec.rules[0].")
        for line in messages(route("r", "a", f"[{rule}]", kind="GRPCRoute"))
    ]


@pytest.mark.parametrize(
    "rule",
    [
        "{}",
        "{matches: [{method: {service: shop.v1.Books, method: GetBook}}]}",
        "{matches: [{method: {service: shop.v1.Books}}, {method: {method: GetBook}}, {}]}",
        "{matches: [{method: {type: RegularExpression, service: 'shop[.].*', method: 'Get|List'}}]}",
        "{matches: [{headers: [{name: x, value: y}, {name: z, value: y+, type: RegularExpression}]}]}",
        (
            "{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [x]}}], "
            "backendRefs: [{name: a, port: 80, weight: 3, filters: [{type: ResponseHeaderModifier, "
            "responseHeaderModifier: {add: [{name: a, value: b}]}}]}]}"
        ),
    ],
)
def test_accepted(rule: str) -> None:
    """Nothing is wrong with these."""
    assert found(rule) == []


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (
            "{matches: [{method: {type: Exact}}]}",
            "matches[0].method: has neither service nor method, expected at least one of them",
        ),
        (
            "{matches: [{method: {service: /shop.Books}}]}",
            'matches[0].method.service: "/shop.Books" is not a gRPC service, expected such as',
        ),
        (
            "{matches: [{method: {method: Get/Book}}]}",
            'matches[0].method.method: "Get/Book" is not a gRPC method, expected such as GetBook',
        ),
        (
            "{matches: [{method: {type: RegularExpression, service: '('}}]}",
            'matches[0].method.service: "(" is not a regular expression',
        ),
        (
            f"{{matches: [{{method: {{service: {'s' * 1025}}}}}]}}",
            "matches[0].method.service: is 1025 characters long, expected at most 1024",
        ),
        (
            "{matches: [{method: {type: Prefix, service: a}}]}",
            'matches[0].method.type: "Prefix" is not known, expected one of Exact, RegularExp',
        ),
        (
            "{matches: [{path: {value: /a}}]}",
            "matches[0].path: unknown field, expected one of headers, method",
        ),
        (
            "{filters: [{type: URLRewrite}]}",
            'filters[0].type: "URLRewrite" is not known, expected one of Ext',
        ),
        (
            "{timeouts: {request: 1s, backendRequest: 2s}}",
            'timeouts.backendRequest: "2s" is longer than request "1s", expected at most that',
        ),
        (
            "{retry: {}}",
            "retry: unknown field, expected one of backendRefs, filters, matches, name",
        ),
        (
            "{sessionPersistence: {sessionName: a b}}",
            'sessionPersistence.sessionName: "a b" is not a header name',
        ),
        (
            "{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: a}}}]}",
            "filters[0].requestMirror.backendRef.port: is missing, expected the port of the Service",
        ),
        ("{backendRefs: [{name: a}]}", "backendRefs[0].port: is missing, expected the port"),
        (f"{{matches: [{', '.join(['{}'] * 65)}]}}", "matches: has 65 items, expected at most 64"),
    ],
)
def test_refused(rule: str, expected: str) -> None:
    """The rules of the Gateway API, each with its field."""
    (only,) = found(rule)
    assert only.startswith(expected)
