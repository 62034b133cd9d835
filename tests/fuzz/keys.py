"""The text of API keys: what is taken apart is exactly what can be made."""

import re
from string import ascii_letters, ascii_lowercase, digits

from fastapi_guard import ConfigurationError
from fastapi_guard.api_key.format import KeyFormat

FORMATS = [KeyFormat(), KeyFormat("acme_live"), KeyFormat("a-b")]
BASE_62 = digits + ascii_letters.swapcase()
CHECKSUM = "{checksum}"


def checksum_of(text: str) -> str:
    """Return CRC-32, bit by bit, as six digits of base 62."""
    register = 0xFFFFFFFF
    for byte in text.encode():
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0xEDB88320 if register & 1 else 0)
    number, characters = register ^ 0xFFFFFFFF, []
    for _ in range(6):
        characters.append(BASE_62[number % 62])
        number //= 62
    return "".join(reversed(characters))


def id_in(prefix: str, text: str) -> str | None:
    """Return the id in a key, character by character; `None` if the text is not a key."""
    if len(text) != len(prefix) + 1 + 16 + 1 + 43 + 6 or not text.startswith(f"{prefix}-"):
        return None
    rest = text[len(prefix) + 1 :]
    key_id, dash, secret, check = rest[:16], rest[16], rest[17:60], rest[60:]
    well_made = dash == "-" and set(key_id) <= {*digits, *ascii_lowercase} and set(secret) <= set(BASE_62)
    return key_id if well_made and check == checksum_of(text[:-6]) else None


def text_of(raw: bytes) -> str:
    """Return the text that an input stands for: a checksum is asked for by its name."""
    text = raw.decode("utf-8", "surrogateescape")
    before, name, after = text.partition(CHECKSUM)
    return before + checksum_of(before.encode("utf-8", "replace").decode()) + after if name else text


async def check(raw: bytes) -> None:
    """Compare `parse` with the characters, and let the text be a prefix too."""
    text = text_of(raw)
    for known in FORMATS:
        assert known.parse(text) == id_in(known.prefix, text), text
        found = re.search(known.pattern, text)
        assert found or known.parse(text) is None, text
    try:
        own = KeyFormat(text)
    except ConfigurationError:
        assert not re.fullmatch("[A-Za-z][A-Za-z0-9]{0,31}", text), text
        return
    assert text.isascii()
    assert 1 <= len(text) <= 32
    new = own.generate()
    assert own.parse(new.raw) == new.key_id == id_in(text, new.raw)
    assert re.search(own.pattern, f"key={new.raw}\n")[0] == new.raw  # type: ignore[index]
