"""The reference of the policies says every field and its default as the models have them."""

import re
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec
import pytest

from control_plane.resources.gateway_api import HTTPRouteMatch
from control_plane.resources.policies import (
    FaultInjectionSpec,
    From,
    RateLimitPolicySpec,
    TrafficPolicySpec,
)
from meshproxy.config.bootstrap import Bootstrap
from meshproxy.telemetry.metrics import Metrics

DOCUMENT = Path(__file__).parents[3] / "docs" / "traffic-policy.md"
TEXT = DOCUMENT.read_text()
ROW = re.compile(r"^\| `([^`]+)` \| (?:`([^`]*)`|(-|required)) \|", re.MULTILINE)
DESCRIBED_ELSEWHERE = (HTTPRouteMatch, From)
MODELS: dict[str, Any] = {
    field.encode_name: field.type for field in msgspec.structs.fields(TrafficPolicySpec)
}
del MODELS["targetRefs"]
MODELS |= {"RateLimitPolicy": RateLimitPolicySpec, "FaultInjection": FaultInjectionSpec}


def documented(section: str) -> dict[str, str]:
    """Return the defaults of the fields of a section, as they are written."""
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    return {name: shown or other for name, shown, other in ROW.findall(text)}


def defaults(model: Any, prefix: str = "") -> dict[str, str]:
    """Return the default of each field of a model and the models in it, as it would be written."""
    found: dict[str, str] = {}
    for field in msgspec.structs.fields(model):
        name = prefix + field.encode_name
        inner, is_list = inside(field.type)
        if inner is None or inner in DESCRIBED_ELSEWHERE:
            found[name] = shown(field)
            continue
        if field.encode_name == "targetRefs":
            found[name] = "[]"
            continue
        if field.default is None or (is_list and not field.required):
            found[name] = shown(field)
        found |= defaults(inner, f"{name}[]." if is_list else f"{name}.")
    return found


def inside(kind: Any) -> tuple[type[msgspec.Struct] | None, bool]:
    """Return the model that a field holds, if it does, and whether in a list."""
    for one in (kind, *get_args(kind)):
        if isinstance(one, type) and issubclass(one, msgspec.Struct):
            return one, get_origin(kind) is tuple
    return None, False


def shown(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    value = field.default
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, msgspec.Struct):
        return "{}"
    if value == () or value is msgspec.NODEFAULT:
        return "[]"
    return f"{value:g}" if isinstance(value, float) else str(value) or '""'


@pytest.mark.parametrize("section", [name for name in MODELS if name != "maxConnectionAge"])
def test_fields_and_defaults(section: str) -> None:
    """No field is left out, none is invented, and each default is the one in force."""
    model, _ = inside(MODELS[section])
    assert model is not None
    assert documented(section) == defaults(model)


def test_every_section_has_a_heading() -> None:
    """Those of a TrafficPolicy in their order, then the other kinds."""
    assert re.findall(r"^## (.+)$", TEXT, re.MULTILINE) == list(MODELS)


def test_what_is_off_until_it_is_there_says_so() -> None:
    """All sections but those whose defaults are in force without them."""
    on = {"timeouts", "retry", "retryConstraint", "limits", "outlierDetection", "loadBalancing"}
    for section in MODELS:
        (line,) = re.findall(rf"^## {section}\n\n(.*)$", TEXT, re.MULTILINE)
        is_kind = section in ("RateLimitPolicy", "FaultInjection")
        assert line.startswith("*Off.*") == (section not in on and not is_kind), section


THEORY = DOCUMENT.with_name("resilience.md").read_text()


def test_the_theory_calls_fields_what_people_write() -> None:
    """Names of the contract between control plane and proxy would be refused in a policy."""
    theory = THEORY
    names = set(re.findall(r"`([a-z]+(?:_[a-z0-9]+)+)`", theory))
    told_by_clusters = {"latency_ms", "min_rtt_ms"}
    bootstrap = {"session_secret"}
    counters = {
        "circuit_breaker_transitions", "hedges_won", "outlier_ejections", "overflows", "retries_skipped",
    }  # fmt: skip
    ours = {name for name in names if not name.startswith("mesh_")}
    assert ours <= told_by_clusters | bootstrap | counters
    algorithms = ("peak-ewma", "least-request", "round-robin", "ring-hash")
    assert not [name for name in algorithms if f"`{name}`" in theory]


FIELD = re.compile(r"`([a-z]\w*(?:\[\])?(?:\.\w+(?:\[\])?)*)(?:: [^`]*)?`")


