import pytest

from control_plane.generate.locality import REGION, ZONE, priority, zone
from control_plane.resources.fields import Metadata
from control_plane.resources.model import Workload


def at(zone: str = "", region: str = "") -> Workload:
    labels = {name: value for name, value in ((ZONE, zone), (REGION, region)) if value}
    metadata = Metadata(name="a", labels=labels)
    return Workload(api_version="meshproxy.io/v1alpha1", kind="Workload", metadata=metadata)


def test_the_zone_is_a_label() -> None:
    """Kubernetes' own; without it nobody knows."""
    assert zone(at("z1", "r1")) == "z1"
    assert zone(at(region="r1")) == ""


@pytest.mark.parametrize(
    ("asking", "near", "expected"),
    [
        (at(), at("z1", "r1"), 0),
        (at("z1", "r1"), at("z1", "r1"), 0),
        (at("z1", "r1"), at("z2", "r1"), 1),
        (at("z1", "r1"), at(region="r1"), 1),
        (at("z1", "r1"), at("z1", "r2"), 2),
        (at("z1", "r1"), at("z2", "r2"), 2),
        (at("z1", "r1"), at(), 2),
        (at("z1"), at("z1"), 0),
        (at("z1"), at("z1", "r1"), 0),
        (at("z1"), at("z2"), 2),
        (at(region="r1"), at("z2", "r1"), 0),
        (at(region="r1"), at("z2", "r2"), 2),
    ],
)
def test_how_near(asking: Workload, near: Workload, expected: int) -> None:
    """Zone, region, elsewhere; two regions may call their zones the same."""
    assert priority(near, asking) == expected
