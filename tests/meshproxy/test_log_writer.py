"""Log lines, to readers that read, that do not, and to nobody."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshproxy import log_writer
from meshproxy.log_writer import LONGEST, LogWriter
from tests.helpers.environment import until


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def record(text: str) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": text})


def test_lines_come_in_order_and_before_the_end(pipe: tuple[int, int]) -> None:
    """`close` waits for what has been said."""
    writer = LogWriter(pipe[1])
    for number in range(100):
        writer.emit(record(f"line {number}"))
    writer.close()

    assert os.read(pipe[0], 1 << 16).decode() == "".join(f"line {n}\n" for n in range(100))
    assert writer.lost == 0


async def test_a_reader_that_has_stopped_stops_nobody(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is too much is lost, and the log says so when it goes on."""
    monkeypatch.setattr(log_writer, "MOST", 10)
    monkeypatch.setattr(log_writer, "GOODBYE", 0.01)
    os.set_blocking(pipe[1], False)
    filler = 0
    while True:
        try:
            filler += os.write(pipe[1], bytes(4096))
        except BlockingIOError:
            break
    os.set_blocking(pipe[1], True)
    writer = LogWriter(pipe[1])

    for number in range(50):  # the pipe is full: a plain write would never return
        writer.emit(record(f"line {number}"))

    lost = writer.lost
    assert 38 <= lost <= 40
    while filler:
        filler -= len(os.read(pipe[0], filler))
    os.set_blocking(pipe[0], False)
    said = ""

    def told() -> bool:
        nonlocal said
        try:
            said += os.read(pipe[0], 1 << 16).decode()
        except BlockingIOError:
            return False
        return f"{lost} log records were lost" in said

    await until(told)
    assert said.startswith("line 0\n")
    writer.close()


def test_a_full_disk_is_borne(pipe: tuple[int, int]) -> None:
    """Nothing is raised, nothing is waited for; what was lost is known."""
    with Path("/dev/full").open("wb", buffering=0) as full:
        writer = LogWriter(full.fileno())
        for number in range(20):
            writer.emit(record(f"line {number}"))
        writer.close()
        assert writer.lost == 20

    writer._descriptor = pipe[1]  # there is room again
    writer.emit(record("after"))
    writer.close()
    assert os.read(pipe[0], 1 << 16) == (
        b"20 log records were lost: they could not be written\nafter\n"
    )


def test_a_pipe_that_somebody_made_nonblocking(pipe: tuple[int, int]) -> None:
    """Descriptors are shared with other programs, and so is this property."""
    os.set_blocking(pipe[1], False)
    writer = LogWriter(pipe[1])
    line = "x" * (LONGEST - 1)
    for _ in range(10):  # more than a pipe holds
        writer.emit(record(line))
    got = 0
    while got < 10 * LONGEST:
        got += len(os.read(pipe[0], 1 << 20))
    writer.close()
    assert (got, writer.lost) == (10 * LONGEST, 0)


def test_a_record_has_a_longest_length(pipe: tuple[int, int]) -> None:
    """Whoever chooses what is in it does not choose how much memory it takes."""
    writer = LogWriter(pipe[1])
    writer.emit(record("x" * (LONGEST + 7)))
    writer.close()
    assert os.read(pipe[0], 1 << 16) == b"x" * LONGEST + b" ... (7 bytes left out)\n"
