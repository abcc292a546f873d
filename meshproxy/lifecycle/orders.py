"""
What a parent tells its workers, and what they answer.

One answer to each order, in order.  The first order is `Begin`; configuration comes as `Hand`
(sockets), `Prepare`, and when all workers have prepared, `Commit`; when one could not, `Discard`.
"""

from typing import Any

from msgspec import Raw

from meshproxy.contract.resources import Snapshot
from meshproxy.contract.spec import Spec
from meshproxy.downstream.sockets import Place
from meshproxy.telemetry.counts import Counts

# From the parent ------------------------------------------------------------------------------


class Begin(Spec, frozen=True, kw_only=True, tag="begin", tag_field="type"):
    """
    Attributes:
        bootstrap: As the parent has read it.
        hold: Accept nothing before `Open`.
    """

    bootstrap: Raw
    hold: bool = False


class Believe(Spec, frozen=True, kw_only=True, tag="believe", tag_field="type"):
    """
    Use this certificate and these roots from now on.

    The key itself never travels: it lies in a file that only this user can read.
    """

    certificate: str | None
    key: str | None
    roots: str


class Hand(Spec, frozen=True, kw_only=True, tag="hand", tag_field="type"):
    """The sockets that come along listen in these places; configuration will speak of them."""

    places: tuple[Place, ...]


class Prepare(Spec, frozen=True, kw_only=True, tag="prepare", tag_field="type"):
    """Could you obey this?"""

    snapshot: Snapshot


class Commit(Spec, frozen=True, kw_only=True, tag="commit", tag_field="type"):
    """Obey what was prepared."""


class Discard(Spec, frozen=True, kw_only=True, tag="discard", tag_field="type"):
    """Forget what was prepared, if anything was."""


class Open(Spec, frozen=True, kw_only=True, tag="open", tag_field="type"):
    """Accept from now on."""


class Count(Spec, frozen=True, kw_only=True, tag="count", tag_field="type"):
    """What have you counted?"""


class Describe(Spec, frozen=True, kw_only=True, tag="describe", tag_field="type"):
    """How are your clusters?"""


class Recall(Spec, frozen=True, kw_only=True, tag="recall", tag_field="type"):
    """Whom have you denied what? `number` is what the caller was told; empty for all."""

    number: str


class Retreat(Spec, frozen=True, kw_only=True, tag="retreat", tag_field="type"):
    """Accept no more."""


class Drain(Spec, frozen=True, kw_only=True, tag="drain", tag_field="type"):
    """End when what runs has ended, or the drain time has."""


class Hurry(Spec, frozen=True, kw_only=True, tag="hurry", tag_field="type"):
    """End now."""


Order = (
    Begin | Believe | Hand | Prepare | Commit | Discard | Open | Count | Describe
    | Recall | Retreat | Drain | Hurry
)  # fmt: skip

# From a worker --------------------------------------------------------------------------------


class Done(Spec, frozen=True, kw_only=True, tag="done", tag_field="type"):
    """It is so."""


class Failed(Spec, frozen=True, kw_only=True, tag="failed", tag_field="type"):
    """It cannot be so; everything is as before (`ContractError`)."""

    path: str = ""
    reason: str


class Counted(Spec, frozen=True, kw_only=True, tag="counted", tag_field="type"):
    counts: Counts


class Described(Spec, frozen=True, kw_only=True, tag="described", tag_field="type"):
    clusters: list[dict[str, Any]]


class Recalled(Spec, frozen=True, kw_only=True, tag="recalled", tag_field="type"):
    denials: list[dict[str, Any]]


Answer = Done | Failed | Counted | Described | Recalled
