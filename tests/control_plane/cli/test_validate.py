import json
from pathlib import Path

import pytest

from control_plane.cli.validate import run
from tests.helpers.mesh import route, service


def test_good_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A short summary, and 0."""
    (tmp_path / "a.yaml").write_text(service("a") + "---" + service("b"))
    (tmp_path / "c.yaml").write_text(service("c"))
    assert run([tmp_path], "table") == 0
    assert capsys.readouterr().out == "3 resources in 2 files: ok\n"
    assert run([tmp_path / "c.yaml"], "table") == 0
    assert capsys.readouterr().out == "1 resource in 1 file: ok\n"


def test_both_kinds_of_findings_one_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Errors, and references that do not resolve; in the order of files and lines; and 1."""
    (tmp_path / "a.yaml").write_text(
        route("r", "a", "[{backendRefs: [{name: x, port: 80}]}]") + "---" + service("a")
    )
    (tmp_path / "b.yaml").write_text(service("A"))
    assert run([tmp_path], "table") == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first == (
        f"{tmp_path}/a.yaml:7: HTTPRoute/default/r: spec.rules[0].backendRefs[0]: "
        "ResolvedRefs=False (BackendNotFound): Service default/x does not exist, "
        "expected one of default/a (in force: its share of requests is answered 500)"
    )
    assert second.startswith(f"{tmp_path}/b.yaml:4: Service/default/A: metadata.name: ")


def test_files_with_keys_that_are_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a control plane with these files would refuse to read is said without one."""
    (tmp_path / "a.yaml").write_text(
        "apiVersion: meshproxy.io/v1alpha1\nkind: RequestAuthentication\n"
        "metadata: {name: users}\nspec: {jwtRules: [{issuer: a, jwksFile: ../keys.json}]}\n"
    )
    assert run([tmp_path], "table") == 1
    assert capsys.readouterr().out.startswith(
        f"{tmp_path}/a.yaml:1: RequestAuthentication/default/users: spec.jwtRules[0].jwksFile:"
        " leads out of the folders of the configuration"
    )


def test_what_is_odd_is_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No reason for another exit code; nothing is odd where no file has a workload."""
    lonely = service("lonely").rstrip() + "\n"
    (tmp_path / "a.yaml").write_text(lonely)
    assert run([tmp_path], "table") == 0
    assert "note" not in capsys.readouterr().out
    (tmp_path / "b.yaml").write_text(
        "apiVersion: meshproxy.io/v1alpha1\nkind: Workload\nmetadata: {name: w}\nspec: {}\n"
    )
    assert run([tmp_path], "table") == 0
    summary, note = capsys.readouterr().out.splitlines()
    assert summary == "2 resources in 2 files: ok"
    assert note.startswith(f"note: {tmp_path}/a.yaml:")
    assert "Service/default/lonely: spec.selector: " in note
    assert run([tmp_path], "json") == 0
    assert capsys.readouterr().out == "[]\n"


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same findings as data."""
    (tmp_path / "a.yaml").write_text("kind: Foo")
    assert run([tmp_path], "json") == 1
    (finding,) = json.loads(capsys.readouterr().out)
    assert (finding["line"], finding["kind"], finding["severity"]) == (1, "Foo", "error")
    (tmp_path / "a.yaml").unlink()
    assert run([tmp_path], "json") == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_missing_path_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says which."""
    assert run([tmp_path / "none"], "table") == 2
    assert capsys.readouterr().err == (
        f"meshctl validate: {tmp_path}/none: no such file or folder\n"
    )
