"""A mesh to ask: from files or from a control plane, with names as people type them."""

from pathlib import Path

import pytest

from control_plane.cli.client import Client
from control_plane.cli.context import read
from control_plane.cli.errors import USAGE, CommandError
from control_plane.cli.mesh import of_files, running
from control_plane.outline import Behind
from tests.control_plane.cli.conftest import Api
from tests.control_plane.cli.policed import folder, serve


def test_files_and_control_plane_say_the_same(tmp_path: Path, api: Api) -> None:
    """What is answered does not depend on whom one asks."""
    files = serve(api, folder(tmp_path))
    live = running(Client(read(api.context)))
    assert live.outline == files.outline
    for name in files.outline.identities:
        assert live.snapshot(name) == files.snapshot(name)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("catalog", {Behind("default/catalog-v1", 8080), Behind("default/catalog-v2", 8080)}),
        ("catalog:80", {Behind("default/catalog-v1", 8080), Behind("default/catalog-v2", 8080)}),
        ("catalog-v1", {Behind("default/catalog-v1", 8080)}),
        ("data/db:5432", {Behind("data/db", 5432)}),
    ],
)
def test_who_is_meant(typed: str, expected: set[Behind], tmp_path: Path) -> None:
    """A service is what is behind it, a workload its ports; the namespace `default` goes without saying."""
    assert set(of_files([folder(tmp_path)]).servers(typed)) == expected


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("catlog", "there is no service or workload 'catlog'; did you mean catalog?"),
        ("zzz", "there is no service or workload 'zzz'; there are catalog, catalog-v1, "),
        ("catalog:http", "'http' is no port"),
        ("catalog:81", "service default/catalog has no port 81, expected 80"),
        ("catalog-v1:80", "workload default/catalog-v1 has no port 80, expected 8080"),
        ("nobody", "has several ports, say which: default/nobody:80, default/nobody:81"),
        ("nobody:80", "no workload is behind service default/nobody:80"),
    ],
)
def test_what_nobody_is_called(typed: str, said: str, tmp_path: Path) -> None:
    """Says what there is, or what was nearly meant; a usage error."""
    with pytest.raises(CommandError) as raised:
        of_files([folder(tmp_path)]).servers(typed)
    assert said in str(raised.value)
    assert raised.value.code == USAGE


def test_places(tmp_path: Path) -> None:
    """A rule's own line while the file stands as it was read; else the line of its policy."""
    files = folder(tmp_path)
    mesh, key = of_files([files]), "AuthorizationPolicy/default/catalog"
    path = files / "policies.yaml"
    assert mesh.place(key) == f"{path}:1"
    assert mesh.place(key, "0") == f"{path}:7"
    assert mesh.place(key, "admins") == f"{path}:9"
    assert mesh.place(key, "gone") == f"{path}:1"
    assert mesh.place("AuthorizationPolicy/default/none") == ""
    path.write_text("\n" + path.read_text())
    assert mesh.place(key, "0") == f"{path}:1"
    path.unlink()
    assert mesh.place(key, "0") == f"{path}:1"


def test_files_with_errors_are_not_asked(tmp_path: Path) -> None:
    """They would not be in force; what is wrong with them is said."""
    (tmp_path / "a.yaml").write_text("kind: Foo\n")
    with pytest.raises(CommandError, match=r"these files are not valid:\n.*a\.yaml:1"):
        of_files([tmp_path])


def test_an_older_control_plane_is_told_apart(api: Api) -> None:
    """One that has no outline: a way out is said."""
    with pytest.raises(CommandError, match="older than this command"):
        running(Client(read(api.context)))
