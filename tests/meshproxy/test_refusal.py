import re
from pathlib import Path

import pytest

from meshproxy.refusal import _TABLE, REFUSALS, Refusal, refusal

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "refusals.md"
GRPC_CODES = range(1, 17)
BY_CODE = pytest.mark.parametrize("which", REFUSALS.values(), ids=lambda r: r.code)


def table() -> str:
    """Return the table as it stands in the document."""
    lines = [
        "| Code | Status | gRPC | Flag | Executed? | What happened |",
        "|---|--:|--:|---|---|---|",
    ]
    for r in REFUSALS.values():
        executed = "perhaps" if r.processed else "no"
        lines.append(
            f"| `{r.code}` | {r.status} | {r.grpc_status} | {r.flag} | {executed} | {r.sentence} |"
        )
    return "\n".join(lines)


def test_the_document_holds_the_table() -> None:
    """docs/refusals.md says what the program does; a failure prints the table to paste."""
    assert table() in DOCUMENT.read_text(), f"docs/refusals.md should contain:\n\n{table()}"


def test_codes_are_unique() -> None:
    """Of two rows with one code, the second would silently replace the first."""
    assert len(REFUSALS) == len(_TABLE)


def test_the_document_has_no_other_codes() -> None:
    """A row that outlived its refusal would mislead."""
    rows = re.findall(r"^\| `([a-z-]+)`", DOCUMENT.read_text(), re.MULTILINE)
    assert rows == list(REFUSALS)


def test_codes_that_were_published_stay() -> None:
    """Dashboards and clients know them; the list grows, and a removal is a decision."""
    published = {
        "malformed-request", "fields-too-large", "target-too-long", "version-not-supported",
        "head-timeout", "not-implemented", "no-route", "unresolved-backend",
        "not-ready", "mtls-required", "no-healthy-endpoint", "overflow", "connect-failed",
        "connect-timeout", "handshake-failed", "peer-identity-mismatch", "upstream-closed",
        "upstream-protocol-error", "downstream-closed",
    }  # fmt: skip
    assert published <= REFUSALS.keys()


@BY_CODE
def test_503_means_not_executed(which: Refusal) -> None:
    """A client may repeat any request that was answered 503, and must not trust 502 to be so."""
    if which.status == 503:
        assert not which.processed
    # Who calls where nobody may be called is answered 502 in Istio, which clients may rely on.
    if which.status in (502, 504) and which.code != "unknown-destination":
        assert which.processed


@BY_CODE
def test_what_the_client_did_wrong_was_not_executed(which: Refusal) -> None:
    """A 4xx is given before anything is forwarded, or for half a body; 499 is never sent at all."""
    if 400 <= which.status < 499 and which.code != "body-timeout":
        assert not which.processed


@BY_CODE
def test_every_refusal_is_well_formed(which: Refusal) -> None:
    """A code fit for a header and a label, codes that exist, a sentence that is one."""
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", which.code)
    assert 400 <= which.status <= 599
    assert which.grpc_status in GRPC_CODES
    assert re.fullmatch(r"-|[A-Z]{2,5}", which.flag)
    assert re.fullmatch(r"[A-Z][^|\r\n]+\.", which.sentence)


def test_a_refusal_is_found_by_its_code() -> None:
    """And a code that does not exist is a mistake of ours, not a default."""
    assert refusal("no-route").status == 404
    with pytest.raises(KeyError):
        refusal("no-such-thing")


def test_every_refusal_is_given_somewhere() -> None:
    """A row that nothing answers with would promise what never comes."""
    root = Path(__file__).parent.parent.parent / "meshproxy"
    code = "".join(path.read_text() for path in root.rglob("*.py") if path.name != "refusal.py")
    assert [name for name in REFUSALS if f'"{name}"' not in code] == []
