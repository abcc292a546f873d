"""
What a sidecar costs, in a minute: CPU per request, throughput, latency and memory.

    python -m bench.quick [--rounds 3] [--seconds 3] [--connections 32] [-o json]

The paths take turns within each round, and each figure is a median over the rounds with its least
and greatest value: on a shared machine the same code can take 1.6 times the CPU from one second to
the next, so compare the columns of one run, never figures of two runs.  p99 on a small machine is
mostly the scheduler.  CPU is the on-CPU time of all threads of the sidecars of a path, divided by
requests; load generator and origin are not in it.
"""

import argparse
import json
import os
import signal
import ssl
import statistics
import sys
import sysconfig
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from . import load
from .cost import Memory, cpu_nanoseconds, memory
from .paths import DIRECT, HOST, ONE, Bench, Course

SIZES = (100, 1024)


@dataclass(frozen=True)
class Sample:
    """One course under one load; CPU by sidecar."""

    cpu_us: tuple[float, ...]
    rps: float
    p50_ms: float
    p99_ms: float
    failed: int


@dataclass(frozen=True)
class Spread:
    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int = 0) -> str:
        return f"{self.median:.{digits}f} [{self.least:.{digits}f}-{self.greatest:.{digits}f}]"


@dataclass(frozen=True)
class Row:
    path: str
    body: int
    cpu_us: Spread
    cpu_us_by_sidecar: list[float]
    cpu_of_one: float | None
    rps: Spread
    p50_ms: Spread
    p99_ms: Spread
    rps_of_direct: float
    failed: int


# Measuring ----------------------------------------------------------------------------------------


def measure(course: Course, size: int, connections: int, seconds: int) -> Sample:
    before = [cpu_nanoseconds(process.pid) for process in course.sidecars]
    seen = load.run(course.url(size), HOST, connections, seconds)
    after = [cpu_nanoseconds(process.pid) for process in course.sidecars]
    return Sample(
        cpu_us=tuple(
            (late - early) / 1000 / max(1, seen.requests)
            for early, late in zip(before, after, strict=True)
        ),
        rps=seen.requests / seen.seconds,
        p50_ms=seen.p50_ms,
        p99_ms=seen.p99_ms,
        failed=seen.failed,
    )


def rows(samples: dict[tuple[str, int], list[Sample]]) -> list[Row]:
    """Condense the samples of all rounds, by (path, size), in the order they came in."""
    rps = {key: statistics.median(s.rps for s in group) for key, group in samples.items()}
    cpu = {key: statistics.median(sum(s.cpu_us) for s in group) for key, group in samples.items()}
    return [
        Row(
            path=path,
            body=size,
            cpu_us=Spread.of([sum(sample.cpu_us) for sample in group]),
            cpu_us_by_sidecar=[
                statistics.median(column)
                for column in zip(*(sample.cpu_us for sample in group), strict=True)
            ],
            cpu_of_one=cpu[path, size] / cpu[ONE, size] if cpu.get((ONE, size)) else None,
            rps=Spread.of([sample.rps for sample in group]),
            p50_ms=Spread.of([sample.p50_ms for sample in group]),
            p99_ms=Spread.of([sample.p99_ms for sample in group]),
            rps_of_direct=rps[path, size] / rps[DIRECT, size],
            failed=sum(sample.failed for sample in group),
        )
        for (path, size), group in samples.items()
    ]


def interpreter() -> dict[str, str]:
    """What decides over more of the result than one might think: PGO alone is worth a quarter."""
    arguments = str(sysconfig.get_config_var("CONFIG_ARGS"))
    if "--enable-optimizations" in arguments or "-fprofile-use" in arguments:
        pgo = "yes"
    elif sys.base_prefix == "/usr":
        pgo = "not stated by this build (Debian's and Ubuntu's packages have it)"
    else:
        pgo = "no (expect about a quarter less CPU with it)"
    return {
        "python": sys.version.split()[0],
        "pgo": pgo,
        "openssl": ssl.OPENSSL_VERSION,
        "cpus": str(os.cpu_count()),
        "load": load.client(),
    }


# Telling ------------------------------------------------------------------------------------------


def table(lines: Sequence[Sequence[str]]) -> str:
    """Align columns: the first to the left, figures to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def as_text(found: list[Row], sizes: dict[str, Memory]) -> str:
    figures = [["path", "body", "CPU us/req", "of one", "by sidecar", "req/s", "of direct"]]
    figures[0] += ["p50 ms", "p99 ms", "failed"]
    figures += [
        [
            row.path,
            f"{row.body} B",
            row.cpu_us.text() if row.cpu_us_by_sidecar else "-",
            f"{row.cpu_of_one:.2f}" if row.cpu_of_one and row.cpu_us_by_sidecar else "-",
            " + ".join(f"{part:.0f}" for part in row.cpu_us_by_sidecar) or "-",
            row.rps.text(),
            f"{row.rps_of_direct:.2f}",
            row.p50_ms.text(2),
            row.p99_ms.text(2),
            str(row.failed),
        ]
        for row in found
    ]
    held = [["sidecar, after the load", "RSS MB", "private MB"]]
    held += [[name, f"{size.rss:.1f}", f"{size.private:.1f}"] for name, size in sizes.items()]
    return f"{table(figures)}\n\n{table(held)}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.quick", description=(__doc__ or "").strip(),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    options = parser.parse_args()

    signal.signal(signal.SIGTERM, _stop)
    samples: dict[tuple[str, int], list[Sample]] = defaultdict(list)
    about = interpreter()
    _note("  ".join(f"{name}: {value}" for name, value in about.items()))
    if about["load"] != "wrk":
        _note("wrk is not installed (Debian, Ubuntu: apt install wrk): using the built-in client.")
    with tempfile.TemporaryDirectory(prefix="meshproxy-bench-") as folder, Bench(Path(folder)) as bench:  # fmt: skip
        courses = bench.courses()
        for course in courses:  # caches filled, connections made
            load.run(course.url(SIZES[0]), HOST, options.connections, 1)
        for number in range(options.rounds):
            _note(f"round {number + 1} of {options.rounds} …")
            for size in SIZES:
                for course in courses:
                    samples[course.name, size].append(
                        measure(course, size, options.connections, options.seconds)
                    )
        sizes = {
            f"{course.name}, {'AB'[index]}": memory(process.pid)
            for course in courses
            for index, process in enumerate(course.sidecars)
        }
    found = rows(dict(sorted(samples.items(), key=lambda item: item[0][1])))
    if options.output == "json":
        document: dict[str, Any] = {
            "about": about,
            "rounds": options.rounds,
            "seconds": options.seconds,
            "connections": options.connections,
            "paths": [asdict(row) for row in found],
            "memory": {name: asdict(size) for name, size in sizes.items()},
        }
        print(json.dumps(document, indent=2))
    else:
        print(as_text(found, sizes))
    return 1 if any(row.failed for row in found) else 0


def _note(text: str) -> None:
    """Progress goes to standard error, so that `-o json` stays JSON."""
    print(text, file=sys.stderr, flush=True)


def _stop(*_: object) -> NoReturn:
    raise SystemExit(143)  # leaves the `with` block, which ends the processes


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except RuntimeError as error:
        sys.exit(f"bench: {error}")
