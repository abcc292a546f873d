"""
YAML text to trees that remember their lines.

PyYAML's C parser tells what stands in the text as *events*; this file builds the trees itself,
because a safe constructor has to answer for more than a loader that trusts its input:

* Every node knows its line, so every later finding can name it.
* Aliases share nodes, and every node counts what it would be written out in full.  A "billion
  laughs" document is a few shared nodes with an enormous count, refused before anything walks it.
* Depth and size are bounded; a key that stands twice in a mapping is refused with both lines.
* Only plain data: null, booleans, numbers, strings, lists, mappings with string keys.

Plain scalars are read as `kubectl` reads them: ``on``, ``yes`` and friends are booleans (YAML 1.1),
but ``12:30`` and ``2026-01-01`` stay strings.  Whether a boolean is welcome is for `schema` to say.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml
from msgspec import Struct
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from .finding import Path

# libyaml's parser, ten times faster than the one in Python, where PyYAML was built with it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MAX_BYTES = 10 * 1024 * 1024
MAX_DEPTH = 64
"""The deepest field of any kind is at about 12."""
MAX_NODES = 1_000_000
"""Per file, aliases written out."""
CHARACTERS = 64
"""A text counts once more for each so many: a long one, repeated by aliases, is a bomb, too."""
MAX_QUOTED = 60
"""Characters of what a message quotes."""


class DocumentError(ValueError):
    """The text is not the YAML that we read; says on which line, and why."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


class Scalar(Struct, frozen=True):
    """
    Attributes:
        value: What the text means.
        text: How it was written.
    """

    line: int
    value: str | int | float | bool | None
    text: str


class Sequence(Struct, frozen=True):
    line: int
    items: tuple["Node", ...]


class Mapping(Struct, frozen=True):
    """
    Attributes:
        items: Key → value, in the order of the text.
        key_lines: Key → the line on which the key stands.
    """

    line: int
    items: dict[str, "Node"]
    key_lines: dict[str, int]


Node = Scalar | Sequence | Mapping


def short(text: str) -> str:
    """Return a text as a message quotes it: what is as long as a file is not repeated in full."""
    return text if len(text) <= MAX_QUOTED else f"{text[: MAX_QUOTED - 3]}..."


def line_of(node: Node, path: Path) -> int:
    """Return the line of the field at `path`, or of the deepest part of the path that exists."""
    line = node.line
    for step in path:
        if isinstance(node, Mapping) and isinstance(step, str) and step in node.items:
            line = node.key_lines[step]
            node = node.items[step]
        elif isinstance(node, Sequence) and isinstance(step, int) and step < len(node.items):
            node = node.items[step]
            line = node.line
        else:
            break
    return line


def read(text: str) -> Iterator[Node]:
    """
    Yield one tree for each document that is not empty.

    Raises:
        DocumentError: At the first thing that is not well-formed; documents before it were yielded.
    """
    if len(text) > MAX_BYTES:
        raise DocumentError(0, f"is larger than {MAX_BYTES // 2**20} MiB; split it")
    try:
        loader = _Loader(text)
        try:
            yield from _Reader(loader).documents()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise DocumentError(mark.line + 1 if mark else 0, _reason(error)) from None
    except yaml.YAMLError as error:  # a character that YAML does not allow
        position = getattr(error, "position", None)
        line = text.count("\n", 0, position) + 1 if isinstance(position, int) else 0
        raise DocumentError(line, f"not YAML: {_first_line(error)}") from None
    except UnicodeEncodeError as error:  # lone surrogates
        line = text.count("\n", 0, error.start) + 1
        raise DocumentError(line, "not YAML: a character that is not Unicode text") from None


