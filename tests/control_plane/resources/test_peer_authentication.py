import pytest

from tests.helpers.mesh import messages, security

SELECTED = "selector: {matchLabels: {app: a}}"


def found(spec: str) -> list[str]:
    prefix = "f.yaml:5: PeerAuthentication/default/p: "
    return [one.removeprefix(prefix) for one in messages(security("PeerAuthentication", spec))]


@pytest.mark.parametrize(
    "spec",
    [
        "mtls: {mode: STRICT}",
        "mtls: {mode: PERMISSIVE}",
        f"{SELECTED}, mtls: {{mode: STRICT}}, portLevelMtls: {{8080: {{mode: PERMISSIVE}}}}",
        f"{SELECTED}, portLevelMtls: {{1: {{mode: STRICT}}, '65535': {{mode: STRICT}}}}",
    ],
)
def test_accepted(spec: str) -> None:
    """Of a namespace, of workloads, of ports; a port is a number with or without quotes."""
    assert found(spec) == []


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("", "spec: says nothing, expected mtls or portLevelMtls"),
        (SELECTED, "spec: says nothing, expected mtls or portLevelMtls"),
        (
            "portLevelMtls: {8080: {mode: STRICT}}",
            "spec.portLevelMtls: needs a selector: ports are those of certain workloads",
        ),
        (
            f"{SELECTED}, portLevelMtls: {{http: {{mode: STRICT}}}}",
            'spec.portLevelMtls.http: "http" is no port, expected 1 to 65535',
        ),
        (
            f"{SELECTED}, portLevelMtls: {{0: {{mode: STRICT}}}}",
            'spec.portLevelMtls.0: "0" is no port, expected 1 to 65535',
        ),
        (
            f"{SELECTED}, portLevelMtls: {{65536: {{mode: STRICT}}}}",
            'spec.portLevelMtls.65536: "65536" is no port, expected 1 to 65535',
        ),
        (
            # It would be the port of nobody: numbers are compared as they are written.
            f"{SELECTED}, portLevelMtls: {{'08080': {{mode: STRICT}}}}",
            'spec.portLevelMtls.08080: "08080" is no port, expected 1 to 65535',
        ),
        (
            "mtls: {mode: DISABLE}",
            'spec.mtls.mode: "DISABLE" is not known, expected one of PERMISSIVE, STRICT',
        ),
        (
            "mtls: {mode: strict}",
            'spec.mtls.mode: "strict" is not known, expected one of PERMISSIVE, STRICT',
        ),
        ("mtls: {}", "spec.mtls.mode: is missing, expected one of PERMISSIVE, STRICT"),
        ("mtls: {mode: STRICT}, scope: Mesh", "spec.scope: unknown field, expected one of"),
    ],
)
def test_refused(spec: str, expected: str) -> None:
    """Each is one finding, with its field."""
    (only,) = found(spec)
    assert only.startswith(expected)
