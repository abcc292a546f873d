"""A small shop on a mesh."""

from control_plane.cli.demo import demo_files
from control_plane.cli.demonstration import DOOR
from control_plane.cli.local.allocation import Ports, allocate
from control_plane.cli.verdict import CATALOGS, OPINIONS, VISITS
from control_plane.placement import Placements
from control_plane.resources.collection import choose, examine, state_of
from control_plane.sources.files import look
from tests.control_plane.cli.local.machine import Machine


def test_the_demos_files_are_good_and_have_what_the_demo_counts_on() -> None:
    """No finding; every workload that the verdict names; the door that visitors come through."""
    files = {path: examine(text, path) for path, text in look([demo_files()]).texts.items()}
    state = state_of(choose(files, {}), Placements())

    assert state.findings == ()
    assert {*VISITS, *OPINIONS, *(f"default/{name}" for name in CATALOGS)} == set(state.workloads)
    placements = allocate(
        state.workloads, state.services.values(), Placements(), Ports(Machine().reserve)
    )
    workload, service = DOOR
    assert service in placements.workloads[workload].service_ports
    assert state.workloads[workload].spec.run is None
