"""Who may be called, from what is known about each."""

from dataclasses import dataclass, field

import pytest

from meshproxy.contract.policies import OutlierSpec
from meshproxy.policies.outlier_detection import EJECTED, IN_SERVICE, PROBATION, Host
from meshproxy.upstream.availability import UNHEALTHY, Availability
from tests.helpers.environment import Environment, until


@dataclass
class FakeEndpoint:
    name: str
    weight: int = 1
    healthy: bool = True
    latency: float = 9.0
    host: Host = field(default_factory=Host)


class Scene:
    def __init__(self, count: int = 4, spec: OutlierSpec | None = None) -> None:
        self.environment = Environment()
        self.restated = 0
        self.endpoints = [FakeEndpoint(str(number)) for number in range(count)]
        self.availability = Availability("catalog", self.environment, self._restate)
        self.spec = spec or OutlierSpec(consecutive_gateway_errors=1, base_ejection=20)
        self.availability.adopt(self.spec, self.endpoints)

    def _restate(self) -> None:
        self.restated += 1

    def among(self, panic_percent: float = 50.0) -> str:
        return "".join(one.name for one in self.availability.among(self.endpoints, panic_percent))

    def fail(self, number: int) -> None:
        detection, now = self.availability.detection, self.environment.now()
        assert detection is not None
        host = self.endpoints[number].host
        detection.answered_5xx(host, gateway=True, began=now, now=now)


@pytest.fixture
async def scene() -> Scene:
    return Scene()


async def test_who_is_ejected_or_unhealthy_is_not_called(scene: Scene) -> None:
    """Who is on probation may be: one at a time, which is the cluster's business."""
    assert scene.among() == "0123"
    scene.fail(1)
    assert (scene.among(), scene.restated) == ("023", 1)
    scene.endpoints[3].healthy = False
    assert scene.among() == "02"
    assert scene.availability.states() == {IN_SERVICE: 2, EJECTED: 1, PROBATION: 0, UNHEALTHY: 1}
    await until(lambda: scene.endpoints[1].host.state == PROBATION)
    assert (scene.among(), scene.restated) == ("012", 2)
    assert [one.latency for one in scene.endpoints] == [9.0, 0.0, 9.0, 9.0]
    scene.availability.close()


async def test_panic_uses_all_of_them(scene: Scene) -> None:
    """With fewer than so many left; with none left and no panic, nobody is called."""
    for endpoint in scene.endpoints[:2]:
        endpoint.healthy = False
    assert scene.among() == "23"
    scene.endpoints[2].healthy = False
    assert (scene.among(), scene.availability.panicking) == ("0123", True)
    assert (scene.among(panic_percent=25.0), scene.availability.panicking) == ("3", False)
    scene.endpoints[3].healthy = False
    assert scene.among(panic_percent=0.0) == ""


async def test_endpoints_without_weight_do_not_count(scene: Scene) -> None:
    """Two that get nothing are no help when the others are ill."""
    scene.endpoints[0].weight = scene.endpoints[1].weight = 0
    scene.endpoints[2].healthy = False
    assert scene.among() == "013"
    scene.endpoints[3].healthy = False
    assert scene.among() == "0123"


async def test_without_detection_everybody_is_in_service(scene: Scene) -> None:
    """Switched off, it takes its verdicts along, and its timer."""
    scene.fail(1)
    scene.availability.adopt(None, scene.endpoints)
    assert scene.among() == "0123"
    assert scene.availability.statistics(scene.endpoints[1]) == {"state": IN_SERVICE}


async def test_statistics(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """State, past and how long; counted and logged at each transition."""
    scene.endpoints[0].host.name = "10.0.0.1:80"
    scene.fail(0)
    told = scene.availability.statistics(scene.endpoints[0])
    assert (told["state"], told["ejections"]) == (EJECTED, 1)
    assert 0 <= told["ejected_for_seconds"] <= 0.02
    assert "catalog: 10.0.0.1:80 ejected for 0.02 s: consecutive-gateway-errors" in caplog.text
    scene.fail(1)
    counts = scene.environment.metrics.counts().counters
    why = ("catalog", "consecutive-gateway-errors")
    assert counts["ejections"] == [(why, 1)]
    assert counts["ejections_prevented"] == [(why, 1)]
    scene.availability.close()
