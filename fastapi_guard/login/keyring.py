"""The configured secrets of a login, by id: encrypt TOTP secrets, authenticate mailed codes.

A configured secret is never used as it is. Each purpose has a key of its own, derived with HMAC-SHA256 (RFC 5869, the
expand step), so that one secret of the deployment can serve several purposes.
"""

import hmac
import json
import re
import secrets
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretBytes, SecretStr

from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.jwt.compact import decode_base64url, encode_base64url
from fastapi_guard.jwt.secrets import check_secret
from fastapi_guard.stores.hidden import revealed

Secret = str | bytes | SecretStr | SecretBytes

_KEY_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")
_SINGLE: Final = "1"
_MINIMUM_BYTES: Final = 32
_NONCE_BYTES: Final = 12  # NIST SP 800-38D 8.2.2: random, of 96 bits
_REMEDY: Final = "use 32 random bytes: python -c 'import secrets; print(secrets.token_urlsafe(32))'"


class Keyring:
    """Secrets by id for one purpose: the first encrypts and authenticates, all of them decrypt and verify."""

    __slots__ = ("_keys", "_newest")

    def __init__(self, secret: Secret | Mapping[str, Secret], purpose: str) -> None:
        """Derive the keys of ``purpose``.

        Args:
            secret: One secret of at least 32 random bytes, or secrets by id such as ``{"2": "...", "1": "..."}``, the
                one to use first. A single secret has the id ``"1"``.
            purpose: What the keys are for; another purpose has other keys.

        Raises:
            ConfigurationError: A secret is short or well known, or an id is not 1 to 32 characters of
                ``A-Z a-z 0-9 _ -``.
        """
        named = secret if isinstance(secret, Mapping) else {_SINGLE: secret}
        if not named:
            msg = f"there is no key for {purpose}: {_REMEDY}"
            raise ConfigurationError(msg)
        self._keys = {_checked_id(name, purpose): _derived(named[name], purpose) for name in named}
        self._newest = next(iter(self._keys))

    def __repr__(self) -> str:
        """Show the ids alone."""
        return f"Keyring(ids={list(self._keys)})"

    def seal(self, plain: bytes, *owner: str) -> str:
        """Return ``plain`` encrypted with AES-256-GCM, bound to ``owner``: it does not open for another one.

        The text is the id of the key, a dot, and base64url of nonce and ciphertext, without padding.
        """
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = AESGCM(self._keys[self._newest]).encrypt(nonce, plain, _bound(owner))
        return f"{self._newest}.{encode_base64url(nonce + sealed).decode('ascii')}"

    def open(self, sealed: str, *owner: str) -> bytes | None:
        """Return what was sealed for ``owner``; ``None`` where the key is unknown or the text was not made for it."""
        name, _, text = sealed.partition(".")
        key = self._keys.get(name)
        if key is None:
            return None
        try:
            raw = decode_base64url(text.encode("ascii"))
            return AESGCM(key).decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _bound(owner))
        except (ValueError, InvalidTag):
            return None

    def is_current(self, text: str) -> bool:
        """Return whether ``text``, of ``seal`` or ``mac``, was made with the first key."""
        return text.partition(".")[0] == self._newest

    def mac(self, *message: str) -> str:
        """Return the HMAC-SHA256 of ``message``: the id of the key, a dot, hexadecimal digits."""
        return f"{self._newest}.{self._digest(self._newest, message)}"

    def matches(self, mac: str, *message: str) -> bool:
        """Return whether ``mac`` was made of ``message`` with a key that is still here, in constant time."""
        name, _, digest = mac.partition(".")
        known = name in self._keys
        expected = self._digest(name if known else self._newest, message)
        return hmac.compare_digest(expected.encode("ascii"), digest.encode("utf-8", "replace")) and known

    def derive(self, *message: str) -> bytes:
        """Return 32 bytes that only the first key makes of ``message``, the same each time."""
        return hmac.digest(self._keys[self._newest], _bound(message), "sha256")

    def _digest(self, name: str, message: tuple[str, ...]) -> str:
        return hmac.digest(self._keys[name], _bound(message), "sha256").hex()


def _bound(parts: tuple[str, ...]) -> bytes:
    # JSON keeps ("a", "bc") apart from ("ab", "c"), and has an escape for a lone surrogate.
    return json.dumps(parts, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def _checked_id(name: str, purpose: str) -> str:
    if not isinstance(name, str) or not _KEY_ID.fullmatch(name):
        msg = f"the id of a key for {purpose} is 1 to 32 characters of A-Z a-z 0-9 _ -"
        raise ConfigurationError(msg)
    return name


def _derived(secret: Secret, purpose: str) -> bytes:
    text = revealed(secret)
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if not isinstance(raw, bytes) or len(raw) < _MINIMUM_BYTES:
        msg = f"a key for {purpose} is text or bytes of at least {_MINIMUM_BYTES} bytes: {_REMEDY}"
        raise ConfigurationError(msg)
    check_secret(raw, ("HS256",), named=f"a key for {purpose}", remedy=_REMEDY)
    return hmac.digest(raw, f"fastapi_guard:{purpose}\x01".encode(), "sha256")


def mailing_keys(key: Secret | Mapping[str, Secret]) -> Keyring:
    """Return the keys of mailed secrets: at least 32 random bytes, or secrets by id, of which the first is used first.

    Raises:
        ConfigurationError: A key is weak.
    """
    return Keyring(key, "mailed secrets")
