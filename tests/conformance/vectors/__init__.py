"""
The conformance vectors: what is sent, what must come back, and what the backend may have seen.

Each YAML file here is a list of groups; a group is one class of attack or rule:

    - class: odd Content-Length           # what it is about
      reference: RFC 9112 section 6.3     # who says so, or whom it has hit
      within: "POST / HTTP/1.1\\r\\n<>\\r\\n\\r\\n"   # `<>` stands for what a vector sends (optional)
      expect: 400 malformed-request       # the verdict
      backend: nothing                    # what has reached the app
      vectors:
        plus sign: "Content-Length: +5"   # name: bytes …
        leading zero: {send: "…", expect: "200", backend: ["POST / | abcde"]}   # … or with its own

**Bytes** are text in which each character is a byte (Latin-1); in double quotes YAML reads
``\\r``, ``\\n``, ``\\0`` and ``\\xFF``.  A list is joined; `{repeat: a, times: 70000}` is an element of it.

**`expect`** names the answers in order, `status` or `status code`, the code being `x-mesh-refusal`.
After a refusal of what is no HTTP (flag DPE) the connection must be closed; after any other answer
it must still work, which a further request (`GET /probe`) proves, unless `closed` follows.  `torn` is
an answer that stops in the middle, in a way that cannot be taken for its end.

**`backend`** is `nothing`, `never finished` (part of a request at most, and never its end) or the list
of requests: ``METHOD target | body | trailers``.  `has` and `lacks` are field lines and field names of
the first of them; `sees` and `hides` are the same for the first answer, as the client sees it.

**`answer`** are the bytes with which the app answers (files about responses).  In files about HTTP/2,
`send` is a list of frames (see `frames.py`), and `expect` is about stream 1: an answer, `reset`
(RST_STREAM), `nothing`, or `refused`, any of reset, 4xx and 5xx: which layer sees it first is not the
point.  `goaway` is the end of the connection.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

FOLDER: Final = Path(__file__).parent

_FIELDS: Final = frozenset(
    {"send", "answer", "expect", "backend", "has", "lacks", "sees", "hides", "probe"}
)
_OF_GROUPS: Final = _FIELDS | {"class", "reference", "within", "vectors"}


@dataclass(frozen=True)
class Vector:
    """
    Attributes:
        file: Name of the file it stands in, without suffix.
        probe: Whether a further request follows, to see what state the connection is in.
    """

    file: str
    kind: str
    reference: str
    name: str
    send: Any
    expect: str
    backend: Any
    answer: bytes | None = None
    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    sees: tuple[str, ...] = ()
    hides: tuple[str, ...] = ()
    probe: bool = True

    def __str__(self) -> str:
        return f"{self.file}: {self.kind}: {self.name}"


def read(pattern: str = "*") -> list[Vector]:
    """Return all vectors of the files whose names match."""
    return [
        vector
        for path in sorted(FOLDER.glob(f"{pattern}.yaml"))
        for group in yaml.load(path.read_text(), yaml.CSafeLoader)
        for vector in _of_group(path.stem, group)
    ]


def to_bytes(value: Any) -> bytes:
    """Return what a `send` or `answer` of HTTP/1.1 stands for."""
    if isinstance(value, str):
        return value.encode("latin-1")
    if isinstance(value, dict):
        repeated: bytes = to_bytes(value["repeat"]) * value["times"]
        return repeated
    return b"".join(to_bytes(part) for part in value)


def _of_group(file: str, group: dict[str, Any]) -> Iterator[Vector]:
    where = f"{file}: {group.get('class')}"
    assert set(group) <= _OF_GROUPS, f"{where}: {set(group) - _OF_GROUPS}"
    within = group.get("within")
    for name, given in group["vectors"].items():
        own = given if isinstance(given, dict) and "repeat" not in given else {"send": given}
        assert set(own) <= _FIELDS, f"{where}: {name}: {set(own) - _FIELDS}"
        told = {key: own.get(key, group.get(key)) for key in _FIELDS}
        send, answer = told["send"], told["answer"]
        if not file.startswith("http2-"):
            send = to_bytes(send)
            if within is not None:
                send = to_bytes(within).replace(b"<>", send)
        yield Vector(
            file,
            group["class"],
            group["reference"],
            str(name),
            send,
            str(told["expect"]),
            told["backend"],
            None if answer is None else to_bytes(answer),
            **{key: tuple(told[key] or ()) for key in ("has", "lacks", "sees", "hides")},
            probe=told["probe"] is not False,
        )
