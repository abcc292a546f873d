"""Where files with keys may lie: not out of the folders that operators gave, by no link."""

import os
from pathlib import Path

import pytest

from control_plane.key_files import KeyFileError, OutsideError, folders, misplaced, read, really_at
from control_plane.placement import Placements
from control_plane.resources.collection import choose, examine, state_of
from control_plane.store import State

POLICY = """
apiVersion: meshproxy.io/v1alpha1
kind: MeshConfig
metadata: {name: mesh}
spec: {jwks: {allowedFolders: [FOLDERS]}}
---
apiVersion: meshproxy.io/v1alpha1
kind: RequestAuthentication
metadata: {name: users}
spec: {jwtRules: [{issuer: a, jwksFile: NAME}]}
"""


def state(folder: Path, name: str, folders_: str = "") -> State:
    path = folder / "mesh.yaml"
    text = POLICY.replace("NAME", name).replace("FOLDERS", folders_)
    return state_of(choose({path: examine(text, path)}, {}), Placements())


@pytest.fixture
def config(tmp_path: Path) -> Path:
    folder = tmp_path / "config"
    (folder / "..data").mkdir(parents=True)
    (folder / "..data" / "keys.json").write_text("inside")
    (folder / "keys.json").symlink_to("..data/keys.json")  # as in a mounted ConfigMap
    (tmp_path / "secret.json").write_text("outside")
    (folder / "link.json").symlink_to("../secret.json")
    (folder / "up").symlink_to("..")
    (tmp_path / "config-2").mkdir()
    (tmp_path / "config-2" / "keys.json").write_text("beside")
    return folder


@pytest.mark.parametrize("name", ["keys.json", "..data/keys.json", "x/../keys.json"])
def test_what_is_inside_is_read(config: Path, name: str) -> None:
    """Also by links, as long as they stay inside."""
    assert read(config / name, [config], 6) == b"inside"
    assert list(misplaced(state(config, name), [config])) == []


@pytest.mark.parametrize(
    "name",
    [
        "../secret.json",
        "link.json",
        "up/secret.json",
        "/etc/passwd",
        "/no/such/file",
        "../config-2/keys.json",
        "..",
        "/proc/self/environ",
    ],
)
def test_what_leads_out_is_refused(config: Path, name: str) -> None:
    """By dots, a link, an absolute path, a folder of a similar name; whether it exists is not said."""
    with pytest.raises(OutsideError) as caught:
        read(config / name, [config], 10)
    (finding,) = misplaced(state(config, name), [config])
    assert str(caught.value) in finding.message
    assert (finding.severity, finding.field) == ("unresolved", "spec.jwtRules[0].jwksFile")
    assert (finding.file, finding.line) == (str(config / "mesh.yaml"), 7)


def test_the_mesh_config_may_allow_more(config: Path) -> None:
    """A folder that it lists, and what is below."""
    mesh = state(config, "../config-2/keys.json", str(config.parent / "config-2"))
    assert list(misplaced(mesh, [config])) == []
    assert mesh.mesh_config is not None
    assert folders([config], mesh.mesh_config) == [config, config.parent / "config-2"]


def test_of_a_single_file_of_configuration_its_folder_counts(config: Path) -> None:
    """`meshctl up -f mesh.yaml`: what lies beside it is inside."""
    (config / "mesh.yaml").touch()
    mesh = state(config, "keys.json")
    assert list(misplaced(mesh, [config / "mesh.yaml"])) == []
    (finding,) = misplaced(state(config, "link.json"), [config / "mesh.yaml"])
    assert "leads out" in finding.message


def test_what_is_no_regular_file_is_not_read(config: Path) -> None:
    """A folder, a pipe that nobody writes: said at once, and nothing waits for it."""
    os.mkfifo(config / "pipe")
    for name in ("pipe", "..data"):
        with pytest.raises(KeyFileError, match="is not a regular file"):
            read(config / name, [config], 10)
    with pytest.raises(KeyFileError, match="cannot be read: No such file"):
        read(config / "none", [config], 10)
    with pytest.raises(KeyFileError, match="no name of a file"):
        really_at(config / "a\0b", [config])
    (finding,) = misplaced(state(config, r'"a\0b"'), [config])
    assert "no name of a file" in finding.message
