"""What the documents promise is what is tried."""

from meshproxy.refusal import REFUSALS
from tests.helpers.fault_matrix.document import DOCUMENT, parts, tables
from tests.helpers.fault_matrix.row import Row


def test_the_document_shows_the_matrix() -> None:
    """`python -m tests.helpers.fault_matrix.document` writes the tables anew."""
    assert parts(DOCUMENT.read_text())[1].strip() == tables().strip()


def test_a_refusal_is_said_in_the_words_of_each_protocol() -> None:
    """One code stands for the HTTP status, the gRPC status and the flag that belong to it."""
    row = Row("closed", "at=head do=close", "upstream-closed or 200", lanes={"http2": None})
    assert row.expected("http1") == ("502 upstream-closed", "200")
    assert row.expected("http2") == ()
    assert row.expected("grpc") == ("14 upstream-closed", "0")
    assert row.flags("http1") == (REFUSALS["upstream-closed"].flag, "-")
