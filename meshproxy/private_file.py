"""
Files that only their owner may read: keys, certificates, tokens, the last snapshot.

A file appears whole or not at all (written beside, then renamed), readable by its owner alone
from its first byte on; its directory is closed to everybody else.
"""

import os
import stat
from pathlib import Path


class PrivateFileError(Exception):
    """A private directory or file cannot be used; names it and says what to do."""


def directory(path: Path) -> Path:
    """
    Make sure that `path` is a directory of ours with mode 0700.

    Raises:
        PrivateFileError: It is not, and cannot be made so.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
    except OSError as error:
        raise PrivateFileError(f"{path}: cannot be used as a state directory: {error}") from error
    if found.st_uid != os.geteuid():
        raise PrivateFileError(
            f"{path}: belongs to user {found.st_uid}, expected {os.geteuid()}, who runs this program"
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        path.chmod(0o700)
    return path


def write(path: Path, data: bytes) -> None:
    """
    Replace `path` by `data`, atomically, with mode 0600.

    Raises:
        PrivateFileError: The file cannot be written; what was there before is still there.
    """
    temporary: Path | None = None
    try:
        name = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
        # O_EXCL: whatever somebody has put there, a link above all, is not written to.
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        temporary = name
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise PrivateFileError(f"{path}: cannot be written: {error}") from error


def read(path: Path) -> bytes | None:
    """
    Return the content, or None when there is no such file.

    Raises:
        PrivateFileError: It is there but cannot be read, or others may read it too.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_IMODE(mode) & 0o077:
                raise PrivateFileError(
                    f"{path}: has mode {stat.S_IMODE(mode):04o}, expected 0600: others could have"
                    " read or changed it"
                )
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PrivateFileError(f"{path}: cannot be read: {error}") from error
