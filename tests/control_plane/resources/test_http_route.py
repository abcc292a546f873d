import pytest

from tests.helpers.mesh import messages, route

OK = "{path: {value: /}}"


def found(rule: str) -> list[str]:
    """Return field and message of what is wrong with a route of one rule."""
    return [
        line.removeprefix("f.yaml:7: HTTPRoute/default/r: spec.rules[0].")
        for line in messages(
            route("r", "a", f"[{rule.replace('MIRROR', MIRROR).replace('EXTENSION', EXTENSION)}]")
        )
    ]


HEADERS = "requestHeaderModifier"
MIRROR = "{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 80}}}"
EXTENSION = "{type: ExtensionRef, extensionRef: {group: g, kind: K, name: n}}"


@pytest.mark.parametrize(
    "rule",
    [
        "{}",
        "{matches: []}",
        "{matches: [{path: {type: Exact, value: /a}, method: GET}]}",
        "{matches: [{path: {type: RegularExpression, value: 'a|b'}}]}",
        "{matches: [{headers: [{name: x, value: y}, {name: z, value: y, type: RegularExpression}]}]}",
        "{matches: [{queryParams: [{name: x, value: y}]}]}",
        (
            "{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: ''}]}},"
            " {type: URLRewrite, urlRewrite: {hostname: a.b}}], backendRefs: [{name: a, port: 80}]}"
        ),
        "{filters: [{type: RequestRedirect, requestRedirect: {statusCode: 301, scheme: https}}]}",
        (
            "{filters: [{type: URLRewrite, urlRewrite: "
            "{path: {type: ReplacePrefixMatch, replacePrefixMatch: ''}}}]}"
        ),
        "{filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /x}}}]}",
        "{timeouts: {request: 10s, backendRequest: 10s}}",
        "{timeouts: {request: 0s, backendRequest: 10s}}",
        "{timeouts: {backendRequest: 10s}, retry: {codes: [409, 503], attempts: 0, backoff: 1s}}",
        "{sessionPersistence: {}}",
        "{filters: [MIRROR, {type: RequestMirror, requestMirror: {backendRef: {name: b, port: 80}}}]}",
        "{filters: [EXTENSION, {type: ExtensionRef, extensionRef: {group: g, kind: K, name: o}}]}",
    ],
)
def test_accepted(rule: str) -> None:
    """Nothing is wrong with these."""
    assert found(rule) == []


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (
            "{timeouts: {request: 1s, backendRequest: 2s}}",
            'timeouts.backendRequest: "2s" is longer than request "1s", expected at most that',
        ),
        (
            "{timeouts: {request: 1.5s}}",
            'timeouts.request: "1.5s" is not a duration, expected a durat',
        ),
        (
            "{timeouts: {connect: 1s}}",
            "timeouts.connect: unknown field, expected one of backendReq",
        ),
        ("{retry: {codes: [503, 503]}}", "retry.codes[1]: 503 stands twice, also at [0]"),
        (
            "{retry: {codes: [399]}}",
            "retry.codes[0]: 399 is out of range, expected an integer 400 to 599",
        ),
        (
            "{retry: {attempts: -1}}",
            "retry.attempts: -1 is out of range, expected an integer 0 to 99",
        ),
        (
            "{sessionPersistence: {sessionName: a b}}",
            'sessionPersistence.sessionName: "a b" is not a header name',
        ),
        ("{filters: [MIRROR, MIRROR]}", "filters[1]: is the same as filters[0]"),
        ("{filters: [EXTENSION, EXTENSION]}", "filters[1]: is the same as filters[0]"),
        (
            "{filters: [{type: RequestMirror}]}",
            "filters[0].requestMirror: is missing, expected it with type RequestMirror",
        ),
        (
            "{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: a}}}]}",
            "filters[0].requestMirror.backendRef.port: is missing, expected the port of the Service",
        ),
        (
            (
                "{filters: [{type: RequestMirror, requestMirror: "
                "{backendRef: {name: a, port: 80}, percent: 1, fraction: {numerator: 1}}}]}"
            ),
            "filters[0].requestMirror.fraction: cannot stand beside percent, expected one of them",
        ),
        (
            (
                "{filters: [{type: RequestMirror, requestMirror: "
                "{backendRef: {name: a, port: 80}, fraction: {numerator: 3, denominator: 2}}}]}"
            ),
            "filters[0].requestMirror.fraction.numerator: 3 is above the denominator, expected at most",
        ),
        (
            "{filters: [{type: ExtensionRef, extensionRef: {kind: FaultInjection, name: a}}]}",
            "filters[0].extensionRef.group: is missing, expected a string",
        ),
        ("{matches: [{path: {value: a}}]}", 'matches[0].path.value: "a" is not absolute'),
        ("{matches: [{path: {value: /a//b}}]}", 'matches[0].path.value: "/a//b" contains "//"'),
        (
            "{matches: [{path: {type: RegularExpression, value: '('}}]}",
            'matches[0].path.value: "(" is not a regular expression (RE2 syntax): missing )',
        ),
        (
            "{matches: [{headers: [{name: x, value: '[', type: RegularExpression}]}]}",
            'matches[0].headers[0].value: "[" is not a regular expression',
        ),
        (
            "{matches: [{queryParams: [{name: x, value: '[', type: RegularExpression}]}]}",
            'matches[0].queryParams[0].value: "[" is not a regular expression',
        ),
        ("{matches: [{headers: [{name: 'a b', value: y}]}]}", "matches[0].headers[0].name: "),
        ("{matches: [{headers: [{name: a, value: ''}]}]}", "matches[0].headers[0].value: is empty"),
        (
            "{matches: [{headers: [{name: a, value: b}, {name: A, value: b}]}]}",
            'matches[0].headers[1].name: "A" stands twice, also at [0]',
        ),
        (
            '{matches: [{headers: [{name: a, value: "b\\r\\nc"}]}]}',
            "matches[0].headers[0].value: ",
        ),
        (
            f"{{filters: [{{type: RequestHeaderModifier, {HEADERS}: {{set: [{{name: Host, value: a}}]}}}}]}}",
            f"filters[0].{HEADERS}.set[0].name: Host is changed by a rewrite's hostname only",
        ),
        (
            f"{{filters: [{{type: RequestHeaderModifier, {HEADERS}: {{add: [{{name: te, value: a}}]}}}}]}}",
            f"filters[0].{HEADERS}.add[0].name: te is the proxy's own to write",
        ),
        (
            f"{{filters: [{{type: RequestHeaderModifier, {HEADERS}: {{set: [{{name: a, value: ' a'}}]}}}}]}}",
            f"filters[0].{HEADERS}.set[0].value: expected no control characters",
        ),
        (
            "{filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: x}}}]}",
            'filters[0].urlRewrite.path.replaceFullPath: "x" is not absolute',
        ),
        (
            "{filters: [{type: URLRewrite}]}",
            "filters[0].urlRewrite: is missing, expected it with type URLRewrite",
        ),
        (
            "{filters: [{type: URLRewrite, urlRewrite: {}, requestRedirect: {}}]}",
            "filters[0].requestRedirect: does not go with type URLRewrite, expected urlRewrite",
        ),
        (
            "{filters: [{type: URLRewrite, urlRewrite: {}}, {type: URLRewrite, urlRewrite: {}}]}",
            "filters[1].type: URLRewrite stands twice, also at [0]",
        ),
        (
            "{filters: [{type: URLRewrite, urlRewrite: {}}, {type: RequestRedirect, requestRedirect: {}}]}",
            "filters[1].type: RequestRedirect cannot stand beside URLRewrite",
        ),
        (
            "{filters: [{type: RequestRedirect, requestRedirect: {}}], backendRefs: [{name: a, port: 1}]}",
            "backendRefs: cannot stand beside a RequestRedirect filter",
        ),
        (
            "{filters: [{type: URLRewrite, urlRewrite: {hostname: '*.a'}}]}",
            'filters[0].urlRewrite.hostname: "*.a" is not a DNS name',
        ),
        (
            "{filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath}}}]}",
            "filters[0].urlRewrite.path.replaceFullPath: is missing",
        ),
        (
            (
                "{filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, "
                "replaceFullPath: /a, replacePrefixMatch: /b}}}]}"
            ),
            "filters[0].urlRewrite.path.replacePrefixMatch: does not go with type ReplaceFullPath",
        ),
        (
            (
                "{matches: [{path: {type: Exact, value: /a}}], filters: [{type: URLRewrite, urlRewrite: "
                "{path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]}"
            ),
            "filters[0].urlRewrite.path.type: ReplacePrefixMatch replaces a prefix",
        ),
        (
            (
                "{filters: [{type: RequestHeaderModifier, requestHeaderModifier: "
                "{set: [{name: a, value: b}, {name: A, value: c}]}}]}"
            ),
            'filters[0].requestHeaderModifier.set[1].name: "A" stands twice, also at [0]',
        ),
        (
            "{filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {remove: ['a:']}}]}",
            'filters[0].responseHeaderModifier.remove[0]: "a:" is not a header name',
        ),
        ("{backendRefs: [{name: a}]}", "backendRefs[0].port: is missing, expected the port"),
        ("{backendRefs: [{name: '', port: 1}]}", "backendRefs[0].name: has 0 characters"),
        (
            "{backendRefs: [{name: a, port: 1, weight: 1000001}]}",
            "backendRefs[0].weight: 1000001 is out of range, expected an integer 0 to 1000000",
        ),
        (
            "{backendRefs: [{name: a, port: 1, filters: [{type: RequestHeaderModifier}]}]}",
            "backendRefs[0].filters[0].requestHeaderModifier: is missing",
        ),
        ("{name: A}", 'name: "A" is not a DNS name'),
        (f"{{matches: [{', '.join([OK] * 65)}]}}", "matches: has 65 items, expected at most 64"),
    ],
)
def test_refused(rule: str, expected: str) -> None:
    """The rules of the Gateway API, each with its field."""
    (only,) = found(rule)
    assert only.startswith(expected)


def test_parents_are_needed_and_named_once() -> None:
    """A route without a parent would do nothing, silently."""
    text = route("r", "a", "[{}]").replace('parentRefs: [{group: "", kind', "parentRefs: [{kind")
    assert messages(text.replace("parentRefs: [{kind: Service", "hostnames: [x]\n#")) == [
        "f.yaml:5: HTTPRoute/default/r: spec.parentRefs: is missing or empty, expected at least one Service"
    ]
    twice = text.replace("}]\n  rules", "}, {kind: Service, name: a, namespace: default}]\n  rules")
    assert messages(twice) == [
        "f.yaml:6: HTTPRoute/default/r: spec.parentRefs[1]: is the same as parentRefs[0]"
    ]
