"""What descends from a neighbour has to say for itself how it does what is asked of it."""

from typing import Any

import pytest

from meshproxy.message import RequestHead
from meshproxy.neighbours import Caller, Cluster, Endpoint, Guard, Series, Surroundings
from meshproxy.policies.limits import Limit
from meshproxy.policies.load_balancing.tokens import Tokens

HEAD = RequestHead(b"GET", b"catalog", b"/", [])


@pytest.mark.parametrize(
    ("kind", "method", "arguments"),
    [
        (Endpoint, "acquire", (None,)),
        (Endpoint, "acquire_apart", (None,)),
        (Endpoint, "forget", (None,)),
        (Endpoint, "judge", (200, None, "", 0.1, 100.0)),
        (Cluster, "resume", (b"token", Tokens(b"secret" * 8, lambda: 0.0))),
        (Cluster, "admits", (Limit("requests"),)),
        (Cluster, "refusal", (Limit("requests"),)),
        (Series, "record", (200, "-", 0.1)),
        (Guard, "stop", (HEAD, None)),
        (Caller, "leads_to", (b"catalog",)),
        (Caller, "grpc_ended", ("route", "service", "0")),
        (Surroundings, "later", (1.0, print)),
        (Surroundings, "refused", ("inbound", "no-route")),
    ],
)
def test_what_is_left_open_is_an_error(
    kind: type[Any], method: str, arguments: tuple[Any, ...]
) -> None:
    """A method that was forgotten does not pass for one that does nothing."""

    class Half(kind):  # type: ignore[misc]
        """It has said nothing yet."""

    with pytest.raises(NotImplementedError):
        getattr(Half(), method)(*arguments)


def test_what_was_not_set_cannot_be_read() -> None:
    """No neighbour has an attribute that nobody has given it."""
    with pytest.raises(AttributeError):
        _ = Cluster().budget
