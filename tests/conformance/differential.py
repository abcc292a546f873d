"""
The same bytes to other proxies: what do nginx, HAProxy and Envoy make of our vectors?

    python -m tests.conformance.differential [--envoy PATH] [--list]

sends every vector about a request of HTTP/1.1 to each, with the recording backend behind it, and
writes the table of `docs/conformance.md`: per class, how many were refused.  `--list` prints each
vector on which somebody differs from us.  A refusal is an answer of the proxy's own (4xx, 5xx), or
the end of the connection without any, and no complete request at the backend.
"""

import argparse
import asyncio
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tests.conformance import verdict
from tests.conformance.backend import Backend, recording
from tests.conformance.peers import PEERS, running, version_of
from tests.conformance.vectors import Vector, read

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "conformance.md"
TABLE: Final = re.compile(r"(?<=<!-- verdicts -->\n).*?(?=<!-- end -->)", re.DOTALL)
PATIENCE: Final = 0.4
"""Seconds for an answer: who waits for more bytes has accepted those that came."""

OURS: Final = "ours"


def vectors() -> list[Vector]:
    """Return those that can be asked of anybody."""
    return read("http1-requests-*")


def must_refuse(vector: Vector) -> bool:
    """Say whether our verdict is a refusal of (the last of) its requests."""
    last = vector.expect.removesuffix(", closed").rpartition(", ")[2]
    return last[:1] in ("4", "5") or last == "closed"


def classes(found: Iterable[Vector]) -> dict[str, list[Vector]]:
    grouped: dict[str, list[Vector]] = {}
    for vector in found:
        grouped.setdefault(vector.kind, []).append(vector)
    return grouped


async def refused(vector: Vector, port: int, backend: Backend) -> bool:
    """Say whether the proxy on this port refuses a vector."""
    backend.requests.clear()
    backend.answer = vector.answer
    got = await verdict.ask(port, vector.send, probe=vector.probe, patience=PATIENCE)
    relayed = [r for r in backend.requests if r.complete and "/probe" not in str(r)]
    told = any(answer[:1] in ("4", "5") for answer in got.answers)
    return told or (not relayed and not got.alive)


async def compare(envoy: Path | None) -> tuple[dict[str, str | None], dict[str, list[bool]]]:
    """Return the versions, None for who is missing, and by name who has refused what."""
    versions: dict[str, str | None] = {name: version_of(name, envoy) for name in PEERS}
    results: dict[str, list[bool]] = {OURS: [must_refuse(vector) for vector in vectors()]}
    with tempfile.TemporaryDirectory() as directory:
        async with recording() as backend:
            for name, found in versions.items():
                if found is None:
                    continue
                folder = Path(directory) / name
                folder.mkdir()
                with running(name, folder, backend.port, envoy) as port:
                    results[name] = [await refused(v, port, backend) for v in vectors()]
    return versions, results


def table(versions: dict[str, str | None], results: dict[str, list[bool]]) -> str:
    """Return the table of the document."""
    names = [name for name in (OURS, *PEERS) if name in results]
    titles = [name if name == OURS else f"{name} {versions[name]}" for name in names]
    lines = [
        f"| Class | Vectors | {' | '.join(titles)} |",
        f"|---|--:|{'--:|' * len(names)}",
    ]
    at = 0
    for kind, group in classes(vectors()).items():
        counts = [sum(results[name][at : at + len(group)]) for name in names]
        at += len(group)
        lines.append(f"| {kind} | {len(group)} | {' | '.join(map(str, counts))} |")
    totals = [sum(results[name]) for name in names]
    lines.append(f"| **all** | {at} | {' | '.join(map(str, totals))} |")
    missing = [name for name, found in versions.items() if found is None]
    note = f"\nNot installed where this was made: {', '.join(missing)}.\n" if missing else ""
    return "\n".join(lines) + "\n" + note


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.differential")
    parser.add_argument("--envoy", type=Path, help="the program; found by itself where installed")
    parser.add_argument("--list", action="store_true", help="print the vectors that differ")
    arguments = parser.parse_args()
    versions, results = asyncio.run(compare(arguments.envoy))
    if arguments.list:
        for number, vector in enumerate(vectors()):
            others = [name for name in results if results[name][number] != results[OURS][number]]
            if others:
                said = "refused" if results[OURS][number] else "relayed"
                print(f"{vector}: {said} by us, not by {', '.join(others)}")
    made = table(versions, results)
    DOCUMENT.write_text(TABLE.sub(lambda _: made, DOCUMENT.read_text()))
    print(made)


if __name__ == "__main__":
    main()
