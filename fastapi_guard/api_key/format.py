"""The text of an API key: ``<prefix>-<key id>-<secret><checksum>``, made and taken apart here.

The checksum lets a typo, a stranger's string and the find of a secret scanner be judged without a query. It proves
nothing: whoever knows the format can compute it.
"""

import re
import secrets
import string
from dataclasses import dataclass, field
from typing import NamedTuple
from zlib import crc32

from fastapi_guard.exceptions import ConfigurationError

# Lower case only, so that a database that compares without case finds no other key's row.
_ID_ALPHABET = string.digits + string.ascii_lowercase
_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_ID_LENGTH = 16
_SECRET_LENGTH = 43  # 62 ** 43 > 2 ** 256
_CHECKSUM_LENGTH = 6  # 62 ** 6 > 2 ** 32
KEY_ID = re.compile(f"[0-9a-z]{{{_ID_LENGTH}}}")
_PREFIX = re.compile(r"[A-Za-z](?:[A-Za-z0-9_-]{0,30}[A-Za-z0-9])?")


class NewKey(NamedTuple):
    """A key that was just made: its id, which is no secret, and its whole text, which is."""

    key_id: str
    raw: str

    def __repr__(self) -> str:
        """Show the id alone."""
        return f"NewKey(key_id={self.key_id!r})"


@dataclass(frozen=True, slots=True)
class KeyFormat:
    """How the keys of one deployment look.

    Attributes:
        prefix: What each begins with: letters, digits, ``_`` and ``-``, at most 32, a letter first and no sign last.
        pattern: The regular expression that finds such a key in any text, in the common dialect of secret scanners.
    """

    prefix: str = "sk"
    pattern: str = field(init=False)
    _shape: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the prefix.

        Raises:
            ConfigurationError: It could not stand in a header, or not be told from what follows.
        """
        if not isinstance(self.prefix, str) or not _PREFIX.fullmatch(self.prefix):
            msg = f'prefix {self.prefix!r} cannot begin a key: use letters, digits, "_" and "-", such as "acme_live"'
            raise ConfigurationError(msg)
        shape = f"-[0-9a-z]{{{_ID_LENGTH}}}-[0-9A-Za-z]{{{_SECRET_LENGTH + _CHECKSUM_LENGTH}}}"
        object.__setattr__(self, "pattern", rf"\b{self.prefix}{shape}\b")
        object.__setattr__(self, "_shape", re.compile(self.prefix + shape))

    def generate(self) -> NewKey:
        """Return a new key, with 256 random bits in its secret."""
        key_id = "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))
        secret = "".join(secrets.choice(_ALPHABET) for _ in range(_SECRET_LENGTH))
        body = f"{self.prefix}-{key_id}-{secret}"
        return NewKey(key_id, body + checksum(body))

    def parse(self, raw: str) -> str | None:
        """Return the key id in the text of a key; ``None`` where it is none of this format, or has a typo."""
        if not self._shape.fullmatch(raw) or checksum(raw[:-_CHECKSUM_LENGTH]) != raw[-_CHECKSUM_LENGTH:]:
            return None
        start = len(self.prefix) + 1
        return raw[start : start + _ID_LENGTH]


def checksum(body: str) -> str:
    """Return the six characters that end a key: CRC-32 of what stands before them, in base 62, digits first."""
    number = crc32(body.encode("ascii"))
    characters = ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        characters = _ALPHABET[digit] + characters
    return characters
