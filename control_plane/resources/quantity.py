"""Numbers of bytes as people write them in Kubernetes: ``65536``, ``64Ki``, ``1Mi``, ``100k``."""

import re

_QUANTITY = re.compile(r"([0-9]{1,15})(Ki|Mi|k|M)?", re.ASCII)
_UNITS = {None: 1, "k": 1000, "M": 1000**2, "Ki": 1024, "Mi": 1024**2}

EXPECTED = "expected a number of bytes such as 65536, 64Ki or 1Mi"


def bytes_of(value: int | str) -> int:
    """
    Return a quantity in bytes.

    Raises:
        ValueError: It is none.
    """
    found = _QUANTITY.fullmatch(str(value))
    if found is None:
        raise ValueError(f'"{value}" is not a number of bytes, {EXPECTED}')
    return int(found[1]) * _UNITS[found[2]]
