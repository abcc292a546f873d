"""What a benchmark starts it ends, and what fails to start says why."""

import sys
from pathlib import Path

import psutil
import pytest

from bench.process import Processes, StartError

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
"""


def test_everything_ends_with_the_block(tmp_path: Path) -> None:
    """However the block is left, no process remains."""
    pids: list[int] = []

    def interrupted() -> None:
        with Processes() as processes:
            pids.extend(processes.start(name, SLEEP, tmp_path).pid for name in "ab")
            assert all(psutil.pid_exists(pid) for pid in pids)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_who_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that ignores SIGTERM does not keep the bench waiting for ever."""
    monkeypatch.setattr("bench.process.ENDING", 0.05)
    with Processes() as processes:
        process = processes.start("deaf", [sys.executable, "-c", DEAF], tmp_path)
        process.until("it is deaf", lambda: "deaf" in process.tail())
    assert not psutil.pid_exists(process.pid)


def test_a_program_that_ends_says_why(tmp_path: Path) -> None:
    """The end of its log is in the error."""
    with Processes() as processes:
        command = [sys.executable, "-c", "raise SystemExit('line 3: unknown keyword')"]
        process = processes.start("peer", command, tmp_path)
        with pytest.raises(StartError, match=r"peer ended with 1:\nline 3: unknown keyword"):
            process.until("it is ready", lambda: False)


def test_a_program_that_is_never_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait has an end, and says what was waited for."""
    monkeypatch.setattr("bench.process.STARTING", 0.05)
    with Processes() as processes:
        process = processes.start("peer", SLEEP, tmp_path)
        with pytest.raises(StartError, match="waited in vain until it is ready"):
            process.until("it is ready", lambda: False)


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    """Its path is named."""
    with Processes() as processes, pytest.raises(StartError, match="/no/such/program"):
        processes.start("peer", ["/no/such/program"], tmp_path)
