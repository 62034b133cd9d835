"""What is stored instead of a key: HMAC-SHA256 of its text, under a salt of its own and a pepper of the deployment."""

import hmac
import json
import os
import secrets
from collections.abc import Mapping
from typing import NamedTuple

from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.stores.hidden import HiddenBytes

SALT_BYTES = 16
DIGEST_BYTES = 32
PEPPERS_VARIABLE = "FASTAPI_GUARD_PEPPERS"

_MIN_PEPPER_BYTES = 16
_MAX_VERSION_LENGTH = 32


class StoredDigest(NamedTuple):
    """What is kept of a key.

    Attributes:
        salt: Random bytes of this key.
        digest: HMAC-SHA256(salt + pepper, text of the key).
        pepper: The version of the pepper that went in, ``None`` for none.
    """

    salt: bytes
    digest: bytes
    pepper: str | None


class Peppers:
    """The secrets of a deployment that go into each digest and are not in the database.

    New keys get the newest: the highest version where all are numbers, else the first. The older ones still verify.
    """

    __slots__ = ("_newest", "_secrets")

    def __init__(self, peppers: Mapping[str, str | bytes] | None = None) -> None:
        """Take secrets by version, such as ``{"2": "...", "1": "..."}``.

        Raises:
            ConfigurationError: A version is no short text, or a secret is too short.
        """
        self._secrets = {version: _secret(version, secret) for version, secret in (peppers or {}).items()}
        versions = list(self._secrets)
        if all(version.isdecimal() for version in versions):
            versions.sort(key=int, reverse=True)
        self._newest = versions[0] if versions else None

    @classmethod
    def from_environment(cls, variable: str = PEPPERS_VARIABLE) -> "Peppers":
        """Read the peppers from an environment variable: a JSON object, secrets by version. Not set: none.

        Raises:
            ConfigurationError: It is not such an object.
        """
        text = os.environ.get(variable, "")
        if not text:
            return cls()
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict) or not all(isinstance(secret, str) for secret in found.values()):
            msg = f'{variable} is a JSON object, secrets by version, such as {{"1": "..."}}'
            raise ConfigurationError(msg)
        return cls(found)

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._secrets)

    def __repr__(self) -> str:
        """Show the versions alone."""
        return f"Peppers(versions={list(self._secrets)})"

    def store(self, raw: str) -> StoredDigest:
        """Return what to keep of a new key."""
        salt = secrets.token_bytes(SALT_BYTES)
        digest = self._digest(raw, salt, self._newest)
        return StoredDigest(HiddenBytes(salt), HiddenBytes(digest), self._newest)

    def matches(self, raw: str, stored: StoredDigest) -> bool:
        """Return whether ``stored`` was made of ``raw``, in constant time; an unknown pepper matches nothing."""
        known = stored.pepper is None or stored.pepper in self._secrets
        same = hmac.compare_digest(self._digest(raw, stored.salt, stored.pepper), stored.digest)
        return same and known

    def _digest(self, raw: str, salt: bytes, version: str | None) -> bytes:
        pepper = b"" if version is None else self._secrets.get(version, b"")
        # Not hmac.digest(): it lets go of the interpreter lock, and waits for it again while a worker thread has it.
        return hmac.new(salt + pepper, raw.encode("ascii"), "sha256").digest()


# Stands in where there is no row: what is asked of it costs the same work, and nothing matches it.
NOBODY = StoredDigest(HiddenBytes(SALT_BYTES), HiddenBytes(DIGEST_BYTES), None)


def _secret(version: str, secret: str | bytes) -> bytes:
    if not isinstance(version, str) or not version or len(version) > _MAX_VERSION_LENGTH or not version.isprintable():
        msg = f"the version of a pepper is a text of 1 to {_MAX_VERSION_LENGTH} characters, not {version!r}"
        raise ConfigurationError(msg)
    encoded = secret.encode("utf-8") if isinstance(secret, str) else secret
    if not isinstance(encoded, bytes) or len(encoded) < _MIN_PEPPER_BYTES:
        msg = (
            f"pepper {version!r} is shorter than {_MIN_PEPPER_BYTES} bytes: make one with"
            " python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
        raise ConfigurationError(msg)
    return encoded
