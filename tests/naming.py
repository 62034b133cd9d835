"""How a case of a table of tests is called."""


def named(value: object) -> str:
    """Return the beginning of what `value` looks like, without an address.

    In plain ASCII: pytest escapes the rest once more each time that one process collects the tests.
    """
    text = getattr(value, "__name__", ascii(value))
    return text.partition(" object at ")[0].replace("\\", "")[:40]
