"""Every example does what it says: it parses, has no finding, and generates."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from msgspec import Struct
from msgspec.structs import fields, replace

from control_plane.generate import destinations
from control_plane.generate.snapshot import generate
from control_plane.placement import Placements
from control_plane.resources import security
from control_plane.resources.collection import choose, examine, state_of
from control_plane.resources.document import Mapping, Node, Sequence
from control_plane.resources.gateway_api import (
    GRPCHeaderMatch,
    GRPCMethodMatch,
    GRPCRoute,
    GRPCRouteFilter,
    HTTPHeaderMatch,
    HTTPPathMatch,
    HTTPQueryParamMatch,
    HTTPRoute,
    HTTPRouteFilter,
)
from control_plane.resources.model import KINDS, Workload
from control_plane.resources.policies import (
    FaultInjection,
    FaultInjectionSpec,
    HealthCheck,
    RateLimitPolicy,
    TrafficPolicy,
)
from control_plane.resources.references import BACKEND_FILTERS
from control_plane.resources.security import JWTRule, SecurityPolicy
from meshproxy.config import bootstrap
from meshproxy.config.snapshot import Mesh
from meshproxy.config.static import read_snapshot
from meshproxy.contract import wire
from meshproxy.contract.resources import Snapshot, TrustSpec
from tests.helpers.environment import Environment

ROOT = Path(__file__).parent.parent / "configs"
STATIC = ROOT / "static"
LESSONS = ROOT / "lessons"
# Each folder of configs/ is a mesh of its own, but for the static proxy.
FOLDERS = sorted(path for path in ROOT.iterdir() if path not in (STATIC, LESSONS))


def examples() -> Iterator[object]:
    """Yield the files of each mesh: of a lesson's, without its policies, and with each of them."""
    for folder in FOLDERS:
        yield pytest.param(sorted(folder.rglob("*.y*ml")), id=folder.name)
    for lesson in sorted(LESSONS.iterdir()):
        policies = sorted(lesson.glob("policies*.yaml"))
        mesh = sorted(set(lesson.glob("*.yaml")) - set(policies))
        for one in (None, *policies):
            name = lesson.name if one is None else f"{lesson.name}-{one.stem}"
            yield pytest.param(mesh if one is None else [*mesh, one], id=name)


@pytest.mark.parametrize("paths", list(examples()))
async def test_example(paths: list[Path]) -> None:
    """Parses, validates without findings, and each workload's proxy would obey what is generated."""
    files = {path: examine(path.read_text(), path) for path in paths}
    state = state_of(choose(files, {}), Placements())
    assert [str(finding) for finding in state.findings] == []
    assert state.locations
    trust = TrustSpec(trust_domain="mesh.local", roots=(), session_secret="00" * 32)
    for name, workload in state.workloads.items():
        # Placed nowhere, so that no port is taken; that its ports are inbound must then be said.
        ports = destinations.inbound(workload, state.services)
        snapshot = replace(generate(state, name, trust), destinations=ports)
        proxy = Mesh(Environment())
        proxy.discard(proxy.prepare(wire.decode(wire.encode(snapshot), Snapshot)))


def test_the_reference_shows_every_match_and_every_filter() -> None:
    """Whoever looks for how to write one finds it there."""
    path = ROOT / "reference" / "http-route.yaml"
    (source,) = examine(path.read_text(), path).sources
    assert isinstance(source.resource, HTTPRoute)
    rules = source.resource.spec.rules
    matches = [match for rule in rules for match in rule.matches]
    assert {match.path.type for match in matches} == literals(HTTPPathMatch, "type")
    for kind, found in (
        (HTTPHeaderMatch, [one for match in matches for one in match.headers]),
        (HTTPQueryParamMatch, [one for match in matches for one in match.query_params]),
    ):
        assert {one.type for one in found} == literals(kind, "type")
    assert any(match.method for match in matches)
    filters = {item.type for rule in rules for item in rule.filters}
    assert filters == literals(HTTPRouteFilter, "type")
    on_backends = {item.type for rule in rules for ref in rule.backend_refs for item in ref.filters}
    assert on_backends == BACKEND_FILTERS
    assert all(
        any(getattr(rule, section) is not None for rule in rules)
        for section in ("timeouts", "retry", "session_persistence")
    )


