"""The referee as a whole: what it is told, that it runs, that it leaves nothing behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import psutil
import pytest

from bench.compare import NAMES, Race, main, peers, workloads
from bench.site import Site
from bench.workloads import everything

ROOT = Path(__file__).parent.parent.parent
COMMAND = [sys.executable, "-m", "bench.compare", "--workload", "h1-small", "--seconds", "1"]
NO_ENVOY = ["--envoy", "/no/such/envoy"]

needs_nginx = pytest.mark.skipif(
    shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin") is None,
    reason="nginx, the app behind all peers, is not installed (apt install nginx-light)",
)
needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")


def test_workloads_by_name_and_by_group() -> None:
    """A group is all that is in it; nothing asked for is everything."""
    assert [one.name for one in workloads(["down"])] == ["down"]
    assert [one.name for one in workloads(["bulk", "start"])] == ["down", "up", "start"]
    assert workloads([]) == list(everything())


def test_who_takes_part() -> None:
    """Where small requests are weighed, ours and Envoy do twice; elsewhere as users run them."""
    twice = [one.name for one in everything() if one.wants("envoy-armed")]
    assert twice == ["h1-small", "h1-1k", "grpc", "rate"]
    assert [one.name for one in everything() if one.wants("ours-bare")] == [
        "h1-small",
        "h1-1k",
        "armed",
        "grpc",
        "rate",
    ]
    assert [one.name for one in peers(NAMES, None)] == list(NAMES)


def test_an_unknown_workload_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    """What there is to choose from is listed."""
    with pytest.raises(SystemExit) as caught:
        main(["--workload", "h3"])
    assert caught.value.code == 2
    assert "h1-small" in capsys.readouterr().err


def test_a_peer_that_takes_no_part_is_remarked(tmp_path: Path) -> None:
    """Who is missing stands at each workload that it would have been in."""
    race = Race(Site(tmp_path), peers(["ours"], None))
    race.missing["haproxy"] = "haproxy is not installed (apt install haproxy)"
    results = race.run(workloads(["start"])[0], rounds=1, seconds=0.1)
    assert results.samples == {}
    assert results.remarks == {"haproxy": "haproxy is not installed (apt install haproxy)"}


@needs_nginx
@pytest.mark.integration
def test_a_peer_that_does_not_start(tmp_path: Path) -> None:
    """It is no missing one: the log's end is shown, and the bench has failed."""
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'no such option'\nexit 3\n")
    broken.chmod(0o755)
    with Site(tmp_path) as site:
        race = Race(site, peers(["envoy"], broken))
        race.prepare(workloads(["start"]))
        assert not race.sound
        assert "envoy-b ended with 3:\nno such option" in race.missing["envoy"]


@needs_nginx
@needs_wrk
@pytest.mark.integration
def test_a_short_race(tmp_path: Path) -> None:
    """One round: figures of ours, Envoy named as missing with how to get it, nothing left behind."""
    done = subprocess.run(
        [*COMMAND, *NO_ENVOY, "--rounds", "1", "--peers", "ours", "envoy-armed", "-o", "json"],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    ours = found["workloads"]["h1-small"]["peers"]["ours"]
    assert ours["failed"] == 0
    assert ours["metrics"]["cpu_us"]["median"] > 0
    assert ours["metrics"]["rps"]["median"] > 0
    assert "make bench" in found["missing"]["envoy-armed"]
    assert "envoy-armed" in found["workloads"]["h1-small"]["remarks"]
    assert {target["met"] for target in found["targets"] if target["base"]} == {None}
    assert ours["metrics"]["lag_ms"]["median"] > 0
    assert found["machine"]["versions"].keys() == {"ours"}
    assert not list(tmp_path.iterdir())


@needs_nginx
@needs_wrk
@pytest.mark.integration
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    """Interrupted in the midst of a load: 130, no process, no folder."""
    bench = subprocess.Popen(
        [*COMMAND, "--rounds", "50", "--peers", "ours"],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # As on a terminal; where the tests run in the background, it would be ignored.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
    )
    assert bench.stderr
    while not (line := bench.stderr.readline()).startswith("h1-small 1/50"):
        assert line, f"ended with {bench.wait(10)}"
    started = psutil.Process(bench.pid).children(recursive=True)
    assert started
    bench.send_signal(signal.SIGINT)
    bench.communicate(timeout=60)
    assert bench.returncode == 130
    assert not any(process.is_running() for process in started)
    assert not list(tmp_path.iterdir())
