"""What classes are told for the compiler changes nothing about them."""

from meshproxy.native import mypyc_attr


def test_a_class_stays_what_it_is() -> None:
    """Interpreted, an order to the compiler is none."""

    class Plain:
        pass

    assert mypyc_attr(allow_interpreted_subclasses=True)(Plain) is Plain
