"""
What the compiler is told, and what the interpreter makes of it: nothing.

mypyc takes its orders as decorators of `mypy_extensions`, which a proxy need not have installed.
This module is not compiled.
"""

from typing import TYPE_CHECKING

__all__ = ["mypyc_attr"]

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr
else:

    def mypyc_attr(**_orders):
        """
        Leave a class as it is.

        `allow_interpreted_subclasses=True`: classes that are not compiled descend from it, too.
        """
        return lambda cls: cls
