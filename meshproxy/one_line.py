"""
Text from elsewhere, made fit for one line of a log or a terminal.

Peers, files and certificates choose names and messages.  Printed as they are, a line feed forges
a further log record, an escape sequence repaints the operator's terminal, and a bidirectional
override shows other text than is there.  So whatever is not printable is shown as its escape.
"""

import logging


def one_line(text: str) -> str:
    """Return `text` with everything that is not printable written as Python would escape it."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class OneLineFormatter(logging.Formatter):
    """One record, one line; only the traceback of a mistake of ours, which is not data, has more."""

    def __init__(self, who: str = "") -> None:
        super().__init__(f"%(asctime)s %(levelname)s {who}%(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return one_line(super().formatMessage(record))


def log_to_standard_error(level: str, who: str = "") -> None:
    """Set up logging for a whole process; `who` stands before the name in each line."""
    handler = logging.StreamHandler()
    handler.setFormatter(OneLineFormatter(who))
    logging.basicConfig(level=level.upper(), handlers=[handler])
