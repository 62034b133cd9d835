"""Values that the log of a database does not show: the repr of the value is replaced, the value is unchanged."""


class HiddenBytes(bytes):
    """Bytes whose repr is ``<hidden>``, so that no log of a statement, a row or an error shows them."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Return ``<hidden>``."""
        return "<hidden>"

    __str__ = __repr__


class HiddenText(str):
    """A text whose repr is ``<hidden>``; ``str()`` returns the text itself."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Return ``<hidden>``."""
        return "<hidden>"
