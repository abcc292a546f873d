"""CPU and memory of processes, as the kernel tells them."""

import os
import subprocess
import sys
import time
from pathlib import Path

from bench.cost import cpu_nanoseconds, memory

BURN = """
import sys, threading, time
def burn():
    until = time.thread_time() + 0.05
    while time.thread_time() < until: pass
thread = threading.Thread(target=burn)
thread.start(); burn(); thread.join()
print("burnt", flush=True)
sys.stdin.read()
"""
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {BURN!r}], stdin=sys.stdin)
child.wait()
"""


def test_a_childs_cpu_counts() -> None:
    """A program that works in a child, as nginx's master does, is charged for the child."""
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout
    assert process.stdin
    assert process.stdout.readline() == b"burnt\n"
    alone = int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0])
    assert cpu_nanoseconds(process.pid) >= alone + 50_000_000
    assert memory(process.pid).rss > memory(process.pid).private > 0
    process.stdin.close()
    process.stdout.close()
    process.wait(10)


def test_cpu_only_grows() -> None:
    """Work that is done shows up in the next reading."""
    before = cpu_nanoseconds(os.getpid())
    until = time.process_time() + 0.02
    while time.process_time() < until:
        pass
    assert cpu_nanoseconds(os.getpid()) - before > 10_000_000
