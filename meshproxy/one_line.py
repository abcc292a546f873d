"""
Text from elsewhere, made fit for one line of a log or a terminal.

Peers, files and certificates choose names and messages.  Printed as they are, a line feed forges
a further log record, an escape sequence repaints the operator's terminal, and a bidirectional
override shows other text than is there.  So whatever is not printable is shown as its escape.

Secrets are not in what we log.  Libraries, at level debug, log parts of what they send and receive,
and join tokens and configuration are among that.  So `debug` is for our own loggers alone.
"""

import logging
from typing import Any, Final

from .log_writer import LogWriter

OURS: Final = ("meshproxy", "control_plane")
"""Loggers that obey the level that was asked for."""


def one_line(text: str) -> str:
    """Return `text` with everything that is not printable written as Python would escape it."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class OneLineFormatter(logging.Formatter):
    """
    One record, one line; the traceback of a mistake of ours has more, none of which can pass for a
    record: they are indented, also those of the exception's message, which may be anybody's words.
    """

    def __init__(self, who: str = "") -> None:
        super().__init__(f"%(asctime)s %(levelname)s {who}%(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return one_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name, and its type is private
        lines = super().formatException(ei).split("\n")
        return "\n".join("    " + one_line(line) for line in lines)

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - logging's name
        return "\n".join("    " + one_line(line) for line in stack_info.split("\n"))


def log_to_standard_error(level: str, who: str = "") -> None:
    """Set up logging for a whole process; `who` stands before the name in each line."""
    handler = LogWriter()
    handler.setFormatter(OneLineFormatter(who))
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=max(number, logging.INFO), handlers=[handler])
    for name in OURS:
        logging.getLogger(name).setLevel(number)
