from pathlib import Path

from control_plane.placement import Placements
from control_plane.resources.collection import Choice, File, choose, examine, state_of
from tests.helpers.mesh import service

A, B, C = Path("a.yaml"), Path("b.yaml"), Path("c.yaml")
MESH = "apiVersion: meshproxy.io/v1alpha1\nkind: MeshConfig\nmetadata: {name: %s}\n"


def files(**texts: str) -> dict[Path, File]:
    return {
        Path(f"{name}.yaml"): examine(text, Path(f"{name}.yaml")) for name, text in texts.items()
    }


def said(choice: Choice) -> list[str]:
    return [str(finding) for finding in choice.findings]


def names(choice: Choice) -> dict[str, list[str]]:
    return {
        path.stem: [source.name for source in file.sources]
        for path, file in choice.in_force.items()
    }


def test_a_broken_file_keeps_its_last_good_version() -> None:
    """And the others proceed."""
    old = files(a=service("a"))
    new = files(a="kind: Foo", b=service("b"))
    choice = choose(new, old)
    assert names(choice) == {"a": ["default/a"], "b": ["default/b"]}
    assert len(choice.findings) == 1
    assert names(choose(new, {})) == {"b": ["default/b"]}


def test_the_newcomer_of_two_files_loses() -> None:
    """What was in force first stays, whichever way the paths sort."""
    choice = choose(files(a=service("x"), b=service("x")), files(b=service("x")))
    assert names(choice) == {"b": ["default/x"]}
    assert said(choice) == [
        "a.yaml:4: Service/default/x: metadata.name: is declared twice, first in b.yaml:2"
    ]


def test_of_two_newcomers_the_second_by_path_loses() -> None:
    """The same on every start."""
    choice = choose(files(b=service("x"), a=service("x")), {})
    assert names(choice) == {"a": ["default/x"]}
    assert said(choice)[0].startswith("b.yaml:4: ")


def test_resources_can_move_between_files_saved_together() -> None:
    """Two files may even swap what they declare."""
    old = files(a=service("x"), b=service("y"))
    choice = choose(files(a=service("y"), b=service("x")), old)
    assert names(choice) == {"a": ["default/y"], "b": ["default/x"]}
    assert said(choice) == []


def test_falling_back_can_take_another_file_back() -> None:
    """c takes y from b; b wants z, which a has: b keeps y, so c keeps what it had."""
    old = files(a=service("z"), b=service("y"), c=service("w"))
    choice = choose(files(a=service("z"), b=service("z"), c=service("y")), old)
    assert names(choice) == {"a": ["default/z"], "b": ["default/y"], "c": ["default/w"]}
    assert [finding.file for finding in choice.findings] == ["b.yaml", "c.yaml"]


def test_duplicates_within_a_file() -> None:
    """The second is the error, and names the first."""
    file = examine(service("x") + "---" + service("x"), A)
    assert [str(finding) for finding in file.findings] == [
        "a.yaml:11: Service/default/x: metadata.name: is declared twice, first in a.yaml:2"
    ]


def test_types_and_rules_are_reported_together() -> None:
    """One wrong type does not hide a wrong name; what was left out is not missed again."""
    text = """apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: A_b}
spec:
  parentRefs: here
  rules:
    - backendRefs: [{name: a, port: 80, weight: ten}]
      matches: [{path: {value: nowhere}}]
"""
    assert [finding.field for finding in examine(text, A).findings] == [
        "metadata.name",
        "spec.parentRefs",
        "spec.rules[0].backendRefs[0].weight",
        "spec.rules[0].matches[0].path.value",
    ]


def test_a_mesh_has_one_mesh_config() -> None:
    """Whatever they are called."""
    choice = choose(files(a=MESH % "a", b=MESH % "b"), {})
    assert said(choice) == [
        "b.yaml:1: MeshConfig/default/b: a mesh has one MeshConfig, and a.yaml:1 has it"
    ]


def test_the_state_knows_resources_and_places() -> None:
    """By namespace and name; where each stands, for messages."""
    state = state_of(choose(files(a=MESH % "m", b=service("x", "ns")), {}), Placements())
    assert list(state.services) == ["ns/x"]
    assert state.mesh_config is not None
    assert state.locations["Service/ns/x"].file == "b.yaml"
    assert state.locations["MeshConfig/default/m"].line == 1