def _reason(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "cannot be read"
    if "'\\t'" in problem or "tab character" in problem:
        return "not YAML: a tab where only spaces may indent"
    context = f" {error.context}" if error.context else ""
    return f"not YAML:{context}{',' if context else ''} {problem}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["cannot be read"])[0]


class _Reader:
    """One pass over the events of a file."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._total = 0
        self._sizes: dict[str, tuple[Node, int]] = {}  # anchor → node, nodes when written out
        self._open: set[str] = set()  # anchors of nodes that have begun and not ended

    def documents(self) -> Iterator[Node]:
        while (event := self._next()) is not None:
            if not isinstance(event, DocumentStartEvent):
                continue
            self._sizes.clear()
            self._open.clear()
            event = self._next()
            assert event is not None
            node, _ = self._node(event, 0)
            if not (isinstance(node, Scalar) and node.value is None):
                yield node

    def _next(self) -> Event | None:
        event: Event | None = self._loader.get_event()
        return event

    def _node(self, event: Event, depth: int) -> tuple[Node, int]:
        """Return the node that begins with `event`, and its size with all aliases written out."""
        line = _line(event)
        if depth > MAX_DEPTH:
            raise DocumentError(line, f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(event, AliasEvent):
            return self._alias(str(event.anchor), line)
        anchor = getattr(event, "anchor", None)
        if anchor is not None:
            self._open.add(anchor)
        node: Node
        if isinstance(event, ScalarEvent):
            size = 1 + len(event.value) // CHARACTERS
            self._count(size, line)
            node = Scalar(line, _value(event, line), event.value)
        elif isinstance(event, SequenceStartEvent):
            _refuse_tag(event.tag, "tag:yaml.org,2002:seq", line)
            node, size = self._sequence(line, depth)
        else:
            assert isinstance(event, MappingStartEvent)
            _refuse_tag(event.tag, "tag:yaml.org,2002:map", line)
            node, size = self._mapping(line, depth)
        if anchor is not None:
            self._open.discard(anchor)
            self._sizes[anchor] = (node, size)
        return node, size

    def _alias(self, anchor: str, line: int) -> tuple[Node, int]:
        if anchor in self._open:
            raise DocumentError(line, f"alias *{short(anchor)} stands inside what it stands for")
        if anchor not in self._sizes:
            raise DocumentError(line, f"alias *{short(anchor)} has no anchor before it")
        node, size = self._sizes[anchor]
        self._count(size, line)
        return node, size

    def _count(self, nodes: int, line: int) -> None:
        self._total += nodes
        if self._total > MAX_NODES:
            raise DocumentError(
                line, f"more than {MAX_NODES} values, counting what its aliases repeat"
            )

    def _sequence(self, line: int, depth: int) -> tuple[Sequence, int]:
        items: list[Node] = []
        size = 1
        self._count(1, line)
        while True:
            event = self._next()
            assert event is not None
            if isinstance(event, SequenceEndEvent):
                return Sequence(line, tuple(items)), size
            item, counted = self._node(event, depth + 1)
            items.append(item)
            size += counted

    def _mapping(self, line: int, depth: int) -> tuple[Mapping, int]:
        items: dict[str, Node] = {}
        key_lines: dict[str, int] = {}
        size = 1
        self._count(1, line)
        while True:
            event = self._next()
            assert event is not None
            if isinstance(event, MappingEndEvent):
                return Mapping(line, items, key_lines), size
            key, key_line, counted = self._key(event, depth)
            size += counted
            if key in items:
                first = key_lines[key]
                raise DocumentError(
                    key_line, f'key "{short(key)}" stands twice, first on line {first}'
                )
            event = self._next()
            assert event is not None
            items[key], counted = self._node(event, depth + 1)
            key_lines[key] = key_line
            size += counted

    def _key(self, event: Event, depth: int) -> tuple[str, int, int]:
        """Return a key, the line on which it stands, and its size."""
        line = _line(event)
        node, size = self._node(event, depth + 1)
        if not isinstance(node, Scalar):
            raise DocumentError(line, "a key is a list or mapping, expected a string")
        if node.text == "<<" and not getattr(event, "style", ""):
            raise DocumentError(line, 'merge key "<<" is not supported; write the fields out')
        if isinstance(node.value, int) and str(node.value) == node.text:
            return node.text, line, size  # a port: kubectl, too, takes `8080:` for "8080"
        if not isinstance(node.value, str):
            raise DocumentError(
                line,
                f"key {short(node.text)} is {described(node)}, expected a string: "
                f'write "{short(node.text)}"',
            )
        return node.value, line, size


def _line(event: Event) -> int:
    assert event.start_mark is not None
    return event.start_mark.line + 1


# Plain scalars ------------------------------------------------------------------------------------

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"})
_FALSE = frozenset({"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"})
_INT = re.compile(r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+", re.ASCII)
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    re.ASCII,
)
_STR = "tag:yaml.org,2002:str"
_MAX_DIGITS = 40


def _value(event: ScalarEvent, line: int) -> str | int | float | bool | None:
    text: str = event.value
    if event.tag is not None and event.tag != "!":
        _refuse_tag(event.tag, _STR, line)
        return text
    if event.style or event.tag == "!" or not event.implicit[0]:
        return text
    return _plain(text)


def _plain(text: str) -> str | int | float | bool | None:
    if text in _NULL:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    # Longer numbers mean nothing to any field, and conversion is quadratic in their length.
    if len(text) > _MAX_DIGITS:
        return text
    if _INT.fullmatch(text):
        digits = text.lstrip("+-")
        if digits[:2] in ("0x", "0o"):
            return int(text, 0)
        # YAML 1.1 reads a leading 0 as octal, YAML 1.2 does not: 0755 is nobody's number.
        return text if len(digits) > 1 and digits[0] == "0" else int(text)
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _refuse_tag(tag: str | None, allowed: str, line: int) -> None:
    if tag is not None and tag not in (allowed, "!"):
        shown = short(tag.replace("tag:yaml.org,2002:", "!!"))
        raise DocumentError(line, f"tag {shown} is not supported; leave it out")


def described(node: Node) -> str:
    """Return what a node is, for the sentence "... is a string, expected ..."."""
    if isinstance(node, Mapping):
        return "a mapping"
    if isinstance(node, Sequence):
        return "a list"
    value = node.value
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int):
        return "an integer"
    return "a number" if isinstance(value, float) else "a string"
