"""Names of records in a store: keys and owners as bytes of bounded length, and the kinds of records.

A subject comes from a token, so that its length is the issuer's choice. A name that is too long for an index of a
database is stored as its SHA-256, by every store in the same way.
"""

from hashlib import sha256
from typing import Final

# Four bytes for each of 255 characters. An index of PostgreSQL rejects entries of more than 2,704 bytes.
MAX_NAME_BYTES: Final = 1024
# No other name begins with this byte: a text that does is hashed too.
_HASHED: Final = b"\x00"


class HashedName(str):
    """A name that was too long to store, as a store returns it: its SHA-256 in hexadecimal.

    The type makes the difference: a text of the same 64 characters is another name.
    """

    __slots__ = ()


def encode_name(text: str) -> bytes:
    """Return the bytes to store for a key or an owner, at most ``MAX_NAME_BYTES``."""
    if isinstance(text, HashedName):
        return _HASHED + bytes.fromhex(text)
    encoded = text.encode("utf-8", "surrogatepass")
    if len(encoded) <= MAX_NAME_BYTES and not encoded.startswith(_HASHED):
        return encoded
    return _HASHED + sha256(encoded).digest()


def decode_name(stored: bytes) -> str:
    """Return the text of a name that ``encode_name`` encoded, or the HashedName where it was too long."""
    if stored.startswith(_HASHED):
        return HashedName(stored[1:].hex())
    return stored.decode("utf-8", "surrogatepass")
