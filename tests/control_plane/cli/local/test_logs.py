"""What the processes say, each line under its process's name."""

import io
from pathlib import Path

import pytest

from control_plane.cli.local import logs
from control_plane.cli.local.logs import Console, LineSplitter, ProcessLog


def test_lines_are_cut_wherever_the_bytes_are_split() -> None:
    """Any split of the stream gives the same lines."""
    text = "one\ntwo\r\nthré\n\nlast".encode()
    for cut in range(len(text)):
        splitter = LineSplitter()
        lines = [*splitter.feed(text[:cut]), *splitter.feed(text[cut:]), *splitter.end()]
        assert lines == ["one", "two", "thré", "", "last"]


def test_a_line_without_an_end_is_cut() -> None:
    """A process that never ends its line does not fill our memory."""
    splitter = LineSplitter(longest=4)

    assert splitter.feed(b"abcdefghij") == ["abcd", "efgh"]
    assert splitter.end() == ["ij"]


def test_lines_stand_under_their_process(tmp_path: Path) -> None:
    """Names are padded to one width; a file keeps the lines bare."""
    out = io.StringIO()
    console = Console(out)
    app = ProcessLog("shop/app", console, tmp_path / "app.log")
    proxy = ProcessLog("shop/proxy", console, tmp_path / "proxy.log")
    app.feed(b"hello\n")
    proxy.feed(b"half a line")
    proxy.end_of_output()
    app.close()
    proxy.close()

    assert out.getvalue() == "shop/app   │ hello\nshop/proxy │ half a line\n"
    assert (tmp_path / "app.log").read_text() == "hello\n"


def test_colour_is_for_terminals(tmp_path: Path) -> None:
    """With colour the name is painted and the text is not."""
    out = io.StringIO()
    log = ProcessLog("app", Console(out, colour=True), tmp_path / "app.log")
    log.feed(b"hello\n")
    log.close()

    assert out.getvalue() == f"\x1b[{logs.COLOURS[0]}mapp\x1b[0m │ hello\n"


def test_without_echo_lines_go_to_the_file_alone(tmp_path: Path) -> None:
    """The demo's screen belongs to its table; what meshctl itself says is still said."""
    out = io.StringIO()
    console = Console(out, echo=False)
    log = ProcessLog("app", console, tmp_path / "app.log")
    log.feed(b"hello\n")
    console.announce("stopping")
    log.close()

    assert out.getvalue() == "stopping\n"
    assert list(log.tail) == ["hello"]


def test_a_log_file_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file of the largest size is kept beside the current one."""
    monkeypatch.setattr(logs, "LARGEST_FILE", 10)
    log = ProcessLog("app", Console(io.StringIO()), tmp_path / "app.log")
    log.feed(b"0123456789ab\nnew\n")
    log.close()

    assert (tmp_path / "app.log.1").read_text() == "0123456789ab\n"
    assert (tmp_path / "app.log").read_text() == "new\n"


def test_a_terminal_that_closes_is_told_once() -> None:
    """What is said afterwards is lost, and nobody fails over it."""

    class Closed(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    lost: list[str] = []
    console = Console(Closed())
    console.on_lost = lambda: lost.append("lost")
    console.announce("one")
    console.announce("two")

    assert lost == ["lost"]


def test_no_process_commands_the_terminal(tmp_path: Path) -> None:
    """What it writes is shown without control characters; its file has it as it was."""
    out = io.StringIO()
    log = ProcessLog("app", Console(out), tmp_path / "app.log")
    log.feed(b"\x1b[2J\x1b[31mhello\x1b[0m\a\n")
    log.close()

    assert out.getvalue() == "app │ hello\n"
    assert (tmp_path / "app.log").read_text() == "\x1b[2J\x1b[31mhello\x1b[0m\a\n"


def test_routine_lines_of_our_own_are_for_the_file(tmp_path: Path) -> None:
    """An app's line must not drown in them; warnings, and all with `verbose`, are shown."""
    lines = [
        "2026-01-02 03:04:05,678 INFO meshproxy: version 1 in force",
        "2026-01-02 03:04:05,678 WARNING meshproxy: no control plane",
    ]
    for verbose, own, shown in ((False, True, [1]), (True, True, [0, 1]), (False, False, [0, 1])):
        out = io.StringIO()
        log = ProcessLog("p", Console(out, verbose=verbose), tmp_path / "p.log", own=own)
        log.feed("".join(f"{line}\n" for line in lines).encode())
        log.close()
        assert out.getvalue().splitlines() == [f"p │ {lines[index]}" for index in shown]
        assert list(log.tail) == lines
