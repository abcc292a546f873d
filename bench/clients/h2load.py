"""h2load: HTTP/2 in a closed loop, many streams on few connections."""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.programs import find

from . import LoadError, run

_MESSAGE = b"\0\0\0\0\x20" + b"m" * 32
"""As gRPC frames one: not compressed, 32 bytes."""
_FINISHED = re.compile(r"finished in ([\d.]+)(us|ms|s|m), ([\d.]+) req/s")
_REQUESTS = re.compile(r"requests: .* (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored")
_STATUS = re.compile(r"status codes: (\d+) 2xx")
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


@dataclass(frozen=True)
class Answered:
    requests: int
    seconds: float
    rps: float
    failed: int


def unary(
    port: int, host: str, path: str, connections: int, streams: int, seconds: float
) -> Answered:
    """
    POST small messages, as unary gRPC does.

    Raises:
        MissingError: h2load is not installed.
        LoadError: It failed.
    """
    with tempfile.NamedTemporaryFile(prefix="meshproxy-bench-") as body:
        Path(body.name).write_bytes(_MESSAGE)
        # Like wrk, it counts in whole seconds.
        options = [
            "-t1",
            f"-c{connections}",
            f"-m{streams}",
            f"-D{max(1, round(seconds))}",
            f"-d{body.name}",
        ]
        options += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        where = [f"--connect-to=127.0.0.1:{port}", f"http://{host}{path}"]
        return parse(run([find("h2load"), *options, *where], seconds))


def parse(said: str) -> Answered:
    """
    Read the report.

    Raises:
        LoadError: It is not one.
    """
    finished, requests = _FINISHED.search(said), _REQUESTS.search(said)
    status = _STATUS.search(said)
    if finished is None or requests is None or status is None:
        raise LoadError(f"h2load has reported nothing: {said.strip()[-500:]}")
    done = int(requests[1])
    return Answered(
        requests=done,
        seconds=float(finished[1]) * _SECONDS[finished[2]],
        rps=float(finished[3]),
        # A status other than 2xx is a failure for us, whatever h2load takes it for.
        failed=int(requests[3]) + int(requests[4]) + max(0, int(requests[2]) - int(status[1])),
    )
