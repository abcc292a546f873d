"""What should run: the state of the files, seen as processes."""

from pathlib import Path

from control_plane.cli.local.desired import Changes, changes, desire, trust_domain_of
from control_plane.resources.fields import Metadata
from control_plane.resources.model import MeshConfig, MeshConfigSpec
from control_plane.store import State
from tests.control_plane.cli.local.meshes import state, workload


def test_a_unit_says_who_it_is_and_what_it_runs() -> None:
    """The identity comes from the service account, the directory from the declaring file."""
    shop = workload("shop", 8080, command=["run"], account="seller", directory="bin")

    unit = desire(state(shop, file=Path("/mesh/shop.yaml")), "td")["default/shop"]

    assert unit.sidecar.identity == "spiffe://td/ns/default/sa/seller"
    assert unit.app is not None
    assert unit.app.directory == Path("/mesh/bin").resolve()


def test_without_a_service_account_the_workload_gives_its_name() -> None:
    """And without `run` there is no app."""
    unit = desire(state(workload("door")), "td")["default/door"]

    assert unit.sidecar.identity == "spiffe://td/ns/default/sa/door"
    assert unit.app is None


def test_nothing_that_did_not_change_is_touched() -> None:
    """The same state gives no work."""
    units = desire(state(workload("a", command=["x"]), workload("b")), "td")

    assert changes(units, units) == Changes((), (), (), ())


def test_each_change_names_what_it_touches() -> None:
    """A command touches the app alone, an identity the sidecar alone."""
    before = desire(
        state(workload("gone"), workload("app", command=["x"]), workload("id"), workload("same")),
        "td",
    )
    after = desire(
        state(
            workload("new"),
            workload("app", command=["y"]),
            workload("id", account="other"),
            workload("same"),
        ),
        "td",
    )

    assert changes(before, after) == Changes(
        removed=("default/gone",),
        added=("default/new",),
        sidecars=("default/id",),
        apps=("default/app",),
    )


def test_a_workloads_ports_and_env_concern_its_app() -> None:
    """They are handed to the app as environment, so it must start anew to see them."""
    before = desire(state(workload("a", 1, command=["x"]), workload("b", command=["x"])), "td")
    after = desire(
        state(workload("a", 2, command=["x"]), workload("b", command=["x"], env={"K": "v"})), "td"
    )

    assert changes(before, after).apps == ("default/a", "default/b")
    assert changes(before, after).sidecars == ()


def test_the_trust_domain_is_the_mesh_configs() -> None:
    """Or the default, where nobody wrote one."""
    config = MeshConfig(
        api_version="meshproxy.io/v1alpha1",
        kind="MeshConfig",
        metadata=Metadata(name="mesh"),
        spec=MeshConfigSpec(trust_domain="demo.mesh"),
    )

    assert trust_domain_of(State(mesh_config=config)) == "demo.mesh"
    assert trust_domain_of(State()) == "mesh.local"
