"""
Which certificates are out: for each workload the last one, for each issuing key until when.

An authority that wants to retire a key must know when the last certificate of that key has ended,
also after its own restart, and also of sidecars that are away just now.  So each certificate
leaves a line in a file before it leaves the house; at start what has ended is dropped.
"""

import logging
import os
from pathlib import Path

import msgspec
from msgspec import Struct

from meshproxy import private_file

log = logging.getLogger(__name__)

_WORTH_COMPACTING = 1000
"""Lines beyond those that count: each is some 200 bytes."""


class Entry(Struct, frozen=True, kw_only=True):
    """
    One certificate.

    Attributes:
        workload: ``namespace/name``.
        serial: In hexadecimal.
        issuer: Name of the issuing key (`Signer.issuer_id`).
        root: Name of the root's key.
        not_after: Seconds since the epoch.
    """

    workload: str
    serial: str
    issuer: str
    root: str
    not_after: float


class Ledger:
    """
    Attributes:
        last: The certificate that each workload got last.
    """

    def __init__(self, path: Path, now: float) -> None:
        """
        Open what earlier runs have left.

        Raises:
            PrivateFileError: The file cannot be read or written, or others can read it.
        """
        self.last: dict[str, Entry] = {}
        self._path = path
        self._issuers: dict[str, Entry] = {}  # of each issuing key, the one that lives longest
        self._lines = 0
        data = private_file.read(path) or b""
        for line in data.splitlines():
            try:
                self._count(msgspec.json.decode(line, type=Entry))
            except msgspec.DecodeError:
                # Half a line, if anything: written when the machine went down.
                log.warning("%s: a line cannot be read and is left out", path)
        if data:
            self._compact(now)

    def note(self, entry: Entry, now: float) -> None:
        """
        Write down a certificate that is about to be handed out.

        Raises:
            PrivateFileError: It cannot be written; it must not be handed out.
        """
        if self._lines > _WORTH_COMPACTING + 2 * len(self.last):
            self._compact(now)
        line = msgspec.json.encode(entry) + b"\n"
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                file.write(line)
        except OSError as error:
            raise private_file.PrivateFileError(
                f"{self._path}: cannot be written: {error.strerror}"
            ) from error
        self._count(entry)

    def until(self, *, issuer: str | None = None, root: str | None = None) -> float:
        """Return when the last certificate of an issuing key, or of a root, ends; 0 for none."""
        ends = [
            entry.not_after
            for entry in self._issuers.values()
            if issuer in (None, entry.issuer) and root in (None, entry.root)
        ]
        return max(ends, default=0.0)

    def _count(self, entry: Entry) -> None:
        self._lines += 1
        self.last[entry.workload] = entry
        longest = self._issuers.get(entry.issuer)
        if longest is None or longest.not_after < entry.not_after:
            self._issuers[entry.issuer] = entry

    def _compact(self, now: float) -> None:
        self.last = {name: entry for name, entry in self.last.items() if entry.not_after > now}
        self._issuers = {
            key: entry for key, entry in self._issuers.items() if entry.not_after > now
        }
        # The longest first: of two of one workload, the later line is its last.
        kept = [*self._issuers.values(), *self.last.values()]
        private_file.write(self._path, b"".join(msgspec.json.encode(e) + b"\n" for e in kept))
        self._lines = len(kept)
