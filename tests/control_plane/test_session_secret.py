"""The secret of session tokens on disk."""

import stat
from pathlib import Path

import pytest

from control_plane.session_secret import session_secret
from meshproxy.policies.load_balancing.tokens import secret_of
from meshproxy.private_file import PrivateFileError


def test_a_restart_keeps_it(tmp_path: Path) -> None:
    """Sessions go on; nobody else can read the file."""
    path = tmp_path / "session-secret"
    secret = session_secret(path)
    assert len(secret_of(secret, "")) == 32
    assert session_secret(path) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert session_secret(tmp_path / "another") != secret


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 64])
def test_anything_else_in_the_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    """It names the file, and what was expected."""
    path = tmp_path / "session-secret"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(PrivateFileError, match=r"session-secret: expected 32 to 128 hexadecimal"):
        session_secret(path)
    assert path.read_bytes() == content