def written() -> set[str]:
    """Return the paths of all fields of policies and bootstraps, and of what they are part of."""
    paths = set(defaults(Bootstrap)) | {
        f"{section}.{name}" for section in MODELS for name in documented_of(section)
    }
    paths |= {part for path in paths for part in parents(path)}
    return paths | set(MODELS)


def documented_of(section: str) -> set[str]:
    model, _ = inside(MODELS[section])
    return set() if model is None else set(defaults(model))


def parents(path: str) -> list[str]:
    names = path.split(".")
    return [".".join(names[:count]) for count in range(1, len(names))]


def test_every_field_that_the_theory_names_is_there() -> None:
    """`hedging.minDelay`, `ofRetries: true`: such a name is one, or the end of one, that people write."""
    named = {name for name in FIELD.findall(THEORY) if re.search(r"[A-Z.]", name)}
    assert len(named) > 60
    known = written()
    unknown = {
        name
        for name in named
        if not any(path == name or path.endswith(f".{name}") for path in known)
    }
    assert unknown == set()


# What there is of each policy ---------------------------------------------------------------------

ROOT = DOCUMENT.parents[1]
POLICIES = [
    # What people write, its file in `meshproxy/policies/`, its heading, its example, what it counts.
    ("timeouts", "deadline.py", "Time", "timeouts", "mesh_refusals_total"),
    ("retry", "retry.py", "Retries", "retry", "mesh_retries_total"),
    ("retryConstraint", "retry_budget.py", "Retry budget", "retry", "mesh_retry_budget_left"),
    ("hedging", "hedging.py", "Hedging", "retry", "mesh_hedges_total"),
    ("limits", "limits.py", "Limits", "circuit-breaker", "mesh_overflows_total"),
    (
        "circuitBreaker", "circuit_breaker.py", "Circuit breaker", "circuit-breaker",
        "mesh_circuit_breaker_state",
    ),
    (
        "outlierDetection", "outlier_detection.py", "Outlier detection", "outlier-detection",
        "mesh_outlier_ejections_total",
    ),
    ("healthCheck", "health.py", "Health checks", "health-check", "mesh_health_checks_total"),
    (
        "loadBalancing", "load_balancing/peak_ewma.py", "Load balancing", "load-balancing",
        "mesh_endpoints",
    ),
    (
        "sessionPersistence", "load_balancing/session.py", "Session persistence",
        "session-persistence", "",
    ),
    ("requestMirror", "mirroring.py", "Mirroring", "mirror", "mesh_mirrored_requests_total"),
    ("FaultInjection", "fault_injection.py", "Injected faults", "fault-injection", "mesh_faults_injected_total"),
    ("RateLimitPolicy", "rate_limit.py", "Rate limits", "rate-limit", "mesh_rate_limited_total"),
    ("loadShedding", "load_shedding.py", "Load shedding", "load-shedding", "mesh_shed_requests_total"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("field", "file", "heading", "example", "metric"),
    [pytest.param(*one, id=one[0]) for one in POLICIES],
)
def test_each_policy_has_its_theory_its_heading_its_example_and_its_metric(
    field: str, file: str, heading: str, example: str, metric: str
) -> None:
    """One file that explains itself, one place in the document that leads there, one file to copy."""
    theory = (ROOT / "meshproxy" / "policies" / file).read_text().split('"""')[1]
    assert "Theory of operation" in theory or "/" in file  # of balancers, the folder has it
    text = section_of(heading)
    assert f"meshproxy/policies/{file}" in text or "/" in file
    assert metric in text or heading == "Load balancing"
    copied = (ROOT / "configs" / "reference" / f"{example}.yaml").read_text()
    assert field in copied
    assert re.search(r"^\s*#|\s# ", copied, re.MULTILINE), "no comment"


def section_of(heading: str) -> str:
    """Return what is below a heading of the document, down to the next of its rank."""
    (text,) = re.findall(rf"^##+ {heading}\n(.*?)(?=^## |\Z)", THEORY, re.MULTILINE | re.DOTALL)
    return str(text)


def test_metrics_are_called_what_they_are() -> None:
    """Each name in the theory is one that a proxy tells, with these labels where it has any."""
    families: list[Any] = list(Metrics()._collect(0.0))
    told = {}
    for family in families:
        told[family.name] = told[f"{family.name}_total"] = set(family._labelnames)
    named = re.findall(r"`(mesh_\w+)(?:\{([^}]*)\})?`", THEORY)
    assert len(named) > 25
    for name, labels in named:
        assert name in told, name
        assert set(re.findall(r"\w+", labels)) <= told[name], name
