import stat
from pathlib import Path

import pytest

from meshproxy import private_file
from meshproxy.private_file import PrivateFileError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_directory_is_closed_to_others(tmp_path: Path) -> None:
    """It is made with mode 0700, and an open one is closed."""
    assert mode(private_file.directory(tmp_path / "a" / "b")) == 0o700
    (tmp_path / "open").mkdir(mode=0o755)
    assert mode(private_file.directory(tmp_path / "open")) == 0o700


def test_a_file_in_the_place_of_a_directory_is_an_error_that_names_it(tmp_path: Path) -> None:
    """The operator reads which path is wrong."""
    (tmp_path / "state").write_text("")
    with pytest.raises(PrivateFileError, match="state: cannot be used as a state directory"):
        private_file.directory(tmp_path / "state")


def test_a_file_is_replaced_whole_and_private(tmp_path: Path) -> None:
    """Mode 0600, the new content, and no temporary file left."""
    path = tmp_path / "key"
    for content in (b"one", b"two"):
        private_file.write(path, content)
        assert private_file.read(path) == content
        assert mode(path) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    """A name that is a directory cannot be replaced; nothing else is left behind."""
    path = tmp_path / "key"
    path.mkdir()
    with pytest.raises(PrivateFileError, match="key: cannot be written"):
        private_file.write(path, b"new")
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(PrivateFileError, match="cannot be written"):
        private_file.write(tmp_path / "missing" / "key", b"new")


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """A secret that others could have read is no secret."""
    path = tmp_path / "key"
    path.write_bytes(b"secret")
    path.chmod(0o644)
    with pytest.raises(PrivateFileError, match="has mode 0644, expected 0600"):
        private_file.read(path)


def test_what_is_not_there_is_none_and_what_is_unreadable_an_error(tmp_path: Path) -> None:
    """First start and damage are different things."""
    assert private_file.read(tmp_path / "nothing") is None
    with pytest.raises(PrivateFileError, match="cannot be read"):
        private_file.read(tmp_path)
