"""What can go wrong for a user of meshctl: said in one sentence, answered with an exit code."""

OK = 0
NO = 1
"""The answer is no: not valid, not healthy, not there."""
USAGE = 2


class CommandError(Exception):
    """Ends the command with a sentence on standard error and an exit code."""

    def __init__(self, message: str, code: int = NO) -> None:
        super().__init__(message)
        self.code = code
