import json
import sys
from pathlib import Path
from typing import Any

import pytest

from meshproxy.config import bootstrap
from meshproxy.config.bootstrap import BootstrapError

PLANE = {
    "address": "127.0.0.1",
    "port": 15012,
    "identity": "spiffe://mesh.local/ns/mesh-system/sa/control-plane",
    "roots": "roots.pem",
    "token": "/run/token",
}
GOOD = {
    "workload": "default/catalog-v1",
    "identity": "spiffe://mesh.local/ns/default/sa/catalog",
    "state": "state",
    "control_plane": PLANE,
}


def written(folder: Path, data: Any, name: str = "bootstrap.json") -> Path:
    path = folder / name
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


@pytest.mark.parametrize("name", ["bootstrap.json", "bootstrap.yaml", "bootstrap.yml"])
def test_json_and_yaml_say_the_same(name: str, tmp_path: Path) -> None:
    """JSON is YAML too; relative paths start at the file, absolute ones stay."""
    read = bootstrap.read(written(tmp_path, GOOD, name))
    assert read.workload == "default/catalog-v1"
    assert read.state == tmp_path / "state"
    assert read.control_plane is not None
    assert read.control_plane.roots == tmp_path / "roots.pem"
    assert read.control_plane.token == Path("/run/token")
    assert (read.admin.address, read.admin.port) == ("127.0.0.1", 15000)
    assert read.drain_seconds == 10


def test_a_static_configuration_needs_no_control_plane(tmp_path: Path) -> None:
    """`static` stands instead of `control_plane`."""
    data = {**GOOD, "static": {"snapshot": "snapshot.json"}}
    del data["control_plane"]
    read = bootstrap.read(written(tmp_path, data))
    assert read.static is not None
    assert read.static.snapshot == tmp_path / "snapshot.json"
    assert read.static.certificate is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"workload": "catalog"}, "workload: expected namespace/name in lower case"),
        ({"workload": None}, "workload: Expected `str`, got `null`"),
        ({"identity": "spiffe://mesh.local/x"}, "identity: .* expected the path /ns/"),
        ({"control_plane": {**PLANE, "identity": "x"}}, "control_plane.identity: .*expected spiffe://"),
        ({"control_plane": {**PLANE, "port": "15012"}}, "control_plane.port: Expected `int`, got `str`"),
        ({"control_plane": {**PLANE, "port": 0}}, "control_plane.port: Expected `int` >= 1"),
        ({"control_plane": {**PLANE, "roots": 5}}, "control_plane.roots: expected a path"),
        ({"state": ""}, "state: expected a path"),
        ({"sate": "x"}, "unknown field `sate`, did you mean `state`"),
        ({"admin": {"prt": 1}}, "admin: .* unknown field `prt`, did you mean `port`"),
        ({"workers": 0}, "workers: Expected `int` >= 1"),
        ({"drain_seconds": -1}, "drain_seconds: Expected `float` >= 0"),
        ({"admin": {"port": 70000}}, "admin.port: Expected `int` <= 65535"),
        ({"control_plane": None}, "expected exactly one of control_plane and static"),
        ({"static": {"snapshot": "x"}}, "expected exactly one of control_plane and static"),
        (
            {"control_plane": None, "static": {"snapshot": "x", "key": "y"}},
            "static: expected both certificate and key, or neither",
        ),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_with_what_was_expected(
    change: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    """File, field and expectation stand in one sentence."""
    path = written(tmp_path, {**GOOD, **change})
    with pytest.raises(BootstrapError, match=expected) as caught:
        bootstrap.read(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_for_another_process(tmp_path: Path) -> None:
    """What a worker is told is what its parent has read, paths included."""
    read = bootstrap.read(written(tmp_path, {**GOOD, "workers": 4}))
    assert bootstrap.decode(bootstrap.encode(read)) == read


def test_the_admin_pages_may_have_a_unix_socket(tmp_path: Path) -> None:
    """Relative to the file as every path; on loopback, and read only, by default."""
    admin = bootstrap.read(written(tmp_path, {**GOOD, "admin": {"socket": "a.sock"}})).admin
    assert (admin.place, str(admin)) == ((f"{tmp_path}/a.sock", 0), f"unix:{tmp_path}/a.sock")
    default = bootstrap.read(written(tmp_path, GOOD)).admin
    assert str(default).startswith("127.0.0.1:")
    assert default.drain is False


def test_the_command_line_has_the_last_word_on_workers(tmp_path: Path) -> None:
    """Within the same bounds."""
    read = bootstrap.read(written(tmp_path, {**GOOD, "workers": 4}))
    assert bootstrap.with_workers(read, 2).workers == 2
    for wrong in (0, -1, 257):
        with pytest.raises(BootstrapError, match=rf"--workers: Expected `int` .*, found {wrong}"):
            bootstrap.with_workers(read, wrong)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("b.json", "{", "expected JSON"),
        ("b.json", "[" * 100_000, "expected JSON"),
        ("b.json", "[]", "the whole file: Expected `object`"),
        ("b.yaml", "a: [", "expected YAML"),
        ("b.yaml", "", "the file is empty"),
        ("b.yaml", "state: a\nstate: b", 'line 2: "state" stands twice, first in line 1'),
        ("b.yaml", "a: !!python/object:os.system {}", "expected YAML"),
    ],
)
def test_what_is_neither_json_nor_yaml_says_so(
    name: str, text: str, expected: str, tmp_path: Path
) -> None:
    """Damage is an error with the file's name, never a traceback."""
    with pytest.raises(BootstrapError, match=expected):
        bootstrap.read(written(tmp_path, text, name))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The most common mistake reads well."""
    with pytest.raises(BootstrapError, match=r"nothing\.json: cannot be read: No such file[^/]*$"):
        bootstrap.read(tmp_path / "nothing.json")


def test_yaml_without_its_library_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sidecar is installed without PyYAML; JSON still works."""
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(BootstrapError, match="needs PyYAML"):
        bootstrap.read(written(tmp_path, GOOD, "bootstrap.yaml"))
    assert bootstrap.read(written(tmp_path, GOOD)).workload == "default/catalog-v1"
