from pathlib import Path

import pytest

from control_plane.placement import Placements
from control_plane.resources.collection import choose, examine, state_of
from tests.helpers.mesh import route, service


def unresolved(*texts: str) -> list[str]:
    files = {Path(f"{n}.yaml"): examine(text, Path(f"{n}.yaml")) for n, text in enumerate(texts)}
    state = state_of(choose(files, {}), Placements())
    assert all(finding.severity == "unresolved" for finding in state.findings)
    assert state.routes or not texts
    return [str(finding) for finding in state.findings]


def test_what_resolves_is_silent() -> None:
    """Also across files and namespaces."""
    rules = "[{backendRefs: [{name: b, namespace: other, port: 80}]}]"
    assert unresolved(route("r", "a", rules), service("a"), service("b", "other")) == []


@pytest.mark.parametrize(
    ("ref", "condition"),
    [
        (
            "{name: b, port: 80}",
            (
                "ResolvedRefs=False (BackendNotFound): Service default/b does not exist, "
                "expected one of default/a"
            ),
        ),
        (
            "{name: a, port: 81}",
            (
                "ResolvedRefs=False (BackendNotFound): Service default/a has no port 81, "
                "expected one of 80"
            ),
        ),
        (
            "{group: x.io, kind: Bucket, name: a}",
            (
                "ResolvedRefs=False (InvalidKind): x.io/Bucket cannot be a backend, "
                'expected group "", kind Service'
            ),
        ),
    ],
)
def test_backends_that_do_not_resolve(ref: str, condition: str) -> None:
    """The route applies; the condition says why a share of it is answered 500, and where."""
    found = unresolved(route("r", "a", f"[{{backendRefs: [{ref}]}}]"), service("a"))
    in_force = " (in force: its share of requests is answered 500)"
    assert found == [
        f"0.yaml:7: HTTPRoute/default/r: spec.rules[0].backendRefs[0]: {condition}{in_force}"
    ]


@pytest.mark.parametrize(
    ("name", "meant"),
    [("catalog-v3", "default/catalog-v2"), ("reviews", "other/reviews")],
)
def test_a_backend_that_does_not_exist_may_be_a_slip(name: str, meant: str) -> None:
    """A name like one of the namespace, or the right name in another, is proposed."""
    texts = (service("catalog-v2"), service("reviews", "other"))
    parent = route("r", "catalog-v2", f"[{{backendRefs: [{{name: {name}, port: 80}}]}}]")
    (only,) = unresolved(parent, *texts)
    assert f'Service default/{name} does not exist, did you mean "{meant}"? (in force' in only


@pytest.mark.parametrize(
    ("old", "new", "condition"),
    [
        ("name: a", "name: x", "NoMatchingParent): Service default/x does not exist"),
        ("name: a", "name: a, port: 81", "NoMatchingParent): Service default/a has no port 81"),
        ("name: a", "name: a, sectionName: y", 'NoMatchingParent): Service default/a has no port "y"'),
        ("kind: Service", "kind: Gateway", "NoMatchingParent): Gateway is no parent in a mesh"),
    ],
)  # fmt: skip
def test_parents_that_do_not_resolve(old: str, new: str, condition: str) -> None:
    """A route attached to nothing says so."""
    (only,) = unresolved(route("r", "a", "[{}]").replace(old, new), service("a"))
    assert "spec.parentRefs[0]: Accepted=False (" + condition in only


def test_filters_that_a_backend_cannot_carry() -> None:
    """Skipping a filter would be worse than a refusal: the backend answers 500, and says so."""
    ref = "{name: a, port: 80, filters: [{type: URLRewrite, urlRewrite: {}}]}"
    (only,) = unresolved(route("r", "a", f"[{{backendRefs: [{ref}]}}]"), service("a"))
    assert "backendRefs[0].filters[0]: Accepted=False (UnsupportedValue): URLRewrite" in only
