"""Some are set aside, in processes of their own: the limit is the process's."""

import subprocess
import sys

PROGRAM = """
import os, resource, socket
from meshproxy import descriptors

resource.setrlimit(resource.RLIMIT_NOFILE, (100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
descriptors.set_aside(10)
held, lent = [], []
try:
    while True:
        held.append(socket.socket())
except OSError as error:
    print(held[-1].fileno() + 1, error.errno)
try:
    while True:
        with descriptors.borrowed():
            lent.append(socket.socket())
except OSError as error:
    print(len(lent), error.errno)
try:
    socket.socket()
except OSError as error:
    print(error.errno)
held.pop().close()
socket.socket().close()  # what is given back counts for everybody
print("again")
"""


def test_who_borrows_gets_what_others_do_not() -> None:
    """Only so many, and only for the moment."""
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["90", "24", "10", "24", "24", "again"]


def test_without_a_reserve_nothing_is_changed() -> None:
    """As in a worker, which has no admin pages, or in a test."""
    program = (
        "import resource; from meshproxy import descriptors\n"
        "before = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "with descriptors.borrowed(): assert resource.getrlimit(resource.RLIMIT_NOFILE) == before\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (20, before[1])); descriptors.set_aside()\n"
        "assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 10\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
