import pytest

from control_plane.resources.finding import MOST, Finding, Path, dotted, most


def test_one_line_says_where_what_and_why() -> None:
    """file:line: kind/name: field: message."""
    finding = Finding(
        file="a.yaml", line=3, kind="Service", name="ns/x", field="spec.ports", message="is empty"
    )
    assert str(finding) == "a.yaml:3: Service/ns/x: spec.ports: is empty"


def test_a_name_cannot_make_two_lines_of_one() -> None:
    """What is wrong with a name may be that it is not printable."""
    assert str(Finding(file="a.yaml", name="x\n\x1b[31m", kind="K", message="no")) == (
        r"a.yaml: K/x\n\x1b[31m: no"
    )


def test_what_is_not_known_is_left_out() -> None:
    """A file that is no YAML has no kind, name or field."""
    assert str(Finding(file="a.yaml", message="not YAML")) == "a.yaml: not YAML"
    assert str(Finding(file="a.yaml", line=1, kind="X", message="no")) == "a.yaml:1: X: no"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("spec", "rules", 0, "matches", 11, "path"), "spec.rules[0].matches[11].path"),
        (("metadata", "labels", "example.com/app"), "metadata.labels['example.com/app']"),
        ((), ""),
    ],
)
def test_paths_read_like_yaml(path: Path, text: str) -> None:
    """Indexes in brackets; keys that contain dots or slashes quoted."""
    assert dotted(path) == text


def test_of_each_file_so_many_are_told_and_that_there_are_more() -> None:
    """A file that was made to have a million findings is one nuisance, and not a million."""
    many = [Finding(file="a.yaml", line=line, message="no") for line in range(MOST + 50)]
    told = list(most([*many, Finding(file="b.yaml", message="no")]))
    assert len([finding for finding in told if finding.file == "a.yaml"]) == MOST + 1
    assert "more than 100" in told[MOST].message
    assert told[-1].file == "b.yaml"


def test_a_key_as_long_as_a_file_is_not_repeated() -> None:
    """Where it stands, its line says."""
    assert len(dotted(("spec", "x" * 1_000_000))) < 400
