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
    """Return the paths of all fields that people can write in a policy, and of what they are part of."""
    paths = {f"{section}.{name}" for section in MODELS for name in documented_of(section)}
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
