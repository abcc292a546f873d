"""Who is who in a mesh, and where it stands."""

from control_plane.outline import Behind, outline
from control_plane.store import Location
from tests.helpers.mesh import service, state, workload


def test_an_outline_says_who_is_behind_what() -> None:
    """Workloads with identities and ports, services with what they choose, and all locations."""
    found = outline(state(workload("catalog"), service("catalog"), service("lonely", port=81)))
    assert found.identities == {"default/catalog": "spiffe://mesh.local/ns/default/sa/catalog"}
    assert found.ports == {"default/catalog": (8080,)}
    assert found.services == {
        "default/catalog:80": (Behind("default/catalog", 8080),),
        "default/lonely:81": (),
    }
    assert found.locations["Service/default/catalog"] == Location("1.yaml", 2)
