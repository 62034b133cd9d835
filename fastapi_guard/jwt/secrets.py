"""Reject weak HMAC secrets: too short, a key that others may have, or a sample from a tutorial (RFC 7518 3.2, 3.3).

With a public key as the secret, anyone could sign. A key comes in many spellings: armoured or not, as DER, in base64 or
hexadecimal digits, as a JWK or a whole set. Beyond that, nothing is guessed from the bytes of a secret.
"""

import json
import re
from binascii import a2b_base64
from collections.abc import Iterator, Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from fastapi_guard.exceptions import ConfigurationError

_MINIMUM_BYTES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}  # RFC 7518 3.2
# Compared without case, punctuation and white space.
_SAMPLES: Final = (
    b"secretkey",  # your-secret-key, my_secret_key
    b"your256bitsecret",
    b"changeme",
    b"changethis",
    b"changeinproduction",
    b"supersecret",
    b"09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",  # of FastAPI's tutorial
)
_PUNCTUATION: Final = re.compile(rb"[^a-z0-9]")
# White space, also written as backslash and n in an environment file; quotes, colons between digits.
_LAYOUT: Final = re.compile(rb"\\[nr]|[\s\"':]")
_TO_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
_PARSERS: Final = (
    serialization.load_pem_public_key,
    serialization.load_der_public_key,
    serialization.load_ssh_public_key,
    x509.load_pem_x509_certificate,
    x509.load_der_x509_certificate,
    lambda raw: serialization.load_pem_private_key(raw, password=None),
    lambda raw: serialization.load_der_private_key(raw, password=None),
)


def check_secret(
    secret: bytes, algorithms: Sequence[str], *, named: str = "the secret", remedy: str | None = None
) -> None:
    """Reject a secret that is too short for one of ``algorithms``, or that others may have.

    Args:
        secret: The bytes.
        algorithms: The HMAC algorithms that use it.
        named: Its name in an error.
        remedy: How to make a better one, where it is not a key of joserfc.

    Raises:
        ConfigurationError: With the remedy.
    """
    needed = max((_MINIMUM_BYTES[name] for name in algorithms), default=_MINIMUM_BYTES["HS256"])
    remedy = remedy or f"use {needed} random bytes: jwk.OctKey.generate_key({needed * 8})"
    if len(secret) < needed:
        msg = f"{named} has {len(secret)} bytes, {', '.join(algorithms)} needs {needed} (RFC 7518 3.2): {remedy}"
        raise ConfigurationError(msg)
    if len(set(secret)) == 1:
        msg = f"{named} is one byte over and over, so it can be guessed: {remedy}"
        raise ConfigurationError(msg)
    spellings = tuple(_spellings(secret))
    if any(map(_is_key, spellings)):
        msg = f"{named} is a public key, a private key or a certificate, which others may have: {remedy}"
        raise ConfigurationError(msg)
    for spelling in spellings:
        plain = _PUNCTUATION.sub(b"", spelling.lower())
        if any(sample in plain for sample in _SAMPLES):
            msg = f"{named} contains a well-known sample, so it can be guessed: {remedy}"
            raise ConfigurationError(msg)


def _spellings(secret: bytes) -> Iterator[bytes]:
    yield secret
    compact = _LAYOUT.sub(b"", secret)
    for decode in (_from_base64, _from_hexadecimal):
        try:
            yield decode(compact)
        except ValueError:
            continue


def _from_base64(text: bytes) -> bytes:
    standard = text.translate(_TO_STANDARD).rstrip(b"=")
    return a2b_base64(standard + b"=" * (-len(standard) % 4), strict_mode=True)


def _from_hexadecimal(text: bytes) -> bytes:
    return bytes.fromhex(text.decode("ascii"))


def _is_key(raw: bytes) -> bool:
    if b"-----BEGIN " in raw or b"-----END " in raw or _is_jwk(raw):
        return True
    # DER may end in bytes that are white space in a text, so it is not stripped: its own length marks the end.
    for candidate in {raw, raw.strip(), _der(raw.lstrip())}:
        for parse in _PARSERS:
            try:
                parse(candidate)
            except Exception:  # noqa: BLE001, S112 - not a key of this form
                continue
            return True
    return False


def _is_jwk(raw: bytes) -> bool:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return False
    entries = value if isinstance(value, list) else [value]
    return any(isinstance(entry, dict) and not entry.keys().isdisjoint(("kty", "keys")) for entry in entries)


def _der(raw: bytes) -> bytes:
    # The tag, then the length: one byte, or the size of the number that follows (X.690 8.1.3).
    length_bytes = max(0, raw[1] - 0x80) if len(raw) > 1 else 0
    length = int.from_bytes(raw[2 : 2 + length_bytes]) if length_bytes else int.from_bytes(raw[1:2])
    return raw[: 2 + length_bytes + length]
