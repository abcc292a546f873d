"""
The packet filter of this machine: `iptables` and its relatives, as programs that are run.

Linux has two of them with one language: *nft*, the newer, and *legacy*.  Both work at the same
time, and neither shows the other's rules.  Which one plain ``iptables`` is, the distribution says.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Literal

from meshproxy.interception.rules import Family

Backend = Literal["nft", "legacy"]

WAIT = "10"
"""Seconds that we wait for another program to finish its change of the rules."""

CAP_NET_ADMIN = 1 << 12  # capabilities(7)
ADDRESSES = Path("/proc/net/if_inet6")
LEGACY_TABLES = {4: Path("/proc/net/ip_tables_names"), 6: Path("/proc/net/ip6_tables_names")}


class TablesError(Exception):
    """The rules cannot be read or written; the message says why."""


class Tables:
    """
    The nat table of one family, in one of the two packet filters.

    Args:
        family: IPv4 or IPv6.
        program: Such as ``iptables``, ``iptables-nft`` or ``ip6tables-legacy``.
    """

    def __init__(self, family: Family, program: str) -> None:
        self.family = family
        self.program = program

    def __repr__(self) -> str:
        return f"<Tables {self.program}>"

    @property
    def backend(self) -> Backend:
        """
        Which of the two it is.

        Versions before 1.8 knew legacy only, and did not say so.
        """
        version = _run([f"{self.program}-restore", "--version"]).stdout
        return "nft" if "nf_tables" in version else "legacy"

    def saved(self) -> str:
        """
        Return the nat table as `iptables-save` prints it.

        Raises:
            TablesError: There is no such program, or it cannot read the table.
        """
        done = _run([f"{self.program}-save", "-t", "nat"])
        if done.returncode:
            raise TablesError(f"{self.program}-save: {_said(done)}")
        return done.stdout

    def restore(self, text: str) -> None:
        """
        Make the changes of `text`, all of them or none.

        Raises:
            TablesError: They cannot be made; names the line if the program did.
        """
        done = _run([f"{self.program}-restore", "--noflush", "-w", WAIT], text)
        if not done.returncode:
            return
        said = _said(done)
        found = re.search(r"line:? (\d+)", said)
        lines = text.splitlines()
        if found and 0 < int(found[1]) <= len(lines):
            said = f"{said}\n  line {found[1]} is: {lines[int(found[1]) - 1]}"
        raise TablesError(f"{self.program}-restore: {said}")


def choose(family: Family, wanted: Backend | None) -> Tables:
    """
    Return the packet filter to write rules to: the wanted one, or the first that works.

    Raises:
        TablesError: None works; says why for each.
    """
    programs = [family.program, f"{family.program}-nft", f"{family.program}-legacy"]
    if wanted is not None:
        programs = [f"{family.program}-{wanted}"]
    problems: list[str] = []
    for program in programs:
        if shutil.which(f"{program}-restore") is None:
            continue
        tables = Tables(family, program)
        try:
            tables.saved()
        except TablesError as error:
            problems.append(str(error))
            continue
        return tables
    if not problems:
        names = " or ".join(f"{program}-restore" for program in programs)
        problems.append(f"there is no {names}: install iptables")
    raise TablesError("; ".join(problems))


def others(tables: Tables) -> list[Tables]:
    """Return the packet filters besides `tables` in which rules of ours may be left."""
    family = tables.family
    found: list[Tables] = []
    for backend in ("nft", "legacy"):
        program = f"{family.program}-{backend}"
        if backend == tables.backend or shutil.which(f"{program}-save") is None:
            continue
        # Merely asking the legacy one for a table makes the table, so the kernel is asked first.
        if backend == "legacy" and not _has_legacy_nat(family):
            continue
        found.append(Tables(family, program))
    return found


def _has_legacy_nat(family: Family) -> bool:
    try:
        return "nat" in LEGACY_TABLES[family.version].read_text().split()
    except OSError:
        return False


def is_allowed() -> bool:
    """Say whether this process may change rules (CAP_NET_ADMIN)."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return found is not None and bool(int(found[1], 16) & CAP_NET_ADMIN)


def speaks_ipv6() -> bool:
    """Say whether this network namespace has any IPv6 address (the file is absent without IPv6)."""
    try:
        return ADDRESSES.read_text().strip() != ""
    except OSError:
        return False


def _run(command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    # Messages are searched for line numbers, in English.
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        return subprocess.run(
            command, input=text, capture_output=True, text=True, check=False, env=environment
        )
    except OSError as error:
        raise TablesError(f"cannot run {command[0]}: {error.strerror}") from None


def _said(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in done.stderr.splitlines() if line and not line.startswith("Try `")]
    return " ".join(lines) or f"ended with exit code {done.returncode}"
