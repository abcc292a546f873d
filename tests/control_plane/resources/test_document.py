import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.resources.document import (
    MAX_BYTES,
    MAX_DEPTH,
    DocumentError,
    Mapping,
    Node,
    Scalar,
    Sequence,
    line_of,
    read,
)


def plain(node: Node) -> object:
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    return {key: plain(child) for key, child in node.items.items()}


def values(text: str) -> list[object]:
    return [plain(node) for node in read(text)]


def test_several_documents_and_empty_ones() -> None:
    """Each document that is not empty is one tree."""
    assert values("---\n# nothing\n---\na: 1\n---\n---\nb: [x, z]\n...\n") == [
        {"a": 1},
        {"b": ["x", "z"]},
    ]
    assert values("") == []


def test_every_field_knows_its_line() -> None:
    """The line of a key; of a list's item, where the item begins; of what is missing, its parent."""
    (node,) = read("a:\n  - b: 1\n    c: 2\n  - x\nd:\n  e\n")
    assert line_of(node, ()) == 1
    assert line_of(node, ("a",)) == 1
    assert line_of(node, ("a", 0)) == 2
    assert line_of(node, ("a", 0, "c")) == 3
    assert line_of(node, ("a", 1)) == 4
    assert line_of(node, ("d",)) == 5
    assert line_of(node, ("a", 0, "missing", "too")) == 2
    assert line_of(node, ("a", 7)) == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", True),
        ("y", "y"),
        ("No", False),
        ("~", None),
        ("12", 12),
        ("-3", -3),
        ("0x1F", 31),
        ("0o17", 15),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("0755", "0755"),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("'on'", "on"),
        ('"12"', "12"),
        ("!!str 12", "12"),
        ("9" * 41, "9" * 41),
        ("|\n  on\n", "on\n"),
    ],
)
def test_plain_scalars(text: str, value: object) -> None:
    """Booleans as kubectl reads them; times, dates and octals stay text; quotes make text."""
    (found,) = values(f"a: {text}")
    assert found == {"a": value}
    assert type(found["a"]) is type(value)


def test_aliases_share() -> None:
    """An alias is what its anchor was, also in a later field."""
    assert values("a: &x [1, 2]\nb: *x\n") == [{"a": [1, 2], "b": [1, 2]}]


BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, 'key "a" stands twice, first on line 1'),
        ("a: b\n\tc: d\n", 2, "not YAML: a tab where only spaces may indent"),
        ("a: [1, 2\nb: 3\n", 2, "not YAML"),
        ("a: &x\n  b: *x\n", 2, "alias *x stands inside what it stands for"),
        ("a: *x\n", 1, "undefined alias|has no anchor"),
        (BOMB, 6, "more than 1000000 values"),
        ("a: !!python/object:os.system x\n", 1, "tag !!python/object:os.system is not supported"),
        ("a: !foo [x]\n", 1, "tag !foo is not supported"),
        ("on: 1\n", 1, 'key on is a boolean, expected a string: write "on"'),
        ("? [a]\n: b\n", 1, "a key is a list or mapping"),
        ("b: &x {a: 1}\nc:\n  <<: *x\n", 3, 'merge key "<<" is not supported'),
        ("a: 1\nb: \x01\n", 2, "not YAML"),
        ("a: \ud800\n", 1, "not Unicode|not YAML"),
        ("[" * (MAX_DEPTH + 5), 1, f"nested more than {MAX_DEPTH} levels deep"),
        ("[" * 200_000, 1, f"nested more than {MAX_DEPTH} levels deep"),
        ("x" * (MAX_BYTES + 1), 0, "larger than 10 MiB"),
        (f"a: &x {'x' * 1_000_000}\nb: [{'*x, ' * 100}]\n", 2, "counting what its aliases repeat"),
        (f"a:\n- &x\n  ? {'x' * 1_000_000}\n- [{'*x, ' * 100}]\n", 4, "its aliases repeat"),
        (f"? {'x' * 1_000_000}\n: 1\n" * 2, 3, 'key "xxxx'),
    ],
    ids=range(19),
)
def test_refused(text: str, line: int, message: str) -> None:
    """What is not well-formed is refused with its line, before anything walks it."""
    with pytest.raises(
        DocumentError, match=message.replace("*", r"\*").replace("[", r"\[")
    ) as info:
        list(read(text))
    assert info.value.line == line
    assert len(info.value.message) < 300


@given(st.text() | st.text(alphabet="ab:-[]{}&*#!|>'\" \n\t,?"))
def test_any_text_is_trees_or_a_document_error(text: str) -> None:
    """Nothing else ever comes out."""
    with contextlib.suppress(DocumentError):
        for node in read(text):
            assert isinstance(node, Scalar | Sequence | Mapping)


def test_a_number_can_be_a_key() -> None:
    """As for kubectl: ports are written so, and mean the same with quotes."""
    assert values("8080: a\n'8081': b\n") == [{"8080": "a", "8081": "b"}]
    with pytest.raises(DocumentError, match='key "1" stands twice'):
        list(read("1: a\n'1': b\n"))
    for other in ("0x10: a\n", "1.5: a\n", "true: a\n"):
        with pytest.raises(DocumentError, match="expected a string"):
            list(read(other))
