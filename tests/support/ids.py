"""Name the cases of parametrized tests."""


def case_id(value: object) -> str:
    """Return the beginning of the `repr` of a value, or its name, without an address.

    It is the same in every process that collects the tests, as pytest-xdist requires, and plain ASCII, since pytest
    escapes other characters once more each time that one process collects the tests.
    """
    text = getattr(value, "__name__", ascii(value))
    return text.partition(" object at ")[0].replace("\\", "")[:40]
