from typing import Any

import pytest
from msgspec import Raw

from meshproxy.contract import wire
from meshproxy.contract.discovery import (
    PROTOCOL,
    Ack,
    Change,
    FromAuthority,
    FromPlane,
    FromProxy,
    Hello,
    Nack,
    Refused,
    Removal,
    SigningAnswer,
    SigningRequest,
    ToAuthority,
    Update,
)
from meshproxy.contract.resources import KINDS, ClusterSpec
from meshproxy.contract.wire import ContractError

CATALOG = ClusterSpec(name="catalog", mtls=True)
UPDATE = Update(
    nonce="1",
    version="abc",
    changed=(
        Change(
            kind="cluster",
            name="catalog",
            version=wire.resource_version(CATALOG),
            spec=Raw(wire.encode(CATALOG)),
        ),
    ),
    removed=(Removal(kind="listener", name="old"),),
)
MESSAGES: list[tuple[Any, Any]] = [
    (SigningRequest(workload="default/a", csr="PEM", token="t"), ToAuthority),
    (SigningRequest(workload="default/a", csr="PEM"), ToAuthority),
    (
        SigningAnswer(
            identity="spiffe://mesh.local/ns/default/sa/a",
            chain="PEM",
            roots=("PEM",),
            not_before=1,
            not_after=2,
        ),
        FromAuthority,
    ),
    (Refused(code="unknown-workload", reason="There is none.", retry=False), FromAuthority),
    (Refused(code="draining", reason="Bye."), FromPlane),
    (Hello(workload="default/a", version="x", held={"cluster": {"catalog": "1"}}), FromProxy),
    (Hello(workload="default/a", admin="127.0.0.1:15000", build="0.1.0"), FromProxy),
    (Ack(nonce="1", version="abc"), FromProxy),
    (
        Nack(nonce="1", version="", path="virtual_host/a routes[0]", reason="No such cluster."),
        FromProxy,
    ),
    (UPDATE, FromPlane),
]
BY_MESSAGE = pytest.mark.parametrize(
    ("message", "union"), MESSAGES, ids=lambda value: type(value).__name__
)


@BY_MESSAGE
def test_every_message_comes_back_as_itself(message: Any, union: Any) -> None:
    """The tag tells the messages of one direction apart."""
    assert wire.decode(wire.encode(message), union) == message


@BY_MESSAGE
def test_a_field_that_nobody_knows_is_refused(message: Any, union: Any) -> None:
    """Protocol versions say what is understood; silence about a field would hide a mistake."""
    data = wire.encode(message)[:-1] + b',"surprise":1}'
    with pytest.raises(ContractError, match="unknown field `surprise`"):
        wire.decode(data, union)


@pytest.mark.parametrize("union", [FromProxy, FromPlane, FromAuthority])
def test_a_message_without_its_type_is_refused(union: Any) -> None:
    """No guessing by shape."""
    with pytest.raises(ContractError, match="missing required field `type`"):
        wire.decode(b'{"nonce":"1","version":"abc"}', union)


@pytest.mark.parametrize("union", [FromProxy, FromPlane, FromAuthority, ToAuthority])
def test_an_unknown_type_is_refused(union: Any) -> None:
    """With the name of the field that is wrong."""
    with pytest.raises(ContractError, match="Invalid value 'gossip'") as caught:
        wire.decode(b'{"type":"gossip"}', union)
    assert caught.value.path == "type"


@pytest.mark.parametrize(
    ("message", "union"),
    [(UPDATE, FromProxy), (Ack(nonce="1", version=""), FromPlane), (UPDATE, ToAuthority)],
)
def test_a_message_of_the_other_direction_is_refused(message: Any, union: Any) -> None:
    """A proxy cannot push, and a plane cannot acknowledge."""
    with pytest.raises(ContractError):
        wire.decode(wire.encode(message), union)


def test_an_unknown_kind_is_refused() -> None:
    """A plane newer than the proxy must not be half obeyed."""
    data = b'{"type":"update","nonce":"1","version":"","removed":[{"kind":"filter","name":"a"}]}'
    with pytest.raises(ContractError) as caught:
        wire.decode(data, Update)
    assert caught.value.path == "removed[0].kind"


def test_the_spec_of_a_change_is_decoded_as_its_kind_asks() -> None:
    """It stays raw until then, so its version can be checked against the very bytes."""
    update = wire.decode(wire.encode(UPDATE), Update)
    (change,) = update.changed
    assert wire.digest(bytes(change.spec)) == change.version
    assert wire.decode(bytes(change.spec), KINDS[change.kind]) == CATALOG


def test_hello_speaks_the_current_protocol() -> None:
    """The number that both sides must share."""
    assert Hello(workload="a/b").protocol == PROTOCOL == 1
