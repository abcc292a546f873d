"""YAML without its traps."""

import sys

import pytest

from meshproxy.config.strict_yaml import YamlError, load


def test_plain_data_comes_out() -> None:
    """Mappings, lists, scalars; anchors and merges work as ever."""
    text = "base: &b {port: 80, name: a}\nother:\n  <<: *b\n  name: b\nlist: [1, yes]\n"
    assert load(text) == {
        "base": {"port": 80, "name": "a"},
        "other": {"port": 80, "name": "b"},
        "list": [1, True],
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n", 'line 5: "c" stands twice, first in line 3'),
        ("{a: 1, a: 1}", 'line 1: "a" stands twice, first in line 1'),
        ("", "the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("a: [", "expected YAML: "),
        ("a: !!python/object:os.system {}", "expected YAML: "),
        ("[" * 5000, "expected YAML: "),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, said: str) -> None:
    """Whoever wrote it is told where; PyYAML by itself takes the last of two keys."""
    with pytest.raises(YamlError) as caught:
        load(text)
    assert said in str(caught.value)


def test_without_its_library_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sidecar is installed without PyYAML."""
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(YamlError, match="needs PyYAML"):
        load("a: 1")
