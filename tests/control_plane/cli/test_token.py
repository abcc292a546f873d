"""A one-time join token."""

import pytest

from control_plane.cli.main import main
from tests.control_plane.cli.conftest import Api


def test_the_token_alone_goes_to_standard_output(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that `meshctl token vm > FILE` makes the file that a bootstrap names."""
    api.answers["/api/v1/tokens"] = (200, {"token": "t", "identity": "id", "expires_at": 0})

    assert main(["token", "vm", "--context", str(api.context)]) == 0

    said = capsys.readouterr()
    assert said.out == "t\n"
    assert said.err == "join token for id, good once, until 1970-01-01T00:00:00Z\n"
    assert api.posted == {"/api/v1/tokens": {"workload": "default/vm"}}


def test_an_unknown_workload_is_said(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """In the control plane's words."""
    api.answers["/api/v1/tokens"] = (404, {"error": "There is no workload 'default/vm'."})

    assert main(["token", "vm", "--context", str(api.context)]) == 1
    assert capsys.readouterr().err == "meshctl: There is no workload 'default/vm'.\n"
