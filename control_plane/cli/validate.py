"""
`meshctl validate -f PATH`: everything that a running mesh would say about these files, without one.
"""

import sys
from pathlib import Path

import msgspec

from control_plane.cli.warnings import warnings
from control_plane.key_files import misplaced
from control_plane.placement import Placements
from control_plane.resources.collection import Choice, choose, examine, state_of
from control_plane.sources.files import look


def run(paths: list[Path], output: str) -> int:
    """
    Print the findings, one a line or as JSON; return 0 without any, 1 otherwise.

    What is allowed and yet odd is a note below, and no reason for a 1: a Service may be written
    before its workloads, and where there are none at all, they are in other files.

    A path that does not exist is a usage error: 2.
    """
    missing = [path for path in paths if not path.exists()]
    for path in missing:
        print(f"meshctl validate: {path}: no such file or folder", file=sys.stderr)
    if missing:
        return 2
    disk = look(paths)
    files = {path: examine(text, path) for path, text in disk.texts.items()}
    choice = choose(files, {})
    found = (*disk.unknown.values(), *choice.findings)
    state = state_of(Choice(choice.in_force, found), Placements())
    findings = (*state.findings, *misplaced(state, paths))
    if output == "json":
        print(msgspec.json.format(msgspec.json.encode(findings)).decode())
    elif findings:
        print(*findings, sep="\n")
    else:
        resources = sum(len(file.sources) for file in files.values())
        print(f"{_counted(resources, 'resource')} in {_counted(len(files), 'file')}: ok")
    if output != "json" and not findings and state.workloads:
        for warning in warnings(state):
            print(f"note: {warning}")
    return 1 if findings else 0


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
