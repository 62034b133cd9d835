"""The text of an API key: ``<mark><key id>-<secret><checksum>``, where the mark is ``sk-``, or ``sk_live_``.

With the checksum a typo or an unrelated string is rejected without a query. It proves nothing, since anyone who knows
the format can compute it.
"""

import re
import secrets
import string
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from zlib import crc32

from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.stores.arguments import items_of

# Lower case only: a database that compares without case must not find the row of another key.
_ID_ALPHABET = string.digits + string.ascii_lowercase
_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_ID_LENGTH = 16
_SECRET_LENGTH = 43  # 62 ** 43 > 2 ** 256
# The digits of base 62 squared: a checksum is computed for each request.
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_CHECKSUM_LENGTH = 6  # 62 ** 6 > 2 ** 32
KEY_ID = re.compile(f"[0-9a-z]{{{_ID_LENGTH}}}")
_PREFIX = re.compile(r"[A-Za-z](?:[A-Za-z0-9_-]{0,30}[A-Za-z0-9])?")
_ENVIRONMENT = re.compile(r"[a-z][a-z0-9]{0,15}")
_SHAPE = f"[0-9a-z]{{{_ID_LENGTH}}}-[0-9A-Za-z]{{{_SECRET_LENGTH + _CHECKSUM_LENGTH}}}"
_AFTER_ID = 1 + _SECRET_LENGTH + _CHECKSUM_LENGTH


class NewKey(NamedTuple):
    """A key that was just made: its id, which is not a secret, and its whole text, which is."""

    key_id: str
    raw: str

    def __repr__(self) -> str:
        """Show the id alone."""
        return f"NewKey(key_id={self.key_id!r})"


@dataclass(frozen=True, slots=True)
class KeyFormat:
    """The format of the keys of one deployment.

    Attributes:
        prefix: The start of each key: letters, digits, ``_`` and ``-``, at most 32; a letter first, no sign last.
        environments: The environments that keys are made for, such as ``("live", "test")``. Their keys begin with
            ``sk_live_`` and ``sk_test_``; without environments keys begin with ``sk-``.
        pattern: The regular expression that finds such a key in any text, in the common dialect of secret scanners.
        marks: The texts that a key may begin with.
    """

    prefix: str = "sk"
    environments: Sequence[str] = field(default=(), kw_only=True)
    pattern: str = field(init=False)
    marks: tuple[str, ...] = field(init=False, repr=False)
    _shape: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the prefix and the environments.

        Raises:
            ConfigurationError: One has a character that cannot be in a header, or that ends it.
        """
        if not isinstance(self.prefix, str) or not _PREFIX.fullmatch(self.prefix):
            msg = 'this prefix cannot begin a key: use letters, digits, "_" and "-", at most 32, such as "acme"'
            raise ConfigurationError(msg)
        environments = items_of("environments", self.environments, 'of texts, such as ("live", "test")')
        named = all(isinstance(name, str) and _ENVIRONMENT.fullmatch(name) for name in environments)
        if not named or len(set(environments)) < len(environments):
            msg = 'environments are names of lower case letters and digits, each once, such as ("live", "test")'
            raise ConfigurationError(msg)
        mark = f"{self.prefix}_(?:{'|'.join(environments)})_" if environments else f"{self.prefix}-"
        marks = tuple(f"{self.prefix}_{name}_" for name in environments) or (f"{self.prefix}-",)
        object.__setattr__(self, "environments", environments)
        object.__setattr__(self, "pattern", rf"\b{mark}{_SHAPE}\b")
        object.__setattr__(self, "marks", marks)
        object.__setattr__(self, "_shape", re.compile(mark + _SHAPE))

    def mark_of(self, environment: str | None) -> str:
        """Return the text that keys of an environment begin with; ``None`` chooses the only environment there is.

        Raises:
            ValueError: There is no such environment, or none was chosen of several.
        """
        if environment is None and len(self.marks) == 1:
            return self.marks[0]
        if environment is None or environment not in self.environments:
            among = f"one of {', '.join(self.environments)}" if self.environments else "not used by these keys"
            msg = f"environment is {among}"
            raise ValueError(msg)
        return f"{self.prefix}_{environment}_"

    def generate(self, environment: str | None = None) -> NewKey:
        """Return a new key with 256 random bits in its secret.

        Raises:
            ValueError: See ``mark_of``.
        """
        mark = self.mark_of(environment)
        key_id = "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))
        secret = "".join(secrets.choice(_ALPHABET) for _ in range(_SECRET_LENGTH))
        body = f"{mark}{key_id}-{secret}"
        return NewKey(key_id, body + checksum(body))

    def parse(self, raw: str) -> str | None:
        """Return the key id in the text of a key; ``None`` where it has another format, or a typo."""
        if not self._shape.fullmatch(raw) or checksum(raw[:-_CHECKSUM_LENGTH]) != raw[-_CHECKSUM_LENGTH:]:
            return None
        return raw[-_AFTER_ID - _ID_LENGTH : -_AFTER_ID]


def checksum(body: str) -> str:
    """Return the six characters that end a key: CRC-32 of the text before them, in base 62, digits first."""
    rest, last = divmod(crc32(body.encode("ascii")), len(_PAIRS))
    first, middle = divmod(rest, len(_PAIRS))
    return _PAIRS[first] + _PAIRS[middle] + _PAIRS[last]
