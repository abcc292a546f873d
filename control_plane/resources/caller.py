"""The rules for ``from``: who calls, as policies ask it."""

from meshproxy.contract.spiffe import SpiffeError, SpiffeId

from .finding import Path
from .policies import From
from .route import MAX_ITEMS, Problems, at_most, no_repetition

ANY_REST = "*"


def problems_of_caller(path: Path, source: From) -> Problems:
    """Yield what is wrong with a list of identities, each with any rest where it ends in a ``*``."""
    where = (*path, "principals")
    yield from at_most(where, source.principals, MAX_ITEMS)
    yield from no_repetition(where, source.principals)
    for index, principal in enumerate(source.principals):
        # What an ID could go on with after a prefix is checked with one letter of it.
        whole = (
            f"{principal.removesuffix(ANY_REST)}a" if principal.endswith(ANY_REST) else principal
        )
        try:
            SpiffeId.parse(whole)
        except SpiffeError:
            message = (
                f'"{principal}" is not an identity, expected such as '
                "spiffe://mesh.local/ns/default/sa/books or spiffe://mesh.local/ns/default/*"
            )
            yield (*where, index), message
