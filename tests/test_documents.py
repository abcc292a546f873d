"""Documents that lie are worse than none: what they name must exist, what they tell to run must run."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "bench/README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
# `meshproxy/exchange.py`, `configs/demo/`: a code span that begins with one of our folders.
OURS = re.compile(
    r"`((?:meshproxy|control_plane|configs|deploy|tests|docs|bench|lessons)/[\w./-]*)`"
)
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)(?:#[^)]*)?\)")
TEST = re.compile(r"`(tests/[\w/]+\.py::\w+)`")
INDEX_ROWS = 20


def prose(document: Path) -> str:
    """Return the text without its fenced blocks."""
    return FENCE.sub("", document.read_text())


def blocks(document: Path) -> list[tuple[str, str]]:
    """Return (info string, text) of each fenced block."""
    return [
        (found["info"].strip(), found["text"]) for found in FENCE.finditer(document.read_text())
    ]


def commands(document: Path, *infos: str) -> list[str]:
    """Return the lines, without comments, of the shell blocks with one of these info strings."""
    return [
        line.split(" #")[0].strip()
        for info, text in blocks(document)
        if info in infos
        for line in text.splitlines()
        if line.strip() and not line.startswith("#")
    ]


@pytest.fixture
def bin_folder(tmp_path: Path) -> Path:
    """Return a folder with the console scripts of `pyproject.toml`, as an installation has them."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for name, target in scripts.items():
        module, function = target.split(":")
        code = (
            f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv[0] = {name!r}; "
            f"from {module} import {function}; sys.exit({function}())"
        )
        script = tmp_path / name
        script.write_text(
            f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(code)} "$@"\n'
        )
        script.chmod(0o755)
    return tmp_path


def named(pattern: re.Pattern[str]) -> list[object]:
    """Return a parameter set for each thing that matches in each document."""
    return [
        pytest.param(document, found, id=f"{document.relative_to(ROOT)}:{found}")
        for document in DOCUMENTS
        for found in sorted(set(pattern.findall(prose(document))))
    ]


@pytest.mark.parametrize(("document", "path"), named(OURS))
def test_every_file_that_is_named_exists(document: Path, path: str) -> None:
    """A file or folder in a code span is there, from the root of the repository."""
    assert (ROOT / path).exists(), f"{document.name} names {path}"


@pytest.mark.parametrize(("document", "test"), named(TEST))
def test_every_test_that_is_named_exists(document: Path, test: str) -> None:
    """`tests/file.py::test_name` in a document is there to be run."""
    path, _, name = test.partition("::")
    text = (ROOT / path).read_text()
    assert re.search(rf"^(async )?def {name}\(", text, re.MULTILINE), (
        f"{document.name} names {test}"
    )


def test_every_hazard_is_shown_by_a_test() -> None:
    """A row of the table of hazards names at least one, or is the heading of a group."""
    text = (ROOT / "docs/security.md").read_text()
    table = text.partition("## Hazards")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 30
    assert [row for row in rows if not TEST.search(row) and not row.startswith("| **")] == []


@pytest.mark.parametrize(("document", "target"), named(LINK))
def test_every_link_leads_somewhere(document: Path, target: str) -> None:
    """A relative link is there, from the folder of its document."""
    assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_the_index_leads_to_files() -> None:
    """The README's table from ideas to files has its rows, each with one file, none twice."""
    section = (ROOT / "README.md").read_text().split("## From idea to file")[1].split("\n## ")[0]
    files = re.findall(r"^\| [^|]+ \| `([^`]+)` \|$", section, re.MULTILINE)
    assert len(files) >= INDEX_ROWS
    assert len(set(files)) == len(files)
    assert all((ROOT / file).is_file() for file in files)


def test_every_decision_is_listed() -> None:
    """The list of decisions has a link to each record."""
    folder = ROOT / "docs" / "decisions"
    listed = set(LINK.findall(prose(folder / "README.md")))
    assert {record.name for record in folder.glob("0*.md")} <= listed


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_make_target_exists(document: Path) -> None:
    """`make …` in a document is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    spans = re.findall(r"`make ([a-z-]+)[^`]*`", prose(document))
    lines = [line.split()[1] for line in commands(document, "sh") if line.startswith("make ")]
    assert set(spans + lines) <= targets


@pytest.mark.parametrize(
    "command", [pytest.param(line, id=line) for line in commands(ROOT / "README.md", "sh run")]
)
def test_commands_run(command: str, bin_folder: Path) -> None:
    """What the README tells to run in a block marked `sh run` ends with exit code 0."""
    program, *arguments = shlex.split(command)
    ours = bin_folder / program.removeprefix(".venv/bin/")
    done = subprocess.run(
        [str(ours), *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_verb_exists(bin_folder: Path) -> None:
    """`meshctl …` in the README, run by a test or not, is a verb that `meshctl` knows."""
    readme = ROOT / "README.md"
    lines = commands(readme, "sh", "sh run") + re.findall(r"`(meshctl [^`]*)`", prose(readme))
    verbs = {found[1] for line in lines if (found := re.match(r"\S*meshctl ([a-z]+)", line))}
    assert verbs
    for verb in sorted(verbs):
        done = subprocess.run(
            [str(bin_folder / "meshctl"), verb, "--help"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"meshctl {verb}: {done.stderr}"


def test_locks_say_nothing_of_where_packages_come_from() -> None:
    """Lock files hold versions and hashes: no address, no index, no path of somebody's machine."""
    for name in (
        "requirements.lock",
        "requirements-dev.lock",
        "requirements-bench.lock",
        "requirements-audit.lock",
    ):
        text = (ROOT / name).read_text()
        assert "://" not in text
        assert not re.search(r"^(-i|-f|--)", text, re.MULTILINE)
        assert not re.search(r"(^|\s)/\w", text)
        pins = re.split(r"\n(?=[a-z])", text[text.index("\n") :])[1:]
        assert pins
        assert all("==" in pin and "--hash=sha256:" in pin for pin in pins)


def test_locks_agree() -> None:
    """Whatever both locks name, they name in the same version: `make demo` runs what was tested."""
    runtime, development = (
        dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE))
        for name in ("requirements.lock", "requirements-dev.lock")
    )
    assert runtime.items() <= development.items()


@pytest.mark.parametrize(("what", "storyboard"), [("request", "exchange"), ("connection", "relay")])
def test_a_life_has_the_sections_of_the_code(what: str, storyboard: str) -> None:
    """Its numbered headings are the section comments of its storyboard, in the same order."""
    code = re.findall(
        r"^    # (\d\. [^-\n]+?) -+$",
        (ROOT / f"meshproxy/{storyboard}.py").read_text(),
        re.MULTILINE,
    )
    text = (ROOT / f"docs/life-of-a-{what}.md").read_text()
    assert len(code) >= 7
    assert code == re.findall(r"^## (\d\. .+)$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("path", "function"),
    [
        pytest.param(path, function, id=f"{path}:{function}")
        for document in sorted((ROOT / "docs").glob("life-of-*.md"))
        for path, function in re.findall(r"`([\w/]+\.py)` : `(\w+)`", document.read_text())
    ],
)
def test_every_step_of_a_life_is_where_it_is_said_to_be(path: str, function: str) -> None:
    """A row of the life documents names a file and a function in it."""
    assert re.search(rf"^\s*(async )?def {function}\(", (ROOT / path).read_text(), re.MULTILINE)
