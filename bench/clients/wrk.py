"""wrk: HTTP/1.1 in a closed loop, each connection sends its next request when the answer is there."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.programs import find

from . import PREFIX, LoadError, run

# wrk's own report rounds; its hook has the exact figures.
_REPORT = """
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\\nJSON {"requests": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "failed": %d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, e.connect + e.read + e.write + e.status + e.timeout))
end
"""
# Each request part of a trace of its own; put together before the load begins.
_TRACED = """
local requests, place = {}, 0
init = function(arguments)
  for number = 1, 4096 do
    wrk.headers["traceparent"] = string.format("00-%032x-%016x-01", number, number)
    requests[number] = wrk.format()
  end
end
request = function()
  place = place % #requests + 1
  return requests[place]
end
"""
_POST = 'wrk.method = "POST"\nwrk.body = string.rep("x", {size})\n'


@dataclass(frozen=True)
class Answered:
    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    failed: int


def load(
    url: str,
    host: str,
    connections: int,
    seconds: float,
    post: int = 0,
    *,
    traced: bool = False,
) -> Answered:
    """
    Load `url`, calling it `host`, with bodies of `post` bytes; `traced`: with a `traceparent`.

    Raises:
        MissingError: wrk is not installed.
        LoadError: It failed.
    """
    with tempfile.TemporaryDirectory(prefix="meshproxy-bench-") as folder:
        script = Path(folder) / "load.lua"
        body = _POST.format(size=post) if post else ""
        script.write_text(body + (_TRACED if traced else "") + _REPORT)
        # wrk counts in whole seconds; below one there is nothing to be measured anyway.
        options = ["-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", str(script)]
        return parse(run([find("wrk"), *options, "-H", f"Host: {host}", url], seconds))


def parse(said: str) -> Answered:
    """
    Read the report.

    Raises:
        LoadError: There is none.
    """
    for line in said.splitlines():
        if line.startswith(PREFIX):
            return Answered(**json.loads(line.removeprefix(PREFIX)))
    raise LoadError(f"wrk has reported nothing: {said.strip()[-500:]}")
