"""The demo, for real: all processes, the load, the verdict."""

import json
import re
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.helpers.running_mesh import MESHCTL, PATIENCE, ROOT, RunningMesh

pytestmark = pytest.mark.integration


def test_some_seconds_of_demo_are_a_success(tmp_path: Path) -> None:
    """Every request succeeds, every hop is mutual TLS, nothing is left behind."""
    with RunningMesh(tmp_path, None, "--for", "8s") as demo:
        family = demo.family()

        assert demo.process.wait(PATIENCE) == 0, demo.output()
        said = demo.output()
        assert re.search(r"\d{2,} requests from outside in .*: \d+ answered, 0 failed", said)
        proved = re.search(
            r"^(\d+) of (\d+) requests between sidecars were mutual TLS", said, re.MULTILINE
        )
        assert proved is not None
        assert proved[1] == proved[2]
        assert "spiffe://demo.mesh/ns/default/sa/storefront" in said
        assert psutil.wait_procs(family, PATIENCE)[1] == []


def test_the_other_verbs_see_the_demo_and_a_signal_ends_it(tmp_path: Path) -> None:
    """Health, proxies, traffic, configuration; then a verdict as if its time had been over."""
    with RunningMesh(tmp_path, None) as demo:
        demo.until(lambda: "from outside, 0 failed" in demo.output(), "the first table")

        status = demo.meshctl("status", "-o", "json")
        proxies = json.loads(demo.meshctl("proxies", "-o", "json").stdout)
        traffic = json.loads(demo.meshctl("stat", "-o", "json").stdout)
        routes = demo.meshctl("config", "storefront", "routes").stdout
        certificates = json.loads(
            demo.meshctl("config", "storefront", "certs", "-o", "json").stdout
        )
        family = demo.family()
        demo.process.send_signal(signal.SIGINT)

        assert demo.process.wait(PATIENCE) == 0, demo.output()
        assert "answered, 0 failed" in demo.output()
        assert psutil.wait_procs(family, PATIENCE)[1] == []

    assert status.returncode == 0, status.stdout
    assert {proxy["state"] for proxy in proxies} == {"SYNCED"}
    assert len(proxies) == 5
    hops = {(row["source"], row["destination"]) for row in traffic}
    assert ("default/visitors", "default/storefront") in hops
    assert all(row["identity"].startswith("spiffe://demo.mesh/") for row in traffic)
    assert "catalog-v1:80 90%" in routes
    storefront = "spiffe://demo.mesh/ns/default/sa/storefront"
    assert certificates["source"] == "proxy"
    assert certificates["certificate"]["identity"] == storefront
    assert len(certificates["roots"]) == 1


def test_a_demo_that_is_stopped_early_has_no_verdict(tmp_path: Path) -> None:
    """It says so in a sentence, answers 1 and leaves nothing behind."""
    run = tmp_path / "run"
    demo = subprocess.Popen(
        [*MESHCTL, "demo", "--run-dir", str(run)], cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert demo.stdout is not None
    with demo.stdout:
        assert demo.stdout.readline().startswith("The demo mesh starts")
        family = psutil.Process(demo.pid).children(recursive=True)
        demo.send_signal(signal.SIGINT)
        said = demo.stdout.read()

    assert demo.wait(PATIENCE) == 1
    assert said.endswith(
        "meshctl: the demo was stopped before its mesh was ready: "
        "no request was sent, so there is no verdict\n"
    )
    assert psutil.wait_procs(family, PATIENCE)[1] == []
    assert not (run / "processes.json").exists()
