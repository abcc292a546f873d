"""The command line as a whole."""

import re
import subprocess
import sys

import pytest

from control_plane.cli.main import main
from meshproxy import __version__


def outcome(*words: str) -> int:
    """Run a command; argparse ends some of them by itself."""
    try:
        return main(words)
    except SystemExit as end:
        return int(end.code or 0)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """The one of the product."""
    assert outcome("--version") == 0
    assert capsys.readouterr().out == f"meshctl {__version__}\n"


@pytest.mark.parametrize(
    "verb", ["demo", "up", "validate", "status", "proxies", "config", "stat", "token"]
)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """And is named in the help of the whole."""
    assert outcome(verb, "--help") == 0
    assert f"usage: meshctl {verb}" in capsys.readouterr().out
    assert outcome("--help") == 0
    assert re.search(rf"^    {verb} ", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("statsu",), "unknown verb 'statsu'; did you mean `status`"),
        (
            ("config", "a", "foo"),
            "argument SECTION: invalid choice: 'foo' (choose from 'listeners', ",
        ),
        (("top",), "unknown verb 'top'; the verbs are demo"),
        (("dance",), "unknown verb 'dance'; the verbs are demo, up, validate"),
        ((), "the following arguments are required: VERB"),
        (("up",), "the following arguments are required: -f/--filename"),
        (("up", "-f", "/no/such"), "/no/such: no such file or folder"),
        (("demo", "--for", "20"), '"20" is not a duration, expected a duration such as'),
        (("status", "-o", "xml"), "invalid choice: 'xml'"),
        (("status", "--context", "/no/such"), "cannot read the context /no/such"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(
    words: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and a sentence on standard error."""
    assert outcome(*words) == 2
    assert expected in capsys.readouterr().err


def test_validate_needs_no_mesh(capsys: pytest.CaptureFixture[str]) -> None:
    """The demo's own files are good."""
    assert outcome("validate", "-f", "configs/demo") == 0
    assert "ok" in capsys.readouterr().out


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_obstacle(closed: str) -> None:
    """Some process managers start programs with nothing open."""
    done = subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -m control_plane.cli.main demo --help {closed}"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
