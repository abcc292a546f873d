"""
Texts with one wildcard: exact, ``prefix*``, ``*suffix``, ``*``.

Everything but that star stands for itself, so a dot in a name is a dot (CVE-2026-39350: a service
account that was taken for a regular expression).  A bare ``*`` wants something to be there: it
does not match what is empty.
"""

from collections.abc import Iterable

from meshproxy.contract.wire import ContractError


class Patterns:
    """A list of patterns, of which one must match."""

    __slots__ = ("_any", "_exact", "_prefixes", "_suffixes")

    def __init__(self, texts: Iterable[str], where: str = "") -> None:
        """
        Raises:
            ContractError: A text is empty, or has a star elsewhere than at one of its ends.
        """
        exact, prefixes, suffixes = set(), [], []
        self._any = False
        for index, text in enumerate(texts):
            plain = text.strip("*") if text.count("*") == 1 else text
            if not text or "*" in plain or (text != plain and text[0] != "*" and text[-1] != "*"):
                raise ContractError(
                    f"{where}[{index}]",
                    f"expected a text with at most one '*', first or last, got {text!r}",
                )
            if text == "*":
                self._any = True
            elif text.endswith("*"):
                prefixes.append(plain.encode())
            elif text.startswith("*"):
                suffixes.append(plain.encode())
            else:
                exact.add(text.encode())
        self._exact = frozenset(exact)
        self._prefixes = tuple(prefixes)
        self._suffixes = tuple(suffixes)

    def match(self, text: bytes) -> bool:
        """Say whether one of the patterns matches the whole of `text`."""
        if text in self._exact or text.startswith(self._prefixes):
            return True
        return text.endswith(self._suffixes) or (self._any and text != b"")
