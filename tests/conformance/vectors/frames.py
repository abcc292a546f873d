"""
A small notation for HTTP/2: one line is one frame, its parts are cut at `` | ``.

    HEADERS 1 END_STREAM | GET | x-a: 1         GET and POST stand for their pseudo-header fields
    HEADERS 1 END_STREAM | GET | :path: /a#b    … a pseudo-header field behind them replaces theirs
    HEADERS 1 END_STREAM | GET | -:path         … or is taken away,
    HEADERS 1 END_STREAM | GET | +:path: /b     … or is said once more
    DATA 1 END_STREAM | abcde
    RST_STREAM 1 8      SETTINGS 4=65535      WINDOW_UPDATE 1 100      PING      GOAWAY 0 0
    RAW 9 4 1 | bytes                           any frame: type, flags, stream, payload
    BYTES | bytes                               no frame at all

An element `{repeat: […], times: 3}` says its lines so often; `<n>` in them is the number of the stream,
1, 3, 5 and so on.  Values are Latin-1, a large one is written ``a*70000``.
"""

import re
import struct
from collections.abc import Iterator
from typing import Any, Final

import hpack

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_GET: Final = [(":method", "GET"), (":scheme", "http"), (":authority", "catalog"), (":path", "/")]
_TYPES: Final = {"RST_STREAM": 3, "SETTINGS": 4, "PING": 6, "GOAWAY": 7, "WINDOW_UPDATE": 8}
_repeated: Final = re.compile(r"(.)\*(\d+)").fullmatch


class Writer:
    """Lines to bytes, with the state of HPACK of one connection."""

    def __init__(self) -> None:
        self._encoder = hpack.Encoder()

    def write(self, lines: Any) -> bytes:
        return b"".join(self._frame(line) for line in _lines(lines))

    def _frame(self, line: str) -> bytes:
        kind_and_arguments, *parts = line.split(" | ")
        kind, *arguments = kind_and_arguments.split(" ")
        payload = b"".join(part.encode("latin-1") for part in parts[:1])
        if kind == "BYTES":
            return payload
        if kind == "RAW":
            number, bits, stream = (int(argument, 0) for argument in arguments)
            return _raw(number, bits, stream, payload)
        if kind == "HEADERS":
            return self._headers(int(arguments[0]), arguments[1:], parts)
        if kind == "DATA":
            return _raw(0, int("END_STREAM" in arguments), int(arguments[0]), payload)
        numbers = [int(argument) for argument in arguments if "=" not in argument]
        if kind == "SETTINGS":
            pairs = [argument.split("=") for argument in arguments]
            return _raw(
                4, 0, 0, b"".join(struct.pack(">HL", int(key), int(value)) for key, value in pairs)
            )
        if kind == "PING":
            return _raw(6, 0, 0, payload or b"12345678")
        if kind == "GOAWAY":
            return _raw(7, 0, 0, struct.pack(">LL", *numbers))
        return _raw(_TYPES[kind], 0, numbers[0], struct.pack(">L", numbers[1]))

    def _headers(self, stream: int, flags: list[str], parts: list[str]) -> bytes:
        fields: list[tuple[str, str]] = []
        for part in parts:
            if part in ("GET", "POST"):
                fields += [(":method", part), *_GET[1:]]
            elif part.startswith("-"):
                fields = [field for field in fields if field[0] != part[1:]]
            else:
                name, _, value = part.removeprefix("+").partition(": ")
                found = _repeated(value)
                value = found[1] * int(found[2]) if found else value
                at = [i for i, field in enumerate(fields) if field[0] == name]
                if name.startswith(":") and at and not part.startswith("+"):
                    fields[at[0]] = (name, value)
                else:
                    fields.append((name, value))
        block = self._encoder.encode(
            [(n.encode("latin-1"), v.encode("latin-1")) for n, v in fields]
        )
        pieces = [block[at : at + 16384] for at in range(0, len(block), 16384)] or [b""]
        whole = "OPEN" not in flags  # of the header block, not of the stream
        ended = int("END_STREAM" in flags)
        frames = b""
        for number, piece in enumerate(pieces):
            last = 4 if whole and number == len(pieces) - 1 else 0
            frames += _raw(9 if number else 1, last if number else last | ended, stream, piece)
        return frames


def _lines(lines: Any) -> Iterator[str]:
    for line in [lines] if isinstance(lines, str) else lines:
        if isinstance(line, dict):
            for number in range(line["times"]):
                for inner in line["repeat"]:
                    yield inner.replace("<n>", str(2 * number + 1))
        else:
            yield line


def _raw(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">LBL", len(payload) << 8 | kind, flags, stream) + payload