def test_the_reference_shows_every_way_to_match_a_grpc_call() -> None:
    """Service, method, both; exact or not; and each filter, on the rule and on a backend."""
    path = ROOT / "reference" / "grpc-route.yaml"
    (source,) = examine(path.read_text(), path).sources
    assert isinstance(source.resource, GRPCRoute)
    rules = source.resource.spec.rules
    matches = [match for rule in rules for match in rule.matches]
    methods = [match.method for match in matches if match.method is not None]
    assert {method.type for method in methods} == literals(GRPCMethodMatch, "type")
    given = {(bool(method.service), bool(method.method)) for method in methods}
    assert given == {(True, True), (True, False), (False, True)}
    headers = {one.type for match in matches for one in match.headers}
    assert headers == literals(GRPCHeaderMatch, "type")
    filters = {item.type for rule in rules for item in rule.filters}
    assert filters == literals(GRPCRouteFilter, "type")
    on_backends = {item.type for rule in rules for ref in rule.backend_refs for item in ref.filters}
    assert on_backends == BACKEND_FILTERS


def test_the_reference_shows_every_field_of_a_policy() -> None:
    """Each in one of the examples, so that what can be written can be copied."""
    given: set[tuple[type[Struct], str]] = set()
    for path in (ROOT / "reference").glob("*.yaml"):
        for source in examine(path.read_text(), path).sources:
            if isinstance(source.resource, TrafficPolicy | RateLimitPolicy | FaultInjection):
                given |= written(source.node, type(source.resource.spec), ("spec",))
    known = {
        (model, field.encode_name)
        for model in {model for model, _ in given}
        for field in fields(model)
        if model.__module__ == TrafficPolicy.__module__  # the others are routes'
    }
    shown_in_comments: set[tuple[type[Struct], str]] = {
        (HealthCheck, "http"),
        (HealthCheck, "tcp"),
        (FaultInjectionSpec, "targetRefs"),
    }
    assert known - given - shown_in_comments == set()


def test_the_reference_shows_every_field_of_a_security_policy() -> None:
    """Keys of issuers come from one of three places: two of them are in comments."""
    given: set[tuple[type[Struct], str]] = set()
    kinds: set[type[Struct]] = set()
    for path in (ROOT / "reference").glob("*.yaml"):
        for source in examine(path.read_text(), path).sources:
            if isinstance(source.resource, get_args(SecurityPolicy)):
                kinds.add(type(source.resource))
                given |= written(source.node, type(source.resource.spec), ("spec",))
    assert kinds == set(get_args(SecurityPolicy))
    models = {
        model
        for model in vars(security).values()
        if isinstance(model, type) and issubclass(model, Struct) and model not in kinds
    }
    known = {
        (model, field.encode_name)
        for model in models
        for field in fields(model)
        if model.__module__ == security.__name__
    }
    assert known - given == {(JWTRule, "jwksFile"), (JWTRule, "jwksUri")}


def written(node: Node, model: Any, path: tuple[str, ...]) -> set[tuple[type[Struct], str]]:
    """Return (model, field) of each field that stands in a document below a path."""
    for step in path:
        assert isinstance(node, Mapping)
        node = node.items[step]
    found: set[tuple[type[Struct], str]] = set()
    for own in (model, *get_args(model)):
        if not (isinstance(own, type) and issubclass(own, Struct)):
            continue
        for item in node.items if isinstance(node, Sequence) else (node,):
            assert isinstance(item, Mapping)
            for field in fields(own):
                if field.encode_name in item.items:
                    found.add((own, field.encode_name))
                    found |= written(item.items[field.encode_name], field.type, ())
    return found


def test_the_reference_has_every_kind() -> None:
    """One file for each, that says what it does and what it does not."""
    shown = {
        source.resource.kind
        for path in (ROOT / "reference").glob("*.yaml")
        for source in examine(path.read_text(), path).sources
    }
    assert shown == {kind for _, kind in KINDS}


def test_every_app_of_the_examples_listens_where_it_is_told() -> None:
    """An app that ignores $PORT is never reached: all its requests would be answered 503."""
    for path in ROOT.rglob("*.yaml"):
        if STATIC in path.parents:
            continue
        for source in examine(path.read_text(), path).sources:
            if isinstance(source.resource, Workload) and source.resource.spec.run is not None:
                command = source.resource.spec.run.command
                program = path.parent / command[1]
                named = "$(PORT)" in command
                assert named or '"PORT"' in program.read_text(), source.key


def literals(model: type[Struct], field: str) -> set[str]:
    """Return the values that a field may have."""
    return set(get_args(get_type_hints(model)[field]))


def test_static_example() -> None:
    """The proxy without a mesh: bootstrap and snapshot are what the program reads."""
    read = bootstrap.read(STATIC / "bootstrap.yaml")
    assert read.static is not None
    assert read_snapshot(read.static.snapshot).listeners
