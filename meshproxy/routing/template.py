"""
Lists of paths: plain, with a star at one end (`pattern.py`), and templates.

A template names segments that may be anything: ``/users/{*}/orders`` takes one segment,
``/users/{**}`` any rest, also none.  As in Istio's AuthorizationPolicy and Envoy's URI templates.
"""

import re
from collections.abc import Iterable
from typing import Final

from meshproxy.contract.wire import ContractError

from .pattern import Patterns

_REST: Final = "{**}"
_SEGMENT: Final = re.compile(r"\{[*A-Za-z_][A-Za-z0-9_]*\}")


class Paths:
    """A list of paths and templates, of which one must match."""

    __slots__ = ("_patterns", "_templates")

    def __init__(self, texts: Iterable[str], where: str = "") -> None:
        """
        Raises:
            ContractError: A path does not begin with a slash or a star, or a template is wrong.
        """
        plain: list[str] = []
        templates: list[re.Pattern[bytes]] = []
        for index, text in enumerate(texts):
            here = f"{where}[{index}]"
            if not text.startswith(("/", "*")):
                raise ContractError(here, f"expected a path that starts with '/', got {text!r}")
            if "{" in text or "}" in text:
                templates.append(_template(text, here))
                continue
            plain.append(text)
        self._patterns = Patterns(plain, where)
        self._templates = tuple(templates)

    def match(self, path: bytes) -> bool:
        """Say whether one of them matches the whole of `path`."""
        if self._patterns.match(path):
            return True
        return any(template.fullmatch(path) for template in self._templates)


def _template(text: str, where: str) -> "re.Pattern[bytes]":
    parts = []
    segments = text.split("/")[1:]
    for index, segment in enumerate(segments):
        if segment == _REST:
            if index + 1 < len(segments):
                raise ContractError(where, "expected {**} at the end only")
            parts.append(b"(?:/.*)?")
        elif segment == "{*}" or _SEGMENT.fullmatch(segment):
            parts.append(b"/[^/]+")
        elif set("{}*") & set(segment):
            message = f"expected {{*}}, {{name}} or plain text between slashes, got {segment!r}"
            raise ContractError(where, message)
        else:
            parts.append(b"/" + re.escape(segment.encode()))
    return re.compile(b"".join(parts), re.DOTALL)
