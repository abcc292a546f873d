"""The loads: what other programs report is read rightly, and our own do what they say."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.clients import LoadError, h2load, ours, run, wrk
from bench.process import Processes
from bench.programs import python
from bench.site import ADDRESSES, Ports, accepts

WRK = """\
Running 1s test @ http://127.0.0.1:17663/team-2/100
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     5.02ms    2.27ms  24.44ms   88.51%
    Req/Sec     6.44k     0.92k    7.52k    80.00%
  6403 requests in 1.00s, 1.47MB read

JSON {"requests": 6403, "seconds": 1.002883, "p50_ms": 4.806, "p99_ms": 16.982, "failed": 3}
"""
H2LOAD = """\
starting benchmark...
spawning thread #0: 8 total client(s). Timing-based test with 0s of warm-up time and 1s of main duration for measurements.
Warm-up started for thread #0.
Main benchmark duration is over for thread #0. Stopping all clients.

finished in 1.00s, 7143.00 req/s, 552.85KB/s
requests: 7143 total, 7271 started, 7143 done, 7140 succeeded, 2 failed, 1 errored, 0 timeout
status codes: 7135 2xx, 0 3xx, 2 4xx, 5 5xx
traffic: 552.85KB (566116) total, 112.29KB (114984) headers (space savings 89.34%), 258.10KB (264291) data
                     min         max         mean         sd        +/- sd
time for request:     2.01ms     47.61ms     17.82ms      4.61ms    81.09%
"""


def test_wrk_is_read() -> None:
    """Our line in its report is what counts: its own lines round."""
    assert wrk.parse(WRK) == wrk.Answered(6403, 1.002883, 4.806, 16.982, 3)
    with pytest.raises(LoadError, match="unable to connect"):
        wrk.parse("unable to connect to 127.0.0.1:1")


def test_h2load_is_read() -> None:
    """Failed, errored, and what was answered with another status than 2xx: all of it failed."""
    assert h2load.parse(H2LOAD) == h2load.Answered(7143, 1.0, 7143.0, 2 + 1 + 5)
    with pytest.raises(LoadError, match="nothing"):
        h2load.parse("starting benchmark...")


@pytest.mark.parametrize(("text", "seconds"), [("850.12ms", 0.85012), ("1.50m", 90.0)])
def test_h2load_times_have_units(text: str, seconds: float) -> None:
    """It says `1.00s`, `850.12ms` or `1.50m`, as it sees fit."""
    found = h2load.parse(H2LOAD.replace("finished in 1.00s", f"finished in {text}"))
    assert found.seconds == pytest.approx(seconds)


def test_a_load_that_fails_says_why() -> None:
    """What it has written to its standard error is in the message."""
    with pytest.raises(LoadError, match="no such host"):
        run([sys.executable, "-c", "raise SystemExit('no such host')"], 1)


# Our own ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """Start the app of bulk and TCP; return its HTTP and its TCP port."""
    folder = tmp_path_factory.mktemp("origin")
    ports = Ports()
    http, tcp = ports.free(ADDRESSES), ports.free(ADDRESSES)
    with Processes() as processes:
        process = processes.start(
            "origin",
            python("bench.origin", str(http), str(tcp)),
            folder,
            {"PYTHONPATH": str(Path(__file__).parent.parent.parent)},
        )
        process.until("it listens", lambda: accepts(http) and accepts(tcp))
        yield http, tcp


@pytest.mark.integration
@pytest.mark.parametrize("what", ["up", "down"])
def test_tcp_bulk(origin: tuple[int, int], what: str) -> None:
    """Bytes are counted where they arrive, for each flow, so that the least can be compared."""
    seen = ours("tcp", what, origin[1], 2, 0.1, seconds=0.1)
    assert seen["bytes"] > 0
    assert 0 < seen["fairness"] <= 1


@pytest.mark.integration
@pytest.mark.parametrize("what", ["connect", "ping"])
def test_tcp_turns(origin: tuple[int, int], what: str) -> None:
    """Connections and messages are counted when the echo is whole."""
    seen = ours("tcp", what, origin[1], 4, 1.0, seconds=1.0)
    assert seen["turns"] >= 4  # more, but for a machine that has other things to do
    assert 0 < seen["p50_ms"] <= seen["p99_ms"]


@pytest.mark.integration
def test_open_loop(origin: tuple[int, int]) -> None:
    """As many requests as the rate and the time make, neither more nor fewer."""
    seen = ours("open_loop", origin[0], "web.bench", "/x/100", 500, 4, 0.2, seconds=0.2)
    assert seen["requests"] == 100
    assert 0 < seen["p50_ms"] <= seen["p99_ms"]


@pytest.mark.integration
def test_uploads_are_taken_whole(origin: tuple[int, int]) -> None:
    """The app answers a body of 1 MiB only when all of it is there; two in a row do not mix."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", origin[0], timeout=10)
    for size in (1024 * 1024, 0, 7, 100_000):
        connection.request("POST", "/x/upload", body=b"x" * size)
        assert connection.getresponse().read() == b""
        connection.request("GET", f"/x/{size}")
        assert len(connection.getresponse().read()) == size
    connection.close()


@pytest.mark.integration
def test_a_load_of_ours_that_fails_says_why() -> None:
    """Nobody listens: that is an error, not a figure."""
    with pytest.raises(LoadError, match="refused"):
        ours("tcp", "ping", Ports().free(), 1, 0.1, seconds=0.1)
